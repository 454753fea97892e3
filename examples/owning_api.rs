//! A feed-forward block on whatever device is there, on tensors in host memory:
//!
//! ```sh
//! cargo run --example owning_api                            # the CPU
//! cargo run --example owning_api --features wgpu -- wgpu
//! ```

use siluette::{Backend, DType, Device, Error, GatedMlp, GatedMlpArgs, Layout, Tensor};

fn main() -> Result<(), Error> {
    let name = std::env::args().nth(1);
    let backend = name.as_deref().map_or(Some(Backend::Cpu), Backend::from_name);
    let device = Device::open(backend.expect("the argument is reference, cpu, wgpu or cuda"))?;

    let (rows, hidden, ffn) = (3, 64, 128);
    let op = GatedMlp::new(hidden, ffn, DType::F32)?.with_norm(1e-5)?;
    let x = wave(&[rows, hidden])?;
    let (gate, up) = (wave(&[ffn, hidden])?, wave(&[ffn, hidden])?);
    let (down, norm) = (wave(&[hidden, ffn])?, wave(&[hidden])?);

    let run = |device: &Device| -> Result<Vec<f64>, Error> {
        let mut out = Tensor::zeros(Layout::contiguous(DType::F32, &[rows, hidden])?);
        let args = GatedMlpArgs::new(&x, &gate, &up, &down, &mut out);
        device.run(&op, args.norm_weight(&norm).residual(&x))?;
        Ok(out.view().to_f64())
    };
    let (out, expected) = (run(&device)?, run(&Device::Reference)?);

    // In units of the result's root mean square: single elements may be close to zero.
    let square: f64 = expected.iter().map(|value| value * value).sum();
    let error: f64 = out.iter().zip(&expected).map(|(got, want)| (got - want).powi(2)).sum();
    let error = (error / square).sqrt();
    println!("{}: out[0] = {:.6}, {error:.1e} from the reference", device.name(), out[0]);
    assert!(error < 1e-5, "the device computes something else");
    Ok(())
}

/// Numbers between -1 and 1.
fn wave(shape: &[usize]) -> Result<Tensor, Error> {
    let layout = Layout::contiguous(DType::F32, shape)?;
    Ok(Tensor::from_f64(layout, (0..layout.elements()).map(|index| (index as f64 * 0.7).sin())))
}
