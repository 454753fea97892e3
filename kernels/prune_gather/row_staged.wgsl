// The updated row of scatter_norm_gather, kept in workgroup memory.

var<workgroup> kept: array<f32, ROW>;

fn keep(column: u32, value: f32) {
    kept[column] = value;
}

// An element of the row, rounded to the activations' type.
fn updated(row: u32, column: u32) -> f32 {
    return kept[column];
}
