// Every block's second half, and linear layers, for many tokens by cooperative matrices: down_tile.wgsl for f16 activations and
// weights, with the same equation, bindings, parameters and launch
//
// h  [M, F]  f32 that f16 represents, or f16
//
// workgroup  SUBGROUPS_M * SUBGROUPS_N subgroups of SUBGROUP invocations, each 2 SIZE tokens by 2 SIZE rows j, as two by two
//            matrices; the tile is 2 SIZE SUBGROUPS_M tokens by 2 SIZE SUBGROUPS_N rows, DEPTH (a multiple of SIZE) elements of
//            F at a time
// workgroup memory  DEPTH * 2 SIZE * (SUBGROUPS_M + SUBGROUPS_N) * 2 bytes: f16, tokens or rows outermost, k innermost; and
//            SUBGROUPS_M * SUBGROUPS_N * SIZE^2 * 4 bytes: f32, one matrix of sums for every subgroup
// A product is summed in f32, over F in order from matrix to matrix and within one as the device does it.

#variant load = vector scalar
#variant matrices = 8_8 8_32 16_32
#requires cooperative_matrices
#interface down_tile

enable f16;
enable wgpu_cooperative_matrix;

override SUBGROUPS_M: u32 = 2u;
override SUBGROUPS_N: u32 = 2u;
override DEPTH: u32 = 16u;
override INPUT: u32 = 0u;
const WEIGHT: u32 = F16;

#import shared/matrices_$matrices.wgsl
#import shared/matrix_place.wgsl
#import silu_mlp/down_many.wgsl load=$load

var<workgroup> h_tile: array<f16, DEPTH * SUBGROUPS_M * PATCH>;
var<workgroup> weight_tile: array<f16, DEPTH * SUBGROUPS_N * PATCH>;
var<workgroup> sum_matrices: array<f32, SUBGROUPS_M * SUBGROUPS_N * MATRIX>;

#import shared/stage_matrix_$load.wgsl tensor=h tile=h_tile rows=SUBGROUPS_M*PATCH
#import shared/stage_matrix_$load.wgsl tensor=down_weight tile=weight_tile rows=SUBGROUPS_N*PATCH

// Writes what follows from a matrix of sums, four neighbouring rows j an invocation.
fn write_matrix(first_token: u32, first_row: u32, sums: u32, lane: u32) {
    for (var unit = lane; unit < MATRIX / 4u; unit += SUBGROUP) {
        let token = first_token + unit * 4u / SIZE;
        let at = sums + unit * 4u;
        if (token < parameters.tokens) {
            let low = vec2(sum_matrices[at], sum_matrices[at + 1u]);
            let high = vec2(sum_matrices[at + 2u], sum_matrices[at + 3u]);
            write(token, first_row + unit * 4u % SIZE, vec4(low, high));
        }
    }
}

@compute @workgroup_size(SUBGROUPS_M * SUBGROUPS_N * SUBGROUP)
fn down_matrices(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    // No way out for workgroups behind the end, since matrices ask for uniform control flow: their rows are behind the last, of
    // which nothing is written.
    let index = launch_index(workgroup, workgroups);
    let first_token = index % parameters.token_tiles * (SUBGROUPS_M * PATCH);
    let first_row = index / parameters.token_tiles * (SUBGROUPS_N * PATCH);
    let m = patch_m(subgroup);
    let n = patch_n(subgroup);

    var sum00: Sum;
    var sum01: Sum;
    var sum10: Sum;
    var sum11: Sum;
    for (var first_k = 0u; first_k < parameters.depth; first_k += DEPTH) {
        stage_h(first_token, first_k, parameters.depth, thread);
        stage_down_weight(first_row, first_k, parameters.depth, thread);
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k += SIZE) {
            let h0 = coopLoadT<Left>(&h_tile[m * DEPTH + k], DEPTH);
            let h1 = coopLoadT<Left>(&h_tile[(m + SIZE) * DEPTH + k], DEPTH);
            let d0 = coopLoad<Right>(&weight_tile[n * DEPTH + k], DEPTH);
            let d1 = coopLoad<Right>(&weight_tile[(n + SIZE) * DEPTH + k], DEPTH);
            sum00 = coopMultiplyAdd(h0, d0, sum00);
            sum01 = coopMultiplyAdd(h0, d1, sum01);
            sum10 = coopMultiplyAdd(h1, d0, sum10);
            sum11 = coopMultiplyAdd(h1, d1, sum11);
        }
        workgroupBarrier();
    }

    if (parameters.scatters != 0u && index < parameters.workgroups) {
        let threads = SUBGROUPS_M * SUBGROUPS_N * SUBGROUP;
        copy_residual(first_row, SUBGROUPS_N * PATCH, first_token, SUBGROUPS_M * PATCH, thread, threads);
        storageBarrier();
    }
    let sums = subgroup * MATRIX;
    // One call in a loop: four calls would be inlined four times.
    for (var i = 0u; i < 4u; i++) {
        switch (i) {
            case 0u: {
                coopStoreT(sum00, &sum_matrices[sums], SIZE);
            }
            case 1u: {
                coopStoreT(sum01, &sum_matrices[sums], SIZE);
            }
            case 2u: {
                coopStoreT(sum10, &sum_matrices[sums], SIZE);
            }
            default: {
                coopStoreT(sum11, &sum_matrices[sums], SIZE);
            }
        }
        workgroupBarrier();
        write_matrix(first_token + m + matrix_m(i), first_row + n + matrix_n(i), sums, lane);
        workgroupBarrier();
    }
}
