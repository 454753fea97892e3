// AddressSanitizer's view of the simulator's memories; nothing in other builds.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace simulator {

#if defined(__SANITIZE_ADDRESS__)
const bool FENCES_ARE_READABLE = false;
inline void make_unaddressable(const void* start, size_t bytes) { __asan_poison_memory_region(start, bytes); }
inline void make_addressable(const void* start, size_t bytes) { __asan_unpoison_memory_region(start, bytes); }
#else
const bool FENCES_ARE_READABLE = true;
inline void make_unaddressable(const void*, size_t) {}
inline void make_addressable(const void*, size_t) {}
#endif

} // namespace simulator
