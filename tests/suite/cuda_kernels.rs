//! The CUDA kernels one by one: every MLP case through every kernel that can do it.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use siluette::backend::cuda::{CudaOptions, MlpKernel};
use siluette::conformance::{
    Case, Fill, Oracle, Purpose, Status, TensorSpec, Tolerance, cases_for,
};
use siluette::{Backend, DType, Device, GatedMlp, GatedMlpArgs, Layout, Parameters};

use crate::conformance::Selection;
use crate::cuda_support::device;
use crate::support::open;

fn options(kernel: MlpKernel) -> CudaOptions {
    let mut options = CudaOptions::default();
    options.mlp.forced = Some(kernel);
    options
}

fn mlp_cases() -> impl Iterator<Item = Case> {
    cases_for(Purpose::Conformance).into_iter().filter(|case| case.op != "silu_mul")
}

/// How many of these cases pass; the others are unsupported.
fn passing(device: &Device, cases: impl Iterator<Item = Case>) -> usize {
    cases
        .filter(|case| match Oracle::new(case).expect("a valid case").check(device).status {
            Status::Pass => true,
            Status::Fail(reason) => panic!("{} {} {}: {reason}", case.op, case.dtype, case.name),
            Status::Unsupported(reason) => {
                println!("UNSUPPORTED: {} {} {}: {reason}", case.op, case.dtype, case.name);
                false
            }
        })
        .count()
}

#[test]
fn gemv_does_every_small_case() {
    let Some(device) = device(options(MlpKernel::Gemv)) else { return };
    every_small_case(&device, 0..=5);
}

#[test]
fn plain_does_every_small_case() {
    let Some(device) = device(options(MlpKernel::Plain)) else { return };
    every_small_case(&device, 0..=9);
}

#[test]
fn skinny_does_every_option() {
    every_option(MlpKernel::Skinny, &[1, 3, 8, 9, 16, 17, 31, 32, 33, 63, 64, 65, 130]);
}

#[test]
fn tile_does_every_option() {
    every_option(MlpKernel::Tile, &[1, 63, 64, 65, 127, 128, 129]);
}

#[test]
fn wgmma_does_every_option() {
    every_option(MlpKernel::Wgmma, &[1, 63, 64, 65, 127, 128, 129, 130, 257]);
}

/// More token tiles than a band of the persistent grid holds, and a last band of one.
#[test]
fn wgmma_takes_tiles_in_bands() {
    let Some(device) = device(options(MlpKernel::Wgmma)) else { return };
    if !can_run(&device, MlpKernel::Wgmma) {
        return;
    }
    let case = MlpCase {
        gated: true,
        rows: 16 * 128 + 5,
        hidden: 264,
        ffn: 264,
        dtype: DType::BF16,
        aligned: true,
        options: 0b101,
    };
    assert_eq!(passing(&device, std::iter::once(case.build())), 1);
}

/// What pruned and masked blocks add to the kernels: n from the workspace, masks, features that are left as they are.
#[test]
fn tensor_core_kernels_do_pruned_and_masked_blocks() {
    for kernel in [MlpKernel::Skinny, MlpKernel::Tile, MlpKernel::Wgmma] {
        let Some(device) = device(options(kernel)) else { return };
        if !can_run(&device, kernel) {
            return;
        }
        for op in ["pruned_linear", "pruned_gated_mlp", "masked_gated_mlp"] {
            let cases = mlp_cases().filter(|case| case.op == op && case.dtype.ends_with("f16"));
            // The others have inner dimensions that are no multiples of 8, or rows that are not aligned.
            let passing = passing(&device, cases.filter(|case| !case.dtype.starts_with("f32")));
            assert!(passing >= 25, "{kernel:?} does {passing} cases of {op}");
        }
    }
}

/// Cases of so many rows, or a [`Selection`] of them.
fn every_small_case(device: &Device, rows: RangeInclusive<usize>) {
    let cases = mlp_cases().filter(|case| has_rows(case, rows.clone())).collect();
    let cases: Vec<Case> = Selection::of_environment().select(cases).collect();
    assert!(!cases.is_empty());
    assert_eq!(passing(device, cases.iter().cloned()), cases.len());
}

