//! `siluette run`.

use std::path::{Path, PathBuf};
use std::process::Output;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use siluette::conformance::{Case, Purpose, cases_for};
use siluette::device::NamedTensors;
use siluette::registry::{self, OPERATIONS};
use siluette::{Backend, DType, Device, HasLayout, Layout, Tensor};
use tempfile::TempDir;

use super::{assert_exit, siluette, text};

/// A folder with an input file, and calls of `run` on it.
struct Folder {
    root: TempDir,
}

impl Folder {
    fn new() -> Folder {
        Folder { root: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) {
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        std::fs::write(self.path("in.safetensors"), bytes).unwrap();
    }

    /// `silu_mul` inputs: two rows of three.
    fn write_silu_mul(&self) {
        self.write(&[floats("gate", &[2, 3]), floats("up", &[2, 3])]);
    }

    fn run(&self, op: &str, backend: &str, extra: &[&str]) -> Output {
        self.run_to(op, backend, &self.path("out.safetensors"), extra)
    }

    fn run_to(&self, op: &str, backend: &str, output: &Path, extra: &[&str]) -> Output {
        let input = self.path("in.safetensors");
        let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
        let mut arguments =
            vec!["run", op, "--backend", backend, "--input", input, "--output", output];
        arguments.extend(extra);
        siluette(&arguments)
    }

    fn read(&self) -> NamedTensors {
        let bytes = std::fs::read(self.path("out.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        file.iter().map(|(name, view)| (name.to_owned(), tensor(&view))).collect()
    }

    /// Names of what lies in the folder besides the input.
    fn leftovers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "in.safetensors").collect()
    }

    /// `run silu_mul` must fail, say this, exit with 2 and leave nothing behind.
    #[track_caller]
    fn assert_refused(&self, extra: &[&str], words: &[&str]) {
        for backend in ["reference", "cpu"] {
            let output = self.run("silu_mul", backend, extra);
            assert_exit(&output, 2);
            assert!(output.stdout.is_empty());
            for word in words {
                assert!(text(&output.stderr).contains(word), "{}", text(&output.stderr));
            }
            assert_eq!(self.leftovers(), Vec::<String>::new());
        }
    }
}

fn floats(name: &str, shape: &[usize]) -> (&'static str, Dtype, &'static [usize], Vec<u8>) {
    let count: usize = shape.iter().product();
    let bytes = (0..count).flat_map(|index| (index as f32 * 0.5 - 1.0).to_le_bytes()).collect();
    (name.to_owned().leak(), Dtype::F32, shape.to_vec().leak(), bytes)
}

fn file_dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::U8 => Dtype::U8,
        DType::I32 => Dtype::I32,
        DType::U32 => Dtype::U32,
        other => panic!("no test tensor is of type {other}"),
    }
}

fn tensor(view: &TensorView<'_>) -> Tensor {
    let dtype = DType::from_name(&format!("{:?}", view.dtype()).to_lowercase()).unwrap();
    let layout = Layout::contiguous(dtype, view.shape()).unwrap();
    let mut tensor = Tensor::zeros(layout);
    tensor.span_bytes_mut().copy_from_slice(view.data());
    tensor
}

/// For each operation and combination of element types, the case with the most optional tensors that a file
/// can hold: one without gaps.
fn richest_cases() -> Vec<Case> {
    let mut chosen: Vec<Case> = Vec::new();
    let mut cases = cases_for(Purpose::Conformance);
    cases.retain(|case| case.tensors.iter().all(|tensor| tensor.gap == 0));
    cases.sort_by_key(|case| std::cmp::Reverse(case.tensors.len()));
    for info in OPERATIONS {
        for case in cases.iter().filter(|case| case.op == info.name) {
            if chosen.iter().all(|seen| (seen.op, &seen.dtype) != (case.op, &case.dtype)) {
                chosen.push(case.clone());
            }
        }
    }
    chosen
}

fn library_result(case: &Case, backend: Backend) -> NamedTensors {
    let info = registry::find(case.op).unwrap();
    let prepared = info.prepare(case.inputs().unwrap(), &case.parameters).unwrap();
    let outputs = prepared.outputs().iter();
    let outputs = outputs.map(|(name, layout)| (name.clone(), Tensor::zeros(*layout))).collect();
    let mut loaded = prepared.load(&Device::open(backend).unwrap(), outputs).unwrap();
    loaded.run(1).unwrap();
    let mut outputs = loaded.outputs().unwrap();
    prepared.trim(&mut outputs).unwrap();
    outputs
}

/// Of rows without a result, NaN is the right one, which equals nothing.
fn bits(tensors: &NamedTensors) -> Vec<(&str, Layout, &[u8])> {
    tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor.layout(), tensor.view().span_bytes()))
        .collect()
}

