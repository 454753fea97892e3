// MLP for many tokens, second half:  y[m,j] = residual[m,j] + h[m,:] . Wd[j,:] + bd[j]
//
// h  [M, F]  f32, without gaps        Wd [H, F]  nn.Linear layout        bd [H]  weights' type
// residual [M, H]  activations' type        out [M, H]  any of f32, f16, bf16
//
// launch  ceil(M / tile M) * ceil(H / tile N), tokens fastest, so that neighbours share weights
// workgroup  THREADS_N x THREADS_M invocations, each 4 tokens by 4 rows j; the tile is 4 THREADS_M tokens
//            by 4 THREADS_N rows, DEPTH (a multiple of 4) elements of F at a time
// workgroup memory  DEPTH * (THREADS_M + THREADS_N) * 16 bytes: f32, k outermost, tokens or rows in fours
// A product is summed over F in order, in f32.

#variant load = vector scalar

override THREADS_M: u32 = 8u;
override THREADS_N: u32 = 8u;
override DEPTH: u32 = 8u;
override ACTIVATION: u32 = 0u;
override WEIGHT: u32 = 0u;
override OUT: u32 = 0u;

struct Parameters {
    ffn: u32,
    rows: u32,
    tokens: u32,
    token_tiles: u32,
    workgroups: u32,
    // First element and elements between rows, from the start of each binding.
    h_start: u32,
    h_stride: u32,
    down_start: u32,
    down_stride: u32,
    bias_start: u32,
    residual_start: u32,
    residual_stride: u32,
    out_start: u32,
    out_stride: u32,
    has_bias: u32,
    has_residual: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/tensor_$load.wgsl tensor=h binding=1 dtype=F32 access=read
#import shared/tensor_$load.wgsl tensor=down_weight binding=2 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=down_bias binding=3 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=residual binding=4 dtype=ACTIVATION access=read
#import shared/output.wgsl tensor=out binding=5 dtype=OUT

var<workgroup> h_tile: array<vec4<f32>, DEPTH * THREADS_M>;
var<workgroup> weight_tile: array<vec4<f32>, DEPTH * THREADS_N>;

fn activations(token: u32, k: u32) -> vec4<f32> {
    let row = parameters.h_start + min(token, parameters.tokens - 1u) * parameters.h_stride;
    return h_four(row, k, parameters.ffn);
}

fn weights(row: u32, k: u32) -> vec4<f32> {
    let start = parameters.down_start + min(row, parameters.rows - 1u) * parameters.down_stride;
    return down_weight_four(start, k, parameters.ffn);
}

// Brings a DEPTH-deep slice of both operands into workgroup memory: four rows by four k at a time,
// transposed on the way.
fn stage(first_token: u32, first_row: u32, first_k: u32, thread: u32) {
    for (var block = thread; block < DEPTH / 4u * THREADS_M; block += THREADS_M * THREADS_N) {
        let k = block % (DEPTH / 4u) * 4u;
        let column = block / (DEPTH / 4u);
        let token = first_token + column * 4u;
        let rows = transpose(mat4x4(
            activations(token, first_k + k),
            activations(token + 1u, first_k + k),
            activations(token + 2u, first_k + k),
            activations(token + 3u, first_k + k),
        ));
        for (var i = 0u; i < 4u; i++) {
            h_tile[(k + i) * THREADS_M + column] = rows[i];
        }
    }
    for (var block = thread; block < DEPTH / 4u * THREADS_N; block += THREADS_M * THREADS_N) {
        let k = block % (DEPTH / 4u) * 4u;
        let column = block / (DEPTH / 4u);
        let row = first_row + column * 4u;
        let down = transpose(mat4x4(
            weights(row, first_k + k),
            weights(row + 1u, first_k + k),
            weights(row + 2u, first_k + k),
            weights(row + 3u, first_k + k),
        ));
        for (var i = 0u; i < 4u; i++) {
            weight_tile[(k + i) * THREADS_N + column] = down[i];
        }
    }
}

fn write(token: u32, row: u32, sums: vec4<f32>) {
    if (token >= parameters.tokens || row >= parameters.rows) {
        return;
    }
    let count = min(parameters.rows - row, 4u);
    var values = sums;
    for (var i = 0u; i < count; i++) {
        if (parameters.has_residual != 0u) {
            let at = parameters.residual_start + token * parameters.residual_stride;
            values[i] += residual_at(at + row + i);
        }
        if (parameters.has_bias != 0u) {
            values[i] += down_bias_at(parameters.bias_start + row + i);
        }
    }
    out_store_four(parameters.out_start + token * parameters.out_stride + row, values, count);
}

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
    for (var first_k = 0u; first_k < parameters.ffn; first_k += DEPTH) {
        stage(first_token, first_row, first_k, thread);
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

    let token = first_token + place.y * 4u;
    let row = first_row + place.x * 4u;
    write(token, row, sum0);
    write(token + 1u, row, sum1);
    write(token + 2u, row, sum2);
    write(token + 3u, row, sum3);
}
