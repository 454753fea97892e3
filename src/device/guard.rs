//! Fences around outputs, so that a stray write is an error and not somebody else's corruption.

use crate::error::{Backend, Error};
use crate::layout::{HasLayout, Layout};
use crate::tensor::Tensor;

/// Bytes of fence on either side: the largest offset alignment that a GPU asks for.
pub(crate) const GUARD_BYTES: usize = 256;
const FENCE: u8 = 0xA5;

/// An output's memory between two fences, to be copied to a device whole.
#[derive(Debug)]
pub(crate) struct Guarded {
    layout: Layout,
    /// Whole 16-byte words, so that every element type is aligned.
    words: Vec<u128>,
}

impl Guarded {
    /// Starts with the contents of `tensor`.
    pub fn new(tensor: &Tensor) -> Guarded {
        let layout = tensor.layout();
        let length = 2 * GUARD_BYTES + span_bytes(&layout).next_multiple_of(size_of::<u128>());
        let mut guarded = Guarded { layout, words: vec![0; length / size_of::<u128>()] };
        guarded.bytes_mut().fill(FENCE);
        guarded.span_mut().copy_from_slice(tensor.view().span_bytes());
        guarded
    }

    /// Fences and contents; the contents start at [`GUARD_BYTES`].
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words)
    }

    /// As [`Guarded::bytes`], to copy results into.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.words)
    }

    /// The contents alone.
    pub fn span_mut(&mut self) -> &mut [u8] {
        let span = span_bytes(&self.layout);
        &mut self.bytes_mut()[GUARD_BYTES..][..span]
    }

    /// The contents as a tensor, if both fences stand.
    pub fn tensor(&self, backend: Backend) -> Result<Tensor, Error> {
        let span = span_bytes(&self.layout);
        let (before, rest) = self.bytes().split_at(GUARD_BYTES);
        let (contents, behind) = rest.split_at(span);
        if let Some(offset) = behind.iter().position(|&byte| byte != FENCE) {
            return Err(stray_write(backend, format!("{offset} bytes behind its end")));
        }
        if let Some(offset) = before.iter().rposition(|&byte| byte != FENCE) {
            return Err(stray_write(
                backend,
                format!("{} bytes before its start", GUARD_BYTES - offset),
            ));
        }
        let mut tensor = Tensor::zeros(self.layout);
        tensor.span_bytes_mut().copy_from_slice(contents);
        Ok(tensor)
    }
}

impl HasLayout for Guarded {
    fn layout(&self) -> Layout {
        self.layout
    }
}

fn span_bytes(layout: &Layout) -> usize {
    layout.span() * layout.dtype().size()
}

fn stray_write(backend: Backend, place: String) -> Error {
    Error::Device {
        backend,
        action: "a kernel".to_owned(),
        message: format!("it wrote outside its output, {place}; this is a bug of siluette"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_come_back_and_stray_writes_are_found() {
        let tensor = Tensor::from_slice(&[1.0f32, 2.0, 3.0], &[3]).unwrap();
        let mut guarded = Guarded::new(&tensor);
        assert_eq!(guarded.tensor(Backend::Cpu).unwrap(), tensor);
        for offset in [GUARD_BYTES - 1, GUARD_BYTES + 12, guarded.bytes().len() - 1] {
            guarded.bytes_mut()[offset] ^= 1;
            assert!(guarded.tensor(Backend::Cpu).is_err(), "offset {offset}");
            guarded.bytes_mut()[offset] ^= 1;
        }
    }
}
