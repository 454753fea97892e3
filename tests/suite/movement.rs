//! Gathers, scatters and compaction: what they refuse, and what equals what, bit for bit.

use siluette::{
    Backend, CompactWeight, CompactWeightArgs, Cpu, DType, Device, Error, GatedMlp, GatedMlpArgs,
    GatherNorm, GatherNormArgs, HasLayout as _, IndexSet, Layout, NormScope, Operation, Problem,
    ScatterAdd, ScatterAddArgs, ScatterNormGather, ScatterNormGatherArgs, Tensor, TensorMut,
    TensorRef,
};

use crate::support::{assert_refused, open};

const FEATURES: usize = 6;

fn layout(dtype: DType, shape: &[usize]) -> Layout {
    Layout::contiguous(dtype, shape).unwrap()
}

fn float(shape: &[usize]) -> Layout {
    layout(DType::F32, shape)
}

fn index(count: usize) -> Layout {
    layout(DType::U32, &[count])
}

#[test]
fn descriptors_refuse_what_no_kernel_can_do() {
    let beyond = 1 << 31;
    assert_refused(GatherNorm::new(beyond, 1, DType::F32), "features", Problem::Size);
    assert_refused(GatherNorm::new(4, 5, DType::F32), "indices", Problem::Value);
    assert_refused(ScatterAdd::new(4, 5, DType::F32), "indices", Problem::Value);
    assert_refused(ScatterAdd::new(4, 1, DType::U32), "dtype", Problem::DType);
    assert_refused(ScatterNormGather::new(0, 0, 0, DType::F32), "features", Problem::Value);
    assert_refused(ScatterNormGather::new(4, 5, 0, DType::F32), "out_indices", Problem::Value);
    assert_refused(ScatterNormGather::new(4, 0, 5, DType::F32), "in_indices", Problem::Value);
    let weight = CompactWeight::new(4, 8, DType::BF16).unwrap();
    assert_refused(weight.with_rows(5), "rows", Problem::Value);
    assert_refused(weight.with_columns(9), "columns", Problem::Value);
    assert_refused(weight.with_padding(0), "pad", Problem::Value);
    let norm = GatherNorm::new(4, 2, DType::F16).unwrap();
    assert_refused(norm.with_norm(f32::NAN, NormScope::Full), "eps", Problem::Value);
    assert_refused(norm.with_weight_dtype(DType::BF16), "weight_dtype", Problem::DType);
}

#[test]
fn layouts_that_do_not_fit_gathers_are_named() {
    let op = GatherNorm::new(FEATURES, 2, DType::F32).unwrap();
    let good = GatherNormArgs::new(float(&[3, FEATURES]), index(2), float(&[3, 2]));
    op.validate(&good).unwrap();
    let refuse = |change: fn(&mut GatherNormArgs<Layout, Layout>), name, problem| {
        let mut args = good;
        change(&mut args);
        assert_refused(op.validate(&args), name, problem);
    };
    refuse(|args| args.x = float(&[3, 5]), "x", Problem::Shape);
    refuse(|args| args.x = layout(DType::F16, &[3, FEATURES]), "x", Problem::DType);
    refuse(|args| args.indices = index(3), "indices", Problem::Shape);
    refuse(|args| args.indices = float(&[2]), "indices", Problem::DType);
    refuse(|args| args.norm_weight = Some(float(&[FEATURES])), "norm_weight", Problem::Unexpected);
    refuse(|args| args.out = float(&[3, 3]), "out", Problem::Shape);
    refuse(|args| args.out = index(6), "out", Problem::DType);
    let normed = op.with_norm(1e-5, NormScope::Selected).unwrap();
    assert_refused(normed.validate(&good), "norm_weight", Problem::Missing);
    assert_refused(normed.validate(&good.norm_weight(float(&[2]))), "norm_weight", Problem::Shape);
}

