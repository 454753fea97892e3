//! Contestants in turns.

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor, WithDType};
use siluette::{Cpu, Element, Float, GatedMlp, GatedMlpArgs, TensorMut, TensorRef, Workspace};

use crate::weights::{Layer, Layers, Random};

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

type Failure = Box<dyn std::error::Error>;

pub fn measure<T: Float + WithDType>(layers: &Layers<T>, rows: usize) -> Result<Medians, Failure> {
    let (hidden, ffn) = (layers.hidden, layers.ffn);
    let x: Vec<T> = Random(7).values(rows * hidden, 2.0);
    let candle_x = Tensor::from_slice(&x, (rows, hidden), &Device::Cpu)?;
    let op = GatedMlp::new(hidden, ffn, <T as Element>::DTYPE)?;
    let (cpu, mut workspace) = (Cpu::new(), Workspace::default());
    let mut out = x.clone();
    let mut ours = |layer: &Layer<T>, out: &mut Vec<T>| -> Result<(), Failure> {
        let args = GatedMlpArgs::new(
            TensorRef::new(&x, &[rows, hidden])?,
            TensorRef::new(&layer.gate, &[ffn, hidden])?,
            TensorRef::new(&layer.up, &[ffn, hidden])?,
            TensorRef::new(&layer.down, &[hidden, ffn])?,
            TensorMut::new(out, &[rows, hidden])?,
        );
        Ok(cpu.gated_mlp(&op, args, &mut workspace)?)
    };

    ours(&layers.all[0], &mut out)?;
    check_equal(&out, &candle_mlp(&candle_x, &layers.all[0])?)?;

    let (mut siluette, mut candle) = (Vec::new(), Vec::new());
    let started = Instant::now();
    for round in 0..MOST_ROUNDS {
        if round >= FEWEST_ROUNDS && started.elapsed() >= SAMPLING {
            break;
        }
        let layer = |turn: usize| &layers.all[(2 * round + turn) % layers.all.len()];
        let start = Instant::now();
        ours(layer(0), &mut out)?;
        siluette.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        black_box(candle_mlp(&candle_x, layer(1))?);
        candle.push(start.elapsed().as_secs_f64());
    }
    Ok(Medians { siluette: median(siluette), candle: median(candle) })
}

fn candle_mlp<T>(x: &Tensor, layer: &Layer<T>) -> candle_core::Result<Tensor> {
    let [gate, up, down] = &layer.candle;
    let h = (x.matmul(&gate.t()?)?.silu()? * x.matmul(&up.t()?)?)?;
    h.matmul(&down.t()?)
}

/// That both do the same work.
fn check_equal<T: Float>(ours: &[T], theirs: &Tensor) -> Result<(), Failure> {
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
