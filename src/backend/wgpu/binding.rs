//! From a tensor, or some rows of it, to a buffer binding and the element that the shader starts at.

use super::capabilities::WgpuCapabilities;
use super::tensor::{WgpuTensor, WgpuWorkspace};
use crate::dtype::DType;
use crate::error::{Backend, Error, Problem};
use crate::layout::{HasLayout, Layout, MAX_RANK};

/// A tensor whose buffer has been checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand<'a> {
    op: &'static str,
    argument: &'static str,
    tensor: WgpuTensor<'a>,
    alignment: u64,
    limit: u64,
}

/// A range of a buffer to bind, and where in it the data starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound<'a> {
    /// What lies there, for messages; empty stands for a tensor that was not given.
    pub argument: &'static str,
    pub buffer: Option<&'a wgpu::Buffer>,
    pub offset: u64,
    pub bytes: u64,
    /// First element, from the start of the binding.
    pub start: u32,
}

impl Bound<'_> {
    /// In place of an optional tensor that was not given: the shader looks but does not touch.
    pub const ABSENT: Bound<'static> =
        Bound { argument: "", buffer: None, offset: 0, bytes: 0, start: 0 };
}

impl<'a> Operand<'a> {
    pub fn new(
        op: &'static str,
        argument: &'static str,
        tensor: WgpuTensor<'a>,
        capabilities: &WgpuCapabilities,
    ) -> Result<Operand<'a>, Error> {
        let size = tensor.layout.dtype().size() as u64;
        check_usage(op, argument, tensor.buffer)?;
        if !tensor.offset.is_multiple_of(size) {
            let expected = format!("an offset that is a multiple of {size} bytes");
            let got = format!("of {} bytes", tensor.offset);
            return Err(Error::argument(op, argument, Problem::Alignment, expected, got, ""));
        }
        let end = tensor.offset.checked_add(tensor.layout.span() as u64 * size);
        // Bindings are whole words.
        if end.is_none_or(|end| end.next_multiple_of(4) > tensor.buffer.size()) {
            let expected = format!(
                "a buffer of at least {} bytes from offset {} on, in words of 4",
                tensor.layout.span() as u64 * size,
                tensor.offset
            );
            let got = format!("of {} bytes in all", tensor.buffer.size());
            return Err(Error::argument(op, argument, Problem::Length, expected, got, ""));
        }
        let alignment = u64::from(capabilities.storage_offset_alignment);
        let limit = capabilities.storage_binding_bytes;
        Ok(Operand { op, argument, tensor, alignment, limit })
    }

    /// Whether both lie in one buffer.
    pub fn shares_buffer(&self, other: &Operand<'_>) -> bool {
        self.tensor.buffer == other.tensor.buffer
    }

    /// Elements between rows; fits, since [`Operand::rows`] lets no more through.
    pub fn stride(&self) -> u32 {
        u32::try_from(self.tensor.layout.row_stride()).unwrap_or(u32::MAX)
    }

    /// Words of 4 bytes that a row touches, at most: a row of halves that starts in the middle of a word touches
    /// one more than its length says. Fits, as the stride does.
    pub fn words_per_row(&self) -> u32 {
        let columns = self.tensor.layout.columns();
        let words = match self.tensor.layout.dtype().size() {
            4 => columns,
            _ => columns / 2 + 1,
        };
        u32::try_from(words).unwrap_or(u32::MAX)
    }

    /// Whether every row is whole 16-byte words from a 16-byte boundary on.
    pub fn is_vectorisable(&self) -> bool {
        let layout = self.tensor.layout;
        let size = layout.dtype().size() as u64;
        let outer = layout.shape().iter().zip(layout.strides()).rev().skip(1);
        let mut strides = outer.filter(|&(&length, _)| length > 1).map(|(_, &stride)| stride);
        layout.columns().is_multiple_of(8)
            && self.tensor.offset.is_multiple_of(16)
            && strides.all(|stride| (stride as u64).wrapping_mul(size).is_multiple_of(16))
    }

    /// How many consecutive rows one binding can hold.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it cannot hold one.
    pub fn rows_per_binding(&self) -> Result<usize, Error> {
        let layout = self.tensor.layout;
        let size = layout.dtype().size() as u64;
        let row = layout.columns() as u64 * size;
        // A binding starts on the boundary before the data and ends on the word behind it.
        let Some(room) = self.limit.checked_sub(self.alignment + 4 + row) else {
            return Err(self.too_large(row));
        };
        let stride = (layout.row_stride() as u64 * size).max(1);
        Ok(usize::try_from(room / stride + 1).unwrap_or(usize::MAX))
    }

    /// Rows `first..first + count`.
    pub fn rows(&self, first: usize, count: usize) -> Result<Bound<'a>, Error> {
        let layout = self.tensor.layout;
        let size = layout.dtype().size() as u64;
        let stride = layout.row_stride() as u64;
        let begin = self.tensor.offset + first as u64 * stride * size;
        let elements = (count as u64 - 1) * stride + layout.columns() as u64;
        self.bound(begin, elements * size)
    }

    /// How many consecutive entries of the outermost dimension one binding can hold.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it cannot hold one.
    pub fn slices_per_binding(&self) -> Result<usize, Error> {
        let layout = self.tensor.layout;
        let size = layout.dtype().size() as u64;
        let slice = self.slices_span(1)? * size;
        // A binding starts on the boundary before the data and ends on the word behind it.
        let Some(room) = self.limit.checked_sub(self.alignment + 4 + slice) else {
            return Err(self.too_large(slice));
        };
        let stride = (layout.strides()[0] as u64 * size).max(1);
        Ok(usize::try_from(room / stride + 1).unwrap_or(usize::MAX))
    }

    /// Entries `first..first + count` of the outermost dimension.
    pub fn slices(&self, first: usize, count: usize) -> Result<Bound<'a>, Error> {
        let layout = self.tensor.layout;
        let size = layout.dtype().size() as u64;
        let begin = self.tensor.offset + first as u64 * layout.strides()[0] as u64 * size;
        self.bound(begin, self.slices_span(count)? * size)
    }

    /// Elements from the first to the last of `count` entries of the outermost dimension.
    fn slices_span(&self, count: usize) -> Result<u64, Error> {
        let layout = self.tensor.layout;
        let mut shape = [count; MAX_RANK];
        let rank = layout.shape().len();
        shape[1..rank].copy_from_slice(&layout.shape()[1..]);
        let slices = Layout::strided(layout.dtype(), &shape[..rank], layout.strides())?;
        Ok(slices.span() as u64)
    }

    /// All of it.
    pub fn whole(&self) -> Result<Bound<'a>, Error> {
        let layout = self.tensor.layout;
        self.bound(self.tensor.offset, (layout.span() * layout.dtype().size()) as u64)
    }

    /// How many consecutive elements of a tensor without gaps one binding can hold.
    pub fn elements_per_binding(&self) -> usize {
        let room = self.limit.saturating_sub(self.alignment + 4);
        usize::try_from(room / self.tensor.layout.dtype().size() as u64).unwrap_or(usize::MAX)
    }

    /// Elements `first..first + count` of a tensor without gaps.
    pub fn elements(&self, first: usize, count: usize) -> Result<Bound<'a>, Error> {
        let size = self.tensor.layout.dtype().size() as u64;
        self.bound(self.tensor.offset + first as u64 * size, count as u64 * size)
    }

    fn bound(&self, begin: u64, bytes: u64) -> Result<Bound<'a>, Error> {
        let size = self.tensor.layout.dtype().size() as u64;
        let offset = begin / self.alignment * self.alignment;
        let bound = (begin + bytes).next_multiple_of(4) - offset;
        if bound > self.limit {
            return Err(self.too_large(bound));
        }
        Ok(Bound {
            argument: self.argument,
            buffer: Some(self.tensor.buffer),
            offset,
            bytes: bound,
            start: ((begin - offset) / size) as u32,
        })
    }

    fn too_large(&self, bytes: u64) -> Error {
        Error::Unsupported {
            op: self.op,
            backend: Backend::Wgpu,
            reason: format!(
                "{} needs a binding of {bytes} bytes, the device's max_storage_buffer_binding_size \
                 allows {}",
                self.argument, self.limit
            ),
            remedy:
                "request the device with `required_limits: adapter.limits()`, or split the tensor"
                    .into(),
        }
    }

    fn byte_range(&self) -> (u64, u64) {
        let layout = self.tensor.layout;
        (self.tensor.offset, self.tensor.offset + (layout.span() * layout.dtype().size()) as u64)
    }
}

