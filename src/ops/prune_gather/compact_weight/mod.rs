//! `compact_weight`: the rows and columns of a weight that pruning left.

pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod reference;
#[cfg(feature = "wgpu")]
pub(crate) mod wgpu;

use super::index_set::{check_ascending, index_values};
use crate::arguments::arguments;
use crate::backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Cuda, CudaPlan, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::{Cost, NamedLayouts, Operation};
use crate::ops::silu_mlp::mlp::config::input;
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};
use crate::validate::Validator;

arguments! {
    /// Tensors of [`CompactWeight`]; `R` rows and `C` columns, of which `r` and `c` are kept.
    pub struct CompactWeightArgs {
        /// `[R, C]`.
        input weight,
        /// `[r]`, strictly ascending and below `R`; absent, all rows are kept.
        optional_input rows: index,
        /// `[c]`, strictly ascending and below `C`; absent, all columns are kept.
        optional_input columns: index,
        /// `[r, c]`, its rows padded with zeros where the descriptor says so.
        output out,
    }
}

/// `out = weight[rows][:, columns]`: bits are copied as they are, in one pass.
///
/// On a GPU, where indices cannot be checked, one that is out of range gives zeros.
///
/// Source: DISP-LLM (arXiv 2410.11988), section 3.3: the compact model, whose products are smaller dense ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CompactWeight {
    rows: usize,
    columns: usize,
    kept_rows: Option<usize>,
    kept_columns: Option<usize>,
    pad: usize,
    dtype: DType,
}

const PAD: ParameterInfo = ParameterInfo {
    name: "pad",
    values: "a number of at least 1",
    default: "1",
    description: "rows of the output are padded with zeros to a multiple of this",
};
const WEIGHT: &str = "out_features = rows, in_features = columns";
const INDICES: &str = "one index a kept row or column";
const SELECTED: &str = "it goes with a descriptor that keeps a number of them";
const OUT: &str = "kept rows, kept columns with padding";

impl CompactWeight {
    /// Keeps everything of a weight of this shape, without padding.
    ///
    /// # Errors
    /// [`Problem::Size`](crate::Problem::Size) above 2^31 - 1, [`Problem::DType`](crate::Problem::DType) for an integer
    /// type.
    pub fn new(rows: usize, columns: usize, dtype: DType) -> Result<CompactWeight, Error> {
        let check = Validator::new(CompactWeight::NAME);
        check.dimension("rows", rows, 0)?;
        check.dimension("columns", columns, 0)?;
        check.float("dtype", dtype)?;
        Ok(CompactWeight { rows, columns, kept_rows: None, kept_columns: None, pad: 1, dtype })
    }

    /// Keeps this many rows; takes `rows`.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) for more than there are.
    pub fn with_rows(self, kept: usize) -> Result<CompactWeight, Error> {
        Validator::new(Self::NAME).subset("rows", kept, self.rows)?;
        Ok(CompactWeight { kept_rows: Some(kept), ..self })
    }

    /// Keeps this many columns; takes `columns`.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) for more than there are.
    pub fn with_columns(self, kept: usize) -> Result<CompactWeight, Error> {
        Validator::new(Self::NAME).subset("columns", kept, self.columns)?;
        Ok(CompactWeight { kept_columns: Some(kept), ..self })
    }

    /// Pads rows with zeros to a multiple of `multiple` elements, as tensor cores like them. The padded length may not
    /// exceed 2^31 - 1 either, which is checked with the tensors.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) for 0, [`Problem::Size`](crate::Problem::Size) above 2^31 - 1.
    pub fn with_padding(self, multiple: usize) -> Result<CompactWeight, Error> {
        Validator::new(Self::NAME).dimension(PAD.name, multiple, 1)?;
        Ok(CompactWeight { pad: multiple, ..self })
    }

    /// Rows of `out`.
    pub fn out_rows(&self) -> usize {
        self.kept_rows.unwrap_or(self.rows)
    }

    /// Columns of `out`, padding included.
    pub fn out_columns(&self) -> usize {
        self.selected_columns().next_multiple_of(self.pad)
    }

    /// Columns of `out` that come from `weight`.
    pub(crate) fn selected_columns(&self) -> usize {
        self.kept_columns.unwrap_or(self.columns)
    }
}

impl Operation for CompactWeight {
    const NAME: &'static str = "compact_weight";
    const FAMILY: &'static str = "prune_gather";
    const SUMMARY: &'static str = "weight[rows][:, columns], padded with zeros";
    const PARAMETERS: &'static [ParameterInfo] = &[PAD];

    type Args<In, Out> = CompactWeightArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<Self, Error> {
        let weight = input(Self::NAME, inputs, "weight")?;
        let rows = weight.shape().first().copied().unwrap_or(1);
        let mut op = CompactWeight::new(rows, weight.columns(), weight.dtype())?;
        if let Some(rows) = inputs.get("rows") {
            op = op.with_rows(rows.columns())?;
        }
        if let Some(columns) = inputs.get("columns") {
            op = op.with_columns(columns.columns())?;
        }
        op.with_padding(parameters.parse(Self::NAME, &PAD)?.unwrap_or(1))
    }

    fn outputs(
        &self,
        _inputs: &NamedLayouts,
        _parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let out = Layout::contiguous(self.dtype, &[self.out_rows(), self.out_columns()])?;
        Ok(NamedLayouts::from([("out".to_owned(), out)]))
    }

    fn validate(&self, args: &CompactWeightArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        check.dimension("pad", self.out_columns(), 0)?;
        check.tensor("weight", &args.weight, self.dtype, &[self.rows, self.columns], WEIGHT)?;
        for (name, indices, kept) in
            [("rows", &args.rows, self.kept_rows), ("columns", &args.columns, self.kept_columns)]
        {
            check.presence(name, indices.is_some(), kept.is_some(), SELECTED)?;
            check.optional_tensor(name, indices, DType::U32, &[kept.unwrap_or(0)], INDICES)?;
        }
        check.tensor("out", &args.out, self.dtype, &[self.out_rows(), self.out_columns()], OUT)
    }

    fn validate_values(
        &self,
        args: &CompactWeightArgs<TensorRef<'_>, Layout>,
    ) -> Result<(), Error> {
        for (name, indices, all) in
            [("rows", args.rows, self.rows), ("columns", args.columns, self.columns)]
        {
            if let Some(indices) = indices {
                check_ascending(Self::NAME, name, index_values(indices), all)?;
            }
        }
        Ok(())
    }

    fn cost(&self, args: &CompactWeightArgs<Layout, Layout>) -> Cost {
        let indices: usize =
            [args.rows, args.columns].iter().flatten().map(|indices| indices.elements()).sum();
        let read = self.out_rows() * self.selected_columns() * self.dtype.size();
        Cost {
            flops: 0,
            bytes_read: (read + indices * DType::U32.size()) as u64,
            bytes_written: (args.out.elements() * self.dtype.size()) as u64,
        }
    }

    fn workspace_bytes(&self, _args: &CompactWeightArgs<Layout, Layout>) -> usize {
        0
    }

    fn run_reference(
        &self,
        args: CompactWeightArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        reference::compact_weight(self, args)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: CompactWeightArgs<TensorRef<'_>, TensorMut<'_>>,
        _workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.compact_weight(self, args)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: CompactWeightArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        _workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_compact_weight(self, args)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: CompactWeightArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        _workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.compact_weight(stream, self, args)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &CompactWeightArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        cuda::plan(cuda, self, args)
    }
}
