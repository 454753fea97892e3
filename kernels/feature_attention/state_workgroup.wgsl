// A text's state in workgroup memory.

var<workgroup> state: array<f32, STATE>;

fn state_at(text: u32, at: u32) -> f32 {
    return state[at];
}

fn set_state(text: u32, at: u32, value: f32) {
    state[at] = value;
}

// Until everybody's state, and what else is in workgroup memory, is there.
fn state_barrier() {
    workgroupBarrier();
}
