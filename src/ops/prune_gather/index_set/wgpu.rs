//! Index sets in a GPU's buffers.

use super::{IndexSet, refuse_invalid};
use crate::backend::wgpu::{Wgpu, WgpuTensor};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::ops::prune_gather::invert_indices::{InvertIndices, InvertIndicesArgs};

/// An [`IndexSet`] in buffers of a wgpu device: checked, with its inverse beside it.
#[derive(Debug)]
pub struct WgpuIndexSet {
    indices: wgpu::Buffer,
    rank: wgpu::Buffer,
    len: usize,
    domain: usize,
}

impl WgpuIndexSet {
    /// Copies a set to the context's device.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no memory for it.
    pub fn upload(wgpu: &Wgpu, set: &IndexSet) -> Result<WgpuIndexSet, Error> {
        Ok(WgpuIndexSet {
            indices: wgpu
                .upload("siluette.index_set.indices", bytemuck::cast_slice(set.indices()))?,
            rank: wgpu.upload("siluette.index_set.rank", bytemuck::cast_slice(set.rank()))?,
            len: set.len(),
            domain: set.domain(),
        })
    }

    /// Takes over the first `len` of the u32 indices in a buffer: checks them on the device, by [`InvertIndices`], and
    /// waits for the answer. To go on without waiting, record that operation. The buffer needs the usages `STORAGE` and
    /// `COPY_SRC`.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) names the first position that is out of range, out of order or a
    /// duplicate; [`Problem::Length`](crate::Problem::Length) for fewer than `len`; [`Error::Device`].
    pub fn from_device(
        wgpu: &Wgpu,
        indices: wgpu::Buffer,
        len: usize,
        domain: usize,
    ) -> Result<WgpuIndexSet, Error> {
        let op = InvertIndices::new(domain, len)?;
        let rank_layout = Layout::contiguous(DType::I32, &[domain])?;
        let flag_layout = Layout::contiguous(DType::I32, &[1])?;
        let rank = wgpu.buffer("siluette.index_set.rank", domain as u64 * 4)?;
        let flag = wgpu.buffer("siluette.index_set.first_invalid", 4)?;
        let args = InvertIndicesArgs::new(
            WgpuTensor::new(&indices, 0, Layout::contiguous(DType::U32, &[len])?),
            WgpuTensor::new(&rank, 0, rank_layout),
        );
        let args = args.first_invalid(WgpuTensor::new(&flag, 0, flag_layout));
        wgpu.submit(&wgpu.plan_invert_indices(&op, args)?)?;
        let word = |buffer: &wgpu::Buffer, position: usize| -> Result<[u8; 4], Error> {
            let bytes = wgpu.download(buffer, position as u64 * 4..position as u64 * 4 + 4)?;
            Ok(std::array::from_fn(|byte| bytes[byte]))
        };
        refuse_invalid(i32::from_le_bytes(word(&flag, 0)?), |position| {
            Ok(u32::from_le_bytes(word(&indices, position)?))
        })?;
        Ok(WgpuIndexSet { indices, rank, len, domain })
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of features to choose from.
    pub fn domain(&self) -> usize {
        self.domain
    }

    /// The members as an operation's tensor, `[len]`.
    pub fn indices_tensor(&self) -> WgpuTensor<'_> {
        WgpuTensor::new(&self.indices, 0, vector(DType::U32, self.len))
    }

    /// The places of all features as an operation's tensor, `[domain]`.
    pub fn rank_tensor(&self) -> WgpuTensor<'_> {
        WgpuTensor::new(&self.rank, 0, vector(DType::I32, self.domain))
    }
}

fn vector(dtype: DType, len: usize) -> Layout {
    Layout::contiguous(dtype, &[len]).expect("a length that was a layout's before")
}
