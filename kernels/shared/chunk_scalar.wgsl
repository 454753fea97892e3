// What an invocation reads of a row at a time: one element, so that neighbours read neighbours.

const CHUNK: u32 = 1u;

alias Chunk = f32;

fn dot_chunk(a: Chunk, b: Chunk) -> f32 {
    return a * b;
}

// x * weight * scale, rounded.
fn normalised(x: Chunk, weight: Chunk, scale: f32, dtype: u32) -> Chunk {
    return rounded(x * weight * scale, dtype);
}

fn add_scaled(sum: Chunk, factor: f32, x: Chunk) -> Chunk {
    return sum + factor * x;
}

fn chunk_element(chunk: Chunk, i: u32) -> f32 {
    return chunk;
}
