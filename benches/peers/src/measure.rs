//! Contestants in turns.

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_core::Tensor;
use siluette::Float;

use crate::weights::Random;

/// How long to go on, and how many rounds at least.
const SAMPLING: Duration = Duration::from_secs(3);
const FEWEST_ROUNDS: usize = 5;
const MOST_ROUNDS: usize = 200;
/// Results may differ by candle's roundings of each step, relative to the largest.
const LARGEST_DIFFERENCE: f32 = 0.05;

pub type Failure = Box<dyn std::error::Error>;

/// Who it is, and how it runs on a layer of that number: in how many seconds.
pub struct Contestant<'a> {
    name: &'static str,
    run: Box<dyn FnMut(usize) -> Result<f64, Failure> + 'a>,
}

impl<'a> Contestant<'a> {
    /// One with a clock of its own.
    pub fn new(
        name: &'static str,
        run: impl FnMut(usize) -> Result<f64, Failure> + 'a,
    ) -> Contestant<'a> {
        Contestant { name, run: Box::new(run) }
    }

    /// One on rayon's threads. They are awake when the clock starts: who slept while another ran depends on the order. What it
    /// gives is dropped before the clock stops.
    pub fn timed<R>(
        name: &'static str,
        mut run: impl FnMut(usize) -> Result<R, Failure> + 'a,
    ) -> Contestant<'a> {
        Contestant::new(name, move |layer| {
            rayon::broadcast(|_| ());
            let start = Instant::now();
            drop(black_box(run(layer)?));
            Ok(start.elapsed().as_secs_f64())
        })
    }
}

/// Seconds of one call, by contestant: siluette first, then candle, then others.
pub type Medians = Vec<(&'static str, f64)>;

/// Runs all on the layers of their own turns, of `layers` in all. Each round has an order of its own: who runs behind whom
/// matters, by what that one leaves in the caches and by threads that are not yet asleep.
pub fn in_turns(layers: usize, mut contestants: Vec<Contestant<'_>>) -> Result<Medians, Failure> {
    let count = contestants.len();
    let mut seconds = vec![Vec::new(); count];
    let (mut order, mut random): (Vec<usize>, _) = ((0..count).collect(), Random(11));
    let started = Instant::now();
    for round in 0..MOST_ROUNDS {
        if round >= FEWEST_ROUNDS && started.elapsed() >= SAMPLING {
            break;
        }
        shuffle(&mut order, &mut random);
        for &index in &order {
            // Each goes through all layers, far from where the others are: some share their weights.
            let layer = (round + index * layers / count) % layers;
            seconds[index].push((contestants[index].run)(layer)?);
        }
    }
    let names = contestants.iter().map(|contestant| contestant.name);
    Ok(names.zip(seconds.into_iter().map(median)).collect())
}

/// Fisher and Yates'.
fn shuffle(order: &mut [usize], random: &mut Random) {
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last + 1));
    }
}

/// That both do the same work.
pub fn check_equal<T: Float>(ours: &[T], theirs: &Tensor) -> Result<(), Failure> {
    let theirs = theirs.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    check_near(ours, &theirs)
}

/// As [`check_equal`], of values.
pub fn check_near<T: Float>(ours: &[T], theirs: &[f32]) -> Result<(), Failure> {
    let largest = theirs.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let worst = ours
        .iter()
        .zip(theirs)
        .fold(0f32, |worst, (ours, theirs)| worst.max((ours.to_f32() - theirs).abs()));
    if worst <= LARGEST_DIFFERENCE * largest {
        return Ok(());
    }
    Err(format!("results differ by {worst} where the largest is {largest}").into())
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
