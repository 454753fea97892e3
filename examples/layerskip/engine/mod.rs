//! A small engine for Llamas on candle's tensors.

pub mod attention;
pub mod config;
pub mod generate;
pub mod llama;
pub mod operations;
pub mod options;
pub mod pruning;
pub mod report;
pub mod run;
pub mod screen;
pub mod weights;

pub use options::Options;
pub use run::execute;

/// What ends a run before its time.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A mistake in a file or an option.
    #[error("{0}")]
    Input(String),
    #[error(transparent)]
    Siluette(#[from] siluette::Error),
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Failure {
    fn input(message: impl std::fmt::Display) -> Failure {
        Failure::Input(message.to_string())
    }
}
