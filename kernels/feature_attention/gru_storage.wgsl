// Recurrent weights that are too many to stay anywhere: read at each step.

fn load_weights(thread: u32) {}

fn finished_bias(unit: u32) -> vec3<f32> {
    return unit_bias(unit);
}

// This invocation's part of the sums of unit `first` + thread / PARTS.
fn multiply(state: u32, first: u32, thread: u32) -> vec3<f32> {
    let unit = first + thread / PARTS;
    var sum = vec3(0.0);
    for (var k = thread % PARTS * 4u; k < parameters.hidden; k += PARTS * 4u) {
        let four = state_four(state, k);
        sum += vec3(
            dot(weight_four(0u, unit, k), four),
            dot(weight_four(1u, unit, k), four),
            dot(weight_four(2u, unit, k), four),
        );
    }
    return sum;
}
