// The one header a kernel includes: `#include "device.cuh"`.
//
// Three compilers take it: nvcc, NVRTC (which finds no system header at all, so that none is used) and g++, for
// which tests/cuda_simulator supplies every name below. All inline assembly of the project is in this file, and each
// wrapper has a fixed-input test in tests/cuda_simulator/wrappers.
//
// Names
//   f16, bf16                    storage types; arithmetic is done in float
//   SHARED_ARRAY(T, name, dims)  a static shared array:  SHARED_ARRAY(bf16, tile, [2][64 * 40]);
//   DYNAMIC_SHARED(name)         the launch's dynamic shared memory, an unsigned char array aligned to 1024 bytes
//   SIMULATED_KERNEL(name)       after each extern "C" kernel: lets the simulator find it by name
//   SILUETTE_HAS_MMA             1 where cp.async and mma.sync exist (sm_80 and later, simulator), else 0
//   SILUETTE_HAS_WGMMA           1 where mbarrier, TMA and wgmma exist (sm_90a, simulator), else 0
// Wrap a kernel in `#if SILUETTE_HAS_MMA` or `#if SILUETTE_HAS_WGMMA` when it uses what the macro stands for.
//
// Threads are not in lockstep here either: exchange through shared memory needs __syncwarp or __syncthreads, and
// __activemask() and spinning on plain memory are banned.
#ifndef SILUETTE_DEVICE_CUH
#define SILUETTE_DEVICE_CUH

#if !defined(__CUDACC__)

#include "simulator.hpp"
#define SILUETTE_HAS_MMA 1
#define SILUETTE_HAS_WGMMA 1

#else

#ifdef __CUDACC_RTC__
typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#else
#include <stdint.h>
#endif

// nvcc's host pass, in which __CUDA_ARCH__ is undefined, must see the same kernels as its device passes.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define SILUETTE_HAS_MMA 1
#else
#define SILUETTE_HAS_MMA 0
#endif
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SILUETTE_HAS_WGMMA 1
#else
#define SILUETTE_HAS_WGMMA 0
#endif

#define SHARED_ARRAY(T, name, dims) __shared__ __align__(128) T name dims
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#define SIMULATED_KERNEL(name)

// ---------------------------------------------------------------------------------------------- storage types

struct f16 {
    uint16_t bits;
};

struct bf16 {
    uint16_t bits;
};

__device__ __forceinline__ float to_float(float value) { return value; }

__device__ __forceinline__ float to_float(bf16 value) { return __uint_as_float(uint32_t(value.bits) << 16); }

__device__ __forceinline__ float to_float(f16 value) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
}

// from_float<T>: round to nearest, ties to even; every NaN becomes 0x7fff.
template <class T> __device__ __forceinline__ T from_float(float value);

template <> __device__ __forceinline__ float from_float<float>(float value) { return value; }

template <> __device__ __forceinline__ f16 from_float<f16>(float value) {
    f16 result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
}

template <> __device__ __forceinline__ bf16 from_float<bf16>(float value) {
    bf16 result;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
#else
    const uint32_t bits = __float_as_uint(value);
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    const uint32_t ties_to_even = 0x7fffu + ((bits >> 16) & 1u);
    result.bits = is_nan ? uint16_t(0x7fff) : uint16_t((bits + ties_to_even) >> 16);
#endif
    return result;
}

// unpack2<T>: the two elements of a 32-bit word, x from its low half (the lower address).
template <class T> __device__ __forceinline__ float2 unpack2(uint32_t word);

template <> __device__ __forceinline__ float2 unpack2<bf16>(uint32_t word) {
    return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u));
}

template <> __device__ __forceinline__ float2 unpack2<f16>(uint32_t word) {
    return make_float2(to_float(f16{uint16_t(word)}), to_float(f16{uint16_t(word >> 16)}));
}