#[test]
fn layouts_that_do_not_fit_scatters_are_named() {
    let op = ScatterAdd::new(FEATURES, 2, DType::F32).unwrap();
    let wide = float(&[3, FEATURES]);
    let good = ScatterAddArgs::new(wide, float(&[3, 2]), index(2), wide);
    op.validate(&good.rank(layout(DType::I32, &[FEATURES]))).unwrap();
    assert_refused(op.validate(&good.rank(index(FEATURES))), "rank", Problem::DType);
    let mut short = good;
    short.y = float(&[2, 2]);
    assert_refused(op.validate(&short), "y", Problem::Shape);

    let op = ScatterNormGather::new(FEATURES, 2, 1, DType::BF16).unwrap();
    let bf16 = |shape: &[usize]| layout(DType::BF16, shape);
    let (wide, weight) = (bf16(&[3, FEATURES]), bf16(&[FEATURES]));
    let (y, gathered) = (bf16(&[3, 2]), bf16(&[3, 1]));
    let good = ScatterNormGatherArgs::new(wide, y, index(2), weight, index(1), wide, gathered);
    op.validate(&good).unwrap();
    let mut wider = good;
    wider.residual_out = float(&[3, FEATURES]);
    op.validate(&wider).unwrap();
    let mut narrow = good;
    narrow.residual_out = layout(DType::F16, &[3, FEATURES]);
    assert_refused(op.validate(&narrow), "residual_out", Problem::DType);
}

#[test]
fn layouts_that_do_not_fit_a_compaction_are_named() {
    let op = CompactWeight::new(4, FEATURES, DType::F32).unwrap().with_columns(3).unwrap();
    let op = op.with_padding(4).unwrap();
    let good = CompactWeightArgs::new(float(&[4, FEATURES]), float(&[4, 4])).columns(index(3));
    op.validate(&good).unwrap();
    assert_refused(op.validate(&good.rows(index(4))), "rows", Problem::Unexpected);
    let mut unpadded = good;
    unpadded.out = float(&[4, 3]);
    assert_refused(op.validate(&unpadded), "out", Problem::Shape);
    let mut absent = good;
    absent.columns = None;
    assert_refused(op.validate(&absent), "columns", Problem::Missing);
}

/// Indices that are no set, with the position that the error names.
const BAD: [([u32; 2], &str); 3] = [
    ([1, FEATURES as u32], "6 at position 1"),
    ([2, 2], "2 at position 1"),
    ([u32::MAX, 0], "4294967295 at position 0"),
];

#[test]
fn bad_indices_leave_the_outputs_alone() {
    let x = [1.0f32; 2 * FEATURES];
    let wide = |data| TensorRef::new(data, &[2, FEATURES]).unwrap();
    let narrow = [2.0f32; 4];
    let y = TensorRef::new(&narrow, &[2, 2]).unwrap();
    let weight = TensorRef::new(&x[..FEATURES], &[FEATURES]).unwrap();
    let good = [0u32, 3];
    let good = TensorRef::new(&good, &[2]).unwrap();
    for (indices, words) in BAD {
        let bad = TensorRef::new(&indices, &[2]).unwrap();
        let (mut out, mut second) = ([7.0f32; 2 * FEATURES], [7.0f32; 4]);
        let check = |result: Result<(), Error>, name: &str| {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(words) && error.contains(name), "{error}");
        };
        let op = GatherNorm::new(FEATURES, 2, DType::F32).unwrap();
        let to = TensorMut::new(&mut second, &[2, 2]).unwrap();
        let args = GatherNormArgs::new(wide(&x), bad, to);
        check(Cpu::new().gather_norm(&op, args), "indices");

        let op = ScatterAdd::new(FEATURES, 2, DType::F32).unwrap();
        let to = TensorMut::new(&mut out, &[2, FEATURES]).unwrap();
        check(Cpu::new().scatter_add(&op, ScatterAddArgs::new(wide(&x), y, bad, to)), "indices");

        let op = ScatterNormGather::new(FEATURES, 2, 2, DType::F32).unwrap();
        for (from, to, name) in [(bad, good, "out_indices"), (good, bad, "in_indices")] {
            let residual_out = TensorMut::new(&mut out, &[2, FEATURES]).unwrap();
            let gathered = TensorMut::new(&mut second, &[2, 2]).unwrap();
            let args =
                ScatterNormGatherArgs::new(wide(&x), y, from, weight, to, residual_out, gathered);
            check(Cpu::new().scatter_norm_gather(&op, args), name);
        }

        let op = CompactWeight::new(2, FEATURES, DType::F32).unwrap().with_columns(2).unwrap();
        let to = TensorMut::new(&mut second, &[2, 2]).unwrap();
        let args = CompactWeightArgs::new(wide(&x), to).columns(bad);
        check(Cpu::new().compact_weight(&op, args), "columns");
        assert!(out == [7.0; 2 * FEATURES] && second == [7.0; 4]);
    }
}

