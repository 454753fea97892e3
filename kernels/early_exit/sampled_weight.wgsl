// What the kernels of verify_sampled share: scratch memory, masses of ids, sums over them.
//
// scratch, in words: profiles of the rows, 8 each (the target's, then the drafts'); sequences, 12 each; walks.
//   profile   0, 1 kept mass, 0 without a distribution; 2 threshold's key; 3 cut; 4 least mass; 5 the drafted id's mass;
//             6 bits of the largest value; 7 the sampled id, or the likeliest
//   sequence  0 whether it is valid; 1 first draft; 2 drafts; 3 bits of the temperature; 4 k; 5 top-p in units of 2^-32, 0
//             for all; 6 bits of min_p; 7 position; 8, 9 seed
//
// The kernel defines
//   fn measure(kind: u32, id: u32) -> u32     what an id counts for in sums of that kind
// and imports numeric, score_key, wide and random.

const PROFILE_WORDS: u32 = 8u;
const SEQUENCE_WORDS: u32 = 12u;
const MASS_UNIT: f32 = 2147483648.0;
const EVERYBODY: u32 = 0xffffffffu;

struct Boundary {
    // Keys above the threshold are kept, and its equals of lower ids than the cut.
    threshold: u32,
    cut: u32,
}

struct Row {
    // First element, from the start of the binding.
    start: u32,
    max: f32,
    temperature: f32,
    boundary: Boundary,
    least: u32,
    total: vec2<u32>,
    drafted: u32,
    token: i32,
}

var<workgroup> shared_sequence: array<u32, 12>;
var<workgroup> shared_words: vec4<u32>;

// The words of a sequence, alike in all invocations.
fn sequence_words(index: u32, thread: u32) -> array<u32, 12> {
    if (thread < SEQUENCE_WORDS) {
        shared_sequence[thread] = scratch[parameters.sequences_start + index * SEQUENCE_WORDS + thread];
    }
    return workgroupUniformLoad(&shared_sequence);
}

// One invocation's words, for all.
fn broadcast(words: vec4<u32>, speaks: bool) -> vec4<u32> {
    if (speaks) {
        shared_words = words;
    }
    // Has a barrier on both sides.
    return workgroupUniformLoad(&shared_words);
}

fn broadcast_bool(value: bool, speaks: bool) -> bool {
    return broadcast(vec4(select(0u, 1u, value)), speaks).x == 1u;
}

fn value_of_bits(bits: u32) -> f32 {
    if (VALUES == F32) {
        return bitcast<f32>(bits);
    }
    return widen_pair(bits, VALUES).x;
}

// exp(x) for x from -87 to 0: 2^n times the series of what is left of x, within 2 units in the last place.
fn exp_of_negative(x: f32) -> f32 {
    let n = round(x * 1.4426950408889634);
    let r = (x - n * 0.693359375) + n * 2.1219444005469057e-4;
    var p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    return p * bitcast<f32>(u32(i32(n) + 127) << 23u);
}

// The power of two that brings the largest probability between 1/2 and 1, so that none loses digits.
fn scale_of(max: f32) -> f32 {
    let exponent = clamp(bitcast<u32>(max) >> 23u, 27u, 127u);
    return bitcast<f32>((253u - exponent) << 23u);
}

// The mass of an element before the filters; 0 for NaN, negative probabilities and -inf, told by their bits.
fn mass_of_bits(row: Row, bits: u32) -> u32 {
    let wide = bitcast<u32>(value_of_bits(bits));
    let is_negative = (wide & 0x80000000u) != 0u;
    if (is_nan(wide) || (is_negative && (parameters.is_logits == 0u || wide == 0xff800000u))) {
        return 0u;
    }
    let value = bitcast<f32>(wide);
    if (parameters.is_logits == 0u) {
        return u32(min(value * scale_of(row.max) * MASS_UNIT + 0.5, 4294967040.0));
    }
    // Halves, since the difference may exceed every number.
    let below = value * 0.5 - row.max * 0.5;
    if (below >= 0.0) {
        return 0x80000000u;
    }
    if (below < -43.5 * row.temperature) {
        return 0u;
    }
    return u32(exp_of_negative(max(2.0 * (below / row.temperature), -87.0)) * MASS_UNIT + 0.5);
}

fn is_inside(boundary: Boundary, key: u32, id: u32) -> bool {
    return key > boundary.threshold || (key == boundary.threshold && id < boundary.cut);
}

// The mass that the filters leave an element.
fn kept_mass(row: Row, bits: u32, id: u32) -> u32 {
    let mass = mass_of_bits(row, bits);
    let is_kept = is_inside(row.boundary, key_of_bits(bits, VALUES), id) && mass >= row.least;
    return select(0u, mass, is_kept);
}

// What ids begin .. end count for.
fn sum_of(kind: u32, begin: u32, end: u32, step: u32) -> vec2<u32> {
    var sum = vec2(0u);
    for (var id = begin; id < end; id += step) {
        sum = wide_add(sum, vec2(measure(kind, id), 0u));
    }
    return sum;
}

fn total_of(kind: u32, thread: u32) -> vec2<u32> {
    _ = wide_scan(sum_of(kind, thread, parameters.valid, THREADS), thread);
    return wide_total();
}

// The first id up to which ids count for more than `passed`; for more than the share `part` 2^-32 of everything, if
// `is_share`. EVERYBODY if nothing counts.
//
// Every invocation sums a stretch of ids; the stretch that has the id is cut up again.
fn locate(kind: u32, passed: vec2<u32>, part: u32, is_share: bool, thread: u32) -> u32 {
    var begin = 0u;
    var end = parameters.valid;
    var wanted = passed;
    var is_first = true;
    loop {
        let stretch = (end - begin - 1u) / THREADS + 1u;
        let own_begin = min(begin + thread * stretch, end);
        let own_end = min(own_begin + stretch, end);
        let own = sum_of(kind, own_begin, own_end, 1u);
        let before = wide_scan(own, thread);
        let total = wide_total();
        if (wide_is_zero(total)) {
            return EVERYBODY;
        }
        if (is_first && is_share) {
            wanted = wide_scale(total, part).whole;
        }
        is_first = false;
        // All of it has passed: there is none.
        if (!wide_less(wanted, total)) {
            return EVERYBODY;
        }
        let is_here = !wide_less(wanted, before) && wide_less(wanted, wide_add(before, own));
        let found = broadcast(vec4(before, own_begin, own_end), is_here);
        begin = found.z;
        end = found.w;
        wanted = wide_subtract(wanted, found.xy);
        if (end - begin <= 1u) {
            break;
        }
    }
    return begin;
}
