//! `exit_gate` on CUDA.

#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{ExitGate, ExitGateArgs, Require};
use crate::backend::cuda::binder::Binder;
use crate::backend::cuda::launch::{CudaPlan, Kernel, Launch};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaCapabilities, CudaTensor, CudaTensorMut};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::early_exit::gate_parameters::ExitGateParams;

impl Cuda {
    /// Enqueues [`ExitGate`] on the caller's stream.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn exit_gate(
        &self,
        stream: &Arc<CudaStream>,
        op: &ExitGate,
        mut args: ExitGateArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
    ) -> Result<(), Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let launches = launches(op, &layouts, self.capabilities())?;
        let mut binder = Binder::new(self, ExitGate::NAME, stream)?;
        let max_logit = binder.optional_input("max_logit", &args.max_logit)?;
        let second_logit = binder.optional_input("second_logit", &args.second_logit)?;
        let log_sum_exp = binder.optional_input("log_sum_exp", &args.log_sum_exp)?;
        let entropy = binder.optional_input("entropy", &args.entropy)?;
        let classifier = binder.optional_input("classifier", &args.classifier)?;
        let hidden = binder.optional_input("hidden", &args.hidden)?;
        let previous = binder.optional_input("previous_hidden", &args.previous_hidden)?;
        let go_on = binder.output("go_on", &mut args.go_on)?;
        let permutation = binder.output("permutation", &mut args.permutation)?;
        let go_on_count = binder.output("go_on_count", &mut args.go_on_count)?;
        binder.finish()?;
        let thresholds = op.thresholds();
        let parameters = ExitGateParams {
            max_logit: ReadPointer(max_logit.address()),
            second_logit: ReadPointer(second_logit.address()),
            log_sum_exp: ReadPointer(log_sum_exp.address()),
            entropy: ReadPointer(entropy.address()),
            classifier: ReadPointer(classifier.address()),
            hidden: ReadPointer(hidden.address()),
            previous_hidden: ReadPointer(previous.address()),
            go_on: WritePointer(go_on.address()),
            permutation: WritePointer(permutation.address()),
            go_on_count: WritePointer(go_on_count.address()),
            hidden_row_stride: hidden.row_stride(),
            previous_row_stride: previous.row_stride(),
            rows: layouts.go_on.elements() as i32,
            features: layouts.hidden.map_or(0, |hidden| hidden.columns()) as i32,
            vectorised: i32::from(hidden.is_vectorisable() && previous.is_vectorisable()),
            criteria: thresholds.criteria() as i32,
            require_all: i32::from(op.require() == Require::All),
            cosine_decided: i32::from(launches.cosine.is_some()),
            log_max_prob: thresholds.log_max_prob(),
            margin: thresholds.margin.unwrap_or_default(),
            most_entropy: thresholds.entropy.unwrap_or_default(),
            cosine: thresholds.cosine.unwrap_or_default(),
            classifier_score: thresholds.classifier.unwrap_or_default(),
        };
        for launch in [launches.cosine, Some(launches.gate)].into_iter().flatten() {
            let follows = launches.cosine.is_some_and(|cosine| cosine != launch);
            let function = self.function(ExitGate::NAME, stream, &launch)?;
            // SAFETY: `validate` proved shapes, strides and dtypes, and that what a criterion looks at is there; the
            // binder that outputs overlap nothing; `launches` follows the kernels' contracts.
            unsafe { self.launch(stream, &function, &launch, &parameters, follows)? };
        }
        Ok(())
    }
}

struct Launches {
    cosine: Option<Launch>,
    gate: Launch,
}

/// The launches for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &ExitGate,
    layouts: &ExitGateArgs<Layout, Layout>,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    let launches = launches(op, layouts, cuda.capabilities())?;
    let mut plan = CudaPlan::default();
    if let Some(cosine) = launches.cosine {
        plan.push(cosine);
    }
    plan.push(launches.gate);
    Ok(plan)
}

/// One block; where there are cosines of more rows than it has warps, these first.
fn launches(
    op: &ExitGate,
    layouts: &ExitGateArgs<Layout, Layout>,
    device: &CudaCapabilities,
) -> Result<Launches, Error> {
    const THREADS: u32 = 256;
    const WARPS: usize = THREADS as usize / 32;
    let dtype = layouts.hidden.map_or(DType::F32, |hidden| hidden.dtype());
    let launch = |name, blocks| {
        let source = "early_exit/exit_gate";
        let kernel = Kernel { source, name, activation: dtype, weight: dtype };
        Launch::new(ExitGate::NAME, kernel, [blocks, 1, 1], THREADS, 0, device)
    };
    let rows = layouts.go_on.elements();
    let has_many_cosines = op.thresholds().cosine.is_some() && rows > ExitGate::COSINE_ROWS_AT_ONCE;
    let cosine =
        has_many_cosines.then(|| launch("exit_cosine", rows.div_ceil(WARPS))).transpose()?;
    Ok(Launches { cosine, gate: launch("exit_gate", 1)? })
}
