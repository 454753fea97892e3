// MLP for many tokens, first half, by cooperative matrices: gate_up_tile.wgsl for f16 activations and weights, with the same
// equation, bindings, parameters and launch
//
// workgroup  SUBGROUPS_M * SUBGROUPS_N subgroups of SUBGROUP invocations, each 2 SIZE tokens by 2 SIZE neurons of both products,
//            as two by two matrices; the tile is 2 SIZE SUBGROUPS_M tokens by 2 SIZE SUBGROUPS_N neurons, DEPTH (a multiple of
//            SIZE) elements of I at a time
// workgroup memory  DEPTH * 2 SIZE * (SUBGROUPS_M + 2 SUBGROUPS_N) * 2 bytes: f16, tokens or neurons outermost, k innermost; and
//            SUBGROUPS_M * SUBGROUPS_N * SIZE^2 * 8 bytes: f32, one matrix of sums of each product for every subgroup
// A product is summed in f32, over I in order from matrix to matrix and within one as the device does it.

#variant load = vector scalar
#variant matrices = 8_8 8_32 16_32
#requires cooperative_matrices
#interface gate_up_tile

enable f16;
enable wgpu_cooperative_matrix;

override SUBGROUPS_M: u32 = 2u;
override SUBGROUPS_N: u32 = 2u;
override DEPTH: u32 = 16u;
override GATED: bool = true;
const ACTIVATION: u32 = F16;
const WEIGHT: u32 = F16;

#import shared/matrices_$matrices.wgsl
#import shared/matrix_place.wgsl
#import silu_mlp/gate_up_many.wgsl load=$load

var<workgroup> activation_tile: array<f16, DEPTH * SUBGROUPS_M * PATCH>;
var<workgroup> gate_tile: array<f16, DEPTH * SUBGROUPS_N * PATCH>;
var<workgroup> up_tile: array<f16, DEPTH * SUBGROUPS_N * PATCH>;
var<workgroup> gate_sums: array<f32, SUBGROUPS_M * SUBGROUPS_N * MATRIX>;
var<workgroup> up_sums: array<f32, SUBGROUPS_M * SUBGROUPS_N * MATRIX>;

#import shared/stage_matrix_$load.wgsl tensor=x tile=activation_tile rows=SUBGROUPS_M*PATCH
#import shared/stage_matrix_$load.wgsl tensor=n tile=activation_tile rows=SUBGROUPS_M*PATCH
#import shared/stage_matrix_$load.wgsl tensor=gate_weight tile=gate_tile rows=SUBGROUPS_N*PATCH
#import shared/stage_matrix_$load.wgsl tensor=up_weight tile=up_tile rows=SUBGROUPS_N*PATCH

// Writes what follows from a matrix of sums, four neighbouring neurons an invocation.
fn write_matrix(first_token: u32, first_neuron: u32, sums: u32, lane: u32) {
    for (var unit = lane; unit < MATRIX / 4u; unit += SUBGROUP) {
        let token = first_token + unit * 4u / SIZE;
        let at = sums + unit * 4u;
        let gate = vec4(gate_sums[at], gate_sums[at + 1u], gate_sums[at + 2u], gate_sums[at + 3u]);
        let up = vec4(up_sums[at], up_sums[at + 1u], up_sums[at + 2u], up_sums[at + 3u]);
        if (token < parameters.tokens) {
            write(token, first_neuron + unit * 4u % SIZE, gate, up);
        }
    }
}

@compute @workgroup_size(SUBGROUPS_M * SUBGROUPS_N * SUBGROUP)
fn gate_up_matrices(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    // No way out for workgroups behind the end, since matrices ask for uniform control flow: their neurons are behind the last,
    // of which nothing is written.
    let index = launch_index(workgroup, workgroups);
    let first_token = index % parameters.token_tiles * (SUBGROUPS_M * PATCH);
    let first_neuron = index / parameters.token_tiles * (SUBGROUPS_N * PATCH);
    let m = patch_m(subgroup);
    let n = patch_n(subgroup);

    var gate00: Sum;
    var gate01: Sum;
    var gate10: Sum;
    var gate11: Sum;
    var up00: Sum;
    var up01: Sum;
    var up10: Sum;
    var up11: Sum;
    for (var first_k = 0u; first_k < parameters.inputs; first_k += DEPTH) {
        if (parameters.is_prepared != 0u) {
            stage_n(first_token, first_k, parameters.inputs, thread);
        } else {
            stage_x(first_token, first_k, parameters.inputs, thread);
        }
        stage_up_weight(first_neuron, first_k, parameters.inputs, thread);
        if (GATED) {
            stage_gate_weight(first_neuron, first_k, parameters.inputs, thread);
        }
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k += SIZE) {
            let n0 = coopLoadT<Left>(&activation_tile[m * DEPTH + k], DEPTH);
            let n1 = coopLoadT<Left>(&activation_tile[(m + SIZE) * DEPTH + k], DEPTH);
            let u0 = coopLoad<Right>(&up_tile[n * DEPTH + k], DEPTH);
            let u1 = coopLoad<Right>(&up_tile[(n + SIZE) * DEPTH + k], DEPTH);
            up00 = coopMultiplyAdd(n0, u0, up00);
            up01 = coopMultiplyAdd(n0, u1, up01);
            up10 = coopMultiplyAdd(n1, u0, up10);
            up11 = coopMultiplyAdd(n1, u1, up11);
            if (GATED) {
                let g0 = coopLoad<Right>(&gate_tile[n * DEPTH + k], DEPTH);
                let g1 = coopLoad<Right>(&gate_tile[(n + SIZE) * DEPTH + k], DEPTH);
                gate00 = coopMultiplyAdd(n0, g0, gate00);
                gate01 = coopMultiplyAdd(n0, g1, gate01);
                gate10 = coopMultiplyAdd(n1, g0, gate10);
                gate11 = coopMultiplyAdd(n1, g1, gate11);
            }
        }
        workgroupBarrier();
    }

    let sums = subgroup * MATRIX;
    // One call in a loop: four calls would be inlined four times.
    for (var i = 0u; i < 4u; i++) {
        switch (i) {
            case 0u: {
                coopStoreT(up00, &up_sums[sums], SIZE);
                coopStoreT(gate00, &gate_sums[sums], SIZE);
            }
            case 1u: {
                coopStoreT(up01, &up_sums[sums], SIZE);
                coopStoreT(gate01, &gate_sums[sums], SIZE);
            }
            case 2u: {
                coopStoreT(up10, &up_sums[sums], SIZE);
                coopStoreT(gate10, &gate_sums[sums], SIZE);
            }
            default: {
                coopStoreT(up11, &up_sums[sums], SIZE);
                coopStoreT(gate11, &gate_sums[sums], SIZE);
            }
        }
        workgroupBarrier();
        let token = first_token + m + matrix_m(i);
        write_matrix(token, first_neuron + n + matrix_n(i), sums, lane);
        workgroupBarrier();
    }
}
