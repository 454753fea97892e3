//! Every kernel on every instruction set, against the oracle and against themselves.

use std::sync::Arc;

use super::strategy::{Kernel, Strategy};
use super::*;
use crate::backend::cpu::{InstructionSet, PackedWeight};
use crate::dtype::{DType, bf16, f16};
use crate::layout::Layout;
use crate::ops::silu_mlp::mlp::config::First;
use crate::ops::silu_mlp::mlp::reference;
use crate::ops::silu_mlp::{MLP_DTYPES, Rounding};
use crate::tensor::Tensor;

const KERNELS: [Kernel; 4] = [Kernel::Stream, Kernel::StreamTiles, Kernel::Tiles, Kernel::Panels];

/// The tensors of a gated MLP with every option, rows separated by gaps of NaN.
#[derive(Clone)]
struct Problem {
    op: MlpConfig,
    rows: usize,
    x: Tensor,
    gate_weight: Tensor,
    up_weight: Tensor,
    down_weight: Tensor,
    gate_bias: Tensor,
    up_bias: Tensor,
    down_bias: Tensor,
    norm_weight: Tensor,
    residual: Tensor,
}

impl Problem {
    fn new([rows, hidden, ffn]: [usize; 3], (activation, weight): (DType, DType)) -> Problem {
        let op = MlpConfig::new("gated_mlp", First::Gated, hidden, ffn, activation)
            .and_then(|op| op.with_weight_dtype(weight))
            .and_then(|op| op.with_norm(1e-5))
            .unwrap();
        let first = 1.0 / (hidden as f64).sqrt();
        let second = 1.0 / (ffn as f64).sqrt();
        Problem {
            op,
            rows,
            x: random(activation, &[rows, hidden], 1.0),
            gate_weight: random(weight, &[ffn, hidden], first),
            up_weight: random_with_gaps(weight, &[ffn, hidden], first * 1.1, 9),
            down_weight: random(weight, &[hidden, ffn], second),
            gate_bias: random(weight, &[ffn], 0.5),
            up_bias: random(weight, &[ffn], 0.6),
            down_bias: random(weight, &[hidden], 0.7),
            norm_weight: random(weight, &[hidden], 1.2),
            residual: random(activation, &[rows, hidden], 0.9),
        }
    }

    /// With packed weights, for [`Kernel::Panels`].
    fn packed(&self) -> Problem {
        let pack = |weight: &Tensor| {
            let view = PackedWeight::new(weight.view()).unwrap();
            Tensor::copy_of(view.view())
        };
        Problem {
            gate_weight: pack(&self.gate_weight),
            up_weight: pack(&self.up_weight),
            down_weight: pack(&self.down_weight),
            ..self.clone()
        }
    }

    fn args<'a>(&'a self, out: &'a mut Tensor) -> MlpTensors<TensorRef<'a>, TensorMut<'a>> {
        MlpTensors::new(self.x.view(), self.down_weight.view(), out.view_mut())
            .up_weight(self.up_weight.view())
            .gate_weight(self.gate_weight.view())
            .gate_bias(self.gate_bias.view())
            .up_bias(self.up_bias.view())
            .down_bias(self.down_bias.view())
            .norm_weight(self.norm_weight.view())
            .residual(self.residual.view())
    }

    fn out(&self, dtype: DType) -> Tensor {
        let strides = [self.op.hidden + 3, 1];
        Tensor::zeros(Layout::strided(dtype, &[self.rows, self.op.hidden], &strides).unwrap())
    }

    fn strategy(&self, cpu: &Cpu, kernel: Kernel) -> Strategy {
        if kernel == Kernel::Panels {
            return Strategy::packed(&self.op, self.rows, cpu.threads());
        }
        // One row or very many give the kernel, any number of rows can be run by either.
        let rows = if kernel == Kernel::Tiles { 1_000_000 } else { 1 };
        Strategy { kernel, ..Strategy::choose(&self.op, rows, cpu.threads(), ManyRows::Panels) }
    }

    fn run(&self, cpu: &Cpu, strategy: Strategy) -> Vec<f64> {
        let mut out = self.out(DType::F32);
        self.run_to(cpu, strategy, &mut out);
        out.view().to_f64()
    }

    fn run_to(&self, cpu: &Cpu, strategy: Strategy, out: &mut Tensor) {
        let mut workspace = Workspace::poisoned(8 << 20);
        match strategy.kernel {
            Kernel::Panels => {
                let packed = self.packed();
                run(cpu, &self.op, packed.args(out), &mut workspace, strategy);
            }
            _ => run(cpu, &self.op, self.args(out), &mut workspace, strategy),
        }
    }

    fn assert_near_reference(&self, cpu: &Cpu, kernel: Kernel) {
        let mut want = self.out(DType::F32);
        reference::mlp(&self.op, self.args(&mut want)).unwrap();
        let got = self.run(cpu, self.strategy(cpu, kernel));
        // One unit of the activation type in some of `h`, whose sum is about 1, and f32 sums.
        let bound = 2.0 * self.op.activation_dtype.epsilon().unwrap() + 1e-5;
        for (index, (got, want)) in got.iter().zip(want.view().to_f64()).enumerate() {
            assert!(
                (got - want).abs() <= bound * (1.0 + want.abs()),
                "{} {kernel:?} {} rows {:?}: element {index} is {got} instead of {want}",
                cpu.name(),
                self.rows,
                self.op
            );
        }
    }
}

