//! How many pipelines a device compiles: what tells blocks and batches apart reaches the kernels at run time, as far as no
//! loop or register array depends on it.

use siluette::backend::wgpu::{WgpuDevice, WgpuDispatch};
use siluette::device::NamedTensors;
use siluette::{DType, Device, Layout, Tensor, registry};

use crate::support::parameters;
use crate::wgpu_plans::context;

const HIDDEN: usize = 32;
const FFN: usize = 24;

/// A device as it would be treated if it was a GPU, which has the larger choice of tiles.
fn device() -> Option<Device> {
    let mut dispatch = WgpuDispatch::default();
    dispatch.as_gpu = true;
    Some(Device::Wgpu(WgpuDevice::new(context()?.with_dispatch(dispatch))))
}

fn compiled(device: &Device) -> usize {
    match device {
        Device::Wgpu(device) => device.context().compiled_pipelines(),
        _ => unreachable!("these tests open wgpu devices"),
    }
}

fn zeros(dtype: DType, shape: &[usize]) -> Tensor {
    Tensor::zeros(Layout::contiguous(dtype, shape).unwrap())
}

/// Binds an operation, which compiles what it lacks. `shapes` are those of f32 tensors.
fn load(device: &Device, op: &str, shapes: &[(&str, &[usize])], more: &NamedTensors) {
    let tensors = shapes.iter().map(|(name, shape)| ((*name).to_owned(), zeros(DType::F32, shape)));
    let tensors = tensors.chain(more.clone()).collect::<NamedTensors>();
    let with_norm = tensors.contains_key("norm_weight");
    let norm: &[(&str, &str)] = if with_norm { &[("eps", "1e-5")] } else { &[] };
    let prepared = registry::find(op).unwrap().prepare(tensors, &parameters(norm)).unwrap();
    let outputs =
        prepared.outputs().iter().map(|(name, layout)| (name.clone(), Tensor::zeros(*layout)));
    drop(prepared.load(device, outputs.collect()).unwrap());
}

/// Binds every MLP for so many rows, dense, pruned and masked, with as little and as much besides as can be.
fn load_blocks(device: &Device, rows: usize) {
    let none = NamedTensors::new();
    let x: (&str, &[usize]) = ("x", &[rows, HIDDEN]);
    let residual: (&str, &[usize]) = ("residual", &[rows, HIDDEN]);
    let gate: (&str, &[usize]) = ("gate_weight", &[FFN, HIDDEN]);
    let up: (&str, &[usize]) = ("up_weight", &[FFN, HIDDEN]);
    let down: (&str, &[usize]) = ("down_weight", &[HIDDEN, FFN]);
    let norm: (&str, &[usize]) = ("norm_weight", &[HIDDEN]);
    let up_bias: (&str, &[usize]) = ("up_bias", &[FFN]);
    let down_bias: (&str, &[usize]) = ("down_bias", &[HIDDEN]);

    load(device, "gated_mlp", &[x, gate, up, down], &none);
    load(device, "gated_mlp", &[x, gate, up, down, norm, residual, down_bias], &none);
    load(device, "silu_mlp", &[x, up, down], &none);
    load(device, "silu_mlp", &[x, up, down, norm, residual, up_bias, down_bias], &none);

    let every_second: Vec<u32> = (0..HIDDEN as u32 / 2).map(|i| 2 * i).collect();
    let indices = Tensor::from_slice(&every_second, &[HIDDEN / 2]).unwrap();
    let names = ["in_indices", "out_indices"];
    let indices = names.map(|name| (name.to_owned(), indices.clone())).into();
    let read: &[usize] = &[FFN, HIDDEN / 2];
    let pruned =
        [x, ("gate_weight", read), ("up_weight", read), ("down_weight", &[HIDDEN / 2, FFN])];
    load(device, "pruned_gated_mlp", &pruned, &indices);
    load(device, "pruned_gated_mlp", &[&pruned[..], &[norm]].concat(), &indices);

    let masks = [("in_mask", HIDDEN), ("mid_mask", FFN), ("out_mask", HIDDEN)];
    let masks = masks.map(|(name, length)| (name.to_owned(), zeros(DType::F32, &[length]))).into();
    load(device, "masked_gated_mlp", &[x, gate, up, down, norm, residual], &masks);
}

#[test]
fn blocks_and_batches_share_pipelines() {
    let Some(device) = device() else { return };
    for rows in 1..=64 {
        load_blocks(&device, rows);
    }
    // For 1, 4 and 8 tokens a first half that gathers, one that does not, and a second half; in two tiles a gated first
    // half, a plain one and a second half; what comes ahead of tiles.
    const GEMVS: usize = 3 * 3;
    const TILES: usize = 2 * 3;
    const PREPARE: usize = 1;
    assert_eq!(compiled(&device), GEMVS + TILES + PREPARE);
}
