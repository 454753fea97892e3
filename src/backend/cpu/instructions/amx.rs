//! AMX: eight registers that hold tiles of 16 rows of 64 bytes, and products of tiles of bf16 pairs.
//!
//! A tile of weights is 16 rows as they lie, 32 columns of each; one of activations is 16 pairs of columns, each of 16
//! rows side by side; their product is added to 16 by 16 sums in f32. Denormals count as zero.

use std::arch::asm;
use std::mem::offset_of;
use std::sync::OnceLock;

use crate::backend::cpu::product::{AHEAD_STEPS, TILE_BYTES, TILE_ROWS, TileProduct};

/// The machine has AMX with bf16, and the process may use it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amx(());

impl Amx {
    /// # Safety
    /// [`is_available`] says so.
    pub unsafe fn assume() -> Amx {
        Amx(())
    }
}

/// Whether the machine has AMX with bf16 and the system grants its use.
pub(super) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
        let features = std::arch::x86_64::__cpuid_count(7, 0).edx;
        features & BF16_AND_TILES == BF16_AND_TILES && system_grants_tiles()
    })
}

/// The state of tiles is 8 KiB a thread, which Linux keeps only for processes that have asked for it.
#[cfg(target_os = "linux")]
fn system_grants_tiles() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: a system call that reads no memory; the kernel changes rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inout("rax") result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack)
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn system_grants_tiles() -> bool {
    false
}

/// The operand of `ldtilecfg`: every register holds 16 rows of 64 bytes.
#[repr(C, align(64))]
struct TileConfiguration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static WHOLE_TILES: TileConfiguration = {
    let mut configuration = TileConfiguration {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
    let mut tile = 0;
    while tile < 8 {
        configuration.row_bytes[tile] = TILE_BYTES as u16;
        configuration.rows[tile] = TILE_ROWS as u8;
        tile += 1;
    }
    configuration
};

/// Whole tiles in this thread's registers until the value is dropped. (To configure them takes as long as several products.)
#[derive(Debug)]
pub(crate) struct WholeTiles(());

impl WholeTiles {
    #[inline(always)]
    pub fn new(_: Amx) -> WholeTiles {
        // SAFETY: the machine has the instruction, as the token proves; the compiler uses no tiles.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &WHOLE_TILES, options(nostack, preserves_flags, readonly));
        }
        WholeTiles(())
    }
}

impl Drop for WholeTiles {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: as above; nothing of the tiles is needed any more.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}

/// Multiplies the tiles of `streams` streams with those of `vectors` vectors.
///
/// # Safety
/// What the fields of `product` point to can be read, and its sums written.
#[inline(always)]
pub(crate) unsafe fn multiply(
    _: &WholeTiles,
    product: &mut TileProduct,
    streams: usize,
    vectors: usize,
) {
    assert!(product.steps > 0, "no tiles");
    // SAFETY: the machine has the instructions, as the token proves; the rest is the caller's promise.
    unsafe {
        match (streams, vectors) {
            (1, 1) => multiply_1_by_1(product),
            (2, 1) => multiply_2_by_1(product),
            (1, 2) => multiply_1_by_2(product),
            (2, 2) => multiply_2_by_2(product),
            (1, 3) => multiply_1_by_3(product),
            (1, 4) => multiply_1_by_4(product),
            _ => unreachable!("{streams} streams and {vectors} vectors"),
        }
    }
}

/// Asks for a cache line of each of 16 rows; the register of the stream is where it is read.
macro_rules! prefetch {
    ($stream:tt, $register:literal) => {
        concat!(
            "mov {row}, [{product} + {ahead} + 8 * ", $stream, "]\n",
            "add {row}, ", $register, "\n",
            prefetch!(five rows),
            "lea {row}, [{row} + 4 * {ahead_stride}]\n",
            "add {row}, {ahead_stride}\n",
            prefetch!(five rows),
            "lea {row}, [{row} + 4 * {ahead_stride}]\n",
            "add {row}, {ahead_stride}\n",
            prefetch!(five rows),
            "lea {row}, [{row} + 4 * {ahead_stride}]\n",
            "prefetcht0 [{row} + {ahead_stride}]",
        )
    };
    (five rows) => {
        "prefetcht0 [{row}]
        prefetcht0 [{row} + {ahead_stride}]
        prefetcht0 [{row} + 2 * {ahead_stride}]
        prefetcht0 [{row} + {three_strides}]
        prefetcht0 [{row} + 4 * {ahead_stride}]
        "
    };
}

