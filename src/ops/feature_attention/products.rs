//! Products of one vector with a few rows: a text's own layers.

use std::ops::Range;

use crate::backend::cpu::float_rows::FloatRows;
use crate::backend::cpu::instructions::Vectors;

/// `out[i] = weight[rows[i], :] . values + bias[rows[i]]`, four rows at a time, each in the same order.
#[inline(always)]
pub(crate) fn products<V: Vectors>(
    v: V,
    weight: &FloatRows<'_>,
    bias: Option<&FloatRows<'_>>,
    rows: Range<usize>,
    values: &[f32],
    out: &mut [f32],
) {
    for (index, out) in out.chunks_mut(4).enumerate() {
        let first = rows.start + 4 * index;
        let mut sums = [v.splat(0.0); 4];
        for column in (0..values.len()).step_by(V::LANES) {
            let value = v.load_slice(&values[column..values.len().min(column + V::LANES)]);
            for (row, sum) in sums.iter_mut().enumerate() {
                // Rows that there are not read along with the last.
                let row = first + row.min(out.len() - 1);
                *sum = v.mul_add(weight.load(v, row, column), value, *sum);
            }
        }
        for (row, (out, sum)) in out.iter_mut().zip(v.sum_lanes(sums)).enumerate() {
            *out = sum + bias.map_or(0.0, |bias| bias.get(0, first + row));
        }
    }
}
