// gru_input: what a GRU's gates take from its input, hoisted out of time and for both directions at once
//   gates[b,t, d, j] = x[b,t,:] . W_d[j,:] + b_d[j]     of every valid token t < length[b]
//
// x  [B, L, I]  any of f32, f16, bf16, batch and token strides      W_d  [N, I], b_d  [N]  one dtype, nn.Linear layout
// scratch  lengths [B], clamped to L, then gates [B, L, 2, N] f32, dense; what belongs to padding is not written, or is
// of no use.  N = 3h, gates in the order r, z, n; b_d is b_ih alone: the recurrence adds b_hh
// With one direction this is a plain product, [B, L, N] in scratch, and no lengths are.
//
// launch  ceil(B L / (4 THREADS_M)) * directions * ceil(N / (4 THREADS_N)), tokens fastest: neighbours share weights
// workgroup  THREADS_N x THREADS_M invocations, each 4 tokens by 4 rows of W; DEPTH elements of I at a time
// workgroup memory  DEPTH * (THREADS_M + THREADS_N) * 16 + 4 bytes
// Tokens are counted through the batch, so that short rows fill tiles; a tile without a valid token returns at once. A
// product is summed over I in f32, in order: its bits depend on its token and row of W alone.
// x_access is read_write for an x that lies in scratch too: parts of one buffer can be bound in one way only.

#variant x_access = read read_write

override THREADS_M: u32 = 8u;
override THREADS_N: u32 = 8u;
override DEPTH: u32 = 16u;
override INPUT: u32 = 0u;
override WEIGHT: u32 = 0u;

struct Parameters {
    // Rows of the batch in this launch.
    batch: u32,
    steps: u32,
    features: u32,
    outputs: u32,
    directions: u32,
    token_tiles: u32,
    // Of one direction.
    row_tiles: u32,
    workgroups: u32,
    has_lengths: u32,
    has_bias_forward: u32,
    has_bias_reverse: u32,
    // First element and elements between rows, from the start of each binding.
    x_start: u32,
    x_batch_stride: u32,
    x_token_stride: u32,
    forward_start: u32,
    forward_stride: u32,
    reverse_start: u32,
    reverse_stride: u32,
    bias_forward_start: u32,
    bias_reverse_start: u32,
    lengths_start: u32,
    scratch_lengths_start: u32,
    scratch_gates_start: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/tensor_element.wgsl tensor=x binding=1 dtype=INPUT access=$x_access
#import shared/tensor_element.wgsl tensor=weight_forward binding=2 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=weight_reverse binding=3 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=bias_forward binding=4 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=bias_reverse binding=5 dtype=WEIGHT access=read
@group(0) @binding(6) var<storage, read> lengths: array<i32>;
@group(0) @binding(7) var<storage, read_write> scratch: array<u32>;

var<workgroup> x_tile: array<vec4<f32>, DEPTH * THREADS_M>;
var<workgroup> weight_tile: array<vec4<f32>, DEPTH * THREADS_N>;
var<workgroup> is_needed: u32;
var<private> is_reverse: bool;

fn row_length(row: u32) -> u32 {
    if (parameters.has_lengths == 0u) {
        return parameters.steps;
    }
    return min(u32(max(lengths[parameters.lengths_start + row], 0)), parameters.steps);
}

// For the recurrence, which has no binding left for them.
fn store_lengths(thread: u32) {
    for (var row = thread; row < parameters.batch; row += THREADS_M * THREADS_N) {
        scratch[parameters.scratch_lengths_start + row] = row_length(row);
    }
}

fn first_token_of(index: u32) -> u32 {
    return index % parameters.token_tiles * (4u * THREADS_M);
}

fn has_valid_token(first: u32) -> bool {
    let end = min(first + 4u * THREADS_M, parameters.batch * parameters.steps);
    for (var row = first / parameters.steps; row * parameters.steps < end; row++) {
        if (row * parameters.steps + row_length(row) > first) {
            return true;
        }
    }
    return false;
}

// Where rows start; behind the last row, the last.
fn x_row(row: u32) -> u32 {
    let token = min(row, parameters.batch * parameters.steps - 1u);
    return parameters.x_start + token / parameters.steps * parameters.x_batch_stride
        + token % parameters.steps * parameters.x_token_stride;
}

fn weight_row(row: u32) -> u32 {
    let present = min(row, parameters.outputs - 1u);
    if (is_reverse) {
        return parameters.reverse_start + present * parameters.reverse_stride;
    }
    return parameters.forward_start + present * parameters.forward_stride;
}

fn weight_at(at: u32) -> f32 {
    if (is_reverse) {
        return weight_reverse_at(at);
    }
    return weight_forward_at(at);
}

fn bias_at(row: u32) -> f32 {
    if (is_reverse && parameters.has_bias_reverse != 0u) {
        return bias_reverse_at(parameters.bias_reverse_start + row);
    }
    if (!is_reverse && parameters.has_bias_forward != 0u) {
        return bias_forward_at(parameters.bias_forward_start + row);
    }
    return 0.0;
}

#import shared/stage_scalar.wgsl tensor=x tile=x_tile threads=THREADS_M
#import shared/stage_scalar.wgsl tensor=weight tile=weight_tile threads=THREADS_N

@compute @workgroup_size(THREADS_N, THREADS_M)
fn gru_input(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_id) place: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = launch_index(workgroup, workgroups);
    if (index >= parameters.workgroups) {
        return;
    }
    if (index == 0u && parameters.directions == 2u) {
        store_lengths(thread);
    }
    if (thread == 0u) {
        is_needed = select(0u, 1u, has_valid_token(first_token_of(index)));
    }
    if (workgroupUniformLoad(&is_needed) == 0u) {
        return;
    }
    let first_token = first_token_of(index);
    let tile = index / parameters.token_tiles;
    let direction = tile / parameters.row_tiles;
    let first_row = tile % parameters.row_tiles * (4u * THREADS_N);
    is_reverse = direction == 1u;

    var sum0 = vec4(0.0);
    var sum1 = vec4(0.0);
    var sum2 = vec4(0.0);
    var sum3 = vec4(0.0);
    for (var first_k = 0u; first_k < parameters.features; first_k += DEPTH) {
        stage_x_tile(first_token, first_k, parameters.features, thread);
        stage_weight_tile(first_row, first_k, parameters.features, thread);
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let x = x_tile[k * THREADS_M + place.y];
            let weight = weight_tile[k * THREADS_N + place.x];
            sum0 += x.x * weight;
            sum1 += x.y * weight;
            sum2 += x.z * weight;
            sum3 += x.w * weight;
        }
        workgroupBarrier();
    }

    let row = first_row + place.x * 4u;
    let token = first_token + place.y * 4u;
    let tokens = parameters.batch * parameters.steps;
    for (var i = 0u; i < min(tokens - min(token, tokens), 4u); i++) {
        let sum = select(select(sum0, sum1, i == 1u), select(sum2, sum3, i == 3u), i >= 2u);
        let at = parameters.scratch_gates_start + ((token + i) * parameters.directions + direction) * parameters.outputs;
        for (var j = 0u; j < 4u; j++) {
            if (row + j < parameters.outputs) {
                scratch[at + row + j] = bitcast<u32>(sum[j] + bias_at(row + j));
            }
        }
    }
}
