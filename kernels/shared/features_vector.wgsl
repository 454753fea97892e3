// The features that columns k..k+7 of n stand for, as indices name them.

struct Features {
    low: vec4<u32>,
    high: vec4<u32>,
}

fn features_at(k: u32) -> Features {
    let at = parameters.in_indices_start + k;
    return Features(
        vec4(in_indices[at], in_indices[at + 1u], in_indices[at + 2u], in_indices[at + 3u]),
        vec4(in_indices[at + 4u], in_indices[at + 5u], in_indices[at + 6u], in_indices[at + 7u]),
    );
}
