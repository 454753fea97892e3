// What gate_up_tile multiplies the weights with: n if there is a norm, x otherwise.
fn activation_at(at: u32) -> f32 {
    if (NORM) {
        return n_at(at);
    }
    return x_at(at);
}
