//! A layer of a bidirectional GRU on CUDA, by the contracts in `kernels/feature_attention/gru_input.cu` and
//! `gru_recurrence.cu`.
#![allow(unsafe_code, reason = "kernel launches")]

mod parameters;
mod product;
mod strategy;

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{GruDirection, GruExtent, GruLayer};
use crate::backend::cuda::Cuda;
use crate::backend::cuda::binder::{Pointer, VECTOR_BYTES};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
pub(crate) use parameters::{GruInputParams, GruPanel, GruRecurrenceParams};
pub(crate) use product::{Product, ProductTensors};
use strategy::dtype_code;
pub(crate) use strategy::{Launches, PRODUCT_THREADS, product_grid};

/// Where something with three dimensions lies: a tensor, or scratch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    address: u64,
    /// Of the outer two dimensions, in elements.
    strides: [i64; 2],
    dtype: DType,
}

impl Place {
    /// In place of an optional tensor that was not given.
    pub const ABSENT: Place = Place { address: 0, strides: [0; 2], dtype: DType::F32 };

    /// A tensor of rank 3.
    pub fn tensor(pointer: &Pointer<'_>, layout: &Layout) -> Place {
        // Validation keeps spans, and so strides, below `isize::MAX` where there is more than one row.
        let stride = |axis| i64::try_from(layout.strides()[axis]).unwrap_or(0);
        Place { address: pointer.address(), strides: [stride(0), stride(1)], dtype: layout.dtype() }
    }

    /// A tensor of rank 3 from its outer index `first` on, if it is there.
    pub fn optional(pointer: &Pointer<'_>, layout: &Option<Layout>, first: usize) -> Place {
        let Some(layout) = layout else { return Place::ABSENT };
        let place = Place::tensor(pointer, layout);
        let skipped = first * layout.strides()[0] * layout.dtype().size();
        Place { address: place.address + skipped as u64, ..place }
    }

    /// f32 without gaps, `rows` rows of `columns` for each outer index.
    pub fn scratch(address: u64, rows: usize, columns: usize) -> Place {
        let strides = [(rows * columns) as i64, columns as i64];
        Place { address, strides, dtype: DType::F32 }
    }

    fn has_aligned_rows(&self) -> bool {
        let size = self.dtype.size() as u64;
        let is_aligned = |stride: i64| (stride.unsigned_abs() * size).is_multiple_of(VECTOR_BYTES);
        self.address.is_multiple_of(VECTOR_BYTES) && self.strides.into_iter().all(is_aligned)
    }
}

/// A layer and everything that it reads and writes.
pub(crate) struct Layer<'a> {
    pub extent: GruExtent,
    pub weights: GruLayer<&'a Pointer<'a>>,
    /// `[B, L, features]`.
    pub x: Place,
    /// `[B]`, or 0.
    pub lengths: u64,
    /// Room for `[B, L, 2, 3h]` f32.
    pub gates: u64,
    /// `[2, B, h]`.
    pub initial: Place,
    /// `[B, L, 2h]`.
    pub out: Place,
    /// `[2, B, h]`.
    pub last: Place,
}

impl Layer<'_> {
    /// `follows` says that the stream's previous kernel is of the same call.
    ///
    /// # Safety
    /// Everything is of validated tensors in the stream's context, or of room in the workspace; what is written overlaps
    /// nothing but, with `x`, the output.
    pub unsafe fn enqueue(
        &self,
        cuda: &Cuda,
        stream: &Arc<CudaStream>,
        launches: &Launches,
        follows: bool,
    ) -> Result<(), Error> {
        let op = self.extent.op;
        // SAFETY: the caller's promise; `Launches` follows the kernels' contracts.
        unsafe {
            if let Some(launch) = &launches.input {
                let function = cuda.function(op, stream, launch)?;
                cuda.launch(stream, &function, launch, &self.input_parameters(), follows)?;
            }
            let launch = &launches.recurrence;
            let function = cuda.function(op, stream, launch)?;
            let follows = follows || launches.input.is_some();
            cuda.launch(stream, &function, launch, &self.recurrence_parameters(), follows)
        }
    }

    pub fn input_parameters(&self) -> GruInputParams {
        let [forward, reverse] = self.weights.each_ref().map(input_panel);
        let aligned = |weights: &GruDirection<&Pointer<'_>>| weights.weight_ih.is_vectorisable();
        let extent = &self.extent;
        GruInputParams {
            forward,
            reverse,
            x: ReadPointer(self.x.address),
            lengths: ReadPointer(self.lengths),
            gates: WritePointer(self.gates),
            x_batch_stride: self.x.strides[0],
            x_token_stride: self.x.strides[1],
            batch: extent.batch as i32,
            steps: extent.steps as i32,
            features: extent.features as i32,
            outputs: 3 * extent.hidden as i32,
            directions: 2,
            x_vectorised: i32::from(self.x.has_aligned_rows()),
            weight_vectorised: i32::from(self.weights.iter().all(aligned)),
        }
    }

    pub fn recurrence_parameters(&self) -> GruRecurrenceParams {
        let [forward, reverse] = self.weights.each_ref().map(recurrent_panel);
        let aligned = |weights: &GruDirection<&Pointer<'_>>| weights.weight_hh.is_vectorisable();
        let extent = &self.extent;
        GruRecurrenceParams {
            forward,
            reverse,
            gates: ReadPointer(self.gates),
            lengths: ReadPointer(self.lengths),
            initial: ReadPointer(self.initial.address),
            out: WritePointer(self.out.address),
            last: WritePointer(self.last.address),
            initial_direction_stride: self.initial.strides[0],
            initial_batch_stride: self.initial.strides[1],
            out_batch_stride: self.out.strides[0],
            out_token_stride: self.out.strides[1],
            last_direction_stride: self.last.strides[0],
            last_batch_stride: self.last.strides[1],
            batch: extent.batch as i32,
            steps: extent.steps as i32,
            hidden: extent.hidden as i32,
            initial_dtype: dtype_code(self.initial.dtype),
            out_dtype: dtype_code(self.out.dtype),
            last_dtype: dtype_code(self.last.dtype),
            weight_vectorised: i32::from(self.weights.iter().all(aligned)),
        }
    }
}

fn input_panel(weights: &GruDirection<&Pointer<'_>>) -> GruPanel {
    panel(weights.weight_ih, weights.bias_ih)
}

fn recurrent_panel(weights: &GruDirection<&Pointer<'_>>) -> GruPanel {
    panel(weights.weight_hh, weights.bias_hh)
}

pub(crate) fn panel(weight: &Pointer<'_>, bias: Option<&Pointer<'_>>) -> GruPanel {
    GruPanel {
        weight: ReadPointer(weight.address()),
        bias: ReadPointer(bias.map_or(0, Pointer::address)),
        row_stride: weight.row_stride(),
    }
}
