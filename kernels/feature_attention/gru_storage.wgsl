// Recurrent weights that are too many to stay anywhere: read at each step.

fn load_weights(thread: u32) {}

fn finished_bias(unit: u32) -> vec3<f32> {
    return unit_bias(unit);
}

// One loop a direction: a choice within would load for both where invocations run in lockstep.
#import feature_attention/gru_stored_sum.wgsl direction=forward
#import feature_attention/gru_stored_sum.wgsl direction=reverse

// This invocation's part of the sums of unit `first` + thread / PARTS; behind the last unit, of the last.
fn multiply(state: u32, first: u32, thread: u32) {
    let unit = min(first + thread / PARTS, parameters.hidden - 1u);
    if (is_reverse) {
        reverse_sums(state, unit, thread);
    } else {
        forward_sums(state, unit, thread);
    }
}
