//! Everything that the kernels rely on, and what only values tell.

use std::fmt;

use super::{SampledMode, SampledValues, VerifySampled, VerifySampledArgs};
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::{HasLayout as _, Layout};
use crate::operation::Operation as _;
use crate::ops::early_exit::verification::{Batch, common};
use crate::tensor::TensorRef;
use crate::validate::Validator;

const ROWS: &str = "[N + B, V]: a row for each draft and one more for each sequence";
const OF_DRAFTS: &str = "[N, V]: a row for each draft, in the target's type";
const OF_SEQUENCES: &str = "[B]: one for each sequence";

impl VerifySampled {
    pub(super) fn validate_layouts(
        &self,
        args: &VerifySampledArgs<Layout, Layout>,
    ) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let batch = self.batch(&args.draft, &args.offsets)?;
        let Batch { sequences, drafts, .. } = batch;
        let (rows, vocabulary) = (batch.rows(), self.vocabulary);
        check.tensor("target", &args.target, self.dtype, &[rows, vocabulary], ROWS)?;
        batch.validate(&check, &common!(args))?;
        self.check_presence(args)?;
        let q = &args.draft_distribution;
        let shape = [drafts, vocabulary];
        check.optional_tensor("draft_distribution", q, self.dtype, &shape, OF_DRAFTS)?;
        for (name, tensor, dtype) in [
            ("temperature", &args.temperature, DType::F32),
            ("top_k", &args.top_k, DType::I32),
            ("top_p", &args.top_p, DType::F32),
            ("min_p", &args.min_p, DType::F32),
            ("positions", &args.positions, DType::I32),
        ] {
            check.optional_tensor(name, tensor, dtype, &[sequences], OF_SEQUENCES)?;
        }
        check.optional_tensor("uniforms", &args.uniforms, DType::F32, &[rows, 2], "[N + B, 2]")?;
        check.optional_tensor("seeds", &args.seeds, DType::U32, &[sequences, 2], "[B, 2]")
    }

    fn check_presence(&self, args: &VerifySampledArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let (present, wanted) =
            (args.draft_distribution.is_some(), self.needs_draft_distribution());
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
        let batch = self.batch(&args.draft.layout(), &args.offsets.layout())?;
        batch.validate_values(Self::NAME, &common!(args))?;
        let below = self.vocabulary as i64;
        let expected = format!("-1, or an id below {below}");
        check_each("draft", args.draft, &expected, |id: i32| i64::from(id) < below)?;
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
                return Err(refuse(
                    "uniforms",
                    "numbers from 0 up to, but not including, 1",
                    place,
                ));
            }
        }
        Ok(())
    }
}

fn refuse(name: &'static str, expected: impl fmt::Display, got: impl fmt::Display) -> Error {
    Error::argument(VerifySampled::NAME, name, Problem::Value, expected, got, "")
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
        Some(at) => Err(refuse(name, expected, format_args!("{} at position {at}", values[at]))),
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
