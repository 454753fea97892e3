// selective_branches: all branches of a text and their weights, from its reduced tokens x'
//   o_i = bigru_i(x_i) with x_0 = x', and x_i = o_{i-1}, or x' if `chains_states`: then o_i starts from the states that
//   o_{i-1} ended with, else from 0; s, z and w as in selective_weights
//
// x'  [B, L, d1]      gates  [B, L, 2, 3h], scratch      states o  [B, L, N, d1], nothing behind length
// squeezed  [B, d1 + d2], scratch      weights w  [B, N, d1]      all f32, dense; d1 = 2h, h <= 64
// W_ih  [3h, d1], W_hh  [3h, h] of each branch and direction, Wz  [d2, d1], Wi  [d1, d2]  weight dtype W, biases optional
//
// grid  (B)   block 512: a block owns a text, from its reduced tokens to its weights
// shared  27,648 bytes: four tiles of gru_input, and the states of both directions, double-buffered
// For each branch, one after the other:
//   gates   tiles of 32 tokens by 64 rows as in gru_input, four at a time by 128 threads each; they read x' or the states
//           that this block has just written, and this block alone reads what they write
//   steps   256 threads a direction, 4 threads a unit, each with its part of the unit's three rows, 48 weights: one
//           barrier a step for both directions; the sum and the maximum of a unit's states stay in registers
// and then the small products, as in selective_weights.
//
// A product is summed over its columns in order, by FMAs, a recurrent sum over the K of a lane in order, then over lanes
// by a fixed xor tree, states over the steps of a direction, branch after branch. All of it depends on the text alone,
// neither on the batch nor on L. No block reads what another one writes: barriers are all the order that there is.
#include "gru_input.cuh"
#include "gru_registers.cuh"
#include "selective_weights.cuh"

constexpr int BRANCH_LANES = 4;
constexpr int BRANCH_CHUNKS = 4;
constexpr int DIRECTION_THREADS = 256;
constexpr int DIRECTION_STATES = 2 * BRANCH_LANES * BRANCH_CHUNKS * 4; // double-buffered
constexpr int BRANCH_THREADS = 2 * DIRECTION_THREADS;
constexpr int BRANCH_TILES = BRANCH_THREADS / INPUT_THREADS;
static_assert(BRANCH_THREADS == SELECT_THREADS, "the block makes the weights too");

// The states of a channel so far.
struct StatePool {
    float sum = 0.0f;
    float largest = -1.0f; // states lie above

    __device__ __forceinline__ void add(float state) {
        sum += state;
        largest = state > largest ? state : largest;
    }
};

// The gates of a text's valid tokens, for all to read behind the next barrier.
template <class W>
__device__ __forceinline__ void branch_gates(const SelectiveBranchesParams& p, int branch, int text) {
    SHARED_ARRAY(float, x_tiles, [BRANCH_TILES * INPUT_DEPTH * INPUT_TOKEN_PITCH]);
    SHARED_ARRAY(float, weight_tiles, [BRANCH_TILES * INPUT_DEPTH * INPUT_ROW_PITCH]);
    const int64_t first_token = int64_t(text) * p.input.steps;
    const int length = row_length(p.input.lengths, text, p.input.steps);
    GruInputParams layer = p.input;
    layer.forward = p.input_panels.of[2 * branch];
    layer.reverse = p.input_panels.of[2 * branch + 1];
    layer.gates = static_cast<float*>(p.input.gates) + first_token * (2 * p.input.outputs);
    if (branch > 0 && !p.chains_states) {
        layer.x_token_stride = p.recurrence.out_token_stride;
        layer.x = static_cast<const float*>(p.recurrence.out) + first_token * layer.x_token_stride +
                  (branch - 1) * layer.features;
    } else {
        layer.x_token_stride = layer.features;
        layer.x = static_cast<const float*>(p.reduced) + first_token * layer.x_token_stride;
    }
    layer.batch = 1;
    layer.steps = length;

    const int group = int(threadIdx.x) / INPUT_THREADS;
    const InputTile tile = {x_tiles + group * (INPUT_DEPTH * INPUT_TOKEN_PITCH),
                            weight_tiles + group * (INPUT_DEPTH * INPUT_ROW_PITCH), int(threadIdx.x) % INPUT_THREADS};
    const int row_tiles = (2 * p.input.outputs + INPUT_ROWS - 1) / INPUT_ROWS;
    const int tiles = ((length - 1) / INPUT_TOKENS + 1) * row_tiles;
    // A group without a tile works on tokens behind the last one, and goes along with the barriers.
    for (int first = 0; first < tiles; first += BRANCH_TILES) {
        const int own = first + group;
        input_tile<float, W>(layer, tile, int64_t(own / row_tiles) * INPUT_TOKENS, own % row_tiles * INPUT_ROWS);
    }
}

