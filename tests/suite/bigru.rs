//! `bigru`: what padding, neighbours and what is not a number must not change, bit for bit, on any device.

use siluette::device::NamedTensors;
use siluette::{Backend, Cpu, DType, Device, Layout, Parameters, Tensor, registry};

use crate::support::open;

const INPUT: usize = 3;
const LAYERS: usize = 2;
/// One for each kernel of the recurrence.
const HIDDEN: [usize; 3] = [5, 66, 131];

/// A number between -1 and 1 that depends on its place in no simple way.
fn noise(place: usize) -> f64 {
    (place as f64 * 12.9898).sin()
}

fn floats(shape: &[usize], value: impl Fn(usize) -> f64) -> Tensor {
    let layout = Layout::contiguous(DType::F32, shape).unwrap();
    Tensor::from_f64(layout, (0..layout.elements()).map(value))
}

fn integers(values: &[i32]) -> Tensor {
    let layout = Layout::contiguous(DType::I32, &[values.len()]).unwrap();
    Tensor::from_f64(layout, values.iter().map(|&value| f64::from(value)))
}

/// Texts of `tokens` tokens of which only the first `lengths` are numbers.
struct Texts {
    hidden: usize,
    tokens: usize,
    lengths: Vec<usize>,
    /// Numbers of the texts, so that they stay the same in another batch.
    ids: Vec<usize>,
}

/// A text's states: `[length, 2h]` of the last layer, then `[2 * layers, h]` of the end.
type States = (Vec<u64>, Vec<u64>);

impl Texts {
    /// Everything but the lengths.
    fn tensors(&self) -> NamedTensors {
        let (batch, hidden) = (self.ids.len(), self.hidden);
        let x = |place: usize| {
            let (text, token) = (place / INPUT / self.tokens, place / INPUT % self.tokens);
            let is_valid = token < self.lengths[text];
            let place = (self.ids[text] * 1_000 + token) * INPUT + place % INPUT;
            if is_valid { noise(place) } else { f64::NAN }
        };
        let h0 = |place: usize| {
            let (layer, text) = (place / hidden / batch, place / hidden % batch);
            noise(9_000 + (layer * 100 + self.ids[text]) * hidden + place % hidden)
        };
        let mut tensors = NamedTensors::from([
            ("x".to_owned(), floats(&[batch, self.tokens, INPUT], x)),
            ("h0".to_owned(), floats(&[2 * LAYERS, batch, hidden], h0)),
        ]);
        for layer in 0..LAYERS {
            for (seed, reverse) in ["", "_reverse"].into_iter().enumerate() {
                let inputs = if layer == 0 { INPUT } else { 2 * hidden };
                let seed = 100 * layer + 1_000 * seed;
                let matrix = |name: &str, columns: usize, seed: usize| {
                    let scale = (columns as f64).sqrt().recip();
                    let weight = floats(&[3 * hidden, columns], |i| scale * noise(seed + i));
                    (format!("{name}_l{layer}{reverse}"), weight)
                };
                let bias = |name: &str, seed: usize| {
                    let bias = floats(&[3 * hidden], |i| noise(seed + i));
                    (format!("{name}_l{layer}{reverse}"), bias)
                };
                tensors.extend([
                    matrix("weight_ih", inputs, seed),
                    matrix("weight_hh", hidden, seed + 7),
                    bias("bias_ih", seed + 33),
                    bias("bias_hh", seed + 55),
                ]);
            }
        }
        tensors
    }

    fn run(&self, device: &Device, with_lengths: bool) -> Vec<States> {
        let mut tensors = self.tensors();
        if with_lengths {
            let lengths: Vec<i32> = self.lengths.iter().map(|&length| length as i32).collect();
            tensors.insert("lengths".to_owned(), integers(&lengths));
        }
        self.run_on(device, tensors)
    }

