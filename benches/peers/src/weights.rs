//! Weights of several layers, for siluette and for candle.

use candle_core::{Device, Tensor, WithDType};
use siluette::Float;

/// More than twice the last-level cache of most machines.
pub const COLD_BYTES: usize = 128 << 20;

/// One layer's matrices in the layout of `nn.Linear`, and the same as candle's tensors.
pub struct Layer<T> {
    pub gate: Vec<T>,
    pub up: Vec<T>,
    pub down: Vec<T>,
    pub candle: [Tensor; 3],
}

/// Layers that take turns.
pub struct Layers<T> {
    pub inputs: usize,
    pub ffn: usize,
    pub all: Vec<Layer<T>>,
}

impl<T: Float + WithDType> Layers<T> {
    /// Blocks of `inputs` features to read and to write.
    pub fn new(inputs: usize, ffn: usize) -> candle_core::Result<Layers<T>> {
        let bytes = 3 * inputs * ffn * size_of::<T>();
        let mut random = Random(88_172_645_463_325_252);
        let all = (0..COLD_BYTES.div_ceil(bytes))
            .map(|_| {
                let mut matrix = || random.values(inputs * ffn, 0.1);
                let (gate, up, down): (Vec<T>, Vec<T>, Vec<T>) = (matrix(), matrix(), matrix());
                let candle = [
                    Tensor::from_slice(&gate, (ffn, inputs), &Device::Cpu)?,
                    Tensor::from_slice(&up, (ffn, inputs), &Device::Cpu)?,
                    Tensor::from_slice(&down, (inputs, ffn), &Device::Cpu)?,
                ];
                Ok(Layer { gate, up, down, candle })
            })
            .collect::<candle_core::Result<_>>()?;
        Ok(Layers { inputs, ffn, all })
    }
}

/// Xorshift: values that look random to the hardware and are neither zero nor denormal.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        // The lowest bits are the least random.
        (self.next() >> 32) as usize % end
    }

    /// `count` values within half of `range` of 0.
    pub fn values<T: Float>(&mut self, count: usize, range: f32) -> Vec<T> {
        let mut next =
            || T::from_f32(((self.next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * range);
        (0..count).map(|_| next()).collect()
    }
}
