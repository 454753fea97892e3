// selective_total: w = e / sum of e over all texts, branches and channels, in place
//
// weights  `elements` numbers, f32
//
// launch  1
// workgroup  THREADS invocations; invocation k adds every THREADS-th number from k on, then the first adds their sums
// in order, in f32
// workgroup memory  THREADS * 4 + 4 bytes

override THREADS: u32 = 128u;

struct Parameters {
    elements: u32,
    weights_start: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> weights: array<f32>;

var<workgroup> sums: array<f32, THREADS>;
var<workgroup> total: f32;

@compute @workgroup_size(THREADS)
fn selective_total(@builtin(local_invocation_index) thread: u32) {
    var own = 0.0;
    for (var i = thread; i < parameters.elements; i += THREADS) {
        own += weights[parameters.weights_start + i];
    }
    sums[thread] = own;
    workgroupBarrier();
    if (thread == 0u) {
        var sum = 0.0;
        for (var i = 0u; i < THREADS; i++) {
            sum += sums[i];
        }
        total = sum;
    }
    workgroupBarrier();
    for (var i = thread; i < parameters.elements; i += THREADS) {
        weights[parameters.weights_start + i] /= total;
    }
}
