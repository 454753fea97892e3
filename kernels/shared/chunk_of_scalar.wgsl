// As chunk_of_vector.wgsl where a chunk is one element.
fn $tensor_chunk(at: u32) -> Chunk {
    return $tensor_at(at);
}
