//! Operations that choose elements: bad input, what becomes of values that a GPU cannot refuse, and results whose bits
//! count.

use siluette::device::NamedTensors;
use siluette::{
    Backend, CompactMask, CompactMaskArgs, CoupledNeurons, CoupledNeuronsArgs, Cpu, DType,
    DeanMode, Device, Error, Layout, Operation, Parameters, Problem, SelectTop, SelectTopArgs,
    Tensor, TensorMut, TensorRef, ZeroEntries, ZeroEntriesArgs, bf16, f16, registry,
};

use crate::support::open;

fn layout(dtype: DType, shape: &[usize]) -> Layout {
    Layout::contiguous(dtype, shape).unwrap()
}

#[track_caller]
fn assert_named(error: Error, expected_argument: &str, expected_problem: Problem) {
    match &error {
        Error::Argument { argument, problem, .. } => {
            let got = (argument.as_ref(), *problem);
            assert_eq!(got, (expected_argument, expected_problem), "{error}");
        }
        other => panic!("not about an argument: {other}"),
    }
}

#[test]
fn masks_of_other_shapes_and_types_are_refused() {
    let op = CompactMask::new(5).unwrap();
    let of = |dtype| layout(dtype, &[2, 5]);
    let good = CompactMaskArgs::new(of(DType::U8), of(DType::U32));
    let good = good.rank(of(DType::I32)).count(layout(DType::U32, &[2]));
    op.validate(&good).unwrap();
    let refused = |edit: fn(&mut CompactMaskArgs<Layout, Layout>), argument, problem| {
        let mut args = good;
        edit(&mut args);
        assert_named(op.validate(&args).unwrap_err(), argument, problem);
    };
    refused(|args| args.mask = layout(DType::U8, &[2, 4]), "mask", Problem::Shape);
    refused(|args| args.mask = layout(DType::U8, &[1, 2, 5]), "mask", Problem::Shape);
    refused(|args| args.mask = layout(DType::I32, &[2, 5]), "mask", Problem::DType);
    refused(|args| args.indices = layout(DType::U32, &[5]), "indices", Problem::Shape);
    refused(|args| args.indices = layout(DType::I32, &[2, 5]), "indices", Problem::DType);
    refused(|args| args.rank = Some(layout(DType::I32, &[5, 2])), "rank", Problem::Shape);
    refused(|args| args.count = Some(layout(DType::U32, &[1])), "count", Problem::Shape);
    assert_named(CompactMask::new(1 << 31).unwrap_err(), "features", Problem::Size);
}

#[test]
fn a_trimmed_mask_is_an_index_set() {
    let mask = Tensor::from_slice(&[0u8, 7, 0, 255], &[4]).unwrap();
    let info = registry::find("compact_mask").unwrap();
    let inputs = NamedTensors::from([("mask".to_owned(), mask)]);
    let prepared = info.prepare(inputs, &Parameters::new()).unwrap();
    let outputs = |tensors: &[&str]| -> NamedTensors {
        let all = prepared.outputs().iter().filter(|(name, _)| tensors.contains(&name.as_str()));
        all.map(|(name, layout)| (name.clone(), Tensor::zeros(*layout))).collect()
    };
    // With and without the outputs that may be left out.
    for names in [&["indices", "rank", "count"][..], &["indices"]] {
        let mut loaded = prepared.load(&Device::Cpu(Cpu::new()), outputs(names)).unwrap();
        loaded.run(1).unwrap();
        let mut outputs = loaded.outputs().unwrap();
        prepared.trim(&mut outputs).unwrap();
        assert_eq!(outputs["indices"].view().as_slice::<u32>(), Some(&[1, 3][..]));
    }
}

