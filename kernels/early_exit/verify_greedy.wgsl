// verify_greedy:  n = how many leading draft[i] == target[i];  emits draft[..n], target[n], cut behind the first stop id
// and where the budget ends.
//
// target_tokens [N + B] i32, negative: no token; the other tensors and the launch are verification.wgsl's
// A launch writes three of the six results; the walk is so short that the next one repeats it.

#import early_exit/verification.wgsl source=target_tokens

fn walk_of(index: u32, sequence: Sequence) -> Walk {
    if (!sequence.is_valid) {
        return Walk(false, 0u, -1);
    }
    let rows = parameters.source_start + sequence.first + index;
    var accepted = 0u;
    while (accepted < sequence.drafts) {
        let token = target_tokens[rows + accepted];
        if (token < 0 || token != draft_at(sequence.first + accepted)) {
            break;
        }
        accepted++;
    }
    return Walk(true, accepted, target_tokens[rows + accepted]);
}

fn node_at(_index: u32, place: u32) -> u32 {
    return place;
}

@compute @workgroup_size(THREADS)
fn verify_greedy(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = launch_index(workgroup, workgroups);
    // Not `block * THREADS + thread < sequences`, which may wrap in the last workgroups of two dimensions.
    if (block > (parameters.sequences - 1u) / THREADS) {
        return;
    }
    let index = block * THREADS + thread;
    if (index < parameters.sequences) {
        let sequence = sequence_at(index);
        write_results(index, sequence, walk_of(index, sequence));
    }
}
