//! The CPU backend: SIMD kernels on a rayon thread pool.
//!
//! Kernels are written once, over `instructions::Vectors` (vector operations) and
//! `products::Products` (how stored weights are multiplied), and compiled for every instruction set.
//! Results depend on the instruction set, but neither on the number of threads nor on how work was
//! spread over them.
//!
//! # Denormal numbers
//!
//! While a kernel runs, its threads read and write denormal f32 numbers as zero (FTZ and DAZ on x86, FZ on
//! AArch64): products of denormals can be a hundred times as slow. Denormal f16 numbers are exact; the
//! threads' own settings are restored before the call returns.

pub(crate) mod activation;
mod denormals;
pub(crate) mod float_rows;
pub(crate) mod instructions;
pub(crate) mod packed_weight;
pub(crate) mod parallel;
pub(crate) mod pieces;
pub(crate) mod product;
pub(crate) mod products;
pub(crate) mod rms_norm;
pub(crate) mod silu;
mod workspace;

use std::sync::Arc;

pub use instructions::InstructionSet;
use instructions::Supported;
pub use packed_weight::PackedWeight;
pub use workspace::Workspace;

use crate::error::{Backend, Error};

/// Multiply-adds for which a thread is worth its while; a single row's weights are read from memory in 15 µs.
const MIN_PRODUCTS: usize = 1 << 17;
/// Likewise, where threads sleep.
const MIN_PRODUCTS_FROM_OUTSIDE: usize = 1 << 19;

/// The CPU: a thread pool to run on and the instructions to use.
///
/// Operations that are called on a thread of the pool (`rayon::scope(|_| generate())`) start there at once. Elsewhere each
/// one that uses several threads first wakes a thread of the pool and waits for it, which takes tens of microseconds and on
/// virtual machines several times that: as much as a small layer.
#[derive(Clone, Debug)]
pub struct Cpu {
    pool: Option<Arc<rayon::ThreadPool>>,
    instructions: Supported,
}

impl Default for Cpu {
    fn default() -> Cpu {
        Cpu::new()
    }
}

impl Cpu {
    /// Runs on rayon's current thread pool, which is the global one unless the caller is a thread of
    /// another, with the best instructions that the machine has.
    pub fn new() -> Cpu {
        Cpu { pool: None, instructions: Supported::best() }
    }

    /// Runs on a thread pool of the caller's.
    pub fn with_pool(pool: Arc<rayon::ThreadPool>) -> Cpu {
        Cpu { pool: Some(pool), ..Cpu::new() }
    }

    /// Uses a lesser instruction set than the machine's best, for tests and comparisons.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the machine lacks it.
    pub fn with_instruction_set(self, wanted: InstructionSet) -> Result<Cpu, Error> {
        let instructions = Supported::new(wanted).ok_or_else(|| Error::Unavailable {
            backend: Backend::Cpu,
            reason: format!("this machine lacks the instruction set {wanted}"),
            remedy: format!("it has {}", InstructionSet::available_names()).into(),
        })?;
        Ok(Cpu { instructions, ..self })
    }

    /// The instruction set in use.
    pub fn instruction_set(&self) -> InstructionSet {
        self.instructions.get()
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        match &self.pool {
            Some(pool) => pool.current_num_threads(),
            None => rayon::current_num_threads(),
        }
    }

    /// Over how many threads so many multiply-adds are spread.
    ///
    /// Work is handed to a thread of the pool in about 5 µs by another, and in up to 100 by any other thread, which first
    /// has to wake one.
    pub(crate) fn threads_for(&self, products: usize) -> usize {
        let is_inside = match &self.pool {
            Some(pool) => pool.current_thread_index().is_some(),
            None => rayon::current_thread_index().is_some(),
        };
        let least = if is_inside { MIN_PRODUCTS } else { MIN_PRODUCTS_FROM_OUTSIDE };
        (products / least).clamp(1, self.threads().max(1))
    }

    /// Instruction set and number of threads.
    pub fn name(&self) -> String {
        let threads = self.threads();
        let plural = if threads == 1 { "" } else { "s" };
        format!("{}, {threads} thread{plural}", self.instruction_set())
    }

    pub(crate) fn instructions(&self) -> Supported {
        self.instructions
    }

    /// Runs `job` on a thread of the pool, so that the parallel sections in it start without a detour.
    pub(crate) fn enter<R: Send>(&self, job: impl FnOnce() -> R + Send) -> R {
        let mut job = Some(job);
        let mut result = None;
        self.enter_pool(&mut || result = job.take().map(|job| job()));
        result.expect("the pool runs the job once")
    }

    /// Not generic: rayon's machinery would be compiled for each job of the crate.
    fn enter_pool(&self, job: &mut (dyn FnMut() + Send)) {
        match &self.pool {
            Some(pool) => pool.install(job),
            None => rayon::scope(|_| job()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_available_instruction_set_can_be_forced() {
        for set in InstructionSet::available() {
            let cpu = Cpu::new().with_instruction_set(set).unwrap();
            assert_eq!(cpu.instruction_set(), set);
            assert!(cpu.name().starts_with(set.name()));
        }
    }

    #[test]
    fn an_absent_instruction_set_is_an_error_that_names_the_present_ones() {
        let absent = InstructionSet::ALL.into_iter().find(|set| !set.is_available());
        let error = Cpu::new().with_instruction_set(absent.unwrap()).unwrap_err();
        assert!(matches!(error, Error::Unavailable { backend: Backend::Cpu, .. }));
        assert!(error.to_string().contains("portable"), "{error}");
    }

    #[test]
    fn small_products_stay_on_the_callers_thread() {
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap());
        let cpu = Cpu::with_pool(Arc::clone(&pool));
        let threads = || [0, 1 << 16, 1 << 18, 1 << 20, 1 << 40].map(|n| cpu.threads_for(n));
        assert_eq!(threads(), [1, 1, 1, 2, 3]);
        assert_eq!(pool.install(threads), [1, 1, 2, 3, 3]);
        let other = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(other.install(threads), [1, 1, 1, 2, 3]);
    }

    #[test]
    fn the_pool_decides_on_the_number_of_threads() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let cpu = Cpu::with_pool(Arc::new(pool));
        assert_eq!(cpu.threads(), 3);
        assert_eq!(cpu.enter(rayon::current_num_threads), 3);
    }
}
