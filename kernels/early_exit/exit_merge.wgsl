// merge_exit_states: up to six results of a row from the states of all tiles.
//   m = max m1;   s = sum exp(m1 - m) s;   t = sum exp(m1 - m) (t + (m1 - m) s)
//   log_sum_exp = m + ln s;   entropy = ln s - t / s
//
// state_values [tiles, M, 6 + k]  f32      state_tokens [tiles, M, 2 + k]  i32
// out_0..5  results, by code: token, sampled_token [M], top_tokens [M, k] i32, the others [M], top_logits [M, k] f32
//
// launch  M; a workgroup owns a row
// workgroup  THREADS invocations, each every THREADS-th tile
// workgroup memory  THREADS * 32 bytes
// With two inputs, six results are what every device can bind; of more, exit_merge_all writes all, or the next launch
// the rest.
// Sums are in f32, by invocation and then over the invocations in order. The k best are found one after the other, each
// the first behind the last in the total order on (value, -id): tiles' lists are sorted, so that an invocation looks at
// few entries of each.

#import early_exit/exit_results.wgsl
#import early_exit/exit_result.wgsl n=0 binding=3
#import early_exit/exit_result.wgsl n=1 binding=4
#import early_exit/exit_result.wgsl n=2 binding=5
#import early_exit/exit_result.wgsl n=3 binding=6
#import early_exit/exit_result.wgsl n=4 binding=7
#import early_exit/exit_result.wgsl n=5 binding=8

fn put(code: u32, row: u32, column: u32, bits: u32) {
    put_0(code, row, column, bits);
    put_1(code, row, column, bits);
    put_2(code, row, column, bits);
    put_3(code, row, column, bits);
    put_4(code, row, column, bits);
    put_5(code, row, column, bits);
}

@compute @workgroup_size(THREADS)
fn exit_merge(
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
