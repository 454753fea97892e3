// Elements at..at+7 of tensor $tensor, which is read element by element wherever it lies.
fn $tensor_chunk(at: u32) -> Chunk {
    return Chunk(
        vec4($tensor_at(at), $tensor_at(at + 1u), $tensor_at(at + 2u), $tensor_at(at + 3u)),
        vec4($tensor_at(at + 4u), $tensor_at(at + 5u), $tensor_at(at + 6u), $tensor_at(at + 7u)),
    );
}
