// The next digit of the threshold, the k-th largest key, from the histogram; which is 0 again afterwards.
//
// launch  1; an invocation owns consecutive bins, the first one the highest
// memory  THREADS words

#import prune_gather/selection.wgsl
@group(0) @binding(1) var<storage, read_write> scratch: array<u32>;
#import shared/scan.wgsl

@compute @workgroup_size(THREADS)
fn select_digit(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    // Launches of one dimension are laid out over two: this one has no second workgroup.
    if (launch_index(workgroup, workgroups) > 0u) {
        return;
    }
    let bins = 1u << DIGIT_BITS;
    let own = bins / THREADS;
    let state = parameters.state;
    let first = parameters.first_digit == 1u;
    let wanted = select(scratch[state + 1u], parameters.k, first);
    let prefix = select(scratch[state] << DIGIT_BITS, 0u, first);
    let highest = parameters.histogram + bins - 1u - thread * own;
    var sum = 0u;
    for (var bin = 0u; bin < own; bin++) {
        sum += scratch[highest - bin];
    }
    // Its barriers stand between every invocation's reading of the state and one's writing.
    var above = scan(sum, thread).x;
    // Nothing wanted: no key is as large as the largest number.
    if (wanted == 0u && thread == 0u) {
        scratch[state] = prefix | (bins - 1u);
        scratch[state + 1u] = 0u;
    }
    let mine = above < wanted && wanted <= above + sum;
    var found = false;
    for (var bin = 0u; bin < own; bin++) {
        let at = highest - bin;
        let occurrences = scratch[at];
        if (mine && !found && wanted <= above + occurrences) {
            scratch[state] = prefix | (at - parameters.histogram);
            scratch[state + 1u] = wanted - above;
            found = true;
        }
        above += occurrences;
        scratch[at] = 0u;
    }
    if (thread == 0u) {
        scratch[state + 2u] = 0u;
    }
}
