// The updated row of scatter_norm_gather, where workgroup memory is too small for it.

fn keep(column: u32, value: f32) {
}

// An element of the row, rounded to the activations' type.
fn updated(row: u32, column: u32) -> f32 {
    return rounded(sum_at(row, column), ACTIVATION);
}
