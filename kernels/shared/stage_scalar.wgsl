// As stage_vector.wgsl, one k at a time.
fn stage_$tensor(first_row: u32, first_k: u32, end: u32, thread: u32) {
    for (var block = thread; block < DEPTH * $threads; block += THREADS_M * THREADS_N) {
        let k = block % DEPTH;
        let column = block / DEPTH;
        let row = first_row + column * 4u;
        var rows = vec4(0.0);
        if (first_k + k < end) {
            rows = vec4(
                $tensor_at($tensor_row(row) + first_k + k),
                $tensor_at($tensor_row(row + 1u) + first_k + k),
                $tensor_at($tensor_row(row + 2u) + first_k + k),
                $tensor_at($tensor_row(row + 3u) + first_k + k),
            );
        }
        $tile[$first + k * $threads + column] = rows;
    }
}
