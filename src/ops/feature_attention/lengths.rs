//! How many tokens of each row of a padded batch are valid.

use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::tensor::TensorRef;
use crate::validate::Validator;

/// A length for each row of the batch, if there are any.
pub(crate) fn validate(
    check: &Validator,
    lengths: &Option<Layout>,
    batch: usize,
) -> Result<(), Error> {
    let meaning = "how many tokens of each text are valid";
    check.optional_tensor("lengths", lengths, DType::I32, &[batch], meaning)
}

/// That each of valid `lengths` is from 0 to `longest`.
pub(crate) fn validate_values(
    op: &'static str,
    lengths: &Option<TensorRef<'_>>,
    longest: usize,
) -> Result<(), Error> {
    let values = lengths.as_ref().and_then(|lengths| lengths.as_slice::<i32>()).unwrap_or_default();
    let is_wrong = |length: &i32| usize::try_from(*length).map_or(true, |length| length > longest);
    let Some(text) = values.iter().position(is_wrong) else { return Ok(()) };
    Err(Error::argument(
        op,
        "lengths",
        Problem::Value,
        format_args!("0 to {longest}, the tokens of a row of x"),
        format_args!("{} for text {text}", values[text]),
        "",
    ))
}

/// The valid tokens of a text; `lengths` are valid.
pub(crate) fn length_of(lengths: &Option<TensorRef<'_>>, text: usize, longest: usize) -> usize {
    match lengths.as_ref().and_then(|lengths| lengths.as_slice::<i32>()) {
        Some(lengths) => lengths[text] as usize,
        None => longest,
    }
}
