//! `verify_sampled` in mode match: tokens drawn by position, verified with drafts of the same stream, are distributed like
//! the target's.

use siluette::device::NamedTensors;
use siluette::{Cpu, Device, Tensor};

use crate::sampled_lossless::{Random, softmax};
use crate::support::{devices, integers, ints, parameters, run};

/// The noise is that of `exit_head`: its sampled tokens are those that its logits give here.
#[test]
fn tokens_are_those_that_the_head_samples() {
    const ROWS: usize = 8;
    let mut random = Random(9);
    let hidden = random.logits(ROWS * 16);
    let weight: Vec<f32> = random.logits(300 * 16).into_iter().map(|w| (w - 2.5) / 4.0).collect();
    let positions: Vec<i32> = (0..ROWS as i32).map(|row| 3 * row + 1).collect();
    let head = NamedTensors::from([
        ("hidden".to_owned(), Tensor::from_slice(&hidden, &[ROWS, 16]).unwrap()),
        ("head_weight".to_owned(), Tensor::from_slice(&weight, &[300, 16]).unwrap()),
        ("positions".to_owned(), integers(&positions)),
    ]);
    for device in [Device::Reference].into_iter().chain(devices()) {
        let options = [("seed", "1234567890123"), ("inv_temperature", "2"), ("logits", "true")];
        let of_head = run(&device, "exit_head", &head, &parameters(&options));
        let inputs = NamedTensors::from([
            ("target".to_owned(), of_head["logits"].clone()),
            ("draft".to_owned(), integers(&[])),
            ("offsets".to_owned(), Tensor::from_slice(&[0u32; ROWS + 1], &[ROWS + 1]).unwrap()),
            ("positions".to_owned(), integers(&positions)),
            ("temperature".to_owned(), Tensor::from_slice(&[0.5f32; ROWS], &[ROWS]).unwrap()),
        ]);
        let options = [("mode", "match"), ("seed", "1234567890123")];
        let outputs = run(&device, "verify_sampled", &inputs, &parameters(&options));
        let (sampled, next) = (ints(&of_head, "sampled_token"), ints(&outputs, "next_token"));
        assert_eq!(sampled, next, "{}", device.name());
        assert!(sampled.iter().any(|&token| token != sampled[0]), "they are all the same");
    }
}

/// Mode match draws by position: frequencies, of single tokens and of pairs, are the target's.
#[test]
fn matched_tokens_are_distributed_like_the_targets() {
    const COUNT: usize = 6;
    const SEQUENCES: usize = 20_000;
    let mut random = Random(6);
    let first = random.logits(COUNT);
    let second: Vec<Vec<f32>> = (0..COUNT).map(|_| random.logits(COUNT)).collect();
    // A drafter that is close, and draws by the same stream.
    let mut close = |row: &[f32]| -> Vec<f32> {
        row.iter().map(|logit| logit + random.next() as f32).collect()
    };
    let draft_first = close(&first);
    let positions: Vec<i32> = (0..SEQUENCES as i32).map(|index| 2 * index).collect();
    let next: Vec<i32> = positions.iter().map(|position| position + 1).collect();
    let drafts = matched(&vec![vec![draft_first; 1]; SEQUENCES], &[], &positions);
    let rows: Vec<Vec<Vec<f32>>> = drafts
        .iter()
        .map(|emitted| vec![first.clone(), second[emitted[0] as usize].clone()])
        .collect();
    let drafted: Vec<i32> = drafts.iter().map(|emitted| emitted[0]).collect();
    let emitted = matched(&rows, &drafted, &positions);
    let rows: Vec<_> =
        emitted.iter().map(|tokens| vec![second[tokens[0] as usize].clone()]).collect();
    let followers = matched(&rows, &[], &next);
    let mut counts = vec![0f64; COUNT * COUNT];
    let mut accepted = 0;
    for (tokens, follower) in emitted.iter().zip(&followers) {
        // A second token that was verified is the one that plain decoding draws.
        assert!(tokens.len() == 1 || tokens[1] == follower[0]);
        accepted += tokens.len() - 1;
        counts[tokens[0] as usize * COUNT + follower[0] as usize] += 1.0;
    }
    assert!(accepted > SEQUENCES / 2, "{accepted}");
    let p_first = softmax(&first, 1.0);
    let joint = |table: &[Vec<f32>], temperature: f64| -> Vec<f64> {
        let row = |x: usize| softmax(&table[x], temperature).into_iter().map(move |p| (x, p));
        (0..COUNT).flat_map(row).map(|(x, p)| p_first[x] * p * SEQUENCES as f64).collect()
    };
    let chi_square = |counts: &[f64], wanted: &[f64]| -> f64 {
        counts.iter().zip(wanted).map(|(count, wanted)| (count - wanted).powi(2) / wanted).sum()
    };
    // 35 degrees of freedom: mean 35, standard deviation 8.4.
    let statistic = chi_square(&counts, &joint(&second, 1.0));
    assert!(statistic < 35.0 + 5.0 * 8.4, "{statistic}");
    // The control: another temperature is noticed.
    let statistic = chi_square(&counts, &joint(&second, 1.1));
    assert!(statistic > 35.0 + 5.0 * 8.4, "{statistic}");
    let single: Vec<f64> = counts.chunks(COUNT).map(|row| row.iter().sum()).collect();
    let wanted: Vec<f64> = p_first.iter().map(|p| p * SEQUENCES as f64).collect();
    // 5 degrees of freedom: mean 5, standard deviation 3.2.
    assert!(chi_square(&single, &wanted) < 5.0 + 6.0 * 3.2);
}

/// Emitted tokens in mode match; no drafts, or one a sequence.
fn matched(rows: &[Vec<Vec<f32>>], drafts: &[i32], positions: &[i32]) -> Vec<Vec<i32>> {
    let columns = rows[0][0].len();
    let each = usize::from(!drafts.is_empty()) as u32;
    let values: Vec<f32> = rows.iter().flatten().flatten().copied().collect();
    let offsets: Vec<u32> = (0..=rows.len() as u32).map(|index| index * each).collect();
    let inputs = NamedTensors::from([
        (
            "target".to_owned(),
            Tensor::from_slice(&values, &[values.len() / columns, columns]).unwrap(),
        ),
        ("draft".to_owned(), integers(drafts)),
        ("offsets".to_owned(), Tensor::from_slice(&offsets, &[offsets.len()]).unwrap()),
        ("positions".to_owned(), integers(positions)),
    ]);
    let parameters = parameters(&[("mode", "match"), ("max_draft", "1"), ("seed", "77")]);
    let outputs = run(&Device::Cpu(Cpu::new()), "verify_sampled", &inputs, &parameters);
    let (tokens, emitted) = (ints(&outputs, "tokens"), ints(&outputs, "emitted"));
    tokens.chunks(2).zip(emitted).map(|(row, count)| row[..count as usize].to_vec()).collect()
}
