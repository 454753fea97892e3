//! What operations that verify drafts have in common: the batch, how a sequence ends, and the outputs.

#[cfg(feature = "cuda")]
pub(super) mod cuda;
pub(super) mod host;
pub(super) mod reference;
#[cfg(feature = "wgpu")]
pub(super) mod wgpu;

use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::operation::NamedLayouts;
use crate::ops::prune_gather::index_set::index_values;
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::TensorRef;
use crate::validate::Validator;

pub(super) const MAX_DRAFT: ParameterInfo = ParameterInfo {
    name: "max_draft",
    values: "a whole number",
    default: "",
    description: "length of the longest draft; as many as there are draft tokens if it is not given",
};

/// Why a sequence does, or does not, go on after a verification: the values of every output `finish`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Finish {
    /// It goes on.
    Continue = 0,
    /// The last emitted token is a stop id.
    Stop = 1,
    /// It has emitted as many tokens as its budget allows.
    Budget = 2,
    /// The model has no token at the row that the verification ended at: NaN in its logits, say. The drafts before it
    /// are emitted.
    InvalidRow = 3,
    /// Its offsets or parameters are malformed. Nothing is emitted.
    InvalidSequence = 4,
}

impl Finish {
    /// All values, by code.
    pub const ALL: [Finish; 5] = [
        Finish::Continue,
        Finish::Stop,
        Finish::Budget,
        Finish::InvalidRow,
        Finish::InvalidSequence,
    ];

    /// The number in the output.
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// The inverse of [`Finish::code`].
    pub fn from_code(code: i32) -> Option<Finish> {
        Finish::ALL.into_iter().find(|finish| finish.code() == code)
    }
}

/// The tensors that every verification has, taken out of its arguments.
pub(super) struct Common<In, Out> {
    pub draft: In,
    pub offsets: In,
    pub stop_ids: Option<In>,
    pub budget: Option<In>,
    pub outputs: Outputs<Out>,
}

/// What every verification writes.
#[derive(Clone, Copy)]
pub(super) struct Outputs<Out> {
    pub tokens: Option<Out>,
    pub accepted: Option<Out>,
    pub emitted: Option<Out>,
    pub next_token: Option<Out>,
    pub last_row: Option<Out>,
    pub finish: Option<Out>,
}

/// Takes [`Common`] out of an argument struct.
macro_rules! common {
    ($args:expr) => {
        $crate::ops::early_exit::verification::Common {
            draft: $args.draft,
            offsets: $args.offsets,
            stop_ids: $args.stop_ids,
            budget: $args.budget,
            outputs: $crate::ops::early_exit::verification::Outputs {
                tokens: $args.tokens,
                accepted: $args.accepted,
                emitted: $args.emitted,
                next_token: $args.next_token,
                last_row: $args.last_row,
                finish: $args.finish,
            },
        }
    };
}
pub(super) use common;

/// The sizes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// `B`.
    pub sequences: usize,
    /// `N`, of all sequences together.
    pub drafts: usize,
    /// `S`, of the longest draft allowed.
    pub max_draft: usize,
}

impl Batch {
    /// Of tensors that need not fit each other yet.
    pub fn new(
        op: &'static str,
        max_draft: usize,
        draft: &Layout,
        offsets: &Layout,
    ) -> Result<Batch, Error> {
        let check = Validator::new(op);
        let vector = |name, layout: &Layout, meaning| match *layout.shape() {
            [length] => Ok(length),
            ref got => {
                let (expected, got) = (meaning, format!("{got:?}"));
                Err(Error::argument(op, name, Problem::Shape, expected, got, ""))
            }
        };
        let drafts = vector("draft", draft, "[N]")?;
        let bounds = vector("offsets", offsets, "[B + 1]")?;
        let Some(sequences) = bounds.checked_sub(1) else {
            let remedy = "offsets of no sequences are one 0";
            return Err(Error::argument(op, "offsets", Problem::Shape, "[B + 1]", "[0]", remedy));
        };
        // Rows of target are counted in 32 bits, too.
        check.dimension("drafts and sequences", drafts.saturating_add(sequences), 0)?;
        Ok(Batch { sequences, drafts, max_draft })
    }

    /// Rows of target: each sequence has one more than drafts.
    pub fn rows(&self) -> usize {
        self.drafts + self.sequences
    }

    /// Layouts, without gaps, of the outputs.
    pub fn outputs(&self) -> Result<NamedLayouts, Error> {
        let mut outputs = NamedLayouts::new();
        for name in ["accepted", "emitted", "next_token", "last_row", "finish"] {
            outputs.insert(name.to_owned(), Layout::contiguous(DType::I32, &[self.sequences])?);
        }
        let tokens = Layout::contiguous(DType::I32, &[self.sequences, self.max_draft + 1])?;
        outputs.insert("tokens".to_owned(), tokens);
        Ok(outputs)
    }

    /// Types and shapes of the tensors that every verification has.
    pub fn validate(
        &self,
        check: &Validator,
        common: &Common<Layout, Layout>,
    ) -> Result<(), Error> {
        let of_sequences = [self.sequences];
        let draft = "the drafts of all sequences, one behind the other";
        check.tensor("draft", &common.draft, DType::I32, &[self.drafts], draft)?;
        let bounds = "where each sequence's drafts begin, and where the last one's end";
        check.tensor("offsets", &common.offsets, DType::U32, &[self.sequences + 1], bounds)?;
        if let Some(stop_ids) = &common.stop_ids {
            let stops = [stop_ids.elements()];
            check.dimension("stop_ids", stops[0], 0)?;
            check.tensor("stop_ids", stop_ids, DType::I32, &stops, "[K]")?;
        }
        let meaning = "one number for each sequence";
        check.optional_tensor("budget", &common.budget, DType::I32, &of_sequences, meaning)?;
        let outputs = &common.outputs;
        let tokens = [self.sequences, self.max_draft + 1];
        let meaning = "room for the longest draft and one more token";
        check.optional_tensor("tokens", &outputs.tokens, DType::I32, &tokens, meaning)?;
        for (name, layout) in [
            ("accepted", &outputs.accepted),
            ("emitted", &outputs.emitted),
            ("next_token", &outputs.next_token),
            ("last_row", &outputs.last_row),
            ("finish", &outputs.finish),
        ] {
            check.optional_tensor(name, layout, DType::I32, &of_sequences, "[B]")?;
        }
        Ok(())
    }