fn random(dtype: DType, shape: &[usize], scale: f64) -> Tensor {
    random_with_gaps(dtype, shape, scale, 5)
}

/// Uniform values, the gaps between rows NaN.
fn random_with_gaps(dtype: DType, shape: &[usize], scale: f64, gap: usize) -> Tensor {
    let mut strides = vec![1; shape.len()];
    if shape.len() == 2 {
        strides[0] = shape[1] + gap;
    }
    let mut tensor = Tensor::zeros(Layout::strided(dtype, shape, &strides).unwrap());
    tensor.span_bytes_mut().fill(0xFF);
    let mut state = shape.iter().fold(88_172_645_463_325_252u64, |state, n| state ^ (*n as u64));
    tensor.view_mut().write_f64(std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 11) as f64 / (1u64 << 53) as f64 - 0.5) * 3.0 * scale
    }));
    tensor
}

fn cpus() -> impl Iterator<Item = Cpu> {
    InstructionSet::available().map(|set| Cpu::new().with_instruction_set(set).unwrap())
}

#[test]
fn every_kernel_matches_the_reference_at_every_boundary() {
    // Rows around batches (3, 4, 6, 8), vectors (4, 8, 16) and tiles (12, 24, 64); columns around vectors,
    // pairs and blocks (128, 256); weight rows around streams (3, 4) and tiles (24).
    const SHAPES: [[usize; 3]; 14] = [
        [1, 1, 1],
        [2, 2, 3],
        [3, 31, 5],
        [4, 33, 24],
        [5, 129, 25],
        [6, 64, 70],
        [7, 130, 23],
        [8, 257, 49],
        [9, 63, 96],
        [13, 515, 26],
        [17, 127, 130],
        [25, 65, 258],
        [49, 30, 97],
        [65, 70, 51],
    ];
    for cpu in cpus() {
        for shape in SHAPES {
            for dtypes in MLP_DTYPES {
                let problem = Problem::new(shape, dtypes);
                for kernel in KERNELS {
                    problem.assert_near_reference(&cpu, kernel);
                }
            }
        }
    }
}

#[test]
fn early_rounding_matches_the_reference() {
    for cpu in cpus() {
        for dtypes in [(DType::F16, DType::F16), (DType::BF16, DType::BF16)] {
            let mut problem = Problem::new([11, 70, 45], dtypes);
            problem.op.rounding = Rounding::RoundGateUp;
            for kernel in KERNELS {
                problem.assert_near_reference(&cpu, kernel);
            }
        }
    }
}