/// Forces a tensor-core kernel on shapes that it can do, with changing options, or a [`Selection`] of the rows.
fn every_option(kernel: MlpKernel, rows: &[usize]) {
    let Some(device) = device(options(kernel)) else { return };
    if !can_run(&device, kernel) {
        return;
    }
    let shapes = [[8, 8], [72, 136], [136, 72], [256, 264], [264, 600], [75, 331]];
    let rows = rows.iter().enumerate().collect();
    for (index, &rows) in Selection::of_environment().select(rows) {
        let [hidden, ffn] = shapes[index % shapes.len()];
        for (dtype, gated) in [(DType::F16, true), (DType::BF16, true), (DType::BF16, false)] {
            let case =
                MlpCase { gated, rows, hidden, ffn, dtype, aligned: true, options: index * 5 + 3 }
                    .build();
            let name = case.name.clone();
            assert_eq!(passing(&device, std::iter::once(case)), 1, "{name} is unsupported");
        }
    }
}

#[test]
fn forced_kernels_that_cannot_be_had_are_refused() {
    let Some(device) = device(options(MlpKernel::Wgmma)) else { return };
    // Rows that are not aligned, and what no tensor core takes.
    let cases = [gated_case(65, 33, 51, DType::BF16), gated_case(65, 64, 64, DType::F32)];
    assert_eq!(passing(&device, cases.into_iter()), 0);
    if !can_run(&device, MlpKernel::Wgmma) {
        assert_eq!(passing(&device, std::iter::once(gated_case(130, 64, 64, DType::BF16))), 0);
    }
}

#[test]
fn launches_may_wait_for_each_other() {
    let mut options = CudaOptions::default();
    options.dependent_launches = false;
    let Some(device) = device(options) else { return };
    let cases = [1, 3, 65].map(|rows| gated_case(rows, 64, 64, DType::BF16));
    assert_eq!(passing(&device, cases.into_iter()), 3);
}

/// Shapes on both sides of every border, through the kernels that the table chooses.
#[test]
fn the_default_choice_reaches_every_kernel() {
    let Some(device) = open(Backend::Cuda) else { return };
    let Device::Cuda(cuda) = &device else { unreachable!("asked for CUDA") };
    let mut seen = BTreeSet::new();
    for rows in [0, 1, 2, 3, 8, 9, 16, 17, 33, 64, 65, 127, 130] {
        for (hidden, ffn) in [(40, 72), (33, 51), (136, 520)] {
            for dtype in DType::FLOATS {
                let op = GatedMlp::new(hidden, ffn, dtype).unwrap();
                let layout = |shape: [usize; 2]| Layout::contiguous(dtype, &shape).unwrap();
                let weight = layout([ffn, hidden]);
                let x = layout([rows, hidden]);
                let args = GatedMlpArgs::new(x, weight, weight, layout([hidden, ffn]), x);
                seen.extend(cuda.cuda().plan(&op, &args).unwrap().kernels());
                let case = gated_case(rows, hidden, ffn, dtype);
                assert_eq!(passing(&device, std::iter::once(case)), 1);
            }
        }
    }
    let mut expected =
        vec!["gate_up_gemv_f32", "down_gemv_bf16", "gate_up_plain_f16", "down_plain"];
    if has_tensor_cores(&device) {
        expected.extend(["gate_up_skinny8", "down_skinny16", "gate_up_skinny32", "down_skinny64"]);
        expected.extend(["gate_up_tile", "down_tile", "down_reduce"]);
    }
    // What is a few tiles to the simulator's four multiprocessors is too little for a GPU's.
    if wgmma(&device) && cuda.cuda().capabilities().multiprocessors <= 4 {
        expected.extend(["gate_up_wgmma", "down_wgmma"]);
    }
    for kernel in expected {
        assert!(seen.iter().any(|name| name.contains(kernel)), "{kernel} not among {seen:?}");
    }
}

/// A row's result does not depend on how many other rows there are.
#[test]
fn batch_invariant_descriptors_keep_their_promise() {
    let Some(device) = open(Backend::Cuda) else { return };
    for dtype in DType::FLOATS {
        let op = GatedMlp::new(72, 136, dtype).unwrap().with_batch_invariance(true);
        let tensor = |shape: [usize; 2], seed| {
            let layout = Layout::contiguous(dtype, &shape).unwrap();
            crate::cuda_support::random(layout, 0.5, seed)
        };
        let weights = [tensor([136, 72], 1), tensor([136, 72], 2), tensor([72, 136], 3)];
        let all = tensor([64, 72], 4).view().to_f64();
        let run = |rows: usize| {
            let layout = Layout::contiguous(dtype, &[rows, 72]).unwrap();
            let x = siluette::Tensor::from_f64(layout, all.iter().copied());
            let mut out = siluette::Tensor::zeros(layout);
            let [gate, up, down] = &weights;
            device.run(&op, GatedMlpArgs::new(&x, gate, up, down, &mut out)).unwrap();
            out.view().to_f64()
        };
        let together = run(64);
        for rows in [1, 2, 3, 16, 17, 63] {
            assert_eq!(run(rows), together[..rows * 72], "{dtype} {rows} rows");
        }
    }
}

