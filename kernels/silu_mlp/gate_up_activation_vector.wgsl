// What gate_up_tile multiplies the weights with: n where something was prepared, x otherwise.
fn activation_four(start: u32, k: u32, end: u32) -> vec4<f32> {
    if (PREPARED) {
        return n_four(start, k, end);
    }
    return x_four(start, k, end);
}
