//! `bigru`: layers of a bidirectional GRU over texts of different lengths.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod operation;
mod reference;
#[cfg(feature = "safetensors")]
mod weights;
#[cfg(feature = "wgpu")]
mod wgpu;

#[cfg(feature = "safetensors")]
pub use weights::BiGruWeights;

use crate::arguments::{MAX_REPEATED, arguments};
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::operation::Operation as _;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
use crate::ops::feature_attention::gru::GruExtent;
use crate::ops::feature_attention::gru::scratch::GruScratch;
use crate::ops::feature_attention::gru::validate_hidden;
use crate::validate::Validator;

arguments! {
    /// Tensors of [`BiGru`]; `B` texts of up to `L` tokens, `I` features a token, `h` hidden units a direction.
    ///
    /// Weights are named as `torch.nn.GRU` names them and have its gates: three blocks of `h` rows in the order reset,
    /// update, new. `in` is `I` for layer 0 and `2h` for those behind it.
    pub struct BiGruArgs {
        /// `[B, L, I]`.
        input x,
        /// `[3h, in]`.
        repeated_input weight_ih as "weight_ih_l" "",
        /// `[3h, h]`.
        repeated_input weight_hh as "weight_hh_l" "",
        /// `[3h]`, in the weights' type.
        repeated_input bias_ih as "bias_ih_l" "",
        /// `[3h]`, in the weights' type.
        repeated_input bias_hh as "bias_hh_l" "",
        /// `[3h, in]`.
        repeated_input weight_ih_reverse as "weight_ih_l" "_reverse",
        /// `[3h, h]`.
        repeated_input weight_hh_reverse as "weight_hh_l" "_reverse",
        /// `[3h]`, in the weights' type.
        repeated_input bias_ih_reverse as "bias_ih_l" "_reverse",
        /// `[3h]`, in the weights' type.
        repeated_input bias_hh_reverse as "bias_hh_l" "_reverse",
        /// `[2 * layers, B, h]`: the states to start from, of each layer forward, then reverse; 0 unless given.
        optional_input h0,
        /// `[B]`: how many tokens of each text are valid; all unless given.
        optional_input lengths: integer,
        /// `[B, L, 2h]`, f32, f16 or bf16: the last layer's states, forward, then reverse; 0 behind a text's end.
        output out,
        /// `[2 * layers, B, h]`, f32, f16 or bf16: the state at each text's last token, for a reverse direction at its
        /// first.
        optional_output h_n,
    }
}

/// A bidirectional GRU as `torch.nn.GRU(bidirectional=True, batch_first=True)` on packed sequences: for each direction
/// of each layer
///
/// `r = sigmoid(Wir x + bir + Whr h + bhr)`, `z = sigmoid(Wiz x + biz + Whz h + bhz)`,
/// `n = tanh(Win x + bin + r (Whn h + bhn))`, `h' = (1 - z) n + z h`.
///
/// States, sums and what passes between layers are f32; only `out` and `h_n` are rounded. Lengths that are negative or
/// above `L` are refused on the host; a device takes them for 0 and `L`.
///
/// Source: Cho et al. 2014 (arXiv 1406.1078), with the reset gate applied behind the product, as cuDNN and PyTorch do.
/// ONNX and haste order the gates z, r, h; Keras's are z, r, h too, transposed.
///
/// ```
/// use siluette::arguments::Repeated;
/// use siluette::{BiGru, BiGruArgs, Cpu, DType, TensorMut, TensorRef, Workspace};
/// let op = BiGru::new(2, 1, 1, DType::F32)?;
/// let (x, mut out) = ([1.0f32, -1.0, 0.5, 0.5], [9.0f32; 4]);
/// let (weight_ih, weight_hh) = ([0.5f32, 0.0, 0.0, 0.5, 1.0, 1.0], [0.1f32, 0.2, 0.3]);
/// let weight_ih = Repeated::from([TensorRef::new(&weight_ih, &[3, 2])?]);
/// let weight_hh = Repeated::from([TensorRef::new(&weight_hh, &[3, 1])?]);
/// let args = BiGruArgs::new(TensorRef::new(&x, &[1, 2, 2])?, TensorMut::new(&mut out, &[1, 2, 2])?)
///     .weight_ih(weight_ih)
///     .weight_hh(weight_hh)
///     .weight_ih_reverse(weight_ih)
///     .weight_hh_reverse(weight_hh)
///     .lengths(TensorRef::new(&[1], &[1])?);
/// Cpu::new().bigru(&op, args, &mut Workspace::default())?;
/// assert_eq!(out, [0.0; 4]);
/// # Ok::<(), siluette::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BiGru {
    input: usize,
    hidden: usize,
    layers: usize,
    dtype: DType,
    weight_dtype: DType,
}

