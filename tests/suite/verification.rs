//! Verification of drafts: results worked out by hand, on every backend, and what malformed input comes to.

use siluette::device::NamedTensors;
use siluette::{Error, Finish, Problem, Tensor, registry};

use crate::support::{devices, integers, ints, parameters, run};

fn offsets(values: &[u32]) -> Tensor {
    Tensor::from_slice(values, &[values.len()]).unwrap()
}

fn named<const N: usize>(tensors: [(&str, Tensor); N]) -> NamedTensors {
    tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into()
}

/// Expected outputs, by name.
type Expected<'a> = &'a [(&'a str, &'a [i32])];

#[track_caller]
fn check(op: &str, inputs: &NamedTensors, max_draft: &str, expected: Expected<'_>) {
    for device in devices() {
        let outputs = run(&device, op, inputs, &parameters(&[("max_draft", max_draft)]));
        for (name, values) in expected {
            assert_eq!(ints(&outputs, name), *values, "{name} on {}", device.name());
        }
    }
}

const CONTINUE: i32 = Finish::Continue.code();
const STOP: i32 = Finish::Stop.code();
const BUDGET: i32 = Finish::Budget.code();
const INVALID_ROW: i32 = Finish::InvalidRow.code();

/// Five sequences: two of three drafts agree, none of none, nothing agrees, all agree, -1 agrees with nothing.
fn greedy() -> NamedTensors {
    named([
        ("draft", integers(&[5, 6, 7, 9, 1, 2, -1, 4])),
        ("offsets", offsets(&[0, 3, 3, 4, 6, 8])),
        ("target", integers(&[5, 6, 8, 0, 3, 8, 0, 1, 2, 3, 7, 4, 0])),
    ])
}

#[test]
fn the_agreeing_prefix_and_the_targets_token_are_emitted() {
    check(
        "verify_greedy",
        &greedy(),
        "3",
        &[
            ("tokens", &[5, 6, 8, -1, 3, -1, -1, -1, 8, -1, -1, -1, 1, 2, 3, -1, 7, -1, -1, -1]),
            ("accepted", &[2, 0, 0, 2, 0]),
            ("emitted", &[3, 1, 1, 3, 1]),
            ("next_token", &[8, 3, 8, 3, 7]),
            ("last_row", &[2, 4, 5, 9, 10]),
            ("finish", &[CONTINUE; 5]),
        ],
    );
}

#[test]
fn a_stop_id_cuts_before_counts_lengths_and_rows() {
    let mut inputs = greedy();
    // 2 is an accepted draft's, 8 a correction; 7 is a draft that was not accepted; of 6 and 8 the earlier one counts.
    inputs.insert("stop_ids".to_owned(), integers(&[8, -1, 6, 2]));
    check(
        "verify_greedy",
        &inputs,
        "4",
        &[
            (
                "tokens",
                &[
                    5, 6, -1, -1, -1, 3, -1, -1, -1, -1, 8, -1, -1, -1, -1, 1, 2, -1, -1, -1, 7,
                    -1, -1, -1, -1,
                ],
            ),
            ("accepted", &[2, 0, 0, 2, 0]),
            ("emitted", &[2, 1, 1, 2, 1]),
            ("next_token", &[6, 3, 8, 2, 7]),
            ("last_row", &[1, 4, 5, 8, 10]),
            ("finish", &[STOP, CONTINUE, STOP, STOP, CONTINUE]),
        ],
    );
}

#[test]
fn a_budget_cuts_what_is_longer() {
    let mut inputs = greedy();
    inputs.insert("budget".to_owned(), integers(&[2, 0, -3, 3, 2]));
    check(
        "verify_greedy",
        &inputs,
        "3",
        &[
            ("accepted", &[2, 0, 0, 2, 0]),
            ("emitted", &[2, 0, 0, 3, 1]),
            ("next_token", &[6, -1, -1, 3, 7]),
            ("last_row", &[1, -1, -1, 9, 10]),
            ("finish", &[BUDGET, BUDGET, BUDGET, BUDGET, CONTINUE]),
        ],
    );
    // A stop id that is the budget's last token is a stop.
    inputs.insert("stop_ids".to_owned(), integers(&[6]));
    check("verify_greedy", &inputs, "3", &[("finish", &[STOP, BUDGET, BUDGET, BUDGET, CONTINUE])]);
}

