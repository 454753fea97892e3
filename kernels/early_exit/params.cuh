// The one argument of every kernel of this family: a struct by value.
//
// Pointers and strides come first, 4-byte fields after them, one field a line: no padding between fields, so the
// `#[repr(C)]` twins on the host agree by construction, and a test compares name, type and order.
//
// Strides are in elements of the tensor they belong to. A null pointer means "absent". A = activation dtype, W = weight
// dtype; ids, rows and positions are int32_t and may hold anything; statistics are f32.
#pragma once
#include "device.cuh"

// n = rms_norm(hidden[rows])
struct ExitPrepareParams {
    const void* hidden;
    const void* norm_weight;
    const void* rows;
    void* prepared;
    int64_t hidden_row_stride;
    int64_t prepared_row_stride;
    int32_t hidden_rows;
    int32_t features;
    int32_t vectorised;
    float norm_epsilon;
};

// the states of softcap(n W^T + b)
struct ExitStatesParams {
    const void* activations;  // hidden, or n if is_prepared
    const void* head_weight;
    const void* head_bias;
    const void* rows;
    const void* positions;
    const void* seeds;  // null: all rows have the seed below
    const void* gather_tokens;
    void* state_values;
    void* state_tokens;
    void* logits;
    int64_t activations_row_stride;
    int64_t weight_row_stride;
    int64_t values_tile_stride;
    int64_t values_row_stride;
    int64_t tokens_tile_stride;
    int64_t tokens_row_stride;
    int64_t logits_row_stride;
    int64_t seeds_row_stride;
    int32_t output_rows;
    int32_t hidden_rows;
    int32_t is_prepared;  // 1: row m of the activations is that of output m, 0: rows[m] is
    int32_t features;
    int32_t vocabulary;  // rows of the weight
    int32_t valid_rows;  // of which those from here on are masked
    int32_t vocab_offset;
    int32_t top_k;
    int32_t row_blocks;  // blocks side by side that share a tile of the vocabulary
    int32_t activations_vectorised;
    int32_t weight_vectorised;
    int32_t seed_low;
    int32_t seed_high;
    float inv_temperature;
    float softcap;  // 0: none
};

#if SILUETTE_HAS_WGMMA

// the same by wgmma: tensor maps of f16 or bf16 with the 128-byte swizzle, boxes of 64 columns x 128 rows and zeros
// outside, and what the other kernels take
struct ExitStatesWgmmaParams {
    TensorMap activations;
    TensorMap head_weight;
    ExitStatesParams other;
};

#endif // SILUETTE_HAS_WGMMA

// results from states
struct ExitMergeParams {
    const void* state_values;
    const void* state_tokens;
    void* token;
    void* max_logit;
    void* second_logit;
    void* log_sum_exp;
    void* entropy;
    void* top_tokens;
    void* top_logits;
    void* gathered_logit;
    void* sampled_token;
    int64_t values_tile_stride;
    int64_t values_row_stride;
    int64_t tokens_tile_stride;
    int64_t tokens_row_stride;
    int64_t top_tokens_row_stride;
    int64_t top_logits_row_stride;
    int32_t tiles;
    int32_t top_k;
};

// a ragged batch of drafts and what becomes of it: part of the structs below
struct VerificationParams {
    const void* draft;
    const void* offsets;
    const void* stop_ids;
    const void* budget;  // null: none
    void* tokens;        // null: not wanted, as each of the outputs
    void* accepted;
    void* emitted;
    void* next_token;
    void* last_row;
    void* finish;
    int64_t tokens_row_stride;
    int32_t sequences;
    int32_t drafts;     // of all sequences
    int32_t max_draft;  // of one
    int32_t stop_count;
};

// the prefix of each draft that equals the target
struct VerifyGreedyParams {
    VerificationParams batch;
    const void* target;
};

// the path of a tree of drafts that the target takes
struct VerifyTreeParams {
    VerificationParams batch;
    const void* first_child;
    const void* next_sibling;
    const void* target;
    void* path;
    int64_t path_row_stride;
};

// how much of each draft a sampling target accepts
struct VerifySampledParams {
    VerificationParams batch;
    const void* target;
    const void* draft_distribution;
    const void* temperature;
    const void* top_k;
    const void* top_p;
    const void* min_p;
    const void* uniforms;
    const void* positions;
    const void* seeds;
    void* profiles;
    void* arrivals;  // of profiles, by sequence
    int64_t target_row_stride;
    int64_t draft_row_stride;  // of draft_distribution
    int64_t uniforms_row_stride;
    int64_t seeds_row_stride;
    int32_t valid;          // ids that are not masked
    int32_t mode;           // 0 match, 1 one_hot, 2 full, 3 block
    int32_t is_logits;      // or probabilities
    int32_t is_sequential;  // whether top-p looks at what top-k has left
    int32_t target_vectorised;
    int32_t draft_vectorised;
    int32_t seed_low;
    int32_t seed_high;
    float sum_tolerance;  // how far off 1 a sum of probabilities may be
};
