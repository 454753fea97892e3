//! The blocks' options and tensors without their public types: what validation and the kernels work on.
//!
//! One block serves four families of public descriptors: dense MLPs, MLPs that read and write subsets of the
//! features, MLPs under masks, and single projections. Whatever a descriptor does not use is absent: a dense MLP
//! runs the kernels that it would run if nothing else existed.

use super::validation::X;
use crate::arguments::{Arguments as _, arguments};
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::operation::{Cost, NamedLayouts};
use crate::ops::prune_gather::NormScope;
use crate::ops::silu_mlp::Rounding;
use crate::parameters::{ParameterInfo, Parameters};
use crate::validate::Validator;

arguments! {
    /// The tensors of any block: `M` tokens, `H` features, of which `I` are read; `F` neurons; `O` rows of the
    /// second projection, written to `D` features.
    pub struct MlpTensors {
        /// Activations `[M, H]`.
        input x,
        /// `[F, I]`.
        optional_input gate_weight,
        /// `[F, I]`.
        optional_input up_weight,
        /// `[O, F]`, or `[O, I]` where there is no first projection.
        input down_weight,
        /// `[F]`.
        optional_input gate_bias,
        /// `[F]`.
        optional_input up_bias,
        /// `[O]`.
        optional_input down_bias,
        /// `[H]`.
        optional_input norm_weight,
        /// `[M, D]`.
        optional_input residual,
        /// `[I]`, features that are read.
        optional_input in_indices: index,
        /// `[O]`, features that are written.
        optional_input out_indices: index,
        /// `[H]`, f32.
        optional_input in_mask,
        /// `[F]`, f32.
        optional_input mid_mask,
        /// `[O]`, f32.
        optional_input out_mask,
        /// `[M, D]`.
        output out,
    }
}

/// What comes before the second projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum First {
    /// Nothing: the second projection reads `n`.
    Absent,
    /// `silu(n W^T + b)`.
    Plain,
    /// `silu(n Wg^T + bg) * (n Wu^T + bu)`.
    Gated,
}

/// The descriptor of any block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MlpConfig {
    pub op: &'static str,
    pub first: First,
    /// Features of a row of `x`.
    pub hidden: usize,
    /// Features of `n`, which the weights read: `hidden`, or those that are selected.
    pub inputs: usize,
    /// Neurons; 0 where there is no first projection.
    pub ffn: usize,
    /// Rows of the last weight.
    pub outputs: usize,
    /// Features of a row of `out`: `outputs`, or those that they are scattered to.
    pub width: usize,
    /// Whether `in_indices` say which features are read.
    pub gathers: bool,
    /// Whether `out_indices` say which features are written.
    pub scatters: bool,
    /// Whether there are masks.
    pub masked: bool,
    pub activation_dtype: DType,
    pub weight_dtype: DType,
    pub norm: Option<NormEpsilon>,
    pub norm_scope: NormScope,
    pub rounding: Rounding,
    pub batch_invariant: bool,
}

/// The epsilon of an RMS norm; compared and hashed by its bits.
#[derive(Clone, Copy, Debug)]
pub struct NormEpsilon(pub f32);

impl PartialEq for NormEpsilon {
    fn eq(&self, other: &NormEpsilon) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for NormEpsilon {}

impl std::hash::Hash for NormEpsilon {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

pub(crate) const EPS: ParameterInfo = ParameterInfo {
    name: "eps",
    values: "a positive number",
    default: "1e-5",
    description: "added to the mean square before its root; only with `norm_weight`",
};
pub(crate) const ROUNDING: ParameterInfo = ParameterInfo {
    name: "rounding",
    values: "keep_f32 or round_gate_up",
    default: "keep_f32",
    description: "whether projections are rounded to the activation type before SiLU and product",
};
pub(crate) const BATCH_INVARIANT: ParameterInfo = ParameterInfo {
    name: "batch_invariant",
    values: "true or false",
    default: "false",
    description: "one kernel for up to 64 rows, so that a row's result does not depend on its batch",
};
pub(crate) const NORM_SCOPE: ParameterInfo = ParameterInfo {
    name: "norm_scope",
    values: "full, selected or selected_sum_over_d",
    default: "full",
    description: "features that the norm's mean square is taken over; only with `norm_weight`",
};
pub(crate) const OUT_DTYPE: ParameterInfo = ParameterInfo {
    name: "out_dtype",
    values: "f32, f16 or bf16",
    default: "",
    description: "type of the output; that of the activations if not given",
};

impl MlpConfig {
    pub fn new(
        op: &'static str,
        first: First,
        hidden: usize,
        ffn: usize,
        dtype: DType,
    ) -> Result<MlpConfig, Error> {
        let check = Validator::new(op);
        check.dimension("hidden", hidden, 1)?;
        check.dimension("ffn", ffn, 0)?;
        check.float("dtype", dtype)?;
        Ok(MlpConfig {
            op,
            first,
            hidden,
            inputs: hidden,
            ffn,
            outputs: hidden,
            width: hidden,
            gathers: false,
            scatters: false,
            masked: false,
            activation_dtype: dtype,
            weight_dtype: dtype,
            norm: None,
            norm_scope: NormScope::default(),
            rounding: Rounding::default(),
            batch_invariant: false,
        })
    }

