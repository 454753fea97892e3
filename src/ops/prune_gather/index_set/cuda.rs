//! Index sets in CUDA's memory.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DriverError};

use super::{IndexSet, refuse_invalid};
use crate::backend::cuda::{Cuda, CudaTensor, CudaTensorMut, device_error};
use crate::error::Error;
use crate::ops::prune_gather::invert_indices::{InvertIndices, InvertIndicesArgs};

/// An [`IndexSet`] on a CUDA device: checked, with its inverse beside it.
///
/// ```no_run
/// # fn example(stream: &std::sync::Arc<siluette::cudarc::driver::CudaStream>) -> Result<(), siluette::Error> {
/// use siluette::{CudaIndexSet, IndexSet};
///
/// let kept = CudaIndexSet::upload(stream, &IndexSet::from_mask(&[1, 0, 0, 1])?)?;
/// // Ready for an operation's `indices` and `rank`:
/// let (indices, rank) = (kept.indices_tensor(), kept.rank_tensor());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct CudaIndexSet {
    // CUDA allocates no empty memory: either may be longer than what it holds.
    indices: CudaSlice<u32>,
    rank: CudaSlice<i32>,
    len: usize,
    domain: usize,
}

impl CudaIndexSet {
    /// Copies a set to the stream's device.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no memory for it.
    pub fn upload(stream: &Arc<CudaStream>, set: &IndexSet) -> Result<CudaIndexSet, Error> {
        let failed = |error| device_error("copying an index set to the device", error);
        let indices = if set.is_empty() { &[0][..] } else { set.indices() };
        let rank = if set.domain() == 0 { &[0][..] } else { set.rank() };
        Ok(CudaIndexSet {
            indices: stream.clone_htod(indices).map_err(failed)?,
            rank: stream.clone_htod(rank).map_err(failed)?,
            len: set.len(),
            domain: set.domain(),
        })
    }

    /// Takes over the first `len` of indices that lie on the device: checks them there, by [`InvertIndices`], and waits
    /// for the answer. To go on without waiting, enqueue that operation.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) names the first position that is out of range, out of order or a
    /// duplicate; [`Problem::Length`](crate::Problem::Length) for fewer than `len`; [`Error::Device`].
    pub fn from_device(
        cuda: &Cuda,
        stream: &Arc<CudaStream>,
        indices: CudaSlice<u32>,
        len: usize,
        domain: usize,
    ) -> Result<CudaIndexSet, Error> {
        let failed =
            |error: DriverError| device_error("checking an index set on the device", error);
        let op = InvertIndices::new(domain, len)?;
        let mut rank = stream.alloc_zeros::<i32>(domain.max(1)).map_err(failed)?;
        let mut flag = stream.alloc_zeros::<i32>(1).map_err(failed)?;
        let args = InvertIndicesArgs::new(
            CudaTensor::new(&indices, &[len])?,
            CudaTensorMut::new(&mut rank, &[domain])?,
        );
        cuda.invert_indices(stream, &op, args.first_invalid(CudaTensorMut::new(&mut flag, &[1])?))?;
        let first_invalid = stream.clone_dtoh(&flag).map_err(failed)?[0];
        refuse_invalid(first_invalid, |position| {
            let view = indices.slice(position..position + 1);
            Ok(stream.clone_dtoh(&view).map_err(failed)?[0])
        })?;
        Ok(CudaIndexSet { indices, rank, len, domain })
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
    pub fn indices_tensor(&self) -> CudaTensor<'_> {
        CudaTensor::new(&self.indices, &[self.len]).expect("allocated at this length")
    }

    /// The places of all features as an operation's tensor, `[domain]`.
    pub fn rank_tensor(&self) -> CudaTensor<'_> {
        CudaTensor::new(&self.rank, &[self.domain]).expect("allocated at this length")
    }
}
