// Races, out-of-bounds accesses and reads of uninitialised memory, byte by byte. Only the checked build has it: there
// the compiler calls a hook at every memory access of a kernel (-fsanitize=thread, without its run-time library).
#pragma once

#include "fiber.hpp"

namespace simulator {

#ifdef SIMULATOR_CHECKED

void checker_begin_launch();
void checker_begin_block();
void checker_allocate(const void* start, size_t bytes);
void checker_free(const void* start, size_t bytes);
void checker_mark_initialised(const void* start, size_t bytes);

// Accesses made by the runtime on behalf of a thread.
void checker_read(const Fiber& fiber, const void* start, size_t bytes, Site site);
void checker_write(const Fiber& fiber, const void* start, size_t bytes, Site site);

// A fence before an atomic hands over what is ordered before it, by the thread or by the block's barriers; a fence behind
// an atomic of the same address takes that over. Atomics of shared memory hand over nothing.
void checker_atomic(const Fiber& fiber, const void* address);
void checker_fence(Fiber& fiber);

// The first report of the launch, and how many there were; empty if none.
std::string checker_reports();

#else

inline void checker_begin_launch() {}
inline void checker_begin_block() {}
inline void checker_allocate(const void*, size_t) {}
inline void checker_free(const void*, size_t) {}
inline void checker_mark_initialised(const void*, size_t) {}
inline void checker_read(const Fiber&, const void*, size_t, Site) {}
inline void checker_write(const Fiber&, const void*, size_t, Site) {}
inline void checker_atomic(const Fiber&, const void*) {}
inline void checker_fence(Fiber&) {}
inline std::string checker_reports() { return {}; }

#endif

} // namespace simulator
