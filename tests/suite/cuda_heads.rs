//! Heads of many rows on CUDA: the kernel that only heads take which give batch invariance up.

use siluette::backend::cuda::CudaOptions;
use siluette::device::NamedTensors;
use siluette::{DType, Device, ExitHead, ExitHeadArgs, Layout, Tensor, bf16, f16};

use crate::cuda_support::device;
use crate::early_exit::{
    assert_rows_do_not_depend_on_their_batch, assert_same_bits, assert_shards_merge_to_the_whole,
};
use crate::support::{integers, parameters, run};

const MANY: (&str, &str) = ("batch_invariant", "false");

/// A device that takes `exit_states_wgmma` from so many rows on, or `None`, said aloud.
fn device_with_border(wgmma_rows: usize) -> Option<Device> {
    let mut options = CudaOptions::default();
    options.head.wgmma_rows = wgmma_rows;
    let device = device(options)?;
    let Device::Cuda(cuda) = &device else { unreachable!("asked for CUDA") };
    if !cuda.cuda().capabilities().wgmma {
        println!("NOT RUN: the device has no wgmma");
        return None;
    }
    Some(device)
}

#[test]
fn wgmma_sums_a_row_in_one_order_whatever_the_batch() {
    let Some(device) = device_with_border(1) else { return };
    assert_rows_do_not_depend_on_their_batch::<f16>(&device, 131, &[MANY], run);
    assert_rows_do_not_depend_on_their_batch::<bf16>(&device, 67, &[MANY], run);
    assert_shards_merge_to_the_whole(&device, &[MANY], run);
}

/// A head of whole numbers, whose sums are exact in any order, with a row of infinite logits and one of NaN.
fn exact_head(rows: usize, hidden: usize, vocabulary: usize) -> NamedTensors {
    let whole = |shape: [usize; 2], factor: usize| {
        let value = |i: usize| f16::from_f32((i * factor / 7 % 5) as f32 - 2.0);
        let mut values: Vec<f16> = (0..shape[0] * shape[1]).map(value).collect();
        // So that infinity times the first column is infinity.
        values.iter_mut().step_by(shape[1]).for_each(|first| *first = f16::ONE);
        values
    };
    let mut activations = whole([rows, hidden], 13);
    activations[2 * hidden] = f16::INFINITY;
    activations[5 * hidden + 3] = f16::NAN;
    let mut bias = vec![f16::ZERO; vocabulary];
    bias[1..].iter_mut().step_by(3).for_each(|banned| *banned = f16::NEG_INFINITY);
    let counts = |from: i32| integers(&(from..from + rows as i32).collect::<Vec<_>>());
    [
        ("hidden", Tensor::from_slice(&activations, &[rows, hidden]).unwrap()),
        (
            "head_weight",
            Tensor::from_slice(&whole([vocabulary, hidden], 31), &[vocabulary, hidden]).unwrap(),
        ),
        ("head_bias", Tensor::from_slice(&bias, &[vocabulary]).unwrap()),
        ("positions", counts(9)),
        ("gather_tokens", counts(vocabulary as i32 - 20)),
    ]
    .map(|(name, tensor)| (name.to_owned(), tensor))
    .into()
}

/// Where sums are exact, both kernels have the same logits, and choose the same tokens.
#[test]
fn wgmma_chooses_as_the_other_kernels_do() {
    let Some(device) = device_with_border(1) else { return };
    for [rows, hidden, vocabulary] in [[67, 336, 391], [6, 8, 100], [7, 9, 130]] {
        let inputs = exact_head(rows, hidden, vocabulary);
        let results =
            [("top_k", "11"), ("logits", "true"), ("softcap", "30"), ("valid_vocab", "385")];
        let run = |options: &[(&str, &str)]| {
            run(&device, "exit_head", &inputs, &parameters(&[&results[..], options].concat()))
        };
        let (mut got, mut want) = (run(&[MANY]), run(&[]));
        for name in ["log_sum_exp", "entropy"] {
            let [got, want] = [&mut got, &mut want].map(|all| all.remove(name).unwrap());
            for (got, want) in got.view().to_f64().iter().zip(want.view().to_f64()) {
                let close = (got - want).abs() <= 1e-5 * want.abs().max(1.0);
                assert!(close || got.is_nan() && want.is_nan(), "{name}: {got} {want}");
            }
        }
        assert_same_bits(&got, &want, &format!("{rows} {hidden} {vocabulary}"));
        let token = got["token"].view().as_slice::<i32>().unwrap().to_vec();
        assert_eq!((token[2], token[5]), (-1, -1), "rows that have no token");
        assert!(token.iter().filter(|&&token| token >= 0).count() == rows - 2);
    }
}

/// What a call takes follows its tensors, as the device has them and as a plan foresees.
#[test]
fn wgmma_takes_heads_that_allow_it() {
    let Some(device) = device_with_border(128) else { return };
    let Device::Cuda(device) = &device else { unreachable!("asked for CUDA") };
    let takes = |rows: usize, stride: usize, norm: bool, selects: bool, batch_invariant: bool| {
        let op = ExitHead::new(72, 300, DType::F16).unwrap();
        let op = op.with_batch_invariance(batch_invariant);
        let strided = |rows| Layout::strided(DType::F16, &[rows, 72], &[stride, 1]).unwrap();
        let vector = |dtype, length| Layout::contiguous(dtype, &[length]).unwrap();
        let args = ExitHeadArgs::new(strided(rows), strided(300)).token(vector(DType::I32, rows));
        let args = if selects { args.rows(vector(DType::I32, rows)) } else { args };
        let (op, args) = if norm {
            (op.with_norm(1e-5).unwrap(), args.norm_weight(vector(DType::F16, 72)))
        } else {
            (op, args)
        };
        let kernels = device.cuda().plan(&op, &args).unwrap().kernels();
        kernels.contains(&"exit_states_wgmma_f16".to_owned())
    };
    assert!(takes(128, 72, false, false, false) && takes(128, 80, true, true, false));
    assert!(!takes(128, 72, false, false, true), "batch-invariant");
    assert!(!takes(127, 72, false, false, false), "few rows");
    assert!(!takes(128, 72, false, true, false), "rows that TMA cannot gather");
    assert!(!takes(128, 73, true, false, false), "a weight off 16 bytes");
}
