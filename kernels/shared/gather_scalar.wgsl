// As gather_vector.wgsl where a chunk is one element.
fn $tensor_gather(start: u32, feature: Features) -> Chunk {
    let value = $tensor_at(start + min(feature, parameters.hidden - 1u));
    return select(value, 0.0, feature >= parameters.hidden);
}
