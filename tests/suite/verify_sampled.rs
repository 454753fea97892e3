//! `verify_sampled` on values worked out by hand, on every backend.

use siluette::device::NamedTensors;
use siluette::{Device, Tensor};

use crate::support::{devices, integers, ints, parameters, run};

const INFINITY: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;

pub fn matrix(rows: &[&[f32]]) -> Tensor {
    Tensor::from_slice(&rows.concat(), &[rows.len(), rows.first().map_or(0, |row| row.len())])
        .unwrap()
}

pub fn floats(values: &[f32]) -> Tensor {
    Tensor::from_slice(values, &[values.len()]).unwrap()
}

pub fn indices(values: &[u32]) -> Tensor {
    Tensor::from_slice(values, &[values.len()]).unwrap()
}

fn named<const N: usize>(tensors: [(&str, Tensor); N]) -> NamedTensors {
    tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into()
}

/// The reference and everything else.
fn everywhere() -> Vec<Device> {
    [Device::Reference].into_iter().chain(devices()).collect()
}

/// Expected outputs, by name.
type Expected<'a> = &'a [(&'a str, &'a [i32])];

#[track_caller]
fn check(inputs: &NamedTensors, options: &[(&str, &str)], expected: Expected<'_>) {
    for device in everywhere() {
        let outputs = run(&device, "verify_sampled", inputs, &parameters(options));
        for (name, values) in expected {
            assert_eq!(ints(&outputs, name), *values, "{name} on {}", device.name());
        }
    }
}

pub const PROBABILITIES: (&str, &str) = ("values", "probabilities");
pub const P: &[f32] = &[0.5, 0.25, 0.125, 0.125];

/// One sequence of one draft a row of `uniforms`; every row of target is `p`.
pub fn judged(p: &[f32], draft: &[i32], q: Option<&[f32]>, uniforms: &[[f32; 2]]) -> NamedTensors {
    let count = draft.len();
    let all: Vec<[f32; 2]> = uniforms.iter().flat_map(|row| [*row, [0.0, 0.0]]).collect();
    let mut inputs = named([
        ("target", matrix(&vec![p; 2 * count])),
        ("draft", integers(draft)),
        ("offsets", indices(&(0..=count as u32).collect::<Vec<_>>())),
        ("uniforms", Tensor::from_slice(&all.concat(), &[2 * count, 2]).unwrap()),
    ]);
    if let Some(q) = q {
        inputs.insert("draft_distribution".to_owned(), matrix(&vec![q; count]));
    }
    inputs
}

#[test]
fn a_certain_draft_is_accepted_below_its_probability_and_not_at_it() {
    let below = 0.25 - f32::EPSILON / 8.0;
    // The residual is 1/2, 1/8, 1/8 of ids 0, 2, 3: up to 2/3, 5/6 and 1.
    let uniforms = [
        [below, 0.9],
        [0.25, 0.0],
        [0.25, 0.66],
        [0.25, 0.67],
        [0.9, 0.83],
        [0.9, 0.84],
        [0.9, 0.99],
    ];
    check(
        &judged(P, &[1; 7], None, &uniforms),
        &[("mode", "one_hot"), PROBABILITIES],
        &[("accepted", &[1, 0, 0, 0, 0, 0, 0]), ("next_token", &[0, 0, 0, 2, 2, 3, 3])],
    );
}

#[test]
fn what_is_impossible_is_rejected_even_by_a_coin_of_0() {
    // An id of probability 0, one that is masked, and none.
    let p = &[0.5, 0.0, 0.5, 0.0];
    let inputs = judged(p, &[1, 3, -1], None, &[[0.0, 0.5]; 3]);
    let options = [("mode", "one_hot"), PROBABILITIES, ("valid_vocab", "3")];
    check(&inputs, &options, &[("accepted", &[0, 0, 0]), ("next_token", &[2, 2, 2])]);
    let q = &[0.0, 0.5, 0.25, 0.25];
    let inputs = judged(p, &[1, 3, -1], Some(q), &[[0.0, 0.5]; 3]);
    for mode in ["full", "block"] {
        let options = [("mode", mode), PROBABILITIES];
        // relu(p - q) has 1/2 of id 0 and 1/4 of id 2.
        check(&inputs, &options, &[("accepted", &[0, 0, 0]), ("next_token", &[0, 0, 0])]);
    }
}