#[test]
fn run_gives_what_the_library_gives() {
    for case in richest_cases() {
        let folder = Folder::new();
        let inputs = case.inputs().unwrap();
        let tensors: Vec<_> = inputs
            .iter()
            .map(|(name, tensor)| {
                let layout = tensor.layout();
                let shape: &[usize] = layout.shape().to_vec().leak();
                let bytes = tensor.view().span_bytes().to_vec();
                (name.as_str(), file_dtype(layout.dtype()), shape, bytes)
            })
            .collect();
        folder.write(&tensors);
        let parameters: Vec<String> =
            case.parameters.iter().map(|(name, value)| format!("--param={name}={value}")).collect();
        let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
        for backend in [Backend::Reference, Backend::Cpu] {
            let output = folder.run(case.op, backend.name(), &parameters);
            assert_exit(&output, 0);
            let (got, expected) = (folder.read(), library_result(&case, backend));
            assert_eq!(bits(&got), bits(&expected), "{} {}", case.op, case.name);
            assert_eq!(folder.leftovers(), ["out.safetensors"]);
        }
    }
}

#[test]
fn run_writes_the_same_bytes_again() {
    let folder = Folder::new();
    folder.write_silu_mul();
    let path = folder.path("out.safetensors");
    assert_exit(&folder.run("silu_mul", "cpu", &["--param", "out_dtype=f16"]), 0);
    let first = std::fs::read(&path).unwrap();
    assert_exit(&folder.run("silu_mul", "cpu", &["--param", "out_dtype=f16"]), 0);
    assert_eq!(std::fs::read(&path).unwrap(), first);
}

#[test]
fn run_writes_the_type_asked_for() {
    let folder = Folder::new();
    folder.write_silu_mul();
    for dtype in DType::FLOATS {
        let parameter = format!("out_dtype={dtype}");
        assert_exit(&folder.run("silu_mul", "cpu", &["--param", &parameter]), 0);
        assert_eq!(folder.read()["out"].layout().dtype(), dtype);
    }
    assert_exit(&folder.run("silu_mul", "cpu", &[]), 0);
    assert_eq!(folder.read()["out"].layout().dtype(), DType::F32);
}

#[test]
fn run_narrows_its_outputs() {
    let folder = Folder::new();
    folder.write_silu_mul();
    folder.assert_refused(&["--outputs", "out,logits"], &["`logits`", "some of: out"]);
    assert_exit(&folder.run("silu_mul", "cpu", &["--outputs", "out"]), 0);
    assert_eq!(folder.read().into_keys().collect::<Vec<_>>(), ["out"]);
}

#[test]
fn run_takes_data_that_is_not_aligned() {
    let folder = Folder::new();
    // safetensors puts wide types first: a header of any length must do, so the same tensors are written
    // behind headers of eight lengths, without the padding that the crate adds.
    for padding in 0..8 {
        let header = r#"{"gate":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},"up":{"dtype":"F32","shape":[1,1],"data_offsets":[4,8]}}"#;
        let header = header.to_owned() + &" ".repeat(padding);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(2f32.to_le_bytes());
        bytes.extend(3f32.to_le_bytes());
        std::fs::write(folder.path("in.safetensors"), bytes).unwrap();
        assert_exit(&folder.run("silu_mul", "cpu", &[]), 0);
        let out = folder.read()["out"].view().to_f64()[0];
        assert!((out - 2.0 / (1.0 + (-2f64).exp()) * 3.0).abs() < 1e-6, "{padding}: {out}");
    }
}

#[test]
fn run_takes_zero_sizes() {
    let folder = Folder::new();
    for shape in [[0, 3], [3, 0], [0, 0]] {
        folder.write(&[floats("gate", &shape), floats("up", &shape)]);
        for backend in ["reference", "cpu"] {
            assert_exit(&folder.run("silu_mul", backend, &[]), 0);
            assert_eq!(folder.read()["out"].layout().shape(), shape);
        }
    }
}

#[test]
fn run_refuses_bad_tensors() {
    let folder = Folder::new();
    let gate = || floats("gate", &[2, 3]);
    let of = |dtype, size: usize| ("up", dtype, &[2usize, 3][..], vec![0u8; 6 * size]);
    let cases: [(Vec<_>, &[&str]); 12] = [
        (vec![gate()], &["silu_mul: up", "expected a tensor"]),
        (vec![gate(), floats("up", &[2, 3]), floats("ups", &[1])], &["`ups`", "gate, up"]),
        (vec![gate(), floats("up", &[2, 3]), floats("out", &[2, 3])], &["`out`", "gate, up"]),
        (vec![gate(), floats("up", &[3, 2])], &["up has shape [3, 2]", "[2, 3]"]),
        (vec![gate(), floats("up", &[6])], &["up has shape [6]", "[2, 3]"]),
        (vec![floats("gate", &[6]), floats("up", &[6])], &["gate has shape [6]", "[M, 6]"]),
        (vec![floats("gate", &[1, 2, 3]), floats("up", &[1, 2, 3])], &["gate has shape"]),
        (vec![gate(), floats("up", &[1, 1, 1, 2, 3])], &["up has shape", "4 dimensions"]),
        (vec![gate(), of(Dtype::F16, 2)], &["up has dtype f16", "expected f32"]),
        (vec![gate(), of(Dtype::I64, 8)], &["up has dtype I64", "F32, F16 or BF16"]),
        (vec![gate(), of(Dtype::U16, 2)], &["up has dtype U16", "F32, F16 or BF16"]),
        (vec![gate(), of(Dtype::F64, 8)], &["up has dtype F64", "F32, F16 or BF16"]),
    ];
    for (tensors, words) in cases {
        folder.write(&tensors);
        folder.assert_refused(&[], words);
    }
}

