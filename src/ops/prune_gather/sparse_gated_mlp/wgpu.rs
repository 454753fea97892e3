//! `sparse_gated_mlp` through wgpu: kernels of its own for few tokens, the dense first half and a selection for many.

use super::{SparseGatedMlp, SparseGatedMlpArgs, dense_tensors};
use crate::backend::wgpu::registry::{sparse_down, sparse_gate_up, sparse_select};
use crate::backend::wgpu::{
    Bound, MlpKernel, Operand, Plan, PlanBuilder, Shader, Wgpu, WgpuTensor, WgpuWorkspace,
    check_disjoint, dtype_code,
};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::ops::silu_mlp::mlp::config::MlpConfig;
use crate::ops::silu_mlp::mlp::wgpu::strategy::threads;
use crate::ops::silu_mlp::mlp::wgpu::{Batch, Launch, whole};

const SPARSE_GATE_UP: [[&Shader; 2]; 2] = [
    [&sparse_gate_up::SUBGROUP_VECTOR, &sparse_gate_up::SUBGROUP_SCALAR],
    [&sparse_gate_up::WORKGROUP_VECTOR, &sparse_gate_up::WORKGROUP_SCALAR],
];

impl Wgpu {
    /// Binds [`SparseGatedMlp`] to buffers, to be recorded as often as wanted: the SwiGLU block on the neurons that each
    /// token selects.
    ///
    /// Lists' values are not looked at: of those that
    /// [`Operation::validate_values`](crate::Operation::validate_values) would refuse, members out of range are skipped
    /// and offsets are cut to the list; nothing outside the tensors is touched.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit: with `transposed_down`, all of
    /// `down_weight` must fit one binding.
    pub fn plan_sparse_gated_mlp(
        &self,
        op: &SparseGatedMlp,
        args: SparseGatedMlpArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        let config = op.config;
        plan(self, op, &config, args, workspace)
    }
}

fn plan<'a>(
    wgpu: &'a Wgpu,
    op: &'a SparseGatedMlp,
    config: &'a MlpConfig,
    args: SparseGatedMlpArgs<WgpuTensor<'a>, WgpuTensor<'a>>,
    workspace: WgpuWorkspace<'a>,
) -> Result<Plan, Error> {
    op.validate(&args.layouts())?;
    let list = |name, tensor: Option<WgpuTensor<'a>>| {
        let operand = |tensor| Operand::new(config.op, name, tensor, wgpu.capabilities());
        tensor.map(operand).transpose()
    };
    let neurons = list("neurons", args.neurons)?;
    let neuron_offsets = list("neuron_offsets", args.neuron_offsets)?;
    let rows = args.x.layout().shape()[0];
    let is_sparse = match wgpu.dispatch().mlp {
        Some(kernel) => kernel == MlpKernel::Gemv,
        None => op.is_sparse(rows),
    };
    let threshold = if is_sparse { None } else { op.threshold() };
    let launch = Launch::new(wgpu, config, dense_tensors(args), threshold)?;
    for list in [neurons, neuron_offsets].iter().flatten() {
        check_disjoint(&launch.args.out, std::slice::from_ref(list))?;
    }
    let sparse = Sparse { op, launch, is_sparse, neurons, neuron_offsets };
    let mut builder = PlanBuilder::new(wgpu, config.op);
    let most = sparse.launch.tokens_at_once()?;
    for first in (0..rows).step_by(most) {
        sparse.tokens(&mut builder, first, most.min(rows - first), workspace)?;
    }
    builder.finish()
}

/// Everything that does not depend on which part is launched.
struct Sparse<'a> {
    op: &'a SparseGatedMlp,
    launch: Launch<'a>,
    is_sparse: bool,
    neurons: Option<Operand<'a>>,
    neuron_offsets: Option<Operand<'a>>,
}

impl<'a> Sparse<'a> {
    /// Everything for `count` tokens from `first` on.
    fn tokens(
        &self,
        builder: &mut PlanBuilder<'a>,
        first: usize,
        count: usize,
        workspace: WgpuWorkspace<'a>,
    ) -> Result<(), Error> {
        let batch = self.launch.batch(first, count, workspace)?;
        if self.op.ffn() == 0 {
            return self.launch.down(builder, &batch);
        }
        if self.is_sparse {
            self.gate_up(builder, &batch)?;
        } else {
            self.launch.prepare(builder, &batch)?;
            self.launch.gate_up(builder, &batch)?;
            self.select(builder, &batch)?;
        }
        if self.op.transposed_down {
            self.down(builder, &batch)
        } else {
            self.launch.down(builder, &batch)
        }
    }

