//! A fused MLP on burn's tensors, beside burn's own composition.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml --example burn_tensors`
//!
//! On burn's CPU backends a tensor's data is a slice; weights are made to data once and kept. On its wgpu backend, the handle
//! of a tensor gives wgpu's buffer and an offset, which are a `WgpuTensor`, and the backend's queue and device make a `Wgpu`;
//! on its CUDA backend, the pointer and the stream are those of `CudaTensor::from_raw`.

use burn_core::tensor::activation::silu;
use burn_core::tensor::{Distribution, Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};
use siluette::{Cpu, DType, GatedMlp, GatedMlpArgs, TensorMut, TensorRef, Workspace};

const ROWS: usize = 3;
const HIDDEN: usize = 64;
const FFN: usize = 96;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = FlexDevice;
    let random = |shape: [usize; 2]| {
        Tensor::<Flex, 2>::random(shape, Distribution::Uniform(-0.5, 0.5), &device)
    };
    let x = random([ROWS, HIDDEN]);
    // `nn.Linear` layout; burn's own is the transposed one.
    let (gate, up, down) = (random([FFN, HIDDEN]), random([FFN, HIDDEN]), random([HIDDEN, FFN]));

    let [gate_data, up_data, down_data, x_data] =
        [&gate, &up, &down, &x].map(|tensor| tensor.to_data());
    let op = GatedMlp::new(HIDDEN, FFN, DType::F32)?;
    let mut out = vec![0.0f32; ROWS * HIDDEN];
    let args = GatedMlpArgs::new(
        view(&x_data)?,
        view(&gate_data)?,
        view(&up_data)?,
        view(&down_data)?,
        TensorMut::new(&mut out, &[ROWS, HIDDEN])?,
    );
    Cpu::new().gated_mlp(&op, args, &mut Workspace::default())?;
    let out = Tensor::<Flex, 2>::from_data(TensorData::new(out, [ROWS, HIDDEN]), &device);

    let h = silu(x.clone().matmul(gate.transpose())) * x.matmul(up.transpose());
    let expected = h.matmul(down.transpose());
    let difference = (out - expected).abs().max().into_scalar();
    println!("at most {difference:.1e} from burn's");
    if difference > 1e-4 {
        return Err("siluette computes something else".into());
    }
    Ok(())
}

fn view(data: &TensorData) -> Result<TensorRef<'_>, Box<dyn std::error::Error>> {
    let values = data.as_slice::<f32>().map_err(|error| format!("{error:?}"))?;
    Ok(TensorRef::new(values, &data.shape)?)
}
