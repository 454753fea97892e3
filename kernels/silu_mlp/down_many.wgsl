// What the kernels of the second half for many tokens have in common: parameters, bindings, and the end, which makes out from
// the sums. The kernel says what INPUT and WEIGHT are; $load is how it reads rows.

struct Parameters {
    depth: u32,
    // Of this launch's part of the weight, the first of it, and of all of it.
    rows: u32,
    first_row: u32,
    outputs: u32,
    // Features of out and residual.
    width: u32,
    tokens: u32,
    token_tiles: u32,
    workgroups: u32,
    // First element and elements between rows, from the start of each binding.
    h_start: u32,
    h_stride: u32,
    down_start: u32,
    down_stride: u32,
    bias_start: u32,
    out_indices_start: u32,
    out_mask_start: u32,
    residual_start: u32,
    residual_stride: u32,
    out_start: u32,
    out_stride: u32,
    has_bias: u32,
    has_residual: u32,
    has_mask: u32,
    scatters: u32,
    // Element types.
    activation: u32,
    out_dtype: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/chunk_$load.wgsl
#import shared/tensor_$load.wgsl tensor=h binding=1 dtype=INPUT access=read
#import shared/tensor_$load.wgsl tensor=down_weight binding=2 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=down_bias binding=3 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=residual binding=4 dtype=parameters.activation access=read
@group(0) @binding(5) var<storage, read> out_indices: array<u32>;
@group(0) @binding(6) var<storage, read> out_mask: array<f32>;
#import shared/output.wgsl tensor=out binding=7 dtype=parameters.out_dtype

// Where rows start; behind the last row, the last.
fn h_row(token: u32) -> u32 {
    return parameters.h_start + min(token, parameters.tokens - 1u) * parameters.h_stride;
}

fn down_weight_row(row: u32) -> u32 {
    return parameters.down_start + min(row, parameters.rows - 1u) * parameters.down_stride;
}

#import silu_mlp/down_write.wgsl
