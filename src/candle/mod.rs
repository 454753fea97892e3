//! Operations on candle's tensors.
//!
//! [`Runner::run`] takes any operation of this crate with candle's tensors in its argument struct, and gives the same
//! struct back with the results in it:
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use siluette::candle::{Output, Runner};
//! use siluette::{DType, GatedMlp, GatedMlpArgs};
//!
//! let runner = Runner::new();
//! let ones = |shape: (usize, usize)| Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu);
//! let (x, gate, up, down) = (ones((2, 4))?, ones((3, 4))?, ones((3, 4))?, ones((4, 3))?);
//! let op = GatedMlp::new(4, 3, DType::F32)?;
//! let args = GatedMlpArgs::new(&x, &gate, &up, &down, Output::like(&x)?);
//! let out: Tensor = runner.run(&op, args)?.out;
//! assert_eq!(out.dims(), [2, 4]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - **Inputs are read where they lie**, whatever their offsets and strides, on candle's own storage. Only a tensor with
//!   strides that the operation refuses, such as a transposed matrix, is copied first.
//! - **Outputs are new tensors**, without gaps, that no copy is made of. What an operation changes in place
//!   ([`Role::Update`](crate::arguments::Role)) is copied first, as everywhere in candle: [`Output::changed`].
//! - Nothing is recorded for a backward pass: these are operations of inference.
//! - Errors are this crate's, inside [`candle_core::Error::Wrapped`], around which candle may put a backtrace.
//!
//! Tensors lie in host memory or, with the feature `candle-cuda`, on a GPU, where operations are enqueued on the stream of
//! candle's device. For that feature candle compiles kernels of its own, which takes a CUDA toolkit.
//!
//! Called from a thread of rayon's pool (`rayon::scope(|_| generate())`), operations on the CPU start at once; from any
//! other, each wakes a thread of the pool first and waits for it: tens of microseconds, several times that on virtual
//! machines.
//!
//! Rows are tokens: flatten `[batch, tokens, features]` with `flatten(0, 1)`, which copies nothing.

#[cfg(feature = "candle-cuda")]
mod cuda;
mod storage;

use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Tensor};

use crate::arguments::{ArgumentInfo, Arguments};
use crate::backend::cpu::{Cpu, Workspace};
use crate::error::{Backend, Error, Problem};
use crate::layout::Layout;
use crate::operation::Operation;
use storage::{NewStorage, layout_of};

/// An output to be made.
#[derive(Clone, Debug)]
pub struct Output(Kind);

#[derive(Clone, Debug)]
enum Kind {
    New(Layout),
    Changed(Tensor),
}

impl Output {
    /// A new tensor.
    ///
    /// # Errors
    /// Types that this crate does not know, more than [`MAX_RANK`](crate::MAX_RANK) dimensions.
    pub fn new(dtype: candle_core::DType, shape: &[usize]) -> Result<Output, Error> {
        Ok(Output(Kind::New(Layout::contiguous(dtype.try_into()?, shape)?)))
    }

    /// A new tensor of the type and shape of another one.
    ///
    /// # Errors
    /// As [`Output::new`].
    pub fn like(tensor: &Tensor) -> Result<Output, Error> {
        Output::new(tensor.dtype(), tensor.dims())
    }

    /// A copy of a tensor that the operation changes some of.
    pub fn changed(tensor: &Tensor) -> Output {
        Output(Kind::Changed(tensor.clone()))
    }

    fn layout(&self) -> Result<Layout, Error> {
        match &self.0 {
            Kind::New(layout) => Ok(*layout),
            Kind::Changed(tensor) => Layout::contiguous(tensor.dtype().try_into()?, tensor.dims()),
        }
    }
}

