//! `bigru` through wgpu.

use super::{BiGru, BiGruArgs};
use crate::backend::wgpu::{Operand, Plan, PlanBuilder, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::error::Error;
use crate::operation::Operation as _;
use crate::ops::early_exit::binding::check_outputs;
use crate::ops::feature_attention::gru::gru_tensors;
use crate::ops::feature_attention::gru::wgpu::{Layer, States};

impl Wgpu {
    /// Binds [`BiGru`] to buffers, two dispatches a layer for as many texts as the device can bind at once.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_bigru(
        &self,
        op: &BiGru,
        args: BiGruArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let [batch, steps] = op.extent(&layouts.x)?;
        let capabilities = self.capabilities();
        let mut plan = PlanBuilder::new(self, BiGru::NAME);
        if batch == 0 {
            return plan.finish();
        }
        let args = args.try_map(
            |info, tensor| Operand::new(BiGru::NAME, info.name, tensor, capabilities),
            |info, tensor| Operand::new(BiGru::NAME, info.name, tensor, capabilities),
        )?;
        check_outputs(args)?;
        let scratch = op.scratch(batch, steps);
        let weights = gru_tensors!(args);
        for layer in 0..op.layers {
            let (is_first, is_last) = (layer == 0, layer + 1 == op.layers);
            let between = || {
                let shape = [batch, steps, 2 * op.hidden];
                workspace.tensor(BiGru::NAME, scratch.between as u64, &shape, capabilities)
            };
            let layer = Layer {
                extent: op.layer_extent(layer, batch, steps),
                weights: weights.layer(layer),
                x: if is_first { args.x } else { between()? },
                is_inner: !is_first,
                lengths: args.lengths,
                initial: States::of_layer(args.h0, layer),
                out: if is_last { args.out } else { between()? },
                last: States::of_layer(args.h_n, layer),
            };
            layer.record(self, &mut plan, workspace, &scratch)?;
        }
        plan.finish()
    }
}
