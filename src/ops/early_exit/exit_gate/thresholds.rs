//! When a sequence is done early.

use crate::error::{Error, Problem};
use crate::parameters::{ParameterInfo, Parameters};

/// What a sequence must reach to exit; a threshold that is `None` asks for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ExitThresholds {
    /// The best token's probability is at least this. Compared by logarithms.
    pub max_prob: Option<f32>,
    /// The two largest probabilities differ by at least this.
    pub margin: Option<f32>,
    /// The entropy is at most this, in nats.
    pub entropy: Option<f32>,
    /// The cosine between the hidden state and that of an earlier layer is at least this: the state is saturated.
    pub cosine: Option<f32>,
    /// A classifier's score is at least this.
    pub classifier: Option<f32>,
}

/// How many of the thresholds a sequence must reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Require {
    /// Every one.
    #[default]
    All,
    /// One is enough.
    Any,
}

/// A criterion as a bit, as kernels name them.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(super) mod criterion {
    pub const MAX_PROB: u32 = 1;
    pub const MARGIN: u32 = 2;
    pub const ENTROPY: u32 = 4;
    pub const COSINE: u32 = 8;
    pub const CLASSIFIER: u32 = 16;
}

const fn threshold(name: &'static str, description: &'static str) -> ParameterInfo {
    ParameterInfo { name, values: "a number", default: "", description }
}

const MAX_PROB: ParameterInfo =
    threshold("max_prob", "exits if exp(max_logit - log_sum_exp) is at least this");
const MARGIN: ParameterInfo =
    threshold("margin", "exits if the two largest probabilities differ by at least this");
const ENTROPY: ParameterInfo =
    threshold("entropy", "exits if the entropy is at most this, in nats");
const COSINE: ParameterInfo =
    threshold("cosine", "exits if cos(hidden, previous_hidden) is at least this");
const CLASSIFIER: ParameterInfo =
    threshold("classifier", "exits if the classifier's score is at least this");
const REQUIRE: ParameterInfo = ParameterInfo {
    name: "require",
    values: "all or any",
    default: "all",
    description: "how many of the thresholds a sequence must reach",
};
pub(super) const PARAMETERS: &[ParameterInfo] =
    &[MAX_PROB, MARGIN, ENTROPY, COSINE, CLASSIFIER, REQUIRE];

impl ExitThresholds {
    pub(super) fn parse(op: &'static str, parameters: &Parameters) -> Result<Self, Error> {
        Ok(ExitThresholds {
            max_prob: parameters.parse(op, &MAX_PROB)?,
            margin: parameters.parse(op, &MARGIN)?,
            entropy: parameters.parse(op, &ENTROPY)?,
            cosine: parameters.parse(op, &COSINE)?,
            classifier: parameters.parse(op, &CLASSIFIER)?,
        })
    }

    /// That there is one, and that all are finite.
    pub(super) fn check(&self, op: &'static str) -> Result<(), Error> {
        let all = self.named();
        if all.iter().all(|(_, value)| value.is_none()) {
            let expected = "max_prob, margin, entropy, cosine or classifier";
            let problem = Problem::Missing;
            return Err(Error::argument(op, "thresholds", problem, expected, "none", ""));
        }
        match all.into_iter().find_map(|(name, value)| Some((name, value?)).filter(is_no_number)) {
            Some((name, value)) => {
                Err(Error::argument(op, name, Problem::Value, "a finite number", value, ""))
            }
            None => Ok(()),
        }
    }

    fn named(&self) -> [(&'static str, Option<f32>); 5] {
        [
            (MAX_PROB.name, self.max_prob),
            (MARGIN.name, self.margin),
            (ENTROPY.name, self.entropy),
            (COSINE.name, self.cosine),
            (CLASSIFIER.name, self.classifier),
        ]
    }

    /// Whether a head's logits are looked at.
    pub(super) fn needs_logits(&self) -> bool {
        self.max_prob.is_some() || self.margin.is_some()
    }

    /// What the logarithm of the best token's probability must reach; 0 without a threshold.
    pub(super) fn log_max_prob(&self) -> f32 {
        match self.max_prob {
            // Everybody's probability is as large.
            Some(probability) if probability <= 0.0 => f32::MIN,
            Some(probability) => f64::from(probability).ln() as f32,
            None => 0.0,
        }
    }

    /// The criteria that there are, as bits.
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    pub(super) fn criteria(&self) -> u32 {
        use criterion::{CLASSIFIER, COSINE, ENTROPY, MARGIN, MAX_PROB};
        let bits = [MAX_PROB, MARGIN, ENTROPY, COSINE, CLASSIFIER];
        let all = self.named().into_iter().zip(bits);
        all.filter(|((_, value), _)| value.is_some()).map(|(_, bit)| bit).sum()
    }
}

fn is_no_number(threshold: &(&'static str, f32)) -> bool {
    !threshold.1.is_finite()
}

impl Require {
    pub(super) fn parse(op: &'static str, parameters: &Parameters) -> Result<Require, Error> {
        let choices = [("all", Require::All), ("any", Require::Any)];
        Ok(parameters.choose(op, &REQUIRE, &choices)?.unwrap_or_default())
    }
}
