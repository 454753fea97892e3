// Sums of 64 bits, low word first, over a workgroup of THREADS invocations: integers, so that their order does not matter.

var<workgroup> wide_sums: array<vec2<u32>, THREADS>;

fn wide_add(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn wide_subtract(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return vec2(a.x - b.x, a.y - b.y - select(0u, 1u, a.x < b.x));
}

fn wide_less(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}

fn wide_is_zero(a: vec2<u32>) -> bool {
    return (a.x | a.y) == 0u;
}

fn wide_to_float(a: vec2<u32>) -> f32 {
    return f32(a.y) * 4294967296.0 + f32(a.x);
}

// a * b / 2^32, and what is left over.
struct Scaled {
    whole: vec2<u32>,
    rest: u32,
}

fn wide_scale(a: vec2<u32>, b: u32) -> Scaled {
    let low = multiply_wide(a.x, b);
    let high = multiply_wide(a.y, b);
    return Scaled(wide_add(vec2(high.y, high.x), vec2(low.x, 0u)), low.y);
}

// The sum of the values of all invocations before this one; wide_total must follow.
fn wide_scan(value: vec2<u32>, thread: u32) -> vec2<u32> {
    wide_sums[thread] = value;
    workgroupBarrier();
    for (var distance = 1u; distance < THREADS; distance *= 2u) {
        var other = vec2(0u);
        if (thread >= distance) {
            other = wide_sums[thread - distance];
        }
        workgroupBarrier();
        wide_sums[thread] = wide_add(wide_sums[thread], other);
        workgroupBarrier();
    }
    return wide_subtract(wide_sums[thread], value);
}

// The sum of all values; apart from wide_scan, since it is alike in all invocations. Its barriers keep the next call from
// overwriting what others still read.
fn wide_total() -> vec2<u32> {
    return workgroupUniformLoad(&wide_sums[THREADS - 1u]);
}
