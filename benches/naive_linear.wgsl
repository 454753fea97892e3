// y[m,o] = sum_k x[m,k] * weight[o,k]: an invocation an output, no tiles, no workgroup memory: the yardstick of the
// tile kernels. f32, without gaps.

struct Shape {
    rows: u32,
    inputs: u32,
    outputs: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(8, 8)
fn naive_linear(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= shape.outputs || id.y >= shape.rows) {
        return;
    }
    var sum = 0.0;
    for (var k = 0u; k < shape.inputs; k++) {
        sum += x[id.y * shape.inputs + k] * weight[id.x * shape.inputs + k];
    }
    y[id.y * shape.outputs + id.x] = sum;
}
