// The same interface as tensor_vector.wgsl for rows of any length, start and stride.

#import shared/tensor_element.wgsl tensor=$tensor binding=$binding dtype=$dtype access=$access

// Elements k..k+3 of the row that starts at element `start`; zeros from `end` on.
fn $tensor_four(start: u32, k: u32, end: u32) -> vec4<f32> {
    var four = vec4(0.0);
    for (var i = 0u; i < 4u; i++) {
        if (k + i < end) {
            four[i] = $tensor_at(start + k + i);
        }
    }
    return four;
}

// Elements k..k+7 of the row that starts at element `start`; zeros from `end` on.
fn $tensor_eight(start: u32, k: u32, end: u32) -> Eight {
    return Eight($tensor_four(start, k, end), $tensor_four(start, k + 4u, end));
}
