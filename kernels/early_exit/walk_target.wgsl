// verify_greedy's walk, from target tokens [N + B]:  n = how many leading draft[i] == target[i]

fn walk_of(index: u32, sequence: Sequence) -> Walk {
    if (!sequence.is_valid) {
        return Walk(false, 0u, -1);
    }
    let rows = parameters.source_start + sequence.first + index;
    var accepted = 0u;
    while (accepted < sequence.drafts) {
        let token = walk_source[rows + accepted];
        if (token < 0 || token != draft_at(sequence.first + accepted)) {
            break;
        }
        accepted++;
    }
    return Walk(true, accepted, walk_source[rows + accepted]);
}

fn node_at(_index: u32, place: u32) -> u32 {
    return place;
}