#[test]
fn selections_beyond_the_scores_are_refused() {
    assert_named(SelectTop::new(4, 5, DType::F32).unwrap_err(), "k", Problem::Value);
    assert_named(SelectTop::new(1 << 31, 5, DType::F32).unwrap_err(), "elements", Problem::Size);
    assert_named(SelectTop::new(4, 4, DType::U8).unwrap_err(), "dtype", Problem::DType);
    let op = SelectTop::new(6, 2, DType::F16).unwrap();
    let indices = layout(DType::U32, &[2]);
    let check = |scores, indices| op.validate(&SelectTopArgs::new(scores, indices));
    check(layout(DType::F16, &[2, 3]), indices).unwrap();
    for (scores, indices, argument, problem) in [
        (layout(DType::F16, &[5]), indices, "scores", Problem::Shape),
        (layout(DType::F16, &[1, 2, 3]), indices, "scores", Problem::Shape),
        (layout(DType::BF16, &[6]), indices, "scores", Problem::DType),
        (layout(DType::F16, &[6]), layout(DType::U32, &[3]), "indices", Problem::Shape),
        (layout(DType::F16, &[6]), layout(DType::I32, &[2]), "indices", Problem::DType),
    ] {
        assert_named(check(scores, indices).unwrap_err(), argument, problem);
    }
}

#[test]
fn scores_that_are_no_numbers_are_named_and_nothing_is_written() {
    let scores = [1.0f32, 2.0, f32::NAN, f32::NAN];
    let scores = TensorRef::new(&scores, &[4]).unwrap();
    let mut indices = [7u32; 2];
    let op = SelectTop::new(4, 2, DType::F32).unwrap();
    let args = SelectTopArgs::new(scores, TensorMut::new(&mut indices, &[2]).unwrap());
    let error = Cpu::new().select_top(&op, args).unwrap_err();
    assert!(error.to_string().contains("NaN at position 2"), "{error}");
    assert_named(error, "scores", Problem::Value);
    let args = SelectTopArgs::new(scores, TensorMut::new(&mut indices, &[2]).unwrap());
    assert_named(op.run_reference(args).unwrap_err(), "scores", Problem::Value);
    assert_eq!(indices, [7; 2]);

    let op = CoupledNeurons::new(4, 0.0, 0.5, DType::F32).unwrap();
    let good = TensorRef::new(&[1.0f32; 4], &[4]).unwrap();
    let mut count = [7u32];
    let args =
        CoupledNeuronsArgs::new(good, good, scores, TensorMut::new(&mut indices, &[2]).unwrap())
            .count(TensorMut::new(&mut count, &[1]).unwrap());
    assert_named(Cpu::new().coupled_neurons(&op, args).unwrap_err(), "second", Problem::Value);
    assert_eq!((indices, count), ([7; 2], [7]));
}

#[test]
fn shares_and_shapes_of_coupled_scores_are_checked() {
    for (p, q, name) in [(-0.1, 0.0, "p"), (0.0, 1.1, "q"), (f64::NAN, 0.0, "p")] {
        let error = CoupledNeurons::new(4, p, q, DType::F32).unwrap_err();
        assert_named(error, name, Problem::Value);
    }
    let op = CoupledNeurons::new(6, 0.5, 0.5, DType::F32).unwrap();
    let (flat, matrix) = (layout(DType::F32, &[6]), layout(DType::F32, &[2, 3]));
    let indices = layout(DType::U32, &[3]);
    op.validate(&CoupledNeuronsArgs::new(matrix, matrix, matrix, indices)).unwrap();
    let refused = |general, first, second, indices, argument, problem| {
        let args = CoupledNeuronsArgs::new(general, first, second, indices);
        assert_named(op.validate(&args).unwrap_err(), argument, problem);
    };
    refused(matrix, flat, matrix, indices, "first", Problem::Shape);
    refused(matrix, matrix, layout(DType::F16, &[2, 3]), indices, "second", Problem::DType);
    refused(layout(DType::F32, &[5]), flat, flat, indices, "general", Problem::Shape);
    refused(flat, flat, flat, layout(DType::U32, &[4]), "indices", Problem::Shape);
}