    /// Values of valid tensors: that sequences follow each other from the first draft to the last, and that drafts are
    /// ids or -1.
    pub fn validate_values<Out>(
        &self,
        op: &'static str,
        common: &Common<TensorRef<'_>, Out>,
    ) -> Result<(), Error> {
        let mistake = |name, expected: String, got: String, position, remedy| {
            let got = format!("{got} at position {position}");
            Err(Error::argument(op, name, Problem::Value, expected, got, remedy))
        };
        let offsets = index_values(common.offsets);
        let mut start = 0;
        for (position, &offset) in offsets.iter().enumerate() {
            let offset_wide = offset as usize;
            let remedy = "sequences follow each other from 0 to the end of `draft`";
            let (least, most) = match position {
                // Without sequences the first offset is the last one, too.
                _ if position == self.sequences => (self.drafts, self.drafts),
                0 => (0, 0),
                _ => (start, self.drafts),
            };
            if !(least..=most).contains(&offset_wide) || offset_wide < start {
                let expected = match least == most {
                    true => format!("{least}"),
                    false => format!("{least} to {most}"),
                };
                return mistake("offsets", expected, offset.to_string(), position, remedy);
            }
            if offset_wide - start > self.max_draft {
                let expected = format!("at most {} more than {start}", self.max_draft);
                let remedy = "raise `max_draft`";
                return mistake("offsets", expected, offset.to_string(), position, remedy);
            }
            start = offset_wide;
        }
        let drafts = host::integer_values(common.draft);
        match drafts.iter().position(|&id| id < -1) {
            Some(position) => {
                let remedy = "-1 stands for no token; it is never accepted";
                let (expected, got) = ("a token id or -1".to_owned(), drafts[position].to_string());
                mistake("draft", expected, got, position, remedy)
            }
            None => Ok(()),
        }
    }
}

/// Words of a stored walk: how many drafts were accepted, or -1 if the sequence is malformed; the token behind them, or
/// -1; which drafts they are.
pub(super) fn walk_words(max_draft: usize) -> usize {
    2 + max_draft
}

/// The longest draft that parameters allow: every draft token, unless they say otherwise.
pub(super) fn max_draft(
    op: &'static str,
    parameters: &Parameters,
    draft: &Layout,
) -> Result<usize, Error> {
    Ok(parameters.parse(op, &MAX_DRAFT)?.unwrap_or_else(|| draft.elements()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::HasLayout as _;

    fn check(draft: &[i32], offsets: &[u32], max_draft: usize) -> Result<(), String> {
        let draft = TensorRef::new(draft, &[draft.len()]).unwrap();
        let offsets = TensorRef::new(offsets, &[offsets.len()]).unwrap();
        let layouts = (draft.layout(), offsets.layout());
        let batch = Batch::new("test", max_draft, &layouts.0, &layouts.1).unwrap();
        let outputs = Outputs::<()> {
            tokens: None,
            accepted: None,
            emitted: None,
            next_token: None,
            last_row: None,
            finish: None,
        };
        let common = Common { draft, offsets, stop_ids: None, budget: None, outputs };
        batch.validate_values("test", &common).map_err(|error| error.to_string())
    }

    #[test]
    fn sequences_that_follow_each_other_are_accepted() {
        assert_eq!(check(&[], &[0], 0), Ok(()));
        assert_eq!(check(&[], &[0, 0, 0], 0), Ok(()));
        assert_eq!(check(&[7, -1, 0], &[0, 2, 2, 3], 2), Ok(()));
    }

    #[test]
    fn the_first_offending_position_is_named() {
        for (draft, offsets, max_draft, words) in [
            (&[1, 2][..], &[1, 2][..], 9, "offsets has value 1 at position 0, expected 0 ("),
            (&[1, 2], &[0, 3, 2], 9, "offsets has value 3 at position 1, expected 0 to 2"),
            (&[1, 2], &[0, 2, 1, 2], 9, "offsets has value 1 at position 2, expected 2"),
            (&[1, 2], &[0, 1], 9, "offsets has value 1 at position 1, expected 2"),
            (&[1, 2], &[0], 9, "offsets has value 0 at position 0, expected 2"),
            (&[1, 2], &[0, 0, 2], 1, "offsets has value 2 at position 2, expected at most 1 more"),
            (&[1, -2], &[0, 2], 2, "draft has value -2 at position 1, expected a token id or -1"),
        ] {
            let message = check(draft, offsets, max_draft).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn offsets_need_an_end() {
        let layout = |dtype, length| Layout::contiguous(dtype, &[length]).unwrap();
        let (draft, offsets) = (layout(DType::I32, 3), layout(DType::U32, 0));
        let error = Batch::new("test", 3, &draft, &offsets).unwrap_err();
        assert_eq!(error.problem(), Some(Problem::Shape));
    }

    #[test]
    fn finish_codes_are_their_own_inverse() {
        for finish in Finish::ALL {
            assert_eq!(Finish::from_code(finish.code()), Some(finish));
        }
        assert_eq!(Finish::from_code(5), None);
    }
}
