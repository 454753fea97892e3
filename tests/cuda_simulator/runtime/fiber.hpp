// A CUDA thread as a fiber: its own stack, switched to and from by hand.
#pragma once

#include "simulator/runtime.hpp"

#include <vector>

namespace simulator {

enum class FiberState { Ready, Blocked, Done };

struct AsyncCopy {
    uint32_t destination;
    const void* source;
    int source_bytes;
    Site site;
};

struct Fiber : Thread {
    FiberState state;
    // What a blocked fiber waits for, for the deadlock report.
    const char* wait_reason;
    Site wait_site;

    // Counts the __syncwarp's passed: what the race checker orders accesses within a warp by.
    uint32_t warp_epoch;
    // Counts the __threadfence's: what it orders accesses of different blocks by.
    uint16_t fences;

    std::vector<std::vector<AsyncCopy>> committed_copies;
    std::vector<AsyncCopy> open_copies;

    unsigned char* stack;
    void* stack_pointer;
    void* sanitizer_stack;
};

// Makes `fiber` start in `entry`, which must never return, on stack number `fiber.linear`.
void prepare_fiber(Fiber& fiber, void (*entry)());

// Runs `to` until it switches away; nullptr is the host thread that launched. `from` likewise.
void switch_fiber(Fiber* from, Fiber* to);

// First thing that runs on a fresh fiber's stack.
void fiber_entered();

} // namespace simulator
