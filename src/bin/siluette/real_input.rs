//! Real weights and hidden states with the results that PyTorch expects, from the source tree.
//!
//! They are not part of the published package, which holds this crate's own work only.

use std::path::{Path, PathBuf};

use siluette::arguments::Role;
use siluette::conformance::Oracle;
use siluette::registry::{self, OperationInfo};
use siluette::{Error, Parameters};

use crate::elements;
use crate::tensor_file::TensorFile;

/// What `SILUETTE_REQUIRE` calls it.
pub const REQUIREMENT: &str = "real_input";

const FOLDER: &str = "tests/data";

/// A file that says in its metadata which operation it is an example of.
#[derive(Debug)]
pub struct Recording {
    file: TensorFile,
    /// The operation.
    pub info: &'static OperationInfo,
    parameters: Parameters,
}

/// Told where there are none.
pub const MISSING: &str = "real input: there is no tests/data here, beside the executable or where it was \
    built (run in a checkout of the repository, or give a checkpoint with --model)";

/// The recordings of the source tree: below the working folder, beside the executable, or where it was
/// built; none if it is not at hand.
///
/// # Errors
/// Those of a recording that is there and not whole.
pub fn find() -> Result<Vec<Recording>, Error> {
    let beside = std::env::current_exe().ok();
    let beside = beside.as_deref().and_then(Path::parent).map(Path::to_owned);
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    for root in [Some(PathBuf::new()), beside, Some(built)].into_iter().flatten() {
        let recordings = recordings(&root.join(FOLDER))?;
        if !recordings.is_empty() {
            return Ok(recordings);
        }
    }
    Ok(Vec::new())
}

fn recordings(folder: &Path) -> Result<Vec<Recording>, Error> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    paths.sort();
    let recordings = paths.iter().map(|path| Recording::open(path));
    recordings.filter_map(Result::transpose).collect()
}

impl Recording {
    /// `None` for a file that names no operation.
    fn open(path: &Path) -> Result<Option<Recording>, Error> {
        let file = TensorFile::open(path)?;
        let metadata = file.metadata()?;
        let Some(name) = metadata.get("op") else { return Ok(None) };
        let info = registry::find(name)?;
        let mut parameters = Parameters::new();
        for parameter in info.parameters {
            if let Some(value) = metadata.get(parameter.name) {
                parameters = parameters.with(parameter.name, value);
            }
        }
        Ok(Some(Recording { file, info, parameters }))
    }

    /// The file's name without its extension.
    pub fn name(&self) -> String {
        self.file.path().file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The types of the inputs, as in the case list.
    pub fn dtype(&self) -> Result<String, Error> {
        let inputs = elements::with_role(&self.file, self.info, Role::is_given)?;
        Ok(elements::dtypes(self.info, &inputs))
    }

    /// The operation on the file's inputs, with the file's results.
    pub fn oracle(&self) -> Result<Oracle, Error> {
        let inputs = elements::with_role(&self.file, self.info, Role::is_given)?;
        let expected = elements::with_role(&self.file, self.info, |role| !role.is_given())?;
        Oracle::for_inputs(self.info, inputs, &self.parameters)?.expecting(expected)
    }
}
