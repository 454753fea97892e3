//! Contestants in turns.

use std::time::{Duration, Instant};

use candle_core::Tensor;
use siluette::Float;

/// How long to go on, and how many rounds at least.
const SAMPLING: Duration = Duration::from_millis(1_500);
const FEWEST_ROUNDS: usize = 5;
const MOST_ROUNDS: usize = 200;
/// Results may differ by candle's roundings of each step, relative to the largest.
const LARGEST_DIFFERENCE: f32 = 0.05;

/// Seconds of one call.
pub struct Medians {
    pub siluette: f64,
    pub candle: f64,
}

pub type Failure = Box<dyn std::error::Error>;

/// Runs both on the layers of their own turns, of `layers` in all.
pub fn in_turns(
    layers: usize,
    mut ours: impl FnMut(usize) -> Result<(), Failure>,
    mut theirs: impl FnMut(usize) -> Result<(), Failure>,
) -> Result<Medians, Failure> {
    let seconds = |run: &mut dyn FnMut(usize) -> Result<(), Failure>, layer| {
        let start = Instant::now();
        run(layer)?;
        Ok::<f64, Failure>(start.elapsed().as_secs_f64())
    };
    let (mut siluette, mut candle) = (Vec::new(), Vec::new());
    let started = Instant::now();
    for round in 0..MOST_ROUNDS {
        if round >= FEWEST_ROUNDS && started.elapsed() >= SAMPLING {
            break;
        }
        siluette.push(seconds(&mut ours, 2 * round % layers)?);
        candle.push(seconds(&mut theirs, (2 * round + 1) % layers)?);
    }
    Ok(Medians { siluette: median(siluette), candle: median(candle) })
}

/// That both do the same work.
pub fn check_equal<T: Float>(ours: &[T], theirs: &Tensor) -> Result<(), Failure> {
    let theirs = theirs.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let largest = theirs.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let worst = ours
        .iter()
        .zip(&theirs)
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