/// The example that tells the two modes apart, on every backend.
#[test]
fn the_released_code_combines_places_not_entries() {
    let scores = |members: [usize; 4], scale: f32| {
        let mut scores = vec![0.0; 200];
        members.iter().enumerate().for_each(|(place, &at)| scores[at] = scale - place as f32);
        Tensor::from_slice(&scores, &[200]).unwrap()
    };
    let mut general = vec![0.0f32; 200];
    general[100] = 1.0;
    let general = Tensor::from_slice(&general, &[200]).unwrap();
    let (first, second) = (scores([1, 2, 3, 4], 9.0), scores([5, 6, 7, 8], 9.0));
    for backend in Backend::ALL {
        let Some(device) = open(backend) else { continue };
        for (mode, expected) in
            [(DeanMode::Intersect, &[][..]), (DeanMode::PositionalCompat, &[1, 2, 3, 4])]
        {
            let op = CoupledNeurons::new(200, 0.005, 0.02, DType::F32).unwrap().with_mode(mode);
            let mut indices = Tensor::zeros(layout(DType::U32, &[4]));
            let mut count = Tensor::zeros(layout(DType::U32, &[1]));
            let args = CoupledNeuronsArgs::new(&general, &first, &second, &mut indices);
            device.run(&op, args.count(&mut count)).unwrap();
            let mut filled = expected.to_vec();
            filled.resize(4, u32::MAX);
            assert_eq!(indices.view().as_slice::<u32>(), Some(&filled[..]), "{backend} {mode:?}");
            let counted = [expected.len() as u32];
            assert_eq!(count.view().as_slice::<u32>(), Some(&counted[..]), "{backend}");
        }
    }
}

#[test]
fn indices_of_zeros_are_checked_and_nothing_is_written() {
    let op = ZeroEntries::new(4, DType::F32).unwrap();
    let weight = [1.0f32; 4];
    let run = |indices: &[u32], count: Option<u32>| {
        let mut out = [7.0f32; 4];
        let count = count.map(|count| [count]);
        let mut args = ZeroEntriesArgs::new(
            TensorRef::new(&weight, &[4]).unwrap(),
            TensorRef::new(indices, &[indices.len()]).unwrap(),
            TensorMut::new(&mut out, &[4]).unwrap(),
        );
        if let Some(count) = &count {
            args = args.count(TensorRef::new(count, &[1]).unwrap());
        }
        (Cpu::new().zero_entries(&op, args), out)
    };
    for (indices, count, argument) in [
        (&[0, 4][..], None, "indices"),
        (&[1, 0], None, "indices"),
        (&[1, 1], None, "indices"),
        (&[0, 1], Some(3), "count"),
    ] {
        let (result, out) = run(indices, count);
        assert_named(result.unwrap_err(), argument, Problem::Value);
        assert_eq!(out, [7.0; 4]);
    }
    let (result, out) = run(&[1, u32::MAX], Some(1));
    result.unwrap();
    assert_eq!(out, [1.0, 0.0, 1.0, 1.0]);
    let args = ZeroEntriesArgs::new(
        layout(DType::F32, &[4]),
        layout(DType::U32, &[1, 2]),
        layout(DType::F32, &[4]),
    );
    assert_named(op.validate(&args).unwrap_err(), "indices", Problem::Shape);
}

/// The payload of a NaN and the sign of a zero are kept, and zeros that are written have none.
#[test]
fn copies_keep_every_bit() {
    let halves: Vec<u16> = (0..=u16::MAX).collect();
    let f16s: Vec<f16> = halves.iter().map(|&bits| f16::from_bits(bits)).collect();
    let bf16s: Vec<bf16> = halves.iter().map(|&bits| bf16::from_bits(bits)).collect();
    let singles: Vec<f32> =
        halves.iter().map(|&bits| f32::from_bits(u32::from(bits) << 16 | 1)).collect();
    let weights = [
        Tensor::from_slice(&f16s, &[f16s.len()]),
        Tensor::from_slice(&bf16s, &[bf16s.len()]),
        Tensor::from_slice(&singles, &[singles.len()]),
    ];
    for backend in Backend::ALL {
        let Some(device) = open(backend) else { continue };
        for weight in &weights {
            let weight = weight.as_ref().unwrap();
            let layout = siluette::HasLayout::layout(weight);
            let op = ZeroEntries::new(layout.elements(), layout.dtype()).unwrap();
            let indices = Tensor::from_slice(&[3u32, 40_000, 65_535], &[3]).unwrap();
            let mut out = Tensor::zeros(layout);
            device.run(&op, ZeroEntriesArgs::new(weight, &indices, &mut out)).unwrap();
            let size = layout.dtype().size();
            let mut expected = weight.view().span_bytes().to_vec();
            for index in [3, 40_000, 65_535] {
                expected[index * size..(index + 1) * size].fill(0);
            }
            assert!(out.view().span_bytes() == expected, "{backend} {}", layout.dtype());
        }
    }
}
