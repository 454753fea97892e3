// Tensor $tensor, written element by element.
//
// The two halves of a word may belong to different invocations, to different rows, or to a row and the gap
// behind it. A word that is written whole is stored; half a word is merged in, atomically, so that the
// other half stays what it is or becomes what its own writer wants.

@group(0) @binding($binding) var<storage, read_write> $tensor: array<atomic<u32>>;

fn $tensor_store(at: u32, value: f32) {
    if ($dtype == F32) {
        atomicStore(&$tensor[at], bitcast<u32>(value));
        return;
    }
    let shift = (at & 1u) * 16u;
    atomicAnd(&$tensor[at >> 1u], 0xffff0000u >> shift);
    atomicOr(&$tensor[at >> 1u], narrow(value, $dtype) << shift);
}

// Elements at..at+1.
fn $tensor_store_pair(at: u32, low: f32, high: f32) {
    if ($dtype != F32 && (at & 1u) == 0u) {
        atomicStore(&$tensor[at >> 1u], narrow_pair(low, high, $dtype));
    } else {
        $tensor_store(at, low);
        $tensor_store(at + 1u, high);
    }
}

// The first `count` of elements at..at+3.
fn $tensor_store_four(at: u32, values: vec4<f32>, count: u32) {
    if (count >= 4u) {
        $tensor_store_pair(at, values.x, values.y);
        $tensor_store_pair(at + 2u, values.z, values.w);
        return;
    }
    for (var i = 0u; i < count; i++) {
        $tensor_store(at + i, values[i]);
    }
}
