//! Element types.

use std::fmt;

use bytemuck::Pod;
pub use half::{bf16, f16};

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    BF16,
    /// Unsigned byte; masks.
    U8,
    /// Signed 32-bit integer; token ids, lengths, ranks.
    I32,
    /// Unsigned 32-bit integer; indices.
    U32,
}

impl DType {
    /// The floating-point types that weights and activations come in.
    pub const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

    /// Size of one element in bytes.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::U8 => 1,
        }
    }

    /// Whether this is one of [`DType::FLOATS`].
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// Distance from 1 to the next larger value; `None` for integers.
    pub const fn epsilon(self) -> Option<f64> {
        match self {
            DType::F32 => Some(f32::EPSILON as f64),
            DType::F16 => Some(1.0 / 1024.0),
            DType::BF16 => Some(1.0 / 128.0),
            _ => None,
        }
    }

    /// The lower-case name used in kernel symbols and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::U8 => "u8",
            DType::I32 => "i32",
            DType::U32 => "u32",
        }
    }

    /// The inverse of [`DType::name`].
    pub fn from_name(name: &str) -> Option<DType> {
        use DType::*;
        [F32, F16, BF16, U8, I32, U32].into_iter().find(|dtype| dtype.name() == name)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that a tensor can hold. Sealed.
pub trait Element: Pod + Send + Sync + sealed::Sealed + fmt::Debug {
    /// The matching [`DType`].
    const DTYPE: DType;
}

/// A floating-point [`Element`]. Sealed.
pub trait Float: Element {
    /// Exact widening.
    fn to_f32(self) -> f32;
    /// Rounds to nearest, ties to even.
    fn from_f32(value: f32) -> Self;
    /// Rounds once, to nearest, ties to even.
    fn from_f64(value: f64) -> Self;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),* $(,)?) => {$(
        impl sealed::Sealed for $rust {}
        impl Element for $rust {
            const DTYPE: DType = DType::$dtype;
        }
    )*};
}

elements!(f32 => F32, f16 => F16, bf16 => BF16, u8 => U8, i32 => I32, u32 => U32);

impl Float for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32(value: f32) -> f32 {
        value
    }
    #[inline(always)]
    fn from_f64(value: f64) -> f32 {
        value as f32
    }
}

macro_rules! half_floats {
    ($($rust:ty),*) => {$(
        impl Float for $rust {
            #[inline(always)]
            fn to_f32(self) -> f32 {
                <$rust>::to_f32(self)
            }
            #[inline(always)]
            fn from_f32(value: f32) -> $rust {
                <$rust>::from_f32(value)
            }
            #[inline(always)]
            fn from_f64(value: f64) -> $rust {
                <$rust>::from_f32(round_to_odd(value))
            }
        }
    )*};
}

half_floats!(f16, bf16);

/// Rounds so that rounding the result again, to a narrower type, equals rounding once: an inexact value
/// goes to the neighbour with an odd significand (Boldo and Melquiond 2008), which is never a tie.
///
/// (`half`'s own conversions from f64 drop the low half of the significand first.)
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    if f64::from(nearest) == value || !nearest.is_finite() || nearest.to_bits() & 1 == 1 {
        return nearest;
    }
    let away_from_zero = f64::from(nearest).abs() > value.abs();
    f32::from_bits(if away_from_zero { nearest.to_bits() - 1 } else { nearest.to_bits() + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_invert() {
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::U8, DType::I32, DType::U32] {
            assert_eq!(DType::from_name(dtype.name()), Some(dtype));
        }
        assert_eq!(DType::from_name("float"), None);
    }

    #[test]
    fn epsilon_is_the_gap_above_one() {
        assert_eq!(DType::F16.epsilon(), Some(f16::EPSILON.to_f64()));
        assert_eq!(DType::BF16.epsilon(), Some(bf16::EPSILON.to_f64()));
        assert_eq!(DType::U32.epsilon(), None);
    }

    #[test]
    fn from_f64_rounds_once() {
        // Rounding to f32 first would land on the tie and then go down to 1.0.
        let just_above_the_tie = 1.0 + 2f64.powi(-8) + 2f64.powi(-40);
        let rounded = <bf16 as Float>::from_f64(just_above_the_tie);
        assert_eq!(rounded.to_f64(), 1.0 + 2f64.powi(-7));
        let just_below_the_tie = 1.0 + 2f64.powi(-8) - 2f64.powi(-40);
        assert_eq!(<bf16 as Float>::from_f64(just_below_the_tie).to_f64(), 1.0);
        assert_eq!(<f16 as Float>::from_f64(-1e9).to_f64(), f64::NEG_INFINITY);
        assert!(<f16 as Float>::from_f64(f64::NAN).is_nan());
    }
}
