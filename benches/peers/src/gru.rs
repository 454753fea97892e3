//! A bidirectional GRU layer over a batch of texts of one length.

use std::collections::HashMap;

use candle_core::{DType as CandleType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_nn::rnn::{GRU, GRUConfig, RNN as _, gru};
use siluette::arguments::Repeated;
use siluette::{BiGru, BiGruArgs, Cpu, DType, TensorMut, TensorRef, Workspace};

use crate::burn_gru::BurnGru;
use crate::coprocess::{Case, Coprocess};
use crate::measure::{Contestant, Failure, Medians, check_equal, check_near, in_turns};
use crate::weights::Random;

pub const TEXTS: usize = 32;

/// Both directions' weights, for siluette, for candle and for burn.
pub struct Gru {
    input: usize,
    hidden: usize,
    /// Of each direction: of the input, of the state, and their biases.
    weights: [[Vec<f32>; 4]; 2],
    candle: [GRU; 2],
    burn: BurnGru,
}

impl Gru {
    pub fn new(input: usize, hidden: usize) -> Result<Gru, Failure> {
        let mut random = Random(88_172_645_463_325_252);
        let range = 2.0 / (hidden as f32).sqrt();
        let mut draw = |columns: usize| random.values(3 * hidden * columns, range);
        let weights = [(); 2].map(|()| [input, hidden, 1, 1].map(&mut draw));
        let direction = |[ih, hh, bias_ih, bias_hh]: &[Vec<f32>; 4]| {
            let matrix = |values: &[f32], columns| {
                Tensor::from_slice(values, (3 * hidden, columns), &Device::Cpu)
            };
            let vector = |values: &[f32]| Tensor::from_slice(values, 3 * hidden, &Device::Cpu);
            let tensors = HashMap::from([
                ("weight_ih_l0".to_owned(), matrix(ih, input)?),
                ("weight_hh_l0".to_owned(), matrix(hh, hidden)?),
                ("bias_ih_l0".to_owned(), vector(bias_ih)?),
                ("bias_hh_l0".to_owned(), vector(bias_hh)?),
            ]);
            let builder = VarBuilder::from_tensors(tensors, CandleType::F32, &Device::Cpu);
            gru(input, hidden, GRUConfig::default(), builder)
        };
        let candle = [direction(&weights[0])?, direction(&weights[1])?];
        let burn = BurnGru::new(input, hidden, &weights);
        Ok(Gru { input, hidden, weights, candle, burn })
    }

    /// Candle has one direction: the other reads a reversed copy, and its states are reversed again.
    fn candle(&self, x: &Tensor, reversed: &Tensor) -> candle_core::Result<Tensor> {
        let [forward, reverse] = &self.candle;
        let shape = (TEXTS, x.dim(1)?, self.hidden);
        let states = |gru: &GRU, x: &Tensor| gru.states_to_tensor(&gru.seq(x)?)?.reshape(shape);
        let forward = states(forward, x)?;
        let reverse = states(reverse, &x.index_select(reversed, 1)?)?.index_select(reversed, 1)?;
        Tensor::cat(&[forward, reverse], 2)
    }
}

pub fn measure(gru: &Gru, tokens: usize, peers: &[Coprocess]) -> Result<Medians, Failure> {
    let Gru { input, hidden, ref weights, .. } = *gru;
    let x: Vec<f32> = Random(7).values(TEXTS * tokens * input, 2.0);
    let candle_x = Tensor::from_slice(&x, (TEXTS, tokens, input), &Device::Cpu)?;
    let reversed: Vec<u32> = (0..tokens as u32).rev().collect();
    let reversed = Tensor::new(reversed, &Device::Cpu)?;
    let op = BiGru::new(input, hidden, 1, DType::F32)?;
    let (cpu, mut workspace) = (Cpu::new(), Workspace::default());
    let mut out = vec![0f32; TEXTS * tokens * 2 * hidden];
    let tensor = |direction: usize, which: usize, shape: &[usize]| {
        Ok::<_, siluette::Error>(Repeated::from([TensorRef::new(
            &weights[direction][which],
            shape,
        )?]))
    };
    let (matrix, state, bias) = ([3 * hidden, input], [3 * hidden, hidden], [3 * hidden]);
    let mut ours = |out: &mut Vec<f32>| -> Result<(), Failure> {
        let args = BiGruArgs::new(
            TensorRef::new(&x, &[TEXTS, tokens, input])?,
            TensorMut::new(out, &[TEXTS, tokens, 2 * hidden])?,
        )
        .weight_ih(tensor(0, 0, &matrix)?)
        .weight_hh(tensor(0, 1, &state)?)
        .bias_ih(tensor(0, 2, &bias)?)
        .bias_hh(tensor(0, 3, &bias)?)
        .weight_ih_reverse(tensor(1, 0, &matrix)?)
        .weight_hh_reverse(tensor(1, 1, &state)?)
        .bias_ih_reverse(tensor(1, 2, &bias)?)
        .bias_hh_reverse(tensor(1, 3, &bias)?);
        Ok(cpu.bigru(&op, args, &mut workspace)?)
    };
    ours(&mut out)?;
    check_equal(&out, &gru.candle(&candle_x, &reversed)?)?;
    let burn_x = gru.burn.input(&x, [TEXTS, tokens, input]);
    check_near(&out, &gru.burn.values(&burn_x)?)?;
    let mut contestants = vec![
        Contestant::timed("siluette", |_| ours(&mut out)),
        Contestant::timed("candle", |_| Ok(gru.candle(&candle_x, &reversed)?)),
        Contestant::timed("burn", |_| Ok(gru.burn.run(&burn_x))),
    ];
    let dimensions =
        [("hidden", hidden), ("input", input), ("texts", TEXTS), ("rows", tokens), ("layers", 1)];
    let case = Case { op: "bigru", dtype: DType::F32, dimensions: &dimensions };
    for peer in peers {
        contestants.extend(peer.contestants(&case)?);
    }
    in_turns(1, contestants)
}
