// verify_sampled, each sequence: how many drafts are accepted, and the token behind them.
//
// match    while draft[i] == sampled[i]
// one_hot  while u < p(x);        then p without x
// full     while u q(x) < p(x);   then relu(p - q)
// block    the largest i with u < h_i; then relu(p_i p - q)    p_i = min(1, p_{i-1} p(x) / q(x)), p_0 = 1,
//          h_i = e / (e + 1 - p_i), e = sum relu(p_i p - q), the last one p_i
//
// p_values [N + B, V], q_values [N, V]; draft [N] i32, uniforms [N + B, 2] f32, any values; scratch as sampled_weight.wgsl
// says, walks as walk_stored.wgsl does
//
// launch  B; a workgroup a sequence
// workgroup memory  THREADS * 8 + 56 bytes
// Probabilities are quotients of masses and compared as products, which are exact where masses are powers of two. What is
// alike in all invocations is computed by each.

override THREADS: u32 = 128u;
override VALUES: u32 = 0u;

struct Parameters {
    sequences: u32,
    // Rows of a sequence with the longest draft.
    slots: u32,
    valid: u32,
    is_logits: u32,
    // 0 match, 1 one_hot, 2 full, 3 block
    mode: u32,
    has_uniforms: u32,
    p_start: u32,
    p_stride: u32,
    q_start: u32,
    q_stride: u32,
    draft_start: u32,
    uniforms_start: u32,
    uniforms_stride: u32,
    sequences_start: u32,
    // Profiles of the target's rows come first.
    q_profiles_start: u32,
    walks_start: u32,
    walk_words: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> p_values: array<u32>;
@group(0) @binding(2) var<storage, read> q_values: array<u32>;
@group(0) @binding(3) var<storage, read> draft: array<i32>;
@group(0) @binding(4) var<storage, read> uniforms: array<u32>;
@group(0) @binding(5) var<storage, read_write> scratch: array<u32>;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/score_key.wgsl
#import early_exit/random.wgsl
#import early_exit/wide.wgsl
#import early_exit/sampled_weight.wgsl

const MATCH: u32 = 0u;
const ONE_HOT: u32 = 1u;
const BLOCK: u32 = 3u;
// Kinds of sums.
const KEPT: u32 = 0u;
const WITHOUT: u32 = 1u;
const EXCESS: u32 = 2u;

// Where a walk ends.
const BONUS: u32 = 0u;
const REJECTED: u32 = 1u;
const INVALID: u32 = 2u;

struct Ended {
    accepted: u32,
    how: u32,
    ratio: f32,
}

// What the sequence is, and the rows that `measure` looks at.
var<private> sequence: array<u32, 12>;
var<private> index: u32;
var<private> p_row: Row;
var<private> q_row: Row;
var<private> ratio: f32;
var<private> unit: f32;
var<private> without: i32;

fn p_bits(id: u32) -> u32 {
    let at = p_row.start + id;
    if (VALUES == F32) {
        return p_values[at];
    }
    return (p_values[at >> 1u] >> ((at & 1u) * 16u)) & 0xffffu;
}

fn q_bits(id: u32) -> u32 {
    let at = q_row.start + id;
    if (VALUES == F32) {
        return q_values[at];
    }
    return (q_values[at >> 1u] >> ((at & 1u) * 16u)) & 0xffffu;
}

fn measure(kind: u32, id: u32) -> u32 {
    let mass = kept_mass(p_row, p_bits(id), id);
    if (kind == KEPT) {
        return mass;
    }
    if (kind == WITHOUT) {
        return select(mass, 0u, i32(id) == without);
    }
    let excess = ratio * f32(mass) - unit * f32(kept_mass(q_row, q_bits(id), id));
    return u32(max(excess, 0.0) + 0.5);
}

fn profile(at: u32) -> Row {
    return Row(
        0u,
        bitcast<f32>(scratch[at + 6u]),
        bitcast<f32>(sequence[3]),
        Boundary(scratch[at + 2u], scratch[at + 3u]),
        scratch[at + 4u],
        vec2(scratch[at], scratch[at + 1u]),
        scratch[at + 5u],
        i32(scratch[at + 7u]),
    );
}

fn p_profile(i: u32) -> Row {
    var row = profile((index * parameters.slots + i) * PROFILE_WORDS);
    row.start = parameters.p_start + (sequence[1] + index + i) * parameters.p_stride;
    return row;
}

fn q_profile(i: u32) -> Row {
    var row = profile(parameters.q_profiles_start + (index * parameters.slots + i) * PROFILE_WORDS);
    row.start = parameters.q_start + (sequence[1] + i) * parameters.q_stride;
    return row;
}

fn draft_at(i: u32) -> i32 {
    return draft[parameters.draft_start + sequence[1] + i];
}

// In units of 2^-32; what is not in [0, 1) counts as 0.
fn bits_for(i: u32, purpose: u32) -> u32 {
    if (parameters.has_uniforms != 0u) {
        let row = sequence[1] + index + i;
        let column = select(0u, 1u, purpose == PURPOSE_RESIDUAL);
        let bits = uniforms[parameters.uniforms_start + row * parameters.uniforms_stride + column];
        if (bits >= 0x3f800000u) {
            return 0u;
        }
        return u32(bitcast<f32>(bits) * 4294967296.0);
    }
    return philox(vec4(sequence[7] + i, 0u, purpose, 0u), vec2(sequence[8], sequence[9])).x;
}

fn coin(i: u32) -> f32 {
    // Rounding must not make it 1.
    return min(f32(bits_for(i, PURPOSE_COIN)) * 2.3283064365386963e-10, 0.99999994039535522);
}

fn has_mass(row: Row) -> bool {
    return !wide_is_zero(row.total);
}

fn matched(drafts: u32) -> vec2<i32> {
    var accepted = 0u;
    var token = -1;
    loop {
        let row = p_profile(accepted);
        token = select(-1, row.token, has_mass(row));
        if (accepted == drafts || token < 0 || token != draft_at(accepted)) {
            break;
        }
        accepted++;
    }
    return vec2(i32(accepted), token);
}

fn is_judged(i: u32) -> bool {
    return has_mass(p_profile(i)) && (parameters.mode == ONE_HOT || has_mass(q_profile(i)));
}

fn one_by_one(drafts: u32) -> Ended {
    for (var i = 0u; i < drafts; i++) {
        if (!is_judged(i)) {
            return Ended(i, INVALID, 1.0);
        }
        let p = p_profile(i);
        var q_drafted = 1.0;
        var q_total = 1.0;
        if (parameters.mode != ONE_HOT) {
            let q = q_profile(i);
            q_drafted = f32(q.drafted);
            q_total = wide_to_float(q.total);
        }
        if (!(coin(i) * q_drafted * wide_to_float(p.total) < f32(p.drafted) * q_total)) {
            return Ended(i, REJECTED, 1.0);
        }
    }
    return Ended(drafts, BONUS, 1.0);
}

// The p_i above.
fn ratio_of(count: u32) -> f32 {
    var product = 1.0;
    for (var i = 0u; i < count; i++) {
        let p = p_profile(i);
        let q = q_profile(i);
        let above = product * f32(p.drafted) * wide_to_float(q.total);
        let below = f32(q.drafted) * wide_to_float(p.total);
        if (above >= below) {
            product = select(1.0, 0.0, above == 0.0);
        } else {
            product = above / below;
        }
    }
    return product;
}

// Lets `measure` look at row i of both.
fn look_at(i: u32, with_ratio: f32) {
    p_row = p_profile(i);
    q_row = q_profile(i);
    ratio = with_ratio;
    unit = 1.0;
    if (any(p_row.total != q_row.total)) {
        unit = wide_to_float(p_row.total) / wide_to_float(q_row.total);
    }
}

fn block(drafts: u32, thread: u32) -> Ended {
    var judged = 0u;
    while (judged < drafts && is_judged(judged)) {
        judged++;
    }
    judged = broadcast(vec4(judged), thread == 0u).x;
    var i = judged;
    var ended = Ended(0u, INVALID, 1.0);
    var is_over = false;
    // No draft is always accepted: i does not pass 0.
    while (!is_over) {
        let of_i = ratio_of(i);
        var excess = 0.0;
        if (i > 0u && i < judged) {
            look_at(i, of_i);
            excess = wide_to_float(total_of(EXCESS, thread)) / wide_to_float(p_row.total);
        }
        var is_accepted = i == 0u;
        if (!is_accepted && i == judged) {
            is_accepted = coin(i - 1u) < of_i;
        } else if (!is_accepted) {
            let all = excess + (1.0 - of_i);
            is_accepted = all == 0.0 || coin(i - 1u) * all < excess;
        }
        is_over = broadcast_bool(is_accepted, thread == 0u);
        if (is_over) {
            let how = select(select(REJECTED, INVALID, i == judged), BONUS, i == drafts);
            ended = Ended(i, how, of_i);
        }
        i -= select(1u, 0u, is_over);
    }
    return ended;
}

// A token for row `ended.accepted`; -1 without a distribution.
fn draw(ended: Ended, thread: u32) -> i32 {
    let i = ended.accepted;
    p_row = p_profile(i);
    without = -1;
    // Kinds of sums, the residual's first.
    var kind = WITHOUT;
    if (ended.how == REJECTED) {
        without = draft_at(i);
        if (parameters.mode != ONE_HOT) {
            look_at(i, ended.ratio);
            kind = EXCESS;
        }
    }
    let is_over = ended.how == INVALID || !has_mass(p_row);
    let own = vec4(kind, select(0u, 1u, is_over), bits_for(i, PURPOSE_RESIDUAL), 0u);
    let task = broadcast(own, thread == 0u);
    if (task.y == 1u) {
        return -1;
    }
    for (kind = task.x; kind >= WITHOUT; kind--) {
        let id = locate(kind, vec2(0u), task.z, true, thread);
        if (id != EVERYBODY) {
            return i32(id);
        }
    }
    return p_row.token;
}

@compute @workgroup_size(THREADS)
fn sampled_walk(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    index = launch_index(workgroup, workgroups);
    if (launch_index(workgroup, workgroups) >= parameters.sequences) {
        return;
    }
    let words = sequence_words(index, thread);
    sequence = words;
    let walk = parameters.walks_start + index * parameters.walk_words;
    if (words[0] == 0u) {
        if (thread == 0u) {
            scratch[walk] = 0xffffffffu;
            scratch[walk + 1u] = 0xffffffffu;
        }
        return;
    }
    var found = vec2(0, -1);
    if (parameters.mode == MATCH) {
        found = matched(words[2]);
    } else {
        var ended = Ended(0u, INVALID, 1.0);
        if (parameters.mode == BLOCK) {
            ended = block(words[2], thread);
        } else {
            ended = one_by_one(words[2]);
        }
        found = vec2(i32(ended.accepted), draw(ended, thread));
    }
    if (thread == 0u) {
        scratch[walk] = bitcast<u32>(found.x);
        scratch[walk + 1u] = bitcast<u32>(found.y);
    }
    for (var place = thread; place < words[2]; place += THREADS) {
        scratch[walk + 2u + place] = place;
    }
}
