//! Options of a head, whatever it writes.

use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::operation::NamedLayouts;
use crate::ops::early_exit::{MAX_TOP_K, VOCABULARY_TILE, state};
use crate::ops::silu_mlp::mlp::config::{EPS, NormEpsilon, input, scratch_stride};
use crate::parameters::{ParameterInfo, Parameters};
use crate::validate::Validator;

pub(super) const VALID_VOCAB: ParameterInfo = ParameterInfo {
    name: "valid_vocab",
    values: "a whole number",
    default: "",
    description: "ids from here on are masked everywhere; all are valid if it is not given",
};
pub(super) const VOCAB_OFFSET: ParameterInfo = ParameterInfo {
    name: "vocab_offset",
    values: "a multiple of 128",
    default: "0",
    description: "id of the weight's first row",
};
pub(super) const SOFTCAP: ParameterInfo = ParameterInfo {
    name: "softcap",
    values: "a positive number",
    default: "",
    description: "logits are `softcap * tanh(logit / softcap)`; as they are if it is not given",
};
pub(super) const INV_TEMPERATURE: ParameterInfo = ParameterInfo {
    name: "inv_temperature",
    values: "a number of at least 0",
    default: "1",
    description: "logits are multiplied by it for `sampled_token`, and for nothing else",
};
pub(super) const TOP_K: ParameterInfo = ParameterInfo {
    name: "top_k",
    values: "0 to 64",
    default: "0",
    description: "length of the lists of best tokens",
};
pub(super) const SEED: ParameterInfo = ParameterInfo {
    name: "seed",
    values: "a whole number of 64 bits",
    default: "0",
    description: "seed of `sampled_token`'s noise",
};
pub(super) const BATCH_INVARIANT: ParameterInfo = ParameterInfo {
    name: "batch_invariant",
    values: "true or false",
    default: "true",
    description: "whether a row's results are the same in every batch, at the price of kernels for many rows",
};
pub(super) const LOGITS: ParameterInfo = ParameterInfo {
    name: "logits",
    values: "true or false",
    default: "false",
    description: "whether the logits are written, too",
};
pub(super) const PARAMETERS: &[ParameterInfo] = &[
    EPS,
    VALID_VOCAB,
    VOCAB_OFFSET,
    SOFTCAP,
    INV_TEMPERATURE,
    TOP_K,
    SEED,
    BATCH_INVARIANT,
    LOGITS,
];

/// The descriptor of [`ExitHead`](super::ExitHead) and [`ExitHeadStates`](super::ExitHeadStates).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HeadConfig {
    pub op: &'static str,
    /// Features of a row of `hidden`.
    pub hidden: usize,
    /// Rows of the weight.
    pub vocabulary: usize,
    /// Id of the weight's first row; a multiple of the tile.
    pub vocab_offset: usize,
    /// The first id that is masked, if any is.
    pub valid_vocab: Option<usize>,
    pub norm: Option<NormEpsilon>,
    softcap: Option<Number>,
    inv_temperature: Number,
    pub seed: u64,
    pub top_k: usize,
    /// Whether a row's results may not depend on the number of rows.
    pub batch_invariant: bool,
    pub activation_dtype: DType,
    pub weight_dtype: DType,
}

/// A number compared and hashed by its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Number {
    bits: u32,
}

impl Number {
    const fn new(value: f32) -> Number {
        Number { bits: value.to_bits() }
    }

    const fn get(self) -> f32 {
        f32::from_bits(self.bits)
    }
}

impl HeadConfig {
    pub fn new(
        op: &'static str,
        hidden: usize,
        vocabulary: usize,
        dtype: DType,
    ) -> Result<HeadConfig, Error> {
        let check = Validator::new(op);
        check.dimension("hidden", hidden, 1)?;
        check.dimension("vocabulary", vocabulary, 1)?;
        check.float("dtype", dtype)?;
        Ok(HeadConfig {
            op,
            hidden,
            vocabulary,
            vocab_offset: 0,
            valid_vocab: None,
            norm: None,
            softcap: None,
            inv_temperature: Number::new(1.0),
            seed: 0,
            top_k: 0,
            batch_invariant: true,
            activation_dtype: dtype,
            weight_dtype: dtype,
        })
    }

