//! Writes every shader to a folder, as a browser takes it: one `.wgsl` file for each variant of each kernel, but for those by
//! cooperative matrices, which no browser has.
//!
//! `cargo run --features wgpu --example export_shaders -- FOLDER`

use std::path::PathBuf;
use std::process::ExitCode;

use siluette::backend::wgpu::shader_sources;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: export_shaders FOLDER");
        return ExitCode::from(2);
    };
    match export(&folder) {
        Ok(count) => {
            println!("{count} shaders in {}", folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn export(folder: &std::path::Path) -> std::io::Result<usize> {
    std::fs::create_dir_all(folder)?;
    let mut count = 0;
    for shader in shader_sources().filter(|shader| !shader.cooperative_matrices) {
        let enable = if shader.subgroups { "enable subgroups;\n" } else { "" };
        let path = folder.join(format!("{}.wgsl", shader.name));
        std::fs::write(path, format!("{enable}{}", shader.source))?;
        count += 1;
    }
    Ok(count)
}
