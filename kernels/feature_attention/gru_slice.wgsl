// Recurrent weights that stay with their invocation: $fours fours of each of a unit's three rows.

const FOURS: u32 = $fours;
var<private> weights: array<vec4<f32>, 3u * FOURS>;
var<private> biases: vec3<f32>;

// Unit thread / PARTS is this invocation's in the product, unit `thread` behind it.
fn load_weights(thread: u32) {
    for (var i = 0u; i < FOURS; i++) {
        let k = (i * PARTS + thread % PARTS) * 4u;
        for (var gate = 0u; gate < 3u; gate++) {
            weights[gate * FOURS + i] = weight_four(gate, thread / PARTS, k);
        }
    }
    biases = unit_bias(thread);
}

fn finished_bias(unit: u32) -> vec3<f32> {
    return biases;
}

// This invocation's part of the sums of its unit; there is one pass.
fn multiply(state: u32, first: u32, thread: u32) -> vec3<f32> {
    var sum = vec3(0.0);
    for (var i = 0u; i < FOURS; i++) {
        let four = state_four(state, (i * PARTS + thread % PARTS) * 4u);
        sum += vec3(dot(weights[i], four), dot(weights[FOURS + i], four), dot(weights[2u * FOURS + i], four));
    }
    return sum;
}
