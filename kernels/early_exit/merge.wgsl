// What the two halves of merge_exit_states share: the states of a row.

override THREADS: u32 = 64u;

struct Parameters {
    output_rows: u32,
    tiles: u32,
    top_k: u32,
    // Bits of what is wanted, in the order of the bindings.
    wanted: u32,
    // First element and elements between rows and tiles, from the start of each binding.
    values_start: u32,
    values_row_stride: u32,
    values_tile_stride: u32,
    tokens_start: u32,
    tokens_row_stride: u32,
    tokens_tile_stride: u32,
    // First elements of the outputs, in the order of the bindings.
    out_0_start: u32,
    out_1_start: u32,
    out_2_start: u32,
    out_3_start: u32,
    out_4_start: u32,
    // Elements between rows of the lists.
    top_tokens_stride: u32,
    top_logits_stride: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> state_values: array<u32>;
@group(0) @binding(2) var<storage, read> state_tokens: array<i32>;
#import shared/grid.wgsl
#import early_exit/state.wgsl

fn state_bits(row: u32, tile: u32, column: u32) -> u32 {
    let at = row * parameters.values_row_stride + tile * parameters.values_tile_stride + column;
    return state_values[parameters.values_start + at];
}

fn state_value(row: u32, tile: u32, column: u32) -> f32 {
    return value_of(state_bits(row, tile, column));
}

fn state_token(row: u32, tile: u32, column: u32) -> i32 {
    let at = row * parameters.tokens_row_stride + tile * parameters.tokens_tile_stride + column;
    return state_tokens[parameters.tokens_start + at];
}

fn is_wanted(output: u32) -> bool {
    return (parameters.wanted & (1u << output)) != 0u;
}
