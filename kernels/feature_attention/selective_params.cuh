// What the host passes to the kernels of selective_feature_attention; the twins are in
// src/ops/feature_attention/selective_feature_attention/cuda/parameters.rs. Strides are in elements. Fields of 8 bytes
// come first.
#pragma once
#include "gru_params.cuh"

constexpr int MOST_BRANCHES = 8;

// one for each branch
struct SelectPanels {
    GruPanel of[MOST_BRANCHES];
};

// the branches' weights of each text
struct SelectiveWeightsParams {
    SelectPanels select;
    GruPanel squeeze;
    const void* states;  // [B, L, N, d1] f32, dense
    const void* lengths;  // may be null: all texts are `steps` long
    void* squeezed;  // [B, d1 + d2] f32, dense
    void* weights;  // [B, N, d1] f32, dense
    int32_t steps;
    int32_t reduced;
    int32_t squeezed_features;
    int32_t branches;
    int32_t normalised;  // 1: weights add up to 1 over the branches
};

// forward and reverse for each branch
struct BranchPanels {
    GruPanel of[2 * MOST_BRANCHES];
};

// all branches of each text, and their weights
struct SelectiveBranchesParams {
    BranchPanels input_panels;
    BranchPanels recurrent_panels;
    GruInputParams input;  // of one branch: panels, `x` and its strides are not read
    GruRecurrenceParams recurrence;  // of the first branch: panels are not read
    SelectiveWeightsParams selection;
    const void* reduced;  // [B, L, d1] f32, dense
    int32_t chains_states;  // 1: a branch reads `reduced` and starts from the states that the one before it ends with
};

// weights that add up to 1 over the batch
struct SelectiveTotalParams {
    void* weights;
    int64_t elements;
};

// out = (sum_i w_i o_i) W^T + b
struct SelectiveExpandParams {
    GruPanel expand;
    const void* states;  // [B, L, N, d1] f32, dense
    const void* weights;  // [B, N, d1] f32, dense
    const void* lengths;
    void* out;
    int64_t out_batch_stride;
    int64_t out_token_stride;
    int32_t batch;
    int32_t steps;
    int32_t reduced;
    int32_t branches;
    int32_t features;
    int32_t weight_vectorised;  // 1: rows start on 16 bytes
    int32_t out_dtype;
};
