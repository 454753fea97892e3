// As stage_matrix_vector.wgsl, one k at a time.
fn stage_$tensor(first_row: u32, first_k: u32, end: u32, thread: u32) {
    let threads = SUBGROUPS_M * SUBGROUPS_N * SUBGROUP;
    for (var at = thread; at < DEPTH * ($rows); at += threads) {
        let k = first_k + at % DEPTH;
        var value = 0.0;
        if (k < end) {
            value = $tensor_at($tensor_row(first_row + at / DEPTH) + k);
        }
        $tile[at] = f16(value);
    }
}
