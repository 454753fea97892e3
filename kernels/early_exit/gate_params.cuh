// The arguments of the kernels between a head and the next layers: who goes on, and what moves with it.
//
// As in params.cuh: pointers and strides first, one field a line; strides are in elements of the tensor they belong to,
// a null pointer means "absent". Counts, permutations and lengths are int32_t and may hold anything.
#pragma once
#include "device.cuh"

// go_on[b] = not exits(b)
struct ExitGateParams {
    const void* max_logit;
    const void* second_logit;
    const void* log_sum_exp;
    const void* entropy;
    const void* classifier;
    const void* hidden;
    const void* previous_hidden;
    void* go_on;
    void* permutation;
    void* go_on_count;
    int64_t hidden_row_stride;
    int64_t previous_row_stride;
    int32_t rows;
    int32_t features;
    int32_t vectorised;  // hidden and previous_hidden
    int32_t criteria;  // see exit_gate.cu
    int32_t require_all;
    int32_t cosine_decided;  // 1: go_on holds what exit_cosine decided
    float log_max_prob;
    float margin;
    float most_entropy;
    float cosine;
    float classifier_score;
};

// to[i] = from[permutation[i]] (compact_rows), or to[permutation[i]] = from[i] (scatter_rows)
struct MoveRowsParams {
    const void* from;
    const void* permutation;
    const void* count;  // null: all that are listed
    void* to;
    int64_t from_row_stride;
    int64_t to_row_stride;
    int64_t listed;  // length of permutation
    int64_t rows;  // of the tensor that permutation points into
    int32_t columns;
    int32_t vectorised;  // from and to
};

// a cache, its lengths and its pages after a verification
struct CommitCacheParams {
    const void* length;
    const void* emitted;
    const void* path;  // null: chains, nothing moves
    const void* page_table;  // null: a sequence's positions lie one behind the other
    void* cache;
    void* committed_length;
    void* status;
    void* freed_pages;
    void* freed_count;
    int64_t path_row_stride;
    int64_t page_table_row_stride;
    int64_t freed_pages_row_stride;
    int64_t cache_group_stride;
    int64_t cache_block_stride;  // between sequences, or between pages
    int64_t cache_row_stride;
    int64_t capacity;
    int64_t pages;  // an entry of page_table is below this
    int32_t batch;
    int32_t path_length;
    int32_t table_length;
    int32_t page_size;  // 1 without pages
    int32_t columns;
    int32_t column_blocks;
    int32_t vectorised;  // cache
};
