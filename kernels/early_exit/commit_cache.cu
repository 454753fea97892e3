// commit_cache: what a verification leaves of a cache.
//   committed_length[b] = length[b] + emitted[b]
//   row length[b] + 1 + i of sequence b = its row length[b] + 1 + path[b, i]   for i < emitted[b] - 1, where there are paths
//   freed_pages[b] = the pages wholly behind the new length, in order, where there are pages
//
// length, emitted  [B]  path  [B, S]  page_table  [B, P]  int32_t
// cache  [G, B, capacity, W], or [G, pages, page_size, W] by page_table; any strides
// committed_length, status, freed_count  [B]      freed_pages  [B, P]  int32_t, -1 behind the last
//
// grid  (ceil(W / (128 * N)) * G, min(B, 65535))   block 128; N = elements in 16 bytes; a block strides over the sequences
// shared  144 bytes
// Every block finds out for itself whether a sequence can be committed; if not, it leaves it as it is. Rows of a path move
// in ascending order, each thread its own columns: path is ascending, so path[i] >= i, and what a thread overwrites at
// step i, row i, no later step reads. No thread reads what another writes, and nothing waits for another block.
// Bits are copied: `_f32` is for all types of 4 bytes, `_f16` for those of 2.
#include "gate_params.cuh"
#include "numeric.cuh"
#include "scan.cuh"

constexpr int COMMIT_WARPS = 4;
constexpr int COMMIT_THREADS = COMMIT_WARPS * 32;

constexpr int32_t STATUS_FINE = 0;
constexpr int32_t STATUS_FULL = 1;
constexpr int32_t STATUS_NO_PAGE = 2;
constexpr int32_t STATUS_MALFORMED = 3;

// What is wrong with a sequence, the worst first.
constexpr uint32_t IS_MALFORMED = 0;
constexpr uint32_t IS_FULL = 1;
constexpr uint32_t HAS_NO_PAGE = 2;
constexpr uint32_t IS_FINE = 3;

__device__ __forceinline__ int32_t status_of(uint32_t worst) {
    if (worst == IS_FINE) return STATUS_FINE;
    if (worst == IS_FULL) return STATUS_FULL;
    return worst == HAS_NO_PAGE ? STATUS_NO_PAGE : STATUS_MALFORMED;
}

struct Sequence {
    int64_t index;
    int64_t length;
    int64_t emitted;
    int64_t moves; // rows of the path that are kept
    const int32_t* path;
    const int32_t* table; // null: no pages

    __device__ __forceinline__ Sequence(const CommitCacheParams& p, int64_t b)
        : index(b), length(static_cast<const int32_t*>(p.length)[b]),
          emitted(static_cast<const int32_t*>(p.emitted)[b]),
          moves(p.path == nullptr || emitted < 1 ? 0 : emitted - 1),
          path(static_cast<const int32_t*>(p.path) + (p.path == nullptr ? 0 : b * p.path_row_stride)),
          table(p.page_table == nullptr
                    ? nullptr
                    : static_cast<const int32_t*>(p.page_table) + b * p.page_table_row_stride) {}

    __device__ __forceinline__ bool has_page(const CommitCacheParams& p, int64_t page) const {
        return table[page] >= 0 && table[page] < p.pages;
    }

    // First element of a position's row, from the start of a group.
    __device__ __forceinline__ int64_t row(const CommitCacheParams& p, int64_t position) const {
        if (table == nullptr) return index * p.cache_block_stride + position * p.cache_row_stride;
        return int64_t(table[position / p.page_size]) * p.cache_block_stride +
               position % p.page_size * p.cache_row_stride;
    }
};

// What is wrong with a sequence, in every thread of the block.
__device__ __forceinline__ uint32_t verdict(const CommitCacheParams& p, const Sequence& s, uint32_t* scratch) {
    uint32_t worst = IS_FINE;
    if (s.length < 0 || s.emitted < 0 || s.moves > p.path_length) {
        worst = IS_MALFORMED;
    } else if (s.length + s.emitted > p.capacity) {
        worst = IS_FULL;
    } else if (s.table != nullptr && s.emitted > 0) {
        const int64_t last = (s.length + s.emitted - 1) / p.page_size;
        for (int64_t page = s.length / p.page_size + threadIdx.x; page <= last; page += COMMIT_THREADS) {
            if (!s.has_page(p, page)) worst = HAS_NO_PAGE;
        }
    }
    for (int64_t i = threadIdx.x; i < s.moves && worst != IS_MALFORMED; i += COMMIT_THREADS) {
        const int64_t node = s.path[i], position = s.length + 1 + node;
        uint32_t found = IS_FINE;
        if (node < 0 || (i > 0 && node <= s.path[i - 1])) {
            found = IS_MALFORMED;
        } else if (position >= p.capacity) {
            found = IS_FULL;
        } else if (s.table != nullptr && !s.has_page(p, position / p.page_size)) {
            found = HAS_NO_PAGE;
        }
        worst = found < worst ? found : worst;
    }
    return block_min<COMMIT_WARPS>(worst, scratch);
}

