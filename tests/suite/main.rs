//! The integration tests, one binary so that the crate is linked once.

mod bad_input;
mod bigru;
#[cfg(feature = "candle")]
mod candle;
#[cfg(feature = "candle-cuda")]
mod candle_cuda;
mod conformance;
#[cfg(feature = "cuda")]
mod cuda_capture;
#[cfg(feature = "cuda")]
mod cuda_enqueue;
#[cfg(feature = "cuda")]
mod cuda_heads;
#[cfg(feature = "cuda")]
mod cuda_images;
#[cfg(feature = "cuda")]
mod cuda_kernels;
#[cfg(feature = "cuda")]
mod cuda_movement;
#[cfg(feature = "cuda")]
mod cuda_nvrtc;
#[cfg(feature = "cuda")]
mod cuda_support;
#[cfg(feature = "cuda")]
mod cuda_verify_sampled;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod device_index_sets;
mod early_exit;
mod early_exit_input;
mod feature_attention;
#[cfg(feature = "safetensors")]
mod feature_goldens;
mod gate;
mod goldens;
#[cfg(feature = "candle")]
mod layerskip;
mod movement;
mod properties;
mod pruned_blocks;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod pruned_indices;
mod pruning_properties;
mod readme;
mod sampled_input;
mod sampled_lossless;
mod sampled_match;
mod selection;
mod selective_feature_attention;
mod self_speculation;
mod sparse_blocks;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod sparse_lists;
mod support;
#[cfg(feature = "cli")]
mod tool;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod unchecked;
mod verification;
mod verify_sampled;
#[cfg(feature = "wgpu")]
mod wgpu_dispatch;
#[cfg(feature = "wgpu")]
mod wgpu_heads;
#[cfg(feature = "wgpu")]
mod wgpu_matrices;
#[cfg(feature = "wgpu")]
mod wgpu_movement;
#[cfg(feature = "wgpu")]
mod wgpu_pipelines;
#[cfg(feature = "wgpu")]
mod wgpu_plans;