#[test]
fn a_draft_is_judged_by_the_quotient_of_the_probabilities() {
    let q = &[0.25, 0.5, 0.25, 0.0];
    // p/q of id 1 is 1/2, of id 0 it is 2; the residual is 1/4 of id 0 and 1/8 of id 3.
    let uniforms = [[0.499, 0.1], [0.5, 0.66], [0.5, 0.67], [0.99, 0.0], [0.499, 0.0], [0.5, 0.0]];
    check(
        &judged(P, &[1, 1, 1, 0, 2, 2], Some(q), &uniforms),
        &[("mode", "full"), PROBABILITIES],
        &[("accepted", &[1, 0, 0, 1, 1, 0]), ("next_token", &[0, 0, 3, 0, 0, 0])],
    );
}

#[test]
fn a_residual_without_mass_falls_back() {
    // q is p, so that no draft that was drawn from it is rejected: one that is none gets p without anything.
    let inputs = judged(P, &[-1, -1], Some(P), &[[0.0, 0.49], [0.0, 0.5]]);
    check(&inputs, &[("mode", "full"), PROBABILITIES], &[("next_token", &[0, 1])]);
    // Nothing but the likeliest is left: id 1, kept alone, of a q that says more than 1.
    let mut inputs = judged(&[0.25, 0.75], &[1], None, &[[0.9, 0.9]]);
    inputs.insert("top_k".to_owned(), integers(&[1]));
    check(&inputs, &[("mode", "one_hot"), PROBABILITIES], &[("tokens", &[1, 1])]);
}

#[test]
fn nan_in_a_drafts_distribution_counts_as_0() {
    let q = &[NAN, 0.5, 0.5, -0.0];
    let inputs = judged(P, &[0, 1], Some(q), &[[0.99, 0.0], [0.6, 0.9]]);
    // relu(p - q) is 1/2 of id 0 and 1/8 of id 3.
    let expected: Expected<'_> = &[("accepted", &[1, 0]), ("next_token", &[0, 3])];
    check(&inputs, &[("mode", "full"), PROBABILITIES], expected);
    let q = &[NAN, 1.0, 1.0, -INFINITY];
    let logits = &[2.0, 1.0, 0.0, 0.0];
    let inputs = judged(logits, &[0], Some(q), &[[0.99, 0.0]]);
    check(&inputs, &[("mode", "full")], &[("accepted", &[1])]);
}

/// Filters by what is left to draw: the sequence has no draft, and uniforms sweep the distribution.
fn drawn(p: &[f32], filters: &[(&str, f32)], options: &[(&str, &str)]) -> Vec<Vec<i32>> {
    const SWEEP: usize = 16;
    let uniforms: Vec<f32> =
        (0..SWEEP).flat_map(|step| [0.0, (step as f32 + 0.5) / SWEEP as f32]).collect();
    let mut inputs = named([
        ("target", matrix(&[p; SWEEP])),
        ("draft", integers(&[])),
        ("offsets", indices(&[0; SWEEP + 1])),
        ("uniforms", Tensor::from_slice(&uniforms, &[SWEEP, 2]).unwrap()),
    ]);
    for &(name, value) in filters {
        let tensor = match name {
            "top_k" => integers(&[value as i32; SWEEP]),
            _ => floats(&[value; SWEEP]),
        };
        inputs.insert(name.to_owned(), tensor);
    }
    let options = [&[("mode", "one_hot"), PROBABILITIES], options].concat();
    everywhere()
        .iter()
        .map(|device| {
            let outputs = run(device, "verify_sampled", &inputs, &parameters(&options));
            let mut tokens = ints(&outputs, "next_token");
            tokens.dedup();
            tokens
        })
        .collect()
}

#[track_caller]
fn keeps(p: &[f32], filters: &[(&str, f32)], options: &[(&str, &str)], kept: &[i32]) {
    for tokens in drawn(p, filters, options) {
        assert_eq!(tokens, kept);
    }
}