#[test]
fn a_row_without_a_token_ends_what_it_is_reached_by() {
    let inputs = named([
        ("draft", integers(&[5, 6, 5, 6, -1])),
        ("offsets", offsets(&[0, 2, 4, 5])),
        // Reached after one draft; not reached; a draft of -1 agrees with no token of -1.
        ("target", integers(&[5, -1, 7, 4, -1, -1, -1, 3])),
    ]);
    check(
        "verify_greedy",
        &inputs,
        "2",
        &[
            ("tokens", &[5, -1, -1, 4, -1, -1, -1, -1, -1]),
            ("accepted", &[1, 0, 0]),
            ("emitted", &[1, 1, 0]),
            ("next_token", &[5, 4, -1]),
            ("last_row", &[0, 3, -1]),
            ("finish", &[INVALID_ROW, CONTINUE, INVALID_ROW]),
        ],
    );
}

/// Two trees. Of the first: 0 and 1 below the root, 2 and 3 below 1, 4 below 2, with two children of the same token below
/// the root. The second is a single draft that is no child of anything.
fn trees() -> NamedTensors {
    named([
        ("draft", integers(&[5, 6, 7, 8, 9, 1])),
        ("offsets", offsets(&[0, 5, 6])),
        ("target", integers(&[6, 0, 8, 0, 3, 0, 1, 2])),
        ("first_child", integers(&[0, -1, 2, 4, -1, -1, -1, -1])),
        ("next_sibling", integers(&[1, -1, 3, -1, -1, -1])),
    ])
}

#[test]
fn the_path_that_the_target_takes_is_emitted() {
    check(
        "verify_tree",
        &trees(),
        "5",
        &[
            ("path", &[1, 3, -1, -1, -1, -1, -1, -1, -1, -1]),
            ("tokens", &[6, 8, 3, -1, -1, -1, 1, -1, -1, -1, -1, -1]),
            ("accepted", &[2, 0]),
            ("emitted", &[3, 1]),
            ("next_token", &[3, 1]),
            ("last_row", &[4, 6]),
            ("finish", &[CONTINUE, CONTINUE]),
        ],
    );
    let mut twins = trees();
    twins.insert("draft".to_owned(), integers(&[6, 6, 7, 8, 9, 1]));
    check(
        "verify_tree",
        &twins,
        "5",
        &[("path", &[0, -1, -1, -1, -1, -1, -1, -1, -1, -1]), ("last_row", &[1, 6])],
    );
}

#[test]
fn what_is_cut_leaves_the_path() {
    let mut inputs = trees();
    inputs.insert("stop_ids".to_owned(), integers(&[6]));
    check(
        "verify_tree",
        &inputs,
        "5",
        &[
            ("path", &[1, -1, -1, -1, -1, -1, -1, -1, -1, -1]),
            ("emitted", &[1, 1]),
            ("last_row", &[0, 6]),
            ("finish", &[STOP, CONTINUE]),
        ],
    );
    inputs.remove("stop_ids");
    inputs.insert("budget".to_owned(), integers(&[2, 0]));
    check(
        "verify_tree",
        &inputs,
        "5",
        &[
            ("path", &[1, 3, -1, -1, -1, -1, -1, -1, -1, -1]),
            ("tokens", &[6, 8, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1]),
            ("last_row", &[2, -1]),
            ("finish", &[BUDGET, BUDGET]),
        ],
    );
}

