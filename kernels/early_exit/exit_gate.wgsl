// go_on[b] = not (all | any of the criteria hold of b)
//   max_logit - log_sum_exp >= log_max_prob
//   exp(max_logit - log_sum_exp) - exp(second_logit - log_sum_exp) >= margin
//   entropy <= most_entropy,   classifier >= classifier_score,   go_on[b] as exit_cosine left it
// permutation: those that go on, then those that exit, each in their order
//
// max_logit, second_logit, log_sum_exp, entropy, classifier  [B]  f32, as far as a criterion needs them
// go_on  [B]  u8, four to a word      permutation  [B]  i32      go_on_count  [1]  i32
//
// launch  1; an invocation takes every THREADS-th row
// workgroup memory  THREADS words
// Places are prefix sums over the rows. What is not finite satisfies no criterion, but that a second_logit of -inf is no
// second token; it is told by its bits.

override THREADS: u32 = 128u;

const BY_MAX_PROB: u32 = 1u;
const BY_MARGIN: u32 = 2u;
const BY_ENTROPY: u32 = 4u;
const BY_COSINE: u32 = 8u;
const BY_CLASSIFIER: u32 = 16u;
const MINUS_INFINITY: u32 = 0xff800000u;

struct Parameters {
    rows: u32,
    criteria: u32,
    require_all: u32,
    log_max_prob: f32,
    margin: f32,
    most_entropy: f32,
    classifier_score: f32,
    // First element, from the start of each binding.
    max_start: u32,
    second_start: u32,
    log_sum_exp_start: u32,
    entropy_start: u32,
    classifier_start: u32,
    go_on_start: u32,
    permutation_start: u32,
    count_start: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> max_logit: array<u32>;
@group(0) @binding(2) var<storage, read> second_logit: array<u32>;
@group(0) @binding(3) var<storage, read> log_sum_exp: array<u32>;
@group(0) @binding(4) var<storage, read> entropy: array<u32>;
@group(0) @binding(5) var<storage, read> classifier: array<u32>;
#import early_exit/go_on.wgsl binding=6
@group(0) @binding(7) var<storage, read_write> permutation: array<i32>;
@group(0) @binding(8) var<storage, read_write> go_on_count: array<i32>;
#import shared/scan.wgsl

fn has(criterion: u32) -> bool {
    return (parameters.criteria & criterion) != 0u;
}

// A probability from its logarithm, which is at most about 0; it vanishes far below.
fn probability(logarithm: f32) -> f32 {
    return select(exp(max(logarithm, -100.0)), 0.0, logarithm < -100.0);
}

fn margin_of(log_prob: f32, second: u32, log_sum: f32) -> f32 {
    if (second == MINUS_INFINITY) {
        return probability(log_prob);
    }
    return probability(log_prob) - probability(bitcast<f32>(second) - log_sum);
}

fn by_logits(row: u32) -> u32 {
    var satisfied = 0u;
    let largest = max_logit[parameters.max_start + row];
    let log_sum = log_sum_exp[parameters.log_sum_exp_start + row];
    if (!is_finite(largest) || !is_finite(log_sum)) {
        return 0u;
    }
    let log_prob = bitcast<f32>(largest) - bitcast<f32>(log_sum);
    if (has(BY_MAX_PROB) && log_prob >= parameters.log_max_prob) {
        satisfied |= BY_MAX_PROB;
    }
    if (has(BY_MARGIN)) {
        let second = second_logit[parameters.second_start + row];
        let is_number = is_finite(second) || second == MINUS_INFINITY;
        if (is_number && margin_of(log_prob, second, bitcast<f32>(log_sum)) >= parameters.margin) {
            satisfied |= BY_MARGIN;
        }
    }
    return satisfied;
}

fn exits(row: u32) -> bool {
    var satisfied = 0u;
    if (has(BY_MAX_PROB | BY_MARGIN)) {
        satisfied = by_logits(row);
    }
    if (has(BY_ENTROPY)) {
        let bits = entropy[parameters.entropy_start + row];
        if (is_finite(bits) && bitcast<f32>(bits) <= parameters.most_entropy) {
            satisfied |= BY_ENTROPY;
        }
    }
    if (has(BY_CLASSIFIER)) {
        let bits = classifier[parameters.classifier_start + row];
        if (is_finite(bits) && bitcast<f32>(bits) >= parameters.classifier_score) {
            satisfied |= BY_CLASSIFIER;
        }
    }
    if (has(BY_COSINE) && is_going_on(parameters.go_on_start + row)) {
        satisfied |= BY_COSINE;
    }
    return select(satisfied != 0u, satisfied == parameters.criteria, parameters.require_all != 0u);
}

@compute @workgroup_size(THREADS)
fn exit_gate(@builtin(local_invocation_index) thread: u32) {
    var total = 0u;
    for (var first = 0u; first < parameters.rows; first += THREADS) {
        let row = first + thread;
        var goes = false;
        if (row < parameters.rows) {
            goes = !exits(row);
            set_go_on(parameters.go_on_start + row, goes);
        }
        total += scan(select(0u, 1u, goes), thread).y;
    }
    // An invocation meets its own rows again: nobody else has written their bytes.
    var base = 0u;
    for (var first = 0u; first < parameters.rows; first += THREADS) {
        let row = first + thread;
        let goes = row < parameters.rows && is_going_on(parameters.go_on_start + row);
        let sums = scan(select(0u, 1u, goes), thread);
        let before = base + sums.x;
        base += sums.y;
        if (row < parameters.rows) {
            let place = select(total + (row - before), before, goes);
            permutation[parameters.permutation_start + place] = i32(row);
        }
    }
    if (thread == 0u) {
        go_on_count[parameters.count_start] = i32(total);
    }
}