// The thread's place among those that compute both directions' states.
__device__ __forceinline__ int branch_direction() { return int(threadIdx.x) / DIRECTION_THREADS; }

__device__ __forceinline__ GruThread branch_thread(int hidden) {
    return GruThread::of<BRANCH_LANES>(int(threadIdx.x) % DIRECTION_THREADS, hidden,
                                       branch_direction() * DIRECTION_STATES);
}

// A branch's steps from `state` on, the thread's unit's; the last state.
template <class W>
__device__ __forceinline__ float branch_steps(const SelectiveBranchesParams& p, int branch, int text, float* states,
                                              float state, StatePool& pool) {
    const int direction = branch_direction();
    GruRecurrenceParams layer = p.recurrence;
    layer.out_dtype = 0; // f32, and the compiler knows
    const GruThread own = branch_thread(layer.hidden);
    RecurrentRows<W, BRANCH_LANES, BRANCH_CHUNKS> rows;
    rows.load(p.recurrent_panels.of[2 * branch + direction], own.unit, own.lane, layer.hidden);
    GruRow place = gru_row(layer, text, direction);
    place.out += branch * p.selection.reduced;
    return run_steps(layer, rows, place, own, states, state, [&](float next) { pool.add(next); });
}

template <class W> __device__ __forceinline__ void selective_branches(const SelectiveBranchesParams& p) {
    SHARED_ARRAY(float, states, [2 * DIRECTION_STATES]);
    const int text = int(blockIdx.x);
    // Behind the last unit they stay zero; the barriers of the first branch's gates come before any other write.
    for (int i = int(threadIdx.x); i < 2 * DIRECTION_STATES; i += BRANCH_THREADS) states[i] = 0.0f;
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    if (row_length(p.selection.lengths, text, p.selection.steps) == 0) {
        clear_weights(p.selection, selected_text(p.selection, text));
        return;
    }
    float state = 0.0f;
    StatePool pool;
    for (int branch = 0; branch < p.selection.branches; ++branch) {
        branch_gates<W>(p, branch, text);
        state = branch_steps<W>(p, branch, text, states, p.chains_states ? state : 0.0f, pool);
    }
    const SelectedText place = selected_text(p.selection, text);
    const int length = row_length(p.selection.lengths, text, p.selection.steps);
    const GruThread own = branch_thread(p.recurrence.hidden);
    if (own.is_writer) {
        const int channel = branch_direction() * p.recurrence.hidden + own.unit;
        place.pooled[channel] = pool.sum / float(int64_t(length) * p.selection.branches) + pool.largest;
    }
    __syncthreads();
    weigh_branches<W>(p.selection, place);
}

#define BRANCHES_KERNEL(W)                                                                                            \
    extern "C" __global__ void __launch_bounds__(BRANCH_THREADS, 1)                                                   \
        selective_branches_##W(const __grid_constant__ SelectiveBranchesParams p) {                                   \
        selective_branches<W>(p);                                                                                     \
    }                                                                                                                 \
    SIMULATED_KERNEL(selective_branches_##W)

BRANCHES_KERNEL(f32)
BRANCHES_KERNEL(f16)
BRANCHES_KERNEL(bf16)
