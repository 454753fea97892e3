//! One case of a pruned or masked block, by what it varies.

use crate::conformance::cases::silu_mlp::mlp_tolerance;
use crate::conformance::{Case, Fill, Purpose, TensorSpec, Tolerance};
use crate::dtype::DType;
use crate::parameters::Parameters;

const UNIT: Fill = Fill::Normal { scale: 1.0 };

/// As an MLP's, but the only intermediate result that is rounded is that of the norm.
pub(super) fn linear_tolerance(
    activation: DType,
    rounds: bool,
    out: DType,
    longest_sum: usize,
) -> Tolerance {
    if rounds {
        return mlp_tolerance(activation, out, longest_sum);
    }
    mlp_tolerance(DType::F32, out, longest_sum)
}

/// Which block a case runs.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Linear { gathers: bool, scatters: bool },
    Pruned,
    Masked,
}

/// What a case varies; the rest is random normal, contiguous and plain.
#[derive(Clone, Copy)]
pub(super) struct BlockCase {
    pub kind: Kind,
    pub rows: usize,
    pub hidden: usize,
    pub inputs: usize,
    pub ffn: usize,
    pub outputs: usize,
    /// Features of a row of the residual.
    pub width: usize,
    pub dtypes: (DType, DType),
    pub x: Fill,
    pub masks: Fill,
    pub weight_scale: f64,
    pub gap: usize,
    pub bias: bool,
    pub norm_scope: Option<&'static str>,
    pub residual: bool,
    pub round_gate_up: bool,
    pub batch_invariant: bool,
    pub out: Option<DType>,
    pub purpose: Purpose,
}

impl BlockCase {
    /// `rows`, `hidden`, `inputs`, `ffn` and `outputs`.
    pub fn new(kind: Kind, sizes: [usize; 5], dtypes: (DType, DType)) -> BlockCase {
        let [rows, hidden, inputs, ffn, outputs] = sizes;
        BlockCase {
            kind,
            rows,
            hidden,
            inputs,
            ffn,
            outputs,
            width: hidden,
            dtypes,
            x: UNIT,
            masks: Fill::Mask { share: 0.5 },
            weight_scale: 1.0,
            gap: 0,
            bias: false,
            norm_scope: None,
            residual: false,
            round_gate_up: false,
            batch_invariant: false,
            out: None,
            purpose: Purpose::Conformance,
        }
    }

    pub fn build(&self, label: &str) -> Case {
        let (activation, weight) = self.dtypes;
        let out = self.out.unwrap_or(activation);
        let (op, tolerance) = match self.kind {
            Kind::Linear { .. } => {
                let rounds = self.norm_scope.is_some();
                let longest = self.inputs.max(self.outputs);
                ("pruned_linear", linear_tolerance(activation, rounds, out, longest))
            }
            Kind::Pruned => {
                let longest = self.inputs.max(self.ffn);
                ("pruned_gated_mlp", mlp_tolerance(activation, out, longest))
            }
            Kind::Masked => {
                let longest = self.hidden.max(self.ffn);
                ("masked_gated_mlp", mlp_tolerance(activation, out, longest))
            }
        };
        let dtype = match activation == weight {
            true => activation.name().to_owned(),
            false => format!("{activation}/{weight}"),
        };
        Case {
            op,
            name: self.name(label),
            dtype,
            purpose: self.purpose,
            tensors: self.tensors(),
            parameters: self.parameters(),
            output_gap: self.gap,
            tolerance,
        }
    }

    pub fn reading(self, inputs: usize) -> BlockCase {
        BlockCase { inputs, ..self }
    }

