//! burn's bidirectional GRU, on burn's own CPU backend.

use burn_core::module::Param;
use burn_core::tensor::{Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};

use burn_nn::{BiGru, BiGruConfig, GateController, Linear};

use crate::measure::Failure;

pub struct BurnGru {
    module: BiGru<Flex>,
}

impl BurnGru {
    /// `weights` of each direction: of the input, of the state, and their biases, with gates in the order r, z, n.
    pub fn new(input: usize, hidden: usize, weights: &[[Vec<f32>; 4]; 2]) -> BurnGru {
        let config = BiGruConfig::new(input, hidden, true).with_batch_first(true);
        let mut module = config.init::<Flex>(&FlexDevice);
        for (gru, weights) in [&mut module.forward, &mut module.reverse].into_iter().zip(weights) {
            let gates = [&mut gru.reset_gate, &mut gru.update_gate, &mut gru.new_gate];
            for (index, gate) in gates.into_iter().enumerate() {
                set_gate(gate, index, hidden, weights);
            }
        }
        BurnGru { module }
    }

    pub fn input(&self, x: &[f32], shape: [usize; 3]) -> Tensor<Flex, 3> {
        Tensor::from_data(TensorData::new(x.to_vec(), shape), &FlexDevice)
    }

    pub fn run(&self, x: &Tensor<Flex, 3>) -> Tensor<Flex, 3> {
        self.module.forward(x.clone(), None).0
    }

    pub fn values(&self, x: &Tensor<Flex, 3>) -> Result<Vec<f32>, Failure> {
        let data = self.run(x).into_data();
        data.to_vec::<f32>().map_err(|error| format!("{error:?}").into())
    }
}

fn set_gate(gate: &mut GateController<Flex>, index: usize, hidden: usize, weights: &[Vec<f32>; 4]) {
    let [input_weight, state_weight, input_bias, state_bias] = weights;
    set_linear(&mut gate.input_transform, index, hidden, input_weight, input_bias);
    set_linear(&mut gate.hidden_transform, index, hidden, state_weight, state_bias);
}

/// Rows `index * hidden..` of a matrix `[3 hidden, columns]`; burn multiplies by the transposed one.
fn set_linear(
    linear: &mut Linear<Flex>,
    index: usize,
    hidden: usize,
    weight: &[f32],
    bias: &[f32],
) {
    let columns = weight.len() / (3 * hidden);
    let rows = &weight[index * hidden * columns..][..hidden * columns];
    let transposed: Vec<f32> = (0..columns * hidden)
        .map(|place| rows[place % hidden * columns + place / hidden])
        .collect();
    let bias = bias[index * hidden..][..hidden].to_vec();
    let device = FlexDevice;
    let data = TensorData::new(transposed, [columns, hidden]);
    linear.weight = Param::from_tensor(Tensor::from_data(data, &device));
    let data = TensorData::new(bias, [hidden]);
    linear.bias = Some(Param::from_tensor(Tensor::from_data(data, &device)));
}
