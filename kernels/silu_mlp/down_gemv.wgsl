// Every block's second half, and linear layers, for few tokens:  out[m,d] = residual[m,d] + h[m,:] . Wd[j,:] + bd[j]
// with d = indices[j], or j where nothing is selected; features that no j is written to are the residual. The sum is times
// mask[j].
//
// h  [M, F]  f32, or activations        Wd [O, F]  nn.Linear layout        bd [O]  weights' type
// residual [M, D]  activations' type        out [M, D]  any of f32, f16, bf16        D = O without indices
// indices [O]  u32, mask [O]  f32, or absent; an index that is out of range is written nowhere
//
// launch  ceil(M / TOKENS) * ceil(O / 4), token groups fastest; a workgroup owns 4 rows j and TOKENS tokens
// workgroup  THREADS invocations stride over F, eight elements at a time, or one where rows do not start on
//            16-byte words
// workgroup memory  subgroup variant: THREADS * 32 + 128 bytes; workgroup variant: THREADS * 64 + 128 bytes
// A row is summed by invocation in f32, then over the invocations in a fixed order. The sums of a token do
// not depend on the other tokens.

#variant reduce = subgroup workgroup
#variant load = vector scalar

override THREADS: u32 = 128u;
override TOKENS: u32 = 1u; // at most 8
override INPUT: u32 = 0u;
override WEIGHT: u32 = 0u;

struct Parameters {
    depth: u32,
    // Of this launch's part of the weight, the first of it, and of all of it.
    rows: u32,
    first_row: u32,
    outputs: u32,
    // Features of out and residual.
    width: u32,
    tokens: u32,
    token_groups: u32,
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
#import shared/reduce_$reduce.wgsl capacity=8u

#import silu_mlp/down_write.wgsl

@compute @workgroup_size(THREADS)
fn down_gemv(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    invocation: Invocation,
) {
    let index = launch_index(workgroup, workgroups);
    if (index >= parameters.workgroups) {
        return;
    }
    let first_token = index % parameters.token_groups * TOKENS;
    let first_row = index / parameters.token_groups * 4u;

    var sums: array<vec4<f32>, 8>;
    for (var k = invocation.thread * CHUNK; k < parameters.depth; k += THREADS * CHUNK) {
        var down: array<Chunk, 4>;
        for (var r = 0u; r < 4u; r++) {
            let row = min(first_row + r, parameters.rows - 1u);
            down[r] = down_weight_chunk(parameters.down_start + row * parameters.down_stride + k);
        }
        for (var m = 0u; m < TOKENS; m++) {
            let token = min(first_token + m, parameters.tokens - 1u);
            let chunk = h_chunk(parameters.h_start + token * parameters.h_stride + k);
            sums[m] += vec4(
                dot_chunk(down[0], chunk),
                dot_chunk(down[1], chunk),
                dot_chunk(down[2], chunk),
                dot_chunk(down[3], chunk),
            );
        }
    }
    reduce(sums, TOKENS, invocation);
    if (parameters.scatters != 0u) {
        copy_residual(first_row, 4u, first_token, TOKENS, invocation.thread, THREADS);
        storageBarrier();
    }

    // One invocation for each token.
    let token = first_token + invocation.thread;
    if (invocation.thread < TOKENS && token < parameters.tokens) {
        write(token, first_row, totals[invocation.thread]);
    }
}