    fn name(&self, label: &str) -> String {
        let mut name = format!("rows={} hidden={}", self.rows, self.hidden);
        match self.kind {
            Kind::Linear { gathers, scatters } => {
                name += &format!(" outputs={}", self.outputs);
                if gathers {
                    name += &format!(" inputs={}", self.inputs);
                }
                if scatters {
                    name += &format!(" width={}", self.width);
                }
            }
            Kind::Pruned => {
                let (inputs, ffn, outputs) = (self.inputs, self.ffn, self.outputs);
                name += &format!(" inputs={inputs} ffn={ffn} outputs={outputs}");
            }
            Kind::Masked => name += &format!(" ffn={}", self.ffn),
        }
        let gap = (self.gap > 0).then(|| format!("gap={}", self.gap));
        let out = self.out.map(|out| format!("out={out}"));
        let norm = self.norm_scope.map(|scope| format!("norm={scope}"));
        let options = [
            gap.as_deref(),
            self.bias.then_some("bias"),
            norm.as_deref(),
            self.residual.then_some("residual"),
            self.round_gate_up.then_some("round_gate_up"),
            self.batch_invariant.then_some("batch_invariant"),
            out.as_deref(),
            (!label.is_empty()).then_some(label),
        ];
        for option in options.into_iter().flatten() {
            name.push(' ');
            name.push_str(option);
        }
        name
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let (activation, weight) = self.dtypes;
        let mut tensors = vec![self.matrix("x", activation, [self.rows, self.hidden], self.x)];
        match self.kind {
            Kind::Linear { .. } => {
                tensors.push(self.weight("weight", [self.outputs, self.inputs]));
            }
            _ => tensors.extend([
                self.weight("gate_weight", [self.ffn, self.inputs]),
                self.weight("up_weight", [self.ffn, self.inputs]),
                self.weight("down_weight", [self.outputs, self.ffn]),
            ]),
        }
        let (gathers, scatters) = match self.kind {
            Kind::Linear { gathers, scatters } => (gathers, scatters),
            Kind::Pruned => (true, true),
            Kind::Masked => (false, false),
        };
        if gathers {
            tensors.push(indices("in_indices", self.inputs, self.hidden));
        }
        if scatters {
            tensors.push(indices("out_indices", self.outputs, self.width));
        }
        if self.kind == Kind::Masked {
            tensors.extend([
                vector("in_mask", DType::F32, self.hidden, self.masks),
                vector("mid_mask", DType::F32, self.ffn, self.masks),
                vector("out_mask", DType::F32, self.outputs, self.masks),
            ]);
        }
        if self.bias {
            tensors.push(vector("bias", weight, self.outputs, UNIT));
        }
        if self.norm_scope.is_some() {
            let around_one = Fill::AroundOne { scale: 0.2 };
            tensors.push(vector("norm_weight", weight, self.hidden, around_one));
        }
        if self.residual {
            tensors.push(self.matrix("residual", activation, [self.rows, self.width], UNIT));
        }
        tensors
    }

    /// Variances add up to about 1 in every layer, as in a trained network.
    fn weight(&self, name: &'static str, shape: [usize; 2]) -> TensorSpec {
        let scale = self.weight_scale / (shape[1].max(1) as f64).sqrt();
        self.matrix(name, self.dtypes.1, shape, Fill::Normal { scale })
    }

    fn matrix(
        &self,
        name: &'static str,
        dtype: DType,
        shape: [usize; 2],
        fill: Fill,
    ) -> TensorSpec {
        TensorSpec { name, dtype, shape: shape.to_vec(), gap: self.gap, fill }
    }

    fn parameters(&self) -> Parameters {
        let mut parameters = Parameters::new();
        if let Some(scope) = self.norm_scope {
            parameters = parameters.with("eps", "1e-5");
            if self.kind != Kind::Masked {
                parameters = parameters.with("norm_scope", scope);
            }
        }
        if self.round_gate_up {
            parameters = parameters.with("rounding", "round_gate_up");
        }
        if self.batch_invariant {
            parameters = parameters.with("batch_invariant", "true");
        }
        if let Some(out) = self.out {
            parameters = parameters.with("out_dtype", out.name());
        }
        parameters
    }
}

fn vector(name: &'static str, dtype: DType, length: usize, fill: Fill) -> TensorSpec {
    TensorSpec { name, dtype, shape: vec![length], gap: 0, fill }
}

fn indices(name: &'static str, count: usize, below: usize) -> TensorSpec {
    vector(name, DType::U32, count, Fill::Ascending { below })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::cases::silu_mlp::epsilon;

    #[test]
    fn a_norm_widens_the_tolerance_of_a_linear_layer() {
        let inner = |rounds| match linear_tolerance(DType::BF16, rounds, DType::BF16, 64) {
            Tolerance::Rounded { inner, .. } => inner,
            Tolerance::Exact => 0.0,
        };
        assert!(inner(true) >= epsilon(DType::BF16) && inner(false) < 1e-4);
    }
}
