//! The processor's ceilings: reading memory, and multiply-adds in registers, on all threads.

use std::hint::black_box;
use std::time::Instant;

#[cfg(target_arch = "x86_64")]
use siluette::InstructionSet;

const ATTEMPTS: usize = 9;
/// Beyond any cache on most machines, and not more than a machine should have to spare.
const BUFFER_BYTES: std::ops::RangeInclusive<u64> = (256 << 20)..=(2 << 30);

/// A buffer of twice the cache, to be read at the speed of memory.
pub struct Stream {
    words: Vec<u64>,
}

impl Stream {
    pub fn new(cache_bytes: u64) -> Stream {
        let bytes = (2 * cache_bytes).clamp(*BUFFER_BYTES.start(), *BUFFER_BYTES.end());
        Stream { words: vec![0x5A5A_5A5A_5A5A_5A5A; bytes as usize / size_of::<u64>()] }
    }

    /// Reads it once, every thread its own part, and tells at how many bytes a second.
    pub fn read(&self) -> f64 {
        let threads = rayon::current_num_threads();
        let part = self.words.len() / threads;
        let start = Instant::now();
        rayon::broadcast(|thread| black_box(sum(&self.words[thread.index() * part..][..part])));
        (part * threads * size_of::<u64>()) as f64 / start.elapsed().as_secs_f64()
    }

    /// The fastest of several readings.
    pub fn best(&self) -> f64 {
        (0..ATTEMPTS).map(|_| self.read()).fold(0.0, f64::max)
    }
}

/// Words that are added up at a time.
const BLOCK: usize = 64;

/// Four streams at once, asked for in advance: more requests under way than one stream has.
fn sum(words: &[u64]) -> u64 {
    let quarter = words.len() / 4;
    let streams = [0, 1, 2, 3].map(|stream| &words[stream * quarter..][..quarter]);
    let mut sums = [0u64; BLOCK];
    let mut blocks = streams.map(|stream| stream.as_chunks::<BLOCK>().0.iter());
    while let Some(first) = blocks[0].next() {
        let rest = [blocks[1].next(), blocks[2].next(), blocks[3].next()];
        for block in [Some(first)].into_iter().chain(rest).flatten() {
            #[cfg(target_arch = "x86_64")]
            x86::prefetch_behind(block);
            for (sum, word) in sums.iter_mut().zip(block) {
                *sum = sum.wrapping_add(*word);
            }
        }
    }
    sums.iter().fold(0, |total, sum| total.wrapping_add(*sum))
}

/// Multiply-adds of f32, by independent chains that fill the units, in the widest registers that there are.
pub fn flops_per_second() -> f64 {
    Chains::best().flops_per_second()
}

/// Multiply-adds of bf16 to f32 sums, where the processor has an instruction for them.
pub fn bf16_flops_per_second() -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if InstructionSet::Amx.is_available() {
        let chains = Chains { run: x86::run_amx, lanes: x86::AMX_LANES };
        return Some(chains.flops_per_second());
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512f") {
        let chains = Chains { run: x86::run_avx512_bf16, lanes: 32 * x86::CHAINS };
        return Some(chains.flops_per_second());
    }
    None
}

fn best_of(mut run: impl FnMut()) -> f64 {
    let seconds = (0..ATTEMPTS).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    });
    seconds.fold(f64::INFINITY, f64::min)
}

/// A loop of multiply-adds.
struct Chains {
    run: fn(u64),
    /// Multiply-adds a round.
    lanes: u64,
}

impl Chains {
    fn flops_per_second(&self) -> f64 {
        const ROUNDS: u64 = 1_000_000;
        let threads = rayon::current_num_threads() as u64;
        let seconds = best_of(|| {
            rayon::broadcast(|_| (self.run)(ROUNDS));
        });
        (2 * ROUNDS * self.lanes * threads) as f64 / seconds
    }

    fn best() -> Chains {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Chains { run: x86::run_avx512, lanes: 16 * x86::CHAINS };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Chains { run: x86::run_avx2, lanes: 8 * x86::CHAINS };
            }
        }
        Chains { run: portable, lanes: PORTABLE_LANES as u64 }
    }
}

const PORTABLE_LANES: usize = 64;

/// What the compiler makes of it for the target at large: NEON's fused multiply-adds on AArch64.
fn portable(rounds: u64) {
    let (factor, term) = (black_box(0.999f32), black_box(0.001f32));
    let mut sums = [1.0f32; PORTABLE_LANES];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = if cfg!(target_arch = "aarch64") {
                sum.mul_add(factor, term)
            } else {
                // Without the instruction, `mul_add` would be a call.
                *sum * factor + term
            };
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "instructions that not every machine has")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Asks for the block that is read some blocks later.
    #[inline(always)]
    pub fn prefetch_behind(block: &[u64; super::BLOCK]) {
        /// As far ahead as the CPU backend asks for weights.
        const AHEAD: usize = 3072 / size_of::<u64>();
        const LINE: usize = 64 / size_of::<u64>();
        for line in (0..super::BLOCK).step_by(LINE) {
            let address = block.as_ptr().wrapping_add(AHEAD + line);
            // SAFETY: asking for memory in advance touches nothing, wherever it is.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
        }
    }

    /// Four cycles of latency on two units ask for eight; some spare, all in sixteen registers.
    pub const CHAINS: u64 = 12;

    pub fn run_avx512(rounds: u64) {
        // SAFETY: called only after AVX-512 F was detected.
        unsafe { avx512(rounds) }
    }

    pub fn run_avx2(rounds: u64) {
        // SAFETY: called only after AVX2 and FMA were detected.
        unsafe { avx2(rounds) }
    }

    pub fn run_avx512_bf16(rounds: u64) {
        // SAFETY: called only after AVX-512 F and BF16 were detected.
        unsafe { avx512_bf16(rounds) }
    }

    /// Multiply-adds of a round: four products of tiles of 16 rows, 32 columns and 16 rows.
    pub const AMX_LANES: u64 = 4 * 16 * 32 * 16;

    pub fn run_amx(rounds: u64) {
        // One palette, 64 bytes a row of every tile, 16 rows.
        let mut configuration = [0u8; 64];
        configuration[0] = 1;
        for tile in 0..8 {
            (configuration[16 + 2 * tile], configuration[48 + tile]) = (64, 16);
        }
        // SAFETY: called only where AMX is available; tiles are configured, used and released in here.
        unsafe {
            std::arch::asm!(
                "ldtilecfg [{configuration}]",
                "2:",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "dec {rounds}",
                "jnz 2b",
                "tilerelease",
                configuration = in(reg) &configuration,
                rounds = inout(reg) rounds => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn avx512_bf16(rounds: u64) {
        // SAFETY: 32 times 1.0 in the same bits.
        let one = black_box(unsafe {
            std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi16(0x3F80))
        });
        let mut sums = [_mm512_set1_ps(1.0); CHAINS as usize];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, one, one);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    fn avx512(rounds: u64) {
        let (factor, term) = (black_box(_mm512_set1_ps(0.999)), black_box(_mm512_set1_ps(0.001)));
        let mut sums = [_mm512_set1_ps(1.0); CHAINS as usize];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, term);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    fn avx2(rounds: u64) {
        let (factor, term) = (black_box(_mm256_set1_ps(0.999)), black_box(_mm256_set1_ps(0.001)));
        let mut sums = [_mm256_set1_ps(1.0); CHAINS as usize];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, term);
            }
        }
        black_box(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read() {
        let words: Vec<u64> = (0..4 * 64 * 5).collect();
        assert_eq!(sum(&words), words.iter().sum::<u64>());
    }
}
