//! The kernels of a call and their grids: a function of its shape, its types and the device alone.

use super::super::{Select, SelectiveFeatureAttention};
use crate::backend::cuda::CudaCapabilities;
use crate::backend::cuda::launch::{Kernel, Launch};
use crate::dtype::DType;
use crate::error::Error;
use crate::operation::Operation as _;
use crate::ops::feature_attention::gru::cuda::{Launches, PRODUCT_THREADS, Product, product_grid};

/// How the branches come to their states and weights. The hidden size alone chooses: a text's bits must depend neither
/// on the batch nor on padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Branches {
    /// All in one launch, a block a text.
    Together(Launch),
    /// A layer's launches for each branch, then those of the weights.
    OneByOne { gru: Launches, weights: Launch },
}

/// The most hidden units whose recurrent weights, in both directions, one block's registers hold.
const MOST_HIDDEN_TOGETHER: usize = 64;

/// The launches of a call with at least one token.
pub(super) struct SelectiveLaunches {
    pub reduce: Product,
    reduce_launch: Launch,
    pub branches: Branches,
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
        const TEXT_THREADS: u32 = 512;
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
        let of_texts =
            |source, name| launch(source, name, op.weight_dtype, [batch, 1, 1], TEXT_THREADS);
        let branches = if op.hidden() <= MOST_HIDDEN_TOGETHER {
            let source = "feature_attention/selective_branches";
            Branches::Together(of_texts(source, "selective_branches")?)
        } else {
            let gru = Launches::new(&op.gru_extent(batch, steps), device)?;
            Branches::OneByOne { gru, weights: of_texts(source, "selective_weights")? }
        };
        Ok(SelectiveLaunches {
            reduce,
            reduce_launch: reduce.launch(device)?,
            branches,
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
        let (gru, of_texts) = match self.branches {
            Branches::Together(launch) => (None, launch),
            Branches::OneByOne { gru, weights } => (Some(gru), weights),
        };
        let layers = gru.into_iter().flat_map(|gru| std::iter::repeat_n(gru, op.branches));
        let layers = layers.flat_map(|gru| gru.input.into_iter().chain([gru.recurrence]));
        let behind = [of_texts].into_iter().chain(self.total).chain([self.expand]);
        [self.reduce_launch].into_iter().chain(layers).chain(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernels(op: SelectiveFeatureAttention) -> Vec<String> {
        let device = CudaCapabilities::test_device(8, 0);
        let launches = SelectiveLaunches::new(&op, 5, 20, &device).unwrap();
        launches.iter(&op).map(|launch| launch.kernel.symbol()).collect()
    }

    fn op(reduced: usize, branches: usize) -> SelectiveFeatureAttention {
        SelectiveFeatureAttention::new(600, reduced, 60, branches, DType::F32).unwrap()
    }

    #[test]
    fn three_launches_whatever_the_branches_while_weights_fit_registers() {
        for (reduced, branches) in [(2, 1), (100, 3), (128, 8)] {
            let expected = ["gru_input_f32", "selective_branches_f32", "selective_expand_f32"];
            assert_eq!(kernels(op(reduced, branches)), expected, "{reduced}");
            let mut expected = expected.to_vec();
            expected.insert(2, "selective_total_f32");
            let global = op(reduced, branches).with_select(Select::GlobalSum);
            assert_eq!(kernels(global), expected, "{reduced}");
        }
    }

    #[test]
    fn two_launches_more_for_each_branch_beyond() {
        let mut expected = vec!["gru_input_f32"];
        expected.extend(["gru_input_f32", "gru_recurrence_128_f32"].repeat(2));
        expected.extend(["selective_weights_f32", "selective_expand_f32"]);
        assert_eq!(kernels(op(130, 2)), expected);
    }

    #[test]
    fn a_block_a_text_even_beyond_what_other_axes_hold() {
        let device = CudaCapabilities::test_device(8, 0);
        let launches = SelectiveLaunches::new(&op(100, 3), 70_000, 2, &device).unwrap();
        let Branches::Together(launch) = launches.branches else { panic!("50 units fit") };
        assert_eq!((launch.grid, launch.block, launch.shared_bytes), ([70_000, 1, 1], 512, 0));
    }
}
