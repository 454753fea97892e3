// The output of feature_attention, eight elements at a time.

@group(0) @binding(7) var<storage, read_write> out: array<vec4<u32>>;

fn state_four(text: u32, at: u32) -> vec4<f32> {
    return vec4(
        state_at(text, at),
        state_at(text, at + 1u),
        state_at(text, at + 2u),
        state_at(text, at + 3u),
    );
}

fn store_chunk(at: u32, chunk: Chunk) {
    if (OUT == F32) {
        out[at >> 2u] = bitcast<vec4<u32>>(chunk.low);
        out[(at >> 2u) + 1u] = bitcast<vec4<u32>>(chunk.high);
    } else {
        out[at >> 3u] = vec4(
            narrow_pair(chunk.low.x, chunk.low.y, OUT),
            narrow_pair(chunk.low.z, chunk.low.w, OUT),
            narrow_pair(chunk.high.x, chunk.high.y, OUT),
            narrow_pair(chunk.high.z, chunk.high.w, OUT),
        );
    }
}

fn scale_text(text: u32, length: u32, thread: u32) {
    let x_text = parameters.x_start + text * parameters.x_text_stride;
    let out_text = parameters.out_start + text * parameters.out_text_stride;
    let chunks = parameters.features / CHUNK;
    for (var item = thread; item < parameters.tokens * chunks; item += THREADS) {
        let token = item / chunks;
        let column = item % chunks * CHUNK;
        var chunk: Chunk;
        if (token < length) {
            chunk = x_chunk(x_text + token * parameters.x_row_stride + column);
            chunk.low *= state_four(text, column);
            chunk.high *= state_four(text, column + 4u);
        }
        store_chunk(out_text + token * parameters.out_row_stride + column, chunk);
    }
}
