// What is kept of the logits of a tile of the vocabulary and a row; the twin of state.cuh.
//
// WGSL may assume that there are neither NaN nor infinities. Inside kernels a masked logit is LOWEST, and what is neither
// finite nor masked is told by its bits.

const VOCABULARY_TILE: u32 = 128u;

// Columns of state_values and of state_tokens; the best logits follow.
const VALUE_MAX: u32 = 0u;
const VALUE_SECOND: u32 = 1u;
const VALUE_SUM: u32 = 2u;
const VALUE_WEIGHTED: u32 = 3u;
const VALUE_GATHERED: u32 = 4u;
const VALUE_SCORE: u32 = 5u;
const VALUES: u32 = 6u;
const TOKEN_MAX: u32 = 0u;
const TOKEN_SAMPLED: u32 = 1u;
const TOKENS: u32 = 2u;

const NOT_A_NUMBER: u32 = 0x7fffffffu;
const MINUS_INFINITY: u32 = 0xff800000u;
const LOWEST: f32 = -3.4028234e38;
const NOBODY: i32 = -1;

// A value as it is stored.
fn value_bits(value: f32) -> u32 {
    return select(bitcast<u32>(value), MINUS_INFINITY, value <= LOWEST);
}

// A stored value that is not NaN.
fn value_of(bits: u32) -> f32 {
    return bitcast<f32>(select(bits, 0xff7fffffu, bits == MINUS_INFINITY));
}

// NaN and +inf: what no row with a token has.
fn is_no_logit(bits: u32) -> bool {
    return (bits & 0x7f800000u) == 0x7f800000u && bits != MINUS_INFINITY;
}

// A value and whose it is, in a total order: larger values first, of equal ones the lower id.
struct Best {
    value: f32,
    id: i32,
}

fn is_before(a: Best, b: Best) -> bool {
    return a.value > b.value || (a.value == b.value && a.id >= 0 && (b.id < 0 || a.id < b.id));
}

fn better(a: Best, b: Best) -> Best {
    if (is_before(b, a)) {
        return b;
    }
    return a;
}
