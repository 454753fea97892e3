//! The crate's one error type.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

/// A backend of the crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Backend {
    /// The scalar oracle with f64 accumulation.
    Reference,
    /// rayon and SIMD.
    Cpu,
    /// WebGPU, Vulkan, Metal or DX12 through wgpu.
    Wgpu,
    /// NVIDIA GPUs through cudarc.
    Cuda,
}

impl Backend {
    /// All backends, the oracle first.
    pub const ALL: [Backend; 4] = [Backend::Reference, Backend::Cpu, Backend::Wgpu, Backend::Cuda];

    /// The lower-case name used on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Reference => "reference",
            Backend::Cpu => "cpu",
            Backend::Wgpu => "wgpu",
            Backend::Cuda => "cuda",
        }
    }

    /// The inverse of [`Backend::name`].
    pub fn from_name(name: &str) -> Option<Backend> {
        Backend::ALL.into_iter().find(|backend| backend.name() == name)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What is wrong with an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Problem {
    /// Wrong rank or dimensions.
    Shape,
    /// Wrong element type.
    DType,
    /// The innermost stride is not 1, or rows overlap.
    Stride,
    /// The storage is shorter than the layout needs.
    Length,
    /// The data does not start on a multiple of its element's size.
    Alignment,
    /// An output shares memory with another argument.
    Overlap,
    /// A required argument is absent.
    Missing,
    /// An argument was given that the operation, as described, does not take.
    Unexpected,
    /// A value outside its domain.
    Value,
    /// Larger than the crate or the device can address.
    Size,
}

impl Problem {
    fn noun(self) -> &'static str {
        match self {
            Problem::Shape => "shape",
            Problem::DType => "dtype",
            Problem::Stride => "strides",
            Problem::Length => "length",
            Problem::Alignment => "alignment",
            Problem::Overlap => "memory",
            Problem::Missing | Problem::Unexpected => "presence",
            Problem::Value => "value",
            Problem::Size => "size",
        }
    }
}

/// Everything that can go wrong: which operation and argument, what was expected, what came, what to do.
///
/// Bad input is always reported here, before any kernel runs and before any output is written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument of an operation, or a parameter of its descriptor, is not acceptable.
    #[error("{op}: {argument} has {} {got}, expected {expected}{}", problem.noun(), Remedy(remedy))]
    Argument {
        /// The operation, as in the registry.
        op: &'static str,
        /// The argument or parameter, as in the documentation.
        argument: Cow<'static, str>,
        /// The kind of mistake.
        problem: Problem,
        /// What would have been accepted.
        expected: String,
        /// What came.
        got: String,
        /// What to do about it; may be empty.
        remedy: Cow<'static, str>,
    },

    /// This device cannot run the operation as described.
    #[error("{op}: not supported by {backend}: {reason}{}", Remedy(remedy))]
    Unsupported {
        /// The operation, as in the registry.
        op: &'static str,
        /// The backend that refuses.
        backend: Backend,
        /// The missing feature or exceeded limit.
        reason: String,
        /// What to do about it; may be empty.
        remedy: Cow<'static, str>,
    },

    /// The backend itself cannot be used on this machine: no driver, library, adapter or feature.
    #[error("{backend}: {reason}{}", Remedy(remedy))]
    Unavailable {
        /// The backend.
        backend: Backend,
        /// What is missing.
        reason: String,
        /// What to do about it; may be empty.
        remedy: Cow<'static, str>,
    },

    /// A driver, compiler or device reported a failure.
    #[error("{backend}: {action} failed: {message}")]
    Device {
        /// The backend.
        backend: Backend,
        /// What was being done.
        action: String,
        /// The driver's words.
        message: String,
    },

    /// A file cannot be read, written or understood.
    #[error("{}: {reason}{}", path.display(), Remedy(remedy))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What to do about it; may be empty.
        remedy: Cow<'static, str>,
    },
}

/// Shows ` (remedy)`, or nothing.
struct Remedy<'a>(&'a str);

impl fmt::Display for Remedy<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(formatter, " ({})", self.0)
    }
}

impl Error {
    /// The kind of mistake, if an argument is to blame.
    pub fn problem(&self) -> Option<Problem> {
        match self {
            Error::Argument { problem, .. } => Some(*problem),
            _ => None,
        }
    }

    pub(crate) fn argument(
        op: &'static str,
        argument: impl Into<Cow<'static, str>>,
        problem: Problem,
        expected: impl fmt::Display,
        got: impl fmt::Display,
        remedy: impl Into<Cow<'static, str>>,
    ) -> Error {
        Error::Argument {
            op,
            argument: argument.into(),
            problem,
            expected: expected.to_string(),
            got: got.to_string(),
            remedy: remedy.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_argument_expectation_and_remedy() {
        let error = Error::argument(
            "gated_mlp",
            "down_weight",
            Problem::Shape,
            "[4096, 11008]",
            "[4096, 11000]",
            "out_features = hidden, in_features = ffn of gate_weight",
        );
        assert_eq!(
            error.to_string(),
            "gated_mlp: down_weight has shape [4096, 11000], expected [4096, 11008] \
             (out_features = hidden, in_features = ffn of gate_weight)"
        );
    }

    #[test]
    fn an_empty_remedy_leaves_no_brackets() {
        let error = Error::Unavailable {
            backend: Backend::Cuda,
            reason: "no driver".into(),
            remedy: "".into(),
        };
        assert_eq!(error.to_string(), "cuda: no driver");
    }
}
