// The states of a tile of 128 ids and a group of 8 rows. The kernel that imports this says where rows come from:
//   prepare_rows(first, count, thread)   called by the whole workgroup, ahead of the others
//   products(index, first, count, thread)   called by the whole workgroup: sums of one row of the weight with `count` rows
//   row_exists(row), row_position(row), row_seed(row), row_token(row)
// It imports numeric.wgsl, grid.wgsl and chunk_$load.wgsl, and binds from 6 on.

override THREADS: u32 = 128u; // 128 or a divisor
override WEIGHT: u32 = 0u;
override SAMPLE: bool = false;

const ROWS: u32 = 8u;
const PARTS: u32 = 16u; // of a tile, in its statistics
const PART: u32 = 8u; // ids of a part

struct Parameters {
    features: u32,
    output_rows: u32,
    row_groups: u32,
    workgroups: u32,
    // Ids of this launch's part of the weight: the first, how many there are and how many are not masked.
    first_index: u32,
    indices: u32,
    valid: u32,
    vocab_offset: u32,
    first_tile: u32,
    // The first of this launch's rows among all of them.
    first_row: u32,
    top_k: u32,
    has_bias: u32,
    has_gather: u32,
    has_logits: u32,
    inv_temperature: f32,
    // 0: none.
    softcap: f32,
    // First element and elements between rows and tiles, from the start of each binding.
    weight_start: u32,
    weight_stride: u32,
    bias_start: u32,
    values_start: u32,
    values_row_stride: u32,
    values_tile_stride: u32,
    tokens_start: u32,
    tokens_row_stride: u32,
    tokens_tile_stride: u32,
    logits_start: u32,
    logits_stride: u32,
    // Of hidden, or of rows that are prepared.
    rows_start: u32,
    rows_stride: u32,
    // Of what else is known of prepared rows.
    info_start: u32,
    // Of rows that are not.
    hidden_rows: u32,
    has_selection: u32,
    has_seeds: u32,
    eps: f32,
    norm_start: u32,
    selection_start: u32,
    positions_start: u32,
    gather_start: u32,
    seeds_start: u32,
    seeds_stride: u32,
    // Of rows without a seed of their own.
    seed_low: u32,
    seed_high: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/tensor_$load.wgsl tensor=head_weight binding=1 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=head_bias binding=2 dtype=WEIGHT access=read
@group(0) @binding(3) var<storage, read_write> state_values: array<u32>;
@group(0) @binding(4) var<storage, read_write> state_tokens: array<i32>;
@group(0) @binding(5) var<storage, read_write> logits: array<u32>;
#import early_exit/state.wgsl
#import early_exit/random.wgsl

var<workgroup> tile_logits: array<f32, ROWS * VOCABULARY_TILE>;
var<workgroup> tile_scores: array<f32, ROWS * VOCABULARY_TILE>;
var<workgroup> part_max: array<f32, ROWS * PARTS>;
var<workgroup> part_second: array<f32, ROWS * PARTS>;
var<workgroup> part_sum: array<f32, ROWS * PARTS>;
var<workgroup> part_weighted: array<f32, ROWS * PARTS>;
// Not 0: a logit of the row is NaN or +inf.
var<workgroup> row_fails: array<atomic<u32>, ROWS>;

// Bias and cap.
fn finish_logit(index: u32, sum: f32) -> f32 {
    var logit = sum;
    if (parameters.has_bias != 0u) {
        logit += head_bias_at(parameters.bias_start + index);
    }
    if (parameters.softcap > 0.0 && !is_no_logit(bitcast<u32>(logit))) {
        let e = exp(-2.0 * abs(logit) / parameters.softcap);
        let capped = parameters.softcap * (1.0 - e) / (1.0 + e);
        logit = select(capped, -capped, logit < 0.0);
    }
    return logit;
}

// Logits of one id, stored where they are wanted; scores, if somebody samples.
fn make_logits(slot: u32, index: u32, first: u32, count: u32, row_sums: array<f32, ROWS>) {
    // Only a variable can be indexed by one.
    var sums = row_sums;
    for (var m = 0u; m < count; m++) {
        var bits = MINUS_INFINITY;
        if (index < parameters.valid) {
            bits = bitcast<u32>(finish_logit(index, sums[m]));
        }
        if (!row_exists(first + m)) {
            bits = NOT_A_NUMBER;
        }
        let at = m * VOCABULARY_TILE + slot;
        if (is_no_logit(bits)) {
            atomicStore(&row_fails[m], 1u);
        }
        tile_logits[at] = value_of(bits);
        if (parameters.has_logits != 0u && index < parameters.indices) {
            let place = (first + m) * parameters.logits_stride + parameters.first_index + index;
            logits[parameters.logits_start + place] = bits;
        }
        if (SAMPLE) {
            tile_scores[at] = score(m, at, index, first);
        }
    }
}

fn score(m: u32, at: u32, index: u32, first: u32) -> f32 {
    if (tile_logits[at] <= LOWEST) {
        return LOWEST;
    }
    let id = parameters.vocab_offset + parameters.first_index + index;
    let counter = vec4(row_position(first + m), id / 4u, PURPOSE_TOKEN, 0u);
    let noise = philox(counter, row_seed(first + m));
    return tile_logits[at] * parameters.inv_temperature + gumbel(noise[id % 4u]);
}

// Largest and second largest logit of a part.
fn summarise_part(m: u32, part: u32) {
    var first = LOWEST;
    var second = LOWEST;
    for (var i = 0u; i < PART; i++) {
        let logit = tile_logits[m * VOCABULARY_TILE + part * PART + i];
        second = max(second, min(first, logit));
        first = max(first, logit);
    }
    part_max[m * PARTS + part] = first;
    part_second[m * PARTS + part] = second;
}

fn tile_max(m: u32) -> f32 {
    var largest = LOWEST;
    for (var part = 0u; part < PARTS; part++) {
        largest = max(largest, part_max[m * PARTS + part]);
    }
    return largest;
}

fn sum_part(m: u32, part: u32) {
    let largest = tile_max(m);
    var sum = 0.0;
    var weighted = 0.0;
    for (var i = 0u; i < PART; i++) {
        let logit = tile_logits[m * VOCABULARY_TILE + part * PART + i];
        if (logit > LOWEST) {
            // exp vanishes further below.
            let below = max(logit - largest, -110.0);
            let e = exp(below);
            sum += e;
            weighted += below * e;
        }
    }
    part_sum[m * PARTS + part] = sum;
    part_weighted[m * PARTS + part] = weighted;
}

fn best_score(m: u32, first_id: i32) -> Best {
    var best = Best(LOWEST, NOBODY);
    for (var slot = 0u; slot < VOCABULARY_TILE; slot++) {
        let value = tile_scores[m * VOCABULARY_TILE + slot];
        if (value > best.value) {
            best = Best(value, first_id + i32(slot));
        }
    }
    return best;
}

// The state of a row but for its list.
fn write_state(m: u32, row: u32, first_id: i32, values: u32, tokens: u32) {
    let largest = tile_max(m);
    var token = NOBODY;
    var first = LOWEST;
    var second = LOWEST;
    var sum = 0.0;
    var weighted = 0.0;
    for (var part = 0u; part < PARTS; part++) {
        let at = m * PARTS + part;
        second = max(second, max(part_second[at], min(first, part_max[at])));
        first = max(first, part_max[at]);
        sum += part_sum[at];
        weighted += part_weighted[at];
    }
    // The lowest id comes last.
    for (var slot = VOCABULARY_TILE; slot > 0u; slot--) {
        if (largest > LOWEST && tile_logits[m * VOCABULARY_TILE + slot - 1u] == largest) {
            token = first_id + i32(slot - 1u);
        }
    }
    var gathered = LOWEST;
    if (parameters.has_gather != 0u) {
        let slot = row_token(row) - first_id;
        if (slot >= 0 && slot < i32(VOCABULARY_TILE)) {
            gathered = tile_logits[m * VOCABULARY_TILE + u32(slot)];
        }
    }
    var sampled = Best(LOWEST, NOBODY);
    if (SAMPLE) {
        sampled = best_score(m, first_id);
    }
    state_values[values + VALUE_MAX] = value_bits(largest);
    state_values[values + VALUE_SECOND] = value_bits(second);
    state_values[values + VALUE_SUM] = bitcast<u32>(sum);
    state_values[values + VALUE_WEIGHTED] = bitcast<u32>(weighted);
    state_values[values + VALUE_GATHERED] = value_bits(gathered);
    state_values[values + VALUE_SCORE] = value_bits(sampled.value);
    state_tokens[tokens + TOKEN_MAX] = token;
    state_tokens[tokens + TOKEN_SAMPLED] = sampled.id;
}

// Each id's place is the number of ids before it.
fn write_listed(m: u32, slot: u32, first_id: i32, values: u32, tokens: u32) {
    let own = tile_logits[m * VOCABULARY_TILE + slot];
    var place = 0u;
    for (var other = 0u; other < VOCABULARY_TILE; other++) {
        let value = tile_logits[m * VOCABULARY_TILE + other];
        place += select(0u, 1u, value > own || (value == own && other < slot));
    }
    if (place < parameters.top_k) {
        state_values[values + VALUES + place] = value_bits(own);
        state_tokens[tokens + TOKENS + place] = select(NOBODY, first_id + i32(slot), own > LOWEST);
    }
}

fn write_no_token(values: u32, tokens: u32) {
    for (var i = 0u; i < VALUES + parameters.top_k; i++) {
        state_values[values + i] = NOT_A_NUMBER;
    }
    for (var i = 0u; i < TOKENS + parameters.top_k; i++) {
        state_tokens[tokens + i] = NOBODY;
    }
}

// Everything about one tile and group; the whole workgroup calls it.
fn write_states(launch: u32, thread: u32) {
    let tile = launch / parameters.row_groups;
    let first = launch % parameters.row_groups * ROWS;
    let count = min(parameters.output_rows - first, ROWS);
    let first_index = tile * VOCABULARY_TILE;
    let first_id = i32(parameters.vocab_offset + parameters.first_index + first_index);

    for (var m = thread; m < ROWS; m += THREADS) {
        atomicStore(&row_fails[m], 0u);
    }
    prepare_rows(first, count, thread);
    // `products` may hold barriers, which are met by all: the loop is the same for the whole workgroup.
    for (var base = 0u; base < VOCABULARY_TILE; base += THREADS) {
        let index = first_index + base + thread;
        let sums = products(index, first, count, thread);
        make_logits(base + thread, index, first, count, sums);
    }
    workgroupBarrier();
    for (var item = thread; item < count * PARTS; item += THREADS) {
        summarise_part(item / PARTS, item % PARTS);
    }
    workgroupBarrier();
    for (var item = thread; item < count * PARTS; item += THREADS) {
        sum_part(item / PARTS, item % PARTS);
    }
    workgroupBarrier();
    for (var item = thread; item < count * VOCABULARY_TILE; item += THREADS) {
        let m = item / VOCABULARY_TILE;
        let slot = item % VOCABULARY_TILE;
        let row = parameters.first_row + first + m;
        let values = parameters.values_start + row * parameters.values_row_stride
            + (parameters.first_tile + tile) * parameters.values_tile_stride;
        let tokens = parameters.tokens_start + row * parameters.tokens_row_stride
            + (parameters.first_tile + tile) * parameters.tokens_tile_stride;
        let fails = atomicLoad(&row_fails[m]) != 0u;
        if (slot == 0u && fails) {
            write_no_token(values, tokens);
        }
        if (slot == 0u && !fails) {
            write_state(m, first + m, first_id, values, tokens);
        }
        if (parameters.top_k > 0u && !fails) {
            write_listed(m, slot, first_id, values, tokens);
        }
    }
}
