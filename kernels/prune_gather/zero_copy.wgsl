// out = weight, bit for bit
//
// weight, out  [rows, columns] f32, f16 or bf16, any starts and row strides
//
// launch  ceil(rows * units of a row / THREADS); an invocation owns one word of the output: one f32, or two halves of
//         which one may lie outside the row

override THREADS: u32 = 128u;
override INPUT: u32 = 0u;

struct Parameters {
    columns: u32,
    rows: u32,
    // Invocations a row.
    units: u32,
    // First element and elements between rows, from the start of each binding.
    weight_start: u32,
    weight_stride: u32,
    out_start: u32,
    out_stride: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> weight: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<atomic<u32>>;
#import shared/numeric.wgsl
#import shared/grid.wgsl

fn half_at(at: u32) -> u32 {
    return (weight[at >> 1u] >> ((at & 1u) * 16u)) & 0xffffu;
}

fn copy_word(from_row: u32, to_row: u32, unit: u32) {
    // The row's words are counted from the one that holds its first element, which may be the upper half.
    let word = (to_row >> 1u) + unit;
    let first = word * 2u;
    let has_low = first >= to_row && first < to_row + parameters.columns;
    let has_high = first + 1u >= to_row && first + 1u < to_row + parameters.columns;
    var bits = 0u;
    var written = 0u;
    if (has_low) {
        bits = half_at(from_row + first - to_row);
        written = 0xffffu;
    }
    if (has_high) {
        bits |= half_at(from_row + first + 1u - to_row) << 16u;
        written |= 0xffff0000u;
    }
    if (has_low && has_high) {
        atomicStore(&out[word], bits);
    } else if (has_low || has_high) {
        // The other half is somebody else's.
        atomicAnd(&out[word], ~written);
        atomicOr(&out[word], bits);
    }
}

@compute @workgroup_size(THREADS)
fn zero_copy(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = launch_index(workgroup, workgroups) * THREADS + thread;
    let row = index / parameters.units;
    if (row >= parameters.rows) {
        return;
    }
    let unit = index % parameters.units;
    let from_row = parameters.weight_start + row * parameters.weight_stride;
    let to_row = parameters.out_start + row * parameters.out_stride;
    if (INPUT != F32) {
        copy_word(from_row, to_row, unit);
    } else {
        atomicStore(&out[to_row + unit], weight[from_row + unit]);
    }
}
