//! What NVIDIA's compiler makes of every kernel: no spills, and the registers that the kernels' READMEs say.
//!
//! Needs no GPU: `SILUETTE_NVRTC_LIBRARY` names the library, such as that of the Python package
//! `nvidia-cuda-nvrtc-cu12`.

use std::collections::BTreeMap;
use std::path::Path;

use siluette::backend::cuda::{Architecture, Compiler, source_names};

use crate::support::is_required;

/// The architectures of the README's table.
const ARCHITECTURES: [&str; 5] = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90a"];
/// The compiler that the README's table was made with; others allocate a few registers more or less.
const TABLE_VERSION: (u32, u32) = (12, 6);
/// The same compiler gives the same kernel up to 6 registers more in one run of 20.
const REGISTERS_BY_CHANCE: u32 = 8;
/// One a family.
const READMES: [&str; 4] = [
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/silu_mlp/README.md")),
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/prune_gather/README.md")),
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/early_exit/README.md")),
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/feature_attention/README.md")),
];

#[test]
fn every_kernel_compiles_within_its_resources() {
    let Some(compiler) = compiler() else { return };
    let table = register_table();
    let mut compiled = 0;
    let mut failures = Vec::new();
    for architecture in ARCHITECTURES {
        let target: Architecture = architecture.parse().unwrap();
        for source in source_names() {
            let image = compiler.compile(source, target).unwrap_or_else(|error| panic!("{error}"));
            assert!(image.bytes.starts_with(b"\x7fELF"), "{source} for {architecture}: no cubin");
            let ignored = advisories(&image.log);
            failures.extend(ignored.map(|line| format!("{source} for {architecture}: {line}")));
            for Resources { symbol, registers, spilled_bytes } in parse_log(&image.log) {
                compiled += 1;
                if spilled_bytes > 0 {
                    failures
                        .push(format!("{symbol} spills {spilled_bytes} bytes on {architecture}"));
                }
                let listed = table.get(&(family_name(&symbol), architecture)).copied().unwrap_or(0);
                if registers > listed + REGISTERS_BY_CHANCE && compiler.version() == TABLE_VERSION {
                    failures.push(format!(
                        "{symbol} takes {registers} registers on {architecture}, the README says {listed}"
                    ));
                }
            }
        }
    }
    let (major, minor) = compiler.version();
    println!("NVRTC {major}.{minor}: {compiled} kernels on {} architectures", ARCHITECTURES.len());
    assert!(compiled > 100, "the log names too few kernels");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The best architecture of each device is one that the compiler takes.
#[test]
fn devices_are_compiled_for_what_the_compiler_knows() {
    let Some(compiler) = compiler() else { return };
    for device in [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)] {
        let architecture = compiler.best_architecture(device).unwrap();
        let image = compiler.compile("silu_mlp/silu_mul", architecture).unwrap();
        assert!(!image.bytes.is_empty(), "{architecture}");
    }
    let error = compiler.compile("silu_mlp/unheard_of", "sm_80".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("silu_mlp/silu_mul"), "{error}");
    let error = compiler.compile("silu_mlp/silu_mul", "sm_10".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("NVRTC"), "{error}");
}

fn compiler() -> Option<Compiler> {
    let Some(library) = std::env::var_os("SILUETTE_NVRTC_LIBRARY") else {
        assert!(
            !is_required("nvrtc"),
            "SILUETTE_REQUIRE asks for nvrtc: set SILUETTE_NVRTC_LIBRARY"
        );
        println!("NOT RUN: nvrtc: unavailable, SILUETTE_NVRTC_LIBRARY is not set");
        return None;
    };
    Some(Compiler::open(Some(Path::new(&library))).unwrap_or_else(|error| panic!("{error}")))
}

#[derive(Debug, Default, PartialEq)]
struct Resources {
    symbol: String,
    registers: u32,
    spilled_bytes: u32,
}

/// What ptxas says about each kernel.
fn parse_log(log: &str) -> Vec<Resources> {
    let mut kernels: Vec<Resources> = Vec::new();
    for line in log.lines() {
        if let Some(symbol) = between(line, "Compiling entry function '", "'") {
            kernels.push(Resources { symbol: symbol.to_owned(), ..Resources::default() });
        }
        let Some(kernel) = kernels.last_mut() else { continue };
        if let Some(registers) = between(line, "Used ", " registers") {
            kernel.registers = registers.parse().expect("a number of registers");
        }
        for part in line.split(", ").filter(|part| part.contains("bytes spill")) {
            let bytes = part.split_whitespace().next().and_then(|bytes| bytes.parse().ok());
            kernel.spilled_bytes += bytes.unwrap_or(u32::MAX);
        }
    }
    kernels
}

/// Where ptxas gave up on what a kernel asks for: `setmaxnreg` that it ignores, wgmma that it makes wait for each other.
fn advisories(log: &str) -> impl Iterator<Item = &str> {
    log.lines().filter(|line| line.contains("(C7"))
}

fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    line.split_once(before)?.1.split_once(after).map(|(found, _)| found)
}

/// A kernel's name without its dtypes.
fn family_name(symbol: &str) -> &str {
    let mut name = symbol;
    while let Some((rest, "f32" | "f16" | "bf16")) = name.rsplit_once('_') {
        name = rest;
    }
    name
}

/// Registers by kernel and architecture, from the READMEs.
fn register_table() -> BTreeMap<(&'static str, &'static str), u32> {
    let rows = READMES.iter().flat_map(|readme| readme.lines()).filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        let registers: Vec<Option<u32>> =
            cells.take(ARCHITECTURES.len()).map(|cell| cell.parse().ok()).collect();
        (registers.len() == ARCHITECTURES.len()).then_some((name, registers))
    });
    rows.flat_map(|(name, registers)| {
        let by_architecture = ARCHITECTURES.into_iter().zip(registers);
        by_architecture
            .filter_map(move |(architecture, count)| Some(((name, architecture), count?)))
    })
    .collect()
}

#[test]
fn logs_are_understood() {
    let log = "ptxas info    : Compiling entry function 'mlp_down_gemv_f32_bf16' for 'sm_80'\n\
               ptxas info    : Function properties for mlp_down_gemv_f32_bf16\n    \
               8 bytes stack frame, 12 bytes spill stores, 4 bytes spill loads\n\
               ptxas info    : Used 40 registers, 128 bytes smem, 500 bytes cmem[0]\n";
    let expected =
        Resources { symbol: "mlp_down_gemv_f32_bf16".into(), registers: 40, spilled_bytes: 16 };
    assert_eq!(parse_log(log), [expected]);
    assert_eq!(advisories(log).count(), 0);
    let ignored = "ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored";
    assert_eq!(advisories(ignored).collect::<Vec<_>>(), [ignored]);
    assert_eq!(family_name("mlp_down_gemv_f32_bf16"), "mlp_down_gemv");
    assert!(register_table().contains_key(&("mlp_down_gemv", "sm_80")));
}
