// What an invocation reads of a row at a time: eight elements.

const CHUNK: u32 = 8u;

struct Chunk {
    low: vec4<f32>,
    high: vec4<f32>,
}

fn dot_chunk(a: Chunk, b: Chunk) -> f32 {
    return dot(a.low, b.low) + dot(a.high, b.high);
}

// x * weight * scale, rounded.
fn normalised(x: Chunk, weight: Chunk, scale: f32, dtype: u32) -> Chunk {
    return Chunk(
        rounded_four(x.low * weight.low * scale, dtype),
        rounded_four(x.high * weight.high * scale, dtype),
    );
}

fn add_scaled(sum: Chunk, factor: f32, x: Chunk) -> Chunk {
    return Chunk(sum.low + factor * x.low, sum.high + factor * x.high);
}

fn chunk_element(chunk: Chunk, i: u32) -> f32 {
    if (i < 4u) {
        return chunk.low[i];
    }
    return chunk.high[i - 4u];
}
