// Fours of W h from k on, PARTS apart, for the $direction direction.

fn $direction_four(at: u32) -> vec4<f32> {
    return vec4(
        weight_$direction_at(at),
        weight_$direction_at(at + 1u),
        weight_$direction_at(at + 2u),
        weight_$direction_at(at + 3u),
    );
}

fn $direction_sums(state: u32, unit: u32, thread: u32) {
    let hidden = parameters.hidden;
    let weights = parameters.$direction_start + vec3(unit, hidden + unit, 2u * hidden + unit) * parameters.$direction_stride;
    var sums: array<vec3<f32>, 4>;
    var k = thread % PARTS * 4u;
    for (; k + 4u <= hidden; k += PARTS * 4u) {
        let reset = $direction_four(weights.x + k);
        let update = $direction_four(weights.y + k);
        let candidate = $direction_four(weights.z + k);
        for (var row = 0u; row < ROWS; row++) {
            let four = state_four(2u * STATE * row + state, k);
            sums[row] += vec3(dot(reset, four), dot(update, four), dot(candidate, four));
        }
    }
    for (; k < hidden; k++) {
        let column = vec3(
            weight_$direction_at(weights.x + k),
            weight_$direction_at(weights.y + k),
            weight_$direction_at(weights.z + k),
        );
        for (var row = 0u; row < ROWS; row++) {
            sums[row] += column * states[2u * STATE * row + state + k];
        }
    }
    for (var row = 0u; row < ROWS; row++) {
        part_sums[THREADS * row + thread] = vec4(sums[row], 0.0);
    }
}
