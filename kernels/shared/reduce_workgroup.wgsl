// Sums over a workgroup of THREADS invocations, through workgroup memory: $capacity vectors at most, in
// passes of four. THREADS is a multiple of 16.

var<workgroup> pass_sums: array<vec4<f32>, 4u * THREADS>;
var<workgroup> totals: array<vec4<f32>, $capacity>;

// Only what differs between invocations: a struct counts as non-uniform as a whole.
struct Invocation {
    @builtin(local_invocation_index) thread: u32,
}

// Leaves the sum of everybody's `values[i]` in `totals[i]`, for i < count, for all to read.
fn reduce(values: array<vec4<f32>, $capacity>, count: u32, invocation: Invocation) {
    var own = values;
    let column = invocation.thread / 4u;
    let value = invocation.thread % 4u;
    for (var first = 0u; first < count; first += 4u) {
        let present = min(count - first, 4u);
        for (var i = 0u; i < present; i++) {
            pass_sums[i * THREADS + invocation.thread] = own[first + i];
        }
        workgroupBarrier();
        // Each invocation adds four entries of one value ...
        var sum = vec4(0.0);
        if (value < present) {
            for (var i = 0u; i < 4u; i++) {
                sum += pass_sums[value * THREADS + column + i * (THREADS / 4u)];
            }
        }
        workgroupBarrier();
        pass_sums[value * THREADS + column] = sum;
        workgroupBarrier();
        // ... and one for each value adds what is left.
        if (invocation.thread < present) {
            var total = vec4(0.0);
            for (var i = 0u; i < THREADS / 4u; i++) {
                total += pass_sums[invocation.thread * THREADS + i];
            }
            totals[first + invocation.thread] = total;
        }
        workgroupBarrier();
    }
}
