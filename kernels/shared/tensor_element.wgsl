// Tensor $tensor, read element by element wherever it lies.

@group(0) @binding($binding) var<storage, $access> $tensor: array<u32>;

fn $tensor_at(at: u32) -> f32 {
    if ($dtype == F32) {
        return bitcast<f32>($tensor[at]);
    }
    let pair = widen_pair($tensor[at >> 1u], $dtype);
    return select(pair.x, pair.y, (at & 1u) == 1u);
}
