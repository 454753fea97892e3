// A text's state in the workspace: the same interface as state_workgroup.wgsl.

fn state_place(text: u32, at: u32) -> u32 {
    let elements = parameters.groups * parameters.features + parameters.reduced;
    return parameters.workspace_start + text * elements + at;
}

fn state_at(text: u32, at: u32) -> f32 {
    return workspace[state_place(text, at)];
}

fn set_state(text: u32, at: u32, value: f32) {
    workspace[state_place(text, at)] = value;
}

// Until everybody's state, and what else is in workgroup memory, is there.
fn state_barrier() {
    storageBarrier();
    workgroupBarrier();
}
