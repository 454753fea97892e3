// cp.async, ldmatrix, mma.sync: device.cuh documents each.
#pragma once

#include "simulator/collectives.hpp"

namespace simulator {

enum class Storage { F16, BF16 };
template <class T> constexpr Storage storage_of();
template <> constexpr Storage storage_of<f16>() { return Storage::F16; }
template <> constexpr Storage storage_of<bf16>() { return Storage::BF16; }

void cp_async(uint32_t destination, const void* source, int source_bytes, Site site);
void cp_async_commit();
void cp_async_wait(size_t pending);
void ldmatrix(uint32_t* fragment, int matrices, bool transposed, uint32_t row_address, Site site);
void mma_m16n8k16(Storage storage, float* accumulator, const uint32_t* a, const uint32_t* b, Site site);

} // namespace simulator

inline void cp_async16(uint32_t destination, const void* source, int source_bytes = 16, SIMULATOR_SITE) {
    simulator::cp_async(destination, source, source_bytes, site);
}
inline void cp_async_commit() { simulator::cp_async_commit(); }
template <int Pending> void cp_async_wait() { simulator::cp_async_wait(size_t(Pending)); }

inline void ldmatrix_x4(uint32_t (&fragment)[4], uint32_t row_address, SIMULATOR_SITE) {
    simulator::ldmatrix(fragment, 4, false, row_address, site);
}
inline void ldmatrix_x4_trans(uint32_t (&fragment)[4], uint32_t row_address, SIMULATOR_SITE) {
    simulator::ldmatrix(fragment, 4, true, row_address, site);
}
inline void ldmatrix_x2(uint32_t (&fragment)[2], uint32_t row_address, SIMULATOR_SITE) {
    simulator::ldmatrix(fragment, 2, false, row_address, site);
}
inline void ldmatrix_x2_trans(uint32_t (&fragment)[2], uint32_t row_address, SIMULATOR_SITE) {
    simulator::ldmatrix(fragment, 2, true, row_address, site);
}

template <class T>
void mma_m16n8k16(float (&accumulator)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], SIMULATOR_SITE) {
    simulator::mma_m16n8k16(simulator::storage_of<T>(), accumulator, a, b, site);
}
