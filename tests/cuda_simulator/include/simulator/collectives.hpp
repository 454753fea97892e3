// Barriers, warp collectives, atomics, plain memory wrappers.
#pragma once

#include "simulator/runtime.hpp"

namespace simulator {

// Returns the sum of `predicate` over the threads. `threads` 0 means the whole block.
int block_barrier(int barrier, unsigned threads, int predicate, Site site);
void warp_barrier(uint32_t mask, Site site);

enum class Shuffle { Index, Up, Down, Xor };
uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, int operand, int width, Site site);
uint32_t ballot(uint32_t mask, bool predicate, Site site);

template <class T> T shuffle_value(Shuffle kind, uint32_t mask, T value, int operand, int width, Site site) {
    static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>, "not a shuffle operand");
    uint64_t word = 0;
    memcpy(&word, &value, sizeof value);
    word = shuffle(kind, mask, word, operand, width, site);
    memcpy(&value, &word, sizeof value);
    return value;
}

void check_alignment(const void* pointer, size_t alignment, const char* instruction, Site site);

} // namespace simulator

#define SIMULATOR_SITE ::simulator::Site site = ::simulator::Site::here(__builtin_FILE(), __builtin_LINE())

inline void __syncthreads(SIMULATOR_SITE) { simulator::block_barrier(0, 0, 0, site); }
inline int __syncthreads_count(int predicate, SIMULATOR_SITE) {
    return simulator::block_barrier(0, 0, predicate != 0, site);
}
inline int __syncthreads_or(int predicate, SIMULATOR_SITE) {
    return simulator::block_barrier(0, 0, predicate != 0, site) != 0;
}
inline int __syncthreads_and(int predicate, SIMULATOR_SITE) {
    return simulator::block_barrier(0, 0, predicate == 0, site) == 0;
}
inline void named_barrier_sync(int barrier, int threads, SIMULATOR_SITE) {
    simulator::block_barrier(barrier, unsigned(threads), 0, site);
}
inline void __syncwarp(uint32_t mask = ~0u, SIMULATOR_SITE) { simulator::warp_barrier(mask, site); }

template <class T> T __shfl_sync(uint32_t mask, T value, int lane, int width = 32, SIMULATOR_SITE) {
    return simulator::shuffle_value(simulator::Shuffle::Index, mask, value, lane, width, site);
}
template <class T> T __shfl_up_sync(uint32_t mask, T value, unsigned distance, int width = 32, SIMULATOR_SITE) {
    return simulator::shuffle_value(simulator::Shuffle::Up, mask, value, int(distance), width, site);
}
template <class T> T __shfl_down_sync(uint32_t mask, T value, unsigned distance, int width = 32, SIMULATOR_SITE) {
    return simulator::shuffle_value(simulator::Shuffle::Down, mask, value, int(distance), width, site);
}
template <class T> T __shfl_xor_sync(uint32_t mask, T value, int lane_mask, int width = 32, SIMULATOR_SITE) {
    return simulator::shuffle_value(simulator::Shuffle::Xor, mask, value, lane_mask, width, site);
}
inline uint32_t __ballot_sync(uint32_t mask, int predicate, SIMULATOR_SITE) {
    return simulator::ballot(mask, predicate != 0, site);
}
inline int __any_sync(uint32_t mask, int predicate, SIMULATOR_SITE) {
    return simulator::ballot(mask, predicate != 0, site) != 0;
}
inline int __all_sync(uint32_t mask, int predicate, SIMULATOR_SITE) {
    return simulator::ballot(mask, predicate == 0, site) == 0;
}

// One fiber runs at a time, so a plain read-modify-write is atomic. The runtime's copies are not instrumented: atomics
// never count as races. With fences around them they order what blocks do.
namespace simulator {
unsigned atomic_add(unsigned* address, unsigned value);
float atomic_add(float* address, float value);
unsigned atomic_max(unsigned* address, unsigned value);
unsigned atomic_compare_and_swap(unsigned* address, unsigned expected, unsigned desired);
void thread_fence();
} // namespace simulator

inline float atomicAdd(float* address, float value) { return simulator::atomic_add(address, value); }
inline unsigned atomicAdd(unsigned* address, unsigned value) { return simulator::atomic_add(address, value); }
inline int atomicAdd(int* address, int value) {
    return int(simulator::atomic_add(reinterpret_cast<unsigned*>(address), unsigned(value)));
}
inline unsigned atomicMax(unsigned* address, unsigned value) { return simulator::atomic_max(address, value); }
inline unsigned atomicCAS(unsigned* address, unsigned expected, unsigned desired) {
    return simulator::atomic_compare_and_swap(address, expected, desired);
}

inline void __threadfence() { simulator::thread_fence(); }
inline void __threadfence_block() {}

inline uint4 load16(const void* source, SIMULATOR_SITE) {
    simulator::check_alignment(source, 16, "load16", site);
    return *static_cast<const uint4*>(source);
}
inline uint4 load_streaming16(const void* source, SIMULATOR_SITE) {
    simulator::check_alignment(source, 16, "load_streaming16", site);
    return *static_cast<const uint4*>(source);
}
inline void store16(void* destination, uint4 value, SIMULATOR_SITE) {
    simulator::check_alignment(destination, 16, "store16", site);
    *static_cast<uint4*>(destination) = value;
}
inline void prefetch_l2(const void*) {}
inline void grid_dependency_wait() {}
inline void grid_dependency_launch_dependents() {}
