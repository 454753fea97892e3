//! The kernels of a call and their grids: a function of its shape, its types and the device alone.

use super::super::{Select, SelectiveFeatureAttention};
use crate::backend::cuda::CudaCapabilities;
use crate::backend::cuda::launch::{Kernel, Launch};
use crate::dtype::DType;
use crate::error::Error;
use crate::operation::Operation as _;
use crate::ops::feature_attention::gru::cuda::{Launches, PRODUCT_THREADS, Product, product_grid};

/// The launches of a call with at least one token.
pub(super) struct SelectiveLaunches {
    pub reduce: Product,
    reduce_launch: Launch,
    /// Of each branch.
    pub gru: Launches,
    pub weights: Launch,
    /// For weights that add up to 1 over the batch.
    pub total: Option<Launch>,
    pub expand: Launch,
}

impl SelectiveLaunches {
    pub fn new(
        op: &SelectiveFeatureAttention,
        batch: usize,
        steps: usize,
        device: &CudaCapabilities,
    ) -> Result<SelectiveLaunches, Error> {
        const WEIGHTS_THREADS: u32 = 512;
        const TOTAL_THREADS: u32 = 1024;
        let launch = |source, name, dtype, grid, threads| {
            let kernel = Kernel { source, name, activation: dtype, weight: dtype };
            Launch::new(SelectiveFeatureAttention::NAME, kernel, grid, threads, 0, device)
        };
        let reduce = Product {
            op: SelectiveFeatureAttention::NAME,
            batch,
            steps,
            features: op.features,
            outputs: op.reduced,
            activation: op.dtype,
            weight: op.weight_dtype,
        };
        let source = "feature_attention/selective_weights";
        let total = || launch(source, "selective_total", DType::F32, [1; 3], TOTAL_THREADS);
        Ok(SelectiveLaunches {
            reduce,
            reduce_launch: reduce.launch(device)?,
            gru: Launches::new(&op.gru_extent(batch, steps), device)?,
            weights: launch(
                source,
                "selective_weights",
                op.weight_dtype,
                [batch, 1, 1],
                WEIGHTS_THREADS,
            )?,
            total: (op.select == Select::GlobalSum).then(total).transpose()?,
            expand: launch(
                "feature_attention/selective_expand",
                "selective_expand",
                op.weight_dtype,
                product_grid(batch * steps, op.features),
                PRODUCT_THREADS,
            )?,
        })
    }

    /// All of them, in order.
    pub fn iter(&self, op: &SelectiveFeatureAttention) -> impl Iterator<Item = Launch> {
        let branches = (0..op.branches).flat_map(|_| self.gru.iter());
        let behind = [self.weights].into_iter().chain(self.total).chain([self.expand]);
        [self.reduce_launch].into_iter().chain(branches).chain(behind)
    }
}
