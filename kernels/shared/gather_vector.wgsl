// Elements of tensor $tensor, whose rows are read in 16-byte words, that eight columns of n stand for: zero where an index
// is out of range.
fn $tensor_feature(start: u32, feature: u32) -> f32 {
    // Of two loads and no branch, the loads of eight features go out together.
    let at = start + min(feature, parameters.hidden - 1u);
    var value: f32;
    if ($dtype == F32) {
        value = bitcast<f32>($tensor[at >> 2u][at & 3u]);
    } else {
        let pair = widen_pair($tensor[at >> 3u][(at >> 1u) & 3u], $dtype);
        value = select(pair.x, pair.y, (at & 1u) == 1u);
    }
    return select(value, 0.0, feature >= parameters.hidden);
}

fn $tensor_gather(start: u32, features: Features) -> Chunk {
    var chunk: Chunk;
    for (var i = 0u; i < 4u; i++) {
        chunk.low[i] = $tensor_feature(start, features.low[i]);
        chunk.high[i] = $tensor_feature(start, features.high[i]);
    }
    return chunk;
}
