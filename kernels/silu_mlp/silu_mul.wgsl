// out[m,f] = silu(gate[m,f]) * up[m,f]
//
// gate, up [M, F]  equal types; may be the halves of one [M, 2F] tensor        out [M, F]  f32, f16 or bf16
//
// vector  every row of every tensor is whole 16-byte words; an invocation owns eight elements
// scalar  any strides; an invocation owns one word of the output: one f32, or two halves of which one may
//         lie outside the row
// launch  ceil(M * units of a row / THREADS)
// Computed in f32, rounded once.

#variant load = vector scalar

override THREADS: u32 = 128u;
override INPUT: u32 = 0u;
override OUT: u32 = 0u;

struct Parameters {
    columns: u32,
    rows: u32,
    // Invocations a row.
    units: u32,
    // First element and elements between rows, from the start of each binding.
    gate_start: u32,
    gate_stride: u32,
    up_start: u32,
    up_stride: u32,
    out_start: u32,
    out_stride: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/chunk_$load.wgsl
#import shared/tensor_$load.wgsl tensor=gate binding=1 dtype=INPUT access=read
#import shared/tensor_$load.wgsl tensor=up binding=2 dtype=INPUT access=read
#import silu_mlp/silu_mul_$load.wgsl

@compute @workgroup_size(THREADS)
fn silu_mul(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = launch_index(workgroup, workgroups) * THREADS + thread;
    let row = index / parameters.units;
    if (row < parameters.rows) {
        write_unit(row, index % parameters.units);
    }
}
