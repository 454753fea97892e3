// The end of the down projection, whichever kernel made the sums.

fn residual_or_zero(token: u32, feature: u32) -> f32 {
    if (parameters.has_residual == 0u) {
        return 0.0;
    }
    return residual_at(parameters.residual_start + token * parameters.residual_stride + feature);
}

// What goes to `feature` from the sum of row `row` of the weight.
fn finished(token: u32, row: u32, feature: u32, sum: f32) -> f32 {
    var value = sum;
    if (parameters.has_mask != 0u) {
        value *= out_mask[parameters.out_mask_start + row];
    }
    if (parameters.has_residual != 0u) {
        value += residual_or_zero(token, feature);
    }
    if (parameters.has_bias != 0u) {
        value += down_bias_at(parameters.bias_start + row);
    }
    return value;
}

// Four neighbouring rows j of one token, as far as they are there.
fn write(token: u32, row: u32, sums: vec4<f32>) {
    let scatters = parameters.scatters != 0u;
    let count = min(parameters.rows - min(row, parameters.rows), 4u);
    let out_row = parameters.out_start + token * parameters.out_stride;
    var features = vec4(row, row + 1u, row + 2u, row + 3u);
    var values = sums;
    for (var i = 0u; i < count; i++) {
        if (scatters) {
            features[i] = out_indices[parameters.out_indices_start + row + i];
        }
        if (features[i] < parameters.width) {
            values[i] = finished(token, row + i, features[i], sums[i]);
        }
    }
    // One call for both: a store of any type is long.
    var i = 0u;
    while (i < count) {
        let at = out_row + features[i];
        let pair = !scatters && out_is_pair(at, count - i);
        if (features[i] < parameters.width) {
            out_store(at, values[i], values[min(i + 1u, 3u)], pair);
        }
        i += select(1u, 2u, pair);
    }
}

// Copies the residual to the features that `rows` rows of the weight own: those that they write, which are then written
// again, and those before them that no row writes; behind the last row, the rest. Indices ascend, so every feature has
// one owner. By all invocations; a barrier must follow.
fn copy_residual(row: u32, rows: u32, token: u32, tokens: u32, thread: u32, threads: u32) {
    let first = parameters.first_row + row;
    let own = min(rows, parameters.rows - min(row, parameters.rows));
    let behind = parameters.out_indices_start + row;
    var begin = 0u;
    if (first > 0u) {
        begin = min(out_indices[behind - 1u], parameters.width - 1u) + 1u;
    }
    var end = parameters.width;
    if (first + own < parameters.outputs) {
        end = min(out_indices[behind + own - 1u], parameters.width - 1u) + 1u;
    }
    let pairs = (end - min(begin, end) + 1u) / 2u;
    for (var m = token; m < min(token + tokens, parameters.tokens); m++) {
        for (var i = thread; i < pairs; i += threads) {
            let feature = begin + 2u * i;
            let left = end - feature;
            let at = parameters.out_start + m * parameters.out_stride + feature;
            let value = residual_or_zero(m, feature);
            var next = 0.0;
            if (left > 1u) {
                next = residual_or_zero(m, feature + 1u);
            }
            let pair = out_is_pair(at, left);
            for (var j = 0u; j < min(left, 2u); j += select(1u, 2u, pair)) {
                out_store(at + j, select(value, next, j == 1u), next, pair);
            }
        }
    }
}
