//! Random numbers that are a function of seed, position, token and purpose: nothing depends on the batch, the device or
//! the order of work.

/// What a random number decides. Streams of different purposes are independent of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Gumbel noise on the logits: which token is sampled.
    Token = 0,
    /// Whether a draft is accepted.
    Coin = 1,
    /// The token in place of a rejected draft, or behind the last one.
    Residual = 2,
}

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
#[inline(always)]
pub(crate) fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        counter = round(counter, key);
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[inline(always)]
fn round(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let product = |lane: usize| u64::from(MULTIPLIERS[lane]) * u64::from(counter[2 * lane]);
    let (first, second) = (product(0), product(1));
    [
        (second >> 32) as u32 ^ counter[1] ^ key[0],
        second as u32,
        (first >> 32) as u32 ^ counter[3] ^ key[1],
        first as u32,
    ]
}

/// Bits for the four tokens from `4 * quad` on: the counter is (position, quad, purpose, 0).
#[inline(always)]
pub(crate) fn token_bits(seed: u64, position: i32, quad: u32, purpose: Purpose) -> [u32; 4] {
    let key = [seed as u32, (seed >> 32) as u32];
    philox([position as u32, quad, purpose as u32, 0], key)
}

/// A number in (0, 1), `(bits + 1/2) 2^-32` rounded to f32 and no more than `1 - 2^-24`: fine-grained at 0, and never 1.
#[inline(always)]
pub(crate) fn uniform(bits: u32) -> f32 {
    // Both parts are exact; the sum is rounded once, on every device alike.
    let (upper, lower) = ((bits >> 8) as f32 * 256.0, (bits & 0xFF) as f32 + 0.5);
    ((upper + lower) * 2f32.powi(-32)).min(1.0 - 2f32.powi(-24))
}

/// Standard Gumbel noise in f64, for the oracles: `-ln(-ln(1 - u))`.
///
/// `u` is fine-grained where the noise is large, which is where it decides; the largest is 22.9.
pub(crate) fn gumbel_exact(bits: u32) -> f64 {
    -(-(-f64::from(uniform(bits))).ln_1p()).ln()
}

/// The same in f32, of arithmetic that compilers turn into vectors.
#[inline(always)]
pub(crate) fn gumbel(bits: u32) -> f32 {
    let u = uniform(bits);
    // What `1 - u` loses by being rounded comes back to first order; all of `u`, where `1 - u` is 1.
    let rest = 1.0 - u;
    let exponential = (u - (1.0 - rest)) / rest - ln(rest);
    -ln(exponential)
}

/// The logarithm of a positive normal number.
///
/// `ln(m 2^e) = ln(m) + e ln(2)` with `m` between `sqrt(1/2)` and `sqrt(2)`, and `ln(m) = 2 atanh((m - 1) / (m + 1))` by
/// its series, the first term left out of which is 1e-9.
#[inline(always)]
fn ln(x: f32) -> f32 {
    /// Bits of `sqrt(1/2)`, from which on the exponent counts as one more.
    const ROOT: u32 = 0x3F35_04F3;
    /// ln(2) in two parts; products of the first with small integers are exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let exponent = (x.to_bits().wrapping_sub(ROOT) as i32) >> 23;
    let m = f32::from_bits(x.to_bits().wrapping_sub((exponent << 23) as u32));
    let z = (m - 1.0) / (m + 1.0);
    let square = z * z;
    let series = 2.0 / 3.0 + square * (2.0 / 5.0 + square * (2.0 / 7.0 + square * (2.0 / 9.0)));
    let e = exponent as f32;
    (z * square * series + e * LN_2[1]) + 2.0 * z + e * LN_2[0]
}

/// Noise for `QUADS * 4` tokens from `4 * first` on; `noise[word][quad]` is that of token `4 * (first + quad) + word`.
#[allow(clippy::needless_range_loop, reason = "iterators over several arrays stay scalar")]
#[inline(always)]
pub(crate) fn gumbel_quads<const QUADS: usize>(
    seed: u64,
    position: i32,
    first: u32,
) -> [[f32; QUADS]; 4] {
    let mut counters = [[0u32; QUADS]; 4];
    for quad in 0..QUADS {
        counters[0][quad] = position as u32;
        counters[1][quad] = first + quad as u32;
        counters[2][quad] = Purpose::Token as u32;
    }
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..ROUNDS {
        // One counter after another: the compiler makes vectors of the loop.
        for quad in 0..QUADS {
            let next = round(std::array::from_fn(|word| counters[word][quad]), key);
            for word in 0..4 {
                counters[word][quad] = next[word];
            }
        }
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counters.map(|bits| bits.map(gumbel))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vectors of the authors' library Random123.
    #[test]
    fn philox_gives_the_published_numbers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]
        );
        assert_eq!(
            philox(
                [0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344],
                [0xA409_3822, 0x299F_31D0]
            ),
            [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1]
        );
    }

    #[test]
    fn uniform_numbers_stay_inside_the_interval() {
        assert_eq!(uniform(0), 2f32.powi(-33));
        assert_eq!(uniform(u32::MAX), 1.0 - 2f32.powi(-24));
        assert!((22.8..22.9).contains(&gumbel_exact(0)) && gumbel(u32::MAX).is_finite());
    }

    #[test]
    fn gumbel_noise_in_f32_is_that_in_f64() {
        for index in 0..100_000u32 {
            let bits = index.wrapping_mul(0x9E37_79B9) >> (index % 32);
            assert!((f64::from(gumbel(bits)) - gumbel_exact(bits)).abs() < 4e-6, "{bits:#x}");
        }
    }

    #[test]
    fn quads_side_by_side_have_the_noise_of_each() {
        let noise = gumbel_quads::<5>(7, 3, 11);
        let alone = |quad: usize| token_bits(7, 3, 11 + quad as u32, Purpose::Token).map(gumbel);
        let side_by_side = |quad: usize| noise.map(|word| word[quad]);
        assert!((0..5).all(|quad| alone(quad) == side_by_side(quad)));
    }

    #[test]
    fn positions_seeds_and_tokens_have_noise_of_their_own() {
        let of = |seed, position, quad| token_bits(seed, position, quad, Purpose::Token);
        let all =
            [of(1, 0, 0), of(2, 0, 0), of(1 << 32, 0, 0), of(1, 1, 0), of(1, -1, 0), of(1, 0, 1)];
        for (index, bits) in all.iter().enumerate() {
            assert!(!all[..index].contains(bits));
        }
        let purposes = [Purpose::Token, Purpose::Coin, Purpose::Residual];
        let [token, coin, residual] = purposes.map(|purpose| token_bits(1, 0, 0, purpose));
        assert!(token != coin && token != residual && coin != residual);
        // The purpose is a word of the counter of its own.
        assert_ne!(of(1, 0, 0), philox([0, 0, Purpose::Token as u32 + 1, 0], [1, 0]));
    }
}
