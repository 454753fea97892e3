// MLP for many tokens, first half:
//   gated  h[m,f] = silu(n[m,:] . Wg[f,:] + bg[f]) * (n[m,:] . Wu[f,:] + bu[f])
//   plain  h[m,f] = silu(n[m,:] . Wu[f,:] + bu[f])
// with n = x, or the output of prepare; times mask[f]^2, since a mask multiplies both branches; 0 where there is a threshold
// that |silu(n[m,:] . Wg[f,:] + bg[f])| does not exceed
//
// x  [M, I]  activations, or  n [M, I]  f32        Wg, Wu [F, I]  nn.Linear layout        bg, bu [F]
// mask [F]  f32 or absent
// h  [M, F]  f32, without gaps, rounded to the activation type
//
// launch  ceil(M / tile M) * ceil(F / tile N), tokens fastest, so that neighbours share weights
// workgroup  THREADS_N x THREADS_M invocations, each 4 tokens by 4 neurons of both products; the tile is
//            4 THREADS_M tokens by 4 THREADS_N neurons, DEPTH (a multiple of 4) elements of I at a time
// workgroup memory  DEPTH * (THREADS_M + 2 THREADS_N) * 16 bytes: f32, k outermost, tokens or neurons in fours
// A product is summed over I in order, in f32.

#variant load = vector scalar

override THREADS_M: u32 = 8u;
override THREADS_N: u32 = 8u;
override DEPTH: u32 = 8u;
override GATED: bool = true;
override ACTIVATION: u32 = 0u;
override WEIGHT: u32 = 0u;

#import silu_mlp/gate_up_many.wgsl load=$load

var<workgroup> activation_tile: array<vec4<f32>, DEPTH * THREADS_M>;
var<workgroup> gate_tile: array<vec4<f32>, DEPTH * THREADS_N>;
var<workgroup> up_tile: array<vec4<f32>, DEPTH * THREADS_N>;

#import shared/stage_$load.wgsl tensor=x tile=activation_tile first=0u threads=THREADS_M
#import shared/stage_$load.wgsl tensor=n tile=activation_tile first=0u threads=THREADS_M
#import shared/stage_$load.wgsl tensor=gate_weight tile=gate_tile first=0u threads=THREADS_N
#import shared/stage_$load.wgsl tensor=up_weight tile=up_tile first=0u threads=THREADS_N

@compute @workgroup_size(THREADS_N, THREADS_M)
fn gate_up_tile(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_id) place: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = launch_index(workgroup, workgroups);
    if (index >= parameters.workgroups) {
        return;
    }
    let first_token = index % parameters.token_tiles * (4u * THREADS_M);
    let first_neuron = index / parameters.token_tiles * (4u * THREADS_N);

    var gate0 = vec4(0.0);
    var gate1 = vec4(0.0);
    var gate2 = vec4(0.0);
    var gate3 = vec4(0.0);
    var up0 = vec4(0.0);
    var up1 = vec4(0.0);
    var up2 = vec4(0.0);
    var up3 = vec4(0.0);
    for (var first_k = 0u; first_k < parameters.inputs; first_k += DEPTH) {
        if (parameters.is_prepared != 0u) {
            stage_n(first_token, first_k, parameters.inputs, thread);
        } else {
            stage_x(first_token, first_k, parameters.inputs, thread);
        }
        stage_up_weight(first_neuron, first_k, parameters.inputs, thread);
        if (GATED) {
            stage_gate_weight(first_neuron, first_k, parameters.inputs, thread);
        }
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let n = activation_tile[k * THREADS_M + place.y];
            let up = up_tile[k * THREADS_N + place.x];
            up0 += n.x * up;
            up1 += n.y * up;
            up2 += n.z * up;
            up3 += n.w * up;
            if (GATED) {
                let gate = gate_tile[k * THREADS_N + place.x];
                gate0 += n.x * gate;
                gate1 += n.y * gate;
                gate2 += n.z * gate;
                gate3 += n.w * gate;
            }
        }
        workgroupBarrier();
    }

    let token = first_token + place.y * 4u;
    let neuron = first_neuron + place.x * 4u;
    // One call in a loop of unknown length: four calls would be inlined four times.
    for (var i = 0u; i < min(parameters.tokens - min(token, parameters.tokens), 4u); i++) {
        let gate = select(select(gate0, gate1, i == 1u), select(gate2, gate3, i == 3u), i >= 2u);
        let up = select(select(up0, up1, i == 1u), select(up2, up3, i == 3u), i >= 2u);
        write(token + i, neuron, gate, up);
    }
}
