//! A language model's head: the best token of each row.

use candle_core::{D, Device, Tensor, WithDType};
use siluette::{Cpu, Element, ExitHead, ExitHeadArgs, Float, TensorMut, TensorRef, Workspace};

use crate::coprocess::{Case, Coprocess};
use crate::measure::{Contestant, Failure, Medians, in_turns};
use crate::weights::{COLD_BYTES, Random};

/// Heads that take turns: each matrix twice, for siluette and for candle.
pub struct Heads<T> {
    hidden: usize,
    vocabulary: usize,
    all: Vec<(Vec<T>, Tensor)>,
}

impl<T: Float + WithDType> Heads<T> {
    pub fn new(hidden: usize, vocabulary: usize) -> candle_core::Result<Heads<T>> {
        let elements = hidden * vocabulary;
        let mut random = Random(88_172_645_463_325_252);
        // Two at least, so that neither contestant warms the other's.
        let count = COLD_BYTES.div_ceil(elements * size_of::<T>()).max(2);
        let all = (0..count)
            .map(|_| {
                let weight: Vec<T> = random.values(elements, 0.1);
                let candle = Tensor::from_slice(&weight, (vocabulary, hidden), &Device::Cpu)?;
                Ok((weight, candle))
            })
            .collect::<candle_core::Result<_>>()?;
        Ok(Heads { hidden, vocabulary, all })
    }
}

pub fn measure<T: Float + WithDType>(
    heads: &Heads<T>,
    rows: usize,
    peers: &[Coprocess],
) -> Result<Medians, Failure> {
    let Heads { hidden, vocabulary, ref all } = *heads;
    let x: Vec<T> = Random(7).values(rows * hidden, 2.0);
    let candle_x = Tensor::from_slice(&x, (rows, hidden), &Device::Cpu)?;
    let op = ExitHead::new(hidden, vocabulary, <T as Element>::DTYPE)?;
    let (cpu, mut workspace) = (Cpu::new(), Workspace::default());
    let mut tokens = vec![0i32; rows];
    let mut ours = |head: usize, tokens: &mut Vec<i32>| -> Result<(), Failure> {
        let args = ExitHeadArgs::new(
            TensorRef::new(&x, &[rows, hidden])?,
            TensorRef::new(&all[head].0, &[vocabulary, hidden])?,
        )
        .token(TensorMut::new(tokens, &[rows])?);
        Ok(cpu.exit_head(&op, args, &mut workspace)?)
    };
    let logits = |head: usize| candle_x.matmul(&all[head].1.t()?);

    ours(0, &mut tokens)?;
    check_tokens(&tokens, &logits(0)?)?;
    // To the host, where both are needed.
    let theirs = |head| Ok(logits(head)?.argmax(D::Minus1)?.to_vec1::<u32>()?);
    let mut contestants = vec![
        Contestant::timed("siluette", |head| ours(head, &mut tokens)),
        Contestant::timed("candle", theirs),
    ];
    let dimensions =
        [("hidden", hidden), ("vocabulary", vocabulary), ("rows", rows), ("layers", all.len())];
    let case = Case { op: "exit_head", dtype: <T as Element>::DTYPE, dimensions: &dimensions };
    for peer in peers {
        contestants.extend(peer.contestants(&case)?);
    }
    in_turns(all.len(), contestants)
}

/// That our tokens are candle's best, up to the rounding of its logits.
fn check_tokens(tokens: &[i32], logits: &Tensor) -> Result<(), Failure> {
    const LARGEST_DIFFERENCE: f32 = 0.01;
    let logits = logits.to_dtype(candle_core::DType::F32)?.to_vec2::<f32>()?;
    for (&token, row) in tokens.iter().zip(&logits) {
        let best = row.iter().fold(f32::NEG_INFINITY, |best, &logit| best.max(logit));
        if row[token as usize] < best - LARGEST_DIFFERENCE * best.abs() {
            return Err(format!(
                "token {token} has {} where the best has {best}",
                row[token as usize]
            )
            .into());
        }
    }
    Ok(())
}
