// The features that a norm's mean square is over, as NormScope numbers them.

const SCOPE_FULL: u32 = 0u;
const SCOPE_SELECTED: u32 = 1u;
const SCOPE_SELECTED_SUM_OVER_D: u32 = 2u;

// What the sum of squares is divided by.
fn norm_divisor(scope: u32, features: u32, selected: u32) -> f32 {
    return f32(select(features, selected, scope == SCOPE_SELECTED));
}
