//! What self-speculation needs to know of a model.

use crate::error::{Error, Problem};

/// A model's layers, where it exits, and when drafts and sequences end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeculationSettings {
    layers: usize,
    exit_layer: usize,
    draft_length: usize,
    stop_ids: Vec<i32>,
}

impl SpeculationSettings {
    /// A model of `layers` layers that drafts with the first `exit_layer` of them; drafts are of 4 tokens, and nothing
    /// stops a sequence but its budget.
    ///
    /// # Errors
    /// [`Problem::Value`] unless `exit_layer` is at least 1 and below `layers`.
    pub fn new(layers: usize, exit_layer: usize) -> Result<SpeculationSettings, Error> {
        if exit_layer == 0 || exit_layer >= layers {
            let expected = match layers {
                0 | 1 => "a model of at least 2 layers".to_owned(),
                _ => format!("1 to {}", layers - 1),
            };
            let remedy = "drafting takes the layers before it, verifying those behind";
            let (name, problem) = ("exit_layer", Problem::Value);
            return Err(Error::argument(super::OP, name, problem, expected, exit_layer, remedy));
        }
        Ok(SpeculationSettings { layers, exit_layer, draft_length: 4, stop_ids: Vec::new() })
    }

    /// Drafts `tokens` tokens in an iteration, unless a sequence has a length of its own; 0 is plain decoding.
    pub fn with_draft_length(mut self, tokens: usize) -> SpeculationSettings {
        self.draft_length = tokens;
        self
    }

    /// Ends sequences, and drafts, at these tokens.
    pub fn with_stop_ids(mut self, stop_ids: &[i32]) -> SpeculationSettings {
        self.stop_ids = stop_ids.to_vec();
        self
    }

    /// Layers of the model.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// The first layer that drafting leaves out.
    pub fn exit_layer(&self) -> usize {
        self.exit_layer
    }

    /// Tokens drafted in an iteration.
    pub fn draft_length(&self) -> usize {
        self.draft_length
    }

    /// Tokens that end a sequence.
    pub fn stop_ids(&self) -> &[i32] {
        &self.stop_ids
    }
}
