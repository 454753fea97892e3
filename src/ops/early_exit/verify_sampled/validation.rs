//! Everything that the kernels rely on, and what only values tell.

use std::fmt;

use super::{SampledMode, SampledValues, VerifySampled, VerifySampledArgs};
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::{HasLayout as _, Layout};
use crate::operation::Operation as _;
use crate::tensor::TensorRef;
use crate::validate::Validator;

/// Drafts and sequences, as the tensors' shapes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub drafts: usize,
    pub sequences: usize,
}

impl Extent {
    pub fn new(draft: &Layout, offsets: &Layout) -> Result<Extent, Error> {
        let vector = |name, layout: &Layout, minimum: usize, expected| match *layout.shape() {
            [length] if length >= minimum => Ok(length),
            ref got => {
                let (op, problem, got) = (VerifySampled::NAME, Problem::Shape, format!("{got:?}"));
                Err(Error::argument(op, name, problem, expected, got, ""))
            }
        };
        let drafts = vector("draft", draft, 0, "[N]")?;
        let ends = vector("offsets", offsets, 1, "[B + 1]")?;
        let check = Validator::new(VerifySampled::NAME);
        check.dimension("rows", drafts.saturating_add(ends), 0)?;
        Ok(Extent { drafts, sequences: ends - 1 })
    }

    /// Of the target.
    pub fn rows(&self) -> usize {
        self.drafts + self.sequences
    }
}

const ROWS: &str = "[N + B, V]: a row for each draft and one more for each sequence";
const OF_DRAFTS: &str = "[N, V]: a row for each draft, in the target's type";
const OF_SEQUENCES: &str = "[B]: one for each sequence";

impl VerifySampled {
    pub(super) fn validate_layouts(
        &self,
        args: &VerifySampledArgs<Layout, Layout>,
    ) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let extent = Extent::new(&args.draft, &args.offsets)?;
        let Extent { drafts, sequences } = extent;
        let (rows, vocabulary) = (extent.rows(), self.vocabulary);
        check.tensor("target", &args.target, self.dtype, &[rows, vocabulary], ROWS)?;
        check.tensor("draft", &args.draft, DType::I32, &[drafts], "[N]")?;
        check.tensor("offsets", &args.offsets, DType::U32, &[sequences + 1], "[B + 1]")?;
        self.check_presence(args)?;
        let q = &args.draft_distribution;
        let shape = [drafts, vocabulary];
        check.optional_tensor("draft_distribution", q, self.dtype, &shape, OF_DRAFTS)?;
        if let Some(stop_ids) = &args.stop_ids {
            let ids = stop_ids.elements();
            check.tensor("stop_ids", stop_ids, DType::I32, &[ids], "[K]")?;
        }
        for (name, tensor, dtype) in [
            ("budget", &args.budget, DType::I32),
            ("temperature", &args.temperature, DType::F32),
            ("top_k", &args.top_k, DType::I32),
            ("top_p", &args.top_p, DType::F32),
            ("min_p", &args.min_p, DType::F32),
            ("positions", &args.positions, DType::I32),
        ] {
            check.optional_tensor(name, tensor, dtype, &[sequences], OF_SEQUENCES)?;
        }
        check.optional_tensor("uniforms", &args.uniforms, DType::F32, &[rows, 2], "[N + B, 2]")?;
        check.optional_tensor("seeds", &args.seeds, DType::U32, &[sequences, 2], "[B, 2]")?;
        let columns = self.max_draft + 1;
        check.tensor("tokens", &args.tokens, DType::I32, &[sequences, columns], "[B, S + 1]")?;
        for (name, layout) in [
            ("accepted", &args.accepted),
            ("emitted", &args.emitted),
            ("next_token", &args.next_token),
            ("last_row", &args.last_row),
            ("finish", &args.finish),
        ] {
            check.tensor(name, layout, DType::I32, &[sequences], OF_SEQUENCES)?;
        }
        Ok(())
    }

    fn check_presence(&self, args: &VerifySampledArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let (present, wanted) = (args.draft_distribution.is_some(), self.needs_draft_distribution());
        let remedy = "modes full and block need it, match and one_hot do not";
        check.presence("draft_distribution", present, wanted, remedy)?;
        if self.values == SampledValues::Probabilities {
            let present = args.temperature.is_some();
            check.presence("temperature", present, false, "probabilities have none")?;
        }
        if self.mode == SampledMode::Match {
            let remedy = "mode match draws by position";
            check.presence("uniforms", args.uniforms.is_some(), false, remedy)?;
        }
        if args.uniforms.is_none() {
            let remedy = "random numbers are either given as uniforms or drawn by position";
            check.presence("positions", args.positions.is_some(), true, remedy)?;
        }
        Ok(())
    }

    pub(super) fn check_values(
        &self,
        args: &VerifySampledArgs<TensorRef<'_>, Layout>,
    ) -> Result<(), Error> {
        let drafts = args.draft.layout().elements();
        check_offsets(args.offsets.as_slice().unwrap_or_default(), drafts, self.max_draft)?;
        let below = self.vocabulary as i64;
        let of_vocabulary = |id: i32| (-1..below).contains(&i64::from(id));
        let expected = format!("-1, or an id below {below}");
        check_each("draft", args.draft, &expected, of_vocabulary)?;
        let positive = |value: f32| value > 0.0 && value.is_finite();
        check_optional("temperature", args.temperature, "above 0, finite", positive)?;
        check_optional("top_k", args.top_k, "0 or more", |k: i32| k >= 0)?;
        let share = |value: f32| value > 0.0 && value <= 1.0;
        check_optional("top_p", args.top_p, "above 0, at most 1", share)?;
        let below_one = |value: f32| (0.0..1.0).contains(&value);
        check_optional("min_p", args.min_p, "0 or more, below 1", below_one)?;
        let Some(uniforms) = args.uniforms else { return Ok(()) };
        for (at, value) in uniforms.to_f64().into_iter().enumerate() {
            if !(0.0..1.0).contains(&value) {
                let place = format_args!("{value} at row {}, column {}", at / 2, at % 2);
                return Err(refuse("uniforms", "numbers from 0 up to, but not including, 1", place));
            }
        }
        Ok(())
    }
}

