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

struct Parameters {
    depth: u32,
    // Of this launch's part of the weight, the first of it, and of all of it.
    rows: u32,
    first_row: u32,
    outputs: u32,
    // Features of out and residual.
    width: u32,
    tokens: u32,
    token_tiles: u32,
    workgroups: u32,
    // First element and elements between rows, from the start of each binding.
    h_start: u32,
    h_stride: u32,
    down_start: u32,
    down_stride: u32,
    bias_start: u32,
    out_indices_start: u32,
    out_mask_start: u32,
    residual_start: u32,
    residual_stride: u32,
    out_start: u32,
    out_stride: u32,
    has_bias: u32,
    has_residual: u32,
    has_mask: u32,
    scatters: u32,
    // Element types.
    activation: u32,
    out_dtype: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/chunk_$load.wgsl
#import shared/tensor_$load.wgsl tensor=h binding=1 dtype=INPUT access=read
#import shared/tensor_$load.wgsl tensor=down_weight binding=2 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=down_bias binding=3 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=residual binding=4 dtype=parameters.activation access=read
@group(0) @binding(5) var<storage, read> out_indices: array<u32>;
@group(0) @binding(6) var<storage, read> out_mask: array<f32>;
#import shared/output.wgsl tensor=out binding=7 dtype=parameters.out_dtype

var<workgroup> h_tile: array<vec4<f32>, DEPTH * THREADS_M>;
var<workgroup> weight_tile: array<vec4<f32>, DEPTH * THREADS_N>;

// Where rows start; behind the last row, the last.
fn h_row(token: u32) -> u32 {
    return parameters.h_start + min(token, parameters.tokens - 1u) * parameters.h_stride;
}

fn down_weight_row(row: u32) -> u32 {
    return parameters.down_start + min(row, parameters.rows - 1u) * parameters.down_stride;
}

#import shared/stage_$load.wgsl tensor=h tile=h_tile first=0u threads=THREADS_M
#import shared/stage_$load.wgsl tensor=down_weight tile=weight_tile first=0u threads=THREADS_N

#import silu_mlp/down_write.wgsl

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
