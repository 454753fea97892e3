//! Flushing of denormal numbers for the time of a kernel.
#![allow(
    unsafe_code,
    reason = "a thread's floating-point control register is reached by assembly only"
)]

/// Denormals are zero on this thread until the value is dropped.
pub(super) struct FlushDenormals {
    before: control::Register,
}

impl FlushDenormals {
    pub fn new() -> FlushDenormals {
        let before = control::read();
        control::write(before | control::FLUSH);
        FlushDenormals { before }
    }
}

impl Drop for FlushDenormals {
    fn drop(&mut self) {
        control::write(self.before);
    }
}

#[cfg(target_arch = "x86_64")]
mod control {
    use std::arch::asm;

    pub type Register = u32;
    /// FTZ (bit 15) and DAZ (bit 6) of MXCSR.
    pub const FLUSH: Register = 1 << 15 | 1 << 6;

    pub fn read() -> Register {
        let mut value = 0;
        // SAFETY: stores MXCSR, which every x86-64 has, to a place of its size.
        unsafe { asm!("stmxcsr [{}]", in(reg) &mut value, options(nostack, preserves_flags)) };
        value
    }

    pub fn write(value: Register) {
        // SAFETY: `value` was read from MXCSR but for two bits, which change only how denormals are
        // treated; the kernels between two writes work with explicit vector instructions, whose results
        // the compiler does not know.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &value, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod control {
    use std::arch::asm;

    pub type Register = u64;
    /// FZ of FPCR.
    pub const FLUSH: Register = 1 << 24;

    pub fn read() -> Register {
        let value;
        // SAFETY: reads a register that every AArch64 has.
        unsafe { asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    pub fn write(value: Register) {
        // SAFETY: `value` was read from FPCR but for one bit, which changes only how denormals are treated.
        unsafe { asm!("msr fpcr, {}", in(reg) value, options(nostack, preserves_flags)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod control {
    pub type Register = u32;
    pub const FLUSH: Register = 0;

    pub fn read() -> Register {
        0
    }

    pub fn write(_value: Register) {}
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use std::hint::black_box;

    use super::*;

    fn halve_smallest() -> f32 {
        black_box(f32::MIN_POSITIVE) * black_box(0.5)
    }

    #[test]
    fn denormals_are_flushed_and_the_setting_restored() {
        let before = control::read();
        assert_ne!(halve_smallest(), 0.0);
        let guard = FlushDenormals::new();
        assert_eq!(halve_smallest(), 0.0);
        drop(guard);
        assert_ne!(halve_smallest(), 0.0);
        assert_eq!(control::read() & control::FLUSH, before & control::FLUSH);
    }
}
