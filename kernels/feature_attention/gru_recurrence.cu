// gru_recurrence: the steps of a GRU layer, both directions, the whole time loop in one launch
//   r = sigmoid(xr + hr)   z = sigmoid(xz + hz)   n = tanh(xn + r * hn)   h' = (1 - z) n + z h
// with (xr, xz, xn) = gates[b,t,d], as gru_input makes them, and (hr, hz, hn) = W_d h + b_d, the gates' rows one below
// the other; b_d is b_hh. The forward direction runs from token 0 to length - 1, the reverse one from length - 1 to 0.
//
// gates  [B, L, 2, 3h]  f32      W_d  [3h, h], b_d  [3h]  weight dtype W, b_d optional
// initial, last  [2, B, h]  f32, f16 or bf16, optional      out  [B, L, 2h]  f32, f16 or bf16, zeros behind length
//
// gru_recurrence_64, _128: recurrent rows in registers, for h <= 64 and h <= 128
//   grid  (B, 2)   block h * LANES, rounded up to whole warps; LANES = 2 or 4 threads a unit, each with its part of the
//   unit's three rows: 96 weights. K is dealt to the lanes in fours, so that they read neighbouring words of the state.
//   shared  2 * LANES * 32 * 4 bytes: the state, double-buffered: one barrier a step
//   Gates are loaded AHEAD steps before they are needed, since a step is shorter than a trip to L2.
// gru_recurrence_wide: any h whose states fit in shared memory
//   grid  (ceil(B / 4), 2)   block 512 = 16 warps; a warp takes every 16th unit, its lanes K in fours; each step reads
//   all weights from L2 once, for the four rows of the batch that a block has
//   shared  2 * 4 * ceil4(h) * 4 bytes
//
// A sum is over the K of a lane in order, in f32, then over lanes by a fixed xor tree; a row has its own length, and one
// that has ended keeps its state while others of its block go on. Results depend neither on the batch nor on L.
#include "gru_registers.cuh"

template <class W, int LANES> __device__ __forceinline__ void recurrence_in_registers(const GruRecurrenceParams& p) {
    using Rows = RecurrentRows<W, LANES, 8>;
    SHARED_ARRAY(float, states, [2 * Rows::WIDTH]);
    const int row = int(blockIdx.x);
    const int direction = int(blockIdx.y);
    const GruThread own = GruThread::of<LANES>(int(threadIdx.x), p.hidden, 0);
    Rows rows;
    rows.load(direction == 0 ? p.forward : p.reverse, own.unit, own.lane, p.hidden);
    grid_dependency_launch_dependents();
    grid_dependency_wait();

    const GruRow place = gru_row(p, row, direction);
    float state = own.is_unit ? initial_state(p, row, direction, own.unit) : 0.0f;
    for (int i = int(threadIdx.x); i < 2 * Rows::WIDTH; i += int(blockDim.x)) states[i] = 0.0f;
    // The first states go where others may still be clearing.
    __syncthreads();
    state = run_steps(p, rows, place, own, states, state, [](float) {});
    if (own.is_writer) store_last(p, row, direction, own.unit, state);
    clear_padding(p, place);
}

constexpr int WIDE_WARPS = 16;
constexpr int WIDE_ROWS = 4;

// W h of one unit for the rows of a block, in every lane.
template <class W>
__device__ __forceinline__ void multiply_wide(const GruPanel& panel, int unit, int hidden, bool vectorised,
                                              const float* states, int pitch, float (&sum)[GATES][WIDE_ROWS]) {
    const W* from[GATES];
#pragma unroll
    for (int gate = 0; gate < GATES; ++gate) {
        from[gate] = static_cast<const W*>(panel.weight) + (int64_t(gate) * hidden + unit) * panel.row_stride;
    }
    for (int k = int(threadIdx.x) % 32 * 4; k < hidden; k += 32 * 4) {
        float weight[GATES][4];
#pragma unroll
        for (int gate = 0; gate < GATES; ++gate) load_four(from[gate], k, hidden, vectorised, weight[gate]);
#pragma unroll
        for (int row = 0; row < WIDE_ROWS; ++row) {
            const float4 four = *reinterpret_cast<const float4*>(states + row * pitch + k);
#pragma unroll
            for (int gate = 0; gate < GATES; ++gate) {
                sum[gate][row] = fmaf(weight[gate][0], four.x, sum[gate][row]);
                sum[gate][row] = fmaf(weight[gate][1], four.y, sum[gate][row]);
                sum[gate][row] = fmaf(weight[gate][2], four.z, sum[gate][row]);
                sum[gate][row] = fmaf(weight[gate][3], four.w, sum[gate][row]);
            }
        }
    }
#pragma unroll
    for (int gate = 0; gate < GATES; ++gate) {
#pragma unroll
        for (int row = 0; row < WIDE_ROWS; ++row) sum[gate][row] = warp_sum(sum[gate][row]);
    }
}

