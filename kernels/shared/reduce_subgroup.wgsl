// Sums over a workgroup of THREADS invocations, by subgroups: $capacity vectors at most.

#requires subgroups

// WebGPU's smallest subgroup has four invocations.
var<workgroup> subgroup_sums: array<vec4<f32>, THREADS / 4u * $capacity>;
var<workgroup> totals: array<vec4<f32>, $capacity>;

// Only what differs between invocations: a struct counts as non-uniform as a whole.
struct Invocation {
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
}

// Leaves the sum of everybody's `values[i]` in `totals[i]`, for i < count, for all to read.
fn reduce(values: array<vec4<f32>, $capacity>, count: u32, invocation: Invocation) {
    var own = values;
    for (var i = 0u; i < count; i++) {
        let sum = subgroupAdd(own[i]);
        if (invocation.lane == 0u) {
            subgroup_sums[invocation.subgroup * $capacity + i] = sum;
        }
    }
    workgroupBarrier();
    if (invocation.thread < count) {
        var sum = vec4(0.0);
        for (var subgroup = 0u; subgroup < invocation.subgroups; subgroup++) {
            sum += subgroup_sums[subgroup * $capacity + invocation.thread];
        }
        totals[invocation.thread] = sum;
    }
    workgroupBarrier();
}