#[test]
fn more_rows_than_one_part_holds() {
    let problem = Problem::new([1_030, 20, 9], (DType::F32, DType::F32));
    for cpu in cpus() {
        problem.assert_near_reference(&cpu, Kernel::Tiles);
        problem.assert_near_reference(&cpu, Kernel::Panels);
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    let pools: Vec<_> = [1, 2, 3, 5]
        .map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap())
        .map(Arc::new)
        .into();
    for set in InstructionSet::available() {
        for dtype in [DType::F32, DType::BF16] {
            let problem = Problem::new([19, 300, 700], (dtype, dtype));
            for kernel in KERNELS {
                let results: Vec<_> = pools
                    .iter()
                    .map(|pool| {
                        let cpu = Cpu::with_pool(pool.clone()).with_instruction_set(set).unwrap();
                        problem.run(&cpu, problem.strategy(&cpu, kernel))
                    })
                    .collect();
                assert!(
                    results.windows(2).all(|pair| pair[0] == pair[1]),
                    "{set} {dtype} {kernel:?}"
                );
            }
        }
    }
}

#[test]
fn a_batch_invariant_row_does_not_depend_on_its_batch() {
    for cpu in cpus() {
        for dtypes in MLP_DTYPES {
            let mut problem = Problem::new([64, 150, 90], dtypes);
            problem.op.batch_invariant = true;
            let hidden = problem.op.hidden;
            let many_rows = ManyRows::of(cpu.instructions(), dtypes.0, dtypes.1);
            let choose = |rows| Strategy::choose(&problem.op, rows, cpu.threads(), many_rows);
            let all = problem.run(&cpu, choose(64));
            for rows in [1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 31, 63] {
                let mut fewer = Problem::new([64, 150, 90], dtypes);
                fewer.op.batch_invariant = true;
                fewer.rows = rows;
                fewer.x = first_rows(&problem.x, rows);
                fewer.residual = first_rows(&problem.residual, rows);
                let some = fewer.run(&cpu, choose(rows));
                assert_eq!(some, all[..rows * hidden], "{} {dtypes:?} {rows} rows", cpu.name());
            }
        }
    }
}

fn first_rows(tensor: &Tensor, rows: usize) -> Tensor {
    let layout = tensor.layout();
    let fewer = Layout::contiguous(layout.dtype(), &[rows, layout.columns()]).unwrap();
    Tensor::from_f64(fewer, tensor.view().to_f64())
}

