//! `exit_gate`: which sequences of a batch go on to the deeper layers.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod reference;
mod thresholds;
#[cfg(feature = "wgpu")]
mod wgpu;

pub use thresholds::{ExitThresholds, Require};

use crate::arguments::arguments;
use crate::backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Cuda, CudaPlan, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::operation::{Cost, NamedLayouts, Operation};
use crate::ops::traffic::traffic;
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};
use crate::validate::Validator;

arguments! {
    /// Tensors of [`ExitGate`]; `B` sequences, `D` features. Those that a threshold looks at are there, and no others.
    pub struct ExitGateArgs {
        /// `[B]`, f32: [`ExitHead`](super::ExitHead)'s; for `max_prob` and `margin`.
        optional_input max_logit,
        /// `[B]`, f32: likewise; for `margin`.
        optional_input second_logit,
        /// `[B]`, f32: likewise; for `max_prob` and `margin`.
        optional_input log_sum_exp,
        /// `[B]`, f32: likewise; for `entropy`.
        optional_input entropy,
        /// `[B]`, f32: a score of any kind; for `classifier`.
        optional_input classifier,
        /// `[B, D]`, f32, f16 or bf16: the layer's hidden state; for `cosine`.
        optional_input hidden,
        /// `[B, D]`, of the same type: that of an earlier layer; for `cosine`.
        optional_input previous_hidden,
        /// `[B]`: 1 for a sequence that goes on, 0 for one that exits.
        output go_on: mask,
        /// `[B]`: the sequences that go on, then those that exit, each in their order.
        output permutation: integer,
        /// `[1]`: how many go on.
        output go_on_count: integer,
    }
}

/// `go_on[b] = 0` if sequence `b` reaches all, or any, of the thresholds, else 1.
///
/// What is not a finite number reaches no threshold: neither NaN nor infinite statistics exit, nor does the cosine of a
/// state without direction, or of one whose square exceeds f32. (A `second_logit` of `-inf` says that there is no second
/// token.) Only what is certain exits.
///
/// `permutation` and `go_on_count` are what [`CompactRows`](super::CompactRows) and [`ScatterRows`](super::ScatterRows)
/// move the sequences' rows by, without a round trip to the host. One launch for any batch; with a threshold of the
/// cosine two on wgpu, and two on CUDA for more than [`ExitGate::COSINE_ROWS_AT_ONCE`] sequences.
///
/// Source: CALM (arXiv 2207.07061), section 3.5: softmax response, state saturation and classifiers; LayerSkip
/// (arXiv 2404.16710).
///
/// ```
/// use siluette::{Cpu, ExitGate, ExitGateArgs, ExitThresholds, Require, TensorMut, TensorRef};
/// let entropy = [0.1f32, 2.0, f32::NAN, 0.3];
/// let (mut go_on, mut permutation, mut count) = ([0u8; 4], [0; 4], [0]);
/// let args = ExitGateArgs::new(
///     TensorMut::new(&mut go_on, &[4])?,
///     TensorMut::new(&mut permutation, &[4])?,
///     TensorMut::new(&mut count, &[1])?,
/// )
/// .entropy(TensorRef::new(&entropy, &[4])?);
/// let thresholds = ExitThresholds { entropy: Some(0.5), ..Default::default() };
/// Cpu::new().exit_gate(&ExitGate::new(thresholds, Require::All)?, args)?;
/// assert_eq!(go_on, [0, 1, 1, 0]);
/// assert_eq!((permutation, count), ([1, 2, 0, 3], [2]));
/// # Ok::<(), siluette::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExitGate {
    thresholds: ExitThresholds,
    require: Require,
}

const BY_ROW: &str = "one statistic a sequence";
const STATES: &str = "one row a sequence, of the same type and length in both";
const RESULT: &str = "one result a sequence";
const NEEDED: &str = "each threshold needs its inputs, and takes no others";

impl ExitGate {
    /// Sequences whose cosines CUDA finds within the one launch.
    pub const COSINE_ROWS_AT_ONCE: usize = 8;

    /// # Errors
    /// [`Problem::Missing`] without any threshold, [`Problem::Value`] for one that is not finite.
    pub fn new(thresholds: ExitThresholds, require: Require) -> Result<ExitGate, Error> {
        thresholds.check(ExitGate::NAME)?;
        Ok(ExitGate { thresholds, require })
    }