/// An operation's arguments as they are given.
type Inputs = [(&'static ArgumentInfo, Tensor)];
type Outputs = [(&'static ArgumentInfo, Output)];
/// By the arguments' names.
type Results = Vec<(&'static str, Tensor)>;

/// Runs operations on candle's tensors.
///
/// Keeps the scratch memory of the largest operation that it has run on a device; runs there take turns on it.
#[derive(Debug, Default)]
pub struct Runner {
    cpu: Cpu,
    workspace: Mutex<Workspace>,
    #[cfg(feature = "candle-cuda")]
    gpus: cuda::Gpus,
}

impl Runner {
    /// On rayon's global thread pool, which candle uses, too.
    pub fn new() -> Runner {
        Runner::default()
    }

    /// On a given CPU context: another thread pool or instruction set.
    pub fn with_cpu(cpu: Cpu) -> Runner {
        Runner { cpu, ..Runner::default() }
    }

    /// Runs an operation where its inputs are; results stand in the outputs' places of the struct that is returned.
    ///
    /// On a GPU the operation is enqueued on the stream of candle's device, and nothing waits for it.
    ///
    /// # Errors
    /// Those of the operation, [`Error::Unsupported`] for tensors that are elsewhere than in host memory (with the feature
    /// `candle-cuda`, or on one GPU), and those of copying tensors with strides that the operation refuses.
    pub fn run<O: Operation>(
        &self,
        op: &O,
        args: O::Args<&Tensor, Output>,
    ) -> candle_core::Result<O::Args<(), Tensor>> {
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        args.visit(
            |info, tensor| inputs.push((info, tensor.clone())),
            |info, output| outputs.push((info, output)),
        );
        fit::<O>(op, &mut inputs, &outputs)?;
        let mut results = self.run_where_it_is(op, &inputs, &outputs)?;
        let mut take = |name| {
            let place = results.iter().position(|(other, _)| *other == name)?;
            Some(results.swap_remove(place).1)
        };
        Ok(O::Args::collect(O::NAME, |_| Ok(Some(())), |info| Ok(take(info.name)))?)
    }

    fn run_where_it_is<O: Operation>(
        &self,
        op: &O,
        inputs: &Inputs,
        outputs: &Outputs,
    ) -> candle_core::Result<Results> {
        #[cfg(feature = "candle-cuda")]
        if let Some(Device::Cuda(device)) = inputs.first().map(|(_, tensor)| tensor.device()) {
            return self.gpus.run(op, device, inputs, outputs);
        }
        self.run_on_host(op, inputs, outputs)
    }

    fn run_on_host<O: Operation>(
        &self,
        op: &O,
        inputs: &Inputs,
        outputs: &Outputs,
    ) -> candle_core::Result<Results> {
        let guards: Vec<_> =
            inputs.iter().map(|(info, tensor)| (info.name, tensor.storage_and_layout())).collect();
        let mut views = Vec::with_capacity(guards.len());
        for (name, (storage, layout)) in &guards {
            views.push((*name, storage::view(O::NAME, name, storage, layout)?));
        }
        let mut results = new_storages::<O>(outputs)?;
        let mut outputs = Vec::with_capacity(results.len());
        for (info, result) in &mut results {
            outputs.push((info.name, result.view_mut()?));
        }
        let mut take = |name| {
            let place = outputs.iter().position(|(other, _)| *other == name)?;
            Some(outputs.swap_remove(place).1)
        };
        let args = O::Args::collect(
            O::NAME,
            |info| Ok(views.iter().find(|(name, _)| *name == info.name).map(|(_, view)| *view)),
            |info| Ok(take(info.name)),
        )?;
        // Scratch memory holds nothing between runs, so that one that panicked left nothing broken.
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        op.run_cpu(&self.cpu, args, &mut workspace)?;
        Ok(results.into_iter().map(|(info, result)| (info.name, result.into_tensor())).collect())
    }
}

/// Copies inputs whose strides the operation refuses, one after the other.
fn fit<O: Operation>(
    op: &O,
    inputs: &mut [(&'static ArgumentInfo, Tensor)],
    outputs: &Outputs,
) -> candle_core::Result<()> {
    loop {
        let refused = match validate::<O>(op, inputs, outputs) {
            Err(Error::Argument { argument, problem: Problem::Stride, .. }) => inputs
                .iter_mut()
                .find(|(info, tensor)| info.name == argument && !tensor.is_contiguous()),
            Err(error) => return Err(error.into()),
            Ok(()) => return Ok(()),
        };
        match refused {
            Some((_, tensor)) => *tensor = tensor.contiguous()?,
            // Not for its strides, then.
            None => return Ok(validate::<O>(op, inputs, outputs)?),
        }
    }
}

fn validate<O: Operation>(op: &O, inputs: &Inputs, outputs: &Outputs) -> Result<(), Error> {
    let input = |info: &ArgumentInfo| {
        let found = inputs.iter().find(|(other, _)| other.name == info.name);
        found.map(|(_, tensor)| layout_of(tensor)).transpose()
    };
    let output = |info: &ArgumentInfo| {
        let found = outputs.iter().find(|(other, _)| other.name == info.name);
        found.map(|(_, output)| output.layout()).transpose()
    };
    op.validate(&O::Args::collect(O::NAME, input, output)?)
}

fn new_storages<O: Operation>(
    outputs: &Outputs,
) -> candle_core::Result<Vec<(&'static ArgumentInfo, NewStorage)>> {
    let mut storages = Vec::with_capacity(outputs.len());
    for (info, output) in outputs {
        let storage = match &output.0 {
            Kind::New(layout) => NewStorage::zeros(*layout),
            Kind::Changed(tensor) => {
                let mut storage = NewStorage::zeros(output.layout()?);
                let tensor = tensor.contiguous()?;
                let (source, layout) = tensor.storage_and_layout();
                storage.copy_from(&storage::view(O::NAME, info.name, &source, layout)?)?;
                storage
            }
        };
        storages.push((*info, storage));
    }
    Ok(storages)
}

fn not_on_host(op: &'static str, argument: &str, device: &Device) -> Error {
    Error::Unsupported {
        op,
        backend: Backend::Cpu,
        reason: format!("{argument} is on {:?}", device.location()),
        remedy: "move it with `to_device(&Device::Cpu)`".into(),
    }
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> candle_core::Error {
        candle_core::Error::wrap(error)
    }
}
