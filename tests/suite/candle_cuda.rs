//! Operations on candle's tensors on a GPU, beside the same on the host.

use candle_core::{DType as CandleType, Device, Tensor};
use siluette::candle::{Output, Runner};
use siluette::{
    DType, ExitHead, ExitHeadArgs, GatedMlp, GatedMlpArgs, PrunedGatedMlp, PrunedGatedMlpArgs,
    ScatterRows, ScatterRowsArgs,
};

use super::candle::{Outcome, assert_near, indices, integers, output, tensor};
use super::support::is_required;

/// The first GPU, or `None`, said aloud, if there is none and none is required.
fn gpu() -> Option<Device> {
    match Device::new_cuda(0) {
        Ok(device) => Some(device),
        Err(error) if !is_required("cuda") => {
            println!("NOT RUN: candle's CUDA device: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// That `run` gives the same there as on the host.
fn assert_same(run: impl Fn(&Runner, &Device) -> candle_core::Result<Tensor>) -> Outcome {
    let Some(device) = gpu() else { return Ok(()) };
    let runner = Runner::new();
    let expected = run(&runner, &Device::Cpu)?;
    // The second time, what the first one made is there.
    for _ in 0..2 {
        let got = run(&runner, &device)?;
        assert!(got.device().same_device(&device));
        assert_near(&got.to_device(&Device::Cpu)?, &expected, 1e-5);
    }
    Ok(())
}

#[test]
fn the_mlp_block_runs_where_its_tensors_are() -> Outcome {
    let (rows, hidden, ffn) = (3, 24, 40);
    assert_same(|runner, device| {
        let on = |shape: &[usize], seed| tensor(shape, seed).to_device(device);
        // An offset, and a row stride of its own.
        let wide = on(&[rows + 2, hidden + 5], 1)?;
        let x = wide.narrow(0, 1, rows)?.narrow(1, 3, hidden)?;
        let (gate, up, down) =
            (on(&[ffn, hidden], 2)?, on(&[ffn, hidden], 3)?, on(&[hidden, ffn], 4)?);
        let norm = on(&[hidden], 5)?;
        let op = GatedMlp::new(hidden, ffn, DType::F32)?.with_norm(1e-5)?;
        let args = GatedMlpArgs::new(&x, &gate, &up, &down, output(&[rows, hidden]));
        Ok(runner.run(&op, args.norm_weight(&norm).residual(&x))?.out)
    })
}

#[test]
fn indices_come_from_the_gpu_too() -> Outcome {
    let (rows, hidden, ffn) = (4, 16, 20);
    assert_same(|runner, device| {
        let on = |tensor: Tensor| tensor.to_device(device);
        let x = on(tensor(&[rows, hidden], 1))?;
        let (gate, up) = (on(tensor(&[ffn, 5], 2))?, on(tensor(&[ffn, 5], 3))?);
        let down = on(tensor(&[4, ffn], 4))?;
        let (read, written) = (on(indices(&[0, 3, 4, 9, 15]))?, on(indices(&[1, 2, 8, 12]))?);
        let op = PrunedGatedMlp::new(hidden, ffn, DType::F32)?.with_inputs(5)?.with_outputs(4)?;
        let out = output(&[rows, hidden]);
        let args = PrunedGatedMlpArgs::new(&x, &read, &gate, &up, &down, &written, out);
        Ok(runner.run(&op, args)?.out)
    })
}

#[test]
fn the_heads_results_are_of_several_types() -> Outcome {
    let (rows, hidden, vocabulary) = (3, 16, 300);
    assert_same(|runner, device| {
        let states = tensor(&[rows, hidden], 1).to_device(device)?;
        let weight = tensor(&[vocabulary, hidden], 2).to_device(device)?;
        let op = ExitHead::new(hidden, vocabulary, DType::F32)?;
        let args = ExitHeadArgs::new(&states, &weight)
            .token(Output::new(CandleType::I32, &[rows])?)
            .log_sum_exp(output(&[rows]));
        let results = runner.run(&op, args)?;
        let token = results.token.expect("asked for").to_vec1::<i32>()?;
        let token: Vec<f32> = token.into_iter().map(|token| token as f32).collect();
        let sums = results.log_sum_exp.expect("asked for").to_vec1::<f32>()?;
        Tensor::from_vec([token, sums].concat(), 2 * rows, device)
    })
}

#[test]
fn what_is_changed_in_place_is_a_copy() -> Outcome {
    assert_same(|runner, device| {
        let destination = tensor(&[4, 3], 1).to_device(device)?;
        let before = destination.to_vec2::<f32>()?;
        let rows = tensor(&[2, 3], 2).to_device(device)?;
        let permutation = integers(&[3, 1]).to_device(device)?;
        let op = ScatterRows::new(3, DType::F32)?;
        let args = ScatterRowsArgs::new(&rows, &permutation, Output::changed(&destination));
        let out = runner.run(&op, args)?.destination;
        assert_eq!(destination.to_vec2::<f32>()?, before);
        Ok(out)
    })
}

#[test]
fn tensors_that_are_elsewhere_are_named() -> Outcome {
    let Some(device) = gpu() else { return Ok(()) };
    let (hidden, ffn) = (4, 6);
    let x = tensor(&[2, hidden], 1).to_device(&device)?;
    let (gate, up, down) =
        (tensor(&[ffn, hidden], 2), tensor(&[ffn, hidden], 3), tensor(&[hidden, ffn], 4));
    let op = GatedMlp::new(hidden, ffn, DType::F32)?;
    let args = GatedMlpArgs::new(&x, &gate, &up, &down, output(&[2, hidden]));
    let error = Runner::new().run(&op, args).expect_err("a mistake").to_string();
    assert!(error.contains("gate_weight") && error.contains("to_device"), "{error}");
    Ok(())
}
