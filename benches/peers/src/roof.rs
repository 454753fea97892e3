//! What this machine can do at best, measured in the same run.

// `siluette bench` measures the same.
#[path = "../../../src/bin/siluette/bench/processor.rs"]
mod processor;

use serde_json::{Value, json};
use siluette::{Backend, DType, Device};

use crate::measure::Failure;

/// Memory's speed and the arithmetic's, on all of rayon's threads.
pub struct Roof {
    bytes_per_second: f64,
    flops_per_second: f64,
    /// Of bf16 with sums in f32, where instructions for that exist: AMX's from registers.
    bf16_flops_per_second: Option<f64>,
}

/// What a call has to move and to compute at least.
#[derive(Clone, Copy)]
pub struct Products {
    /// Elements of the matrices, each of which is read once.
    pub weights: usize,
    /// Elements a row that come in or go out.
    pub features: usize,
}

impl Roof {
    pub fn measure() -> Result<Roof, Failure> {
        let cache = Device::open(Backend::Cpu)?.cache_bytes().unwrap_or(0);
        Ok(Roof {
            bytes_per_second: processor::Stream::new(cache).best(),
            flops_per_second: processor::flops_per_second(),
            bf16_flops_per_second: processor::bf16_flops_per_second(),
        })
    }

    /// The higher of two measurements.
    pub fn higher(&self, other: &Roof) -> Roof {
        let bf16 = self.bf16_flops_per_second.zip(other.bf16_flops_per_second);
        Roof {
            bytes_per_second: self.bytes_per_second.max(other.bytes_per_second),
            flops_per_second: self.flops_per_second.max(other.flops_per_second),
            bf16_flops_per_second: bf16.map(|(one, other)| one.max(other)),
        }
    }

    /// The shortest time in which products of `rows` can be done, in seconds.
    pub fn shortest(&self, products: &Products, rows: usize, dtype: DType) -> f64 {
        let peak = match self.bf16_flops_per_second {
            // Some processors are faster with widened values than with their instructions for bf16.
            Some(peak) if dtype == DType::BF16 => peak.max(self.flops_per_second),
            _ => self.flops_per_second,
        };
        let elements = products.weights + rows * products.features;
        let moving = (elements * dtype.size()) as f64 / self.bytes_per_second;
        moving.max((2 * rows * products.weights) as f64 / peak)
    }

    pub fn json(&self) -> Value {
        json!({
            "bytes_per_second": self.bytes_per_second,
            "flops_per_second": self.flops_per_second,
            "bf16_flops_per_second": self.bf16_flops_per_second,
        })
    }
}

impl std::fmt::Display for Roof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let giga = |value: f64| value / 1e9;
        write!(f, "memory {:.1} GB/s, ", giga(self.bytes_per_second))?;
        write!(f, "f32 {:.0} GFLOP/s", giga(self.flops_per_second))?;
        match self.bf16_flops_per_second {
            Some(peak) => write!(f, ", bf16 {:.0} GFLOP/s", giga(peak)),
            None => Ok(()),
        }
    }
}
