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

// All columns at once.
fn slice_width(count: u32) -> u32 {
    return (parameters.features + CHUNK - 1u) / CHUNK;
}

fn stage(first: u32, count: u32, column: u32, width: u32, thread: u32) {}

fn staged_chunk(first: u32, m: u32, column: u32, c: u32, width: u32) -> Chunk {
    return n_chunk(parameters.rows_start + (first + m) * parameters.rows_stride + column + c * CHUNK);
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
