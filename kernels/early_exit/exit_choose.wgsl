// merge_exit_states, what is chosen by id: the best tokens, the sampled token and a gathered logit, from the states of
// all tiles.
//
// state_values [tiles, M, 6 + k]  f32      state_tokens [tiles, M, 2 + k]  i32
// top_tokens [M, k] i32, top_logits [M, k] f32, gathered_logit [M] f32, sampled_token [M] i32, each optional
//
// launch  M; a workgroup owns a row
// workgroup  THREADS invocations, each every THREADS-th tile
// workgroup memory  THREADS * 8 + 4 bytes
// The k best are found one after the other, each the first behind the last in the total order on (value, -id): tiles'
// lists are sorted, so that an invocation looks at few entries of each.

#import early_exit/merge.wgsl
@group(0) @binding(3) var<storage, read_write> top_tokens: array<i32>;
@group(0) @binding(4) var<storage, read_write> top_logits: array<u32>;
@group(0) @binding(5) var<storage, read_write> gathered_logit: array<u32>;
@group(0) @binding(6) var<storage, read_write> sampled_token: array<i32>;

var<workgroup> candidates: array<Best, THREADS>;
var<workgroup> fails: atomic<u32>;

// The best of everybody's, for everybody.
fn best_of_all(own: Best, thread: u32) -> Best {
    candidates[thread] = own;
    workgroupBarrier();
    var best = candidates[0];
    for (var i = 1u; i < THREADS; i++) {
        best = better(best, candidates[i]);
    }
    workgroupBarrier();
    return best;
}

// The first of an invocation's listed logits behind `last`; of all of them if that is nobody's.
fn next_listed(row: u32, thread: u32, last: Best) -> Best {
    var next = Best(LOWEST, NOBODY);
    for (var tile = thread; tile < parameters.tiles; tile += THREADS) {
        for (var k = 0u; k < parameters.top_k; k++) {
            let candidate = Best(
                state_value(row, tile, VALUES + k),
                state_token(row, tile, TOKENS + k),
            );
            if (candidate.id < 0 || is_before(next, candidate)) {
                break;
            }
            if (last.id < 0 || is_before(last, candidate)) {
                next = candidate;
                break;
            }
        }
    }
    return next;
}

fn sampled(row: u32, thread: u32) -> Best {
    var best = Best(LOWEST, NOBODY);
    for (var tile = thread; tile < parameters.tiles; tile += THREADS) {
        let score = state_value(row, tile, VALUE_SCORE);
        best = better(best, Best(score, state_token(row, tile, TOKEN_SAMPLED)));
    }
    return best;
}

fn gathered(row: u32, thread: u32) -> Best {
    var best = Best(LOWEST, NOBODY);
    for (var tile = thread; tile < parameters.tiles; tile += THREADS) {
        best = better(best, Best(state_value(row, tile, VALUE_GATHERED), 0));
    }
    return best;
}

@compute @workgroup_size(THREADS)
fn exit_choose(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = launch_index(workgroup, workgroups);
    if (row >= parameters.output_rows) {
        return;
    }
    if (thread == 0u) {
        atomicStore(&fails, 0u);
    }
    workgroupBarrier();
    for (var tile = thread; tile < parameters.tiles; tile += THREADS) {
        if (is_no_logit(state_bits(row, tile, VALUE_MAX))) {
            atomicStore(&fails, 1u);
        }
    }
    workgroupBarrier();
    let has_no_token = atomicLoad(&fails) != 0u;
    let drawn = best_of_all(sampled(row, thread), thread);
    let wanted = best_of_all(gathered(row, thread), thread);
    if (thread == 0u && is_wanted(2u)) {
        let bits = select(value_bits(wanted.value), NOT_A_NUMBER, has_no_token);
        gathered_logit[parameters.out_2_start + row] = bits;
    }
    if (thread == 0u && is_wanted(3u)) {
        sampled_token[parameters.out_3_start + row] = select(drawn.id, NOBODY, has_no_token);
    }
    var last = Best(LOWEST, NOBODY);
    var is_over = has_no_token;
    for (var k = 0u; k < parameters.top_k; k++) {
        var next = Best(LOWEST, NOBODY);
        if (!is_over) {
            next = next_listed(row, thread, last);
        }
        last = best_of_all(next, thread);
        is_over = is_over || last.id < 0;
        if (thread == 0u && is_wanted(0u)) {
            top_tokens[parameters.out_0_start + row * parameters.top_tokens_stride + k] = last.id;
        }
        if (thread == 0u && is_wanted(1u)) {
            let bits = select(value_bits(last.value), NOT_A_NUMBER, has_no_token);
            top_logits[parameters.out_1_start + row * parameters.top_logits_stride + k] = bits;
        }
    }
}
