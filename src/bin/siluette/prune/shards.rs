//! Writing a checkpoint tensor by tensor, in the files that it came in.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use indicatif::ProgressBar;
use safetensors::tensor::{TensorView, View};
use safetensors::{Dtype, serialize_to_file};
use serde_json::{Map, Value, json};
use siluette::Error;

use super::folder::PendingFolder;
use super::llama::Llama;
use crate::output::{self, file_error};
use crate::tensor_file::TensorFile;

/// What becomes of a tensor.
pub trait Change {
    /// The shape that it will have.
    fn shape(&self, name: &str, tensor: &TensorView<'_>) -> Vec<usize>;

    /// Its new contents; `None` where it stays as it is.
    fn contents(&self, name: &str, tensor: &TensorView<'_>) -> Result<Option<Vec<u8>>, Error>;
}

/// Writes every file of the checkpoint into the folder, changed, and what lies beside them as it is.
pub fn write(model: &Llama, change: &dyn Change, folder: &PendingFolder) -> Result<(), Error> {
    let files = model.checkpoint().files();
    let mut count = 0;
    for file in files {
        count += file.tensors()?.len();
    }
    let progress = output::progress(count);
    let mut places = BTreeMap::new();
    let mut total = 0;
    for file in files {
        let name = file_name(file.path());
        total += write_file(file, change, &folder.file(&name), &progress)?;
        places.extend(
            file.tensors()?
                .names()
                .into_iter()
                .map(|tensor| (tensor.to_owned(), Value::from(name.clone()))),
        );
    }
    progress.finish_and_clear();
    if files.len() > 1 {
        let places: Map<String, Value> = places.into_iter().collect();
        let index = json!({ "metadata": { "total_size": total }, "weight_map": places });
        folder.write("model.safetensors.index.json", format!("{index:#}\n").as_bytes())?;
    }
    copy_companions(model, folder)
}

/// Bytes of tensors written.
fn write_file(
    file: &TensorFile,
    change: &dyn Change,
    to: &Path,
    progress: &ProgressBar,
) -> Result<usize, Error> {
    let failure = RefCell::new(None);
    let tensors = file.tensors()?;
    let views: Vec<(String, Changed<'_>)> = tensors
        .iter()
        .map(|(name, view)| {
            let shape = change.shape(name, &view);
            let name = name.to_owned();
            (name.clone(), Changed { name, view, shape, change, failure: &failure, progress })
        })
        .collect();
    let bytes = views.iter().map(|(_, view)| view.data_len()).sum();
    let written = serialize_to_file(views, Some(file.metadata()?), to);
    // The tensor's own error says more than what the writer makes of its absence.
    if let Some(error) = failure.into_inner() {
        return Err(error);
    }
    written.map_err(|error| file_error(to, format!("cannot be written: {error}"), ""))?;
    // The writer makes files for their owner alone; these are as readable as what they were made from.
    std::fs::metadata(file.path())
        .and_then(|metadata| std::fs::set_permissions(to, metadata.permissions()))
        .map_err(|error| file_error(to, format!("cannot be made readable: {error}"), ""))?;
    Ok(bytes)
}

/// A tensor that is made when the file's writer comes to it, so that one at a time is in memory.
struct Changed<'a> {
    name: String,
    view: TensorView<'a>,
    shape: Vec<usize>,
    change: &'a dyn Change,
    failure: &'a RefCell<Option<Error>>,
    progress: &'a ProgressBar,
}

impl View for Changed<'_> {
    fn dtype(&self) -> Dtype {
        self.view.dtype()
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.progress.set_message(self.name.clone());
        self.progress.inc(1);
        match self.change.contents(&self.name, &self.view) {
            Ok(Some(contents)) => Cow::Owned(contents),
            Ok(None) => Cow::Borrowed(self.view.data()),
            Err(error) => {
                self.failure.borrow_mut().get_or_insert(error);
                Cow::Borrowed(&[])
            }
        }
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.view.dtype().bitsize() / 8
    }
}

/// Tokenizer, generation settings and the like.
fn copy_companions(model: &Llama, folder: &PendingFolder) -> Result<(), Error> {
    let root = model.path("");
    let unreadable = |error| file_error(&root, format!("cannot be read: {error}"), "");
    for entry in std::fs::read_dir(&root).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = file_name(&path);
        let is_weights = name.ends_with(".safetensors") || name.ends_with(".index.json");
        let is_companion = ["json", "txt", "model", "jinja", "md"]
            .iter()
            .any(|extension| path.extension().is_some_and(|other| other == *extension));
        if path.is_file() && is_companion && !is_weights && name != "config.json" {
            folder.copy(&path, &name)?;
        }
    }
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
