//! Embeds the CUDA sources and, if `SILUETTE_CUDA_ARCHS` is set, images compiled from them by nvcc.
//!
//! `SILUETTE_CUDA_ARCHS` lists architectures as nvcc spells them after `sm_`, with commas between:
//! `SILUETTE_CUDA_ARCHS=80,86,90a`. nvcc is taken from `NVCC`, `CUDA_HOME`/`CUDA_PATH` or `PATH`. Without
//! nvcc the build warns and goes on: the program then compiles its kernels with NVRTC.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const KERNELS: &str = "kernels";
/// Headers that every family may include.
const SHARED: &str = "shared";

/// Writes `$OUT_DIR/cuda_sources.rs`.
pub fn build() {
    for variable in ["SILUETTE_CUDA_ARCHS", "NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    println!("cargo:rerun-if-changed={KERNELS}");
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(variable("OUT_DIR"));
    let kernels = root.join(KERNELS);
    let shared = files(&kernels.join(SHARED), "cuh");
    let compiler = Nvcc::from_environment();
    let mut code = String::from("pub(crate) static SOURCES: &[Source] = &[\n");
    for family in folders(&kernels) {
        let headers: Vec<PathBuf> = shared.iter().cloned().chain(files(&family, "cuh")).collect();
        for source in files(&family, "cu") {
            let images = compiler.iter().flat_map(|nvcc| nvcc.compile(&kernels, &source, &out));
            write_source(&mut code, &source, &headers, images);
        }
    }
    code.push_str("];\n");
    let path = out.join("cuda_sources.rs");
    fs::write(&path, code).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn write_source(
    code: &mut String,
    source: &Path,
    headers: &[PathBuf],
    images: impl Iterator<Item = (String, PathBuf)>,
) {
    let mut line = |text: String| {
        code.push_str(&text);
        code.push('\n');
    };
    line("    Source {".to_owned());
    line(format!("        name: {:?},", source_name(source)));
    line(format!("        text: include_str!({source:?}),"));
    line("        headers: &[".to_owned());
    for header in headers {
        line(format!("            ({:?}, include_str!({header:?})),", file_name(header)));
    }
    line("        ],".to_owned());
    line("        images: &[".to_owned());
    for (architecture, image) in images {
        line(format!("            ({architecture:?}, include_bytes!({image:?})),"));
    }
    line("        ],".to_owned());
    line("    },".to_owned());
}

/// A CUDA compiler and the architectures that it is to compile for.
struct Nvcc {
    program: PathBuf,
    architectures: Vec<String>,
}

impl Nvcc {
    fn from_environment() -> Option<Nvcc> {
        let architectures: Vec<String> = env::var("SILUETTE_CUDA_ARCHS")
            .unwrap_or_default()
            .split([',', ';', ' '])
            .filter(|architecture| !architecture.is_empty())
            .map(|architecture| architecture.trim_start_matches("sm_").to_owned())
            .collect();
        if architectures.is_empty() {
            return None;
        }
        for architecture in &architectures {
            assert!(
                architecture.trim_end_matches(['a', 'f']).parse::<u32>().is_ok(),
                "SILUETTE_CUDA_ARCHS: `{architecture}` is no architecture; give a list such as 80,86,90a"
            );
        }
        let found = candidates().into_iter().find(|program| {
            Command::new(program).arg("--version").output().is_ok_and(|run| run.status.success())
        });
        if found.is_none() {
            println!(
                "cargo:warning=SILUETTE_CUDA_ARCHS is set but nvcc was not found (NVCC, CUDA_HOME/bin, \
                 CUDA_PATH/bin, PATH); the kernels will be compiled at run time by NVRTC"
            );
        }
        found.map(|program| Nvcc { program, architectures })
    }

    /// One image an architecture. A source that does not compile fails the build.
    fn compile(&self, kernels: &Path, source: &Path, out: &Path) -> Vec<(String, PathBuf)> {
        let family = source.parent().expect("sources lie in a family's folder");
        let stem = source_name(source).replace('/', "-");
        self.architectures
            .iter()
            .map(|architecture| {
                let image = out.join(format!("{stem}.sm_{architecture}.cubin"));
                let run = Command::new(&self.program)
                    .args(["--cubin", "--std=c++17"])
                    .arg(format!("--gpu-architecture=sm_{architecture}"))
                    .arg(format!("-I{}", kernels.join(SHARED).display()))
                    .arg(format!("-I{}", family.display()))
                    .arg("--output-file")
                    .args([&image, source])
                    .output()
                    .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
                assert!(
                    run.status.success(),
                    "{} does not compile for sm_{architecture}:\n{}{}",
                    source.display(),
                    String::from_utf8_lossy(&run.stdout),
                    String::from_utf8_lossy(&run.stderr)
                );
                (architecture.clone(), image)
            })
            .collect()
    }
}

fn candidates() -> Vec<PathBuf> {
    let mut programs: Vec<PathBuf> = env::var_os("NVCC").map(PathBuf::from).into_iter().collect();
    for home in ["CUDA_HOME", "CUDA_PATH"] {
        programs.extend(env::var_os(home).map(|home| Path::new(&home).join("bin").join("nvcc")));
    }
    programs.push(PathBuf::from("nvcc"));
    programs
}

/// `family/stem`.
fn source_name(source: &Path) -> String {
    let family = source.parent().and_then(Path::file_name).unwrap_or_default();
    let stem = source.file_stem().unwrap_or_default();
    let mut name = String::new();
    // Writing to a string cannot fail.
    let _ = write!(name, "{}/{}", family.to_string_lossy(), stem.to_string_lossy());
    name
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    sorted(parent, |path| path.is_dir() && !path.ends_with(SHARED))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    sorted(folder, |path| path.extension().is_some_and(|found| found == extension))
}

/// In a fixed order, so that builds are reproducible; nothing if the folder does not exist.
fn sorted(folder: &Path, keep: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| keep(path)).collect();
    paths.sort();
    paths
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}
