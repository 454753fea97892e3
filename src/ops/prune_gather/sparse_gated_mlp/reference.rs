//! The scalar oracle of `sparse_gated_mlp`.

use super::{NeuronLists, Selection, SparseGatedMlp, SparseGatedMlpArgs, dense_tensors};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::silu_mlp::mlp::reference::{Block, silu};
use crate::tensor::{TensorMut, TensorRef};

pub(super) fn sparse_gated_mlp(
    op: &SparseGatedMlp,
    mut args: SparseGatedMlpArgs<TensorRef<'_>, TensorMut<'_>>,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    op.validate_values(&args.inputs())?;
    let sparse = SparseBlock::new(op, &args.inputs());
    let mut out = Vec::new();
    for (m, x) in args.x.to_f64().chunks_exact(op.hidden()).enumerate() {
        let n = sparse.block.normalise(x);
        let mut row = sparse.block.residual(m);
        for j in sparse.selected(m, &n) {
            let h = sparse.block.activation(&n, j);
            for (c, out) in row.iter_mut().enumerate() {
                *out += h * sparse.down(c, j);
            }
        }
        out.extend(row);
    }
    args.out.write_f64(out);
    Ok(())
}

/// Sums of `|a * b|` of the selected neurons, as [`crate::Operation::magnitude`].
pub(super) fn magnitude(
    op: &SparseGatedMlp,
    args: &SparseGatedMlpArgs<TensorRef<'_>, Layout>,
) -> Vec<f64> {
    let sparse = SparseBlock::new(op, args);
    let mut magnitudes = Vec::new();
    for (m, x) in args.x.to_f64().chunks_exact(op.hidden()).enumerate() {
        let n = sparse.block.normalise(x);
        let scales = sparse.block.hidden_magnitude(&n);
        let mut row: Vec<f64> = sparse.block.residual(m).into_iter().map(f64::abs).collect();
        for j in sparse.selected(m, &n) {
            for (c, magnitude) in row.iter_mut().enumerate() {
                *magnitude += (scales[j] * sparse.down(c, j)).abs();
            }
        }
        magnitudes.extend(row);
    }
    magnitudes
}

struct SparseBlock<'a> {
    op: &'a SparseGatedMlp,
    block: Block<'a>,
    lists: Option<NeuronLists<'a>>,
    down: Vec<f64>,
}

impl<'a> SparseBlock<'a> {
    fn new(
        op: &'a SparseGatedMlp,
        args: &SparseGatedMlpArgs<TensorRef<'a>, Layout>,
    ) -> SparseBlock<'a> {
        SparseBlock {
            op,
            block: Block::new(&op.config, &dense_tensors(*args)),
            lists: NeuronLists::new(args),
            down: args.down_weight.to_f64(),
        }
    }

    /// The neurons of a token; NaN is not at most the threshold.
    fn selected(&self, m: usize, n: &[f64]) -> Vec<usize> {
        match (self.op.selection, self.lists) {
            (Selection::Threshold(threshold), _) => {
                let small = |j| silu(self.block.gate(n, j)).abs() <= f64::from(threshold.0);
                (0..self.op.ffn()).filter(|&j| !small(j)).collect()
            }
            (Selection::Lists, Some(lists)) => lists.of(m).iter().map(|&j| j as usize).collect(),
            (Selection::Lists, None) => unreachable!("refused by `validate`"),
        }
    }

    fn down(&self, c: usize, j: usize) -> f64 {
        let [_, columns] = self.op.shape_of_down();
        let (row, column) = if self.op.transposed_down { (j, c) } else { (c, j) };
        self.down[row * columns + column]
    }
}
