//! A Llama for one sequence, by candle alone or by candle and siluette.

use std::ops::Range;
use std::time::{Duration, Instant};

use candle_core::{D, DType, Device, Tensor};
use siluette::{LayerRow, Layers};

use super::Failure;
use super::attention::{Cache, Rotation, attend};
use super::config::Config;
use super::operations::Operations;
use super::weights::Weights;

/// Rows that go through the layers together; batch invariance holds up to as many.
const MOST_ROWS: usize = 64;

/// Who multiplies. Attention over the cache is the same for both.
pub enum Engine {
    /// candle's own operations, in the weights' type; greedy.
    Candle,
    /// siluette's fused ones.
    Siluette(Box<Operations>),
}

pub struct Llama<'a> {
    config: &'a Config,
    weights: &'a Weights,
    engine: Engine,
    rotation: Rotation,
    caches: Vec<Cache>,
    /// States behind the exit layer, by position.
    ring: Vec<f32>,
    exit_layer: usize,
    mlp_time: Duration,
}

impl<'a> Llama<'a> {
    /// For one sequence of up to `capacity` tokens.
    pub fn new(
        config: &'a Config,
        weights: &'a Weights,
        engine: Engine,
        exit_layer: usize,
        capacity: usize,
    ) -> Llama<'a> {
        Llama {
            config,
            weights,
            engine,
            rotation: Rotation::new(config, capacity),
            caches: (0..config.layers).map(|_| Cache::new(config, capacity)).collect(),
            ring: vec![0.0; (capacity + 1) * config.hidden],
            exit_layer,
            mlp_time: Duration::ZERO,
        }
    }

    /// Time in MLPs, with the norms before them, so far.
    pub fn mlp_time(&self) -> Duration {
        self.mlp_time
    }

    fn layer(&mut self, index: usize, x: &Tensor, first: usize) -> candle_core::Result<Tensor> {
        let layer = &self.weights.layers[index];
        let eps = self.config.norm_eps;
        let mixed = match &self.engine {
            Engine::Candle => candle_nn::ops::rms_norm(x, &layer.input_norm, eps)?
                .matmul(&layer.query_key_value.t()?)?,
            Engine::Siluette(operations) => operations.query_key_value(index, layer, x)?,
        };
        let mixed = mixed.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let mixed = attend(self.config, &self.rotation, &mut self.caches[index], first, mixed);
        let shape = (x.dim(0)?, self.config.heads * self.config.head);
        let mixed = Tensor::from_vec(mixed, shape, &Device::Cpu)?;
        let x = match &self.engine {
            Engine::Candle => (x + mixed.to_dtype(x.dtype())?.matmul(&layer.output.t()?)?)?,
            Engine::Siluette(operations) => operations.output(index, layer, &mixed, x)?,
        };
        let started = Instant::now();
        let x = match &self.engine {
            Engine::Candle => {
                let n = candle_nn::ops::rms_norm(&x, &layer.post_norm, eps)?;
                let h = (n.matmul(&layer.gate.t()?)?.silu()? * n.matmul(&layer.up.t()?)?)?;
                (x + h.matmul(&layer.down.t()?)?)?
            }
            Engine::Siluette(operations) => operations.mlp(index, layer, &x)?,
        };
        self.mlp_time += started.elapsed();
        Ok(x)
    }

    fn tokens(&self, x: &Tensor, positions: &[i32]) -> candle_core::Result<Vec<i32>> {
        match &self.engine {
            Engine::Candle => {
                let n = candle_nn::ops::rms_norm(x, &self.weights.norm, self.config.norm_eps)?;
                let logits = n.matmul(&self.weights.head.t()?)?;
                let best = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
                Ok(best.into_iter().map(|token| token as i32).collect())
            }
            Engine::Siluette(operations) => operations.tokens(self.weights, x, positions),
        }
    }

    /// What goes into the first of some layers.
    fn input(&self, first_layer: usize, rows: &[LayerRow]) -> candle_core::Result<Tensor> {
        let dtype = match self.engine {
            Engine::Candle => self.weights.embedding.dtype(),
            Engine::Siluette(_) => DType::F32,
        };
        if first_layer == 0 {
            let ids: Vec<u32> = rows.iter().map(|row| row.token as u32).collect();
            let ids = Tensor::from_vec(ids, rows.len(), &Device::Cpu)?;
            return self.weights.embedding.index_select(&ids, 0)?.to_dtype(dtype);
        }
        let at = rows[0].position * self.config.hidden;
        let states = &self.ring[at..][..rows.len() * self.config.hidden];
        Tensor::from_slice(states, (rows.len(), self.config.hidden), &Device::Cpu)?.to_dtype(dtype)
    }

    fn keep(&mut self, rows: &[LayerRow], x: &Tensor) -> candle_core::Result<()> {
        let states = x.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let at = rows[0].position * self.config.hidden;
        self.ring[at..][..states.len()].copy_from_slice(&states);
        Ok(())
    }

    fn run_rows(
        &mut self,
        layers: Range<usize>,
        rows: &[LayerRow],
        tokens: &mut [i32],
    ) -> candle_core::Result<()> {
        let mut x = self.input(layers.start, rows)?;
        for layer in layers.clone() {
            x = self.layer(layer, &x, rows[0].position)?;
        }
        if layers.end == self.exit_layer {
            self.keep(rows, &x)?;
        }
        let wanted: Vec<u32> =
            (0..).zip(rows).filter(|(_, row)| row.wants_token).map(|(index, _)| index).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let positions: Vec<i32> =
            wanted.iter().map(|&index| rows[index as usize].position as i32).collect();
        let count = wanted.len();
        let x = match count == rows.len() {
            true => x,
            false => x.index_select(&Tensor::from_vec(wanted, count, &Device::Cpu)?, 0)?,
        };
        tokens.copy_from_slice(&self.tokens(&x, &positions)?);
        Ok(())
    }
}

impl Layers for Llama<'_> {
    type Error = Failure;

    fn run(
        &mut self,
        layers: Range<usize>,
        rows: &[LayerRow],
        tokens: &mut [i32],
    ) -> Result<(), Failure> {
        let mut done = 0;
        for rows in rows.chunks(MOST_ROWS) {
            let wanted = rows.iter().filter(|row| row.wants_token).count();
            self.run_rows(layers.clone(), rows, &mut tokens[done..done + wanted])?;
            done += wanted;
        }
        Ok(())
    }
}
