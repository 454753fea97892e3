// Brings a DEPTH-deep slice of $rows rows to $tile in f16, row by row, four k at a time. The kernel says where rows start.
//
// The tile is one of elements: Metal loads matrices through pointers to elements alone.
fn stage_$tensor(first_row: u32, first_k: u32, end: u32, thread: u32) {
    let threads = SUBGROUPS_M * SUBGROUPS_N * SUBGROUP;
    for (var block = thread; block < DEPTH / 4u * ($rows); block += threads) {
        let k = block % (DEPTH / 4u) * 4u;
        let row = block / (DEPTH / 4u);
        let four = vec4<f16>($tensor_four($tensor_row(first_row + row), first_k + k, end));
        let at = row * DEPTH + k;
        $tile[at] = four.x;
        $tile[at + 1u] = four.y;
        $tile[at + 2u] = four.z;
        $tile[at + 3u] = four.w;
    }
}
