//! The product that a layer starts with, by itself: a linear layer into scratch.
#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::parameters::GruInputParams;
use super::{Place, panel, strategy};
use crate::backend::cuda::binder::Pointer;
use crate::backend::cuda::launch::Launch;
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaCapabilities};
use crate::dtype::DType;
use crate::error::Error;

/// `x W^T + b` of the valid tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    pub op: &'static str,
    pub batch: usize,
    pub steps: usize,
    pub features: usize,
    pub outputs: usize,
    pub activation: DType,
    pub weight: DType,
}

/// What it reads and writes.
pub(crate) struct ProductTensors<'a> {
    /// `[B, L, features]`.
    pub x: Place,
    /// `[outputs, features]`.
    pub weight: &'a Pointer<'a>,
    /// `[outputs]`, if it is there.
    pub bias: &'a Pointer<'a>,
    /// `[B]`, or 0.
    pub lengths: u64,
    /// Room for `[B, L, outputs]` f32.
    pub out: u64,
}

impl Product {
    /// There is at least one token.
    pub fn launch(&self, device: &CudaCapabilities) -> Result<Launch, Error> {
        let types = [self.activation, self.weight];
        strategy::product(self.op, self.batch * self.steps, self.outputs, types, device)
    }

    /// # Safety
    /// Everything is of validated tensors in the stream's context, or of room in the workspace; what is written overlaps
    /// nothing.
    pub unsafe fn enqueue(
        &self,
        cuda: &Cuda,
        stream: &Arc<CudaStream>,
        tensors: &ProductTensors<'_>,
    ) -> Result<(), Error> {
        let launch = self.launch(cuda.capabilities())?;
        let function = cuda.function(self.op, stream, &launch)?;
        let panel = panel(tensors.weight, Some(tensors.bias));
        let parameters = GruInputParams {
            forward: panel,
            reverse: panel,
            x: ReadPointer(tensors.x.address),
            lengths: ReadPointer(tensors.lengths),
            gates: WritePointer(tensors.out),
            x_batch_stride: tensors.x.strides[0],
            x_token_stride: tensors.x.strides[1],
            batch: self.batch as i32,
            steps: self.steps as i32,
            features: self.features as i32,
            outputs: self.outputs as i32,
            directions: 1,
            x_vectorised: i32::from(tensors.x.has_aligned_rows()),
            weight_vectorised: i32::from(tensors.weight.is_vectorisable()),
        };
        // SAFETY: the caller's promise; the launch covers all tokens and outputs.
        unsafe { cuda.launch(stream, &function, &launch, &parameters, false) }
    }
}
