// A walk that the launch before has stored, [B, 2 + S]: how many drafts were accepted, or -1 if the sequence is malformed;
// the token behind them, or -1; which drafts they are.

fn walk_of(index: u32, sequence: Sequence) -> Walk {
    let at = parameters.source_start + index * parameters.source_stride;
    let accepted = walk_source[at];
    return Walk(sequence.is_valid && accepted >= 0, u32(max(accepted, 0)), walk_source[at + 1u]);
}

fn node_at(index: u32, place: u32) -> u32 {
    let at = parameters.source_start + index * parameters.source_stride;
    return u32(walk_source[at + 2u + place]);
}