#[test]
fn a_chain_is_verified_alike_as_a_tree() {
    for seed in 0..40 {
        let draws = |count: usize, salt: u32| -> Vec<i32> {
            let bits = |i: usize| (i as u32 + 977 * salt + 31 * seed).wrapping_mul(0x9E37_79B9);
            (0..count).map(|i| (bits(i) >> 16) as i32 % 3 - i32::from(bits(i) % 11 == 0)).collect()
        };
        let lengths = [3u32, 0, 5, 1];
        let ends: Vec<u32> = lengths
            .iter()
            .scan(0, |end, n| {
                *end += n;
                Some(*end)
            })
            .collect();
        let children: Vec<i32> = lengths.iter().flat_map(|&n| (0..n as i32).chain([-1])).collect();
        let chain = named([
            (
                "draft",
                integers(&draws(9, 1).iter().map(|id| id.max(&-1)).copied().collect::<Vec<_>>()),
            ),
            ("offsets", offsets(&[&[0][..], &ends].concat())),
            ("target", integers(&draws(13, 2))),
            ("stop_ids", integers(&[2])),
            ("budget", integers(&[3, 1, 4, 2])),
        ]);
        let mut tree = chain.clone();
        tree.insert("first_child".to_owned(), integers(&children));
        tree.insert("next_sibling".to_owned(), integers(&[-1; 9]));
        for device in devices() {
            let options = parameters(&[("max_draft", "5")]);
            let want = run(&device, "verify_greedy", &chain, &options);
            let got = run(&device, "verify_tree", &tree, &options);
            for name in want.keys() {
                assert_eq!(ints(&got, name), ints(&want, name), "{name}, {}", device.name());
            }
        }
    }
}

#[track_caller]
fn refused(op: &str, inputs: NamedTensors, max_draft: &str, argument: &str, problem: Problem) {
    let options = parameters(&[("max_draft", max_draft)]);
    let error = registry::find(op).unwrap().prepare(inputs, &options).err().expect("an error");
    let Error::Argument { argument: named, problem: got, .. } = &error else { panic!("{error}") };
    assert_eq!((named.as_ref(), *got), (argument, problem), "{error}");
}

#[test]
fn malformed_batches_are_refused_where_they_can_be_seen() {
    let with = |name: &str, tensor: Tensor| {
        let mut inputs = greedy();
        inputs.insert(name.to_owned(), tensor);
        inputs
    };
    let refuse =
        |inputs, argument, problem| refused("verify_greedy", inputs, "3", argument, problem);
    refuse(with("offsets", offsets(&[0, 3, 2, 4, 6, 8])), "offsets", Problem::Value);
    refuse(with("offsets", offsets(&[1, 3, 3, 4, 6, 8])), "offsets", Problem::Value);
    refuse(with("offsets", offsets(&[0, 3, 3, 4, 6, 7])), "offsets", Problem::Value);
    refuse(with("offsets", offsets(&[0, 3, 3, 4, 6, 9])), "offsets", Problem::Value);
    refuse(with("offsets", offsets(&[0, 4, 4, 4, 6, 8])), "offsets", Problem::Value);
    refuse(with("offsets", integers(&[0, 3, 3, 4, 6, 8])), "offsets", Problem::DType);
    refuse(with("draft", integers(&[5, 6, 7, 9, 1, 2, -2, 4])), "draft", Problem::Value);
    refuse(with("target", integers(&[0; 12])), "target", Problem::Shape);
    refuse(with("budget", integers(&[0; 4])), "budget", Problem::Shape);
    refuse(with("stop_ids", offsets(&[7])), "stop_ids", Problem::DType);
}

