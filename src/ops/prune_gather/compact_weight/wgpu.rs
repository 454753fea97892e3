//! `compact_weight` through wgpu.

use super::{CompactWeight, CompactWeightArgs};
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor};
use crate::error::Error;
use crate::operation::Operation as _;
use crate::ops::prune_gather::gather_plain::{GatherPlain, GatherPlainTensors, Names, plan_wgpu};

impl Wgpu {
    /// Binds [`CompactWeight`] to buffers: `out = weight[rows][:, columns]`, padded with zeros.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit: where rows are selected, a
    /// binding must hold all of `weight`.
    pub fn plan_compact_weight(
        &self,
        op: &CompactWeight,
        args: CompactWeightArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        let gather = GatherPlain {
            op: CompactWeight::NAME,
            dtype: op.dtype,
            selected: op.selected_columns(),
        };
        let names = Names { x: "weight", columns: "columns" };
        let CompactWeightArgs { weight: x, rows, columns, out } = args;
        plan_wgpu(self, &gather, names, GatherPlainTensors { x, rows, columns, out })
    }
}