fn refuse(name: &'static str, expected: impl fmt::Display, got: impl fmt::Display) -> Error {
    Error::argument(VerifySampled::NAME, name, Problem::Value, expected, got, "")
}

/// Ascending from 0 to the number of drafts, in steps that are no longer than the longest draft.
fn check_offsets(offsets: &[u32], drafts: usize, max_draft: usize) -> Result<(), Error> {
    let ends = [(0, offsets.first(), 0), (offsets.len().saturating_sub(1), offsets.last(), drafts)];
    for (at, offset, wanted) in ends {
        if let Some(&offset) = offset.filter(|&&offset| offset as usize != wanted) {
            let got = format_args!("{offset} at position {at}");
            return Err(refuse("offsets", format_args!("{wanted} at position {at}"), got));
        }
    }
    for (at, pair) in offsets.windows(2).enumerate() {
        let length = i64::from(pair[1]) - i64::from(pair[0]);
        if length < 0 || length > max_draft as i64 {
            let expected = format_args!("ascending by at most max_draft = {max_draft}");
            let got = format_args!("{} then {} at position {}", pair[0], pair[1], at + 1);
            return Err(refuse("offsets", expected, got));
        }
    }
    Ok(())
}

fn check_each<T: crate::dtype::Element + fmt::Display>(
    name: &'static str,
    tensor: TensorRef<'_>,
    expected: &str,
    holds: impl Fn(T) -> bool,
) -> Result<(), Error> {
    let values = tensor.as_slice::<T>().unwrap_or_default();
    match values.iter().position(|&value| !holds(value)) {
        None => Ok(()),
        Some(at) => {
            Err(refuse(name, expected, format_args!("{} at position {at}", values[at])))
        }
    }
}

fn check_optional<T: crate::dtype::Element + fmt::Display>(
    name: &'static str,
    tensor: Option<TensorRef<'_>>,
    expected: &str,
    holds: impl Fn(T) -> bool,
) -> Result<(), Error> {
    tensor.map_or(Ok(()), |tensor| check_each(name, tensor, expected, holds))
}
