//! Instruction sets: which the machine has, and the vector operations that kernels are written in.
#![allow(unsafe_code, reason = "vector instructions and unchecked loads and stores")]

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod vectors;

use std::fmt;

pub(crate) use vectors::{MAX_LANES, Vectors};

/// Instructions that the CPU kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InstructionSet {
    /// What every machine has.
    Portable,
    /// AArch64's 128-bit vectors.
    Neon,
    /// 256-bit vectors: AVX2, FMA and F16C.
    Avx2,
    /// 512-bit vectors: AVX-512 F, BW and VL.
    Avx512,
    /// [`InstructionSet::Avx512`] and products of bf16 pairs.
    Avx512Bf16,
    /// [`InstructionSet::Avx512Bf16`] and products of tiles of bf16 (AMX). On Linux, asking whether the machine has it
    /// asks the kernel for the process's permission to use it.
    Amx,
}

impl InstructionSet {
    /// All sets, lesser ones first.
    pub const ALL: [InstructionSet; 6] = [
        InstructionSet::Portable,
        InstructionSet::Neon,
        InstructionSet::Avx2,
        InstructionSet::Avx512,
        InstructionSet::Avx512Bf16,
        InstructionSet::Amx,
    ];

    /// The lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            InstructionSet::Portable => "portable",
            InstructionSet::Neon => "neon",
            InstructionSet::Avx2 => "avx2",
            InstructionSet::Avx512 => "avx512",
            InstructionSet::Avx512Bf16 => "avx512_bf16",
            InstructionSet::Amx => "amx",
        }
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        match self {
            InstructionSet::Portable => true,
            InstructionSet::Neon => cfg!(target_arch = "aarch64"),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => {
                InstructionSet::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Bf16 => {
                InstructionSet::Avx512.is_available() && is_x86_feature_detected!("avx512bf16")
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx => InstructionSet::Avx512Bf16.is_available() && amx::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            InstructionSet::Avx2
            | InstructionSet::Avx512
            | InstructionSet::Avx512Bf16
            | InstructionSet::Amx => false,
        }
    }

    /// The sets that this machine has, lesser ones first.
    pub fn available() -> impl Iterator<Item = InstructionSet> {
        InstructionSet::ALL.into_iter().filter(|set| set.is_available())
    }

    pub(super) fn available_names() -> String {
        InstructionSet::available().map(InstructionSet::name).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Supported(InstructionSet);

/// Work that is compiled for every instruction set.
pub(crate) trait VectorJob {
    type Output;
    fn run<V: Vectors>(self, vectors: V) -> Self::Output;
}

/// The innermost part of a job, to be run by [`Vectors::enter`] with the instruction set switched on.
///
/// Implementations are `#[inline(always)]`: only code that ends up inside `enter` is compiled for the set.
pub(crate) trait Leaf {
    fn run(self);
}

impl Supported {
    pub fn new(set: InstructionSet) -> Option<Supported> {
        set.is_available().then_some(Supported(set))
    }

    pub fn best() -> Supported {
        Supported(InstructionSet::available().last().unwrap_or(InstructionSet::Portable))
    }

    pub fn get(self) -> InstructionSet {
        self.0
    }

    /// Runs `job` with the vectors of this set.
    pub fn dispatch<J: VectorJob>(self, job: J) -> J::Output {
        match self.0 {
            InstructionSet::Portable => job.run(portable::Portable),
            #[cfg(target_arch = "aarch64")]
            // SAFETY: `Supported` is made only for instruction sets that the machine has.
            InstructionSet::Neon => job.run(unsafe { neon::Neon::assume() }),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            InstructionSet::Avx2 => job.run(unsafe { avx2::Avx2::assume() }),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 | InstructionSet::Avx512Bf16 | InstructionSet::Amx => {
                // SAFETY: as above; the others include `Avx512`.
                job.run(unsafe { avx512::Avx512::assume() })
            }
            #[allow(unreachable_patterns, reason = "the sets of other architectures")]
            other => unreachable!("{other} is not of this architecture"),
        }
    }
}