    /// `h`, in as many launches as the weights need bindings.
    fn gate_up(&self, builder: &mut PlanBuilder<'a>, batch: &Batch<'a>) -> Result<(), Error> {
        let args = &self.launch.args;
        let weights = [args.gate_weight, args.up_weight];
        let mut most = usize::MAX;
        for weight in weights.iter().flatten() {
            most = most.min(weight.rows_per_binding()?);
        }
        for first in (0..self.op.ffn()).step_by(most) {
            let count = most.min(self.op.ffn() - first);
            let bind = |weight: Option<Operand<'a>>| {
                weight.map_or(Ok(Bound::ABSENT), |weight| weight.rows(first, count))
            };
            let [gate, up] = weights;
            self.gate_up_part(builder, batch, [bind(gate)?, bind(up)?], first, count)?;
        }
        Ok(())
    }

    fn gate_up_part(
        &self,
        builder: &mut PlanBuilder<'a>,
        batch: &Batch<'a>,
        [gate, up]: [Bound<'a>; 2],
        first: usize,
        count: usize,
    ) -> Result<(), Error> {
        let (op, launch, args) = (self.op, &self.launch, &self.launch.args);
        let workgroups = batch.count as u64 * (count as u64).div_ceil(4);
        let x = args.x.rows(batch.first, batch.count)?;
        let norm_weight = whole(&args.norm_weight)?;
        let (neurons, neuron_offsets) = (whole(&self.neurons)?, whole(&self.neuron_offsets)?);
        let constants = sparse_gate_up::Constants {
            threads: threads(op.hidden(), launch.wgpu.capabilities()),
            activation: launch.activation,
            weight: launch.weight,
        };
        let stride = |weight: Option<Operand<'_>>| weight.map_or(0, |weight| weight.stride());
        let parameters = sparse_gate_up::Parameters {
            hidden: op.hidden() as u32,
            neurons: count as u32,
            first_neuron: first as u32,
            tokens: batch.count as u32,
            workgroups: workgroups as u32,
            listed: self.listed(),
            eps: op.config.norm.map_or(0.0, |eps| eps.0),
            threshold: op.threshold().unwrap_or(0.0),
            x_start: x.start,
            x_stride: args.x.stride(),
            gate_start: gate.start,
            gate_stride: stride(args.gate_weight),
            up_start: up.start,
            up_stride: stride(args.up_weight),
            norm_start: norm_weight.start,
            neurons_start: neurons.start,
            offsets_start: neuron_offsets.start + batch.first as u32,
            h_start: batch.h.start + first as u32,
            h_stride: op.ffn() as u32,
            has_norm: u32::from(op.config.norm.is_some()),
            has_lists: u32::from(self.neuron_offsets.is_some()),
            round_each: u32::from(launch.round_each),
        };
        let bindings = sparse_gate_up::Bindings {
            x,
            gate_weight: gate,
            up_weight: up,
            norm_weight,
            neurons,
            neuron_offsets,
            h: batch.h,
        };
        let read = [Some(args.x), args.gate_weight, args.up_weight, args.norm_weight];
        let shader = launch.gemv_variant(SPARSE_GATE_UP, launch.vector(&read));
        builder.dispatch(shader, constants.values(), &parameters, bindings.into_array(), workgroups)
    }

    /// Zeros in a dense `h`, where lists select.
    fn select(&self, builder: &mut PlanBuilder<'a>, batch: &Batch<'a>) -> Result<(), Error> {
        let Some(neuron_offsets) = self.neuron_offsets else { return Ok(()) };
        let (neurons, neuron_offsets) = (whole(&self.neurons)?, neuron_offsets.whole()?);
        let threads = self.launch.wgpu.capabilities().invocations.min(128);
        let elements = batch.count * self.op.ffn();
        let parameters = sparse_select::Parameters {
            neurons: self.op.ffn() as u32,
            elements: elements as u32,
            listed: self.listed(),
            neurons_start: neurons.start,
            offsets_start: neuron_offsets.start + batch.first as u32,
            h_start: batch.h.start,
        };
        let bindings = sparse_select::Bindings { neurons, neuron_offsets, h: batch.h };
        let workgroups = (elements as u64).div_ceil(u64::from(threads));
        let constants = sparse_select::Constants { threads };
        builder.dispatch(
            &sparse_select::ONLY,
            constants.values(),
            &parameters,
            bindings.into_array(),
            workgroups,
        )
    }

    /// The output from down weights that have a row for each neuron.
    fn down(&self, builder: &mut PlanBuilder<'a>, batch: &Batch<'a>) -> Result<(), Error> {
        /// Invocations that share a row of the weight.
        const LANES: usize = 4;
        const CHUNK: usize = 8;
        let (op, launch, args) = (self.op, &self.launch, &self.launch.args);
        let vector = launch.vector(&[Some(args.down_weight)]);
        let columns = if vector { LANES * CHUNK } else { LANES };
        let tiles = op.hidden().div_ceil(columns);
        let workgroups = batch.count as u64 * tiles as u64;
        let residual = args.residual;
        let residual_rows = match residual {
            Some(residual) => residual.rows(batch.first, batch.count)?,
            None => Bound::ABSENT,
        };
        let (down_weight, out) =
            (args.down_weight.whole()?, args.out.rows(batch.first, batch.count)?);
        let constants = sparse_down::Constants {
            threads: threads(op.ffn(), launch.wgpu.capabilities()),
            weight: launch.weight,
        };
        let parameters = sparse_down::Parameters {
            hidden: op.hidden() as u32,
            neurons: op.ffn() as u32,
            tiles: tiles as u32,
            workgroups: workgroups as u32,
            h_start: batch.h.start,
            h_stride: op.ffn() as u32,
            down_start: down_weight.start,
            down_stride: args.down_weight.stride(),
            residual_start: residual_rows.start,
            residual_stride: residual.map_or(0, |residual| residual.stride()),
            out_start: out.start,
            out_stride: args.out.stride(),
            has_residual: u32::from(residual.is_some()),
            activation: launch.activation,
            out_dtype: dtype_code(args.out.layout().dtype()),
        };
        let bindings =
            sparse_down::Bindings { h: batch.h, down_weight, residual: residual_rows, out };
        let shader = if vector { &sparse_down::VECTOR } else { &sparse_down::SCALAR };
        builder.dispatch(shader, constants.values(), &parameters, bindings.into_array(), workgroups)
    }

    /// Length of all lists.
    fn listed(&self) -> u32 {
        // Validation keeps it below 2^31.
        self.neurons.map_or(0, |neurons| neurons.layout().elements() as u32)
    }
}
