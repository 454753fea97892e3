// The runtime's face to the stand-in driver and to the C++ test programs.
#pragma once

#include "config.hpp"
#include "simulator/runtime.hpp"

namespace simulator {

const size_t DEFAULT_SHARED_BYTES = 48 << 10;

struct Launch {
    const Kernel* kernel;
    dim3 grid;
    dim3 block;
    size_t dynamic_shared_bytes;
    void** arguments;
    // Static and dynamic shared memory together; a GPU allows more than this default only to kernels that opt in.
    size_t shared_limit_bytes = DEFAULT_SHARED_BYTES;
};

// Runs every block to its end, one launch at a time. Returns the empty string, or what went wrong.
std::string run(const Launch& launch);

// Device memory; addresses are host addresses. nullptr when the device is full.
void* device_allocate(size_t bytes);
// False if `pointer` is not the start of a live allocation.
bool device_free(void* pointer);
// True if all of the range lies in one live allocation.
bool device_owns(const void* pointer, size_t bytes);
size_t device_free_bytes();
size_t device_total_bytes();

// Host-side copies: device memory written by them counts as initialised.
void device_write(void* destination, const void* source, size_t bytes);
void device_fill(void* destination, unsigned value, size_t value_bytes, size_t count);

} // namespace simulator
