// What the kernels of verify_sampled share: masses of ids, sums over rows, and the search for the id that a sum passes at.
//
// A weight between 0 and 1 is an integer of 31 fraction bits, its mass; sums have 64 bits. They depend neither on the
// order of additions nor on the launch.
#pragma once
#include "numeric.cuh"
#include "params.cuh"
#include "random.cuh"
#include "reduce.cuh"
#include "score_key.cuh"
#include "verification.cuh"

constexpr int SAMPLED_WARPS = 16;
constexpr int SAMPLED_THREADS = SAMPLED_WARPS * 32;
constexpr float MASS_UNIT = 2147483648.0f;
constexpr uint32_t EVERYBODY = 0xffffffffu;

// Values of `mode`.
constexpr int32_t MODE_MATCH = 0, MODE_ONE_HOT = 1, MODE_FULL = 2, MODE_BLOCK = 3;

// What is known of a row before anybody walks. Without a distribution `total` is 0.
struct SampledProfile {
    uint64_t total;  // of what is kept
    uint32_t threshold;
    uint32_t cut;
    uint32_t least;
    uint32_t drafted;
    float max;
    int32_t token;  // the sampled one in mode match, otherwise the likeliest
};

// Keys above the threshold are kept, and its equals of lower ids than the cut.
struct Boundary {
    uint32_t threshold;
    uint32_t cut;

    __device__ __forceinline__ bool holds(uint32_t key, uint32_t id) const {
        return key > threshold || (key == threshold && id < cut);
    }
    __device__ __forceinline__ bool is_stricter(const Boundary& other) const {
        return threshold > other.threshold || (threshold == other.threshold && cut < other.cut);
    }
};

// What a sequence asks for.
struct Asked {
    bool is_valid;
    float temperature;
    uint32_t top_k;  // 0: all
    uint32_t top_p;  // in units of 2^-32, 0: all
    float min_p;
    uint32_t position;
    uint32_t seed_low;
    uint32_t seed_high;
};

__device__ __forceinline__ float optional_float(const void* vector, int32_t index, float otherwise) {
    return vector == nullptr ? otherwise : static_cast<const float*>(vector)[index];
}

__device__ __forceinline__ int32_t optional_integer(const void* vector, int32_t index) {
    return vector == nullptr ? 0 : static_cast<const int32_t*>(vector)[index];
}

__device__ __forceinline__ Asked asked_of(const VerifySampledParams& p, int32_t index) {
    Asked asked{};
    asked.temperature = optional_float(p.temperature, index, 1.0f);
    const int32_t k = optional_integer(p.top_k, index);
    const float share = optional_float(p.top_p, index, 1.0f);
    asked.min_p = optional_float(p.min_p, index, 0.0f);
    asked.is_valid = asked.temperature > 0.0f && asked.temperature <= 3.4028234e38f && k >= 0 && share > 0.0f &&
                     share <= 1.0f && asked.min_p >= 0.0f && asked.min_p < 1.0f;
    asked.top_k = uint32_t(k);
    if (asked.is_valid && share < 1.0f) {
        const uint32_t parts = uint32_t(share * 4294967296.0f + 0.5f);
        asked.top_p = parts > 0 ? parts : 1;
    }
    asked.position = uint32_t(optional_integer(p.positions, index));
    asked.seed_low = uint32_t(p.seed_low);
    asked.seed_high = uint32_t(p.seed_high);
    if (p.seeds != nullptr) {
        const uint32_t* seed = static_cast<const uint32_t*>(p.seeds) + index * p.seeds_row_stride;
        asked.seed_low = seed[0];
        asked.seed_high = seed[1];
    }
    return asked;
}

// Bits of a key.
template <class T> constexpr int KEY_BITS = int(sizeof(T)) * 8;

template <class T> __device__ __forceinline__ T element_of(uint4 words, int place);
template <> __device__ __forceinline__ float element_of<float>(uint4 words, int place) {
    const uint32_t word[4] = {words.x, words.y, words.z, words.w};
    return __uint_as_float(word[place]);
}
template <> __device__ __forceinline__ f16 element_of<f16>(uint4 words, int place) {
    const uint32_t word[4] = {words.x, words.y, words.z, words.w};
    return f16{uint16_t(word[place / 2] >> (place % 2 * 16))};
}
template <> __device__ __forceinline__ bf16 element_of<bf16>(uint4 words, int place) {
    const uint32_t word[4] = {words.x, words.y, words.z, words.w};
    return bf16{uint16_t(word[place / 2] >> (place % 2 * 16))};
}

