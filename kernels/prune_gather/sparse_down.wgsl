// sparse_gated_mlp, second half, where Wd has a row for each neuron:  out[m,c] = residual[m,c] + sum_j h[m,j] Wd[j,c] over
// the neurons whose h is not zero; rows of the others are not read
//
// h  [M, F]  f32        Wd [F, d]  weights' type        residual [M, d]  activations' type, or absent
// out [M, d]  any of f32, f16, bf16
//
// launch  M * ceil(d / C), column tiles fastest; C = 4 * CHUNK columns: eight elements each of four invocations, or one where
//         rows do not start on 16-byte words
// workgroup  THREADS invocations, THREADS / 4 groups of four
// workgroup memory  THREADS * 100 bytes: the neurons of a tile of 8 THREADS whose h is not zero, with their h; sums
// A group takes every (THREADS / 4)-th of the tile's survivors. A column is summed by group in f32 in the order of the
// survivors, then over the groups in order: independent of M, and of what other tokens select.

#variant load = vector scalar

override THREADS: u32 = 128u; // at least 16
override WEIGHT: u32 = 0u;

struct Parameters {
    hidden: u32,
    neurons: u32,
    tiles: u32,
    workgroups: u32,
    // First element and elements between rows, from the start of each binding.
    h_start: u32,
    h_stride: u32,
    down_start: u32,
    down_stride: u32,
    residual_start: u32,
    residual_stride: u32,
    out_start: u32,
    out_stride: u32,
    has_residual: u32,
    // Element types.
    activation: u32,
    out_dtype: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/chunk_$load.wgsl
@group(0) @binding(1) var<storage, read> h: array<f32>;
#import shared/tensor_$load.wgsl tensor=down_weight binding=2 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=residual binding=3 dtype=parameters.activation access=read
#import shared/output.wgsl tensor=out binding=4 dtype=parameters.out_dtype
#import shared/scan.wgsl

// Neurons of a tile that an invocation looks at.
const OWN: u32 = 8u;
// Invocations that share a row of the weight.
const LANES: u32 = 4u;
const COLUMNS: u32 = LANES * CHUNK;

var<workgroup> survivors: array<u32, THREADS * OWN>;
var<workgroup> factors: array<f32, THREADS * OWN>;
var<workgroup> sums: array<f32, THREADS * CHUNK>;

// Also true of NaN, which is told by its bits.
fn is_nonzero(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7fffffffu) != 0u;
}

// Gathers the tile's survivors, in their order; how many there are. By all invocations.
fn compact(h_row: u32, first: u32, thread: u32) -> u32 {
    let begin = first + thread * OWN;
    let end = min(begin + OWN, parameters.neurons);
    var count = 0u;
    for (var neuron = begin; neuron < end; neuron++) {
        if (is_nonzero(h[h_row + neuron])) {
            count += 1u;
        }
    }
    let places = scan(count, thread);
    var place = places.x;
    for (var neuron = begin; neuron < end; neuron++) {
        let value = h[h_row + neuron];
        if (is_nonzero(value)) {
            survivors[place] = neuron;
            factors[place] = value;
            place += 1u;
        }
    }
    workgroupBarrier();
    return places.y;
}

fn total(column: u32) -> f32 {
    var sum = 0.0;
    for (var group = 0u; group < THREADS / LANES; group++) {
        sum += sums[group * COLUMNS + column];
    }
    return sum;
}

@compute @workgroup_size(THREADS)
fn sparse_down(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = launch_index(workgroup, workgroups);
    if (index >= parameters.workgroups) {
        return;
    }
    let token = index / parameters.tiles;
    let first_column = index % parameters.tiles * COLUMNS;
    let column = first_column + thread % LANES * CHUNK;
    let h_row = parameters.h_start + token * parameters.h_stride;

    var sum: Chunk;
    for (var first = 0u; first < parameters.neurons; first += THREADS * OWN) {
        let count = compact(h_row, first, thread);
        if (column < parameters.hidden) {
            for (var k = thread / LANES; k < count; k += THREADS / LANES) {
                let at = parameters.down_start + survivors[k] * parameters.down_stride + column;
                sum = add_scaled(sum, factors[k], down_weight_chunk(at));
            }
        }
        // The next tile must not overwrite what others still read.
        workgroupBarrier();
    }
    for (var i = 0u; i < CHUNK; i++) {
        sums[thread * CHUNK + i] = chunk_element(sum, i);
    }
    workgroupBarrier();

    // One invocation for each two columns, which may share a word.
    let begin = first_column + 2u * thread;
    let end = min(first_column + COLUMNS, parameters.hidden);
    if (begin >= end) {
        return;
    }
    let count = min(end - begin, 2u);
    var values: vec2<f32>;
    for (var i = 0u; i < count; i++) {
        values[i] = total(2u * thread + i);
        if (parameters.has_residual != 0u) {
            values[i] += residual_at(parameters.residual_start + token * parameters.residual_stride + begin + i);
        }
    }
    let at = parameters.out_start + token * parameters.out_stride + begin;
    let pair = out_is_pair(at, count);
    out_store(at, values.x, values.y, pair);
    if (!pair && count > 1u) {
        out_store(at + 1u, values.y, 0.0, false);
    }
}
