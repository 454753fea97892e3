// Tensor $tensor, written element by element.
//
// The two halves of a word may belong to different invocations, to different rows, or to a row and the gap
// behind it. A word that is written whole is stored; half a word is merged in, atomically, so that the
// other half stays what it is or becomes what its own writer wants.

@group(0) @binding($binding) var<storage, read_write> $tensor: array<atomic<u32>>;

// Whether elements at and at + 1, of which the caller has `count`, share a word.
fn $tensor_is_pair(at: u32, count: u32) -> bool {
    return $dtype != F32 && (at & 1u) == 0u && count > 1u;
}

// Writes the bits of element `at`, and those of the next one if they are a pair.
fn $tensor_store_bits(at: u32, value: u32, next: u32, pair: bool) {
    if ($dtype == F32) {
        atomicStore(&$tensor[at], value);
        return;
    }
    let word = at >> 1u;
    let shift = (at & 1u) * 16u;
    let bits = value << shift;
    if (pair) {
        atomicStore(&$tensor[word], bits | (next << 16u));
    } else {
        atomicAnd(&$tensor[word], 0xffff0000u >> shift);
        atomicOr(&$tensor[word], bits);
    }
}

// Writes element `at`, and the next one if they are a pair.
fn $tensor_store(at: u32, value: f32, next: f32, pair: bool) {
    $tensor_store_bits(at, bits_of(value, $dtype), bits_of(next, $dtype), pair);
}