template <class W> __device__ __forceinline__ void recurrence_wide(const GruRecurrenceParams& p) {
    DYNAMIC_SHARED(memory);
    float* states = reinterpret_cast<float*>(memory); // [2][WIDE_ROWS][pitch]
    const int pitch = (p.hidden + 3) / 4 * 4;
    const int first_row = int(blockIdx.x) * WIDE_ROWS;
    const int rows = min(WIDE_ROWS, p.batch - first_row);
    const int direction = int(blockIdx.y);
    const GruPanel& panel = direction == 0 ? p.forward : p.reverse;
    grid_dependency_launch_dependents();
    grid_dependency_wait();

    for (int i = int(threadIdx.x); i < 2 * WIDE_ROWS * pitch; i += int(blockDim.x)) {
        const int row = i / pitch;
        const int unit = i % pitch;
        const bool is_state = row < rows && unit < p.hidden;
        states[i] = is_state ? initial_state(p, first_row + row, direction, unit) : 0.0f;
    }
    int steps = 0;
    for (int row = 0; row < rows; ++row) steps = max(steps, row_length(p.lengths, first_row + row, p.steps));
    __syncthreads();

    // In the end, one lane has one row.
    const int lane = int(threadIdx.x) % 32;
    const GruRow own = gru_row(p, first_row + min(lane, rows - 1), direction);
    for (int step = 0; step < steps; ++step) {
        const float* current = states + step % 2 * WIDE_ROWS * pitch;
        float* next = states + (step + 1) % 2 * WIDE_ROWS * pitch;
        const bool is_active = lane < rows && step < own.length;
        for (int unit = int(threadIdx.x) / 32; unit < p.hidden; unit += WIDE_WARPS) {
            float gates[GATES] = {};
            if (is_active) {
                const float* from = own.gates_of(p, step) + unit;
#pragma unroll
                for (int gate = 0; gate < GATES; ++gate) gates[gate] = from[gate * p.hidden];
            }
            float sums[GATES][WIDE_ROWS] = {};
            multiply_wide<W>(panel, unit, p.hidden, p.weight_vectorised, current, pitch, sums);
            if (lane >= rows) continue;
            float state = current[lane * pitch + unit];
            if (is_active) {
                float recurrent[GATES];
#pragma unroll
                for (int gate = 0; gate < GATES; ++gate) {
                    recurrent[gate] = load_or_zero<W>(panel.bias, gate * p.hidden + unit);
#pragma unroll
                    for (int row = 0; row < WIDE_ROWS; ++row) {
                        if (lane == row) recurrent[gate] += sums[gate][row];
                    }
                }
                state = gru_cell(gates, recurrent, state);
                own.store(p, step, unit, state);
            }
            next[lane * pitch + unit] = state;
        }
        __syncthreads();
    }
    const float* last = states + steps % 2 * WIDE_ROWS * pitch;
    for (int row = 0; row < rows; ++row) {
        for (int unit = int(threadIdx.x); unit < p.hidden; unit += int(blockDim.x)) {
            store_last(p, first_row + row, direction, unit, last[row * pitch + unit]);
        }
        clear_padding(p, gru_row(p, first_row + row, direction));
    }
}

#define RECURRENCE_KERNEL(NAME, THREADS, BLOCKS, BODY)                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                                     \
        NAME(const __grid_constant__ GruRecurrenceParams p) {                                                         \
        BODY(p);                                                                                                      \
    }                                                                                                                 \
    SIMULATED_KERNEL(NAME)
#define RECURRENCE_KERNELS(W)                                                                                         \
    RECURRENCE_KERNEL(gru_recurrence_64_##W, 128, 4, (recurrence_in_registers<W, 2>))                                 \
    RECURRENCE_KERNEL(gru_recurrence_128_##W, 512, 1, (recurrence_in_registers<W, 4>))                                \
    RECURRENCE_KERNEL(gru_recurrence_wide_##W, WIDE_WARPS * 32, 1, recurrence_wide<W>)

RECURRENCE_KERNELS(f32)
RECURRENCE_KERNELS(f16)
RECURRENCE_KERNELS(bf16)
