// exit_head_states: of each tile of 128 ids and each row, the state of  softcap(n W^T + b),
//   n[m,:] = rms_norm(hidden[rows[m],:]), or hidden[rows[m],:];  rows[m] = m if they are absent
//
// hidden [R, D]  activations      norm_weight [D], W [V, D], b [V]  weights' type
// rows, positions, gather_tokens [M]  i32      seeds [M, 2]  u32, optional
// state_values [ceil(V / 128), M, 6 + k]  f32      state_tokens [ceil(V / 128), M, 2 + k]  i32
// logits [M, V]  f32, optional
//
// Binds 11 storage buffers; where a device takes fewer, or barriers are slow, exit_prepare and
// exit_states_prepared do the same.
//
// launch  ceil(M / 8) * ceil(V / 128), groups of 8 rows fastest; a workgroup owns a tile and a group
// workgroup  THREADS invocations, each with 128 / THREADS ids in the product: a row of the weight is read by one of them,
//            eight elements at a time, or one where rows do not start on 16-byte words; then 16 for each row
// workgroup memory  14,880 bytes: the rows' columns pass through 4,096 of them
// A logit is summed by one invocation in the order of the columns, in one pipeline whatever M: a row's results do not
// depend on the others. Sums of a state, and of a row's squares: 8 ids or columns in order, then the 16 parts in order.
// Every workgroup sums its rows' squares anew: 8 rows beside the 128 of the weight.

#variant load = vector scalar

override NORM: bool = true;
override ACTIVATION: u32 = 0u;

#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/chunk_$load.wgsl
#import early_exit/exit_tile.wgsl load=$load
#import shared/tensor_element.wgsl tensor=hidden binding=6 dtype=ACTIVATION access=read
#import shared/tensor_element.wgsl tensor=norm_weight binding=7 dtype=WEIGHT access=read
@group(0) @binding(8) var<storage, read> rows: array<i32>;
@group(0) @binding(9) var<storage, read> positions: array<i32>;
@group(0) @binding(10) var<storage, read> gather_tokens: array<i32>;
@group(0) @binding(11) var<storage, read> seeds: array<u32>;
#import shared/chunk_of_$load.wgsl tensor=hidden
#import shared/chunk_of_$load.wgsl tensor=norm_weight

// 1 / sqrt(mean(x^2) + eps)
var<workgroup> row_scales: array<f32, ROWS>;

// The row of hidden that a row of this launch is, if there is such a one.
fn source_of(row: u32) -> i32 {
    let output = parameters.first_row + row;
    if (parameters.has_selection != 0u) {
        return rows[parameters.selection_start + output];
    }
    return i32(output);
}

fn row_exists(row: u32) -> bool {
    let source = source_of(row);
    return source >= 0 && source < i32(parameters.hidden_rows);
}

fn row_start(row: u32) -> u32 {
    return parameters.rows_start + u32(source_of(row)) * parameters.rows_stride;
}

fn row_position(row: u32) -> u32 {
    return bitcast<u32>(positions[parameters.positions_start + parameters.first_row + row]);
}

fn row_token(row: u32) -> i32 {
    return gather_tokens[parameters.gather_start + parameters.first_row + row];
}

fn row_seed(row: u32) -> vec2<u32> {
    if (parameters.has_seeds == 0u) {
        return vec2(parameters.seed_low, parameters.seed_high);
    }
    let own = parameters.seeds_start + (parameters.first_row + row) * parameters.seeds_stride;
    return vec2(seeds[own], seeds[own + 1u]);
}

// A tile's worth of invocations stride over each row, whatever THREADS is; their sums lie where logits will.
fn sum_squares(first: u32, count: u32, slot: u32) {
    for (var m = 0u; m < count; m++) {
        var sum = 0.0;
        if (row_exists(first + m)) {
            let start = row_start(first + m);
            for (var k = slot * CHUNK; k < parameters.features; k += VOCABULARY_TILE * CHUNK) {
                let x = hidden_chunk(start + k);
                sum += dot_chunk(x, x);
            }
        }
        tile_logits[m * VOCABULARY_TILE + slot] = sum;
    }
}

fn prepare_rows(first: u32, count: u32, thread: u32) {
    if (!NORM) {
        return;
    }
    for (var slot = thread; slot < VOCABULARY_TILE; slot += THREADS) {
        sum_squares(first, count, slot);
    }
    workgroupBarrier();
    for (var item = thread; item < count * PARTS; item += THREADS) {
        var sum = 0.0;
        for (var i = 0u; i < PART; i++) {
            sum += tile_logits[item * PART + i];
        }
        part_sum[item] = sum;
    }
    workgroupBarrier();
    for (var m = thread; m < count; m += THREADS) {
        var sum = 0.0;
        for (var part = 0u; part < PARTS; part++) {
            sum += part_sum[m * PARTS + part];
        }
        row_scales[m] = 1.0 / sqrt(sum / f32(parameters.features) + parameters.eps);
    }
}

fn row_chunk(first: u32, m: u32, k: u32) -> Chunk {
    var x: Chunk;
    if (!row_exists(first + m)) {
        return x;
    }
    x = hidden_chunk(row_start(first + m) + k);
    if (NORM) {
        x = normalised(x, norm_weight_chunk(parameters.norm_start + k), row_scales[m], ACTIVATION);
    }
    return x;
}

// Chunks of columns of the rows, as many as fit: row m from m * width on.
const STAGED: u32 = 1024u / CHUNK;
var<workgroup> staged: array<Chunk, STAGED>;

// Brings `width` chunks of each of `count` rows, from `column` on, into workgroup memory.
fn stage(first: u32, count: u32, column: u32, width: u32, thread: u32) {
    for (var item = thread; item < count * width; item += THREADS) {
        let m = item / width;
        let k = column + item % width * CHUNK;
        if (k < parameters.features) {
            staged[item] = row_chunk(first, m, k);
        }
    }
}

// The sums with the products of staged columns and those of the weight's row `index`, from `column` on.
fn add_staged(
    index: u32,
    count: u32,
    column: u32,
    width: u32,
    sums_before: array<f32, ROWS>,
) -> array<f32, ROWS> {
    var sums = sums_before;
    let row = parameters.weight_start + index * parameters.weight_stride + column;
    let chunks = min((parameters.features - column + CHUNK - 1u) / CHUNK, width);
    for (var c = 0u; c < chunks; c++) {
        let weight = head_weight_chunk(row + c * CHUNK);
        for (var m = 0u; m < count; m++) {
            sums[m] += dot_chunk(weight, staged[m * width + c]);
        }
    }
    return sums;
}

// Sums of the weight's row `index` with `count` rows from `first` on; the whole workgroup calls it.
fn products(index: u32, first: u32, count: u32, thread: u32) -> array<f32, ROWS> {
    var sums: array<f32, ROWS>;
    let width = STAGED / count;
    for (var column = 0u; column < parameters.features; column += width * CHUNK) {
        // The last columns' readers may still be at work.
        workgroupBarrier();
        stage(first, count, column, width, thread);
        workgroupBarrier();
        if (index < parameters.valid) {
            sums = add_staged(index, count, column, width, sums);
        }
    }
    return sums;
}

@compute @workgroup_size(THREADS)
fn exit_states(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let launch = launch_index(workgroup, workgroups);
    if (launch >= parameters.workgroups) {
        return;
    }
    write_states(launch, thread);
}
