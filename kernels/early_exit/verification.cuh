// What verification kernels share: the sequences of a ragged batch, and how a sequence ends. A warp owns a sequence.
#pragma once
#include "device.cuh"
#include "params.cuh"
#include "reduce.cuh"

// Values of `finish`.
constexpr int32_t FINISH_CONTINUE = 0, FINISH_STOP = 1, FINISH_BUDGET = 2, FINISH_INVALID_ROW = 3,
                  FINISH_INVALID_SEQUENCE = 4;

struct Sequence {
    int64_t first;  // of its drafts
    int64_t first_row;
    int32_t drafts;
    bool is_valid;  // what its offsets say lies inside the tensors
};

__device__ __forceinline__ Sequence sequence_at(const VerificationParams& p, int32_t index) {
    const uint32_t* offsets = static_cast<const uint32_t*>(p.offsets);
    const uint32_t begin = offsets[index], end = offsets[index + 1];
    const bool is_valid = begin <= end && end <= uint32_t(p.drafts) && end - begin <= uint32_t(p.max_draft);
    return Sequence{int64_t(begin), int64_t(begin) + index, is_valid ? int32_t(end - begin) : 0, is_valid};
}

// What a walk along a draft found: `accepted` drafts, then token `correction`, or a row without one if that is negative.
struct Walk {
    int32_t accepted;
    int32_t correction;
};

struct End {
    int32_t accepted;
    int32_t emitted;
    int32_t finish;
};

__device__ __forceinline__ bool is_stop_id(const VerificationParams& p, int32_t token) {
    const int32_t* stop_ids = static_cast<const int32_t*>(p.stop_ids);
    for (int32_t i = 0; i < p.stop_count; ++i) {
        if (stop_ids[i] == token) return true;
    }
    return false;
}

// Cuts what the walk found behind the first stop id and where the budget ends; `token(place)` gives the tokens in their
// order. All lanes call it and get the same.
template <class Token>
__device__ __forceinline__ End end_of(const VerificationParams& p, int32_t index, Walk walk, Token token) {
    const int32_t lane = threadIdx.x % 32;
    const int32_t found = walk.accepted + (walk.correction >= 0 ? 1 : 0);
    int32_t until_stop = found + 1;
    for (int32_t base = 0; base < found && until_stop > found; base += 32) {
        const int32_t place = base + lane;
        const uint32_t stops = __ballot_sync(FULL_WARP, place < found && is_stop_id(p, token(place)));
        if (stops != 0) until_stop = base + __ffs(stops);
    }
    int32_t allowed = found + 1;
    if (p.budget != nullptr) {
        const int32_t budget = static_cast<const int32_t*>(p.budget)[index];
        allowed = budget > 0 ? budget : 0;
    }
    End end{0, found, walk.correction >= 0 ? FINISH_CONTINUE : FINISH_INVALID_ROW};
    if (until_stop <= found && until_stop <= allowed) {
        end.emitted = until_stop;
        end.finish = FINISH_STOP;
    } else if (allowed <= found) {
        end.emitted = allowed;
        end.finish = FINISH_BUDGET;
    }
    end.accepted = walk.accepted < end.emitted ? walk.accepted : end.emitted;
    return end;
}

__device__ __forceinline__ void put_integer(void* tensor, int64_t index, int32_t value) {
    if (tensor != nullptr) static_cast<int32_t*>(tensor)[index] = value;
}

// Writes a sequence's results; `last_row` is that of the last token emitted, or -1. All lanes call it.
template <class Token>
__device__ __forceinline__ void write_results(const VerificationParams& p, int32_t index, const End& end,
                                              int64_t last_row, Token token) {
    const int32_t lane = threadIdx.x % 32;
    if (p.tokens != nullptr) {
        int32_t* row = static_cast<int32_t*>(p.tokens) + index * p.tokens_row_stride;
        for (int32_t place = lane; place <= p.max_draft; place += 32) {
            row[place] = place < end.emitted ? token(place) : -1;
        }
    }
    if (lane != 0) return;
    const int32_t last = end.emitted - 1;
    put_integer(p.accepted, index, end.accepted);
    put_integer(p.emitted, index, end.emitted);
    put_integer(p.next_token, index, last < 0 ? -1 : token(last));
    put_integer(p.last_row, index, int32_t(last_row));
    put_integer(p.finish, index, end.finish);
}

// The results of a sequence whose offsets or parameters are malformed.
__device__ __forceinline__ void write_invalid(const VerificationParams& p, int32_t index) {
    write_results(p, index, End{0, 0, FINISH_INVALID_SEQUENCE}, -1, [](int32_t) { return int32_t(-1); });
}

// The end of a walk along a chain of drafts: cut and written. All lanes call it.
__device__ __forceinline__ void end_chain(const VerificationParams& p, int32_t index, const Sequence& sequence,
                                          Walk walk) {
    const int32_t* draft = static_cast<const int32_t*>(p.draft) + sequence.first;
    const auto token = [&](int32_t place) { return place < walk.accepted ? draft[place] : walk.correction; };
    const End end = end_of(p, index, walk, token);
    write_results(p, index, end, end.emitted == 0 ? -1 : sequence.first_row + end.emitted - 1, token);
}
