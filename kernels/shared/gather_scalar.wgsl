// The elements of a row of tensor $tensor that columns k.. of n stand for: zero where an index is out of range.
fn $tensor_gather(start: u32, k: u32) -> Chunk {
    let feature = in_indices[parameters.in_indices_start + k];
    if (feature >= parameters.hidden) {
        return 0.0;
    }
    return $tensor_at(start + feature);
}
