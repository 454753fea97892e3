// exit_states for devices that bind 8 storage buffers: rows and what is known of them come from exit_prepare.
//
// n [M, D]  f32      info [M, 5]  i32      the others, geometry and numerics as in exit_states.wgsl
// workgroup memory  10,752 bytes: rows are read where they lie

#variant load = vector scalar

#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/chunk_$load.wgsl
#import early_exit/exit_tile.wgsl load=$load
#import shared/tensor_$load.wgsl tensor=n binding=6 dtype=F32 access=read_write
@group(0) @binding(7) var<storage, read_write> info: array<i32>;

fn info_of(row: u32, word: u32) -> i32 {
    return info[parameters.info_start + row * 5u + word];
}

fn row_exists(row: u32) -> bool {
    return info_of(row, 0u) != 0;
}

fn row_position(row: u32) -> u32 {
    return bitcast<u32>(info_of(row, 1u));
}

fn row_token(row: u32) -> i32 {
    return info_of(row, 2u);
}

fn row_seed(row: u32) -> vec2<u32> {
    return vec2(bitcast<u32>(info_of(row, 3u)), bitcast<u32>(info_of(row, 4u)));
}

fn prepare_rows(first: u32, count: u32, thread: u32) {}

// Sums of the weight's row `index` with `count` rows from `first` on.
fn products(index: u32, first: u32, count: u32, thread: u32) -> array<f32, ROWS> {
    var sums: array<f32, ROWS>;
    if (index >= parameters.valid) {
        return sums;
    }
    let row = parameters.weight_start + index * parameters.weight_stride;
    let start = parameters.rows_start + first * parameters.rows_stride;
    for (var k = 0u; k < parameters.features; k += CHUNK) {
        let weight = head_weight_chunk(row + k);
        for (var m = 0u; m < count; m++) {
            sums[m] += dot_chunk(weight, n_chunk(start + m * parameters.rows_stride + k));
        }
    }
    return sums;
}

@compute @workgroup_size(THREADS)
fn exit_states_prepared(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let launch = launch_index(workgroup, workgroups);
    if (launch >= parameters.workgroups) {
        return;
    }
    write_states(launch, thread);
}
