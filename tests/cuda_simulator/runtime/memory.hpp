// Shared memory of the running block and the device heap, both poisoned with NaN and fenced. Internal to the runtime.
#pragma once

#include "simulator/runtime.hpp"

namespace simulator {

const unsigned char POISON = 0xff; // NaN in f16, bf16 and f32
const unsigned char FENCE = 0xfb;

const size_t SHARED_ARENA_BYTES = 512 << 10;
#ifdef SIMULATOR_CHECKED
const size_t DEVICE_BYTES = size_t(1) << 30; // the checker keeps a cell for every byte
#else
const size_t DEVICE_BYTES = size_t(8) << 30;
#endif

// Where the two memories lie; nullptr before the first use.
unsigned char* shared_base();
unsigned char* device_base();

// Reserves address space; pages come when they are touched.
unsigned char* reserve_memory(size_t bytes);

// Forgets the last block's arrays and places the dynamic shared memory. Static arrays may take what it leaves of the
// limit.
void begin_block_shared(size_t dynamic_bytes, size_t limit_bytes);

// Empty, or which fence was overwritten. Under AddressSanitizer the fences are unaddressable and never looked at.
std::string overwritten_shared_guard();
std::string overwritten_device_guard();

// Fails the launch unless the range lies in one live allocation.
void check_device_range(const void* pointer, size_t bytes, const char* instruction, Site site);

} // namespace simulator
