// out[i] = +0 for the i in indices[0..count]
//
// out      [rows, columns] f32, f16 or bf16, any start and row stride: a part of the whole, whose first element is
//          `first_element`
// indices  [entries] u32, flat; those outside the part are skipped        count  [1] u32, optional: how many of them
//
// launch  ceil(entries / THREADS)

override THREADS: u32 = 128u;
override INPUT: u32 = 0u;
override COUNT: bool = true;

struct Parameters {
    columns: u32,
    elements: u32,
    first_element: u32,
    entries: u32,
    indices_start: u32,
    count_start: u32,
    out_start: u32,
    out_stride: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read> count: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<atomic<u32>>;
#import shared/numeric.wgsl
#import shared/grid.wgsl

@compute @workgroup_size(THREADS)
fn zero_entries(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let entry = launch_index(workgroup, workgroups) * THREADS + thread;
    var entries = parameters.entries;
    if (COUNT) {
        entries = min(entries, count[parameters.count_start]);
    }
    if (entry >= entries) {
        return;
    }
    // Below the part, the difference wraps around to more than any number of elements.
    let index = indices[parameters.indices_start + entry] - parameters.first_element;
    if (index >= parameters.elements) {
        return;
    }
    let row = index / parameters.columns;
    let at = parameters.out_start + row * parameters.out_stride + index % parameters.columns;
    if (INPUT != F32) {
        atomicAnd(&out[at >> 1u], 0xffff0000u >> ((at & 1u) * 16u));
    } else {
        atomicStore(&out[at], 0u);
    }
}
