// compact_rows:  to[i] = from[permutation[i]]  for i < count, else 0
// scatter_rows:  to[permutation[i]] = from[i]  for i < count; other rows stay as they are
//
// compact_rows  from [M, D], to [M', D]      scatter_rows  from [M', D], to [M, D]      f32, f16 or bf16, the same
// permutation  [M']  i32      count  [1]  i32, taken as 0 below and as M' above; absent: M'
//
// launch  ceil(M' * words of a row of `to` / THREADS); an invocation owns one word of a row: one f32, or two halves of
//         which one may lie outside the row
// Bits are copied. An index outside of 0..M is nowhere: such a row is zero, or goes nowhere. Of two rows with one index
// either may win, element by element.

override THREADS: u32 = 128u;
override DTYPE: u32 = 0u;
override SCATTERS: bool = false;

const NOWHERE: u32 = 0xffffffffu;

struct Parameters {
    // Rows of this launch, and the first of them; permutation is bound from the first on.
    listed: u32,
    first_row: u32,
    // Of the tensor that permutation points into.
    rows: u32,
    columns: u32,
    // Invocations a row.
    units: u32,
    has_count: u32,
    // First element and elements between rows, from the start of each binding.
    from_start: u32,
    from_stride: u32,
    permutation_start: u32,
    count_start: u32,
    to_start: u32,
    to_stride: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
@group(0) @binding(1) var<storage, read> source: array<u32>;
@group(0) @binding(2) var<storage, read> permutation: array<i32>;
@group(0) @binding(3) var<storage, read> count: array<i32>;
#import shared/output.wgsl tensor=destination binding=4 dtype=DTYPE
#import shared/output_row.wgsl tensor=destination dtype=DTYPE

fn destination_bits(row: u32, column: u32) -> u32 {
    if (row == NOWHERE) {
        return 0u;
    }
    let at = parameters.from_start + row * parameters.from_stride + column;
    if (DTYPE == F32) {
        return source[at];
    }
    return (source[at >> 1u] >> ((at & 1u) * 16u)) & 0xffffu;
}

// What the row's index says, or NOWHERE.
fn place_of(row: u32) -> u32 {
    if (parameters.has_count != 0u) {
        let moved = u32(max(count[parameters.count_start], 0));
        if (parameters.first_row + row >= moved) {
            return NOWHERE;
        }
    }
    let index = permutation[parameters.permutation_start + row];
    if (index < 0 || u32(index) >= parameters.rows) {
        return NOWHERE;
    }
    return u32(index);
}

@compute @workgroup_size(THREADS)
fn move_rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = launch_index(workgroup, workgroups) * THREADS + thread;
    let row = index / parameters.units;
    if (row >= parameters.listed) {
        return;
    }
    let place = place_of(row);
    if (SCATTERS && place == NOWHERE) {
        return;
    }
    let from_row = select(place, row, SCATTERS);
    let to_row = select(row, place, SCATTERS);
    let start = parameters.to_start + to_row * parameters.to_stride;
    destination_write_unit(from_row, start, parameters.columns, index % parameters.units);
}
