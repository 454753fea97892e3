//! `bigru` on CUDA.
#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{BiGru, BiGruArgs};
use crate::arguments::Arguments as _;
use crate::backend::cuda::binder::Binder;
use crate::backend::cuda::launch::CudaPlan;
use crate::backend::cuda::{Cuda, CudaTensor, CudaTensorMut, CudaWorkspace};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::feature_attention::gru::cuda::{Launches, Layer, Place};
use crate::ops::feature_attention::gru::{GRU_FIELDS, gru_tensors};

impl Cuda {
    /// Enqueues [`BiGru`] on the caller's stream, two launches a layer.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn bigru(
        &self,
        stream: &Arc<CudaStream>,
        op: &BiGru,
        mut args: BiGruArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        mut workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let [batch, steps] = op.extent(&layouts.x)?;
        if batch == 0 {
            return Ok(());
        }
        let launches =
            |layer| Launches::new(&op.layer_extent(layer, batch, steps), self.capabilities());
        let mut binder = Binder::new(self, BiGru::NAME, stream)?;
        let x = binder.input("x", &args.x)?;
        let lengths = binder.optional_input("lengths", &args.lengths)?;
        let h0 = binder.optional_input("h0", &args.h0)?;
        let weights = gru_tensors!(args, as_ref);
        let fields = &BiGruArgs::<(), ()>::FIELDS[GRU_FIELDS];
        let weights = weights.try_map(fields, |info, tensor| binder.input(info.name, tensor))?;
        let out = binder.output("out", &mut args.out)?;
        let h_n = binder.optional_output("h_n", &mut args.h_n)?;
        let scratch = op.scratch(batch, steps);
        let memory = binder.workspace(&mut workspace, scratch.bytes)?;
        binder.finish()?;
        // Loaded beforehand, so that nothing is enqueued if it cannot be.
        for layer in 0..op.layers {
            for launch in launches(layer)?.iter() {
                self.function(BiGru::NAME, stream, &launch)?;
            }
        }
        let between = memory.address() + scratch.between as u64;
        let between = Place::scratch(between, steps, 2 * op.hidden);
        for index in 0..op.layers {
            let is_last = index + 1 == op.layers;
            let layer = Layer {
                extent: op.layer_extent(index, batch, steps),
                weights: weights.as_ref().layer(index),
                x: if index == 0 { Place::tensor(&x, &layouts.x) } else { between },
                lengths: lengths.address(),
                gates: memory.address() + scratch.gates as u64,
                initial: Place::optional(&h0, &layouts.h0, 2 * index),
                out: if is_last { Place::tensor(&out, &layouts.out) } else { between },
                last: Place::optional(&h_n, &layouts.h_n, 2 * index),
            };
            // SAFETY: `validate` proved shapes, strides and dtypes, the binder alignment, that nothing written overlaps
            // anything, and that the workspace has the room that `scratch` divides.
            unsafe { layer.enqueue(self, stream, &launches(index)?, index > 0)? };
        }
        Ok(())
    }
}

/// The launches for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &BiGru,
    layouts: &BiGruArgs<Layout, Layout>,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    let [batch, steps] = op.extent(&layouts.x)?;
    let mut plan = CudaPlan::default();
    for layer in (0..op.layers).filter(|_| batch > 0) {
        let extent = op.layer_extent(layer, batch, steps);
        Launches::new(&extent, cuda.capabilities())?.iter().for_each(|launch| plan.push(launch));
    }
    Ok(plan)
}
