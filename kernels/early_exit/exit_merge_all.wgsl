// merge_exit_states: exit_merge with all nine results, for devices that bind 11 storage buffers. What is computed, the
// geometry and the numerics are those of exit_merge.wgsl.

#import early_exit/exit_results.wgsl
#import early_exit/exit_result.wgsl n=0 binding=3
#import early_exit/exit_result.wgsl n=1 binding=4
#import early_exit/exit_result.wgsl n=2 binding=5
#import early_exit/exit_result.wgsl n=3 binding=6
#import early_exit/exit_result.wgsl n=4 binding=7
#import early_exit/exit_result.wgsl n=5 binding=8
#import early_exit/exit_result.wgsl n=6 binding=9
#import early_exit/exit_result.wgsl n=7 binding=10
#import early_exit/exit_result.wgsl n=8 binding=11

fn put(code: u32, row: u32, column: u32, bits: u32) {
    put_0(code, row, column, bits);
    put_1(code, row, column, bits);
    put_2(code, row, column, bits);
    put_3(code, row, column, bits);
    put_4(code, row, column, bits);
    put_5(code, row, column, bits);
    put_6(code, row, column, bits);
    put_7(code, row, column, bits);
    put_8(code, row, column, bits);
}

@compute @workgroup_size(THREADS)
fn exit_merge_all(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = launch_index(workgroup, workgroups);
    if (row >= parameters.output_rows) {
        return;
    }
    merge_row(row, thread);
}
