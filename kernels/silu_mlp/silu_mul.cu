// silu_mul:  out[m,f] = silu(gate[m,f]) * up[m,f]
//
// gate, up  [M, F]  one dtype, any row strides >= F: they may be the halves of one [M, 2F] tensor
// out       [M, F]  f32, f16 or bf16
//
// grid  (ceil(F / (256 * C)), min(M, 65535))   block 256; C = elements in 16 bytes; a block strides over the rows
// shared  none
// One thread moves 16 bytes of each tensor: 6 bytes of traffic an element in f16 and bf16, no reuse, hence no staging.
// Another output type than the inputs', or tensors that are not aligned, go element by element.
// f32 arithmetic, one rounding to the output type.
#include "device.cuh"
#include "numeric.cuh"
#include "params.cuh"

constexpr int SILU_MUL_THREADS = 256;

// Consecutive threads take consecutive elements, so that even an unaligned row is read in whole sectors.
template <class T>
__device__ __forceinline__ void silu_mul_elements(const SiluMulParams& p, const T* gate, const T* up, int64_t row,
                                                  int64_t first, int64_t step) {
    // Unrolled further, the three ways to store would spill.
#pragma unroll 1
    for (int i = 0; i < CHUNK<T>; ++i) {
        const int64_t column = first + i * step;
        if (column >= p.columns) continue;
        const float value = silu(to_float(gate[column])) * to_float(up[column]);
        store_as(p.out, row * p.out_row_stride + column, p.out_dtype, value);
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
        if (!p.vectorised) {
            silu_mul_elements(p, gate, up, row, block_column + int64_t(threadIdx.x), SILU_MUL_THREADS);
        } else if (column + CHUNK<T> <= p.columns) {
            T* out = static_cast<T*>(p.out) + row * p.out_row_stride;
            silu_mul_chunk(gate + column, up + column, out + column);
        } else {
            silu_mul_elements(p, gate, up, row, column, 1);
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