impl BiGru {
    /// `layers` layers of `hidden` units a direction over tokens of `input` features, of type `dtype`.
    ///
    /// # Errors
    /// [`Problem::Value`] for 0 of anything, [`Problem::Size`] for more than [`MAX_REPEATED`] layers or features beyond
    /// 31 bits, [`Problem::DType`] for an integer type.
    pub fn new(input: usize, hidden: usize, layers: usize, dtype: DType) -> Result<BiGru, Error> {
        let check = Validator::new(Self::NAME);
        check.dimension("input", input, 1)?;
        validate_hidden(Self::NAME, hidden)?;
        check.dimension("layers", layers, 1)?;
        check.float("dtype", dtype)?;
        if layers > MAX_REPEATED {
            let expected = format!("at most {MAX_REPEATED}");
            let remedy = "run the others as another operation, on this one's output";
            return Err(Error::argument(
                Self::NAME,
                "layers",
                Problem::Size,
                expected,
                layers,
                remedy,
            ));
        }
        Ok(BiGru { input, hidden, layers, dtype, weight_dtype: dtype })
    }

    /// Weights and biases of another type: f16 or bf16 under f32 activations.
    ///
    /// # Errors
    /// [`Problem::DType`] for any other mix.
    pub fn with_weight_dtype(mut self, dtype: DType) -> Result<BiGru, Error> {
        Validator::new(Self::NAME).weight_dtype(self.dtype, dtype)?;
        self.weight_dtype = dtype;
        Ok(self)
    }

    /// Features of a token.
    pub fn input(&self) -> usize {
        self.input
    }

    /// Hidden units of a direction.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Layers.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Scratch memory for `batch` texts of `length` tokens, in bytes, on backends where the caller brings it: the
    /// input's share of every gate, and what passes between layers.
    pub fn workspace_bytes(&self, batch: usize, length: usize) -> usize {
        self.scratch(batch, length).bytes
    }

    fn scratch(&self, batch: usize, length: usize) -> GruScratch {
        GruScratch::new(batch, length, self.hidden, self.layers > 1)
    }

    /// Layers behind the first read f32 from the workspace.
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    fn layer_extent(&self, layer: usize, batch: usize, steps: usize) -> GruExtent {
        let is_first = layer == 0;
        GruExtent {
            op: Self::NAME,
            batch,
            steps,
            features: if is_first { self.input } else { 2 * self.hidden },
            hidden: self.hidden,
            activation: if is_first { self.dtype } else { DType::F32 },
            weight: self.weight_dtype,
        }
    }

    /// Texts and tokens of a text; a shape error unless `x` has both.
    fn extent(&self, x: &Layout) -> Result<[usize; 2], Error> {
        match *x.shape() {
            [batch, length, input] if input == self.input => Ok([batch, length]),
            ref got => {
                let (expected, got) = (format!("[B, L, {}]", self.input), format!("{got:?}"));
                Err(Error::argument(Self::NAME, "x", Problem::Shape, expected, got, X))
            }
        }
    }
}

const X: &str = "texts, tokens, features";
