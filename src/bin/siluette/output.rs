//! Text on the terminal, and files that appear whole or not at all.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use siluette::Error;

/// Prints to stdout. A reader that went away (`| head`) is nobody's error.
pub fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(file_error(Path::new("stdout"), format!("cannot be written: {error}"), ""))
        }
        _ => Ok(()),
    }
}

/// Prints a line to stderr, if anybody reads it.
pub fn complain(line: &str) {
    // Nothing is left to tell about a failure to tell.
    let _ = writeln!(io::stderr(), "{line}");
}

/// A bar on stderr, on a terminal only.
pub fn progress(length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}");
    ProgressBar::new(length as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Columns of text, each as wide as its widest cell; `numbers` from that column on are set to the right.
pub fn table(rows: &[Vec<String>], numbers: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, &width))| {
                if column < numbers { format!("{cell:width$}") } else { format!("{cell:>width$}") }
            })
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// An error about a file.
pub fn file_error(path: &Path, reason: impl Into<String>, remedy: &'static str) -> Error {
    Error::File { path: path.to_owned(), reason: reason.into(), remedy: remedy.into() }
}

/// A file being written under another name, which takes its place in one step or vanishes.
#[derive(Debug)]
pub struct PendingFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl PendingFile {
    /// Begins a file beside `path`; what `path` holds stays until [`PendingFile::commit`].
    pub fn create(path: &Path) -> Result<PendingFile, Error> {
        let Some(name) = path.file_name() else {
            return Err(file_error(path, "is not the name of a file", ""));
        };
        if path.exists() && !path.is_file() {
            return Err(file_error(path, "exists and is not a regular file", "name a new file"));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(file_error(folder, "is not a folder", "create it first"));
        }
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.unfinished", std::process::id()));
        let temporary = path.with_file_name(temporary);
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary);
        let file = file.map_err(|error| {
            file_error(path, format!("cannot be written: {error}"), "choose a folder you may write")
        })?;
        Ok(PendingFile { path: path.to_owned(), temporary, file })
    }

    /// Writes the contents and gives the file its name.
    pub fn commit(mut self, contents: &[u8]) -> Result<(), Error> {
        self.file
            .write_all(contents)
            .and_then(|()| self.file.sync_all())
            .and_then(|()| std::fs::rename(&self.temporary, &self.path))
            .map_err(|error| file_error(&self.path, format!("cannot be written: {error}"), ""))
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        // After `commit` there is nothing of this name any more.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "old").unwrap();
        drop(PendingFile::create(&path).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        PendingFile::create(&path).unwrap().commit(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("missing/out"), "/".into()] {
            assert!(PendingFile::create(&path).is_err(), "{}", path.display());
        }
    }

    #[test]
    fn tables_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "23".to_owned()]];
        assert_eq!(table(&rows, 1), "a     1\nbcd  23\n");
    }
}
