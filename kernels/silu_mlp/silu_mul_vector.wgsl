// A unit of silu_mul: eight elements.

@group(0) @binding(3) var<storage, read_write> out: array<vec4<u32>>;

fn silu_mul_four(gate: vec4<f32>, up: vec4<f32>) -> vec4<f32> {
    return vec4(
        silu_times(gate.x, up.x),
        silu_times(gate.y, up.y),
        silu_times(gate.z, up.z),
        silu_times(gate.w, up.w),
    );
}

fn write_unit(row: u32, unit: u32) {
    let k = unit * 8u;
    let gate = gate_chunk(parameters.gate_start + row * parameters.gate_stride + k);
    let up = up_chunk(parameters.up_start + row * parameters.up_stride + k);
    let low = silu_mul_four(gate.low, up.low);
    let high = silu_mul_four(gate.high, up.high);
    let at = parameters.out_start + row * parameters.out_stride + k;
    if (OUT == F32) {
        out[at >> 2u] = bitcast<vec4<u32>>(low);
        out[(at >> 2u) + 1u] = bitcast<vec4<u32>>(high);
    } else {
        out[at >> 3u] = vec4(
            narrow_pair(low.x, low.y, OUT),
            narrow_pair(low.z, low.w, OUT),
            narrow_pair(high.x, high.y, OUT),
            narrow_pair(high.z, high.w, OUT),
        );
    }
}