    pub fn with_weight_dtype(mut self, dtype: DType) -> Result<MlpConfig, Error> {
        Validator::new(self.op).weight_dtype(self.activation_dtype, dtype)?;
        self.weight_dtype = dtype;
        Ok(self)
    }

    pub fn with_norm(mut self, eps: f32) -> Result<MlpConfig, Error> {
        if !(eps.is_finite() && eps >= 0.0) {
            let expected = "a finite number of at least 0";
            return Err(Error::argument(self.op, EPS.name, Problem::Value, expected, eps, ""));
        }
        self.norm = Some(NormEpsilon(eps));
        Ok(self)
    }

    /// Writes `outputs` features, each of its own.
    pub fn with_outputs(mut self, outputs: usize) -> Result<MlpConfig, Error> {
        Validator::new(self.op).dimension("outputs", outputs, 0)?;
        (self.outputs, self.width) = (outputs, outputs);
        Ok(self)
    }

    /// Multiplies by masks what is read, the neurons and what is written.
    pub fn with_masks(mut self) -> MlpConfig {
        self.masked = true;
        self
    }

    /// Reads `inputs` features, by index.
    pub fn with_gather(mut self, inputs: usize) -> Result<MlpConfig, Error> {
        self.check_subset("inputs", inputs, self.hidden)?;
        self.inputs = inputs;
        self.gathers = true;
        Ok(self)
    }

    /// Writes to `outputs` of `width` features, by index.
    pub fn with_scatter(mut self, outputs: usize, width: usize) -> Result<MlpConfig, Error> {
        Validator::new(self.op).dimension("width", width, 1)?;
        self.check_subset("outputs", outputs, width)?;
        (self.outputs, self.width) = (outputs, width);
        self.scatters = true;
        Ok(self)
    }

    fn check_subset(&self, name: &'static str, members: usize, domain: usize) -> Result<(), Error> {
        if members <= domain {
            return Ok(());
        }
        let (expected, remedy) = (format!("at most {domain}"), "each feature is selected once");
        Err(Error::argument(self.op, name, Problem::Value, expected, members, remedy))
    }

    pub fn is_gated(&self) -> bool {
        self.first == First::Gated
    }

    /// Whether something comes between `x` and the first product: a norm, a selection or a mask.
    pub fn prepares(&self) -> bool {
        self.norm.is_some() || self.gathers || self.masked
    }

    /// Neurons that are computed: none where nothing that they lead to depends on them.
    pub fn neurons(&self) -> usize {
        if self.inputs == 0 || self.outputs == 0 { 0 } else { self.ffn }
    }

    /// Columns that the second product sums over.
    pub fn depth(&self) -> usize {
        match self.first {
            First::Absent if self.outputs == 0 => 0,
            First::Absent => self.inputs,
            _ => self.neurons(),
        }
    }

    /// What the norm's sum of squares is divided by.
    pub fn norm_divisor(&self) -> usize {
        match self.norm_scope {
            NormScope::Selected => self.inputs,
            NormScope::Full | NormScope::SelectedSumOverD => self.hidden,
        }
    }

    /// Whether the norm's statistics are taken over the selected features alone.
    pub fn norms_selection(&self) -> bool {
        self.gathers && self.norm_scope != NormScope::Full
    }

    /// Names of the last weight and its bias.
    pub fn down_names(&self) -> [&'static str; 2] {
        match self.first {
            First::Absent => ["weight", "bias"],
            _ => ["down_weight", "down_bias"],
        }
    }

