// A direction of a GRU the usual way, two dispatches a step: `products` multiplies the state by the recurrent weight,
// `cell` makes the next state. The input's share of the gates is there before. The yardstick of `gru_recurrence`, where
// the loop over time is inside. f32, without gaps and biases.
//
// input_gates, gates  [B, L, 3h] and [B, 3h]      weight  [3h, h]      state  [B, h]      out  [B, L, 2h]

struct Step {
    batch: u32,
    steps: u32,
    hidden: u32,
    token: u32,
    // The direction's first column of out.
    column: u32,
}

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> input_gates: array<f32>;
@group(0) @binding(3) var<storage, read_write> gates: array<f32>;
@group(0) @binding(4) var<storage, read_write> state: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn products(@builtin(global_invocation_id) id: vec3<u32>) {
    let rows = 3u * step.hidden;
    if (id.x >= rows) {
        return;
    }
    var sum = 0.0;
    for (var k = 0u; k < step.hidden; k++) {
        sum += weight[id.x * step.hidden + k] * state[id.y * step.hidden + k];
    }
    gates[id.y * rows + id.x] = sum;
}

@compute @workgroup_size(64)
fn cell(@builtin(global_invocation_id) id: vec3<u32>) {
    let hidden = step.hidden;
    if (id.x >= hidden) {
        return;
    }
    let mine = id.y * 3u * hidden + id.x;
    let given = (id.y * step.steps + step.token) * 3u * hidden + id.x;
    let reset = 1.0 / (1.0 + exp(-(input_gates[given] + gates[mine])));
    let update = 1.0 / (1.0 + exp(-(input_gates[given + hidden] + gates[mine + hidden])));
    let candidate = tanh(input_gates[given + 2u * hidden] + reset * gates[mine + 2u * hidden]);
    let next = (1.0 - update) * candidate + update * state[id.y * hidden + id.x];
    state[id.y * hidden + id.x] = next;
    out[(id.y * step.steps + step.token) * 2u * hidden + step.column + id.x] = next;
}
