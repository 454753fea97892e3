// The mask `go_on`, four bytes to a word, and which numbers may decide on it.
//
// The bytes of a word may belong to different invocations, or to another tensor: each is set for itself.

@group(0) @binding($binding) var<storage, read_write> go_on: array<atomic<u32>>;

fn set_go_on(at: u32, goes: bool) {
    let shift = (at & 3u) * 8u;
    atomicAnd(&go_on[at >> 2u], ~(0xffu << shift));
    atomicOr(&go_on[at >> 2u], select(0u, 1u, goes) << shift);
}

fn is_going_on(at: u32) -> bool {
    return ((atomicLoad(&go_on[at >> 2u]) >> ((at & 3u) * 8u)) & 0xffu) != 0u;
}

fn is_finite(bits: u32) -> bool {
    return (bits & 0x7f800000u) != 0x7f800000u;
}