    /// What exits.
    pub fn thresholds(&self) -> &ExitThresholds {
        &self.thresholds
    }

    /// How many of the thresholds must be reached.
    pub fn require(&self) -> Require {
        self.require
    }
}

impl Operation for ExitGate {
    const NAME: &'static str = "exit_gate";
    const FAMILY: &'static str = "early_exit";
    const SUMMARY: &'static str =
        "which sequences go on to the deeper layers, and an order with these first";
    const PARAMETERS: &'static [ParameterInfo] = thresholds::PARAMETERS;

    type Args<In, Out> = ExitGateArgs<In, Out>;

    fn describe(_inputs: &NamedLayouts, parameters: &Parameters) -> Result<Self, Error> {
        let thresholds = ExitThresholds::parse(Self::NAME, parameters)?;
        ExitGate::new(thresholds, Require::parse(Self::NAME, parameters)?)
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        _parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let batch = |layout: &Layout| layout.shape().first().copied();
        let Some(rows) = inputs.values().find_map(batch) else {
            return Err(Error::argument(
                Self::NAME,
                "inputs",
                Problem::Missing,
                NEEDED,
                "none",
                "",
            ));
        };
        Ok(NamedLayouts::from([
            ("go_on".to_owned(), Layout::contiguous(DType::U8, &[rows])?),
            ("permutation".to_owned(), Layout::contiguous(DType::I32, &[rows])?),
            ("go_on_count".to_owned(), Layout::contiguous(DType::I32, &[1])?),
        ]))
    }

    fn validate(&self, args: &ExitGateArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let rows = args.go_on.elements();
        check.dimension("sequences", rows, 0)?;
        let thresholds = &self.thresholds;
        let statistics = [
            ("max_logit", &args.max_logit, thresholds.needs_logits()),
            ("second_logit", &args.second_logit, thresholds.margin.is_some()),
            ("log_sum_exp", &args.log_sum_exp, thresholds.needs_logits()),
            ("entropy", &args.entropy, thresholds.entropy.is_some()),
            ("classifier", &args.classifier, thresholds.classifier.is_some()),
        ];
        for (name, layout, is_needed) in statistics {
            check.presence(name, layout.is_some(), is_needed, NEEDED)?;
            check.optional_tensor(name, layout, DType::F32, &[rows], BY_ROW)?;
        }
        let is_needed = thresholds.cosine.is_some();
        check.presence("hidden", args.hidden.is_some(), is_needed, NEEDED)?;
        check.presence("previous_hidden", args.previous_hidden.is_some(), is_needed, NEEDED)?;
        if let Some(hidden) = &args.hidden {
            let shape = [rows, hidden.columns()];
            check.float("hidden", hidden.dtype())?;
            check.dimension("features", hidden.columns(), 0)?;
            check.tensor("hidden", hidden, hidden.dtype(), &shape, STATES)?;
            let (name, dtype) = ("previous_hidden", hidden.dtype());
            check.optional_tensor(name, &args.previous_hidden, dtype, &shape, STATES)?;
        }
        check.tensor("go_on", &args.go_on, DType::U8, &[rows], RESULT)?;
        check.tensor("permutation", &args.permutation, DType::I32, &[rows], RESULT)?;
        check.tensor("go_on_count", &args.go_on_count, DType::I32, &[1], "one count")
    }

    fn cost(&self, args: &ExitGateArgs<Layout, Layout>) -> Cost {
        let states = args.hidden.as_ref().map_or(0, Layout::elements);
        Cost { flops: 6 * states as u64, ..traffic(*args) }
    }

    fn workspace_bytes(&self, _args: &ExitGateArgs<Layout, Layout>) -> usize {
        0
    }

    fn run_reference(&self, args: ExitGateArgs<TensorRef<'_>, TensorMut<'_>>) -> Result<(), Error> {
        reference::exit_gate(self, args)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: ExitGateArgs<TensorRef<'_>, TensorMut<'_>>,
        _workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.exit_gate(self, args)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: ExitGateArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        _workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_exit_gate(self, args)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: ExitGateArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        _workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.exit_gate(stream, self, args)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &ExitGateArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        cuda::plan(cuda, self, args)
    }
}
