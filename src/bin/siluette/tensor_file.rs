//! safetensors files.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use siluette::device::NamedTensors;
use siluette::{DType, Error, HasLayout as _, Tensor};

use crate::output::{PendingFile, file_error};

/// A safetensors file, mapped into memory.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    bytes: Mmap,
}

impl TensorFile {
    /// Maps a file and checks its header against its length.
    pub fn open(path: &Path) -> Result<TensorFile, Error> {
        let unreadable = |error| file_error(path, format!("cannot be read: {error}"), "");
        let file = File::open(path).map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(file_error(path, "is not a regular file", ""));
        }
        let file = TensorFile { path: path.to_owned(), bytes: map(&file).map_err(unreadable)? };
        file.tensors()?;
        Ok(file)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its tensors.
    pub fn tensors(&self) -> Result<SafeTensors<'_>, Error> {
        SafeTensors::deserialize(&self.bytes).map_err(|error| self.not_safetensors(&error))
    }

    /// Its metadata, empty if it has none.
    pub fn metadata(&self) -> Result<HashMap<String, String>, Error> {
        let (_, header) = SafeTensors::read_metadata(&self.bytes)
            .map_err(|error| self.not_safetensors(&error))?;
        Ok(header.metadata().clone().unwrap_or_default())
    }

    fn not_safetensors(&self, error: &safetensors::SafeTensorError) -> Error {
        let reason = format!("is not a whole safetensors file: {error}");
        file_error(&self.path, reason, "it may be truncated or of another format")
    }
}

#[allow(unsafe_code, reason = "mapping a file has no safe interface")]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is private to this process and only read. Another process that shortens the file
    // meanwhile can end this one with a signal; safetensors files are written once and not changed.
    unsafe { Mmap::map(file) }
}

/// Writes tensors without gaps as one file; `note` goes into its metadata.
pub fn write(file: PendingFile, tensors: &NamedTensors, note: &str) -> Result<(), Error> {
    let views = tensors
        .iter()
        .map(|(name, tensor)| Ok((name, view(tensor)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    // One key only: more would come in an order that changes from run to run.
    let metadata = HashMap::from([("siluette".to_owned(), note.to_owned())]);
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(not_serialisable)?;
    file.commit(&bytes)
}

fn view(tensor: &Tensor) -> Result<TensorView<'_>, Error> {
    let layout = tensor.layout();
    let dtype = match layout.dtype() {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::U8 => Dtype::U8,
        DType::I32 => Dtype::I32,
        DType::U32 => Dtype::U32,
        other => return Err(not_serialisable(format!("it has no type for {other}"))),
    };
    TensorView::new(dtype, layout.shape().to_vec(), tensor.view().span_bytes())
        .map_err(not_serialisable)
}

fn not_serialisable(reason: impl Display) -> Error {
    file_error(Path::new("output"), format!("cannot be put into safetensors: {reason}"), "")
}
