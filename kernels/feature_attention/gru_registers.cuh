// The steps of a GRU with recurrent weights in registers, for gru_recurrence_64 and _128 and for selective_branches.
#pragma once
#include "gru.cuh"
#include "reduce.cuh"

constexpr int AHEAD = 2; // steps that gates are loaded before they are needed: a step is shorter than a trip to L2

// A lane's part of a unit's three rows: CHUNKS times four columns of each.
template <class W, int LANES, int CHUNKS> struct RecurrentRows {
    static constexpr int WIDTH = LANES * CHUNKS * 4; // the most units
    float weight[GATES][CHUNKS * 4];
    float bias[GATES];

    __device__ __forceinline__ void load(const GruPanel& panel, int unit, int lane, int hidden) {
#pragma unroll
        for (int gate = 0; gate < GATES; ++gate) {
            const int64_t row = gate * hidden + unit;
            const W* from = static_cast<const W*>(panel.weight) + row * panel.row_stride;
            bias[gate] = unit < hidden ? load_or_zero<W>(panel.bias, row) : 0.0f;
#pragma unroll
            for (int i = 0; i < CHUNKS * 4; ++i) {
                const int k = (i / 4 * LANES + lane) * 4 + i % 4;
                weight[gate][i] = unit < hidden && k < hidden ? to_float(from[k]) : 0.0f;
            }
        }
    }

    // W h + b, in every lane; a lane's first word of the state is at `place`.
    __device__ __forceinline__ void multiply(const float* state, int place, float (&sum)[GATES]) const {
        // Two chains of additions a gate: one would be longer than its instructions take.
        float part[GATES][2] = {};
#pragma unroll
        for (int i = 0; i < CHUNKS; ++i) {
            const float4 four = *reinterpret_cast<const float4*>(state + place + i * LANES * 4);
#pragma unroll
            for (int gate = 0; gate < GATES; ++gate) {
                part[gate][0] = fmaf(weight[gate][4 * i], four.x, part[gate][0]);
                part[gate][1] = fmaf(weight[gate][4 * i + 1], four.y, part[gate][1]);
                part[gate][0] = fmaf(weight[gate][4 * i + 2], four.z, part[gate][0]);
                part[gate][1] = fmaf(weight[gate][4 * i + 3], four.w, part[gate][1]);
            }
        }
#pragma unroll
        for (int gate = 0; gate < GATES; ++gate) {
            sum[gate] = part[gate][0] + part[gate][1];
#pragma unroll
            for (int offset = 1; offset < LANES; offset *= 2) {
                sum[gate] += __shfl_xor_sync(FULL_WARP, sum[gate], offset);
            }
            sum[gate] += bias[gate];
        }
    }
};

// One thread of those that compute a row's next states.
struct GruThread {
    int unit;
    int lane;
    int first; // where its row's and direction's state starts in shared memory
    bool is_unit; // else it goes along with the shuffles
    bool is_writer;

    template <int LANES> __device__ __forceinline__ static GruThread of(int thread, int hidden, int first) {
        const int unit = thread / LANES;
        return {unit, thread % LANES, first, unit < hidden, unit < hidden && thread % LANES == 0};
    }
};

// All steps of a row and direction from `state` on, the thread's unit's; the last state. `states` is shared memory, two
// buffers of WIDTH from `own.first` on, zero behind the last unit; the whole block calls, with one length.
// `visit(state)` sees every state of the thread's unit. What was stored is visible to the block in the end.
template <class W, int LANES, int CHUNKS, class Visit>
__device__ __forceinline__ float run_steps(const GruRecurrenceParams& p,
                                           const RecurrentRows<W, LANES, CHUNKS>& rows, const GruRow& place,
                                           const GruThread& own, float* states, float state, const Visit& visit) {
    constexpr int WIDTH = RecurrentRows<W, LANES, CHUNKS>::WIDTH;
    // Offsets of the thread, and constants beside them: a base of its own would cost a register for each constant.
    const int read = own.first + own.lane * 4;
    const int written = own.first + own.unit;
    if (own.is_writer) states[written] = state;
    __syncthreads();

    float ahead[AHEAD][GATES] = {};
    const auto load_gates = [&](int step, float (&gates)[GATES]) {
        if (!own.is_unit || step >= place.length) return;
        const float* from = place.gates_of(p, step) + own.unit;
#pragma unroll
        for (int gate = 0; gate < GATES; ++gate) gates[gate] = from[gate * p.hidden];
    };
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) load_gates(i, ahead[i]);
    for (int first = 0; first < place.length; first += AHEAD) {
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            const int step = first + i;
            if (step >= place.length) break;
            float sum[GATES];
            rows.multiply(states + i % 2 * WIDTH, read, sum);
            state = gru_cell(ahead[i], sum, state);
            load_gates(step + AHEAD, ahead[i]);
            visit(state);
            if (own.is_writer) {
                states[(i + 1) % 2 * WIDTH + written] = state;
                place.store(p, step, own.unit, state);
            }
            __syncthreads();
        }
    }
    return state;
}
static_assert(AHEAD % 2 == 0, "a round of steps ends with the buffer that it began with");
