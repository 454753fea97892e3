// Where in a workgroup's tile a subgroup has its patch of two by two matrices, and where the sums of one matrix go on their way
// from a subgroup's registers to its invocations.

const PATCH: u32 = 2u * SIZE;
const MATRIX: u32 = SIZE * SIZE;

// First token of the patch.
fn patch_m(subgroup: u32) -> u32 {
    return subgroup / SUBGROUPS_N * PATCH;
}

// First row of weights of the patch.
fn patch_n(subgroup: u32) -> u32 {
    return subgroup % SUBGROUPS_N * PATCH;
}

// First token of matrix `index` of a patch, 0 to 3, from the patch's first on.
fn matrix_m(index: u32) -> u32 {
    return index / 2u * SIZE;
}

// First row of weights of matrix `index` of a patch, from the patch's first on.
fn matrix_n(index: u32) -> u32 {
    return index % 2u * SIZE;
}
