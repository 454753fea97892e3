//! Operations on candle's tensors beside candle's own compositions.

use candle_core::{D, DType as CandleType, Device, Tensor, WithDType};
use siluette::arguments::Repeated;
use siluette::candle::{Output, Runner};
use siluette::{
    BiGru, BiGruArgs, DType, Element, Error, ExitHead, ExitHeadArgs, FeatureAttention,
    FeatureAttentionArgs, GatedMlp, GatedMlpArgs, GatherNorm, GatherNormArgs, HasLayout, NormScope,
    PackedWeight, Problem, PrunedGatedMlp, PrunedGatedMlpArgs, PrunedLinear, PrunedLinearArgs,
    ScatterAdd, ScatterAddArgs, ScatterNormGather, ScatterNormGatherArgs, ScatterRows,
    ScatterRowsArgs, TensorRef, VerifyGreedy, VerifyGreedyArgs,
};

pub type Outcome = Result<(), Box<dyn std::error::Error>>;

const EPS: f32 = 1e-5;

/// Values that look random, within half of 1.
pub fn tensor(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values: Vec<f32> = (0..shape.iter().product::<usize>())
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

pub fn integers(values: &[i32]) -> Tensor {
    Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap()
}

pub fn indices(values: &[u32]) -> Tensor {
    Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap()
}

pub fn output(shape: &[usize]) -> Output {
    Output::new(CandleType::F32, shape).unwrap()
}

#[track_caller]
pub fn assert_near(got: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(got.dims(), expected.dims());
    let values = |tensor: &Tensor| {
        tensor.to_dtype(CandleType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let (got, expected) = (values(got), values(expected));
    assert!(expected.iter().any(|value| *value != 0.0), "nothing to compare with");
    for (place, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert!((got - expected).abs() <= tolerance, "{place}: {got} instead of {expected}");
    }
}

fn rms_norm(x: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean + f64::from(EPS))?.sqrt()?)?.broadcast_mul(weight)
}

fn swiglu(x: &Tensor, [gate, up, down]: [&Tensor; 3]) -> candle_core::Result<Tensor> {
    (x.matmul(&gate.t()?)?.silu()? * x.matmul(&up.t()?)?)?.matmul(&down.t()?)
}

#[test]
fn packed_weights_are_candles_tensors_as_well() -> Outcome {
    fn pack<T: WithDType + Element>(weight: &Tensor) -> Result<Tensor, Box<dyn std::error::Error>> {
        let values = weight.flatten_all()?.to_vec1::<T>()?;
        let packed = PackedWeight::new(TensorRef::new(&values, weight.dims())?)?;
        let values = packed.view().as_slice::<T>().expect("of the same type");
        Ok(Tensor::from_slice(values, packed.view().layout().shape(), &Device::Cpu)?)
    }
    let (rows, hidden, ffn) = (5, 25, 40);
    let weights = [tensor(&[ffn, hidden], 3), tensor(&[ffn, hidden], 4), tensor(&[hidden, ffn], 5)];
    for (dtype, tolerance) in [(CandleType::F32, 1e-5), (CandleType::BF16, 2e-2)] {
        let x = tensor(&[rows, hidden], 1).to_dtype(dtype)?;
        let weights = weights.each_ref().map(|weight| weight.to_dtype(dtype));
        let [gate, up, down] =
            weights.into_iter().collect::<Result<Vec<_>, _>>()?.try_into().unwrap();
        let expected = swiglu(&x, [&gate, &up, &down])?;
        let pack = match dtype {
            CandleType::F32 => pack::<f32>,
            _ => pack::<siluette::bf16>,
        };
        let (gate, up, down) = (pack(&gate)?, pack(&up)?, pack(&down)?);
        assert!(gate.rank() > 2);
        let op = GatedMlp::new(hidden, ffn, dtype.try_into()?)?;
        let args = GatedMlpArgs::new(&x, &gate, &up, &down, Output::like(&x)?);
        assert_near(&Runner::new().run(&op, args)?.out, &expected, tolerance);
    }
    Ok(())
}

#[test]
fn the_mlp_block_is_candles_composition() -> Outcome {
    let (rows, hidden, ffn) = (5, 24, 40);
    let (x, norm) = (tensor(&[rows, hidden], 1), tensor(&[hidden], 2));
    let weights = [tensor(&[ffn, hidden], 3), tensor(&[ffn, hidden], 4), tensor(&[hidden, ffn], 5)];
    for (dtype, tolerance) in [(CandleType::F32, 1e-5), (CandleType::BF16, 2e-2)] {
        let cast = |tensor: &Tensor| tensor.to_dtype(dtype);
        let (x, norm) = (cast(&x)?, cast(&norm)?);
        let [gate, up, down] = [cast(&weights[0])?, cast(&weights[1])?, cast(&weights[2])?];
        let op = GatedMlp::new(hidden, ffn, dtype.try_into()?)?.with_norm(EPS)?;
        let args = GatedMlpArgs::new(&x, &gate, &up, &down, Output::like(&x)?)
            .norm_weight(&norm)
            .residual(&x);
        let out = Runner::new().run(&op, args)?.out;
        assert_eq!(out.dtype(), dtype);
        let expected = (&x + swiglu(&rms_norm(&x, &norm)?, [&gate, &up, &down])?)?;
        assert_near(&out, &expected, tolerance);
    }
    Ok(())
}

#[test]
fn tensors_are_read_where_they_lie() -> Outcome {
    let (rows, hidden, ffn) = (3, 8, 12);
    let runner = Runner::new();
    let op = GatedMlp::new(hidden, ffn, DType::F32)?;
    // An offset and a row stride of its own for x; two matrices in one; one that candle has transposed.
    let wide = tensor(&[rows + 2, hidden + 5], 1);
    let x = wide.narrow(0, 1, rows)?.narrow(1, 3, hidden)?;
    let both = tensor(&[2 * ffn, hidden], 2);
    let (gate, up) = (both.narrow(0, 0, ffn)?, both.narrow(0, ffn, ffn)?);
    let down = tensor(&[ffn, hidden], 3).t()?;
    let args = GatedMlpArgs::new(&x, &gate, &up, &down, output(&[rows, hidden]));
    let out = runner.run(&op, args)?.out;
    let expected = swiglu(&x.contiguous()?, [&gate, &up, &down])?;
    assert_near(&out, &expected, 1e-5);
    // A row for all tokens: candle's stride of 0.
    let one = tensor(&[1, hidden], 4);
    let x = one.broadcast_as((rows, hidden))?;
    let args = GatedMlpArgs::new(&x, &gate, &up, &down, output(&[rows, hidden]));
    let out = runner.run(&op, args)?.out;
    assert_near(&out, &swiglu(&x.contiguous()?, [&gate, &up, &down])?, 1e-5);
    Ok(())
}

#[test]
fn pruned_layers_are_selections_and_sums() -> Outcome {
    let (rows, hidden, ffn) = (4, 16, 20);
    let runner = Runner::new();
    let (read, written) = (indices(&[0, 3, 4, 9, 15]), indices(&[1, 2, 8, 12]));
    let x = tensor(&[rows, hidden], 1);
    let (gate, up) = (tensor(&[ffn, 5], 2), tensor(&[ffn, 5], 3));
    let down = tensor(&[4, ffn], 4);
    let op = PrunedGatedMlp::new(hidden, ffn, DType::F32)?.with_inputs(5)?.with_outputs(4)?;
    let out = output(&[rows, hidden]);
    let args = PrunedGatedMlpArgs::new(&x, &read, &gate, &up, &down, &written, out).residual(&x);
    let selected = x.index_select(&read, 1)?;
    let block = swiglu(&selected, [&gate, &up, &down])?;
    assert_near(&runner.run(&op, args)?.out, &x.index_add(&written, &block, 1)?, 1e-5);

    let weight = tensor(&[7, 5], 5);
    let op = PrunedLinear::new(hidden, 7, DType::F32)?.with_gather(5)?;
    let args = PrunedLinearArgs::new(&x, &weight, output(&[rows, 7])).in_indices(&read);
    assert_near(&runner.run(&op, args)?.out, &selected.matmul(&weight.t()?)?, 1e-5);
    Ok(())
}

#[test]
fn rows_are_gathered_and_scattered() -> Outcome {
    let (rows, hidden) = (4, 12);
    let runner = Runner::new();
    let (read, written) = (indices(&[0, 5, 11]), indices(&[2, 3]));
    let (x, y, norm) = (tensor(&[rows, hidden], 1), tensor(&[rows, 2], 2), tensor(&[hidden], 3));
    let op = GatherNorm::new(hidden, 3, DType::F32)?.with_norm(EPS, NormScope::Full)?;
    let args = GatherNormArgs::new(&x, &read, output(&[rows, 3])).norm_weight(&norm);
    let normed = rms_norm(&x, &norm)?.index_select(&read, 1)?;
    assert_near(&runner.run(&op, args)?.out, &normed, 1e-5);

    let added = x.index_add(&written, &y, 1)?;
    let op = ScatterAdd::new(hidden, 2, DType::F32)?;
    let args = ScatterAddArgs::new(&x, &y, &written, output(&[rows, hidden]));
    assert_near(&runner.run(&op, args)?.out, &added, 0.0);

    let op = ScatterNormGather::new(hidden, 2, 3, DType::F32)?.with_norm(EPS, NormScope::Full)?;
    let outputs = [output(&[rows, hidden]), output(&[rows, 3])];
    let [residual_out, gathered] = outputs;
    let args = ScatterNormGatherArgs::new(&x, &y, &written, &norm, &read, residual_out, gathered);
    let results = runner.run(&op, args)?;
    assert_near(&results.residual_out, &added, 0.0);
    let expected = rms_norm(&added, &norm)?.index_select(&read, 1)?;
    assert_near(&results.gathered, &expected, 1e-5);
    Ok(())
}

#[test]
fn what_is_changed_in_place_is_a_copy() -> Outcome {
    let destination = tensor(&[4, 3], 1);
    let before = destination.copy()?;
    let rows = tensor(&[2, 3], 2);
    let op = ScatterRows::new(3, DType::F32)?;
    let permutation = integers(&[3, 1]);
    let args = ScatterRowsArgs::new(&rows, &permutation, Output::changed(&destination));
    let out = Runner::new().run(&op, args)?.destination;
    let [first, second] = [0, 1].map(|row| rows.narrow(0, row, 1).unwrap());
    let kept = |row| before.narrow(0, row, 1).unwrap();
    assert_near(&out, &Tensor::cat(&[kept(0), second, kept(2), first], 0)?, 0.0);
    assert_near(&destination, &before, 0.0);
    Ok(())
}

#[test]
fn the_head_gives_what_was_asked_for_and_nothing_else() -> Outcome {
    let (rows, hidden, vocabulary) = (3, 16, 300);
    let (hidden_states, weight) = (tensor(&[rows, hidden], 1), tensor(&[vocabulary, hidden], 2));
    let op = ExitHead::new(hidden, vocabulary, DType::F32)?;
    let args = ExitHeadArgs::new(&hidden_states, &weight)
        .token(Output::new(CandleType::I32, &[rows])?)
        .log_sum_exp(output(&[rows]));
    let results = Runner::new().run(&op, args)?;
    let logits = hidden_states.matmul(&weight.t()?)?;
    let best = logits.argmax(D::Minus1)?.to_dtype(CandleType::I32)?;
    let token = results.token.expect("asked for");
    assert_eq!(token.to_vec1::<i32>()?, best.to_vec1::<i32>()?);
    assert_near(&results.log_sum_exp.expect("asked for"), &logits.log_sum_exp(1)?, 1e-5);
    assert!(results.logits.is_none());
    Ok(())
}

#[test]
fn drafts_are_verified() -> Outcome {
    let (draft, offsets) = (integers(&[7, 8, 9, 4]), indices(&[0, 3, 4]));
    let target = integers(&[7, 8, 1, 2, 5, 6]);
    let count = || Output::new(CandleType::I32, &[2]);
    let args =
        VerifyGreedyArgs::new(&draft, &offsets, &target).accepted(count()?).next_token(count()?);
    let results = Runner::new().run(&VerifyGreedy::new(3)?, args)?;
    assert_eq!(results.accepted.expect("asked for").to_vec1::<i32>()?, [2, 0]);
    assert_eq!(results.next_token.expect("asked for").to_vec1::<i32>()?, [1, 5]);
    Ok(())
}

#[test]
fn feature_attention_is_candles_composition() -> Outcome {
    let (texts, tokens, features, reduced) = (2, 5, 6, 3);
    let x = tensor(&[texts, tokens, features], 1);
    let (w1, w2) = (tensor(&[reduced, features], 2), tensor(&[features, reduced], 3));
    let op = FeatureAttention::new(features, reduced, DType::F32)?;
    let args = FeatureAttentionArgs::new(&x, &w1, &w2, Output::like(&x)?);
    let squeezed = x.mean(1)?.matmul(&w1.t()?)?.tanh()?.matmul(&w2.t()?)?;
    let excited = (squeezed.neg()?.exp()? + 1.0)?.recip()?;
    let expected = x.broadcast_mul(&excited.unsqueeze(1)?)?;
    assert_near(&Runner::new().run(&op, args)?.out, &expected, 1e-6);
    Ok(())
}

#[test]
fn repeated_tensors_come_from_candle_too() -> Outcome {
    let (texts, tokens, input, hidden) = (2, 3, 4, 5);
    let x = tensor(&[texts, tokens, input], 1);
    let one = |shape: &[usize], seed| tensor(shape, seed);
    let (ih, hh) = (one(&[3 * hidden, input], 2), one(&[3 * hidden, hidden], 3));
    let op = BiGru::new(input, hidden, 1, DType::F32)?;
    let args = BiGruArgs::new(&x, output(&[texts, tokens, 2 * hidden]))
        .weight_ih(Repeated::from([&ih]))
        .weight_hh(Repeated::from([&hh]))
        .weight_ih_reverse(Repeated::from([&ih]))
        .weight_hh_reverse(Repeated::from([&hh]));
    let out = Runner::new().run(&op, args)?.out;
    // From a state of 0, the forward direction's first step is the reverse direction's last.
    let gates = x.narrow(1, 0, 1)?.squeeze(1)?.matmul(&ih.t()?)?;
    let sigmoid = |x: Tensor| (x.neg()?.exp()? + 1.0)?.recip();
    let update = sigmoid(gates.narrow(1, hidden, hidden)?)?;
    let candidate = gates.narrow(1, 2 * hidden, hidden)?.tanh()?;
    let expected = ((1.0 - update)? * candidate)?;
    assert_near(&out.narrow(1, 0, 1)?.squeeze(1)?.narrow(1, 0, hidden)?, &expected, 1e-6);
    Ok(())
}

#[test]
fn mistakes_are_named() -> Outcome {
    let (hidden, ffn) = (4, 6);
    let (x, down) = (tensor(&[2, hidden], 1), tensor(&[hidden, ffn], 2));
    let (gate, narrow) = (tensor(&[ffn, hidden], 3), tensor(&[ffn, hidden - 1], 4));
    let op = GatedMlp::new(hidden, ffn, DType::F32)?;
    let refuse = |x: &Tensor, up: &Tensor, words: &[&str]| {
        let args = GatedMlpArgs::new(x, &gate, up, &down, output(&[2, hidden]));
        let error = Runner::new().run(&op, args).expect_err("a mistake").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    refuse(&x, &narrow, &["up_weight", "[6, 4]", "[6, 3]"]);
    refuse(&x, &narrow.t()?, &["up_weight", "[3, 6]"]);
    refuse(&x.to_dtype(CandleType::F64)?, &gate, &["f64", "to_dtype"]);
    refuse(&x.to_dtype(CandleType::BF16)?, &gate, &["x", "dtype"]);
    let error = Output::new(CandleType::I64, &[2]).unwrap_err();
    assert_eq!(error.problem(), Some(Problem::DType));
    let words = error.to_string();
    assert!(candle_core::Error::from(error).to_string().contains(&words));
    let deep = Output::new(CandleType::F32, &[1, 1, 1, 1, 1]);
    assert!(matches!(deep, Err(Error::Argument { problem: Problem::Shape, .. })));
    Ok(())
}
