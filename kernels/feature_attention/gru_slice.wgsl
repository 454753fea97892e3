// Recurrent weights that stay with their invocation: $fours fours of each of a unit's three rows.

const FOURS: u32 = $fours;
var<private> weights: array<vec4<f32>, 3u * FOURS>;
var<private> biases: vec3<f32>;

// Elements k..k+3 of a row of W; zeros outside.
fn weight_four(gate: u32, unit: u32, k: u32) -> vec4<f32> {
    let row = gate * parameters.hidden + unit;
    let forward = parameters.forward_start + row * parameters.forward_stride + k;
    let reverse = parameters.reverse_start + row * parameters.reverse_stride + k;
    var four = vec4(0.0);
    if (unit < parameters.hidden) {
        for (var i = 0u; i < min(parameters.hidden - min(k, parameters.hidden), 4u); i++) {
            if (is_reverse) {
                four[i] = weight_reverse_at(reverse + i);
            } else {
                four[i] = weight_forward_at(forward + i);
            }
        }
    }
    return four;
}

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
fn multiply(state: u32, first: u32, thread: u32) {
    for (var row = 0u; row < ROWS; row++) {
        var sum = vec3(0.0);
        for (var i = 0u; i < FOURS; i++) {
            let four = state_four(2u * STATE * row + state, (i * PARTS + thread % PARTS) * 4u);
            sum += vec3(dot(weights[i], four), dot(weights[FOURS + i], four), dot(weights[2u * FOURS + i], four));
        }
        part_sums[THREADS * row + thread] = vec4(sum, 0.0);
    }
}
