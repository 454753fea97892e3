// verify_sampled, each row on its own: the largest value, which ids the filters keep, their mass, and the mass of the
// drafted id; in mode match the sampled id.
//
// values  [N + B, V] logits or probabilities of the target, or [N, V] of the drafts' distributions; f32, f16 or bf16
// draft   [N] i32, any values      scratch  as sampled_weight.wgsl says
//
// launch  B * (S + 1), or B * S for the drafts' distributions; a workgroup a row
// workgroup memory  THREADS * 16 + 2112 bytes
// Nothing is sorted: thresholds are found digit by digit, from histograms of counts or masses. Masses are integers, so the
// result depends neither on the order of work nor on the batch.

override THREADS: u32 = 128u;
override VALUES: u32 = 0u;
override SAMPLE: bool = false;

struct Parameters {
    rows: u32,
    // Rows of a sequence with the longest draft.
    slots: u32,
    valid: u32,
    // Whether these are logits, and whether they are the drafts' distributions.
    is_logits: u32,
    is_draft: u32,
    // Whether top-p looks at what top-k has left.
    is_sequential: u32,
    sum_tolerance: f32,
    values_start: u32,
    values_stride: u32,
    draft_start: u32,
    profiles_start: u32,
    sequences_start: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> values: array<u32>;
@group(0) @binding(2) var<storage, read> draft: array<i32>;
@group(0) @binding(3) var<storage, read_write> scratch: array<u32>;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/score_key.wgsl
#import early_exit/random.wgsl
#import early_exit/wide.wgsl
#import early_exit/sampled_weight.wgsl

// Kinds of sums: everything, the domain of a search, what is kept; and what equals the threshold of a search.
const ALL: u32 = 0u;
const KEPT: u32 = 1u;
const EQUAL_MASSES: u32 = 2u;
const EQUAL_COUNTS: u32 = 3u;

const DIGIT_BITS: u32 = 8u;
const BINS: u32 = 256u;
const LOWEST: f32 = -3.4028234e38;

struct Best {
    value: f32,
    id: u32,
}

var<workgroup> least_key: atomic<u32>;
var<workgroup> most_key: atomic<u32>;
var<workgroup> best_id: atomic<u32>;
var<workgroup> bins_low: array<atomic<u32>, BINS>;
var<workgroup> bins_high: array<atomic<u32>, BINS>;
var<workgroup> candidates: array<Best, THREADS>;

// The row that `measure` looks at, and what a search has found of a threshold.
var<private> row: Row;
var<private> domain: Boundary;
var<private> threshold: u32;

fn bits_at(id: u32) -> u32 {
    let at = row.start + id;
    if (VALUES == F32) {
        return values[at];
    }
    return (values[at >> 1u] >> ((at & 1u) * 16u)) & 0xffffu;
}

fn key_at(id: u32) -> u32 {
    return key_of_bits(bits_at(id), VALUES);
}

fn measure(kind: u32, id: u32) -> u32 {
    let bits = bits_at(id);
    if (kind == ALL) {
        return mass_of_bits(row, bits);
    }
    if (kind == KEPT) {
        return kept_mass(row, bits, id);
    }
    let key = key_of_bits(bits, VALUES);
    if (key != threshold || !is_inside(domain, key, id)) {
        return 0u;
    }
    if (kind == EQUAL_COUNTS) {
        return 1u;
    }
    return mass_of_bits(row, bits);
}

// What the masses, or counts, of keys that begin like the threshold are, by their next digit.
fn fill_bins(counts: bool, left: u32, shift: u32, thread: u32) {
    for (var bin = thread; bin < BINS; bin += THREADS) {
        atomicStore(&bins_low[bin], 0u);
        atomicStore(&bins_high[bin], 0u);
    }
    workgroupBarrier();
    for (var id = thread; id < parameters.valid; id += THREADS) {
        let bits = bits_at(id);
        let key = key_of_bits(bits, VALUES);
        // A shift by all 32 bits is none.
        let begins_alike = left >= 32u || (key >> left) == threshold;
        if (begins_alike && is_inside(domain, key, id)) {
            let amount = select(mass_of_bits(row, bits), 1u, counts);
            let bin = (key >> shift) & (BINS - 1u);
            let before = atomicAdd(&bins_low[bin], amount);
            if (before + amount < before) {
                atomicAdd(&bins_high[bin], 1u);
            }
        }
    }
    workgroupBarrier();
}

fn bin_at(bin: u32) -> vec2<u32> {
    return vec2(atomicLoad(&bins_low[bin]), atomicLoad(&bins_high[bin]));
}

// The shortest beginning of the domain, by descending keys and then by ids, that counts for `part`: so many ids, or this
// share of 2^-32 of the domain's mass.
fn search(counts: bool, part: u32, thread: u32) -> Boundary {
    threshold = 0u;
    var wanted = vec2(part, 0u);
    var left = select(16u, 32u, VALUES == F32);
    var is_first = true;
    var is_all = false;
    while (left > 0u) {
        let shift = left - DIGIT_BITS;
        fill_bins(counts, left, shift, thread);
        // An invocation owns consecutive bins, the first one the highest.
        let own = BINS / THREADS;
        var sum = vec2(0u);
        for (var i = 0u; i < own; i++) {
            sum = wide_add(sum, bin_at(BINS - 1u - thread * own - i));
        }
        var above = wide_scan(sum, thread);
        let total = wide_total();
        if (is_first && !counts) {
            let share = wide_scale(total, part);
            wanted = wide_add(share.whole, vec2(select(0u, 1u, share.rest > 0u), 0u));
            if (wide_is_zero(wanted)) {
                wanted.x = 1u;
            }
        }
        is_first = false;
        // In the bin that reaches it: what the bins above have is less.
        var found = false;
        var digit = 0u;
        var mass = vec2(0u);
        for (var i = 0u; i < own && !found; i++) {
            let bin = BINS - 1u - thread * own - i;
            mass = bin_at(bin);
            let next = wide_add(above, mass);
            if (wide_less(above, wanted) && !wide_less(next, wanted)) {
                found = true;
                digit = bin;
            } else {
                above = next;
            }
        }
        let rest = wide_subtract(wanted, above);
        let is_whole = select(0u, 1u, all(rest == mass));
        let result = broadcast(vec4(rest, digit, is_whole), found);
        wanted = result.xy;
        threshold = (threshold << DIGIT_BITS) | result.z;
        is_all = result.w == 1u;
        left = shift;
    }
    if (is_all) {
        return Boundary(threshold, select(EVERYBODY, domain.cut, threshold == domain.threshold));
    }
    let passed = wide_subtract(wanted, vec2(1u, 0u));
    let last = locate(select(EQUAL_MASSES, EQUAL_COUNTS, counts), passed, 0u, false, thread);
    return Boundary(threshold, last + 1u);
}

fn stricter(a: Boundary, b: Boundary) -> Boundary {
    if (a.threshold > b.threshold || (a.threshold == b.threshold && a.cut < b.cut)) {
        return a;
    }
    return b;
}

// Whether the row has a largest value and nothing that it may not have; keeps that value and its lowest id.
fn find_largest(thread: u32) -> bool {
    if (thread == 0u) {
        atomicStore(&least_key, EVERYBODY);
        atomicStore(&most_key, 0u);
        atomicStore(&best_id, EVERYBODY);
    }
    workgroupBarrier();
    var least = EVERYBODY;
    var most = 0u;
    for (var id = thread; id < parameters.valid; id += THREADS) {
        let key = key_at(id);
        least = min(least, key);
        most = max(most, key);
    }
    atomicMin(&least_key, least);
    atomicMax(&most_key, most);
    workgroupBarrier();
    least = atomicLoad(&least_key);
    most = atomicLoad(&most_key);
    for (var id = thread; id < parameters.valid; id += THREADS) {
        if (key_at(id) == most) {
            atomicMin(&best_id, id);
            break;
        }
    }
    workgroupBarrier();
    let best = atomicLoad(&best_id);
    row.token = i32(best);
    row.max = value_of_bits(bits_at(best));
    let infinity = bits_of_infinity();
    let lowest = key_of_bits(select(0u, infinity | sign_of_values(), parameters.is_logits != 0u), VALUES);
    // NaN has the least key.
    let is_clean = parameters.is_draft != 0u || (least > 0u && (parameters.is_logits != 0u || least >= lowest));
    let is_row = is_clean && most > lowest && most < key_of_bits(infinity, VALUES);
    return broadcast_bool(is_row, thread == 0u);
}

fn bits_of_infinity() -> u32 {
    return select(select(0x7c00u, 0x7f80u, VALUES == BF16), 0x7f800000u, VALUES == F32);
}

fn sign_of_values() -> u32 {
    return select(0x8000u, 0x80000000u, VALUES == F32);
}

// Whether probabilities add up to 1.
fn is_distribution(thread: u32) -> bool {
    let sum = wide_to_float(total_of(ALL, thread)) / (scale_of(row.max) * MASS_UNIT);
    return broadcast_bool(abs(sum - 1.0) <= parameters.sum_tolerance, thread == 0u);
}

fn filter_row(sequence: array<u32, 12>, thread: u32) {
    domain = Boundary(0u, EVERYBODY);
    // Top-k, then top-p; one call in a loop, since a compiler copies it to where it is called.
    for (var step = 0u; step < 2u; step++) {
        let counts = step == 0u;
        let part = select(sequence[5], sequence[4], counts);
        if (part > 0u && (!counts || part < parameters.valid)) {
            row.boundary = stricter(search(counts, part, thread), row.boundary);
        }
        if (parameters.is_sequential != 0u) {
            domain = row.boundary;
        }
    }
    let share = bitcast<f32>(sequence[6]) * f32(mass_of_bits(row, bits_at(u32(row.token))));
    row.least = u32(ceil(share));
}

// The id of the largest logit / temperature + noise.
fn sample(sequence: array<u32, 12>, i: u32, thread: u32) -> i32 {
    let position = sequence[7] + i;
    let inverse = 1.0 / row.temperature;
    var best = Best(LOWEST, EVERYBODY);
    for (var quad = thread; quad <= (parameters.valid - 1u) / 4u; quad += THREADS) {
        let noise = philox(vec4(position, quad, PURPOSE_TOKEN, 0u), vec2(sequence[8], sequence[9]));
        for (var word = 0u; word < 4u; word++) {
            let id = 4u * quad + word;
            if (id >= parameters.valid) {
                break;
            }
            let bits = bits_at(id);
            let value = value_of_bits(bits);
            let is_finite = (bits & bits_of_infinity()) != bits_of_infinity();
            let is_kept = is_inside(row.boundary, key_of_bits(bits, VALUES), id);
            if (is_finite && is_kept && (row.least == 0u || mass_of_bits(row, bits) >= row.least)) {
                let score = value * inverse + gumbel(noise[word]);
                // Ids ascend, so of equal ones the lowest stays.
                if (best.id == EVERYBODY || score > best.value) {
                    best = Best(score, id);
                }
            }
        }
    }
    candidates[thread] = best;
    workgroupBarrier();
    for (var other = 0u; other < THREADS; other++) {
        let candidate = candidates[other];
        if (candidate.value > best.value || (candidate.value == best.value && candidate.id < best.id)) {
            best = candidate;
        }
    }
    return i32(best.id);
}

fn drafted_mass(place: u32, has_draft: bool) -> u32 {
    if (!has_draft) {
        return 0u;
    }
    let id = draft[parameters.draft_start + place];
    if (id < 0 || u32(id) >= parameters.valid) {
        return 0u;
    }
    return measure(KEPT, u32(id));
}

@compute @workgroup_size(THREADS)
fn sampled_rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let slot = launch_index(workgroup, workgroups);
    if (slot >= parameters.rows) {
        return;
    }
    let index = slot / parameters.slots;
    let i = slot % parameters.slots;
    let sequence = sequence_words(index, thread);
    let drafts = sequence[2];
    if (sequence[0] == 0u || i > drafts || (parameters.is_draft != 0u && i == drafts)) {
        return;
    }
    let row_index = sequence[1] + i + select(index, 0u, parameters.is_draft != 0u);
    row.start = parameters.values_start + row_index * parameters.values_stride;
    row.temperature = bitcast<f32>(sequence[3]);
    row.boundary = Boundary(0u, EVERYBODY);
    row.least = 0u;
    var is_row = find_largest(thread);
    if (is_row && parameters.is_logits == 0u) {
        is_row = is_distribution(thread);
    }
    let at = parameters.profiles_start + slot * PROFILE_WORDS;
    if (!is_row) {
        if (thread == 0u) {
            scratch[at] = 0u;
            scratch[at + 1u] = 0u;
        }
        return;
    }
    // Final are the probabilities that were drafted from.
    if (parameters.is_logits != 0u || parameters.is_draft == 0u) {
        filter_row(sequence, thread);
    }
    row.total = total_of(KEPT, thread);
    if (SAMPLE) {
        row.token = sample(sequence, i, thread);
    }
    if (thread == 0u) {
        scratch[at] = row.total.x;
        scratch[at + 1u] = row.total.y;
        scratch[at + 2u] = row.boundary.threshold;
        scratch[at + 3u] = row.boundary.cut;
        scratch[at + 4u] = row.least;
        scratch[at + 5u] = drafted_mass(sequence[1] + i, i < drafts);
        scratch[at + 6u] = bitcast<u32>(row.max);
        scratch[at + 7u] = u32(row.token);
    }
}
