// Every block's second half, and linear layers, for many tokens:  out[m,d] = residual[m,d] + h[m,:] . Wd[j,:] + bd[j]
// with d = indices[j], or j where nothing is selected; features that no j is written to are the residual. The sum is times
// mask[j].
//
// h  [M, F]  f32, or activations        Wd [O, F]  nn.Linear layout        bd [O]  weights' type
// residual [M, D]  activations' type        out [M, D]  any of f32, f16, bf16        D = O without indices
// indices [O]  u32, mask [O]  f32, or absent; an index that is out of range is written nowhere
//
// launch  ceil(M / tile M) * ceil(O / tile N), tokens fastest, so that neighbours share weights
// workgroup  THREADS_N x THREADS_M invocations, each 4 tokens by 4 rows j; the tile is 4 THREADS_M tokens
//            by 4 THREADS_N rows, DEPTH (a multiple of 4) elements of F at a time
// workgroup memory  DEPTH * (THREADS_M + THREADS_N) * 16 bytes: f32, k outermost, tokens or rows in fours
// A product is summed over F in order, in f32.

#variant load = vector scalar

override THREADS_M: u32 = 8u;
override THREADS_N: u32 = 8u;
override DEPTH: u32 = 8u;
override INPUT: u32 = 0u;
override WEIGHT: u32 = 0u;

#import silu_mlp/down_many.wgsl load=$load

var<workgroup> h_tile: array<vec4<f32>, DEPTH * THREADS_M>;
var<workgroup> weight_tile: array<vec4<f32>, DEPTH * THREADS_N>;

#import shared/stage_$load.wgsl tensor=h tile=h_tile first=0u threads=THREADS_M
#import shared/stage_$load.wgsl tensor=down_weight tile=weight_tile first=0u threads=THREADS_N

@compute @workgroup_size(THREADS_N, THREADS_M)
fn down_tile(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_id) place: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = launch_index(workgroup, workgroups);
    if (index >= parameters.workgroups) {
        return;
    }
    let first_token = index % parameters.token_tiles * (4u * THREADS_M);
    let first_row = index / parameters.token_tiles * (4u * THREADS_N);

    var sum0 = vec4(0.0);
    var sum1 = vec4(0.0);
    var sum2 = vec4(0.0);
    var sum3 = vec4(0.0);
    for (var first_k = 0u; first_k < parameters.depth; first_k += DEPTH) {
        stage_h(first_token, first_k, parameters.depth, thread);
        stage_down_weight(first_row, first_k, parameters.depth, thread);
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let h = h_tile[k * THREADS_M + place.y];
            let down = weight_tile[k * THREADS_N + place.x];
            sum0 += h.x * down;
            sum1 += h.y * down;
            sum2 += h.z * down;
            sum3 += h.w * down;
        }
        workgroupBarrier();
    }

    if (parameters.scatters != 0u) {
        let threads = THREADS_M * THREADS_N;
        copy_residual(first_row, 4u * THREADS_N, first_token, 4u * THREADS_M, thread, threads);
        storageBarrier();
    }
    let token = first_token + place.y * 4u;
    let row = first_row + place.x * 4u;
    // One call in a loop of unknown length: four calls would be inlined four times.
    for (var i = 0u; i < min(parameters.tokens - min(token, parameters.tokens), 4u); i++) {
        write(token + i, row, select(select(sum0, sum1, i == 1u), select(sum2, sum3, i == 3u), i >= 2u));
    }
}
