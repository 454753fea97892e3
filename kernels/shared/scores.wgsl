// Tensor $tensor, read as keys, element by element wherever it lies.

@group(0) @binding($binding) var<storage, read> $tensor: array<u32>;

// The key of element `index` of the part that is bound.
fn $tensor_key(index: u32) -> u32 {
    let start = parameters.$tensor_start;
    var at = start + index;
    if (parameters.columns > 0u) {
        let row = index / parameters.columns;
        at = start + row * parameters.$tensor_stride + index % parameters.columns;
    }
    if ($dtype == F32) {
        return key_of_bits($tensor[at], $dtype);
    }
    return key_of_bits(($tensor[at >> 1u] >> ((at & 1u) * 16u)) & 0xffffu, $dtype);
}
