//! The dense SwiGLU block on the `gemm` crate, which candle multiplies with too, without candle around it.

use gemm::{Parallelism, gemm};
use rayon::prelude::*;
use siluette::{DType, Element, Float};

use crate::weights::Layer;

/// What `gemm` is to run on.
pub struct GemmMlp<'a, T> {
    x: &'a [T],
    rows: usize,
    hidden: usize,
    ffn: usize,
    gate: Vec<T>,
    up: Vec<T>,
    pub out: Vec<T>,
}

impl<'a, T: Float> GemmMlp<'a, T> {
    /// `None` of a type that `gemm` does not have.
    pub fn new(x: &'a [T], rows: usize, ffn: usize) -> Option<GemmMlp<'a, T>> {
        if !matches!(<T as Element>::DTYPE, DType::F32 | DType::F16) {
            return None;
        }
        let zeros = |count| vec![T::from_f32(0.0); count];
        let (gate, up, out) = (zeros(rows * ffn), zeros(rows * ffn), zeros(x.len()));
        Some(GemmMlp { x, rows, hidden: x.len() / rows, ffn, gate, up, out })
    }

    pub fn run(&mut self, layer: &Layer<T>) {
        let (rows, hidden, ffn) = (self.rows, self.hidden, self.ffn);
        product(&mut self.gate, self.x, &layer.gate, [rows, ffn, hidden]);
        product(&mut self.up, self.x, &layer.up, [rows, ffn, hidden]);
        let part = (rows * ffn).div_ceil(rayon::current_num_threads());
        self.gate.par_chunks_mut(part).zip(self.up.par_chunks(part)).for_each(|(gate, up)| {
            for (gate, up) in gate.iter_mut().zip(up) {
                let value = gate.to_f32();
                *gate = T::from_f32(value / (1.0 + (-value).exp()) * up.to_f32());
            }
        });
        product(&mut self.out, &self.gate, &layer.down, [rows, hidden, ffn]);
    }
}

/// `out = x . weight^T`, of `rows`, `columns` of the output and the `depth` that is summed over.
fn product<T: Float>(out: &mut [T], x: &[T], weight: &[T], [rows, columns, depth]: [usize; 3]) {
    assert_eq!([out.len(), x.len(), weight.len()], [rows * columns, rows * depth, columns * depth]);
    let (out_stride, depth_stride) = (columns as isize, depth as isize);
    // SAFETY: the lengths are those of the dimensions and strides, and `new` let only types in that `gemm` has.
    unsafe {
        gemm(
            rows,
            columns,
            depth,
            out.as_mut_ptr(),
            1,
            out_stride,
            false,
            x.as_ptr(),
            1,
            depth_stride,
            weight.as_ptr(),
            depth_stride,
            1,
            T::from_f32(0.0),
            T::from_f32(1.0),
            false,
            false,
            false,
            Parallelism::Rayon(rayon::current_num_threads()),
        );
    }
}
