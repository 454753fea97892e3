// Gumbel noise that is a function of seed, position, token and purpose.

// What a random number decides; streams of different purposes are independent.
const PURPOSE_TOKEN: u32 = 0u;
const PURPOSE_COIN: u32 = 1u;
const PURPOSE_RESIDUAL: u32 = 2u;

// High and low word of a * b.
fn multiply_wide(a: u32, b: u32) -> vec2<u32> {
    let a_low = a & 0xffffu;
    let a_high = a >> 16u;
    let b_low = b & 0xffffu;
    let b_high = b >> 16u;
    let low = a_low * b_low;
    let middle = a_high * b_low + (low >> 16u);
    let carried = a_low * b_high + (middle & 0xffffu);
    return vec2(a_high * b_high + (middle >> 16u) + (carried >> 16u), a * b);
}

// Philox 4x32-10 (Salmon et al. 2011).
fn philox(start: vec4<u32>, seed: vec2<u32>) -> vec4<u32> {
    var counter = start;
    var key = seed;
    for (var round = 0u; round < 10u; round++) {
        let first = multiply_wide(0xd2511f53u, counter.x);
        let second = multiply_wide(0xcd9e8d57u, counter.z);
        counter = vec4(second.x ^ counter.y ^ key.x, second.y, first.x ^ counter.w ^ key.y, first.y);
        key += vec2(0x9e3779b9u, 0xbb67ae85u);
    }
    return counter;
}

// -ln(-ln(1 - u)) with u = (bits + 1/2) 2^-32 rounded once, no more than 1 - 2^-24; fine-grained where it is large.
fn gumbel(bits: u32) -> f32 {
    let upper = f32(bits >> 8u) * 256.0;
    let lower = f32(bits & 0xffu) + 0.5;
    let u = min((upper + lower) * 2.3283064365386963e-10, 0.99999994039535522);
    // -ln(1 - u): close to 0 the logarithm may be off by 2^-21, so there 2 atanh(u / (2 - u)) by its series.
    var e: f32;
    if (u < 0.5) {
        let z = u / (2.0 - u);
        let s = z * z;
        e = 2.0 * z * (1.0 + s * (1.0 / 3.0 + s * (0.2 + s * (1.0 / 7.0 + s * (1.0 / 9.0 + s * (1.0 / 11.0 + s / 13.0))))));
    } else {
        e = -log(1.0 - u);
    }
    return -log(e);
}
