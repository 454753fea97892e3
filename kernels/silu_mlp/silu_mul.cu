// silu_mul:  out[m,f] = silu(gate[m,f]) * up[m,f]
//
// gate, up, out  [M, F]  one dtype, any row strides >= F: gate and up may be the halves of one [M, 2F] tensor
//
// grid  (ceil(F / (256 * C)), min(M, 65535))   block 256; C = elements in 16 bytes; a block strides over the rows
// shared  none
// One thread moves 16 bytes of each tensor: 6 bytes of traffic an element in f16 and bf16, no reuse, hence no staging.
// f32 arithmetic, one rounding to the storage type.
#include "device.cuh"
#include "numeric.cuh"
#include "params.cuh"

constexpr int SILU_MUL_THREADS = 256;

// Consecutive threads take consecutive elements, so that even an unaligned row is read in whole sectors.
template <class T>
__device__ __forceinline__ void silu_mul_elements(const T* gate, const T* up, T* out, int64_t first, int64_t step,
                                                  int64_t columns) {
#pragma unroll
    for (int i = 0; i < CHUNK<T>; ++i) {
        const int64_t column = first + i * step;
        if (column < columns) out[column] = from_float<T>(silu(to_float(gate[column])) * to_float(up[column]));
    }
}

template <class T> __device__ __forceinline__ void silu_mul_chunk(const T* gate, const T* up, T* out) {
    float gate_value[CHUNK<T>];
    float up_value[CHUNK<T>];
    Chunk<T>::unpack(load_streaming16(gate), gate_value);
    Chunk<T>::unpack(load_streaming16(up), up_value);
#pragma unroll
    for (int i = 0; i < CHUNK<T>; ++i) gate_value[i] = silu(gate_value[i]) * up_value[i];
    store16(out, Chunk<T>::pack(gate_value));
}

template <class T> __device__ __forceinline__ void silu_mul(const SiluMulParams& p) {
    const int64_t block_column = int64_t(blockIdx.x) * SILU_MUL_THREADS * CHUNK<T>;
    const int64_t column = block_column + int64_t(threadIdx.x) * CHUNK<T>;
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    for (int64_t row = blockIdx.y; row < p.rows; row += gridDim.y) {
        const T* gate = static_cast<const T*>(p.gate) + row * p.gate_row_stride;
        const T* up = static_cast<const T*>(p.up) + row * p.up_row_stride;
        T* out = static_cast<T*>(p.out) + row * p.out_row_stride;
        if (!p.vectorised) {
            silu_mul_elements(gate, up, out, block_column + int64_t(threadIdx.x), SILU_MUL_THREADS, p.columns);
        } else if (column + CHUNK<T> <= p.columns) {
            silu_mul_chunk(gate + column, up + column, out + column);
        } else {
            silu_mul_elements(gate, up, out, column, 1, p.columns);
        }
    }
}

#define SILU_MUL_KERNEL(T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(SILU_MUL_THREADS)                                                    \
        silu_mul_##T(const __grid_constant__ SiluMulParams p) {                                                       \
        silu_mul<T>(p);                                                                                               \
    }                                                                                                                 \
    SIMULATED_KERNEL(silu_mul_##T)


SILU_MUL_KERNEL(f32)
SILU_MUL_KERNEL(f16)
SILU_MUL_KERNEL(bf16)
