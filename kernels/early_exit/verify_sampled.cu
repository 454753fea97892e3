// verify_sampled: how much of each draft a sampling target accepts, and the token behind it.
//
// target  [N + B, V] logits or probabilities, draft_distribution  [N, V] or null; f32, f16 or bf16, any start and stride
// draft  [N] i32     offsets  [B + 1] u32     uniforms  [N + B, 2] f32 or null     any values
// temperature, top_p, min_p  [B] f32     top_k, positions, budget  [B] i32     seeds  [B, 2] u32     stop_ids  [K] i32
//   each or null; any values
// tokens  [B, S + 1] i32     accepted, emitted, next_token, last_row, finish  [B] i32     each or null
// profiles  [2, B, S + 1] SampledProfile, scratch: of the target's rows, then of the drafts' distributions
// arrivals  [B] u32, scratch: 0 before the launch, by a memset ahead of it on the stream
//
// grid  (B * (S + 1)), twice that with a draft_distribution   block 512 = 16 warps; a block a row
// shared  17,024 bytes
// The block that finds every other row of its sequence profiled walks along the draft. Nothing waits for another block,
// so that blocks may run in any order, side by side or not.
//
// Rows are read a fixed number of times, never sorted: twice without filters, once more for each 6 bits of a key and
// filter, once for ties. Thresholds are found from histograms of masses or counts, digit by digit; a lane has its own
// column of each, so that a warp's additions do not meet. A mass is an integer, so the order of additions does not matter.
#include "sampled_weight.cuh"

constexpr int DIGIT_BITS = 6;
constexpr uint32_t DIGITS = 1u << DIGIT_BITS;

struct RowShared {
    uint32_t* low;  // DIGITS * 32
    uint32_t* high;
    uint64_t* bins;  // DIGITS
    uint64_t* scratch;  // SAMPLED_WARPS
};

// Masses, or counts, of the domain's keys that begin like `prefix`, by their next digit.
template <class T>
__device__ __forceinline__ void fill_bins(const SampledRow<T>& row, const Boundary& domain, bool counts, uint32_t prefix,
                                          int left, int width, const RowShared& shared) {
    const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32), shift = left - width;
    // The last call's readers may still be at work.
    __syncthreads();
    for (uint32_t at = threadIdx.x; at < DIGITS * 32; at += SAMPLED_THREADS) {
        shared.low[at] = 0;
        shared.high[at] = 0;
    }
    __syncthreads();
    row.each([&](uint32_t id, T element) {
        const uint32_t key = score_key(element);
        if (uint64_t(key) >> left != prefix || !domain.holds(key, id)) return;
        const uint32_t amount = counts ? 1 : row.mass(element);
        if (amount == 0) return;
        const uint32_t at = (key >> shift & ((1u << width) - 1u)) * 32 + uint32_t(lane);
        const uint32_t before = atomicAdd(&shared.low[at], amount);
        if (before + amount < before) atomicAdd(&shared.high[at], 1u);
    });
    __syncthreads();
    for (int digit = warp; digit < int(DIGITS); digit += SAMPLED_WARPS) {
        const int at = digit * 32 + lane;
        const uint64_t sum = warp_sum_wide(uint64_t(shared.high[at]) << 32 | shared.low[at]);
        if (lane == 0) shared.bins[digit] = sum;
    }
    __syncthreads();
}

// The shortest beginning of the domain, by descending keys and then by ids, that counts for `part`: so many ids, or this
// share of 2^-32 of the domain's mass. All threads call it and get the same.
template <class T>
__device__ __forceinline__ Boundary search(const SampledRow<T>& row, const Boundary& domain, bool counts, uint32_t part,
                                           const RowShared& shared) {
    uint32_t prefix = 0;
    uint64_t wanted = part;
    bool is_whole = false;
    for (int left = KEY_BITS<T>; left > 0;) {
        const int width = left < DIGIT_BITS ? left : DIGIT_BITS;
        fill_bins(row, domain, counts, prefix, left, width, shared);
        if (left == KEY_BITS<T> && !counts) {
            uint64_t total = 0;
            for (uint32_t digit = 0; digit < DIGITS; ++digit) total += shared.bins[digit];
            bool has_rest;
            wanted = scale_wide(total, part, has_rest);
            if (has_rest || wanted == 0) ++wanted;
        }
        uint32_t digit = (1u << width) - 1u;
        while (digit > 0 && shared.bins[digit] < wanted) wanted -= shared.bins[digit--];
        is_whole = shared.bins[digit] == wanted;
        prefix = prefix << width | digit;
        left -= width;
    }
    if (is_whole) return Boundary{prefix, prefix == domain.threshold ? domain.cut : EVERYBODY};
    const uint32_t last = locate(row, wanted - 1, false, shared.scratch, [&](uint32_t id, T element) {
        const uint32_t key = score_key(element);
        return key != prefix || !domain.holds(key, id) ? 0u : counts ? 1u : row.mass(element);
    });
    return Boundary{prefix, last + 1};
}

