// Results of a row from the states of all tiles. The kernel that imports this binds the results from 3 on and says by
// `put` which is where.

override THREADS: u32 = 64u;

const TOKEN: u32 = 1u;
const MAX_LOGIT: u32 = 2u;
const SECOND_LOGIT: u32 = 3u;
const LOG_SUM_EXP: u32 = 4u;
const ENTROPY: u32 = 5u;
const GATHERED_LOGIT: u32 = 6u;
const SAMPLED_TOKEN: u32 = 7u;
const TOP_TOKENS: u32 = 8u;
const TOP_LOGITS: u32 = 9u;

struct Parameters {
    output_rows: u32,
    tiles: u32,
    top_k: u32,
    // Bits of the codes of what is wanted.
    wanted: u32,
    // First element and elements between rows and tiles, from the start of each binding.
    values_start: u32,
    values_row_stride: u32,
    values_tile_stride: u32,
    tokens_start: u32,
    tokens_row_stride: u32,
    tokens_tile_stride: u32,
    // Codes, first elements and elements between rows of the results; code 0 is none.
    out_0_code: u32,
    out_0_start: u32,
    out_0_stride: u32,
    out_1_code: u32,
    out_1_start: u32,
    out_1_stride: u32,
    out_2_code: u32,
    out_2_start: u32,
    out_2_stride: u32,
    out_3_code: u32,
    out_3_start: u32,
    out_3_stride: u32,
    out_4_code: u32,
    out_4_start: u32,
    out_4_stride: u32,
    out_5_code: u32,
    out_5_start: u32,
    out_5_stride: u32,
    out_6_code: u32,
    out_6_start: u32,
    out_6_stride: u32,
    out_7_code: u32,
    out_7_start: u32,
    out_7_stride: u32,
    out_8_code: u32,
    out_8_start: u32,
    out_8_stride: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> state_values: array<u32>;
@group(0) @binding(2) var<storage, read> state_tokens: array<i32>;
#import shared/grid.wgsl
#import early_exit/state.wgsl

fn state_bits(row: u32, tile: u32, column: u32) -> u32 {
    let at = row * parameters.values_row_stride + tile * parameters.values_tile_stride + column;
    return state_values[parameters.values_start + at];
}

fn state_value(row: u32, tile: u32, column: u32) -> f32 {
    return value_of(state_bits(row, tile, column));
}

fn state_token(row: u32, tile: u32, column: u32) -> i32 {
    let at = row * parameters.tokens_row_stride + tile * parameters.tokens_tile_stride + column;
    return state_tokens[parameters.tokens_start + at];
}

fn is_wanted(code: u32) -> bool {
    return (parameters.wanted & (1u << code)) != 0u;
}

struct Chosen {
    best: Best,
    second: f32,
    // 1: the row has no token.
    fails: u32,
}

var<workgroup> chosen: array<Chosen, THREADS>;
var<workgroup> sums: array<vec2<f32>, THREADS>;
var<workgroup> candidates: array<Best, THREADS>;

fn take(all: Chosen, largest: f32, id: i32, second: f32) -> Chosen {
    let next = max(all.second, max(second, min(all.best.value, largest)));
    return Chosen(better(all.best, Best(largest, id)), next, all.fails);
}

fn choose(row: u32, thread: u32) -> Chosen {
    var own = Chosen(Best(LOWEST, NOBODY), LOWEST, 0u);
    for (var tile = thread; tile < parameters.tiles; tile += THREADS) {
        let bits = state_bits(row, tile, VALUE_MAX);
        if (is_no_logit(bits)) {
            own.fails = 1u;
        } else {
            let second = state_value(row, tile, VALUE_SECOND);
            own = take(own, value_of(bits), state_token(row, tile, TOKEN_MAX), second);
        }
    }
    return own;
}

fn add_up(row: u32, thread: u32, largest: f32) -> vec2<f32> {
    var sum = 0.0;
    var weighted = 0.0;
    for (var tile = thread; tile < parameters.tiles; tile += THREADS) {
        let tile_largest = state_value(row, tile, VALUE_MAX);
        if (tile_largest > LOWEST) {
            // exp vanishes further below.
            let lower = max(tile_largest - largest, -110.0);
            let factor = exp(lower);
            let tile_sum = state_value(row, tile, VALUE_SUM);
            sum += factor * tile_sum;
            weighted += factor * (state_value(row, tile, VALUE_WEIGHTED) + lower * tile_sum);
        }
    }
    return vec2(sum, weighted);
}

fn put_statistics(row: u32, all: Chosen) {
    var sum = vec2(0.0);
    for (var i = 0u; i < THREADS; i++) {
        sum += sums[i];
    }
    var best = all.best;
    var bits = vec4(NOT_A_NUMBER);
    if (all.fails != 0u) {
        best.id = NOBODY;
    } else if (best.id < 0) {
        bits = vec4(MINUS_INFINITY, MINUS_INFINITY, MINUS_INFINITY, NOT_A_NUMBER);
    } else {
        let logarithm = log(sum.x);
        bits = vec4(
            value_bits(best.value),
            value_bits(all.second),
            bitcast<u32>(best.value + logarithm),
            bitcast<u32>(logarithm - sum.y / sum.x),
        );
    }
    put(TOKEN, row, 0u, bitcast<u32>(best.id));
    put(MAX_LOGIT, row, 0u, bits.x);
    put(SECOND_LOGIT, row, 0u, bits.y);
    put(LOG_SUM_EXP, row, 0u, bits.z);
    put(ENTROPY, row, 0u, bits.w);
}

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

// Everything about one row; the whole workgroup calls it.
fn merge_row(row: u32, thread: u32) {
    chosen[thread] = choose(row, thread);
    workgroupBarrier();
    var all = chosen[0];
    for (var i = 1u; i < THREADS; i++) {
        let other = chosen[i];
        all = take(all, other.best.value, other.best.id, other.second);
        all.fails = max(all.fails, other.fails);
    }
    // Whole branches are skipped by everybody: what is wanted is the same for all.
    if (is_wanted(LOG_SUM_EXP) || is_wanted(ENTROPY)) {
        sums[thread] = add_up(row, thread, all.best.value);
        workgroupBarrier();
    }
    if (thread == 0u) {
        put_statistics(row, all);
    }
    let has_no_token = all.fails != 0u;
    if (is_wanted(SAMPLED_TOKEN)) {
        let drawn = best_of_all(sampled(row, thread), thread);
        if (thread == 0u) {
            put(SAMPLED_TOKEN, row, 0u, bitcast<u32>(select(drawn.id, NOBODY, has_no_token)));
        }
    }
    if (is_wanted(GATHERED_LOGIT)) {
        let logit = best_of_all(gathered(row, thread), thread);
        if (thread == 0u) {
            put(GATHERED_LOGIT, row, 0u, select(value_bits(logit.value), NOT_A_NUMBER, has_no_token));
        }
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
        if (thread == 0u) {
            put(TOP_TOKENS, row, k, bitcast<u32>(last.id));
            put(TOP_LOGITS, row, k, select(value_bits(last.value), NOT_A_NUMBER, has_no_token));
        }
    }
}