// Length, status and freed pages of a sequence.
__device__ __forceinline__ void keep_books(const CommitCacheParams& p, const Sequence& s, uint32_t worst,
                                           uint32_t* scratch) {
    const bool is_fine = worst == IS_FINE;
    const int64_t length = is_fine ? s.length + s.emitted : s.length;
    if (threadIdx.x == 0) {
        static_cast<int32_t*>(p.committed_length)[s.index] = int32_t(length);
        static_cast<int32_t*>(p.status)[s.index] = status_of(worst);
    }
    if (s.table == nullptr || (p.freed_pages == nullptr && p.freed_count == nullptr)) return;
    int32_t* freed = static_cast<int32_t*>(p.freed_pages);
    if (freed != nullptr) freed += s.index * p.freed_pages_row_stride;
    uint32_t count = 0;
    if (is_fine) {
        const int64_t behind = (length + p.page_size - 1) / p.page_size;
        for (int64_t first = behind; first < p.table_length; first += COMMIT_THREADS) {
            const int64_t page = first + threadIdx.x;
            const bool is_freed = page < p.table_length && s.has_page(p, page);
            uint32_t total;
            const uint32_t before = block_scan<COMMIT_WARPS>(is_freed ? 1 : 0, scratch, total);
            if (is_freed && freed != nullptr) freed[count + before] = s.table[page];
            count += total;
        }
    }
    if (freed != nullptr) {
        for (int64_t place = count + threadIdx.x; place < p.table_length; place += COMMIT_THREADS) freed[place] = -1;
    }
    if (threadIdx.x == 0 && p.freed_count != nullptr) static_cast<int32_t*>(p.freed_count)[s.index] = int32_t(count);
}

// The rows of a path, this thread's columns of one group.
template <class E> __device__ __forceinline__ void move_path(const CommitCacheParams& p, const Sequence& s) {
    constexpr int N = 16 / int(sizeof(E));
    const int64_t block = blockIdx.x % p.column_blocks;
    E* group = static_cast<E*>(p.cache) + blockIdx.x / p.column_blocks * p.cache_group_stride;
    const int64_t block_first = block * COMMIT_THREADS * N;
    const int64_t first = block_first + int64_t(threadIdx.x) * (p.vectorised ? N : 1);
    const int64_t step = p.vectorised ? 1 : COMMIT_THREADS;
    const bool whole = p.vectorised && first + N <= p.columns;
    for (int64_t i = 0; i < s.moves; ++i) {
        const int64_t node = s.path[i];
        if (node == i) continue;
        const E* from = group + s.row(p, s.length + 1 + node);
        E* to = group + s.row(p, s.length + 1 + i);
        if (whole) {
            store16(to + first, load16(from + first));
            continue;
        }
#pragma unroll
        for (int n = 0; n < N; ++n) {
            const int64_t column = first + n * step;
            if (column < p.columns) to[column] = from[column];
        }
    }
}

template <class E> __device__ __forceinline__ void commit_cache(const CommitCacheParams& p) {
    SHARED_ARRAY(uint32_t, scratch, [COMMIT_WARPS]);
    SHARED_ARRAY(uint32_t, scan_scratch, [COMMIT_WARPS]);
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    for (int64_t b = blockIdx.y; b < p.batch; b += gridDim.y) {
        const Sequence sequence(p, b);
        const uint32_t worst = verdict(p, sequence, scratch);
        if (blockIdx.x == 0) keep_books(p, sequence, worst, scan_scratch);
        if (worst == IS_FINE) move_path<E>(p, sequence);
    }
}

#define COMMIT_CACHE_KERNEL(NAME, E)                                                                                  \
    extern "C" __global__ void __launch_bounds__(COMMIT_THREADS)                                                      \
        NAME(const __grid_constant__ CommitCacheParams p) {                                                           \
        commit_cache<E>(p);                                                                                           \
    }                                                                                                                 \
    SIMULATED_KERNEL(NAME)

COMMIT_CACHE_KERNEL(commit_cache_f32, uint32_t)
COMMIT_CACHE_KERNEL(commit_cache_f16, uint16_t)
