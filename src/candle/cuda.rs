//! Operations on candle's tensors in a GPU's memory.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backend::BackendDevice as _;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DriverError};
use candle_core::cuda_backend::{CudaStorage, CudaStorageSlice};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, Storage, Tensor};

use super::storage::unknown;
use super::{Inputs, Kind, Outputs, Results};
use crate::arguments::Arguments;
use crate::backend::cuda::{Cuda, CudaTensor, CudaTensorMut, CudaWorkspace};
use crate::dtype::{DType, bf16, f16};
use crate::error::{Backend, Error};
use crate::layout::Layout;
use crate::operation::Operation;

/// The GPUs that operations have run on.
#[derive(Debug, Default)]
pub(super) struct Gpus(Mutex<Vec<Arc<Gpu>>>);

#[derive(Debug)]
struct Gpu {
    device: CudaDevice,
    cuda: Cuda,
    /// Grows to what the largest operation so far has needed. Who enqueues holds it until that is done; on the device,
    /// the stream's order keeps uses apart.
    workspace: Mutex<CudaSlice<u8>>,
}

impl Gpus {
    /// The kernels and scratch memory that go with a device, made when it is first seen.
    fn get(&self, device: &CudaDevice) -> candle_core::Result<Arc<Gpu>> {
        let mut gpus = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gpu) = gpus.iter().find(|gpu| gpu.device.same_device(device)) {
            return Ok(gpu.clone());
        }
        let gpu = Arc::new(Gpu {
            device: device.clone(),
            cuda: Cuda::new(device.cuda_stream().context())?,
            workspace: Mutex::new(device.alloc_zeros(1)?),
        });
        gpus.push(gpu.clone());
        Ok(gpu)
    }

    /// Enqueues an operation on the device's stream; `inputs` lie there.
    pub(super) fn run<O: Operation>(
        &self,
        op: &O,
        device: &CudaDevice,
        inputs: &Inputs,
        outputs: &Outputs,
    ) -> candle_core::Result<Results> {
        let gpu = self.get(device)?;
        let mut results = Vec::with_capacity(outputs.len());
        for (info, output) in outputs {
            let result = match &output.0 {
                Kind::New(layout) => NewTensor::zeros(device, *layout)?,
                Kind::Changed(tensor) => NewTensor::copy_of::<O>(device, info.name, tensor)?,
            };
            results.push((info.name, result));
        }
        gpu.enqueue(op, inputs, &mut results)?;
        Ok(results.into_iter().map(|(name, result)| (name, result.into_tensor(device))).collect())
    }
}

