//! From validated tensors to device pointers.

use std::sync::Arc;

use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaStream, SyncOnDrop};

use super::Cuda;
use super::driver::device_error;
use super::region::Region;
use super::tensor::{CudaTensor, CudaTensorMut, CudaWorkspace};
use crate::arguments::MAX_REPEATED;
use crate::error::{Backend, Error, Problem};
use crate::layout::{HasLayout as _, Layout};

/// The most arguments of one call, its workspace included: ten for each layer or branch, and some.
const MAX_ARGUMENTS: usize = 10 * MAX_REPEATED + 20;
/// What 16-byte loads need.
pub(crate) const VECTOR_BYTES: u64 = 16;
/// What cudarc's and CUDA's own allocations are aligned to.
const WORKSPACE_ALIGNMENT: u64 = 256;

/// Collects the pointers of one call and proves that nothing written overlaps anything else.
#[derive(Debug)]
pub(crate) struct Binder<'s> {
    op: &'static str,
    stream: &'s Arc<CudaStream>,
    regions: [Option<Bound>; MAX_ARGUMENTS],
    length: usize,
}

#[derive(Clone, Copy, Debug)]
struct Bound {
    name: &'static str,
    region: Region,
    written: bool,
}

/// An argument's pointer. While it lives, the stream has waited for the memory's earlier uses; when it is dropped, its
/// use is recorded for those to come.
#[derive(Debug)]
pub(crate) struct Pointer<'s> {
    address: CUdeviceptr,
    row_stride: i64,
    vectorisable: bool,
    _guard: Option<SyncOnDrop<'s>>,
}

impl Pointer<'_> {
    /// The address on the device.
    pub fn address(&self) -> CUdeviceptr {
        self.address
    }

    /// Distance between rows, in elements.
    pub fn row_stride(&self) -> i64 {
        self.row_stride
    }

    /// Whether every row starts on a multiple of [`VECTOR_BYTES`].
    pub fn is_vectorisable(&self) -> bool {
        self.vectorisable
    }
}

/// Whether every row of a tensor at this address starts on a multiple of [`VECTOR_BYTES`].
pub(crate) fn is_vectorisable(address: CUdeviceptr, layout: &Layout) -> bool {
    let size = layout.dtype().size();
    let outer = layout.shape().iter().zip(layout.strides()).rev().skip(1);
    let mut strides = outer.filter(|&(&length, _)| length > 1).map(|(_, &stride)| stride);
    let rows_are_aligned =
        strides.all(|stride| (stride.wrapping_mul(size) as u64).is_multiple_of(VECTOR_BYTES));
    address.is_multiple_of(VECTOR_BYTES) && rows_are_aligned
}

impl<'s> Binder<'s> {
    /// Makes the stream's context current and checks that it is the one that the kernels are loaded in.
    pub fn new(cuda: &Cuda, op: &'static str, stream: &'s Arc<CudaStream>) -> Result<Self, Error> {
        if stream.context() != cuda.context() {
            let (expected, got) = (cuda.context().ordinal(), stream.context().ordinal());
            return Err(Error::argument(
                op,
                "stream",
                Problem::Value,
                format_args!("the context of device {expected} that `Cuda` was made with"),
                format_args!("another context, of device {got}"),
                "make one `Cuda` for each context",
            ));
        }
        // Errors of earlier calls that had nowhere to go, such as in `drop`, come out here too.
        stream
            .context()
            .bind_to_thread()
            .map_err(|error| device_error("making the context current", error))?;
        Ok(Binder { op, stream, regions: [None; MAX_ARGUMENTS], length: 0 })
    }