#[test]
fn run_refuses_bad_parameters() {
    let folder = Folder::new();
    folder.write_silu_mul();
    folder.assert_refused(&["--param", "eps=1e-5"], &["`eps`", "out_dtype"]);
    folder.assert_refused(&["--param", "out_dtype=f64"], &["out_dtype", "f64", "f32, f16 or bf16"]);
    folder.assert_refused(&["--param", "out_dtype=F16"], &["out_dtype", "F16"]);
    folder.assert_refused(&["--param", "out_dtype"], &["KEY=VALUE"]);
    folder.assert_refused(&["--param", "=f16"], &["KEY=VALUE"]);
    let twice = ["--param", "out_dtype=f16", "--param", "out_dtype=f32"];
    folder.assert_refused(&twice, &["`out_dtype` twice"]);
}

#[test]
fn run_refuses_parameters_outside_their_domain() {
    let folder = Folder::new();
    folder.write(&[
        floats("x", &[1, 2]),
        floats("up_weight", &[3, 2]),
        floats("down_weight", &[2, 3]),
        floats("norm_weight", &[2]),
    ]);
    for (parameter, word) in [
        ("eps=-1", "eps"),
        ("eps=nan", "eps"),
        ("eps=small", "eps"),
        ("rounding=none", "keep_f32 or round_gate_up"),
        ("batch_invariant=yes", "true or false"),
    ] {
        let output = folder.run("silu_mlp", "cpu", &["--param", parameter]);
        assert_exit(&output, 2);
        assert!(text(&output.stderr).contains(word), "{}", text(&output.stderr));
        assert!(folder.leftovers().is_empty());
    }
    assert_exit(&folder.run("silu_mlp", "cpu", &["--param", "eps=1e-3"]), 0);
}

#[test]
fn run_refuses_files_that_are_not_whole() {
    let folder = Folder::new();
    folder.assert_refused(&[], &["in.safetensors", "cannot be read"]);
    folder.write_silu_mul();
    let whole = std::fs::read(folder.path("in.safetensors")).unwrap();
    for length in [0, 4, 8, 20, whole.len() / 2, whole.len() - 1] {
        std::fs::write(folder.path("in.safetensors"), &whole[..length]).unwrap();
        folder.assert_refused(&[], &["in.safetensors", "not a whole safetensors file"]);
    }
    let mut longer = whole.clone();
    longer.push(0);
    std::fs::write(folder.path("in.safetensors"), longer).unwrap();
    folder.assert_refused(&[], &["not a whole safetensors file"]);
    std::fs::write(folder.path("in.safetensors"), "garbage ".repeat(100)).unwrap();
    folder.assert_refused(&[], &["not a whole safetensors file"]);
}

#[test]
fn run_refuses_places_it_cannot_write() {
    let folder = Folder::new();
    folder.write_silu_mul();
    let missing = folder.path("missing/out.safetensors");
    let below_a_file = folder.path("in.safetensors/out.safetensors");
    let here = folder.root.path().to_owned();
    for path in [missing, below_a_file, here, PathBuf::from("/proc/out.safetensors")] {
        let output = folder.run_to("silu_mul", "cpu", &path, &[]);
        assert_exit(&output, 2);
        assert!(text(&output.stderr).starts_with("error: /"), "{}", text(&output.stderr));
        assert!(folder.leftovers().is_empty());
    }
}

#[test]
fn a_failing_run_keeps_the_old_output() {
    let folder = Folder::new();
    folder.write(&[floats("gate", &[2, 3]), floats("up", &[3, 2])]);
    std::fs::write(folder.path("out.safetensors"), "precious").unwrap();
    assert_exit(&folder.run("silu_mul", "cpu", &[]), 2);
    assert_eq!(std::fs::read(folder.path("out.safetensors")).unwrap(), b"precious");
    folder.write_silu_mul();
    assert_exit(&folder.run("silu_mul", "cpu", &[]), 0);
    assert_eq!(folder.read()["out"].layout().shape(), [2, 3]);
    assert_eq!(folder.leftovers(), ["out.safetensors"]);
}
