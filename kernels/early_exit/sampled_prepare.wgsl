// verify_sampled, first of all: where each sequence lies and what it asks for, in words that the next kernels read; and
// whether any of that is out of its domain.
//
// offsets [B + 1] u32; temperature, top_p, min_p [B] f32, top_k, positions [B] i32, seeds [B, 2] u32, each optional; any
// values
//
// launch  ceil(B / THREADS); an invocation owns a sequence

override THREADS: u32 = 64u;

struct Parameters {
    sequences: u32,
    drafts: u32,
    max_draft: u32,
    // Bits of what is given, in the order of the bindings from `temperature` on.
    given: u32,
    seed_low: u32,
    seed_high: u32,
    // First elements, from the start of each binding.
    offsets_start: u32,
    temperature_start: u32,
    top_k_start: u32,
    top_p_start: u32,
    min_p_start: u32,
    positions_start: u32,
    seeds_start: u32,
    seeds_stride: u32,
    sequences_start: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> offsets: array<u32>;
@group(0) @binding(2) var<storage, read> temperature: array<u32>;
@group(0) @binding(3) var<storage, read> top_k: array<i32>;
@group(0) @binding(4) var<storage, read> top_p: array<u32>;
@group(0) @binding(5) var<storage, read> min_p: array<u32>;
@group(0) @binding(6) var<storage, read> positions: array<i32>;
@group(0) @binding(7) var<storage, read> seeds: array<u32>;
@group(0) @binding(8) var<storage, read_write> scratch: array<u32>;
#import shared/grid.wgsl
#import early_exit/sequence.wgsl

const ONE: u32 = 0x3f800000u;
const INFINITE: u32 = 0x7f800000u;
const MINUS_ZERO: u32 = 0x80000000u;
const SEQUENCE_WORDS: u32 = 12u;

fn is_given(argument: u32) -> bool {
    return (parameters.given & (1u << argument)) != 0u;
}

@compute @workgroup_size(THREADS)
fn sampled_prepare(
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
    if (index >= parameters.sequences) {
        return;
    }
    let sequence = sequence_at(index);
    var is_valid = sequence.is_valid;
    let at = parameters.sequences_start + index * SEQUENCE_WORDS;
    var divisor = ONE;
    if (is_given(0u)) {
        divisor = temperature[parameters.temperature_start + index];
        is_valid = is_valid && divisor > 0u && divisor < INFINITE;
    }
    var k = 0;
    if (is_given(1u)) {
        k = top_k[parameters.top_k_start + index];
        is_valid = is_valid && k >= 0;
    }
    var parts = 0u;
    if (is_given(2u)) {
        let share = top_p[parameters.top_p_start + index];
        is_valid = is_valid && share > 0u && share <= ONE;
        if (is_valid && share < ONE) {
            parts = max(u32(bitcast<f32>(share) * 4294967296.0 + 0.5), 1u);
        }
    }
    var least = 0u;
    if (is_given(3u)) {
        least = min_p[parameters.min_p_start + index];
        is_valid = is_valid && (least < ONE || least == MINUS_ZERO);
    }
    var position = 0;
    if (is_given(4u)) {
        position = positions[parameters.positions_start + index];
    }
    var seed = vec2(parameters.seed_low, parameters.seed_high);
    if (is_given(5u)) {
        let first = parameters.seeds_start + index * parameters.seeds_stride;
        seed = vec2(seeds[first], seeds[first + 1u]);
    }
    scratch[at] = select(0u, 1u, is_valid);
    scratch[at + 1u] = sequence.first;
    scratch[at + 2u] = sequence.drafts;
    scratch[at + 3u] = divisor;
    scratch[at + 4u] = u32(k);
    scratch[at + 5u] = parts;
    scratch[at + 6u] = least;
    scratch[at + 7u] = u32(position);
    scratch[at + 8u] = seed.x;
    scratch[at + 9u] = seed.y;
}