impl Gpu {
    fn enqueue<O: Operation>(
        &self,
        op: &O,
        inputs: &Inputs,
        results: &mut [(&'static str, NewTensor)],
    ) -> candle_core::Result<()> {
        let guards: Vec<_> =
            inputs.iter().map(|(info, tensor)| (info.name, tensor.storage_and_layout())).collect();
        let mut views = Vec::with_capacity(guards.len());
        for (name, (storage, layout)) in &guards {
            views.push((*name, View::new::<O>(name, storage, layout)?, *layout));
        }
        let layouts = O::Args::collect(
            O::NAME,
            |info| {
                let found = inputs.iter().find(|(other, _)| other.name == info.name);
                found.map(|(_, tensor)| super::storage::layout_of(tensor)).transpose()
            },
            |info| {
                let found = results.iter().find(|(name, _)| *name == info.name);
                Ok(found.map(|(_, result)| result.layout))
            },
        )?;
        let mut workspace = self.workspace(op.workspace_bytes(&layouts))?;
        let mut outputs = Vec::with_capacity(results.len());
        for (name, result) in results {
            outputs.push((*name, result.view_mut()?));
        }
        let mut take = |name| {
            let place = outputs.iter().position(|(other, _)| *other == name)?;
            Some(outputs.swap_remove(place).1)
        };
        let args = O::Args::collect(
            O::NAME,
            |info| {
                let found = views.iter().find(|(name, ..)| *name == info.name);
                found.map(|(_, view, layout)| view.tensor(layout)).transpose()
            },
            |info| Ok(take(info.name)),
        )?;
        let workspace = CudaWorkspace::new(&mut *workspace);
        Ok(op.enqueue_cuda(&self.cuda, &self.device.cuda_stream(), args, workspace)?)
    }

    fn workspace(
        &self,
        bytes: usize,
    ) -> candle_core::Result<std::sync::MutexGuard<'_, CudaSlice<u8>>> {
        // Scratch memory holds nothing between runs, so that one that panicked left nothing broken.
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        if workspace.len() < bytes {
            // The former one is freed on the stream, behind what still uses it.
            *workspace = self.device.alloc_zeros(bytes)?;
        }
        Ok(workspace)
    }
}

fn failed(error: DriverError) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

macro_rules! storage_of {
    ($($variant:ident($rust:ty)),* $(,)?) => {
        /// A tensor where candle has it, from its first element on.
        enum View<'a> {
            $($variant(CudaView<'a, $rust>),)*
        }

        impl<'a> View<'a> {
            fn new<O: Operation>(
                argument: &str,
                storage: &'a Storage,
                layout: &candle_core::Layout,
            ) -> Result<View<'a>, Error> {
                let Storage::Cuda(storage) = storage else {
                    return Err(Error::Unsupported {
                        op: O::NAME,
                        backend: Backend::Cuda,
                        reason: format!("{argument} is not in the GPU's memory"),
                        remedy: "move it with `to_device`".into(),
                    });
                };
                Ok(match &storage.slice {
                    // An empty tensor may start behind the last element.
                    $(CudaStorageSlice::$variant(data) => {
                        View::$variant(data.slice(layout.start_offset().min(data.len())..))
                    })*
                    _ => {
                        use candle_core::backend::BackendStorage as _;
                        return Err(unknown(storage.dtype()));
                    }
                })
            }

            fn tensor(&self, layout: &candle_core::Layout) -> Result<CudaTensor<'_>, Error> {
                match self {
                    $(View::$variant(data) => {
                        CudaTensor::strided(data, layout.dims(), layout.stride())
                    })*
                }
            }
        }

        impl NewTensor {
            fn zeros(device: &CudaDevice, layout: Layout) -> candle_core::Result<NewTensor> {
                // CUDA allocates no empty memory.
                let elements = layout.elements().max(1);
                let slice = match layout.dtype() {
                    $(DType::$variant => {
                        CudaStorageSlice::$variant(device.alloc_zeros::<$rust>(elements)?)
                    })*
                };
                Ok(NewTensor { slice, layout })
            }

            fn view_mut(&mut self) -> Result<CudaTensorMut<'_>, Error> {
                match &mut self.slice {
                    $(CudaStorageSlice::$variant(data) => {
                        CudaTensorMut::new(data, self.layout.shape())
                    })*
                    _ => unreachable!("made by `zeros`"),
                }
            }

            /// From elements without gaps.
            fn fill(&mut self, device: &CudaDevice, source: &View<'_>) -> candle_core::Result<()> {
                let elements = self.layout.elements();
                match (&mut self.slice, source) {
                    $((CudaStorageSlice::$variant(data), View::$variant(source)) => {
                        let source = source.slice(..elements);
                        let mut data = data.slice_mut(..elements);
                        device.cuda_stream().memcpy_dtod(&source, &mut data).map_err(failed)
                    })*
                    _ => unreachable!("of the same type"),
                }
            }
        }
    };
}

storage_of!(F32(f32), F16(f16), BF16(bf16), U8(u8), I32(i32), U32(u32),);

/// A result on its way to a candle tensor.
struct NewTensor {
    slice: CudaStorageSlice,
    layout: Layout,
}

impl NewTensor {
    fn copy_of<O: Operation>(
        device: &CudaDevice,
        argument: &str,
        tensor: &Tensor,
    ) -> candle_core::Result<NewTensor> {
        let tensor = tensor.contiguous()?;
        let layout = Layout::contiguous(tensor.dtype().try_into()?, tensor.dims())?;
        let mut result = NewTensor::zeros(device, layout)?;
        let (storage, layout) = tensor.storage_and_layout();
        let source = View::new::<O>(argument, &storage, layout)?;
        if result.layout.elements() > 0 {
            result.fill(device, &source)?;
        }
        Ok(result)
    }

    fn into_tensor(self, device: &CudaDevice) -> Tensor {
        let storage = CudaStorage { slice: self.slice, device: device.clone() };
        Tensor::from_storage(Storage::Cuda(storage), self.layout.shape(), BackpropOp::none(), false)
    }
}