    /// A tensor that is read.
    pub fn input<'t>(
        &mut self,
        name: &'static str,
        tensor: &'t CudaTensor<'_>,
    ) -> Result<Pointer<'t>, Error>
    where
        's: 't,
    {
        self.check_owner(name, tensor.stream())?;
        let (address, guard) = tensor.pointer(self.stream);
        self.bind_tensor(name, address, &tensor.layout(), false, guard)
    }

    /// A tensor that is read if it is there; address 0 if not.
    pub fn optional_input<'t>(
        &mut self,
        name: &'static str,
        tensor: &'t Option<CudaTensor<'_>>,
    ) -> Result<Pointer<'t>, Error>
    where
        's: 't,
    {
        match tensor {
            Some(tensor) => self.input(name, tensor),
            None => Ok(Pointer { address: 0, row_stride: 0, vectorisable: true, _guard: None }),
        }
    }

    /// A tensor that is written.
    pub fn output<'t>(
        &mut self,
        name: &'static str,
        tensor: &'t mut CudaTensorMut<'_>,
    ) -> Result<Pointer<'t>, Error>
    where
        's: 't,
    {
        self.check_owner(name, tensor.stream())?;
        let layout = tensor.layout();
        let (address, guard) = tensor.pointer(self.stream);
        self.bind_tensor(name, address, &layout, true, guard)
    }

    /// A tensor that is written if it is there; address 0 if not.
    pub fn optional_output<'t>(
        &mut self,
        name: &'static str,
        tensor: &'t mut Option<CudaTensorMut<'_>>,
    ) -> Result<Pointer<'t>, Error>
    where
        's: 't,
    {
        match tensor {
            Some(tensor) => self.output(name, tensor),
            None => Ok(Pointer { address: 0, row_stride: 0, vectorisable: true, _guard: None }),
        }
    }

    /// Scratch memory of at least `bytes` bytes.
    pub fn workspace<'t>(
        &mut self,
        workspace: &'t mut CudaWorkspace<'_>,
        bytes: usize,
    ) -> Result<Pointer<'t>, Error>
    where
        's: 't,
    {
        const NAME: &str = "workspace";
        if workspace.bytes() < bytes {
            return Err(Error::argument(
                self.op,
                NAME,
                Problem::Length,
                format_args!("at least {bytes} bytes"),
                format_args!("of {} bytes", workspace.bytes()),
                "ask the descriptor's workspace_bytes",
            ));
        }
        self.check_owner(NAME, workspace.stream())?;
        let (address, guard) = workspace.pointer(self.stream);
        self.check_alignment(NAME, address, WORKSPACE_ALIGNMENT)?;
        self.add(Bound { name: NAME, region: Region::block(address, bytes), written: true })?;
        Ok(Pointer { address, row_stride: 0, vectorisable: true, _guard: guard })
    }

    /// Whether every wait that binding has put on the stream was accepted.
    pub fn finish(self) -> Result<(), Error> {
        self.stream
            .context()
            .check_err()
            .map_err(|error| device_error("waiting for earlier uses of the tensors", error))
    }

    fn bind_tensor<'t>(
        &mut self,
        name: &'static str,
        address: CUdeviceptr,
        layout: &Layout,
        written: bool,
        guard: Option<SyncOnDrop<'t>>,
    ) -> Result<Pointer<'t>, Error> {
        self.check_alignment(name, address, layout.dtype().size() as u64)?;
        self.add(Bound { name, region: Region::of(address, layout), written })?;
        Ok(Pointer {
            address,
            // Validation keeps the span, and so the stride, below `isize::MAX` where there is more than one row.
            row_stride: i64::try_from(layout.row_stride()).unwrap_or(0),
            vectorisable: is_vectorisable(address, layout),
            _guard: guard,
        })
    }

    fn add(&mut self, added: Bound) -> Result<(), Error> {
        for bound in self.regions.iter().flatten() {
            if (added.written || bound.written) && added.region.overlaps(&bound.region) {
                let (writer, other) =
                    if added.written { (added.name, bound.name) } else { (bound.name, added.name) };
                return Err(Error::argument(
                    self.op,
                    writer,
                    Problem::Overlap,
                    "memory of its own",
                    format_args!("shared with {other}"),
                    "write to another tensor",
                ));
            }
        }
        self.regions[self.length] = Some(added);
        self.length += 1;
        Ok(())
    }

    fn check_alignment(
        &self,
        name: &'static str,
        address: CUdeviceptr,
        alignment: u64,
    ) -> Result<(), Error> {
        if address.is_multiple_of(alignment) {
            return Ok(());
        }
        Err(Error::argument(
            self.op,
            name,
            Problem::Alignment,
            format_args!("a multiple of {alignment} bytes"),
            format_args!("address {address:#x}"),
            "",
        ))
    }

    /// That the memory belongs to the stream's context, and that its events can be used now.
    fn check_owner(
        &self,
        name: &'static str,
        owner: Option<&Arc<CudaStream>>,
    ) -> Result<(), Error> {
        let Some(owner) = owner else { return Ok(()) };
        let (context, expected) = (owner.context(), self.stream.context());
        if context != expected {
            return Err(Error::argument(
                self.op,
                name,
                Problem::Value,
                format_args!("in the stream's context, of device {}", expected.ordinal()),
                format_args!("memory of another context, of device {}", context.ordinal()),
                "copy it",
            ));
        }
        if context.is_managing_stream_synchronization() && is_capturing(self.stream)? {
            return Err(Error::Unsupported {
                op: self.op,
                backend: Backend::Cuda,
                reason: format!(
                    "`{name}` orders its uses by events, which a graph that is being captured cannot wait for"
                ),
                remedy: "call CudaContext::disable_event_tracking before allocating, or pass \
                         CudaTensor::from_raw"
                    .into(),
            });
        }
        Ok(())
    }
}

/// Whether work goes into a graph instead of to the device.
pub(super) fn is_capturing(stream: &CudaStream) -> Result<bool, Error> {
    use cudarc::driver::sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
    stream
        .capture_status()
        .map(|status| status != CU_STREAM_CAPTURE_STATUS_NONE)
        .map_err(|error| device_error("asking whether the stream is capturing", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn rows_that_start_on_16_bytes_can_be_read_16_bytes_at_a_time() {
        let vectorisable = |address, dtype, shape: &[usize], stride| {
            let strides = if shape.len() == 2 { vec![stride, 1] } else { vec![stride] };
            is_vectorisable(address, &Layout::strided(dtype, shape, &strides).unwrap())
        };
        assert!(vectorisable(32, DType::F16, &[4, 8], 8));
        assert!(vectorisable(32, DType::F16, &[4, 3], 8));
        assert!(!vectorisable(32, DType::F16, &[4, 3], 12));
        assert!(vectorisable(32, DType::F32, &[4, 3], 12));
        assert!(!vectorisable(8, DType::F32, &[4, 4], 4));
        assert!(vectorisable(16, DType::F16, &[1, 3], 3), "there is no second row");
        assert!(vectorisable(16, DType::F16, &[3], 1), "nor has a vector one");
        let of_three = |strides: &[usize]| {
            is_vectorisable(16, &Layout::strided(DType::F32, &[2, 3, 4], strides).unwrap())
        };
        assert!(of_three(&[12, 4, 1]) && of_three(&[20, 4, 1]));
        assert!(!of_three(&[13, 4, 1]) && !of_three(&[20, 5, 1]));
    }
}