// pack2<T>: two floats rounded into one 32-bit word, `low` at the lower address; one instruction from sm_80 on.
template <class T> __device__ __forceinline__ uint32_t pack2(float low, float high);

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define SILUETTE_DEFINE_PACK2(T, type)                                                                                \
    template <> __device__ __forceinline__ uint32_t pack2<T>(float low, float high) {                                 \
        uint32_t word;                                                                                                \
        asm("cvt.rn." type "x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));                                  \
        return word;                                                                                                  \
    }
#else
#define SILUETTE_DEFINE_PACK2(T, type)                                                                                \
    template <> __device__ __forceinline__ uint32_t pack2<T>(float low, float high) {                                 \
        return uint32_t(from_float<T>(low).bits) | uint32_t(from_float<T>(high).bits) << 16;                          \
    }
#endif
SILUETTE_DEFINE_PACK2(f16, "f16")
SILUETTE_DEFINE_PACK2(bf16, "bf16")
#undef SILUETTE_DEFINE_PACK2

// ---------------------------------------------------------------------------------------------- global memory

// Sixteen bytes at a 16-byte aligned address, through the caches.
__device__ __forceinline__ uint4 load16(const void* source) { return *static_cast<const uint4*>(source); }

// Sixteen bytes to a 16-byte aligned address.
__device__ __forceinline__ void store16(void* destination, uint4 value) { *static_cast<uint4*>(destination) = value; }

// Sixteen bytes of global memory that nobody writes during the kernel and nobody reads again: bypasses L1 and is the
// first to leave L2. Volatile, so that a batch of loads stays a batch.
__device__ __forceinline__ uint4 load_streaming16(const void* source) {
    uint4 value;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint64_t evict_first;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(evict_first));
    asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(__cvta_generic_to_global(source)), "l"(evict_first));
#else
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(__cvta_generic_to_global(source)));
#endif
    return value;
}

// Asks for the line of a global address to be brought into L2; never faults.
__device__ __forceinline__ void prefetch_l2(const void* address) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(address)));
}

// ---------------------------------------------------------------------------------------------- barriers, grids

// Address in the shared window, as the wrappers below take it.
__device__ __forceinline__ uint32_t smem_address(const void* pointer) {
    return uint32_t(__cvta_generic_to_shared(pointer));
}

// Barrier 1..15 among `threads` (a multiple of 32) of the block's threads; 0 is __syncthreads.
__device__ __forceinline__ void named_barrier_sync(int barrier, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Programmatic dependent launch: waits until the previous kernel's writes are visible (nothing below sm_90).
__device__ __forceinline__ void grid_dependency_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Programmatic dependent launch: lets the next kernel start (nothing below sm_90).
__device__ __forceinline__ void grid_dependency_launch_dependents() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// ---------------------------------------------------------------------------------------------- matrix fragments

// Each 8x8 matrix of 16-bit elements: lanes 8j..8j+7 give the addresses of matrix j's rows (16 bytes each, 16-byte
// aligned); lane l receives of matrix j the elements (row l/4, columns 2(l%4) and 2(l%4)+1) in fragment[j].
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&fragment)[4], uint32_t row_address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(row_address)
                 : "memory");
}

// As ldmatrix_x4 with every matrix transposed.
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&fragment)[4], uint32_t row_address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(row_address)
                 : "memory");
}

// Two matrices; lanes 0..15 give the addresses, those of the other lanes must be valid but are not used.
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&fragment)[2], uint32_t row_address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(fragment[0]), "=r"(fragment[1])
                 : "r"(row_address)
                 : "memory");
}

// As ldmatrix_x2 with both matrices transposed.
__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&fragment)[2], uint32_t row_address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(fragment[0]), "=r"(fragment[1])
                 : "r"(row_address)
                 : "memory");
}

#if SILUETTE_HAS_MMA

