// Tensor $tensor, read in 16-byte words: rows start on whole words and are multiples of eight elements.

@group(0) @binding($binding) var<storage, $access> $tensor: array<vec4<u32>>;

// Elements k..k+3 of the row that starts at element `start`; zeros from `end` on.
fn $tensor_four(start: u32, k: u32, end: u32) -> vec4<f32> {
    if (k >= end) {
        return vec4(0.0);
    }
    let at = start + k;
    if ($dtype == F32) {
        return bitcast<vec4<f32>>($tensor[at >> 2u]);
    }
    let words = $tensor[at >> 3u];
    return widen_four(select(words.xy, words.zw, (at & 4u) != 0u), $dtype);
}

// Elements at..at+7, `at` on a 16-byte word.
fn $tensor_chunk(at: u32) -> Chunk {
    if ($dtype == F32) {
        let word = at >> 2u;
        return Chunk(bitcast<vec4<f32>>($tensor[word]), bitcast<vec4<f32>>($tensor[word + 1u]));
    }
    let words = $tensor[at >> 3u];
    return Chunk(widen_four(words.xy, $dtype), widen_four(words.zw, $dtype));
}
