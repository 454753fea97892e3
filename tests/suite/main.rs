//! The integration tests, one binary so that the crate is linked once.

mod bad_input;
mod conformance;
mod goldens;
mod properties;
mod readme;
mod support;
#[cfg(feature = "cli")]
mod tool;
