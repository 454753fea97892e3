// The sequences of a ragged batch: `parameters` has sequences, drafts, max_draft and offsets_start, `offsets` any values.

struct Sequence {
    // What its offsets say lies inside the tensors.
    is_valid: bool,
    // Of its drafts.
    first: u32,
    drafts: u32,
}

fn sequence_at(index: u32) -> Sequence {
    let begin = offsets[parameters.offsets_start + index];
    let end = offsets[parameters.offsets_start + index + 1u];
    // The first comparison keeps the difference from wrapping.
    if (begin > end || end > parameters.drafts || end - begin > parameters.max_draft) {
        return Sequence(false, 0u, 0u);
    }
    return Sequence(true, begin, end - begin);
}