/// A kernel for some streams and vectors: for each stream its number, the register of its address, the tile that its
/// weights are loaded to, and for each vector its number and the tiles of sums and of activations. The first stream
/// loads the activations for all.
macro_rules! kernel {
    (
        $name:ident,
        ($first:tt, $first_register:literal, $first_weights:literal,
            [$(($vector:tt, $first_sums:literal, $activations:literal)),*]),
        $(($stream:tt, $register:literal, $weights:literal,
            [$(($other:tt, $sums:literal, $shared:literal)),*]),)*
    ) => {
        /// # Safety
        /// As [`multiply`]; the thread has whole tiles.
        unsafe fn $name(product: &mut TileProduct) {
            // SAFETY: the caller's promise. Nothing is expected of the tiles before, or left in them for later.
            unsafe {
                asm!(
                    "mov {stride}, [{product} + {sums_stride}]",
                    "cmp qword ptr [{product} + {accumulate}], 0",
                    "je 2f",
                    concat!("mov {row}, [{product} + {sums} + 8 * ", $first, "]"),
                    $(concat!("tileloadd ", $first_sums, ", [{row} + {stride} + 64 * ", $vector, "]"),)*
                    $(
                        concat!("mov {row}, [{product} + {sums} + 8 * ", $stream, "]"),
                        $(concat!("tileloadd ", $sums, ", [{row} + {stride} + 64 * ", $other, "]"),)*
                    )*
                    "jmp 3f",
                    "2:",
                    $(concat!("tilezero ", $first_sums),)*
                    $($(concat!("tilezero ", $sums),)*)*
                    "3:",
                    "mov {stride}, [{product} + {weights_stride}]",
                    "mov {activations}, [{product} + {activations_start}]",
                    "mov {activations_stride}, [{product} + {activations_step}]",
                    "mov {ahead_stride}, [{product} + {ahead_step}]",
                    "lea {three_strides}, [{ahead_stride} + 2 * {ahead_stride}]",
                    "mov {steps}, [{product} + {all_steps}]",
                    concat!("mov ", $first_register, ", [{product} + {weights} + 8 * ", $first, "]"),
                    $(concat!("mov ", $register, ", [{product} + {weights} + 8 * ", $stream, "]"),)*
                    "4:",
                    concat!("tileloadd ", $first_weights, ", [", $first_register, " + {stride}]"),
                    $(
                        concat!("tileloadd ", $activations, ", [{activations} + {activations_stride} + 64 * ", $vector, "]"),
                        concat!("tdpbf16ps ", $first_sums, ", ", $first_weights, ", ", $activations),
                    )*
                    prefetch!($first, $first_register),
                    concat!("add ", $first_register, ", 64"),
                    $(
                        concat!("tileloadd ", $weights, ", [", $register, " + {stride}]"),
                        $(concat!("tdpbf16ps ", $sums, ", ", $weights, ", ", $shared),)*
                        prefetch!($stream, $register),
                        concat!("add ", $register, ", 64"),
                    )*
                    "lea {activations}, [{activations} + 8 * {activations_stride}]",
                    "lea {activations}, [{activations} + 8 * {activations_stride}]",
                    "dec {steps}",
                    "cmp {steps}, {turning_steps}",
                    "jne 5f",
                    "mov {row}, [{product} + {ahead_turn}]",
                    concat!("add [{product} + {ahead} + 8 * ", $first, "], {row}"),
                    $(concat!("add [{product} + {ahead} + 8 * ", $stream, "], {row}"),)*
                    "5:",
                    "test {steps}, {steps}",
                    "jnz 4b",
                    "mov {stride}, [{product} + {sums_stride}]",
                    concat!("mov {row}, [{product} + {sums} + 8 * ", $first, "]"),
                    $(concat!("tilestored [{row} + {stride} + 64 * ", $vector, "], ", $first_sums),)*
                    $(
                        concat!("mov {row}, [{product} + {sums} + 8 * ", $stream, "]"),
                        $(concat!("tilestored [{row} + {stride} + 64 * ", $other, "], ", $sums),)*
                    )*
                    product = in(reg) std::ptr::from_mut(product),
                    row = out(reg) _,
                    stride = out(reg) _,
                    activations = out(reg) _,
                    activations_stride = out(reg) _,
                    ahead_stride = out(reg) _,
                    three_strides = out(reg) _,
                    steps = out(reg) _,
                    weights = const offset_of!(TileProduct, weights),
                    weights_stride = const offset_of!(TileProduct, weights_stride),
                    ahead = const offset_of!(TileProduct, ahead),
                    ahead_step = const offset_of!(TileProduct, ahead_stride),
                    ahead_turn = const offset_of!(TileProduct, ahead_turn),
                    activations_start = const offset_of!(TileProduct, activations),
                    activations_step = const offset_of!(TileProduct, activations_stride),
                    all_steps = const offset_of!(TileProduct, steps),
                    sums = const offset_of!(TileProduct, sums),
                    sums_stride = const offset_of!(TileProduct, sums_stride),
                    accumulate = const offset_of!(TileProduct, accumulate),
                    turning_steps = const AHEAD_STEPS,
                    out("r12") _,
                    out("r13") _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack)
                );
            }
        }
    };
}

kernel!(multiply_1_by_1, ("0", "r12", "tmm4", [("0", "tmm0", "tmm7")]),);
kernel!(
    multiply_2_by_1,
    ("0", "r12", "tmm4", [("0", "tmm0", "tmm7")]),
    ("1", "r13", "tmm5", [("0", "tmm1", "tmm7")]),
);
kernel!(multiply_1_by_2, ("0", "r12", "tmm4", [("0", "tmm0", "tmm6"), ("1", "tmm1", "tmm7")]),);
kernel!(
    multiply_2_by_2,
    ("0", "r12", "tmm4", [("0", "tmm0", "tmm6"), ("1", "tmm1", "tmm7")]),
    ("1", "r13", "tmm5", [("0", "tmm2", "tmm6"), ("1", "tmm3", "tmm7")]),
);
kernel!(
    multiply_1_by_3,
    ("0", "r12", "tmm4", [("0", "tmm0", "tmm5"), ("1", "tmm1", "tmm6"), ("2", "tmm2", "tmm7")]),
);
kernel!(
    multiply_1_by_4,
    (
        "0",
        "r12",
        "tmm4",
        [
            ("0", "tmm0", "tmm5"),
            ("1", "tmm1", "tmm6"),
            ("2", "tmm2", "tmm7"),
            ("3", "tmm3", "tmm5")
        ]
    ),
);
