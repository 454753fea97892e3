// As gather_scalar.wgsl for rows that are read in 16-byte words.
fn $tensor_feature(start: u32, k: u32) -> f32 {
    let feature = in_indices[parameters.in_indices_start + k];
    if (feature >= parameters.hidden) {
        return 0.0;
    }
    let at = start + feature;
    if ($dtype == F32) {
        return bitcast<f32>($tensor[at >> 2u][at & 3u]);
    }
    let pair = widen_pair($tensor[at >> 3u][(at >> 1u) & 3u], $dtype);
    return select(pair.x, pair.y, (at & 1u) == 1u);
}

fn $tensor_gather(start: u32, k: u32) -> Chunk {
    var chunk: Chunk;
    for (var i = 0u; i < 4u; i++) {
        chunk.low[i] = $tensor_feature(start, k + i);
        chunk.high[i] = $tensor_feature(start, k + 4u + i);
    }
    return chunk;
}
