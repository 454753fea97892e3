// The end of the down projection, whichever kernel made the sums.

// Four neighbouring rows j of one token, as far as they are there.
fn write(token: u32, row: u32, sums: vec4<f32>) {
    let count = min(parameters.rows - min(row, parameters.rows), 4u);
    var values = sums;
    for (var i = 0u; i < count; i++) {
        if (parameters.has_residual != 0u) {
            let at = parameters.residual_start + token * parameters.residual_stride;
            values[i] += residual_at(at + row + i);
        }
        if (parameters.has_bias != 0u) {
            values[i] += down_bias_at(parameters.bias_start + row + i);
        }
    }
    let start = parameters.out_start + token * parameters.out_stride + row;
    var i = 0u;
    while (i < count) {
        let pair = out_is_pair(start + i, count - i);
        out_store(start + i, values[i], values[min(i + 1u, 3u)], pair);
        i += select(1u, 2u, pair);
    }
}
