//! Puts shaders together from their fragments.
//!
//! | directive | meaning |
//! |---|---|
//! | `#variant axis = a b` | the module exists once for each choice; `$axis` stands for it |
//! | `#import path key=value ...` | the fragment's text, with `$key` replaced |
//! | `#requires subgroups` | the module needs the feature |
//! | `#requires cooperative_matrices` | the module needs the features, subgroups and f16 among them |
//! | `#interface kernel` | bindings and parameters are those of that kernel, whose host side serves both |
//!
//! Paths are relative to `kernels/`.

use std::fmt;
use std::path::{Path, PathBuf};

/// A mistake in a source file.
#[derive(Debug)]
pub struct Problem {
    pub place: Place,
    pub message: String,
}

/// Where a line of a shader comes from.
#[derive(Clone, Debug)]
pub struct Place {
    pub file: String,
    pub line: usize,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "kernels/{}:{}: {}", self.place.file, self.place.line, self.message)
    }
}

/// A file with an entry point, and its variants.
pub struct Kernel {
    pub name: String,
    pub file: String,
    pub variants: Vec<Module>,
}

/// One variant, ready to compile.
pub struct Module {
    /// The choices made, in the order of the `#variant` lines; empty if there are none.
    pub choices: Vec<String>,
    pub text: String,
    pub places: Vec<Place>,
    pub requires: Requirements,
    /// The kernel whose bindings and parameters these are.
    pub interface: Option<String>,
}

/// What a module needs of a device.
#[derive(Clone, Copy, Default)]
pub struct Requirements {
    pub subgroups: bool,
    /// With f16 and subgroups, which they cannot do without.
    pub cooperative_matrices: bool,
}

impl Module {
    /// The place of the line that holds byte `offset` of the text.
    pub fn place(&self, offset: usize) -> Place {
        let line = self.text[..offset.min(self.text.len())].matches('\n').count();
        self.places[line.min(self.places.len() - 1)].clone()
    }

    pub fn problem(&self, offset: usize, message: impl Into<String>) -> Problem {
        Problem { place: self.place(offset), message: message.into() }
    }
}

/// All kernels under `root`, by path.
pub fn kernels(root: &Path) -> Result<Vec<Kernel>, Problem> {
    let mut files = Vec::new();
    walk(root, root, &mut files)?;
    files.sort();
    let mut kernels = Vec::new();
    for file in files {
        let source = read(root, &file, &Place { file: file.clone(), line: 0 })?;
        if source.contains("@compute") {
            kernels.push(kernel(root, file, &source)?);
        }
    }
    Ok(kernels)
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<String>) -> Result<(), Problem> {
    // A new file in a folder changes the folder.
    println!("cargo::rerun-if-changed={}", folder.display());
    let unreadable = |error: std::io::Error| Problem {
        place: Place { file: folder.display().to_string(), line: 0 },
        message: error.to_string(),
    };
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            walk(root, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "wgsl") {
            println!("cargo::rerun-if-changed={}", path.display());
            let relative: PathBuf = path.strip_prefix(root).unwrap_or(&path).into();
            files.push(relative.to_string_lossy().replace('\\', "/"));
        }
    }
    Ok(())
}

fn read(root: &Path, file: &str, from: &Place) -> Result<String, Problem> {
    std::fs::read_to_string(root.join(file))
        .map(|text| text.replace("\r\n", "\n"))
        .map_err(|error| Problem { place: from.clone(), message: format!("{file}: {error}") })
}

fn kernel(root: &Path, file: String, source: &str) -> Result<Kernel, Problem> {
    let mut choices: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for (line, text) in source.lines().enumerate() {
        let Some(directive) = text.strip_prefix("#variant ") else { continue };
        let place = Place { file: file.clone(), line: line + 1 };
        let (axis, values) = directive.split_once('=').ok_or_else(|| Problem {
            place,
            message: "expected `#variant axis = choices`".into(),
        })?;
        choices = choices
            .iter()
            .flat_map(|made| {
                values.split_whitespace().map(move |value| {
                    let mut made = made.clone();
                    made.push((axis.trim().to_owned(), value.to_owned()));
                    made
                })
            })
            .collect();
    }
    let name = Path::new(&file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut variants = Vec::new();
    for made in choices {
        let mut module = Module {
            choices: made.iter().map(|(_, value)| value.clone()).collect(),
            text: String::new(),
            places: Vec::new(),
            requires: Requirements::default(),
            interface: None,
        };
        let from = Place { file: file.clone(), line: 0 };
        append(root, &file, &from, &made, &mut module, 0)?;
        variants.push(module);
    }
    Ok(Kernel { name, file, variants })
}

fn append(
    root: &Path,
    file: &str,
    from: &Place,
    values: &[(String, String)],
    module: &mut Module,
    depth: usize,
) -> Result<(), Problem> {
    const DEEPEST: usize = 8;
    if depth > DEEPEST {
        return Err(Problem { place: from.clone(), message: "imports run in a circle".into() });
    }
    for (line, text) in read(root, file, from)?.lines().enumerate() {
        let place = Place { file: file.to_owned(), line: line + 1 };
        let text = substitute(text, values, &place)?;
        if text.starts_with("#variant ") {
            continue;
        }
        if text == "#requires subgroups" {
            module.requires.subgroups = true;
        } else if text == "#requires cooperative_matrices" {
            module.requires = Requirements { subgroups: true, cooperative_matrices: true };
        } else if let Some(kernel) = text.strip_prefix("#interface ") {
            module.interface = Some(kernel.trim().to_owned());
        } else if let Some(import) = text.strip_prefix("#import ") {
            let mut words = import.split_whitespace();
            let fragment = words.next().unwrap_or_default();
            let pairs: Option<Vec<_>> = words
                .map(|word| word.split_once('=').map(|(key, value)| (key.into(), value.into())))
                .collect();
            let pairs = pairs.ok_or_else(|| Problem {
                place: place.clone(),
                message: "expected `#import path key=value ...`".into(),
            })?;
            append(root, fragment, &place, &pairs, module, depth + 1)?;
        } else if text.starts_with('#') {
            return Err(Problem { place, message: format!("unknown directive `{text}`") });
        } else {
            module.text.push_str(&text);
            module.text.push('\n');
            module.places.push(place);
        }
    }
    Ok(())
}

/// Replaces `$key`; a `$` that is not a known key is a mistake, except in comments.
fn substitute(text: &str, values: &[(String, String)], place: &Place) -> Result<String, Problem> {
    let mut parts = text.split('$');
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // The longest key wins, so that `$up` does not take the head of `$up_weight`; keys end where they
        // end, so that `$tensor_at` can name a function after its tensor.
        let key = values
            .iter()
            .filter(|(key, _)| part.starts_with(key.as_str()))
            .max_by_key(|(key, _)| key.len());
        match key {
            Some((key, value)) => {
                result.push_str(value);
                result.push_str(&part[key.len()..]);
            }
            None if text.trim_start().starts_with("//") => {
                result.push('$');
                result.push_str(part);
            }
            None => {
                let message = format!("`${part}` starts with no known key");
                return Err(Problem { place: place.clone(), message });
            }
        }
    }
    Ok(result)
}