// Sixteen bytes to shared memory, past L1, in the background: the first `source_bytes` of them from global memory, which
// is not read beyond, zeros behind.
__device__ __forceinline__ void cp_async16(uint32_t destination, const void* source, int source_bytes = 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination),
                 "l"(__cvta_generic_to_global(source)), "r"(source_bytes)
                 : "memory");
}

// Closes the thread's current group of copies; a group may be empty.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `Pending` of the thread's own groups are unfinished; others need a barrier to see the data.
template <int Pending> __device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

// accumulator += A (16x16, row-major fragments) * B (16x8, column-major fragments), T = bf16 or f16.
// With g = lane / 4 and t = 2 * (lane % 4):
//   a[0], a[1], a[2], a[3]  rows g, g+8, g, g+8; columns t, t, t+8, t+8 (and the next one in the high half)
//   b[0], b[1]              k = t, t+8 (and the next one in the high half); column g
//   accumulator[0..3]       (g, t), (g, t+1), (g+8, t), (g+8, t+1)
template <class T>
__device__ __forceinline__ void mma_m16n8k16(float (&accumulator)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

#define SILUETTE_DEFINE_MMA(T, type)                                                                                  \
    template <>                                                                                                       \
    __device__ __forceinline__ void mma_m16n8k16<T>(float (&accumulator)[4], const uint32_t (&a)[4],                  \
                                                    const uint32_t (&b)[2]) {                                         \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                                           \
                     ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                           \
                     : "+f"(accumulator[0]), "+f"(accumulator[1]), "+f"(accumulator[2]), "+f"(accumulator[3])         \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                             \
    }
SILUETTE_DEFINE_MMA(bf16, "bf16")
SILUETTE_DEFINE_MMA(f16, "f16")
#undef SILUETTE_DEFINE_MMA

#endif // SILUETTE_HAS_MMA

// ---------------------------------------------------------------------------------------------- sm_90a

#if SILUETTE_HAS_WGMMA

// The driver's CUtensorMap; a kernel takes it as `const __grid_constant__ TensorMap`.
struct alignas(64) TensorMap {
    uint64_t opaque[16];
};

// Prepares the 8-byte barrier at a shared address for `arrivals` arrivals a phase.
__device__ __forceinline__ void mbarrier_init(uint32_t barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Orders this thread's shared-memory writes, mbarrier_init included, before TMA's and wgmma's accesses.
__device__ __forceinline__ void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ __forceinline__ void mbarrier_arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives, and makes the phase wait for `bytes` more bytes of TMA loads.
__device__ __forceinline__ void mbarrier_arrive_expect_tx(uint32_t barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// Waits until the phase of this parity is complete; the first phase has parity 0.
__device__ __forceinline__ void mbarrier_wait(uint32_t barrier, uint32_t parity) {
    asm volatile("{\n.reg .pred complete;\n"
                 "WAIT_%=:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 complete, [%0], %1;\n"
                 "@!complete bra WAIT_%=;\n}\n" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

// One box of a 2-D tensor into shared memory, its origin at element (x, y), x along the contiguous dimension; elements
// outside the tensor arrive as zeros. Completes its bytes on `barrier`.
__device__ __forceinline__ void tma_load_2d(uint32_t destination, const TensorMap* map, uint32_t barrier, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4}], [%2];" ::"r"(destination),
                 "l"(map), "r"(barrier), "r"(x), "r"(y)
                 : "memory");
}

// Asks for a tensor map to be brought to where TMA reads it.
__device__ __forceinline__ void tma_prefetch_map(const TensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// The registers that a thread of this warpgroup may have from now on: a multiple of 8 in 24..256. What is given back can
// be taken by the block's other warpgroups; taking waits for it. By all threads of a warpgroup, once, in a kernel whose
// launch bounds say threads and blocks an SM, without which ptxas ignores it.
template <int Registers> __device__ __forceinline__ void give_registers_back() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}

template <int Registers> __device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}

// wgmma descriptor of a K-major tile with 128-byte rows and the 128-byte swizzle; add 2 for each 16 elements along K.
__device__ __forceinline__ uint64_t wgmma_descriptor(const void* tile) {
    const uint64_t encoded_address = (smem_address(tile) & 0x3ffffu) >> 4;
    const uint64_t leading_offset = uint64_t(1) << 16; // unused by swizzled K-major tiles
    const uint64_t eight_row_stride = uint64_t(1024 >> 4) << 32;
    const uint64_t swizzle_128_bytes = uint64_t(1) << 62;
    return encoded_address | leading_offset | eight_row_stride | swizzle_128_bytes;
}

// Before the first wgmma, and whenever registers it touches were written by other instructions.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most `Pending` committed groups are unfinished.
template <int Pending> __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

// wgmma reads and writes registers behind the compiler's back. Nothing that it does with these crosses this line: put it
// between their initialisation and the first wgmma_fence, and between the last wgmma_wait and their use.
template <int Count> __device__ __forceinline__ void wgmma_pin(float (&d)[Count]) {
#pragma unroll
    for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// d = A (64x16) * B (16xN) + (accumulate ? d : 0), T = bf16 or f16, N = 64 or 128, for the 128 threads of a warpgroup.
// d[i] of thread t: row 16 (t/32) + (t%32)/4 + 8 ((i/2)%2), column 8 (i/4) + 2 (t%4) + i%2.
template <class T, int N> struct Wgmma;

template <class T, int N>
__device__ __forceinline__ void wgmma_m64k16(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {
    Wgmma<T, N>::run(d, a, b, accumulate);
}

#define SILUETTE_FLOATS4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SILUETTE_FLOATS16(i)                                                                                          \
    SILUETTE_FLOATS4(i), SILUETTE_FLOATS4(i + 4), SILUETTE_FLOATS4(i + 8), SILUETTE_FLOATS4(i + 12)
#define SILUETTE_OPERANDS32                                                                                           \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                          \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SILUETTE_OPERANDS64                                                                                           \
    SILUETTE_OPERANDS32                                                                                               \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                              \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

#define SILUETTE_DEFINE_WGMMA(T, type)                                                                                \
    template <> struct Wgmma<T, 64> {                                                                                 \
        __device__ __forceinline__ static void run(float (&d)[32], uint64_t a, uint64_t b, bool accumulate) {         \
            const int scale_d = accumulate;                                                                           \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"                                                 \
                         "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {" SILUETTE_OPERANDS32 "}, "   \
                         "%32, %33, p, 1, 1, 0, 0;\n}\n"                                                              \
                         : SILUETTE_FLOATS16(0), SILUETTE_FLOATS16(16)                                                \
                         : "l"(a), "l"(b), "r"(scale_d));                                                             \
        }                                                                                                             \
    };                                                                                                                \
    template <> struct Wgmma<T, 128> {                                                                                \
        __device__ __forceinline__ static void run(float (&d)[64], uint64_t a, uint64_t b, bool accumulate) {         \
            const int scale_d = accumulate;                                                                           \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                                 \
                         "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" SILUETTE_OPERANDS64 "}, "  \
                         "%64, %65, p, 1, 1, 0, 0;\n}\n"                                                              \
                         : SILUETTE_FLOATS16(0), SILUETTE_FLOATS16(16), SILUETTE_FLOATS16(32), SILUETTE_FLOATS16(48)  \
                         : "l"(a), "l"(b), "r"(scale_d));                                                             \
        }                                                                                                             \
    };
SILUETTE_DEFINE_WGMMA(bf16, "bf16")
SILUETTE_DEFINE_WGMMA(f16, "f16")
#undef SILUETTE_DEFINE_WGMMA
#undef SILUETTE_OPERANDS64
#undef SILUETTE_OPERANDS32
#undef SILUETTE_FLOATS16
#undef SILUETTE_FLOATS4

#endif // SILUETTE_HAS_WGMMA

#endif // __CUDACC__
#endif // SILUETTE_DEVICE_CUH
