// A fixed-input test of every wrapper in device.cuh: each kernel writes what the instruction gave to global memory, so
// that the simulator's answers and a GPU's can be compared word by word. cases.txt has the inputs and the launches.
#include "device.cuh"

// An integer in -8..8 that every storage type holds exactly, different for every position.
template <class T> __device__ __forceinline__ T small_integer(const uint32_t* input, int index) {
    return from_float<T>(float(int(input[index] % 17u) - 8));
}

template <class T> __device__ __forceinline__ uint32_t small_integers(const uint32_t* input, int pair) {
    return uint32_t(small_integer<T>(input, 2 * pair).bits) | uint32_t(small_integer<T>(input, 2 * pair + 1).bits) << 16;
}

// Implementations differ in the payload of a NaN.
__device__ __forceinline__ uint32_t canonical_bits(float value) {
    return value != value ? 0x7fffffffu : __float_as_uint(value);
}

extern "C" __global__ void wrapper_to_float(const uint32_t* input, uint32_t* output) {
    for (int i = threadIdx.x; i < 8192; i += blockDim.x) {
        output[i] = canonical_bits(to_float(f16{uint16_t(input[i])}));
        output[8192 + i] = canonical_bits(to_float(bf16{uint16_t(input[i])}));
    }
}
SIMULATED_KERNEL(wrapper_to_float)

// A quarter of the inputs each: any bits; the middle between two f16; between two bf16; small enough for f16's
// subnormals.
__device__ __forceinline__ float rounding_input(uint32_t word, int index) {
    switch (index % 4) {
    case 0:
        return __uint_as_float(word);
    case 1:
        return __uint_as_float((word & 0xbfffe000u) | 0x1000u);
    case 2:
        return __uint_as_float((word & 0xffff0000u) | 0x8000u);
    default:
        return __uint_as_float((word & 0x87fff800u) | 0x30000000u);
    }
}

extern "C" __global__ void wrapper_from_float(const uint32_t* input, uint32_t* output) {
    for (int i = threadIdx.x; i < 8192; i += blockDim.x) {
        const float value = rounding_input(input[i], i);
        output[i] = from_float<f16>(value).bits;
        output[8192 + i] = from_float<bf16>(value).bits;
    }
}
SIMULATED_KERNEL(wrapper_from_float)

extern "C" __global__ void wrapper_pack2(const uint32_t* input, uint32_t* output) {
    for (int i = threadIdx.x; i < 2048; i += blockDim.x) {
        const float low = rounding_input(input[2 * i], i);
        const float high = rounding_input(input[2 * i + 1], i);
        output[i] = pack2<f16>(low, high);
        output[2048 + i] = pack2<bf16>(low, high);
        const float2 unpacked_f16 = unpack2<f16>(input[i]);
        const float2 unpacked_bf16 = unpack2<bf16>(input[i]);
        output[4096 + i] = canonical_bits(unpacked_f16.x) ^ canonical_bits(unpacked_f16.y) >> 1;
        output[6144 + i] = canonical_bits(unpacked_bf16.x) ^ canonical_bits(unpacked_bf16.y) >> 1;
    }
}
SIMULATED_KERNEL(wrapper_pack2)

extern "C" __global__ void wrapper_vector_memory(const uint32_t* input, uint32_t* output) {
    const int first = threadIdx.x * 4;
    prefetch_l2(input + first + 4096);
    store16(output + first, load16(input + first));
    store16(output + 512 + first, load_streaming16(input + 512 + first));
    const uint4 value = load_streaming16(input + 4096 + first);
    store16(output + 1024 + first, make_uint4(value.w, value.z, value.y, value.x));
    store16(output + 1536 + first, load16(input + 8188 - first));
}
SIMULATED_KERNEL(wrapper_vector_memory)

extern "C" __global__ void wrapper_shuffles(const uint32_t* input, uint32_t* output) {
    const int lane = threadIdx.x;
    const uint32_t value = input[lane];
    const uint32_t all = 0xffffffffu;
    output[lane] = __shfl_sync(all, value, (lane * 7 + 3) % 32);
    output[32 + lane] = __shfl_up_sync(all, value, 5);
    output[64 + lane] = __shfl_down_sync(all, value, 3, 16);
    output[96 + lane] = __shfl_xor_sync(all, value, 17);
    output[128 + lane] = __shfl_sync(all, value, lane % 5, 8);
    output[160 + lane] = __ballot_sync(all, value & 1);
    output[192 + lane] = uint32_t(__any_sync(all, lane == 9)) | uint32_t(__all_sync(all, lane < 31)) << 1;
    output[224 + lane] = lane < 16 ? __shfl_xor_sync(0x0000ffffu, value, 3) : __shfl_xor_sync(0xffff0000u, value, 5);
}
SIMULATED_KERNEL(wrapper_shuffles)

