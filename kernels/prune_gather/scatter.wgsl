// Scatters in gather form: each element of the wide row asks for its place in the narrow one, so that no two
// invocations ever write the same element.
//
// $indices: array<u32>, ascending, `parameters.$count` of them from `parameters.$indices_start` on
// $rank: array<i32>, a place or -1 for each column, from `parameters.$rank_start` on; read if `parameters.has_rank`

const NOWHERE: u32 = 0xffffffffu;

// The place of a column, below `parameters.$count` whatever the values of rank and indices are; NOWHERE for a column
// that is no member.
fn place_of(column: u32) -> u32 {
    let count = parameters.$count;
    if (parameters.has_rank != 0u) {
        let found = $rank[parameters.$rank_start + column];
        return select(NOWHERE, u32(found), found >= 0 && u32(found) < count);
    }
    var low = 0u;
    var high = count;
    while (low < high) {
        let middle = low + (high - low) / 2u;
        if ($indices[parameters.$indices_start + middle] < column) {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    if (low < count) {
        if ($indices[parameters.$indices_start + low] == column) {
            return low;
        }
    }
    return NOWHERE;
}
