//! One shape after another: what is measured of each, and the line that shows it.

use candle_core::WithDType;
use serde_json::{Value, json};
use siluette::{DType, Element, Float};

use crate::coprocess::Coprocess;
use crate::gru::{self, Gru};
use crate::head::{self, Heads};
use crate::measure::{Failure, Medians};
use crate::roof::{Products, Roof};
use crate::weights::Layers;
use crate::{dense, pruned};

const ROWS: [usize; 4] = [1, 8, 64, 512];
const HEAD_ROWS: [usize; 3] = [1, 4, 8];
/// Tokens of a text.
const GRU_TOKENS: [usize; 2] = [32, 64];

/// Who takes part besides the crates, how fast the machine is, and what was measured.
pub struct Comparison {
    pub peers: Vec<Coprocess>,
    pub roof: Roof,
    measured: Vec<Measured>,
}

/// An operation on one shape, with any number of rows.
#[derive(Clone, Copy)]
struct Shape {
    op: &'static str,
    dtype: DType,
    dimensions: [(&'static str, usize); 2],
    products: Products,
}

struct Measured {
    shape: Shape,
    rows: usize,
    medians: Medians,
}

impl Comparison {
    pub fn new(peers: Vec<Coprocess>) -> Result<Comparison, Failure> {
        Ok(Comparison { peers, roof: Roof::measure()?, measured: Vec::new() })
    }

    /// All that was measured, below the roof as it is known in the end.
    pub fn results(&self) -> Vec<Value> {
        self.measured.iter().map(|measured| measured.result(&self.roof)).collect()
    }

    pub fn dense<T: Float + WithDType>(
        &mut self,
        hidden: usize,
        ffn: usize,
    ) -> Result<(), Failure> {
        let layers = Layers::<T>::new(hidden, ffn)?;
        let packed = dense::pack(&layers)?;
        let dimensions = [("hidden", hidden), ("ffn", ffn)];
        let products = Products { weights: 3 * hidden * ffn, features: 2 * hidden };
        let shape = Shape { op: "gated_mlp", dtype: <T as Element>::DTYPE, dimensions, products };
        self.compare(shape, &ROWS, |rows, peers| dense::measure(&layers, &packed, rows, peers))
    }

    pub fn pruned<T: Float + WithDType>(
        &mut self,
        hidden: usize,
        ffn: usize,
    ) -> Result<(), Failure> {
        let half = hidden / 2;
        let (layers, dense) = (Layers::<T>::new(half, ffn)?, Layers::new(hidden, ffn)?);
        let dimensions = [("hidden", hidden), ("ffn", ffn)];
        // What is written was read, too.
        let products = Products { weights: 3 * half * ffn, features: 3 * half };
        let shape =
            Shape { op: "pruned_gated_mlp", dtype: <T as Element>::DTYPE, dimensions, products };
        self.compare(shape, &ROWS, |rows, peers| pruned::measure(&layers, &dense, rows, peers))
    }

    pub fn head<T: Float + WithDType>(
        &mut self,
        hidden: usize,
        vocabulary: usize,
    ) -> Result<(), Failure> {
        let heads = Heads::<T>::new(hidden, vocabulary)?;
        let dimensions = [("hidden", hidden), ("vocabulary", vocabulary)];
        let products = Products { weights: hidden * vocabulary, features: hidden };
        let shape = Shape { op: "exit_head", dtype: <T as Element>::DTYPE, dimensions, products };
        self.compare(shape, &HEAD_ROWS, |rows, peers| head::measure(&heads, rows, peers))
    }

    pub fn gru(&mut self, input: usize, hidden: usize) -> Result<(), Failure> {
        let gru = Gru::new(input, hidden)?;
        let dimensions = [("hidden", hidden), ("input", input)];
        // Of one text's token; two directions, three gates.
        let products =
            Products { weights: 2 * 3 * hidden * (input + hidden), features: input + 2 * hidden };
        let shape = Shape { op: "bigru", dtype: DType::F32, dimensions, products };
        self.compare(shape, &GRU_TOKENS, |tokens, peers| gru::measure(&gru, tokens, peers))
    }

    fn compare(
        &mut self,
        shape: Shape,
        rows: &[usize],
        measure: impl Fn(usize, &[Coprocess]) -> Result<Medians, Failure>,
    ) -> Result<(), Failure> {
        // Another program that was busy during one measurement lowers no ceiling.
        self.roof = self.roof.higher(&Roof::measure()?);
        for &rows in rows {
            let medians = measure(rows, &self.peers)?;
            let measured = Measured { shape, rows, medians };
            measured.print(&self.roof);
            self.measured.push(measured);
        }
        self.peers.iter().try_for_each(Coprocess::release)
    }
}

impl Measured {
    fn roof_seconds(&self, roof: &Roof) -> f64 {
        // All tokens of all texts go through a GRU's matrices.
        let texts = if self.shape.op == "bigru" { gru::TEXTS } else { 1 };
        roof.shortest(&self.shape.products, texts * self.rows, self.shape.dtype)
    }

    fn result(&self, roof: &Roof) -> Value {
        let mut result = json!({ "op": self.shape.op, "dtype": self.shape.dtype.name() });
        for (name, size) in self.shape.dimensions {
            result[name] = size.into();
        }
        result["rows"] = self.rows.into();
        for (name, seconds) in &self.medians {
            result[format!("{name}_seconds")] = (*seconds).into();
        }
        result["roof_seconds"] = self.roof_seconds(roof).into();
        result
    }

    /// The line, below the roof as it is known so far.
    fn print(&self, roof: &Roof) {
        let Shape { op, dtype, dimensions: [(_, width), (_, height)], .. } = self.shape;
        let (_, ours) = self.medians[0];
        let others: Vec<String> = self.medians[1..]
            .iter()
            .map(|(name, theirs)| format!("{name} {:.3}, {:.1}x", theirs * 1e3, theirs / ours))
            .collect();
        println!(
            "| {op} | {dtype} | {width}/{height} | {} | {:.3} | {:.0} % | {} |",
            self.rows,
            ours * 1e3,
            100.0 * self.roof_seconds(roof) / ours,
            others.join("; ")
        );
    }
}
