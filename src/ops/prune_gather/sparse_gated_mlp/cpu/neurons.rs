//! From gates to `h`, of the neurons that are selected.

use crate::backend::cpu::instructions::{Leaf, MAX_LANES, Vectors};
use crate::backend::cpu::silu::silu_mul;
use crate::dtype::Float;
use crate::ops::silu_mlp::mlp::cpu::layer::Hidden;

/// Finds the neurons whose activation exceeds the threshold, and moves their gates to the front.
pub(super) struct Select<'a, V> {
    pub v: V,
    pub threshold: f32,
    /// Neuron of the first gate.
    pub first: u32,
    pub gates: &'a mut [f32],
    pub selected: &'a mut [u32],
    pub count: &'a mut usize,
}

impl<V: Vectors> Leaf for Select<'_, V> {
    #[inline(always)]
    fn run(self) {
        let Select { v, threshold, first, gates, selected, count } = self;
        *count = 0;
        for at in (0..gates.len()).step_by(V::LANES) {
            let lanes = V::LANES.min(gates.len() - at);
            let mut activations = [0f32; MAX_LANES];
            let activation = silu_mul(v, v.load_slice(&gates[at..]), v.splat(1.0));
            v.store_slice(v.abs(activation), &mut activations[..V::LANES]);
            for (lane, activation) in activations[..lanes].iter().enumerate() {
                // What is not a number is not at most the threshold either, and is kept.
                let small = *activation <= threshold;
                selected[*count] = first + (at + lane) as u32;
                gates[*count] = gates[at + lane];
                *count += usize::from(!small);
            }
        }
    }
}

/// `h` of the neurons of a list; `h` starts at neuron `first`.
pub(super) struct Activate<'a, V, T> {
    pub v: V,
    pub hidden: &'a Hidden<'a>,
    pub gates: &'a [f32],
    pub ups: &'a [f32],
    pub chosen: &'a [u32],
    pub first: usize,
    pub h: &'a mut [T],
}

impl<V: Vectors, T: Float> Leaf for Activate<'_, V, T> {
    #[inline(always)]
    fn run(self) {
        let Activate { v, hidden, gates, ups, chosen, first, h } = self;
        for at in (0..chosen.len()).step_by(V::LANES) {
            let sums = [v.load_slice(&gates[at..]), v.load_slice(&ups[at..])];
            let mut lanes: [T; MAX_LANES] = bytemuck::Zeroable::zeroed();
            v.store_slice(hidden.activate(v, &sums, None), &mut lanes[..V::LANES]);
            for (value, &neuron) in lanes[..V::LANES].iter().zip(&chosen[at..]) {
                h[neuron as usize - first] = *value;
            }
        }
    }
}