    pub fn with_weight_dtype(mut self, dtype: DType) -> Result<HeadConfig, Error> {
        Validator::new(self.op).weight_dtype(self.activation_dtype, dtype)?;
        self.weight_dtype = dtype;
        Ok(self)
    }

    pub fn with_norm(mut self, eps: f32) -> Result<HeadConfig, Error> {
        if !(eps.is_finite() && eps >= 0.0) {
            return Err(self.wrong_number(EPS.name, "a finite number of at least 0", eps));
        }
        self.norm = Some(NormEpsilon(eps));
        Ok(self)
    }

    pub fn with_softcap(mut self, softcap: f32) -> Result<HeadConfig, Error> {
        if !(softcap.is_normal() && softcap > 0.0) {
            return Err(self.wrong_number(SOFTCAP.name, "a finite positive number", softcap));
        }
        self.softcap = Some(Number::new(softcap));
        Ok(self)
    }

    pub fn with_sampling(mut self, inv_temperature: f32, seed: u64) -> Result<HeadConfig, Error> {
        if !(inv_temperature.is_finite() && inv_temperature >= 0.0) {
            let expected = "a finite number of at least 0";
            return Err(self.wrong_number(INV_TEMPERATURE.name, expected, inv_temperature));
        }
        self.inv_temperature = Number::new(inv_temperature);
        self.seed = seed;
        Ok(self)
    }

    pub fn with_valid_vocab(mut self, valid_vocab: usize) -> Result<HeadConfig, Error> {
        Validator::new(self.op).dimension(VALID_VOCAB.name, valid_vocab, 0)?;
        self.valid_vocab = Some(valid_vocab);
        Ok(self)
    }

    pub fn with_vocab_offset(mut self, offset: usize) -> Result<HeadConfig, Error> {
        if !offset.is_multiple_of(VOCABULARY_TILE) {
            let expected = "a multiple of 128";
            let remedy = "states are of whole tiles of the vocabulary: cut it between them";
            let (name, problem) = (VOCAB_OFFSET.name, Problem::Value);
            return Err(Error::argument(self.op, name, problem, expected, offset, remedy));
        }
        let last = offset.saturating_add(self.vocabulary);
        Validator::new(self.op).dimension(VOCAB_OFFSET.name, last, 0)?;
        self.vocab_offset = offset;
        Ok(self)
    }

    pub fn with_top_k(mut self, top_k: usize) -> Result<HeadConfig, Error> {
        check_top_k(self.op, top_k)?;
        self.top_k = top_k;
        Ok(self)
    }

    fn wrong_number(&self, name: &'static str, expected: &'static str, got: f32) -> Error {
        Error::argument(self.op, name, Problem::Value, expected, got, "")
    }

    /// The descriptor that fits these inputs, as [`crate::Operation::describe`].
    pub fn describe(
        op: &'static str,
        inputs: &NamedLayouts,
        parameters: &Parameters,
    ) -> Result<HeadConfig, Error> {
        let (hidden, weight) = (input(op, inputs, "hidden")?, input(op, inputs, "head_weight")?);
        let vocabulary = weight.shape().first().copied().unwrap_or(1);
        let mut config = HeadConfig::new(op, hidden.columns(), vocabulary, hidden.dtype())?
            .with_weight_dtype(weight.dtype())?;
        let eps = parameters.parse(op, &EPS)?;
        if inputs.contains_key("norm_weight") {
            config = config.with_norm(eps.unwrap_or(1e-5))?;
        } else if eps.is_some() {
            let remedy = "eps belongs to the norm";
            let (problem, expected) = (Problem::Missing, "a tensor");
            return Err(Error::argument(op, "norm_weight", problem, expected, "none", remedy));
        }
        if let Some(valid_vocab) = parameters.parse(op, &VALID_VOCAB)? {
            config = config.with_valid_vocab(valid_vocab)?;
        }
        if let Some(softcap) = parameters.parse(op, &SOFTCAP)? {
            config = config.with_softcap(softcap)?;
        }
        config.batch_invariant = parameters.parse(op, &BATCH_INVARIANT)?.unwrap_or(true);
        let inv_temperature = parameters.parse(op, &INV_TEMPERATURE)?.unwrap_or(1.0);
        let seed = parameters.parse(op, &SEED)?.unwrap_or(0);
        config
            .with_sampling(inv_temperature, seed)?
            .with_vocab_offset(parameters.parse(op, &VOCAB_OFFSET)?.unwrap_or(0))?
            .with_top_k(parameters.parse(op, &TOP_K)?.unwrap_or(0))
    }

