//! What a device can do at best, measured.

use siluette::conformance::{Fill, TensorSpec};
use siluette::device::NamedTensors;
use siluette::{Backend, Cost, DType, Device, Error, Parameters, registry};

use super::measure::{load, time};
use super::processor::{self, Stream};

/// A device's roofline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Bytes a second between the device and its memory.
    pub bytes_per_second: f64,
    /// How that was measured.
    pub bytes_how: &'static str,
    /// Floating-point operations a second, where something measures them.
    pub flops_per_second: Option<f64>,
    /// The same on bf16 with sums in f32, where the device has instructions of its own for that.
    pub bf16_flops_per_second: Option<f64>,
    /// How that was measured, or why it was not.
    pub flops_how: &'static str,
}

impl Ceilings {
    /// Measures them now.
    pub fn measure(device: &Device) -> Result<Ceilings, Error> {
        match device.backend() {
            Backend::Reference | Backend::Cpu => {
                let cache = device.cache_bytes().unwrap_or(0);
                Ok(Ceilings {
                    bytes_per_second: Stream::new(cache).best(),
                    bytes_how: "sum over a buffer of twice the last-level cache, all threads, best of 9",
                    flops_per_second: Some(processor::flops_per_second()),
                    bf16_flops_per_second: processor::bf16_flops_per_second(),
                    flops_how: "chains of multiply-adds in registers, all threads, best of 9",
                })
            }
            Backend::Wgpu | Backend::Cuda => Ok(Ceilings {
                bytes_per_second: copy_bytes_per_second(device)?,
                bytes_how: "silu_mul on three tensors of 64 MiB, f32, best run",
                flops_per_second: None,
                bf16_flops_per_second: None,
                flops_how: "not measured: this backend has no yardstick but the kernels themselves",
            }),
        }
    }

    /// The higher of two measurements, one before and one after the work: another program that was busy
    /// during one of them lowers no ceiling.
    pub fn higher(self, other: Ceilings) -> Ceilings {
        let higher = |one: Option<f64>, other| one.zip(other).map(|(one, other)| one.max(other));
        Ceilings {
            bytes_per_second: self.bytes_per_second.max(other.bytes_per_second),
            flops_per_second: higher(self.flops_per_second, other.flops_per_second),
            bf16_flops_per_second: higher(self.bf16_flops_per_second, other.bf16_flops_per_second),
            ..self
        }
    }

    /// The shortest time in which this could be done, in seconds. `dtype` is that of the operation as a case
    /// names it; `bytes_per_second`, if known, is what memory gave while the operation was measured.
    pub fn shortest(&self, cost: &Cost, dtype: &str, bytes_per_second: Option<f64>) -> f64 {
        let moving = cost.bytes() as f64 / bytes_per_second.unwrap_or(self.bytes_per_second);
        let peak = match self.bf16_flops_per_second {
            Some(peak) if dtype == DType::BF16.name() => Some(peak),
            _ => self.flops_per_second,
        };
        moving.max(peak.map_or(0.0, |peak| cost.flops as f64 / peak))
    }
}

/// Two reads and a write with next to no arithmetic.
fn copy_bytes_per_second(device: &Device) -> Result<f64, Error> {
    let inputs = ["gate", "up"]
        .into_iter()
        .zip(0..)
        .map(|(name, seed)| {
            let fill = Fill::Normal { scale: 1.0 };
            let shape = vec![2_048, 8_192];
            let spec = TensorSpec { name, dtype: DType::F32, shape, gap: 0, fill };
            Ok((name.to_owned(), spec.draw(seed)?))
        })
        .collect::<Result<NamedTensors, Error>>()?;
    let prepared = registry::find("silu_mul")?.prepare(inputs, &Parameters::new())?;
    let timing = time(device, &mut [load(&*prepared, device)?], None)?.0;
    Ok(prepared.cost().bytes() as f64 / timing.min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_moving_and_computing_bounds() {
        let ceilings = Ceilings {
            bytes_per_second: 10.0,
            bytes_how: "",
            flops_per_second: Some(100.0),
            bf16_flops_per_second: Some(200.0),
            flops_how: "",
        };
        let cost = |flops| Cost { flops, bytes_read: 15, bytes_written: 5 };
        assert_eq!(ceilings.shortest(&cost(100), "f32", None), 2.0);
        assert_eq!(ceilings.shortest(&cost(100), "f32", Some(5.0)), 4.0);
        assert_eq!(ceilings.shortest(&cost(1_000), "f32/bf16", None), 10.0);
        assert_eq!(ceilings.shortest(&cost(1_000), "bf16", None), 5.0);
        let other = Ceilings { bytes_per_second: 40.0, flops_per_second: Some(50.0), ..ceilings };
        let higher = ceilings.higher(other);
        assert_eq!((higher.bytes_per_second, higher.flops_per_second), (40.0, Some(100.0)));
        let unknown = Ceilings { flops_per_second: None, bf16_flops_per_second: None, ..ceilings };
        assert_eq!(unknown.shortest(&cost(1_000), "bf16", None), 2.0);
    }
}