// A row of logits or probabilities, and what its filters keep.
template <class T> struct SampledRow {
    const T* data;
    uint32_t valid;
    bool vectorised;
    bool is_logits;
    float temperature;
    float max;
    Boundary boundary;
    uint32_t least;

    // The power of two that brings the largest probability between 1/2 and 1, so that none loses digits.
    __device__ __forceinline__ float scale() const {
        uint32_t exponent = __float_as_uint(max) >> 23;
        exponent = exponent < 27 ? 27 : exponent > 127 ? 127 : exponent;
        return __uint_as_float((253 - exponent) << 23);
    }

    // Before the filters; 0 for NaN and negative probabilities.
    __device__ __forceinline__ uint32_t mass(T element) const {
        const float value = to_float(element);
        float weight;
        if (is_logits) {
            const float below = value - max;
            // Divided by the least of temperatures, 0 must stay 0.
            weight = below >= 0.0f ? 1.0f : expf(below / temperature);
        } else {
            weight = value * scale();
        }
        // A comparison that is false for NaN.
        return weight > 0.0f ? uint32_t(fminf(weight * MASS_UNIT + 0.5f, 4294967040.0f)) : 0;
    }

    __device__ __forceinline__ uint32_t kept_mass(T element, uint32_t id) const {
        if (!boundary.holds(score_key(element), id)) return 0;
        const uint32_t own = mass(element);
        return own >= least ? own : 0;
    }

    // Calls see(id, element) for the warp's share, `lane` of `lanes`, of ids begin .. end; begin is a multiple of a chunk.
    template <class See>
    __device__ __forceinline__ void each(uint32_t begin, uint32_t end, uint32_t lane, uint32_t lanes, See see) const {
        constexpr uint32_t WIDTH = CHUNK<T>;
        for (uint32_t first = begin + lane * WIDTH; first < end; first += lanes * WIDTH) {
            const uint4 words = load_chunk(data, int(first), int(end), vectorised);
#pragma unroll
            for (uint32_t place = 0; place < WIDTH; ++place) {
                if (first + place < end) see(first + place, element_of<T>(words, int(place)));
            }
        }
    }

    // The same with the whole block, over the whole row.
    template <class See> __device__ __forceinline__ void each(See see) const {
        each(0, valid, threadIdx.x, SAMPLED_THREADS, see);
    }
};

__device__ __forceinline__ uint64_t warp_sum_wide(uint64_t value) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(FULL_WARP, value, offset);
    return value;
}

// The sum over a block, in every thread; `scratch` holds SAMPLED_WARPS words of shared memory.
__device__ __forceinline__ uint64_t block_sum_wide(uint64_t value, uint64_t* scratch) {
    value = warp_sum_wide(value);
    // The last call's readers may still be at work.
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
    __syncthreads();
    uint64_t sum = 0;
#pragma unroll
    for (int warp = 0; warp < SAMPLED_WARPS; ++warp) sum += scratch[warp];
    return sum;
}

// floor(value * part / 2^32), and whether something is left over.
__device__ __forceinline__ uint64_t scale_wide(uint64_t value, uint32_t part, bool& has_rest) {
    const uint64_t low = uint64_t(uint32_t(value)) * part;
    has_rest = uint32_t(low) != 0;
    return (value >> 32) * part + (low >> 32);
}

// What the row's ids count for.
template <class T, class Measure>
__device__ __forceinline__ uint64_t total_of(const SampledRow<T>& row, uint64_t* scratch, Measure measure) {
    uint64_t sum = 0;
    row.each([&](uint32_t id, T element) { sum += measure(id, element); });
    return block_sum_wide(sum, scratch);
}

// The first id up to which ids count for more than `passed`, or for more than `passed` 2^-32 of everything if `is_share`.
// EVERYBODY if there is none. All threads call it and get the same.
//
// Every warp sums a stretch of ids; the stretch that has the id is cut up again.
template <class T, class Measure>
__device__ __forceinline__ uint32_t locate(const SampledRow<T>& row, uint64_t passed, bool is_share, uint64_t* scratch,
                                           Measure measure) {
    constexpr uint32_t ALIGNED = 8;
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t begin = 0, end = row.valid;
    for (bool is_first = true;; is_first = false) {
        uint32_t stretch = (end - begin - 1) / SAMPLED_WARPS + 1;
        // Longer ones start where chunks do.
        if (stretch > ALIGNED) stretch = (stretch + ALIGNED - 1) / ALIGNED * ALIGNED;
        // In 64 bits: the last warps' stretches may lie behind every number of 32.
        const uint64_t from = uint64_t(begin) + uint64_t(warp) * stretch, to = from + stretch;
        const uint32_t own_begin = from < end ? uint32_t(from) : end, own_end = to < end ? uint32_t(to) : end;
        uint64_t sum = 0;
        if (stretch > ALIGNED) {
            row.each(own_begin, own_end, lane, 32, [&](uint32_t id, T element) { sum += measure(id, element); });
        } else if (own_begin + lane < own_end) {
            sum = measure(own_begin + lane, row.data[own_begin + lane]);
        }
        sum = warp_sum_wide(sum);
        __syncthreads();
        if (lane == 0) scratch[warp] = sum;
        __syncthreads();
        if (is_first && is_share) {
            uint64_t total = 0;
            for (int other = 0; other < SAMPLED_WARPS; ++other) total += scratch[other];
            bool has_rest;
            passed = scale_wide(total, uint32_t(passed), has_rest);
        }
        uint32_t place = 0;
        while (place < SAMPLED_WARPS && passed >= scratch[place]) passed -= scratch[place++];
        if (place == SAMPLED_WARPS) return EVERYBODY;
        const uint64_t next = uint64_t(begin) + uint64_t(place) * stretch;
        begin = uint32_t(next);
        end = next + stretch < end ? uint32_t(next + stretch) : end;
        if (end - begin <= 1) return begin;
    }
}
