// As features_vector.wgsl where a chunk is one element.

alias Features = u32;

fn features_at(k: u32) -> Features {
    return in_indices[parameters.in_indices_start + k];
}