impl HasLayout for Operand<'_> {
    fn layout(&self) -> Layout {
        self.tensor.layout()
    }
}

impl<'a> WgpuWorkspace<'a> {
    /// A tensor without gaps in f32, `offset` bytes into the workspace.
    pub(crate) fn tensor(
        &self,
        op: &'static str,
        offset: u64,
        shape: &[usize],
        capabilities: &WgpuCapabilities,
    ) -> Result<Operand<'a>, Error> {
        self.strided(op, offset, Layout::contiguous(DType::F32, shape)?, capabilities)
    }

    /// A tensor of this layout, in f32, `offset` bytes into the workspace.
    pub(crate) fn strided(
        &self,
        op: &'static str,
        offset: u64,
        layout: Layout,
        capabilities: &WgpuCapabilities,
    ) -> Result<Operand<'a>, Error> {
        const ARGUMENT: &str = "workspace";
        let end = offset + layout.span() as u64 * 4;
        let remedy = "allocate what the operation's `workspace_bytes` says";
        let too_small = |bytes: u64| {
            let (expected, got) = (format!("at least {end} bytes"), format!("of {bytes} bytes"));
            Error::argument(op, ARGUMENT, Problem::Length, expected, got, remedy)
        };
        let range = self.range.ok_or_else(|| too_small(0))?;
        if range.bytes < end {
            return Err(too_small(range.bytes));
        }
        let alignment = capabilities.storage_offset_alignment;
        if !range.offset.is_multiple_of(u64::from(alignment)) {
            let expected = format!("an offset that is a multiple of {alignment} bytes");
            let got = format!("of {} bytes", range.offset);
            return Err(Error::argument(op, ARGUMENT, Problem::Alignment, expected, got, ""));
        }
        let tensor = WgpuTensor::new(range.buffer, range.offset + offset, layout);
        Operand::new(op, ARGUMENT, tensor, capabilities)
    }
}

