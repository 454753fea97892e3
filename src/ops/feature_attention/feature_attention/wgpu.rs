//! `feature_attention` through wgpu.

use super::{FeatureAttention, FeatureAttentionArgs, LOCAL_STATE};
use crate::backend::wgpu::registry::feature_attention::{
    Bindings, Constants, Parameters, SUBGROUP_SCALAR_WORKGROUP, SUBGROUP_SCALAR_WORKSPACE,
    SUBGROUP_VECTOR_WORKGROUP, SUBGROUP_VECTOR_WORKSPACE, WORKGROUP_SCALAR_WORKGROUP,
    WORKGROUP_SCALAR_WORKSPACE, WORKGROUP_VECTOR_WORKGROUP, WORKGROUP_VECTOR_WORKSPACE,
};
use crate::backend::wgpu::{
    Bound, Operand, Plan, PlanBuilder, Reduction, Shader, Wgpu, WgpuTensor, WgpuWorkspace,
    check_disjoint, dtype_code,
};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::{HasLayout as _, Layout};
use crate::operation::Operation as _;
use crate::ops::silu_mlp::mlp::wgpu::strategy;

impl Wgpu {
    /// Binds [`FeatureAttention`] to buffers.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit: a binding must hold a text.
    pub fn plan_feature_attention(
        &self,
        op: &FeatureAttention,
        args: FeatureAttentionArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        let mut plan = PlanBuilder::new(self, FeatureAttention::NAME);
        if args.out.layout().elements() == 0 {
            return plan.finish();
        }
        let geometry = Geometry::new(self, op);
        let binder = Binder::new(self, op, args, workspace, geometry)?;
        let most = binder.texts_per_binding()?;
        for first in (0..binder.texts).step_by(most) {
            binder.dispatch(&mut plan, first, most.min(binder.texts - first))?;
        }
        plan.finish()
    }
}

/// What depends on features and device alone: the order of a text's sums.
#[derive(Clone, Copy)]
struct Geometry {
    threads: u32,
    /// Groups of tokens that are summed apart.
    groups: usize,
    /// Whether the state is too large for workgroup memory.
    is_spilled: bool,
}

impl Geometry {
    fn new(wgpu: &Wgpu, op: &FeatureAttention) -> Geometry {
        // One invocation adds up all groups.
        const MOST: usize = 32;
        let threads = strategy::threads(op.features, wgpu.capabilities());
        let wanted = (threads as usize / op.features.div_ceil(8)).clamp(1, MOST);
        let room = LOCAL_STATE.saturating_sub(op.reduced) / op.features;
        let is_spilled = op.state_elements(1) > LOCAL_STATE;
        Geometry { threads, groups: wanted.min(room).max(1), is_spilled }
    }
}

/// The tensors, those with a row a text as matrices of one row a text, to be bound in parts.
struct Binder<'a> {
    wgpu: &'a Wgpu,
    op: FeatureAttention,
    geometry: Geometry,
    texts: usize,
    tokens: usize,
    x: Texts<'a>,
    out: Texts<'a>,
    w1: Operand<'a>,
    w2: Operand<'a>,
    b1: Option<Operand<'a>>,
    b2: Option<Operand<'a>>,
    lengths: Option<Operand<'a>>,
    state: Option<Operand<'a>>,
    out_dtype: DType,
    is_vectorisable: bool,
}

/// A `[B, L, D]` tensor as a matrix of a row a text.
#[derive(Clone, Copy)]
struct Texts<'a> {
    matrix: Operand<'a>,
    row_stride: u32,
}

impl<'a> Texts<'a> {
    fn new(wgpu: &Wgpu, name: &'static str, tensor: WgpuTensor<'a>) -> Result<Texts<'a>, Error> {
        let layout = tensor.layout();
        let (texts, stride) = (layout.shape()[0], layout.strides()[0]);
        // The last text has no gap behind it.
        let span = layout.span() - (texts - 1) * stride;
        let matrix = Layout::strided(layout.dtype(), &[texts, span], &[stride, 1])?;
        let tensor = WgpuTensor::new(tensor.buffer(), tensor.offset(), matrix);
        let matrix = Operand::new(FeatureAttention::NAME, name, tensor, wgpu.capabilities())?;
        // A text that a binding holds has strides that fit.
        Ok(Texts { matrix, row_stride: u32::try_from(layout.row_stride()).unwrap_or(u32::MAX) })
    }
}

