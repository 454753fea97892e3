//! Operations and backends by name, on the command line.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use siluette::Backend;
use siluette::registry::{OPERATIONS, OperationInfo};

/// Which operations on which backends; all of them where nothing is said.
#[derive(Clone, Debug, Args)]
pub struct Selection {
    /// Only this operation (may be repeated, or a list with commas)
    #[arg(long = "op", value_name = "OP", value_delimiter = ',', value_parser = operation())]
    operations: Vec<&'static OperationInfo>,

    /// Only this backend (may be repeated, or a list with commas)
    #[arg(long = "backend", value_name = "BACKEND", value_delimiter = ',', value_parser = backend())]
    backends: Vec<Backend>,
}

impl Selection {
    /// Whether the operation was asked for.
    pub fn has_operation(&self, name: &str) -> bool {
        self.operations.is_empty() || self.operations.iter().any(|info| info.name == name)
    }

    /// Whether the backend was asked for by name.
    pub fn names(&self, backend: Backend) -> bool {
        self.backends.contains(&backend)
    }

    /// The backends asked for, in the order of [`Backend::ALL`].
    pub fn backends(&self) -> impl Iterator<Item = Backend> + '_ {
        let all = self.backends.is_empty();
        Backend::ALL.into_iter().filter(move |backend| all || self.backends.contains(backend))
    }
}

/// Understands the name of an operation.
pub fn operation() -> impl TypedValueParser<Value = &'static OperationInfo> {
    PossibleValuesParser::new(OPERATIONS.iter().map(|info| info.name))
        .try_map(|name| siluette::registry::find(&name))
}

/// Understands the name of a backend.
pub fn backend() -> impl TypedValueParser<Value = Backend> {
    PossibleValuesParser::new(Backend::ALL.map(Backend::name))
        .try_map(|name| Backend::from_name(&name).ok_or("unknown backend"))
}