/// That an output shares no bytes with what is read.
///
/// (Sharing a buffer in one dispatch is wgpu's business, and checked with the dispatch.)
pub(crate) fn check_disjoint(output: &Operand<'_>, inputs: &[Operand<'_>]) -> Result<(), Error> {
    let (begin, end) = output.byte_range();
    for input in inputs.iter().filter(|input| input.tensor.buffer == output.tensor.buffer) {
        let (input_begin, input_end) = input.byte_range();
        if begin < input_end && input_begin < end {
            return Err(overlap(output.op, output.argument, input.argument));
        }
    }
    Ok(())
}

pub(super) fn overlap(op: &'static str, output: &'static str, other: &'static str) -> Error {
    Error::argument(
        op,
        output,
        Problem::Overlap,
        "a buffer of its own",
        format_args!("shared with {other}"),
        "wgpu lets no dispatch read and write one buffer",
    )
}

fn check_usage(
    op: &'static str,
    argument: &'static str,
    buffer: &wgpu::Buffer,
) -> Result<(), Error> {
    if buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
        return Ok(());
    }
    Err(Error::argument(
        op,
        argument,
        Problem::Value,
        "a buffer with the usage STORAGE",
        format_args!("{:?}", buffer.usage()),
        "create the buffer with BufferUsages::STORAGE",
    ))
}