    pub fn softcap(&self) -> Option<f32> {
        self.softcap.map(Number::get)
    }

    pub fn inv_temperature(&self) -> f32 {
        self.inv_temperature.get()
    }

    /// Rows of the weight that are not masked.
    pub fn valid_rows(&self) -> usize {
        let valid = self.valid_vocab.unwrap_or(usize::MAX);
        self.vocabulary.min(valid.saturating_sub(self.vocab_offset))
    }

    /// Tiles of the vocabulary, the last of which may be short.
    pub fn tiles(&self) -> usize {
        self.vocabulary.div_ceil(VOCABULARY_TILE)
    }

    /// Sizes of `state_values` and `state_tokens` in the workspace.
    pub fn states_bytes(&self, rows: usize) -> [usize; 2] {
        state::shapes(self.tiles(), rows, self.top_k)
            .map(|shape| part(shape.iter().product::<usize>() * size_of::<f32>()))
    }

    /// Room for prepared activations, as wide as the widest backend keeps them, and what else is known of a row.
    pub fn prepared_bytes(&self, rows: usize) -> usize {
        part(rows * scratch_stride(self.hidden) * size_of::<f32>()) + self.info_bytes(rows)
    }

    /// Room for what the kernels through wgpu are told of each row.
    pub fn info_bytes(&self, rows: usize) -> usize {
        part(rows * INFO_WORDS * size_of::<i32>())
    }

    /// Rows of the outputs for these inputs.
    pub fn output_rows(&self, hidden: &Layout, rows: Option<&Layout>) -> Result<usize, Error> {
        let check = Validator::new(self.op);
        let all = check.rows("hidden", hidden, self.hidden, "[M, D]")?;
        match rows {
            None => Ok(all),
            Some(rows) => {
                let count = rows.elements();
                check.dimension("rows", count, 0)?;
                Ok(count)
            }
        }
    }
}

/// Whether there is such a row, its position, its token to gather, and the two words of its seed.
pub(super) const INFO_WORDS: usize = 5;

/// Parts of the workspace start where any backend may bind them.
pub(super) const fn part(bytes: usize) -> usize {
    bytes.next_multiple_of(256)
}

pub(super) fn check_top_k(op: &'static str, top_k: usize) -> Result<(), Error> {
    if top_k <= MAX_TOP_K {
        return Ok(());
    }
    Err(Error::argument(op, TOP_K.name, Problem::Value, TOP_K.values, top_k, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_ids_are_counted_from_the_first_of_the_vocabulary() {
        let config = HeadConfig::new("exit_head", 8, 300, DType::F32).unwrap();
        assert_eq!((config.valid_rows(), config.tiles()), (300, 3));
        let shard = config.with_vocab_offset(256).unwrap();
        for (valid, rows) in [(0, 0), (256, 0), (257, 1), (556, 300), (600, 300)] {
            assert_eq!(shard.with_valid_vocab(valid).unwrap().valid_rows(), rows);
        }
    }

    #[test]
    fn parameters_outside_their_domain_are_refused() {
        let config = HeadConfig::new("exit_head", 8, 300, DType::F32).unwrap();
        let problems = [
            config.with_vocab_offset(100).unwrap_err(),
            config.with_top_k(65).unwrap_err(),
            config.with_softcap(0.0).unwrap_err(),
            config.with_softcap(f32::INFINITY).unwrap_err(),
            config.with_sampling(-1.0, 0).unwrap_err(),
            config.with_sampling(f32::NAN, 0).unwrap_err(),
            config.with_norm(-1.0).unwrap_err(),
            HeadConfig::new("exit_head", 0, 3, DType::F32).unwrap_err(),
            HeadConfig::new("exit_head", 3, 0, DType::F32).unwrap_err(),
        ];
        assert!(problems.iter().all(|error| error.problem() == Some(Problem::Value)));
        let error = config.with_vocab_offset(1 << 31).unwrap_err();
        assert_eq!(error.problem(), Some(Problem::Size));
    }
}