#[test]
fn filters_keep_a_beginning_of_values_and_then_of_ids() {
    let p = &[0.25, 0.125, 0.25, 0.125, 0.25];
    let k = |k: i32| ("top_k", k as f32);
    let top_p = |share: f32| ("top_p", share);
    let min_p = |share: f32| ("min_p", share);
    keeps(p, &[], &[], &[0, 1, 2, 3, 4]);
    keeps(p, &[k(0)], &[], &[0, 1, 2, 3, 4]);
    keeps(p, &[k(2)], &[], &[0, 2]);
    keeps(p, &[k(4)], &[], &[0, 1, 2, 4]);
    keeps(p, &[k(9)], &[], &[0, 1, 2, 3, 4]);
    // The one that crosses is kept, and what follows one that meets the mass exactly is not.
    keeps(p, &[top_p(0.5)], &[], &[0, 2]);
    keeps(p, &[top_p(0.501)], &[], &[0, 2, 4]);
    keeps(p, &[top_p(0.876)], &[], &[0, 1, 2, 3, 4]);
    keeps(p, &[top_p(1e-9)], &[], &[0]);
    keeps(p, &[min_p(0.5)], &[], &[0, 1, 2, 3, 4]);
    keeps(p, &[min_p(0.501)], &[], &[0, 2, 4]);
    // Of the four that top-k leaves, 3/4 of the mass is 0.65625: three of them. Of all, 3/4 is the three anyway.
    let both = [k(2), top_p(0.5)];
    keeps(p, &both, &[("filter", "sequential")], &[0]);
    keeps(p, &both, &[("filter", "joint")], &[0, 2]);
}

#[test]
fn rows_without_a_distribution_end_what_reaches_them() {
    for row in
        [&[NAN, 0.0, 0.0, 0.0], &[0.0, INFINITY, 0.0, 0.0], &[-INFINITY, -INFINITY, -INFINITY, 9.0]]
    {
        let sharp: &[f32] = &[0.0, 0.0, 99.0, -INFINITY];
        let mut inputs = named([
            // Reached first, reached behind one draft, reached last, not reached.
            (
                "target",
                matrix(&[row, sharp, sharp, sharp, row, sharp, sharp, sharp, row, sharp, row, row]),
            ),
            ("draft", integers(&[2, 2, 2, 2, 2, 2, 0, 2])),
            ("offsets", indices(&[0, 2, 4, 6, 8])),
            ("positions", integers(&[0, 10, 20, 30])),
        ]);
        let valid = ("valid_vocab", "3");
        for mode in ["match", "one_hot", "full", "block"] {
            if matches!(mode, "full" | "block") {
                let other: &[f32] = &[99.0, 0.0, 0.0, 0.0];
                let q = [sharp, sharp, sharp, sharp, sharp, sharp, other, other];
                inputs.insert("draft_distribution".to_owned(), matrix(&q));
            }
            // A block that is cut short judges its last draft by itself.
            let expected: Expected<'_> = &[
                ("accepted", &[0, 1, 2, 0]),
                ("emitted", &[0, 1, 2, 1]),
                ("next_token", &[-1, 2, 2, 2]),
                ("last_row", &[-1, 3, 7, 9]),
                ("finish", &[3, 3, 3, 0]),
            ];
            check(&inputs, &[("mode", mode), ("max_draft", "2"), valid], expected);
        }
    }
}

#[test]
fn probabilities_add_up_to_1() {
    for (row, finish) in [
        (&[0.5, 0.25, 0.25, 0.0], 0),
        (&[0.5, 0.2505, 0.25, 0.0], 0),
        (&[0.5, 0.252, 0.25, 0.0], 3),
        (&[0.5, 0.248, 0.25, 0.0], 3),
        (&[0.5, 0.75, -0.25, 0.0], 3),
        (&[0.5, 0.5, NAN, 0.0], 3),
        (&[INFINITY, 0.0, 0.0, 0.0], 3),
        (&[0.0, 0.0, 0.0, 0.0], 3),
    ] {
        let inputs = named([
            ("target", matrix(&[row])),
            ("draft", integers(&[])),
            ("offsets", indices(&[0, 0])),
            ("positions", integers(&[3])),
        ]);
        check(&inputs, &[("mode", "one_hot"), PROBABILITIES], &[("finish", &[finish])]);
    }
}

