//! The MLPs' options and tensors without their public types: what validation and the kernels work on.

use crate::arguments::arguments;
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::operation::{Cost, NamedLayouts};
use crate::ops::silu_mlp::Rounding;
use crate::parameters::{ParameterInfo, Parameters};
use crate::validate::Validator;

arguments! {
    /// The tensors of either MLP; the gated one has a `gate_weight`.
    pub struct MlpTensors {
        /// Activations `[M, H]`.
        input x,
        /// `[F, H]`.
        optional_input gate_weight,
        /// `[F, H]`.
        input up_weight,
        /// `[H, F]`.
        input down_weight,
        /// `[F]`.
        optional_input gate_bias,
        /// `[F]`.
        optional_input up_bias,
        /// `[H]`.
        optional_input down_bias,
        /// `[H]`.
        optional_input norm_weight,
        /// `[M, H]`.
        optional_input residual,
        /// `[M, H]`.
        output out,
    }
}

/// The descriptor of either MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MlpConfig {
    pub op: &'static str,
    pub gated: bool,
    pub hidden: usize,
    pub ffn: usize,
    pub activation_dtype: DType,
    pub weight_dtype: DType,
    pub norm: Option<NormEpsilon>,
    pub rounding: Rounding,
    pub batch_invariant: bool,
}

/// The epsilon of an RMS norm; compared and hashed by its bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormEpsilon(pub f32);

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
pub(crate) const OUT_DTYPE: ParameterInfo = ParameterInfo {
    name: "out_dtype",
    values: "f32, f16 or bf16",
    default: "",
    description: "type of the output; that of the activations if not given",
};

impl MlpConfig {
    pub fn new(
        op: &'static str,
        gated: bool,
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
            gated,
            hidden,
            ffn,
            activation_dtype: dtype,
            weight_dtype: dtype,
            norm: None,
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

    /// The descriptor that fits these inputs, as [`crate::Operation::describe`].
    pub fn describe(
        op: &'static str,
        gated: bool,
        inputs: &NamedLayouts,
        parameters: &Parameters,
    ) -> Result<MlpConfig, Error> {
        let (x, up_weight) = (input(op, inputs, "x")?, input(op, inputs, "up_weight")?);
        let ffn = up_weight.shape().first().copied().unwrap_or(1);
        let mut mlp = MlpConfig::new(op, gated, x.columns(), ffn, x.dtype())?;
        mlp = mlp.with_weight_dtype(up_weight.dtype())?;
        let eps = parameters.parse(op, &EPS)?;
        if inputs.contains_key("norm_weight") {
            mlp = mlp.with_norm(eps.unwrap_or(1e-5))?;
        } else if eps.is_some() {
            let remedy = "eps belongs to the norm";
            return Err(Error::argument(
                op,
                "norm_weight",
                Problem::Missing,
                "a tensor",
                "none",
                remedy,
            ));
        }
        mlp.rounding = parameters.choose(op, &ROUNDING, &Rounding::CHOICES)?.unwrap_or_default();
        mlp.batch_invariant = parameters.parse(op, &BATCH_INVARIANT)?.unwrap_or(false);
        Ok(mlp)
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
        let out = Layout::contiguous(dtype, &[rows, self.hidden])?;
        Ok(NamedLayouts::from([("out".to_owned(), out)]))
    }

    pub fn validate(&self, args: &MlpTensors<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(self.op);
        let (hidden, ffn) = (self.hidden, self.ffn);
        let (activation, weight) = (self.activation_dtype, self.weight_dtype);
        let rows = check.rows("x", &args.x, hidden, X)?;
        check.tensor("x", &args.x, activation, &[rows, hidden], X)?;
        check.presence("gate_weight", args.gate_weight.is_some(), self.gated, "")?;
        check.optional_tensor("gate_weight", &args.gate_weight, weight, &[ffn, hidden], FIRST)?;
        check.tensor("up_weight", &args.up_weight, weight, &[ffn, hidden], FIRST)?;
        check.tensor("down_weight", &args.down_weight, weight, &[hidden, ffn], SECOND)?;
        check.optional_tensor("gate_bias", &args.gate_bias, weight, &[ffn], FIRST_BIAS)?;
        check.optional_tensor("up_bias", &args.up_bias, weight, &[ffn], FIRST_BIAS)?;
        check.optional_tensor("down_bias", &args.down_bias, weight, &[hidden], SECOND_BIAS)?;
        check.presence("norm_weight", args.norm_weight.is_some(), self.norm.is_some(), NORM)?;
        check.optional_tensor("norm_weight", &args.norm_weight, weight, &[hidden], SECOND_BIAS)?;
        check.optional_tensor("residual", &args.residual, activation, &[rows, hidden], X)?;
        check.float("out", args.out.dtype())?;
        check.tensor("out", &args.out, args.out.dtype(), &[rows, hidden], X)
    }

    pub fn cost(&self, args: &MlpTensors<Layout, Layout>) -> Cost {
        let bytes = |layout: &Layout| (layout.elements() * layout.dtype().size()) as u64;
        let rows = args.x.shape()[0] as u64;
        let projections = if self.gated { 3 } else { 2 };
        let inputs = [
            Some(args.x),
            args.gate_weight,
            Some(args.up_weight),
            Some(args.down_weight),
            args.gate_bias,
            args.up_bias,
            args.down_bias,
            args.norm_weight,
            args.residual,
        ];
        Cost {
            flops: 2 * projections * rows * self.hidden as u64 * self.ffn as u64,
            bytes_read: inputs.iter().flatten().map(bytes).sum(),
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
        let tiles = rows.div_ceil(TILE) * self.hidden.div_ceil(TILE);
        (WANTED_TILES / tiles).clamp(1, MAX_SPLITS)
    }

    /// Room for `h` and the normalised activations in f32, and for the partial sums of split products.
    pub fn workspace_bytes(&self, rows: usize) -> usize {
        let part = |elements: usize| (elements * size_of::<f32>()).next_multiple_of(256);
        let h = part(rows * self.ffn);
        let normalised = if self.norm.is_some() { part(rows * self.hidden) } else { 0 };
        let splits = self.down_splits(rows);
        let partial_sums = if splits > 1 { part(splits * rows * self.hidden) } else { 0 };
        h + normalised + partial_sums
    }
}

const X: &str = "one row of `hidden` features a token";
const FIRST: &str = "out_features = ffn, in_features = hidden";
const SECOND: &str = "out_features = hidden, in_features = ffn";
const FIRST_BIAS: &str = "one value an ffn neuron, in the weights' type";
const SECOND_BIAS: &str = "one value a hidden feature, in the weights' type";
const NORM: &str = "it goes with a descriptor made `with_norm`";

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