#[test]
fn a_rank_of_other_indices_is_refused() {
    let (x, y) = ([1.0f32; FEATURES], [2.0f32; 2]);
    let (set, other) = (IndexSet::new(vec![1, 4], FEATURES), IndexSet::new(vec![1, 5], FEATURES));
    let (set, other) = (set.unwrap(), other.unwrap());
    let mut out = [7.0f32; FEATURES];
    let op = ScatterAdd::new(FEATURES, 2, DType::F32).unwrap();
    let args = ScatterAddArgs::new(
        TensorRef::new(&x, &[1, FEATURES]).unwrap(),
        TensorRef::new(&y, &[1, 2]).unwrap(),
        set.indices_tensor(),
        TensorMut::new(&mut out, &[1, FEATURES]).unwrap(),
    );
    let error = Cpu::new().scatter_add(&op, args.rank(other.rank_tensor())).unwrap_err();
    assert!(error.to_string().contains("-1 at position 4, expected 1"), "{error}");
    assert_eq!(out, [7.0; FEATURES]);
}

/// The CPU and whatever else this machine has.
fn devices() -> Vec<Device> {
    let backends = [Backend::Cpu, Backend::Wgpu, Backend::Cuda];
    backends.into_iter().filter_map(open).collect()
}

/// Values between -2 and 2, the same in every run.
fn values(dtype: DType, shape: &[usize]) -> Tensor {
    let layout = layout(dtype, shape);
    let values = (0..layout.elements()).map(|index| ((index * 7_919) % 4_001) as f64 / 1e3 - 2.0);
    Tensor::from_f64(layout, values)
}

fn bytes(tensor: &Tensor) -> &[u8] {
    tensor.view().span_bytes()
}

fn every_third(features: usize) -> IndexSet {
    IndexSet::new((0..features as u32).step_by(3).collect(), features).unwrap()
}

fn tensors(set: &IndexSet) -> (Tensor, Tensor) {
    (Tensor::copy_of(set.indices_tensor()), Tensor::copy_of(set.rank_tensor()))
}

