// gru_recurrence: the steps of a GRU layer, both directions, the whole time loop in one dispatch
//   r = sigmoid(xr + hr)   z = sigmoid(xz + hz)   n = tanh(xn + r * hn)   h' = (1 - z) n + z h
// with (xr, xz, xn) = gates[b,t,d], as gru_input makes them, and (hr, hz, hn) = W_d h + b_d, the gates' rows one below
// the other; b_d is b_hh. The forward direction runs from token 0 to length - 1, the reverse one from length - 1 to 0.
//
// scratch  lengths [B], then gates [B, L, 2, 3h] f32      W_d  [3h, h], b_d  [3h]  one dtype, b_d optional
// initial, last  [2, B, h]  optional      out  [B, L, 2h]  zeros behind length; each any of f32, f16, bf16
//
// launch  2 ceil(B / ROWS): a workgroup owns a direction of ROWS rows; one that has ended waits for the others
// workgroup  THREADS = units of a pass * PARTS invocations; the PARTS of a unit share its sums, K dealt to them in fours
//   slice4, slice16  one pass; an invocation keeps 4 or 16 fours of each of its unit's three rows: 48 or 192 weights
//   storage          as many passes a step as it takes; weights come from memory each time, once for all ROWS
// workgroup memory  (2 STATE + 4 THREADS) * ROWS * 4 + 16 bytes: states, double-buffered, and the parts' sums
// barriers  two a pass where parts share a sum, else one a step
// initial_access is read_write for states that lie in scratch: parts of one buffer can be bound in one way only.
// Fours are summed in order in f32, then parts in order; a sum of weights from memory takes what follows its last four
// one by one. Results depend neither on the batch nor on L.

#variant weights = slice4 slice16 storage
#variant initial_access = read read_write

override THREADS: u32 = 64u;
override PARTS: u32 = 1u;
// Of the batch, that a workgroup steps through side by side: 1 to 4.
override ROWS: u32 = 1u;
// Floats of a state: hidden units and zeros behind them.
override STATE: u32 = 64u;
override WEIGHT: u32 = 0u;

// In place of a state: zeros.
const NO_STATE: u32 = 0xffffffffu;