impl<'a> Binder<'a> {
    fn new(
        wgpu: &'a Wgpu,
        op: &FeatureAttention,
        args: FeatureAttentionArgs<WgpuTensor<'a>, WgpuTensor<'a>>,
        workspace: WgpuWorkspace<'a>,
        geometry: Geometry,
    ) -> Result<Binder<'a>, Error> {
        let capabilities = wgpu.capabilities();
        let operand =
            |name, tensor| Operand::new(FeatureAttention::NAME, name, tensor, capabilities);
        let optional =
            |name, tensor: Option<_>| tensor.map(|tensor| operand(name, tensor)).transpose();
        let shape = args.x.layout();
        let (texts, tokens) = (shape.shape()[0], shape.shape()[1]);
        let [x, out] = [operand("x", args.x)?, operand("out", args.out)?];
        let state = geometry
            .is_spilled
            .then(|| {
                let shape = [texts, op.state_elements(1)];
                workspace.tensor(FeatureAttention::NAME, 0, &shape, capabilities)
            })
            .transpose()?;
        let binder = Binder {
            wgpu,
            op: *op,
            geometry,
            texts,
            tokens,
            x: Texts::new(wgpu, "x", args.x)?,
            out: Texts::new(wgpu, "out", args.out)?,
            w1: operand("w1", args.w1)?,
            w2: operand("w2", args.w2)?,
            b1: optional("b1", args.b1)?,
            b2: optional("b2", args.b2)?,
            lengths: optional("lengths", args.lengths)?,
            state,
            out_dtype: out.layout().dtype(),
            is_vectorisable: x.is_vectorisable() && out.is_vectorisable(),
        };
        let optional = [binder.b1, binder.b2, binder.lengths, binder.state];
        let inputs = [x, binder.w1, binder.w2].into_iter().chain(optional.into_iter().flatten());
        check_disjoint(&out, &inputs.collect::<Vec<_>>())?;
        Ok(binder)
    }

    fn texts_per_binding(&self) -> Result<usize, Error> {
        let most = self.x.matrix.rows_per_binding()?.min(self.out.matrix.rows_per_binding()?);
        match self.state {
            Some(state) => Ok(most.min(state.rows_per_binding()?)),
            None => Ok(most),
        }
    }

    fn dispatch(
        &self,
        plan: &mut PlanBuilder<'a>,
        first: usize,
        count: usize,
    ) -> Result<(), Error> {
        let optional = |operand: &Option<Operand<'a>>| match operand {
            Some(operand) => operand.whole(),
            None => Ok(Bound::ABSENT),
        };
        let bindings = Bindings {
            x: self.x.matrix.rows(first, count)?,
            w1: self.w1.whole()?,
            w2: self.w2.whole()?,
            b1: optional(&self.b1)?,
            b2: optional(&self.b2)?,
            lengths: optional(&self.lengths)?,
            out: self.out.matrix.rows(first, count)?,
            workspace: match self.state {
                Some(state) => state.rows(first, count)?,
                None => Bound::ABSENT,
            },
        };
        let parameters = Parameters {
            texts: count as u32,
            tokens: self.tokens as u32,
            features: self.op.features as u32,
            reduced: self.op.reduced as u32,
            groups: self.geometry.groups as u32,
            units: match self.out_dtype.size() {
                4 => self.op.features,
                // A row of halves that starts in the middle of a word touches one more.
                _ => self.op.features / 2 + 1,
            } as u32,
            tanh: u32::from(self.op.tanh),
            has_b1: u32::from(self.b1.is_some()),
            has_b2: u32::from(self.b2.is_some()),
            has_lengths: u32::from(self.lengths.is_some()),
            x_start: bindings.x.start,
            x_text_stride: self.x.matrix.stride(),
            x_row_stride: self.x.row_stride,
            w1_start: bindings.w1.start,
            w1_stride: self.w1.stride(),
            w2_start: bindings.w2.start,
            w2_stride: self.w2.stride(),
            b1_start: bindings.b1.start,
            b2_start: bindings.b2.start,
            lengths_start: bindings.lengths.start + first as u32,
            out_start: bindings.out.start,
            out_text_stride: self.out.matrix.stride(),
            out_row_stride: self.out.row_stride,
            workspace_start: bindings.workspace.start,
        };
        let constants = Constants {
            threads: self.geometry.threads,
            activation: dtype_code(self.op.dtype),
            weight: dtype_code(self.op.weight_dtype),
            out: dtype_code(self.out_dtype),
            state: match self.state {
                Some(_) => 1,
                // One size, so that one pipeline serves all shapes.
                None => LOCAL_STATE as u32,
            },
        };
        let bindings = bindings.into_array();
        plan.dispatch(self.shader(), constants.values(), &parameters, bindings, count as u64)
    }

    fn shader(&self) -> &'static Shader {
        let dispatch = self.wgpu.dispatch();
        let vector = self.is_vectorisable && !dispatch.scalar_loads;
        let reduction = strategy::reduction(self.wgpu.capabilities(), &dispatch);
        match (reduction, vector, self.state.is_some()) {
            (Reduction::Subgroup, false, false) => &SUBGROUP_SCALAR_WORKGROUP,
            (Reduction::Subgroup, false, true) => &SUBGROUP_SCALAR_WORKSPACE,
            (Reduction::Subgroup, true, false) => &SUBGROUP_VECTOR_WORKGROUP,
            (Reduction::Subgroup, true, true) => &SUBGROUP_VECTOR_WORKSPACE,
            (Reduction::Workgroup, false, false) => &WORKGROUP_SCALAR_WORKGROUP,
            (Reduction::Workgroup, false, true) => &WORKGROUP_SCALAR_WORKSPACE,
            (Reduction::Workgroup, true, false) => &WORKGROUP_VECTOR_WORKGROUP,
            (Reduction::Workgroup, true, true) => &WORKGROUP_VECTOR_WORKSPACE,
        }
    }
}