/// One launch gives the bits of the two that it replaces, with a rank and without.
#[test]
fn fused_is_scatter_then_gather() {
    let (rows, features) = (3, 523);
    let (out_indices, rank) = tensors(&every_third(features));
    let in_set = IndexSet::new((5..400).collect(), features).unwrap();
    let (in_indices, _) = tensors(&in_set);
    let (written, read) = (out_indices.layout().columns(), in_set.len());
    for device in devices() {
        for dtype in DType::FLOATS {
            for scope in [NormScope::Full, NormScope::Selected, NormScope::SelectedSumOverD] {
                let wide = layout(dtype, &[rows, features]);
                let narrow = layout(dtype, &[rows, read]);
                let (residual, y) =
                    (values(dtype, &[rows, features]), values(dtype, &[rows, written]));
                let weight = values(dtype, &[features]);
                let (mut sum, mut gathered) = (Tensor::zeros(wide), Tensor::zeros(narrow));
                let op = ScatterAdd::new(features, written, dtype).unwrap();
                let args = ScatterAddArgs::new(&residual, &y, &out_indices, &mut sum);
                device.run(&op, args).unwrap();
                let op = GatherNorm::new(features, read, dtype).unwrap();
                let op = op.with_norm(1e-5, scope).unwrap();
                let args = GatherNormArgs::new(&sum, &in_indices, &mut gathered);
                device.run(&op, args.norm_weight(&weight)).unwrap();

                let op = ScatterNormGather::new(features, written, read, dtype).unwrap();
                let op = op.with_norm(1e-5, scope).unwrap();
                for rank in [None, Some(&rank)] {
                    let (mut fused, mut fused_gathered) =
                        (Tensor::zeros(wide), Tensor::zeros(narrow));
                    let mut args = ScatterNormGatherArgs::new(
                        &residual,
                        &y,
                        &out_indices,
                        &weight,
                        &in_indices,
                        &mut fused,
                        &mut fused_gathered,
                    );
                    args.out_rank = rank;
                    device.run(&op, args).unwrap();
                    let name = device.name();
                    let equal = bytes(&fused) == bytes(&sum);
                    assert!(equal, "{name}, {dtype}, {scope:?}: sum");
                    let equal = bytes(&fused_gathered) == bytes(&gathered);
                    assert!(equal, "{name}, {dtype}, {scope:?}: gathered");
                }
            }
        }
    }
}

/// Selecting every feature gives the norm that a dense MLP computes for itself.
#[test]
fn a_full_set_is_the_dense_norm() {
    let (features, ffn) = (136, 24);
    let (indices, _) = tensors(&IndexSet::full(features).unwrap());
    for device in devices() {
        for dtype in DType::FLOATS {
            // On wgpu, only many rows are normalised ahead of the products.
            let few = if device.backend() == Backend::Wgpu { 70 } else { 1 };
            for rows in [few, 70] {
                let x = values(dtype, &[rows, features]);
                let norm_weight = values(dtype, &[features]);
                let first = values(dtype, &[ffn, features]);
                let down = values(dtype, &[features, ffn]);
                let dense = GatedMlp::new(features, ffn, dtype).unwrap();
                let run = |op: &GatedMlp, x: &Tensor, norm_weight: Option<&Tensor>| {
                    let mut out = Tensor::zeros(x.layout());
                    let mut args = GatedMlpArgs::new(x, &first, &first, &down, &mut out);
                    args.norm_weight = norm_weight;
                    device.run(op, args).unwrap();
                    out
                };
                let expected = run(&dense.with_norm(1e-5).unwrap(), &x, Some(&norm_weight));
                let op = GatherNorm::new(features, features, dtype).unwrap();
                let op = op.with_norm(1e-5, NormScope::Full).unwrap();
                let mut normalised = Tensor::zeros(x.layout());
                let args = GatherNormArgs::new(&x, &indices, &mut normalised);
                device.run(&op, args.norm_weight(&norm_weight)).unwrap();
                let name = device.name();
                let equal = bytes(&run(&dense, &normalised, None)) == bytes(&expected);
                assert!(equal, "{name}, {dtype}, {rows} rows");
            }
        }
    }
}

/// A copy keeps every bit, NaN's payload and the sign of zero included; no feature written, no bit changed.
#[test]
fn copies_keep_every_bit() {
    let bits: Vec<u8> = (0..2 * 64 * 2).map(|index| (index * 37 % 251) as u8).collect();
    for device in devices() {
        for (dtype, features) in [(DType::F32, 64), (DType::F16, 128), (DType::BF16, 128)] {
            let shape = layout(dtype, &[1, features]);
            let x = Tensor::copy_of(TensorRef::from_bytes(&bits, shape).unwrap());
            let (indices, _) = tensors(&IndexSet::full(features).unwrap());
            let mut out = Tensor::zeros(shape);
            let op = GatherNorm::new(features, features, dtype).unwrap();
            device.run(&op, GatherNormArgs::new(&x, &indices, &mut out)).unwrap();
            assert_eq!(bytes(&out), bytes(&x), "{}, {dtype}", device.name());
        }
    }
}