#[test]
fn stop_ids_and_budgets_cut_what_is_emitted() {
    let inputs = named([
        ("target", matrix(&[&[9.0, -INFINITY][..]; 6])),
        ("draft", integers(&[0, 0, 0, 0])),
        ("offsets", indices(&[0, 2, 4])),
        ("positions", integers(&[0, 0])),
        ("stop_ids", integers(&[-1, 0])),
        ("budget", integers(&[2, 0])),
    ]);
    let expected: Expected<'_> = &[
        ("tokens", &[0, -1, -1, -1, -1, -1]),
        ("accepted", &[1, 0]),
        ("last_row", &[0, -1]),
        ("finish", &[1, 2]),
    ];
    check(&inputs, &[("mode", "match"), ("max_draft", "2")], expected);
}

/// Positions and seeds decide, not the place in the batch.
#[test]
fn results_do_not_depend_on_the_batch() {
    let row = |seed: usize| -> Vec<f32> {
        (0..300).map(|id| ((id * 7919 + seed * 104_729) % 1_013) as f32 / 200.0).collect()
    };
    let rows: Vec<Vec<f32>> = (0..12).map(row).collect();
    let all: Vec<&[f32]> = rows.iter().map(|row| &row[..]).collect();
    let tail = |count: usize| all[all.len() - count..].to_vec();
    let seeds = |words: &[u32]| Tensor::from_slice(words, &[words.len() / 2, 2]).unwrap();
    for mode in ["match", "one_hot", "full", "block"] {
        let build = |target: Vec<&[f32]>,
                     draft: &[i32],
                     offsets: &[u32],
                     positions: &[i32],
                     words: &[u32]| {
            let mut inputs = named([
                ("target", matrix(&target)),
                ("draft", integers(draft)),
                ("offsets", indices(offsets)),
                ("positions", integers(positions)),
                ("seeds", seeds(words)),
                ("top_p", floats(&vec![0.9; positions.len()])),
            ]);
            if matches!(mode, "full" | "block") {
                let q = matrix(&all[all.len() - 2 - draft.len()..all.len() - 2]);
                inputs.insert("draft_distribution".to_owned(), q);
            }
            inputs
        };
        let many = build(
            all.clone(),
            &[1, 2, 3, 4, 5, 6, 7, 8, 9],
            &[0, 3, 6, 9],
            &[5, 5, 5],
            &[1, 2, 3, 4, 5, 6],
        );
        let alone = build(tail(4), &[7, 8, 9], &[0, 3], &[5], &[5, 6]);
        for device in everywhere() {
            let options = parameters(&[("mode", mode), ("max_draft", "3")]);
            let many = run(&device, "verify_sampled", &many, &options);
            let alone = run(&device, "verify_sampled", &alone, &options);
            let (many, alone) = (ints(&many, "tokens"), ints(&alone, "tokens"));
            assert_eq!(many[8..], alone, "{mode} on {}", device.name());
        }
    }
}

/// Rows that are further apart than 32 bits count.
#[test]
fn row_offsets_take_64_bits() {
    use siluette::{
        DType, SampledMode, TensorMut, TensorRef, VerifySampled, VerifySampledArgs, Workspace, bf16,
    };
    const STRIDE: usize = (1 << 31) + 8;
    let mut bits = vec![0u16; STRIDE + 8];
    // The draft's token first, then another.
    bits[3] = bf16::from_f32(100.0).to_bits();
    bits[STRIDE + 5] = bf16::from_f32(100.0).to_bits();
    let target: &[bf16] = bytemuck::cast_slice(&bits);
    let target = TensorRef::strided(target, &[2, 8], &[STRIDE, 1]).unwrap();
    let mut tokens = [0; 2];
    let args = VerifySampledArgs::new(
        target,
        TensorRef::new(&[3], &[1]).unwrap(),
        TensorRef::new(&[0u32, 1], &[2]).unwrap(),
    )
    .positions(TensorRef::new(&[0], &[1]).unwrap())
    .tokens(TensorMut::new(&mut tokens, &[1, 2]).unwrap());
    let op = VerifySampled::new(8, 1, DType::BF16, SampledMode::OneHot).unwrap();
    siluette::Cpu::new().verify_sampled(&op, args, &mut Workspace::default()).unwrap();
    assert_eq!(tokens, [3, 5]);
}