// Warps 0 and 1 exchange halves through barrier 3; warp 2 takes no part.
extern "C" __global__ void wrapper_named_barrier(const uint32_t* input, uint32_t* output) {
    SHARED_ARRAY(uint32_t, tile, [64]);
    if (threadIdx.x >= 64) {
        output[threadIdx.x] = input[threadIdx.x];
        return;
    }
    tile[threadIdx.x] = input[threadIdx.x];
    named_barrier_sync(3, 64);
    output[threadIdx.x] = tile[63 - threadIdx.x];
}
SIMULATED_KERNEL(wrapper_named_barrier)

extern "C" __global__ void wrapper_grid_dependency(const uint32_t* input, uint32_t* output) {
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    output[threadIdx.x] = input[threadIdx.x] + 1u;
}
SIMULATED_KERNEL(wrapper_grid_dependency)

// The matrices' rows lie 80 bytes apart and in a scrambled order, so that every lane's address matters.
__device__ __forceinline__ int scrambled_row(int lane) { return (lane * 11 + 5) % 32; }

__device__ __forceinline__ uint32_t fill_rows(uint16_t (&rows)[32][40], const uint32_t* input) {
    for (int column = 0; column < 8; column++) rows[threadIdx.x][column] = uint16_t(input[threadIdx.x * 8 + column]);
    __syncwarp();
    return smem_address(&rows[scrambled_row(threadIdx.x)][0]);
}

