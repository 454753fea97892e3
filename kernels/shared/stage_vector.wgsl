// Brings a DEPTH-deep slice of $threads times four rows to $tile, from its element $first on, four rows by four k at a
// time, transposed on the way. The kernel says where rows start.
fn stage_$tensor(first_row: u32, first_k: u32, end: u32, thread: u32) {
    for (var block = thread; block < DEPTH / 4u * $threads; block += THREADS_M * THREADS_N) {
        let k = block % (DEPTH / 4u) * 4u;
        let column = block / (DEPTH / 4u);
        let row = first_row + column * 4u;
        let rows = transpose(mat4x4(
            $tensor_four($tensor_row(row), first_k + k, end),
            $tensor_four($tensor_row(row + 1u), first_k + k, end),
            $tensor_four($tensor_row(row + 2u), first_k + k, end),
            $tensor_four($tensor_row(row + 3u), first_k + k, end),
        ));
        $tile[$first + k * $threads + column] = rows[0];
        $tile[$first + (k + 1u) * $threads + column] = rows[1];
        $tile[$first + (k + 2u) * $threads + column] = rows[2];
        $tile[$first + (k + 3u) * $threads + column] = rows[3];
    }
}
