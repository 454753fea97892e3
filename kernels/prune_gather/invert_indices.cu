// invert_indices:  rank[indices[i]] = i, -1 for the other features;  first_invalid = the first i with indices[i] >= n or
// indices[i] <= indices[i - 1], or -1. If there is one, every rank is -1.
//
// indices  [k] u32, any values          rank  [n] i32          first_invalid  [1] i32, or null
//
// grid  (max(ceil(n / 1024), 1))   block 256 = 8 warps; a thread finds 4 features by bisection
// shared  32 bytes
// Every block checks all indices, so that no launch has to wait for another: index sets of a model's features are a few
// kilobytes, which stay in L2. Ranks are gathered, not scattered: wrong indices cannot write anywhere.
#include "reduce.cuh"
#include "selection_params.cuh"

constexpr int INVERT_INDICES_WARPS = 8;
constexpr int INVERT_INDICES_ITEMS = 4;

extern "C" __global__ void __launch_bounds__(INVERT_INDICES_WARPS * 32)
    invert_indices_u32(const __grid_constant__ InvertIndicesParams p) {
    SHARED_ARRAY(uint32_t, scratch, [INVERT_INDICES_WARPS]);
    const uint32_t* indices = static_cast<const uint32_t*>(p.indices);
    const uint32_t selected = uint32_t(p.selected), features = uint32_t(p.features);
    uint32_t invalid = selected;
    for (uint32_t i = threadIdx.x; i < selected && invalid == selected; i += blockDim.x) {
        const uint32_t index = indices[i];
        if (index >= features || (i > 0 && index <= indices[i - 1])) invalid = i;
    }
    invalid = block_min<INVERT_INDICES_WARPS>(invalid, scratch);
    if (blockIdx.x == 0 && threadIdx.x == 0 && p.first_invalid != nullptr) {
        *static_cast<int32_t*>(p.first_invalid) = invalid == selected ? -1 : int32_t(invalid);
    }
    const int64_t first = int64_t(blockIdx.x) * INVERT_INDICES_ITEMS * blockDim.x + threadIdx.x;
    for (int item = 0; item < INVERT_INDICES_ITEMS; ++item) {
        const int64_t feature = first + item * int64_t(blockDim.x);
        if (feature >= p.features) break;
        // How many indices are below the feature.
        uint32_t below = 0, end = invalid == selected ? selected : 0;
        while (below < end) {
            const uint32_t middle = below + (end - below) / 2;
            if (indices[middle] < uint32_t(feature)) {
                below = middle + 1;
            } else {
                end = middle;
            }
        }
        const bool is_member = invalid == selected && below < selected && indices[below] == uint32_t(feature);
        static_cast<int32_t*>(p.rank)[feature] = is_member ? int32_t(below) : -1;
    }
}
SIMULATED_KERNEL(invert_indices_u32)