    /// The options that every descriptor takes, added to one that fits the inputs' shapes.
    pub fn with_parameters(
        mut self,
        inputs: &NamedLayouts,
        parameters: &Parameters,
        weight: &Layout,
    ) -> Result<MlpConfig, Error> {
        self = self.with_weight_dtype(weight.dtype())?;
        let eps = parameters.parse(self.op, &EPS)?;
        let norm_scope = parameters.choose(self.op, &NORM_SCOPE, &NormScope::CHOICES)?;
        if inputs.contains_key("norm_weight") {
            self = self.with_norm(eps.unwrap_or(1e-5))?;
        } else if eps.is_some() || norm_scope.is_some() {
            let remedy = if eps.is_some() {
                "eps belongs to the norm"
            } else {
                "norm_scope belongs to the norm"
            };
            let (problem, expected) = (Problem::Missing, "a tensor");
            return Err(Error::argument(self.op, "norm_weight", problem, expected, "none", remedy));
        }
        self.norm_scope = norm_scope.unwrap_or_default();
        self.rounding =
            parameters.choose(self.op, &ROUNDING, &Rounding::CHOICES)?.unwrap_or_default();
        self.batch_invariant = parameters.parse(self.op, &BATCH_INVARIANT)?.unwrap_or(false);
        Ok(self)
    }

    /// The dense descriptor that fits these inputs, as [`crate::Operation::describe`].
    pub fn describe(
        op: &'static str,
        first: First,
        inputs: &NamedLayouts,
        parameters: &Parameters,
    ) -> Result<MlpConfig, Error> {
        let (x, up_weight) = (input(op, inputs, "x")?, input(op, inputs, "up_weight")?);
        let ffn = up_weight.shape().first().copied().unwrap_or(1);
        MlpConfig::new(op, first, x.columns(), ffn, x.dtype())?
            .with_parameters(inputs, parameters, &up_weight)
    }

    /// The layout of `out`, as [`crate::Operation::outputs`].
    pub fn outputs(
        &self,
        inputs: &NamedLayouts,
        parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let dtype = out_dtype(self.op, parameters)?.unwrap_or(self.activation_dtype);
        let rows =
            Validator::new(self.op).rows("x", &input(self.op, inputs, "x")?, self.hidden, X)?;
        let out = Layout::contiguous(dtype, &[rows, self.width])?;
        Ok(NamedLayouts::from([("out".to_owned(), out)]))
    }

    pub fn cost(&self, args: &MlpTensors<Layout, Layout>) -> Cost {
        let bytes = |layout: &Layout| (layout.elements() * layout.dtype().size()) as u64;
        let rows = args.x.shape()[0] as u64;
        let first = match self.first {
            First::Absent => 0,
            First::Plain => 1,
            First::Gated => 2,
        };
        let mut inputs = Vec::new();
        (*args).visit(|_, layout| inputs.push(layout), |_, _| {});
        let products = first * self.inputs * self.neurons() + self.outputs * self.depth();
        Cost {
            flops: 2 * rows * products as u64,
            bytes_read: inputs.iter().map(bytes).sum(),
            bytes_written: bytes(&args.out),
        }
    }

    /// How many parts the inner dimension of the down projection is cut into for batches that give a
    /// GPU too few tiles. A function of the shape alone, so that results do not depend on the device.
    pub fn down_splits(&self, rows: usize) -> usize {
        const TILE: usize = 128;
        const WANTED_TILES: usize = 256;
        const MAX_SPLITS: usize = 8;
        if rows <= 64 {
            return 1;
        }
        let tiles = rows.div_ceil(TILE) * self.outputs.div_ceil(TILE).max(1);
        (WANTED_TILES / tiles).clamp(1, MAX_SPLITS)
    }

    /// Room for `h` and the prepared activations in f32, and for the partial sums of split products.
    pub fn workspace_bytes(&self, rows: usize) -> usize {
        let part = |elements: usize| (elements * size_of::<f32>()).next_multiple_of(256);
        let h = part(rows * scratch_stride(self.ffn));
        let prepared = if self.prepares() { part(rows * scratch_stride(self.inputs)) } else { 0 };
        let splits = self.down_splits(rows);
        let partial_sums = if splits > 1 { part(splits * rows * self.outputs) } else { 0 };
        h + prepared + partial_sums
    }
}

/// Elements between rows of this many columns in the workspace, where a backend wants every row to start on a
/// multiple of 16 bytes.
pub(crate) const fn scratch_stride(columns: usize) -> usize {
    columns.next_multiple_of(8)
}

pub(crate) fn input(
    op: &'static str,
    inputs: &NamedLayouts,
    name: &'static str,
) -> Result<Layout, Error> {
    inputs
        .get(name)
        .copied()
        .ok_or_else(|| Error::argument(op, name, Problem::Missing, "a tensor", "none", ""))
}

pub(crate) fn out_dtype(op: &'static str, parameters: &Parameters) -> Result<Option<DType>, Error> {
    let floats = DType::FLOATS.map(|dtype| (dtype.name(), dtype));
    parameters.choose(op, &OUT_DTYPE, &floats)
}