#define LDMATRIX_WRAPPER(name, matrices)                                                                              \
    extern "C" __global__ void wrapper_##name(const uint32_t* input, uint32_t* output) {                              \
        SHARED_ARRAY(uint16_t, rows, [32][40]);                                                                       \
        uint32_t fragment[matrices];                                                                                  \
        name(fragment, fill_rows(rows, input));                                                                       \
        for (int i = 0; i < matrices; i++) output[threadIdx.x * matrices + i] = fragment[i];                          \
    }                                                                                                                 \
    SIMULATED_KERNEL(wrapper_##name)
LDMATRIX_WRAPPER(ldmatrix_x4, 4)
LDMATRIX_WRAPPER(ldmatrix_x4_trans, 4)
LDMATRIX_WRAPPER(ldmatrix_x2, 2)
LDMATRIX_WRAPPER(ldmatrix_x2_trans, 2)

#if SILUETTE_HAS_MMA

// Two groups; copies of the second read nothing, six bytes or all of them, and write zeros behind.
extern "C" __global__ void wrapper_cp_async(const uint32_t* input, uint32_t* output) {
    SHARED_ARRAY(uint32_t, tile, [2][128]);
    const int first = threadIdx.x * 4;
    cp_async16(smem_address(&tile[0][first]), input + first);
    cp_async_commit();
    cp_async16(smem_address(&tile[1][first]), input + 128 + first, threadIdx.x % 3 == 1 ? 6 : int(threadIdx.x % 3) * 8);
    cp_async_commit();
    cp_async_wait<1>();
    __syncwarp();
    for (int i = 0; i < 4; i++) output[first + i] = tile[0][127 - first - i];
    cp_async_wait<0>();
    __syncwarp();
    for (int i = 0; i < 4; i++) output[128 + first + i] = tile[1][127 - first - i];
}
SIMULATED_KERNEL(wrapper_cp_async)

template <class T> __device__ void mma_product(const uint32_t* input, uint32_t* output) {
    uint32_t a[4], b[2];
    float accumulator[4];
    for (int i = 0; i < 4; i++) a[i] = small_integers<T>(input, threadIdx.x * 4 + i);
    for (int i = 0; i < 2; i++) b[i] = small_integers<T>(input + 1024, threadIdx.x * 2 + i);
    for (int i = 0; i < 4; i++) accumulator[i] = float(int(input[2048 + threadIdx.x * 4 + i] % 101u));
    mma_m16n8k16<T>(accumulator, a, b);
    for (int i = 0; i < 4; i++) output[threadIdx.x * 4 + i] = __float_as_uint(accumulator[i]);
}

extern "C" __global__ void wrapper_mma_bf16(const uint32_t* input, uint32_t* output) { mma_product<bf16>(input, output); }
SIMULATED_KERNEL(wrapper_mma_bf16)
extern "C" __global__ void wrapper_mma_f16(const uint32_t* input, uint32_t* output) { mma_product<f16>(input, output); }
SIMULATED_KERNEL(wrapper_mma_f16)

#endif // SILUETTE_HAS_MMA

#if SILUETTE_HAS_WGMMA

// Warps 0..2 hand four rounds of values to warp 3 through a pair of barriers, one for full and one for empty.
extern "C" __global__ void wrapper_mbarrier(const uint32_t* input, uint32_t* output) {
    SHARED_ARRAY(uint32_t, tile, [96]);
    SHARED_ARRAY(uint64_t, barriers, [2]);
    const uint32_t full = smem_address(&barriers[0]);
    const uint32_t empty = smem_address(&barriers[1]);
    if (threadIdx.x == 0) {
        mbarrier_init(full, 96);
        mbarrier_init(empty, 32);
        fence_proxy_async();
    }
    __syncthreads();
    uint32_t sum = 0;
    for (uint32_t round = 0; round < 4; round++) {
        if (threadIdx.x < 96) {
            mbarrier_wait(empty, (round + 1) & 1);
            tile[threadIdx.x] = input[round * 96 + threadIdx.x];
            mbarrier_arrive(full);
        } else {
            mbarrier_wait(full, round & 1);
            const int lane = threadIdx.x - 96;
            sum = sum * 3u + tile[lane] + tile[32 + lane] * 5u + tile[64 + lane] * 7u;
            mbarrier_arrive(empty);
        }
    }
    output[threadIdx.x] = sum;
}
SIMULATED_KERNEL(wrapper_mbarrier)

// Two boxes: one whole, one half outside the tensor. The output is the swizzled shared memory as it lies.
extern "C" __global__ void wrapper_tma_load_2d(const uint32_t*, uint32_t* output,
                                               const __grid_constant__ TensorMap map) {
    DYNAMIC_SHARED(raw);
    SHARED_ARRAY(uint64_t, barrier, [1]);
    const uint32_t* words = reinterpret_cast<const uint32_t*>(raw);
    const uint32_t full = smem_address(barrier);
    if (threadIdx.x == 0) {
        mbarrier_init(full, 1);
        fence_proxy_async();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        tma_prefetch_map(&map);
        mbarrier_arrive_expect_tx(full, 2 * 32 * 128);
        tma_load_2d(smem_address(raw), &map, full, 0, 8);
        tma_load_2d(smem_address(raw) + 32 * 128, &map, full, 16, 48);
    }
    mbarrier_wait(full, 0);
    for (int i = threadIdx.x; i < 2048; i += 128) output[i] = words[i];
}
SIMULATED_KERNEL(wrapper_tma_load_2d)

// Two warpgroups need more registers than they start with, 168; the third gives up its own.
extern "C" __global__ void __launch_bounds__(384, 1) wrapper_setmaxnreg(const uint32_t* input, uint32_t* output) {
    if (threadIdx.x >= 256) {
        give_registers_back<40>();
        output[threadIdx.x] = input[threadIdx.x];
    } else {
        take_registers<232>();
        uint32_t value[200];
#pragma unroll
        for (int i = 0; i < 200; i++) value[i] = input[threadIdx.x + i * 13];
        uint32_t sum = 0;
#pragma unroll
        for (int i = 199; i >= 0; i--) sum = sum * 3u + (value[i] ^ value[199 - i] >> 1);
        output[threadIdx.x] = sum;
    }
}
SIMULATED_KERNEL(wrapper_setmaxnreg)

// A K-major tile of 64 columns in the 128-byte swizzle: 16-byte chunk c of row r lies at chunk c ^ (r % 8).
template <class T> __device__ void fill_swizzled(unsigned char* tile, const uint32_t* input, int rows) {
    for (int i = threadIdx.x; i < rows * 64; i += 128) {
        const int row = i / 64;
        const int column = i % 64;
        const int chunk = column / 8 ^ row % 8;
        reinterpret_cast<T*>(tile + row * 128 + chunk * 16)[column % 8] = small_integer<T>(input, i % 4096);
    }
}

// d = A (64 x 64) * B (N x 64)^T + d0 in four steps along K, the first of which may discard d0.
template <class T, int N> __device__ void wgmma_product(const uint32_t* input, uint32_t* output) {
    DYNAMIC_SHARED(raw);
    unsigned char* b_tile = raw + 64 * 128;
    float d[N / 2];
    for (int i = 0; i < N / 2; i++) d[i] = float(int(input[(threadIdx.x * 64 + i) % 8192] % 101u));
    fill_swizzled<T>(raw, input, 64);
    fill_swizzled<T>(b_tile, input + 4096, N);
    fence_proxy_async();
    __syncthreads();
    wgmma_pin(d);
    wgmma_fence();
    for (int step = 0; step < 4; step++) {
        const bool accumulate = step > 0 || N == 64;
        wgmma_m64k16<T, N>(d, wgmma_descriptor(raw) + 2 * step, wgmma_descriptor(b_tile) + 2 * step, accumulate);
    }
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_pin(d);
    for (int i = 0; i < N / 2; i++) output[threadIdx.x * (N / 2) + i] = __float_as_uint(d[i]);
}

#define WGMMA_WRAPPER(T, N)                                                                                           \
    extern "C" __global__ void __launch_bounds__(128)                                                                 \
        wrapper_wgmma_n##N##_##T(const uint32_t* input, uint32_t* output) {                                           \
        wgmma_product<T, N>(input, output);                                                                           \
    }                                                                                                                 \
    SIMULATED_KERNEL(wrapper_wgmma_n##N##_##T)
WGMMA_WRAPPER(bf16, 64)
WGMMA_WRAPPER(f16, 64)
WGMMA_WRAPPER(bf16, 128)
WGMMA_WRAPPER(f16, 128)

#endif // SILUETTE_HAS_WGMMA
