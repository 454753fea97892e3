// Prefix sums over a workgroup of THREADS invocations, through workgroup memory (Hillis and Steele 1986).

var<workgroup> scan_sums: array<u32, THREADS>;

// The sum of the values of all invocations before this one, and of all invocations.
fn scan(value: u32, thread: u32) -> vec2<u32> {
    scan_sums[thread] = value;
    workgroupBarrier();
    for (var distance = 1u; distance < THREADS; distance *= 2u) {
        var other = 0u;
        if (thread >= distance) {
            other = scan_sums[thread - distance];
        }
        workgroupBarrier();
        scan_sums[thread] += other;
        workgroupBarrier();
    }
    let result = vec2(scan_sums[thread] - value, scan_sums[THREADS - 1u]);
    // The next call must not overwrite what others still read.
    workgroupBarrier();
    return result;
}
