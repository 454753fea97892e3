// Shuffles, votes, __syncwarp, atomics, fences.
#include "barrier.hpp"
#include "checker.hpp"
#include "simulator/collectives.hpp"

namespace simulator {

namespace {

struct ShuffleArgument {
    uint64_t value;
    uint64_t result;
    Shuffle kind;
    int operand;
    int width;
};

// The lane that `lane` reads; its own where CUDA says that the value is unchanged.
int source_lane(const ShuffleArgument& argument, int lane) {
    const int segment = lane & ~(argument.width - 1);
    const int segment_end = segment + argument.width;
    switch (argument.kind) {
    case Shuffle::Index:
        return segment + (argument.operand & (argument.width - 1));
    case Shuffle::Up:
        return lane - argument.operand < segment ? lane : lane - argument.operand;
    case Shuffle::Down:
        return lane + argument.operand >= segment_end ? lane : lane + argument.operand;
    case Shuffle::Xor:
        return (lane ^ argument.operand) >= segment_end ? lane : lane ^ argument.operand;
    }
    return lane;
}

void run_shuffle(void* const* arguments, uint32_t lanes) {
    for (int lane = 0; lane < int(WARP_THREADS); lane++) {
        if (!(lanes >> lane & 1)) continue;
        ShuffleArgument& argument = *static_cast<ShuffleArgument*>(arguments[lane]);
        const int source = source_lane(argument, lane);
        if (!(lanes >> source & 1)) fail("a shuffle reads lane %d, which takes no part (mask %08x)", source, lanes);
        argument.result = static_cast<const ShuffleArgument*>(arguments[source])->value;
    }
}

struct BallotArgument {
    bool predicate;
    uint32_t result;
};

void run_ballot(void* const* arguments, uint32_t lanes) {
    uint32_t votes = 0;
    for (unsigned lane = 0; lane < WARP_THREADS; lane++) {
        if ((lanes >> lane & 1) && static_cast<const BallotArgument*>(arguments[lane])->predicate) votes |= 1u << lane;
    }
    for (unsigned lane = 0; lane < WARP_THREADS; lane++) {
        if (lanes >> lane & 1) static_cast<BallotArgument*>(arguments[lane])->result = votes;
    }
}

// Shuffles and votes order no memory accesses; this does.
void run_warp_barrier(void* const*, uint32_t lanes) {
    const unsigned first_fiber = current_thread->warp * WARP_THREADS;
    for (unsigned lane = 0; lane < WARP_THREADS; lane++) {
        if (lanes >> lane & 1) block.fibers[first_fiber + lane].warp_epoch++;
    }
}

const char* shuffle_name(Shuffle kind) {
    const char* const names[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};
    return names[int(kind)];
}

} // namespace

void warp_barrier(uint32_t mask, Site site) { warp_collective(mask, "__syncwarp", site, nullptr, run_warp_barrier); }

uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, int operand, int width, Site site) {
    const bool power_of_two = width > 0 && (width & (width - 1)) == 0;
    if (!power_of_two || width > int(WARP_THREADS)) fail("%s with width %d", shuffle_name(kind), width);
    ShuffleArgument argument{value, value, kind, operand, width};
    warp_collective(mask, shuffle_name(kind), site, &argument, run_shuffle);
    return argument.result;
}

uint32_t ballot(uint32_t mask, bool predicate, Site site) {
    BallotArgument argument{predicate, 0};
    warp_collective(mask, "__ballot_sync", site, &argument, run_ballot);
    return argument.result;
}

unsigned atomic_add(unsigned* address, unsigned value) {
    checker_atomic(current_fiber(), address);
    const unsigned old = *address;
    *address = old + value;
    return old;
}

float atomic_add(float* address, float value) {
    checker_atomic(current_fiber(), address);
    const float old = *address;
    *address = old + value;
    return old;
}

unsigned atomic_max(unsigned* address, unsigned value) {
    checker_atomic(current_fiber(), address);
    const unsigned old = *address;
    *address = max(old, value);
    return old;
}

unsigned atomic_compare_and_swap(unsigned* address, unsigned expected, unsigned desired) {
    checker_atomic(current_fiber(), address);
    const unsigned old = *address;
    if (old == expected) *address = desired;
    return old;
}

void thread_fence() { checker_fence(current_fiber()); }

void check_alignment(const void* pointer, size_t alignment, const char* instruction, Site site) {
    if (reinterpret_cast<uintptr_t>(pointer) % alignment == 0) return;
    fail("%s at %s:%d: address %p is not aligned to %zu bytes", instruction, site.file, site.line, pointer, alignment);
}

} // namespace simulator