struct Parameters {
    steps: u32,
    hidden: u32,
    workgroups: u32,
    batch: u32,
    has_bias_forward: u32,
    has_bias_reverse: u32,
    has_initial: u32,
    has_last: u32,
    // Words that a row of out, and of last, touches at most.
    out_units: u32,
    last_units: u32,
    // First element and elements between rows, from the start of each binding.
    lengths_start: u32,
    gates_start: u32,
    forward_start: u32,
    forward_stride: u32,
    reverse_start: u32,
    reverse_stride: u32,
    bias_forward_start: u32,
    bias_reverse_start: u32,
    initial_start: u32,
    initial_direction_stride: u32,
    initial_batch_stride: u32,
    out_start: u32,
    out_batch_stride: u32,
    out_token_stride: u32,
    last_start: u32,
    last_direction_stride: u32,
    last_batch_stride: u32,
    initial_dtype: u32,
    out_dtype: u32,
    last_dtype: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import feature_attention/activation.wgsl
@group(0) @binding(1) var<storage, read_write> scratch: array<u32>;
#import shared/tensor_element.wgsl tensor=weight_forward binding=2 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=weight_reverse binding=3 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=bias_forward binding=4 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=bias_reverse binding=5 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=initial binding=6 dtype=parameters.initial_dtype access=$initial_access
#import shared/output.wgsl tensor=out binding=7 dtype=parameters.out_dtype
#import shared/output.wgsl tensor=last binding=8 dtype=parameters.last_dtype

// Of each row the states before and after a step, in turns.
var<workgroup> states: array<f32, 2u * STATE * ROWS>;
var<workgroup> part_sums: array<vec4<f32>, THREADS * ROWS>;
// 0 behind the last row.
var<workgroup> row_lengths: vec4<u32>;
var<private> is_reverse: bool;

fn bias_at(row: u32) -> f32 {
    if (is_reverse && parameters.has_bias_reverse != 0u) {
        return bias_reverse_at(parameters.bias_reverse_start + row);
    }
    if (!is_reverse && parameters.has_bias_forward != 0u) {
        return bias_forward_at(parameters.bias_forward_start + row);
    }
    return 0.0;
}

fn unit_bias(unit: u32) -> vec3<f32> {
    if (unit >= parameters.hidden) {
        return vec3(0.0);
    }
    let hidden = parameters.hidden;
    return vec3(bias_at(unit), bias_at(hidden + unit), bias_at(2u * hidden + unit));
}

fn state_four(state: u32, k: u32) -> vec4<f32> {
    let at = state + k;
    return vec4(states[at], states[at + 1u], states[at + 2u], states[at + 3u]);
}

#import feature_attention/gru_$weights.wgsl

fn unit_gates(row: u32, token: u32, direction: u32, unit: u32) -> vec3<f32> {
    if (unit >= parameters.hidden) {
        return vec3(0.0);
    }
    let hidden = parameters.hidden;
    let place = (row * parameters.steps + token) * 2u + direction;
    let at = parameters.gates_start + place * 3u * hidden + unit;
    let words = vec3(scratch[at], scratch[at + hidden], scratch[at + 2u * hidden]);
    return bitcast<vec3<f32>>(words);
}

// The next state of a unit, whose parts' sums are there from `first` on.
fn next_state(first: u32, gates: vec3<f32>, bias: vec3<f32>, state: f32) -> f32 {
    var sum = vec3(0.0);
    for (var part = 0u; part < PARTS; part++) {
        sum += part_sums[first + part].xyz;
    }
    sum += bias;
    let reset = sigmoid(gates.x + sum.x);
    let update = sigmoid(gates.y + sum.y);
    let candidate = tanh_stable(gates.z + reset * sum.z);
    return (1.0 - update) * candidate + update * state;
}

// Of a row that is the state at `state`, or zeros.
fn out_bits(state: u32, column: u32) -> u32 {
    if (state == NO_STATE) {
        return 0u;
    }
    return bits_of(states[state + column], parameters.out_dtype);
}

fn last_bits(state: u32, column: u32) -> u32 {
    return bits_of(states[state + column], parameters.last_dtype);
}

#import shared/output_row.wgsl tensor=out dtype=parameters.out_dtype
#import shared/output_row.wgsl tensor=last dtype=parameters.last_dtype

fn out_start(row: u32, token: u32, direction: u32) -> u32 {
    return parameters.out_start + row * parameters.out_batch_stride + token * parameters.out_token_stride
        + direction * parameters.hidden;
}

fn write_out(state: u32, start: u32, thread: u32) {
    for (var unit = thread; unit < parameters.out_units; unit += THREADS) {
        out_write_unit(state, start, parameters.hidden, unit);
    }
}

fn load_initial(first_row: u32, direction: u32, thread: u32) {
    for (var i = 0u; i < ROWS; i++) {
        let start = parameters.initial_start + direction * parameters.initial_direction_stride
            + (first_row + i) * parameters.initial_batch_stride;
        for (var unit = thread; unit < STATE; unit += THREADS) {
            var state = 0.0;
            if (parameters.has_initial != 0u && first_row + i < parameters.batch && unit < parameters.hidden) {
                state = initial_at(start + unit);
            }
            states[2u * STATE * i + unit] = state;
            states[2u * STATE * i + STATE + unit] = 0.0;
        }
    }
}

fn store_lengths(first_row: u32) {
    var lengths = vec4(0u);
    for (var i = 0u; i < min(parameters.batch - first_row, ROWS); i++) {
        lengths[i] = min(scratch[parameters.lengths_start + first_row + i], parameters.steps);
    }
    row_lengths = lengths;
}

fn token_of(step: u32, length: u32) -> u32 {
    return select(step, length - 1u - step, is_reverse);
}

@compute @workgroup_size(THREADS)
fn gru_recurrence(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = launch_index(workgroup, workgroups);
    if (index >= parameters.workgroups) {
        return;
    }
    let first_row = index / 2u * ROWS;
    let direction = index % 2u;
    is_reverse = direction == 1u;
    if (thread == 0u) {
        store_lengths(first_row);
    }
    load_initial(first_row, direction, thread);
    load_weights(thread);
    // A barrier, too.
    let lengths = workgroupUniformLoad(&row_lengths);
    let longest = max(max(lengths.x, lengths.y), max(lengths.z, lengths.w));

    for (var step = 0u; step < longest; step++) {
        let current = step % 2u * STATE;
        let next = STATE - current;
        for (var first = 0u; first < parameters.hidden; first += THREADS / PARTS) {
            let unit = first + thread;
            let is_unit = thread < THREADS / PARTS && unit < parameters.hidden;
            var gates: array<vec3<f32>, 4>;
            if (is_unit) {
                for (var i = 0u; i < ROWS; i++) {
                    if (step < lengths[i]) {
                        gates[i] = unit_gates(first_row + i, token_of(step, lengths[i]), direction, unit);
                    }
                }
            }
            multiply(current, first, thread);
            if (PARTS > 1u) {
                workgroupBarrier();
            }
            if (is_unit) {
                let bias = finished_bias(unit);
                for (var i = 0u; i < ROWS; i++) {
                    let row = 2u * STATE * i + unit;
                    var state = states[row + current];
                    // One that has ended keeps its state.
                    if (step < lengths[i]) {
                        state = next_state(THREADS * i + thread * PARTS, gates[i], bias, state);
                    }
                    states[row + next] = state;
                }
            }
            // The state is whole, and the sums have been read.
            if (PARTS > 1u) {
                workgroupBarrier();
            }
        }
        // Without parts nobody reads another's sums, and units of a step need not wait for each other.
        if (PARTS == 1u) {
            workgroupBarrier();
        }
        for (var i = 0u; i < ROWS; i++) {
            if (step < lengths[i]) {
                write_out(2u * STATE * i + next, out_start(first_row + i, token_of(step, lengths[i]), direction), thread);
            }
        }
    }
    for (var i = 0u; i < min(parameters.batch - first_row, ROWS); i++) {
        let row = first_row + i;
        if (parameters.has_last != 0u) {
            let start = parameters.last_start + direction * parameters.last_direction_stride
                + row * parameters.last_batch_stride;
            for (var unit = thread; unit < parameters.last_units; unit += THREADS) {
                last_write_unit(2u * STATE * i + longest % 2u * STATE, start, parameters.hidden, unit);
            }
        }
        for (var token = lengths[i]; token < parameters.steps; token++) {
            write_out(NO_STATE, out_start(row, token, direction), thread);
        }
    }
}
