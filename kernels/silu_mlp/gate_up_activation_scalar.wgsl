// What gate_up_tile multiplies the weights with: n where something was prepared, x otherwise.
fn activation_at(at: u32) -> f32 {
    if (PREPARED) {
        return n_at(at);
    }
    return x_at(at);
}