/// Whether the device has what a kernel is made of; says so if not.
fn can_run(device: &Device, kernel: MlpKernel) -> bool {
    let can_run = match kernel {
        MlpKernel::Wgmma => wgmma(device),
        _ => has_tensor_cores(device),
    };
    if !can_run {
        println!("NOT RUN: the device has no tensor cores that {kernel:?} could use");
    }
    can_run
}

fn wgmma(device: &Device) -> bool {
    match device {
        Device::Cuda(device) => device.cuda().capabilities().wgmma,
        _ => false,
    }
}

fn has_tensor_cores(device: &Device) -> bool {
    match device {
        Device::Cuda(device) => device.cuda().capabilities().has_tensor_cores(),
        _ => false,
    }
}

fn has_rows(case: &Case, rows: RangeInclusive<usize>) -> bool {
    case.tensors.iter().any(|tensor| tensor.name == "x" && rows.contains(&tensor.shape[0]))
}

fn gated_case(rows: usize, hidden: usize, ffn: usize, dtype: DType) -> Case {
    MlpCase { gated: true, rows, hidden, ffn, dtype, aligned: false, options: 0 }.build()
}

struct MlpCase {
    gated: bool,
    rows: usize,
    hidden: usize,
    ffn: usize,
    dtype: DType,
    /// Whether rows start on multiples of 16 bytes whatever their length.
    aligned: bool,
    /// Bits: biases, norm, residual, early rounding, gaps between rows, f32 output.
    options: usize,
}

impl MlpCase {
    fn build(&self) -> Case {
        let [biases, norm, residual, early, gaps, f32_out] =
            std::array::from_fn(|bit| self.options >> bit & 1 == 1);
        let gap = |columns: usize| {
            let to_alignment = if self.aligned { columns.next_multiple_of(8) - columns } else { 0 };
            to_alignment + if gaps { 8 } else { 0 }
        };
        let (rows, hidden, ffn, dtype) = (self.rows, self.hidden, self.ffn, self.dtype);
        let spec = |name, shape: &[usize], fill| TensorSpec {
            name,
            dtype,
            shape: shape.to_vec(),
            gap: if shape.len() == 2 { gap(shape[1]) } else { 0 },
            fill,
        };
        let normal = |scale| Fill::Normal { scale };
        let mut tensors = vec![
            spec("x", &[rows, hidden], normal(1.0)),
            spec("up_weight", &[ffn, hidden], normal(0.1)),
            spec("down_weight", &[hidden, ffn], normal(0.1)),
        ];
        if self.gated {
            tensors.push(spec("gate_weight", &[ffn, hidden], normal(0.1)));
        }
        if biases {
            tensors.push(spec("up_bias", &[ffn], normal(1.0)));
            tensors.push(spec("down_bias", &[hidden], normal(1.0)));
        }
        if biases && self.gated {
            tensors.push(spec("gate_bias", &[ffn], normal(1.0)));
        }
        if norm {
            tensors.push(spec("norm_weight", &[hidden], Fill::AroundOne { scale: 0.2 }));
        }
        if residual {
            tensors.push(spec("residual", &[rows, hidden], normal(1.0)));
        }
        let mut parameters = Parameters::new();
        if early {
            parameters = parameters.with("rounding", "round_gate_up");
        }
        if f32_out {
            parameters = parameters.with("out_dtype", "f32");
        }
        Case {
            op: if self.gated { "gated_mlp" } else { "silu_mlp" },
            name: format!("rows={rows} hidden={hidden} ffn={ffn} options={:06b}", self.options),
            dtype: dtype.name().to_owned(),
            purpose: Purpose::Conformance,
            tensors,
            parameters,
            output_gap: gap(hidden),
            tolerance: tolerance(dtype),
        }
    }
}

/// The widest that the case list has for MLPs of this type: its tolerance grows with the length of the sums.
fn tolerance(dtype: DType) -> Tolerance {
    let listed = mlp_cases().filter(|case| case.op == "gated_mlp" && case.dtype == dtype.name());
    let inner = |tolerance: &Tolerance| match tolerance {
        Tolerance::Rounded { inner, .. } => *inner,
        Tolerance::Exact => 0.0,
    };
    let tolerances = listed.map(|case| case.tolerance);
    let widest = tolerances.max_by(|left, right| inner(left).total_cmp(&inner(right)));
    widest.expect("every dtype is listed")
}
