// The block that runs now, and how its fibers wait for each other. Internal to the runtime.
#pragma once

#include "config.hpp"
#include "fiber.hpp"

#include <functional>
#include <vector>

namespace simulator {

struct BlockBarrier {
    unsigned arrived = 0;
    unsigned expected_threads = 0; // 0: the whole block
    int predicate_sum = 0;
    int result = 0;
    Site site{};
    std::vector<unsigned> waiting;
};

struct WarpCollective {
    uint32_t mask = 0;
    uint32_t arrived = 0;
    const char* operation = nullptr;
    Site site{};
    void* arguments[32];
};

struct GroupCollective {
    unsigned arrived = 0;
    const char* operation = nullptr;
    Site site{};
    std::vector<void*> arguments;
    std::vector<unsigned> waiting;
};

struct MemoryBarrier {
    uint32_t address;
    uint32_t count;
    uint32_t pending_arrivals;
    int64_t pending_bytes;
    uint32_t phase;
    bool fenced; // TMA may complete loads on it
    std::vector<unsigned> waiting;
};

using Work = std::function<void()>;

struct Warpgroup {
    GroupCollective collective;
    std::vector<std::vector<Work>> committed_products;
    std::vector<Work> open_products;
    bool fenced = false; // since its first wgmma_fence
    unsigned registers = 0; // that each thread may have; 0 where the kernel leaves that to ptxas
};

const unsigned BLOCK_BARRIERS = 16;
const unsigned WARP_THREADS = 32;
const unsigned WARPGROUP_THREADS = 128;

struct Block {
    std::vector<Fiber> fibers;
    unsigned live_fibers = 0;
    BlockBarrier barriers[BLOCK_BARRIERS];
    std::vector<std::vector<WarpCollective>> warp_collectives; // by warp
    std::vector<Warpgroup> warpgroups;
    std::vector<MemoryBarrier> memory_barriers;
    std::vector<Work> background; // TMA loads in flight

    // Counts the block-wide orderings passed: what the race checker orders accesses between warps by.
    uint32_t epoch = 0;
};

extern Block block;

inline Fiber& current_fiber() { return *static_cast<Fiber*>(current_thread); }

// Blocks the current fiber until another wakes it.
void block_current(const char* reason, Site site);

// Wakes all of `waiting` but the current fiber, in the schedule's order, and empties it.
void wake_all(std::vector<unsigned>& waiting);

// A seeded random number; the sequence restarts with every launch.
uint64_t random_number();
bool random_coin();

// True if an asynchronous operation issued now takes effect now.
bool takes_effect_at_issue();

// Empty unless the block's warpgroups have taken more registers than others have given back.
std::string registers_overdrawn();

// Called by a fiber that has returned from the kernel.
void check_exit(const Fiber& fiber);

} // namespace simulator
