// gru_input: what a GRU's gates take from its input, hoisted out of time and for both directions at once
//   gates[b,t, d, j] = x[b,t,:] . W_d[j,:] + b_d[j]     of every valid token t < length[b]
//
// x  [B, L, I]  any of f32, f16, bf16, batch and token strides      W_d  [N, I], b_d  [N]  one dtype, nn.Linear layout
// scratch  lengths [B], clamped to L, then gates [B, L, 2, N] f32, dense; what belongs to padding is not written, or is
// of no use.  N = 3h, gates in the order r, z, n; b_d is b_ih alone: the recurrence adds b_hh
// Given the halves of one matrix as W_0 and W_1 this is a plain product, [B, L, 2N] in scratch, and no lengths are.
//
// launch  ceil(B L / (4 FOURS THREADS_M)) * ceil(N / (2 FOURS THREADS_N)), tokens fastest: neighbours share weights
// workgroup  THREADS_N x THREADS_M invocations, each FOURS fours of tokens by FOURS fours of rows of W; DEPTH elements of
//            I at a time. One half of the columns is one direction's and the other the other's, so that weights are
//            staged without asking whose they are. FOURS of 2 halves what is read from workgroup memory for a product
// workgroup memory  DEPTH * FOURS * (THREADS_M + THREADS_N) * 16 + 16 FOURS THREADS_M + 4 bytes
// Tokens are counted through the batch, so that short rows fill tiles; a tile without a valid token returns at once. A
// product is summed over I in f32, in order: its bits depend on its token and row of W alone.
// x_access is read_write for an x that lies in scratch too: parts of one buffer can be bound in one way only.

#variant x_access = read read_write
#variant fours = 1 2

override THREADS_M: u32 = 8u;
// Even.
override THREADS_N: u32 = 8u;
override DEPTH: u32 = 16u;
override INPUT: u32 = 0u;
override WEIGHT: u32 = 0u;

const FOURS: u32 = $fours;

struct Parameters {
    // Rows of the batch in this launch.
    batch: u32,
    steps: u32,
    features: u32,
    // Rows of one direction.
    outputs: u32,
    token_tiles: u32,
    workgroups: u32,
    has_lengths: u32,
    stores_lengths: u32,
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

var<workgroup> x_tile: array<vec4<f32>, DEPTH * FOURS * THREADS_M>;
var<workgroup> weight_tile: array<vec4<f32>, DEPTH * FOURS * THREADS_N>;
// Where the tile's rows of x start: two divisions each, not to be repeated for every slice.
var<workgroup> x_starts: array<u32, 4u * FOURS * THREADS_M>;
var<workgroup> is_needed: u32;

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

fn has_valid_token(first: u32) -> bool {
    let end = min(first + 4u * FOURS * THREADS_M, parameters.batch * parameters.steps);
    for (var row = first / parameters.steps; row * parameters.steps < end; row++) {
        if (row * parameters.steps + row_length(row) > first) {
            return true;
        }
    }
    return false;
}

// Behind the last token, the last.
fn store_x_starts(first: u32, thread: u32) {
    for (var row = thread; row < 4u * FOURS * THREADS_M; row += THREADS_M * THREADS_N) {
        let token = min(first + row, parameters.batch * parameters.steps - 1u);
        x_starts[row] = parameters.x_start + token / parameters.steps * parameters.x_batch_stride
            + token % parameters.steps * parameters.x_token_stride;
    }
}

fn x_row(row: u32) -> u32 {
    return x_starts[row];
}

// Behind the last row, the last.
fn weight_forward_row(row: u32) -> u32 {
    return parameters.forward_start + min(row, parameters.outputs - 1u) * parameters.forward_stride;
}

fn weight_reverse_row(row: u32) -> u32 {
    return parameters.reverse_start + min(row, parameters.outputs - 1u) * parameters.reverse_stride;
}

fn bias_at(direction: u32, row: u32) -> f32 {
    if (direction == 1u && parameters.has_bias_reverse != 0u) {
        return bias_reverse_at(parameters.bias_reverse_start + row);
    }
    if (direction == 0u && parameters.has_bias_forward != 0u) {
        return bias_forward_at(parameters.bias_forward_start + row);
    }
    return 0.0;
}

#import shared/stage_scalar.wgsl tensor=x tile=x_tile first=0u threads=(FOURS*THREADS_M)
#import shared/stage_scalar.wgsl tensor=weight_forward tile=weight_tile first=0u threads=(FOURS*THREADS_N/2u)
#import shared/stage_scalar.wgsl tensor=weight_reverse tile=weight_tile first=DEPTH*(FOURS*THREADS_N/2u) threads=(FOURS*THREADS_N/2u)

// The four rows of W_d from `row` on, of a token.
fn store(token: u32, direction: u32, row: u32, sum: vec4<f32>) {
    let at = parameters.scratch_gates_start + (token * 2u + direction) * parameters.outputs + row;
    for (var i = 0u; i < min(parameters.outputs - min(row, parameters.outputs), 4u); i++) {
        scratch[at + i] = bitcast<u32>(sum[i] + bias_at(direction, row + i));
    }
}

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
    if (index == 0u && parameters.stores_lengths != 0u) {
        store_lengths(thread);
    }
    let first_token = index % parameters.token_tiles * (4u * FOURS * THREADS_M);
    if (thread == 0u) {
        is_needed = select(0u, 1u, has_valid_token(first_token));
    }
    store_x_starts(first_token, thread);
    // A barrier, too.
    if (workgroupUniformLoad(&is_needed) == 0u) {
        return;
    }
    let first_row = index / parameters.token_tiles * (2u * FOURS * THREADS_N);
    let direction = place.x / (THREADS_N / 2u);
    let column = place.x % (THREADS_N / 2u);

    var sums: array<vec4<f32>, 4u * FOURS * FOURS>;
    for (var first_k = 0u; first_k < parameters.features; first_k += DEPTH) {
        stage_x(0u, first_k, parameters.features, thread);
        stage_weight_forward(first_row, first_k, parameters.features, thread);
        stage_weight_reverse(first_row, first_k, parameters.features, thread);
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let weights_k = (direction * DEPTH + k) * (FOURS * THREADS_N / 2u) + column;
            for (var n = 0u; n < FOURS; n++) {
                let weight = weight_tile[weights_k + n * (THREADS_N / 2u)];
                for (var m = 0u; m < FOURS; m++) {
                    let x = x_tile[(k * FOURS + m) * THREADS_M + place.y];
                    for (var i = 0u; i < 4u; i++) {
                        sums[(n * FOURS + m) * 4u + i] += x[i] * weight;
                    }
                }
            }
        }
        workgroupBarrier();
    }

    let tokens = parameters.batch * parameters.steps;
    for (var n = 0u; n < FOURS; n++) {
        let row = first_row + (n * (THREADS_N / 2u) + column) * 4u;
        for (var m = 0u; m < FOURS; m++) {
            for (var i = 0u; i < 4u; i++) {
                let token = first_token + (m * THREADS_M + place.y) * 4u + i;
                if (token < tokens) {
                    store(token, direction, row, sums[(n * FOURS + m) * 4u + i]);
                }
            }
        }
    }
}