#[test]
fn nan_stays_in_its_row() {
    for cpu in cpus() {
        for dtypes in MLP_DTYPES {
            for kernel in KERNELS {
                let mut problem = Problem::new([5, 37, 41], dtypes);
                let clean = problem.run(&cpu, problem.strategy(&cpu, kernel));
                let mut values = problem.x.view().to_f64();
                values[2 * 37 + 36] = f64::NAN;
                problem.x = Tensor::from_f64(problem.x.layout(), values);
                let got = problem.run(&cpu, problem.strategy(&cpu, kernel));
                for (row, (got, clean)) in got.chunks(37).zip(clean.chunks(37)).enumerate() {
                    let place = format!("{} {dtypes:?} {kernel:?} row {row}", cpu.name());
                    if row == 2 {
                        assert!(got.iter().all(|value| value.is_nan()), "{place}");
                    } else {
                        assert_eq!(got, clean, "{place}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_norm_survives_huge_and_tiny_rows() {
    for cpu in cpus() {
        for scale in [3e38, 1e20, 1e-20, 1e-30] {
            let mut problem = Problem::new([2, 33, 17], (DType::F32, DType::F32));
            problem.op.norm = Some(crate::ops::silu_mlp::mlp::config::NormEpsilon(0.0));
            let values: Vec<f64> =
                problem.x.view().to_f64().iter().map(|x| x / 1.5 * scale).collect();
            problem.x = Tensor::from_f64(problem.x.layout(), values);
            for kernel in KERNELS {
                problem.assert_near_reference(&cpu, kernel);
            }
        }
    }
}

#[test]
fn denormals_are_flushed_inside_and_kept_outside() {
    let denormal = f64::from(f32::MIN_POSITIVE) / 4.0;
    for cpu in cpus() {
        let mut problem = Problem::new([3, 40, 20], (DType::F32, DType::F32));
        problem.op.norm = None;
        let layout = problem.x.layout();
        problem.x = Tensor::from_f64(layout, vec![denormal; layout.elements()]);
        for kernel in KERNELS {
            let mut out = problem.out(DType::F32);
            let packed = problem.packed();
            let mut args = match kernel {
                Kernel::Panels => packed.args(&mut out),
                _ => problem.args(&mut out),
            };
            args.norm_weight = None;
            let strategy = problem.strategy(&cpu, kernel);
            run(&cpu, &problem.op, args, &mut Workspace::default(), strategy);
            assert!(out.view().to_f64().iter().all(|value| value.is_finite()));
            let half = std::hint::black_box(f32::MIN_POSITIVE) * std::hint::black_box(0.5);
            assert!(half > 0.0, "{}: the caller's thread flushes denormals now", cpu.name());
        }
    }
}

#[test]
fn outputs_of_every_type_are_rounded_once_and_gaps_left_alone() {
    for cpu in cpus() {
        let problem = Problem::new([9, 21, 13], (DType::F32, DType::BF16));
        for kernel in KERNELS {
            let strategy = problem.strategy(&cpu, kernel);
            let exact = problem.run(&cpu, strategy);
            for dtype in [DType::F16, DType::BF16] {
                let mut out = problem.out(dtype);
                out.span_bytes_mut().fill(0xFF);
                problem.run_to(&cpu, strategy, &mut out);
                let rounded = |value: &f64| match dtype {
                    DType::F16 => f16::from_f32(*value as f32).to_f64(),
                    _ => bf16::from_f32(*value as f32).to_f64(),
                };
                assert_eq!(out.view().to_f64(), exact.iter().map(rounded).collect::<Vec<_>>());
                let gaps =
                    out.view().span_bytes().chunks(24 * 2).flat_map(|row| row.iter().skip(42));
                assert!(gaps.copied().all(|byte| byte == 0xFF), "{} {dtype}", cpu.name());
            }
        }
    }
}

#[test]
fn a_row_of_packed_weights_does_not_depend_on_its_batch() {
    for cpu in cpus() {
        for dtypes in MLP_DTYPES {
            let problem = Problem::new([70, 300, 90], dtypes);
            let hidden = problem.op.hidden;
            let all = problem.run(&cpu, problem.strategy(&cpu, Kernel::Panels));
            for rows in [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 25, 64] {
                let fewer = Problem {
                    rows,
                    x: first_rows(&problem.x, rows),
                    residual: first_rows(&problem.residual, rows),
                    ..problem.clone()
                };
                let some = fewer.run(&cpu, fewer.strategy(&cpu, Kernel::Panels));
                assert_eq!(some, all[..rows * hidden], "{} {dtypes:?} {rows} rows", cpu.name());
            }
        }
    }
}

#[test]
fn weights_are_all_packed_or_none_and_only_on_the_cpu() {
    use crate::error::Problem as Mistake;

    let problem = Problem::new([3, 40, 20], (DType::F32, DType::BF16));
    let packed = problem.packed();
    let mut out = problem.out(DType::F32);
    out.span_bytes_mut().fill(0xFF);
    let untouched = out.clone();
    let cpu = Cpu::new();
    let run = |args: MlpTensors<TensorRef<'_>, TensorMut<'_>>| {
        mlp(&cpu, &problem.op, args, &mut Workspace::default())
    };
    let mut args = packed.args(&mut out);
    args.down_weight = problem.down_weight.view();
    let error = run(args).unwrap_err();
    assert_eq!(error.problem(), Some(Mistake::Shape));
    let text = error.to_string();
    assert!(text.contains("down_weight") && text.contains("packed"), "{text}");
    let mut args = packed.args(&mut out);
    args.up_weight = Some(packed.down_weight.view());
    let error = run(args).unwrap_err();
    assert_eq!(error.problem(), Some(Mistake::Shape));
    assert!(error.to_string().contains("[20, 40], or packed [2, 20, 16, 2]"), "{error}");
    let error = reference::mlp(&problem.op, packed.args(&mut out)).unwrap_err();
    assert_eq!(error.problem(), Some(Mistake::Shape));
    assert_eq!(out.view().span_bytes(), untouched.view().span_bytes());
    run(packed.args(&mut out)).unwrap();
    let strategy = problem.strategy(&cpu, Kernel::Panels);
    assert_eq!(out.view().to_f64(), problem.run(&cpu, strategy));
}
