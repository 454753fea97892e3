// sm_90a: mbarrier, TMA, wgmma. device.cuh documents each.
#pragma once

#include "simulator/tensor_core.hpp"

// The stand-in driver's cuTensorMapEncodeTiled fills this; same size and alignment as the real CUtensorMap.
struct alignas(64) TensorMap {
    const unsigned char* base;
    uint64_t extent[2];       // elements; [0] is the contiguous dimension
    uint64_t row_stride;      // bytes
    uint32_t box[2];          // elements
    uint32_t element_bytes;
    uint32_t swizzle_128_bytes;
    unsigned char unused[72];
};
static_assert(sizeof(TensorMap) == 128, "CUtensorMap is 128 bytes");

namespace simulator {

void mbarrier_init(uint32_t barrier, uint32_t arrivals);
void mbarrier_arrive(uint32_t barrier, uint32_t bytes);
void mbarrier_wait(uint32_t barrier, uint32_t parity, Site site);
void fence_proxy_async();
void tma_load_2d(uint32_t destination, const TensorMap* map, uint32_t barrier, int x, int y, Site site);
void tma_prefetch_map(const TensorMap* map);
void set_registers(unsigned registers, bool takes, Site site);

struct WgmmaOperands {
    float* d;
    uint64_t a;
    uint64_t b;
    bool accumulate;
};
void wgmma(Storage storage, int columns, WgmmaOperands operands, Site site);
void wgmma_fence(Site site);
void wgmma_commit(Site site);
void wgmma_wait(size_t pending, Site site);

} // namespace simulator

inline void mbarrier_init(uint32_t barrier, uint32_t arrivals) { simulator::mbarrier_init(barrier, arrivals); }
inline void mbarrier_arrive(uint32_t barrier) { simulator::mbarrier_arrive(barrier, 0); }
inline void mbarrier_arrive_expect_tx(uint32_t barrier, uint32_t bytes) { simulator::mbarrier_arrive(barrier, bytes); }
inline void mbarrier_wait(uint32_t barrier, uint32_t parity, SIMULATOR_SITE) {
    simulator::mbarrier_wait(barrier, parity, site);
}
inline void fence_proxy_async() { simulator::fence_proxy_async(); }
inline void tma_load_2d(uint32_t destination, const TensorMap* map, uint32_t barrier, int x, int y, SIMULATOR_SITE) {
    simulator::tma_load_2d(destination, map, barrier, x, y, site);
}

inline void tma_prefetch_map(const TensorMap* map) { simulator::tma_prefetch_map(map); }
template <int Registers> void give_registers_back(SIMULATOR_SITE) {
    simulator::set_registers(unsigned(Registers), false, site);
}
template <int Registers> void take_registers(SIMULATOR_SITE) { simulator::set_registers(unsigned(Registers), true, site); }

inline uint64_t wgmma_descriptor(const void* tile) {
    const uint64_t encoded_address = (smem_address(tile) & 0x3ffffu) >> 4;
    const uint64_t leading_offset = uint64_t(1) << 16;
    const uint64_t eight_row_stride = uint64_t(1024 >> 4) << 32;
    const uint64_t swizzle_128_bytes = uint64_t(1) << 62;
    return encoded_address | leading_offset | eight_row_stride | swizzle_128_bytes;
}
inline void wgmma_fence(SIMULATOR_SITE) { simulator::wgmma_fence(site); }
inline void wgmma_commit(SIMULATOR_SITE) { simulator::wgmma_commit(site); }
template <int Pending> void wgmma_wait(SIMULATOR_SITE) { simulator::wgmma_wait(size_t(Pending), site); }
template <int Count> void wgmma_pin(float (&)[Count]) {}
template <class T, int N>
void wgmma_m64k16(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate, SIMULATOR_SITE) {
    static_assert(N == 64 || N == 128, "device.cuh has no other shape");
    simulator::wgmma(simulator::storage_of<T>(), N, {d, a, b, accumulate}, site);
}
