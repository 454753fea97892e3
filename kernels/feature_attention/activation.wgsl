// The activations of feature attention and of the GRU, in f32, a few units in the last place off at most. Both are
// right at either infinity, and a NaN stays one. The built-in exp may be off by 3 + 2|x| units, tanh may overflow.

// 1 / (1 + exp(-x)). The exponential of -|x| never overflows, and below zero it is the numerator, so that a small
// result is as exact as a large one.
fn sigmoid(x: f32) -> f32 {
    let e = exp_negative(abs(x));
    let result = select(1.0, e, x < 0.0) / (1.0 + e);
    return select(result, x, is_nan(bitcast<u32>(x)));
}

// With t = 1 - exp(-2|x|), which the reduced exponential gives to full precision for a small x too, tanh|x| is
// t / (2 - t).
fn tanh_stable(x: f32) -> f32 {
    let parts = split_exp(2.0 * abs(x));
    let scale = power_of_two(parts.y);
    let t = (1.0 - scale) - parts.x * scale;
    let result = t / (2.0 - t);
    return select(select(result, -result, x < 0.0), x, is_nan(bitcast<u32>(x)));
}
