//! A fused MLP in an engine that owns its context, its stream and its memory, captured into a CUDA graph.
//!
//! `cargo run --features cuda --example cuda_own_stream`

use siluette::backend::cuda::{Cuda, open_context};
use siluette::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use siluette::{CudaTensor, CudaTensorMut, CudaWorkspace, DType, GatedMlp, GatedMlpArgs, bf16};

const TOKENS: usize = 1;
const HIDDEN: usize = 576;
const FFN: usize = 1536;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What an engine has already. `open_context` is `CudaContext::new` with an error instead of a panic where there is
    // no driver.
    let context = open_context(0)?;
    // SAFETY: all work goes to one stream, so that nothing needs events. Graphs cannot wait for them.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream()?;
    let mut state = 1u32;
    let mut random = |rows: usize| -> Vec<bf16> {
        let values = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bf16::from_f32((state >> 8) as f32 / (1 << 24) as f32 * 0.1 - 0.05)
        });
        values.take(rows * HIDDEN).collect()
    };
    let gate_weight = stream.clone_htod(&random(FFN))?;
    let up_weight = stream.clone_htod(&random(FFN))?;
    let down_weight = stream.clone_htod(&random(FFN))?;
    let mut x = stream.clone_htod(&random(TOKENS))?;
    let norm_weight = stream.clone_htod(&vec![bf16::ONE; HIDDEN])?;
    let mut out = stream.alloc_zeros::<bf16>(TOKENS * HIDDEN)?;

    // One backend for each context, one descriptor for each shape of MLP, scratch memory of the engine's.
    let cuda = Cuda::new(&context)?;
    let op = GatedMlp::new(HIDDEN, FFN, DType::BF16)?.with_norm(1e-5)?;
    let mut workspace = stream.alloc_zeros::<u8>(op.workspace_bytes(TOKENS))?;

    let args = GatedMlpArgs::new(
        CudaTensor::new(&x, &[TOKENS, HIDDEN])?,
        CudaTensor::new(&gate_weight, &[FFN, HIDDEN])?,
        CudaTensor::new(&up_weight, &[FFN, HIDDEN])?,
        CudaTensor::new(&down_weight, &[HIDDEN, FFN])?,
        CudaTensorMut::new(&mut out, &[TOKENS, HIDDEN])?,
    )
    .norm_weight(CudaTensor::new(&norm_weight, &[HIDDEN])?)
    .residual(CudaTensor::new(&x, &[TOKENS, HIDDEN])?);

    // Compiles the kernels, or finds them compiled: a capturing stream could not.
    cuda.prepare(&op, &args.layouts())?;
    println!("kernels: {}", cuda.plan(&op, &args.layouts())?.kernels().join(", "));
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    let enqueued = cuda.gated_mlp(&stream, &op, args, CudaWorkspace::new(&mut workspace));
    let graph = stream.end_capture(CUgraphInstantiate_flags(0))?;
    enqueued?;
    let graph = graph.ok_or("nothing was captured")?;

    for step in 0..3 {
        graph.launch()?;
        // The block's output is the next one's input.
        stream.memcpy_dtod(&out, &mut x)?;
        let first = stream.clone_dtoh(&out)?;
        stream.synchronize()?;
        println!("step {step}: out[0..4] = {:?}", &first[..4]);
    }
    Ok(())
}
