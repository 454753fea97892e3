//! Timing an operation on a device.

use std::time::{Duration, Instant};

use siluette::device::{Loaded, NamedTensors};
use siluette::registry::Prepared;
use siluette::{Cost, Device, Error, Tensor};

use super::Subject;
use super::processor::Stream;

/// A device that does not tell its cache's size is taken to have this much: more than most GPUs have.
pub const ASSUMED_CACHE_BYTES: u64 = 96 << 20;

/// Copies of small tensors beyond this number take more time to make than they make colder.
const MOST_COPIES: u64 = 4_096;
/// How long to go on measuring, warm-up apart.
const SAMPLING: Duration = Duration::from_millis(400);
const FEWEST_SAMPLES: usize = 5;
const MOST_SAMPLES: usize = 500;
/// A sample of runs on the same tensors is not shorter, so that the clock does not count.
const SHORTEST_SAMPLE: Duration = Duration::from_millis(1);

/// Seconds that one run took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    pub median: f64,
    pub min: f64,
    pub samples: usize,
}

/// An operation's timings on a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    /// Every run on tensors that have left the cache.
    pub cold: Timing,
    /// Bytes that were touched between two runs on the same tensors.
    pub cold_bytes: u64,
    /// Kernel launches, or dispatches, of one run on a device.
    pub launches: Option<usize>,
    /// Bytes a second that memory gave in between, where that can be asked: the median.
    pub memory: Option<f64>,
    /// Every run on the tensors of the run before; `None` where they do not fit in the cache.
    pub hot: Option<Timing>,
}

impl Timing {
    fn new(mut seconds: Vec<f64>) -> Timing {
        seconds.sort_by(f64::total_cmp);
        let samples = seconds.len();
        Timing { median: seconds[samples / 2], min: seconds[0], samples }
    }
}

/// Measures a subject, cold and hot; `memory` is read in turns with it.
pub fn measure(
    subject: &Subject,
    device: &Device,
    memory: Option<&Stream>,
) -> Result<(Cost, Measurement), Error> {
    let cache = device.cache_bytes().unwrap_or(ASSUMED_CACHE_BYTES);
    let first = (subject.prepare)(0)?;
    let cost = first.cost();
    let copies = copies(cost.bytes(), cache);
    let mut loaded = vec![load(&*first, device)?];
    for _ in (subject.variants..copies).step_by(subject.variants) {
        loaded.push(load(&*first, device)?);
    }
    drop(first);
    for variant in 1..subject.variants.min(copies) {
        let prepared = (subject.prepare)(variant)?;
        for _ in (variant..copies).step_by(subject.variants) {
            loaded.push(load(&*prepared, device)?);
        }
    }
    let (cold, memory) = time(device, &mut loaded, memory)?;
    let cold_bytes = cost.bytes() * loaded.len() as u64;
    let launches = loaded[0].launches();
    loaded.truncate(1);
    let hot = if cost.bytes() <= cache { Some(time(device, &mut loaded, None)?.0) } else { None };
    Ok((cost, Measurement { cold, cold_bytes, launches, memory, hot }))
}

/// How many copies exceed twice the cache together: one, where one alone does.
fn copies(bytes: u64, cache: u64) -> usize {
    (2 * cache / bytes.max(1) + 1).min(MOST_COPIES) as usize
}

/// The operation with its tensors in the device's memory.
pub fn load(prepared: &dyn Prepared, device: &Device) -> Result<Box<dyn Loaded>, Error> {
    let outputs = prepared.outputs().iter();
    let outputs: NamedTensors =
        outputs.map(|(name, layout)| (name.clone(), Tensor::zeros(*layout))).collect();
    prepared.load(device, outputs)
}

/// Times runs that take turns on these copies; a single copy is run repeatedly.
///
/// Where the device can record runs, a sample is all copies' turns together: a model's layers in one graph, without the
/// time that launching each takes the host. `memory` is read in between, for no more time than the runs take: machines
/// share their memory with others, and its speed a minute ago says little.
pub fn time(
    device: &Device,
    loaded: &mut [Box<dyn Loaded>],
    memory: Option<&Stream>,
) -> Result<(Timing, Option<f64>), Error> {
    // Compiles kernels, wakes threads and leaves the first copy the longest unused.
    let mut warm_up = Duration::ZERO;
    for copy in &mut *loaded {
        warm_up = copy.run(1)?;
    }
    let rounds = if loaded.len() > 1 { 1 } else { iterations(loaded, warm_up)? };
    let runs = rounds * loaded.len() as u32;
    if let Some(mut recorded) = device.record(loaded, rounds)? {
        // The first start of a graph takes longer.
        recorded.run()?;
        return sample(runs, memory, |_| recorded.run());
    }
    sample(rounds, memory, |turn| loaded[turn % loaded.len()].run(rounds))
}

/// Takes samples, each of so many runs.
fn sample(
    runs: u32,
    memory: Option<&Stream>,
    mut run: impl FnMut(usize) -> Result<Duration, Error>,
) -> Result<(Timing, Option<f64>), Error> {
    let (mut running, mut reading) = (Duration::ZERO, Duration::ZERO);
    let (mut seconds, mut bytes_per_second) = (Vec::new(), Vec::new());
    for turn in 0..MOST_SAMPLES {
        if turn >= FEWEST_SAMPLES && running >= SAMPLING {
            break;
        }
        if let Some(memory) = memory.filter(|_| reading <= running) {
            let started = Instant::now();
            bytes_per_second.push(memory.read());
            reading += started.elapsed();
        }
        let started = Instant::now();
        seconds.push(run(turn)?.as_secs_f64() / f64::from(runs));
        running += started.elapsed();
    }
    Ok((Timing::new(seconds), median(bytes_per_second)))
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// How often to run for a sample of sufficient length.
fn iterations(loaded: &mut [Box<dyn Loaded>], warm_up: Duration) -> Result<u32, Error> {
    let once = match loaded {
        [single] if warm_up < SHORTEST_SAMPLE => single.run(1)?,
        _ => warm_up,
    };
    let once = once.max(Duration::from_nanos(100));
    Ok((SHORTEST_SAMPLE.as_secs_f64() / once.as_secs_f64()).ceil().max(1.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_exceed_twice_the_cache() {
        assert_eq!(copies(100, 10), 1);
        assert_eq!(copies(20, 10), 2);
        assert_eq!(copies(10, 10), 3);
        assert_eq!(copies(3, 10), 7);
        assert_eq!(copies(0, 10), 21);
        assert_eq!(copies(1, 1 << 40), MOST_COPIES as usize);
    }

    #[test]
    fn the_median_is_of_the_sorted_samples() {
        let timing = Timing::new(vec![3.0, 1.0, 9.0]);
        assert_eq!(timing, Timing { median: 3.0, min: 1.0, samples: 3 });
    }
}
