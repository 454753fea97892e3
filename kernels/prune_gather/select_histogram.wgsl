// How often each digit occurs in the keys that agree with what is known of the threshold.
//
// launch  at most one workgroup a tile; they stride over tiles
// memory  2^11 words: digits of 11 bits and fewer are counted there first, digits of 16 bits are not
// Atomics count only, so their order does not matter.

#import prune_gather/selection.wgsl
#import shared/scores.wgsl tensor=scores binding=1 dtype=INPUT
@group(0) @binding(2) var<storage, read_write> scratch: array<atomic<u32>>;
#import shared/score_key.wgsl

var<workgroup> bins: array<atomic<u32>, 2048>;

@compute @workgroup_size(THREADS)
fn select_histogram(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = launch_index(workgroup, workgroups);
    if (group >= parameters.workgroups) {
        return;
    }
    for (var bin = thread; bin < 2048u; bin += THREADS) {
        atomicStore(&bins[bin], 0u);
    }
    workgroupBarrier();
    let mask = (1u << DIGIT_BITS) - 1u;
    let prefix = atomicLoad(&scratch[parameters.state]);
    for (var tile = group; tile < parameters.tiles; tile += parameters.workgroups) {
        for (var item = 0u; item < ITEMS; item++) {
            let index = (tile * ITEMS + item) * THREADS + thread;
            if (index < parameters.elements) {
                let key = scores_key(index) >> parameters.digit_shift;
                if (parameters.first_digit == 1u || (key >> DIGIT_BITS) == prefix) {
                    if (DIGIT_BITS > 11u) {
                        atomicAdd(&scratch[parameters.histogram + (key & mask)], 1u);
                    } else {
                        atomicAdd(&bins[key & mask], 1u);
                    }
                }
            }
        }
    }
    workgroupBarrier();
    if (DIGIT_BITS <= 11u) {
        for (var bin = thread; bin <= mask; bin += THREADS) {
            let occurrences = atomicLoad(&bins[bin]);
            if (occurrences > 0u) {
                atomicAdd(&scratch[parameters.histogram + bin], occurrences);
            }
        }
    }
}