    /// A text's results, its padding left out once it is known to be 0.
    fn run_on(&self, device: &Device, tensors: NamedTensors) -> Vec<States> {
        let prepared =
            registry::find("bigru").unwrap().prepare(tensors, &Parameters::new()).unwrap();
        let poison = |layout| Tensor::from_f64(layout, std::iter::repeat(f64::NAN));
        let outputs = prepared.outputs().iter();
        let poisoned = outputs.map(|(name, &layout)| (name.clone(), poison(layout)));
        let mut loaded = prepared.load(device, poisoned.collect()).unwrap();
        loaded.run(1).unwrap();
        let outputs = loaded.outputs().unwrap();
        let [out, last] = ["out", "h_n"].map(|name| outputs[name].view().to_f64());
        let (batch, row) = (self.ids.len(), 2 * self.hidden);
        let texts = self.lengths.iter().enumerate().map(|(text, &length)| {
            let text_out = &out[text * self.tokens * row..][..self.tokens * row];
            let (valid, padding) = text_out.split_at(length * row);
            assert!(padding.iter().all(|&value| value == 0.0), "{}: padding", device.name());
            let states = (0..2 * LAYERS)
                .flat_map(|layer| &last[(layer * batch + text) * self.hidden..][..self.hidden]);
            (bits(valid), bits(states))
        });
        texts.collect()
    }
}

fn bits<'a>(values: impl IntoIterator<Item = &'a f64>) -> Vec<u64> {
    values.into_iter().map(|value| value.to_bits()).collect()
}

fn devices() -> impl Iterator<Item = Device> {
    let devices = [Backend::Wgpu, Backend::Cuda].into_iter().filter_map(open);
    [Device::Reference, Device::Cpu(Cpu::new())].into_iter().chain(devices)
}

#[test]
fn a_text_is_the_same_alone_in_a_batch_and_under_more_padding() {
    for device in devices() {
        for hidden in HIDDEN {
            let (lengths, ids) = (vec![3, 0, 2, 5, 1], vec![0, 1, 2, 3, 4]);
            let batch = Texts { hidden, tokens: 5, lengths, ids };
            let name = format!("{} hidden={hidden}", device.name());
            let together = batch.run(&device, true);
            let padded = Texts {
                tokens: 43,
                lengths: batch.lengths.clone(),
                ids: batch.ids.clone(),
                ..batch
            };
            assert_eq!(padded.run(&device, true), together, "{name}");
            for (id, &length) in batch.lengths.iter().enumerate() {
                let alone = Texts { hidden, tokens: length, lengths: vec![length], ids: vec![id] };
                assert_eq!(alone.run(&device, false), together[id..=id], "{name}: text {id}");
            }
        }
    }
}

#[test]
fn a_nan_stays_in_its_text() {
    for device in devices() {
        for hidden in HIDDEN {
            let batch = Texts { hidden, tokens: 4, lengths: vec![4, 3, 4], ids: vec![0, 1, 2] };
            let name = format!("{} hidden={hidden}", device.name());
            let clean = batch.run(&device, true);
            let mut tensors = batch.tensors();
            // The second text's first token.
            let mut x = tensors["x"].view().to_f64();
            x[4 * INPUT] = f64::NAN;
            tensors.insert("x".to_owned(), floats(&[3, 4, INPUT], |place| x[place]));
            tensors.insert("lengths".to_owned(), integers(&[4, 3, 4]));
            let result = batch.run_on(&device, tensors);
            assert_eq!((&result[0], &result[2]), (&clean[0], &clean[2]), "{name}");
            let is_nan = |bits: &u64| f64::from_bits(*bits).is_nan();
            assert!(result[1].0.iter().all(is_nan), "{name}");
        }
    }
}

#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod unchecked {
    use siluette::{BiGru, Parameters};

    use super::{Texts, integers};
    use crate::unchecked::run_unchecked;

    /// Devices take lengths for 0 and for all tokens where they are out of range.
    #[test]
    fn lengths_out_of_range_are_clamped_on_devices() {
        for hidden in super::HIDDEN {
            let batch = Texts { hidden, tokens: 3, lengths: vec![3; 3], ids: vec![0, 1, 2] };
            let run = |lengths: [i32; 3]| {
                let mut tensors = batch.tensors();
                tensors.insert("lengths".to_owned(), integers(&lengths));
                run_unchecked::<BiGru>(&tensors, &Parameters::new())
            };
            let expected = run([0, 3, 2]);
            let clamped = run([i32::MIN, i32::MAX, 2]);
            for ((backend, clamped), (_, expected)) in clamped.iter().zip(&expected) {
                for (name, expected) in expected {
                    let [got, expected] =
                        [&clamped[name], expected].map(|tensor| tensor.view().to_f64());
                    assert_eq!(got, expected, "{name} on {backend}, hidden={hidden}");
                }
            }
        }
    }
}
