// A row of tensor $tensor, written word by word: imported behind output.wgsl.
//
// The kernel defines `fn $tensor_bits(row: u32, column: u32) -> u32`, the bits of an element.

// Writes unit `unit` of row `row`, which is `columns` elements from element `start` on. Units are the words
// that a row touches, counted from the one that holds its first element: `columns` of them in f32, else
// columns / 2 + 1 at most.
fn $tensor_write_unit(row: u32, start: u32, columns: u32, unit: u32) {
    var column = unit;
    if ($dtype != F32) {
        // Where the row starts in an upper half, all other words come one element earlier.
        let odd = start & 1u;
        column = max(unit * 2u, odd) - odd;
        if (unit == 0u && odd == 1u) {
            // Only the upper half belongs to the row; the pair that follows is the next unit's.
            $tensor_store_bits(start, $tensor_bits(row, 0u), 0u, false);
            return;
        }
    }
    if (column < columns) {
        let pair = $tensor_is_pair(start + column, columns - column);
        var next = 0u;
        if (pair) {
            next = $tensor_bits(row, column + 1u);
        }
        $tensor_store_bits(start + column, $tensor_bits(row, column), next, pair);
    }
}
