// Which neurons a threshold selects. WGSL may assume that there is no NaN, so NaN, which is selected, is told by its bits.

fn exceeds(gate: f32, threshold: f32) -> bool {
    let activation = silu_times(gate, 1.0);
    return is_nan(bitcast<u32>(gate)) || is_nan(bitcast<u32>(activation)) || abs(activation) > threshold;
}
