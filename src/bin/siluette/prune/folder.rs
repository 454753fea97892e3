//! A folder that appears whole or not at all.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use siluette::Error;

use crate::output::file_error;

/// A folder being filled under another name, which takes its place in one step or vanishes.
#[derive(Debug)]
pub struct PendingFolder {
    path: PathBuf,
    temporary: PathBuf,
}

impl PendingFolder {
    /// Begins a folder that is to become `path`, which must not exist, nor lie inside `model`.
    pub fn create(path: &Path, model: &Path) -> Result<PendingFolder, Error> {
        let Some(name) = path.file_name() else {
            return Err(file_error(path, "is not the name of a folder", ""));
        };
        if path.symlink_metadata().is_ok() {
            return Err(file_error(path, "exists already", "name a new folder"));
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let Ok(real_parent) = parent.canonicalize() else {
            return Err(file_error(parent, "is not a folder", "create it first"));
        };
        if model.canonicalize().is_ok_and(|model| real_parent.starts_with(model)) {
            return Err(file_error(path, "lies inside the model's folder", "write elsewhere"));
        }
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.unfinished", std::process::id()));
        let temporary = path.with_file_name(temporary);
        std::fs::create_dir(&temporary).map_err(|error| {
            file_error(path, format!("cannot be made: {error}"), "choose a folder you may write")
        })?;
        Ok(PendingFolder { path: path.to_owned(), temporary })
    }

    /// Where a file of the folder is to be written now.
    pub fn file(&self, name: &str) -> PathBuf {
        self.temporary.join(name)
    }

    /// Writes a file of the folder.
    pub fn write(&self, name: &str, contents: &[u8]) -> Result<(), Error> {
        std::fs::write(self.file(name), contents).map_err(|error| self.unwritable(name, &error))
    }

    /// Copies a file into the folder.
    pub fn copy(&self, from: &Path, name: &str) -> Result<(), Error> {
        std::fs::copy(from, self.file(name))
            .map(|_| ())
            .map_err(|error| self.unwritable(name, &error))
    }

    /// Gives the folder its name.
    pub fn commit(self) -> Result<(), Error> {
        std::fs::rename(&self.temporary, &self.path).map_err(|error| {
            file_error(&self.path, format!("cannot be put in its place: {error}"), "")
        })
    }

    fn unwritable(&self, name: &str, error: &std::io::Error) -> Error {
        file_error(&self.path.join(name), format!("cannot be written: {error}"), "")
    }
}

impl Drop for PendingFolder {
    fn drop(&mut self) {
        // After `commit` there is nothing of this name any more.
        let _ = std::fs::remove_dir_all(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let (path, model) = (root.path().join("out"), root.path().join("model"));
        std::fs::create_dir(&model).unwrap();
        let pending = PendingFolder::create(&path, &model).unwrap();
        pending.write("a", b"1").unwrap();
        drop(pending);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "only the model");
        let pending = PendingFolder::create(&path, &model).unwrap();
        pending.write("a", b"1").unwrap();
        pending.commit().unwrap();
        assert_eq!(std::fs::read(path.join("a")).unwrap(), b"1");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 2);
        for refused in [path, model.join("out"), root.path().join("missing/out"), "/".into()] {
            assert!(PendingFolder::create(&refused, &model).is_err(), "{}", refused.display());
        }
    }
}
