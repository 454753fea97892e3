// n[m,:] = rms_norm(hidden[rows[m],:]), or hidden[rows[m],:];  rows[m] = m if they are absent
// info[m] = (1 if there is such a row, position, token to gather, low and high word of the seed)
//
// hidden [R, D]  activations      norm_weight [D]  weights' type      rows, positions, gather_tokens [M]  i32
// seeds [M, 2]  u32, optional
// n [M, D]  f32, rounded to the activation type; not written for rows that hidden does not have
//
// launch  M; a workgroup owns a row
// workgroup  THREADS invocations stride over D
// workgroup memory  THREADS * 64 + 16 bytes at most
// Squares are summed by invocation in f32, then over the invocations in a fixed order.

#variant reduce = subgroup workgroup

override THREADS: u32 = 128u;
override NORM: bool = true;
override ACTIVATION: u32 = 0u;
override WEIGHT: u32 = 0u;

struct Parameters {
    features: u32,
    hidden_rows: u32,
    // Of this launch, and the first of them.
    output_rows: u32,
    first_row: u32,
    eps: f32,
    has_rows: u32,
    has_positions: u32,
    has_gather: u32,
    has_seeds: u32,
    // Of rows without a seed of their own.
    seed_low: u32,
    seed_high: u32,
    // First element and elements between rows, from the start of each binding.
    hidden_start: u32,
    hidden_stride: u32,
    norm_start: u32,
    rows_start: u32,
    positions_start: u32,
    gather_start: u32,
    seeds_start: u32,
    seeds_stride: u32,
    n_start: u32,
    n_stride: u32,
    info_start: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/tensor_element.wgsl tensor=hidden binding=1 dtype=ACTIVATION access=read
#import shared/tensor_element.wgsl tensor=norm_weight binding=2 dtype=WEIGHT access=read
@group(0) @binding(3) var<storage, read> rows: array<i32>;
@group(0) @binding(4) var<storage, read> positions: array<i32>;
@group(0) @binding(5) var<storage, read> gather_tokens: array<i32>;
@group(0) @binding(6) var<storage, read> seeds: array<u32>;
@group(0) @binding(7) var<storage, read_write> n: array<f32>;
@group(0) @binding(8) var<storage, read_write> info: array<i32>;
#import shared/reduce_$reduce.wgsl capacity=1u

@compute @workgroup_size(THREADS)
fn exit_prepare(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    invocation: Invocation,
) {
    let local = launch_index(workgroup, workgroups);
    if (local >= parameters.output_rows) {
        return;
    }
    let row = parameters.first_row + local;
    var source = i32(row);
    if (parameters.has_rows != 0u) {
        source = rows[parameters.rows_start + row];
    }
    let exists = source >= 0 && source < i32(parameters.hidden_rows);
    let x_row = parameters.hidden_start + u32(max(source, 0)) * parameters.hidden_stride;

    var scale = 1.0;
    if (NORM) {
        var squares: array<vec4<f32>, 1>;
        if (exists) {
            for (var k = invocation.thread; k < parameters.features; k += THREADS) {
                let value = hidden_at(x_row + k);
                squares[0].x += value * value;
            }
        }
        reduce(squares, 1u, invocation);
        scale = 1.0 / sqrt(totals[0].x / f32(parameters.features) + parameters.eps);
    }
    if (invocation.thread == 0u) {
        let at = parameters.info_start + local * 5u;
        info[at] = select(0, 1, exists);
        if (parameters.has_positions != 0u) {
            info[at + 1u] = positions[parameters.positions_start + row];
        }
        if (parameters.has_gather != 0u) {
            info[at + 2u] = gather_tokens[parameters.gather_start + row];
        }
        var seed = vec2(parameters.seed_low, parameters.seed_high);
        if (parameters.has_seeds != 0u) {
            let own = parameters.seeds_start + row * parameters.seeds_stride;
            seed = vec2(seeds[own], seeds[own + 1u]);
        }
        info[at + 3u] = bitcast<i32>(seed.x);
        info[at + 4u] = bitcast<i32>(seed.y);
    }
    if (exists) {
        for (var k = invocation.thread; k < parameters.features; k += THREADS) {
            var value = hidden_at(x_row + k);
            if (NORM) {
                value = value * norm_weight_at(parameters.norm_start + k) * scale;
            }
            n[parameters.n_start + local * parameters.n_stride + k] = rounded(value, ACTIVATION);
        }
    }
}
