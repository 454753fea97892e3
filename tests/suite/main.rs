//! The integration tests, one binary so that the crate is linked once.

mod bad_input;
mod conformance;
mod properties;
mod support;
