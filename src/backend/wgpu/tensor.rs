//! Tensors and scratch memory in the caller's buffers.

use crate::layout::{HasLayout, Layout};

/// A tensor in somebody's buffer, which needs the usage `STORAGE`.
///
/// It may start anywhere in the buffer; wgpu's alignment of bindings is taken care of.
#[derive(Clone, Copy, Debug)]
pub struct WgpuTensor<'a> {
    pub(super) layout: Layout,
    pub(super) buffer: &'a wgpu::Buffer,
    pub(super) offset: u64,
}

impl<'a> WgpuTensor<'a> {
    /// A tensor that starts `offset` bytes into `buffer`. Checked when an operation is bound to it.
    pub fn new(buffer: &'a wgpu::Buffer, offset: u64, layout: Layout) -> WgpuTensor<'a> {
        WgpuTensor { layout, buffer, offset }
    }

    /// The buffer.
    pub fn buffer(&self) -> &'a wgpu::Buffer {
        self.buffer
    }

    /// Where it starts, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl HasLayout for WgpuTensor<'_> {
    fn layout(&self) -> Layout {
        self.layout
    }
}

/// Scratch memory: a range of a buffer with the usage `STORAGE`.
///
/// Its contents before and after mean nothing. Plans that run one after the other may share it. The buffer
/// must be none of those that the operation's tensors lie in.
#[derive(Clone, Copy, Debug)]
pub struct WgpuWorkspace<'a> {
    pub(super) range: Option<Range<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Range<'a> {
    pub buffer: &'a wgpu::Buffer,
    pub offset: u64,
    pub bytes: u64,
}

impl<'a> WgpuWorkspace<'a> {
    /// `bytes` bytes from `offset` on, a multiple of the device's `min_storage_buffer_offset_alignment`.
    /// Checked when an operation is bound to it.
    pub fn new(buffer: &'a wgpu::Buffer, offset: u64, bytes: u64) -> WgpuWorkspace<'a> {
        WgpuWorkspace { range: Some(Range { buffer, offset, bytes }) }
    }

    /// All of a buffer.
    pub fn whole(buffer: &'a wgpu::Buffer) -> WgpuWorkspace<'a> {
        WgpuWorkspace::new(buffer, 0, buffer.size())
    }

    /// No memory: for operations whose `workspace_bytes` is 0.
    pub fn none() -> WgpuWorkspace<'a> {
        WgpuWorkspace { range: None }
    }
}