// The extremes of a row's keys; NaN has the least of all.
struct Extremes {
    uint32_t least;
    uint32_t most;
    uint32_t best;  // lowest id of the largest
};

template <class T> __device__ __forceinline__ Extremes extremes_of(const SampledRow<T>& row, uint32_t* scratch) {
    uint32_t least = EVERYBODY, most = 0, best = EVERYBODY;
    row.each([&](uint32_t id, T element) {
        const uint32_t key = score_key(element);
        least = key < least ? key : least;
        // Ids ascend, so of equal ones the lowest stays.
        if (key > most || best == EVERYBODY) {
            most = key;
            best = id;
        }
    });
    Extremes extremes;
    extremes.least = block_min<SAMPLED_WARPS>(least, scratch);
    extremes.most = ~block_min<SAMPLED_WARPS>(~most, scratch);
    extremes.best = block_min<SAMPLED_WARPS>(most == extremes.most ? best : EVERYBODY, scratch);
    return extremes;
}

// The id of the largest logit / temperature + noise among those that are kept.
template <class T>
__device__ __forceinline__ int32_t sample(const SampledRow<T>& row, const Asked& asked, uint32_t position,
                                          uint64_t* scratch) {
    const float inverse = 1.0f / row.temperature;
    uint64_t best = 0;
    for (uint32_t quad = threadIdx.x; 4 * uint64_t(quad) < row.valid; quad += SAMPLED_THREADS) {
        const Philox noise = philox(position, quad, PURPOSE_TOKEN, 0, asked.seed_low, asked.seed_high);
#pragma unroll
        for (uint32_t word = 0; word < 4; ++word) {
            const uint32_t id = 4 * quad + word;
            if (id >= row.valid) break;
            const T element = row.data[id];
            if (!row.boundary.holds(score_key(element), id)) continue;
            if (row.least > 0 && row.mass(element) < row.least) continue;
            const float score = fmaf(to_float(element), inverse, gumbel(noise.word[word]));
            // Larger scores first, of equal ones the lower id.
            const uint64_t ranked = uint64_t(score_key(score)) << 32 | uint32_t(~id);
            best = ranked > best ? ranked : best;
        }
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        const uint64_t other = __shfl_xor_sync(FULL_WARP, best, offset);
        best = other > best ? other : best;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = best;
    __syncthreads();
    for (int warp = 0; warp < SAMPLED_WARPS; ++warp) best = scratch[warp] > best ? scratch[warp] : best;
    return int32_t(~uint32_t(best));
}

template <class T>
__device__ __forceinline__ void filter(SampledRow<T>& row, const VerifySampledParams& p, const Asked& asked,
                                       uint32_t best, const RowShared& shared) {
    const Boundary everything = row.boundary;
    if (asked.top_k > 0 && asked.top_k < row.valid) {
        row.boundary = search(row, everything, true, asked.top_k, shared);
    }
    if (asked.top_p > 0) {
        const Boundary domain = p.is_sequential != 0 ? row.boundary : everything;
        const Boundary nucleus = search(row, domain, false, asked.top_p, shared);
        if (nucleus.is_stricter(row.boundary)) row.boundary = nucleus;
    }
    row.least = uint32_t(ceilf(asked.min_p * float(row.mass(row.data[best]))));
}

// What becomes of one row. All threads call it, those that return get the same.
template <class T>
__device__ __forceinline__ SampledProfile profile_of(const VerifySampledParams& p, SampledRow<T>& row, bool is_draft,
                                                     const Asked& asked, uint32_t position, int32_t drafted,
                                                     const RowShared& shared) {
    SampledProfile profile{};
    profile.token = -1;
    const Extremes extremes = extremes_of(row, reinterpret_cast<uint32_t*>(shared.scratch));
    const uint32_t infinity = score_key(from_float<T>(__uint_as_float(0x7f800000u)));
    const uint32_t lowest = score_key(from_float<T>(row.is_logits ? __uint_as_float(0xff800000u) : 0.0f));
    const bool is_clean = is_draft || (extremes.least > 0 && (row.is_logits || extremes.least >= lowest));
    if (!is_clean || extremes.most <= lowest || extremes.most >= infinity) return profile;
    row.max = to_float(row.data[extremes.best]);
    const auto kept = [&](uint32_t id, T element) { return row.kept_mass(element, id); };
    if (!row.is_logits) {
        const float sum = float(total_of(row, shared.scratch, kept)) / (row.scale() * MASS_UNIT);
        if (!(fabsf(sum - 1.0f) <= p.sum_tolerance)) return profile;
    }
    // Final are the probabilities that were drafted from.
    if (row.is_logits || !is_draft) filter(row, p, asked, extremes.best, shared);
    profile.total = total_of(row, shared.scratch, kept);
    profile.threshold = row.boundary.threshold;
    profile.cut = row.boundary.cut;
    profile.least = row.least;
    if (drafted >= 0 && uint32_t(drafted) < row.valid) {
        profile.drafted = row.kept_mass(row.data[drafted], uint32_t(drafted));
    }
    profile.max = row.max;
    profile.token = int32_t(extremes.best);
    if (p.mode == MODE_MATCH) profile.token = sample(row, asked, position, shared.scratch);
    return profile;
}

template <class T>
__device__ __forceinline__ SampledRow<T> row_at(const VerifySampledParams& p, const Asked& asked, bool is_draft,
                                                int64_t index) {
    const T* data = is_draft ? static_cast<const T*>(p.draft_distribution) + index * p.draft_row_stride
                             : static_cast<const T*>(p.target) + index * p.target_row_stride;
    const bool vectorised = (is_draft ? p.draft_vectorised : p.target_vectorised) != 0;
    return SampledRow<T>{data, uint32_t(p.valid), vectorised, p.is_logits != 0, asked.temperature, 0.0f,
                         Boundary{0, EVERYBODY}, 0};
}

// Leaves the profile of row i, of the target or of the drafts' distributions.
template <class T>
__device__ __forceinline__ void store_profile(const VerifySampledParams& p, const Sequence& sequence,
                                              const Asked& asked, bool is_draft, int32_t i, const RowShared& shared) {
    const int64_t at = is_draft ? sequence.first + i : sequence.first_row + i;
    SampledRow<T> row = row_at<T>(p, asked, is_draft, at);
    const int32_t drafted =
        i < sequence.drafts ? static_cast<const int32_t*>(p.batch.draft)[sequence.first + i] : -1;
    const SampledProfile profile =
        profile_of(p, row, is_draft, asked, asked.position + uint32_t(i), drafted, shared);
    if (threadIdx.x == 0) static_cast<SampledProfile*>(p.profiles)[blockIdx.x] = profile;
}

// Whether this block is the last of `blocks` to arrive; it then sees what thread 0 of each of them wrote before.
// All threads call it and get the same.
__device__ __forceinline__ bool arrives_last(uint32_t* arrivals, uint32_t blocks) {
    bool is_last = false;
    if (threadIdx.x == 0) {
        // The profile, which this thread wrote, must be seen by whoever sees the arrival.
        __threadfence();
        is_last = atomicAdd(arrivals, 1u) == blocks - 1;
        // No profile may be read from before the arrivals; the barrier below passes that on to the other threads.
        __threadfence();
    }
    return __syncthreads_or(is_last) != 0;
}

// A sequence on its way along its draft.
template <class T> struct SampledWalk {
    const VerifySampledParams& p;
    const Sequence& sequence;
    const Asked& asked;
    int32_t index;
    uint64_t* scratch;

    __device__ __forceinline__ SampledProfile profile(bool is_draft, int32_t i) const {
        const int64_t columns = int64_t(p.batch.max_draft) + 1;
        const int64_t slot = (int64_t(is_draft ? p.batch.sequences : 0) + index) * columns + i;
        return static_cast<const SampledProfile*>(p.profiles)[slot];
    }
    __device__ __forceinline__ SampledRow<T> row(bool is_draft, int32_t i) const {
        const SampledProfile known = profile(is_draft, i);
        SampledRow<T> row = row_at<T>(p, asked, is_draft, (is_draft ? sequence.first : sequence.first_row) + i);
        row.max = known.max;
        row.boundary = Boundary{known.threshold, known.cut};
        row.least = known.least;
        return row;
    }
    __device__ __forceinline__ int32_t draft(int32_t i) const {
        return static_cast<const int32_t*>(p.batch.draft)[sequence.first + i];
    }
    __device__ __forceinline__ bool has_q() const { return p.mode >= MODE_FULL; }
    __device__ __forceinline__ bool is_judged(int32_t i) const {
        return profile(false, i).total > 0 && (!has_q() || profile(true, i).total > 0);
    }

    // In units of 2^-32; what is not in [0, 1) counts as 0.
    __device__ __forceinline__ uint32_t bits(int32_t i, uint32_t purpose) const {
        if (p.uniforms != nullptr) {
            const float* row = static_cast<const float*>(p.uniforms) + (sequence.first_row + i) * p.uniforms_row_stride;
            const float value = row[purpose == PURPOSE_RESIDUAL ? 1 : 0];
            return value >= 0.0f && value < 1.0f ? uint32_t(value * 4294967296.0f) : 0;
        }
        return philox(asked.position + uint32_t(i), 0, purpose, 0, asked.seed_low, asked.seed_high).word[0];
    }
    // Rounding must not make it 1.
    __device__ __forceinline__ float coin(int32_t i) const {
        return fminf(float(bits(i, PURPOSE_COIN)) * 2.3283064365386963e-10f, 0.99999994039535522f);
    }

    __device__ __forceinline__ Walk matched() const {
        for (int32_t i = 0;; ++i) {
            const SampledProfile known = profile(false, i);
            const int32_t token = known.total > 0 ? known.token : -1;
            if (i == sequence.drafts || token < 0 || token != draft(i)) return Walk{i, token};
        }
    }

    // What one draft after the other is accepted of. Quotients of masses are compared as products.
    __device__ __forceinline__ Walk one_by_one() const {
        for (int32_t i = 0; i < sequence.drafts; ++i) {
            if (!is_judged(i)) return Walk{i, -1};
            const SampledProfile p_of = profile(false, i), q_of = has_q() ? profile(true, i) : SampledProfile{};
            const float q_drafted = has_q() ? float(q_of.drafted) : 1.0f, q_total = has_q() ? float(q_of.total) : 1.0f;
            if (!(coin(i) * q_drafted * float(p_of.total) < float(p_of.drafted) * q_total)) {
                return Walk{i, residual(i, 1.0f)};
            }
        }
        return Walk{sequence.drafts, bonus()};
    }

    // p_i of block verification: min(1, p_{i-1} p(x) / q(x)), from 1 on.
    __device__ __forceinline__ float ratio_of(int32_t count) const {
        float ratio = 1.0f;
        for (int32_t i = 0; i < count; ++i) {
            const SampledProfile p_of = profile(false, i), q_of = profile(true, i);
            const float above = ratio * float(p_of.drafted) * float(q_of.total);
            const float below = float(q_of.drafted) * float(p_of.total);
            ratio = above == 0.0f ? 0.0f : above >= below ? 1.0f : above / below;
        }
        return ratio;
    }

    // The largest i with u < h_i, h_i = e / (e + 1 - p_i) with e = sum relu(p_i p - q), the last one p_i.
    __device__ __forceinline__ Walk block() const {
        int32_t judged = 0;
        while (judged < sequence.drafts && is_judged(judged)) ++judged;
        for (int32_t i = judged;; --i) {
            const float ratio = ratio_of(i);
            bool is_accepted = i == 0;
            if (!is_accepted && i == judged) {
                is_accepted = coin(i - 1) < ratio;
            } else if (!is_accepted) {
                const uint64_t mass = excess_mass(i, ratio);
                const float excess = float(mass) / float(profile(false, i).total);
                const float all = excess + (1.0f - ratio);
                is_accepted = all == 0.0f || coin(i - 1) * all < excess;
            }
            if (!is_accepted) continue;
            if (i == sequence.drafts) return Walk{i, bonus()};
            return Walk{i, i == judged ? -1 : residual(i, ratio)};
        }
    }

    // relu(ratio p - q) of an id, in units of p's mass.
    struct Excess {
        SampledRow<T> p_row;
        SampledRow<T> q_row;
        float ratio;
        float unit;

        __device__ __forceinline__ uint32_t operator()(uint32_t id, T element) const {
            const float p_mass = ratio * float(p_row.kept_mass(element, id));
            const float excess = p_mass - unit * float(q_row.kept_mass(q_row.data[id], id));
            return uint32_t(fmaxf(excess, 0.0f) + 0.5f);
        }
    };
    __device__ __forceinline__ Excess excess_of(int32_t i, float ratio) const {
        const float unit = float(profile(false, i).total) / float(profile(true, i).total);
        return Excess{row(false, i), row(true, i), ratio, unit};
    }
    __device__ __forceinline__ uint64_t excess_mass(int32_t i, float ratio) const {
        const Excess excess = excess_of(i, ratio);
        return total_of(excess.p_row, scratch, excess);
    }

    __device__ __forceinline__ int32_t residual(int32_t i, float ratio) const {
        const uint32_t part = bits(i, PURPOSE_RESIDUAL);
        if (has_q()) {
            const Excess excess = excess_of(i, ratio);
            const uint32_t id = locate(excess.p_row, part, true, scratch, excess);
            if (id != EVERYBODY) return int32_t(id);
        }
        return drawn(i, part, draft(i));
    }
    __device__ __forceinline__ int32_t bonus() const {
        const int32_t i = sequence.drafts;
        return profile(false, i).total > 0 ? drawn(i, bits(i, PURPOSE_RESIDUAL), -1) : -1;
    }
    // A token from p without one id; the likeliest if nothing else is kept.
    __device__ __forceinline__ int32_t drawn(int32_t i, uint32_t part, int32_t without) const {
        const SampledRow<T> p_row = row(false, i);
        const uint32_t id = locate(p_row, part, true, scratch, [&](uint32_t id, T element) {
            return int32_t(id) == without ? 0u : p_row.kept_mass(element, id);
        });
        return id == EVERYBODY ? profile(false, i).token : int32_t(id);
    }
};

template <class T>
__device__ __forceinline__ void walk(const VerifySampledParams& p, int32_t index, const Sequence& sequence,
                                     const Asked& asked, uint64_t* scratch) {
    const SampledWalk<T> way{p, sequence, asked, index, scratch};
    const Walk found = p.mode == MODE_MATCH ? way.matched() : p.mode == MODE_BLOCK ? way.block() : way.one_by_one();
    if (threadIdx.x < 32) end_chain(p.batch, index, sequence, found);
}

template <class T>
__device__ __forceinline__ void verify_sampled(const VerifySampledParams& p, const RowShared& shared) {
    const uint32_t columns = uint32_t(p.batch.max_draft) + 1u, slots = uint32_t(p.batch.sequences) * columns;
    const bool is_draft = blockIdx.x >= slots;
    const uint32_t slot = is_draft ? blockIdx.x - slots : blockIdx.x;
    const int32_t index = int32_t(slot / columns), i = int32_t(slot % columns);
    const Sequence sequence = sequence_at(p.batch, index);
    const Asked asked = asked_of(p, index);
    const bool is_valid = sequence.is_valid && asked.is_valid;
    // Rows that the sequence does not have are not waited for; of an invalid one the first block is left.
    const int32_t drafts = is_valid ? sequence.drafts : 0;
    if (i > drafts || (is_draft && i == drafts)) return;
    if (!is_valid) {
        if (threadIdx.x < 32) write_invalid(p.batch, index);
        return;
    }
    store_profile<T>(p, sequence, asked, is_draft, i, shared);
    const uint32_t rows = uint32_t(drafts) * (p.mode >= MODE_FULL ? 2u : 1u) + 1u;
    if (!arrives_last(static_cast<uint32_t*>(p.arrivals) + index, rows)) return;
    walk<T>(p, index, sequence, asked, shared.scratch);
}

#define SILUETTE_VERIFY_SAMPLED(T)                                                                                    \
    extern "C" __global__ void __launch_bounds__(SAMPLED_THREADS, 1)                                                  \
        verify_sampled_##T(const __grid_constant__ VerifySampledParams p) {                                           \
        SHARED_ARRAY(uint32_t, low, [DIGITS * 32]);                                                                   \
        SHARED_ARRAY(uint32_t, high, [DIGITS * 32]);                                                                  \
        SHARED_ARRAY(uint64_t, bins, [DIGITS]);                                                                       \
        SHARED_ARRAY(uint64_t, scratch, [SAMPLED_WARPS]);                                                             \
        verify_sampled<T>(p, RowShared{low, high, bins, scratch});                                                    \
    }                                                                                                                 \
    SIMULATED_KERNEL(verify_sampled_##T)

SILUETTE_VERIFY_SAMPLED(f32)
SILUETTE_VERIFY_SAMPLED(f16)
SILUETTE_VERIFY_SAMPLED(bf16)