#[test]
fn malformed_trees_are_refused_where_they_can_be_seen() {
    let refuse = |name: &str, values: &[i32]| {
        let mut inputs = trees();
        inputs.insert(name.to_owned(), integers(values));
        refused("verify_tree", inputs, "5", name, Problem::Value);
    };
    // To itself or an earlier one, out of the sequence, to somebody else's child, below -1.
    refuse("first_child", &[0, 0, 2, 4, -1, -1, -1, -1]);
    refuse("first_child", &[0, -1, 1, 4, -1, -1, -1, -1]);
    refuse("first_child", &[0, -1, 2, 5, -1, -1, -1, -1]);
    refuse("first_child", &[0, -1, 2, 2, -1, -1, -1, -1]);
    refuse("first_child", &[0, -1, 2, 4, -1, -1, 1, -1]);
    refuse("first_child", &[-2, -1, 2, 4, -1, -1, -1, -1]);
    refuse("next_sibling", &[0, -1, 3, -1, -1, -1]);
    refuse("next_sibling", &[1, 0, 3, -1, -1, -1]);
    refuse("next_sibling", &[1, -1, 3, 4, -1, -1]);
    refuse("next_sibling", &[1, -1, 3, 5, -1, -1]);
    refuse("next_sibling", &[1, -1, 3, -1, -1, 0]);
}

#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod devices {
    use siluette::{VerifyGreedy, VerifyTree};

    use super::*;
    use crate::unchecked::run_unchecked;

    const INVALID_SEQUENCE: i32 = Finish::InvalidSequence.code();

    #[test]
    fn malformed_sequences_emit_nothing_on_devices() {
        let mut inputs = greedy();
        // Descending, longer than max_draft, beyond the end, out of all bounds; the sequence between is sound.
        inputs.insert("offsets".to_owned(), offsets(&[3, 2, 6, 8, 9, u32::MAX]));
        for (backend, outputs) in
            run_unchecked::<VerifyGreedy>(&inputs, &parameters(&[("max_draft", "3")]))
        {
            let invalid = INVALID_SEQUENCE;
            assert_eq!(
                ints(&outputs, "finish"),
                [invalid, invalid, CONTINUE, invalid, invalid],
                "{backend}"
            );
            assert_eq!(ints(&outputs, "emitted"), [0, 0, 1, 0, 0], "{backend}");
            assert_eq!(ints(&outputs, "next_token"), [-1, -1, 2, -1, -1], "{backend}");
            let tokens = ints(&outputs, "tokens");
            assert!(tokens[..8].iter().chain(&tokens[9..]).all(|&token| token == -1), "{backend}");
        }
    }

    #[test]
    fn malformed_trees_emit_nothing_on_devices() {
        // Links that the walk meets: to itself, in a circle of siblings, out of the sequence, out of all bounds.
        for (name, values) in [
            ("first_child", &[0, -1, 1, 4, -1, -1, -1, -1][..]),
            ("first_child", &[0, -1, i32::MAX, 4, -1, -1, -1, -1]),
            ("first_child", &[5, -1, 2, 4, -1, -1, -1, -1]),
            ("next_sibling", &[0, -1, 3, -1, -1, -1]),
            ("next_sibling", &[1, -1, 1, -1, -1, -1]),
            ("next_sibling", &[1 << 30, -1, 3, -1, -1, -1]),
        ] {
            let mut inputs = trees();
            inputs.insert(name.to_owned(), integers(values));
            for (backend, outputs) in
                run_unchecked::<VerifyTree>(&inputs, &parameters(&[("max_draft", "5")]))
            {
                let what = format!("{name} {values:?} on {backend}");
                assert_eq!(ints(&outputs, "finish"), [INVALID_SEQUENCE, CONTINUE], "{what}");
                assert_eq!(ints(&outputs, "emitted"), [0, 1], "{what}");
                assert_eq!(ints(&outputs, "path"), [-1; 10], "{what}");
            }
        }
        // One that it does not meet is nobody's business.
        let mut inputs = trees();
        inputs.insert("first_child".to_owned(), integers(&[0, -1, 2, 0, -1, -1, -1, -1]));
        for (backend, outputs) in
            run_unchecked::<VerifyTree>(&inputs, &parameters(&[("max_draft", "5")]))
        {
            assert_eq!(ints(&outputs, "path")[..2], [1, 3], "{backend}");
        }
    }
}
