// merge_exit_states, statistics of a row from the states of all tiles:
//   m = max m1;   s = sum exp(m1 - m) s;   t = sum exp(m1 - m) (t + (m1 - m) s)
//   log_sum_exp = m + ln s;   entropy = ln s - t / s
//
// state_values [tiles, M, 6 + k]  f32      state_tokens [tiles, M, 2 + k]  i32
// token [M] i32, max_logit, second_logit, log_sum_exp, entropy [M] f32, each optional
//
// launch  M; a workgroup owns a row
// workgroup  THREADS invocations, each every THREADS-th tile
// workgroup memory  THREADS * 24 bytes
// Sums are in f32, by invocation and then over the invocations in order.

#import early_exit/merge.wgsl
@group(0) @binding(3) var<storage, read_write> token: array<i32>;
@group(0) @binding(4) var<storage, read_write> max_logit: array<u32>;
@group(0) @binding(5) var<storage, read_write> second_logit: array<u32>;
@group(0) @binding(6) var<storage, read_write> log_sum_exp: array<u32>;
@group(0) @binding(7) var<storage, read_write> entropy: array<u32>;

struct Chosen {
    best: Best,
    second: f32,
    // 1: the row has no token.
    fails: u32,
}

var<workgroup> chosen: array<Chosen, THREADS>;
var<workgroup> sums: array<vec2<f32>, THREADS>;

fn take(all: Chosen, largest: f32, id: i32, second: f32) -> Chosen {
    let next = max(all.second, max(second, min(all.best.value, largest)));
    return Chosen(better(all.best, Best(largest, id)), next, all.fails);
}

fn choose(row: u32, thread: u32) -> Chosen {
    var own = Chosen(Best(LOWEST, NOBODY), LOWEST, 0u);
    for (var tile = thread; tile < parameters.tiles; tile += THREADS) {
        let bits = state_bits(row, tile, VALUE_MAX);
        if (is_no_logit(bits)) {
            own.fails = 1u;
        } else {
            let second = state_value(row, tile, VALUE_SECOND);
            own = take(own, value_of(bits), state_token(row, tile, TOKEN_MAX), second);
        }
    }
    return own;
}

fn add_up(row: u32, thread: u32, largest: f32) -> vec2<f32> {
    var sum = 0.0;
    var weighted = 0.0;
    for (var tile = thread; tile < parameters.tiles; tile += THREADS) {
        let tile_largest = state_value(row, tile, VALUE_MAX);
        if (tile_largest > LOWEST) {
            // exp vanishes further below.
            let lower = max(tile_largest - largest, -110.0);
            let factor = exp(lower);
            let tile_sum = state_value(row, tile, VALUE_SUM);
            sum += factor * tile_sum;
            weighted += factor * (state_value(row, tile, VALUE_WEIGHTED) + lower * tile_sum);
        }
    }
    return vec2(sum, weighted);
}

fn write(row: u32, all: Chosen) {
    var sum = vec2(0.0);
    for (var i = 0u; i < THREADS; i++) {
        sum += sums[i];
    }
    var best = all.best;
    var bits = vec4(NOT_A_NUMBER);
    if (all.fails != 0u) {
        best.id = NOBODY;
    } else if (best.id < 0) {
        bits = vec4(MINUS_INFINITY, MINUS_INFINITY, MINUS_INFINITY, NOT_A_NUMBER);
    } else {
        let logarithm = log(sum.x);
        bits = vec4(
            value_bits(best.value),
            value_bits(all.second),
            bitcast<u32>(best.value + logarithm),
            bitcast<u32>(logarithm - sum.y / sum.x),
        );
    }
    if (is_wanted(0u)) {
        token[parameters.out_0_start + row] = best.id;
    }
    if (is_wanted(1u)) {
        max_logit[parameters.out_1_start + row] = bits.x;
    }
    if (is_wanted(2u)) {
        second_logit[parameters.out_2_start + row] = bits.y;
    }
    if (is_wanted(3u)) {
        log_sum_exp[parameters.out_3_start + row] = bits.z;
    }
    if (is_wanted(4u)) {
        entropy[parameters.out_4_start + row] = bits.w;
    }
}

@compute @workgroup_size(THREADS)
fn exit_merge(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = launch_index(workgroup, workgroups);
    if (row >= parameters.output_rows) {
        return;
    }
    chosen[thread] = choose(row, thread);
    workgroupBarrier();
    var all = chosen[0];
    for (var i = 1u; i < THREADS; i++) {
        let other = chosen[i];
        all = take(all, other.best.value, other.best.id, other.second);
        all.fails = max(all.fails, other.fails);
    }
    sums[thread] = add_up(row, thread, all.best.value);
    workgroupBarrier();
    if (thread == 0u) {
        write(row, all);
    }
}
