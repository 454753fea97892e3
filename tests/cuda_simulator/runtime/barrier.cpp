// Barriers among the threads of a block, of a warp and of a warpgroup.
#include "barrier.hpp"

#include <cstring>

namespace simulator {

namespace {

// Almost always the same pointer; not always, as each file of kernels has its own literals.
bool same_text(const char* a, const char* b) { return a == b || strcmp(a, b) == 0; }
bool same_site(Site a, Site b) { return a.line == b.line && same_text(a.file, b.file); }

void check_block_barrier(const BlockBarrier& barrier, int number, unsigned threads, Site site) {
    const size_t all = block.fibers.size();
    if (number < 0 || unsigned(number) >= BLOCK_BARRIERS) fail("there is no barrier %d", number);
    if (number == 0 && threads != 0) fail("named barrier 0 at %s:%d is __syncthreads's", site.file, site.line);
    if (number != 0 && (threads % WARP_THREADS != 0 || threads == 0 || threads > all)) {
        fail("named barrier at %s:%d for %u of %zu threads", site.file, site.line, threads, all);
    }
    if (number == 0 && block.live_fibers != all) {
        fail("__syncthreads at %s:%d after %zu threads have exited", site.file, site.line, all - block.live_fibers);
    }
    if (barrier.arrived == 0) return;
    if (barrier.expected_threads != threads) {
        fail("barrier %d at %s:%d for %u threads, others wait for %u", number, site.file, site.line, threads,
             barrier.expected_threads);
    }
    if (number == 0 && !same_site(barrier.site, site)) {
        fail("divergent __syncthreads: %s:%d, but others wait at %s:%d", site.file, site.line, barrier.site.file,
             barrier.site.line);
    }
}

// Marks the lanes that a full mask names beyond the end of the block as arrived; CUDA ignores them.
void ignore_missing_lanes(WarpCollective& collective, unsigned first_fiber, Site site) {
    for (unsigned lane = 0; lane < WARP_THREADS; lane++) {
        if (!(collective.mask >> lane & 1)) continue;
        const size_t fiber = first_fiber + lane;
        if (fiber >= block.fibers.size()) {
            if (collective.mask != ~0u) fail("%s: the mask names lane %u, beyond the block", collective.operation, lane);
            collective.arrived |= 1u << lane;
        } else if (block.fibers[fiber].state == FiberState::Done) {
            fail("%s at %s:%d: the mask names lane %u, which has exited", collective.operation, site.file, site.line,
                 lane);
        }
    }
}

// The collective that lanes of this mask wait in, or an unused one.
WarpCollective& find_collective(uint32_t mask, const char* operation, Site site) {
    std::vector<WarpCollective>& collectives = block.warp_collectives[current_thread->warp];
    WarpCollective* unused = nullptr;
    for (WarpCollective& collective : collectives) {
        if (collective.arrived == 0) {
            unused = &collective;
            continue;
        }
        if (collective.mask == mask) {
            if (same_text(collective.operation, operation) && same_site(collective.site, site)) return collective;
            fail("divergent warp operation: %s at %s:%d, but others wait in %s at %s:%d", operation, site.file,
                 site.line, collective.operation, collective.site.file, collective.site.line);
        }
        if (collective.mask & mask) {
            fail("%s at %s:%d: mask %08x overlaps that of %s at %s:%d, %08x", operation, site.file, site.line, mask,
                 collective.operation, collective.site.file, collective.site.line, collective.mask);
        }
    }
    if (!unused) unused = &collectives.emplace_back();
    unused->mask = mask;
    unused->operation = operation;
    unused->site = site;
    return *unused;
}

} // namespace

int block_barrier(int number, unsigned threads, int predicate, Site site) {
    BlockBarrier& barrier = block.barriers[number < int(BLOCK_BARRIERS) && number > 0 ? number : 0];
    check_block_barrier(barrier, number, threads, site);
    if (barrier.arrived == 0) {
        barrier.site = site;
        barrier.predicate_sum = 0;
        barrier.expected_threads = threads;
    }
    barrier.predicate_sum += predicate;
    barrier.waiting.push_back(current_thread->linear);
    barrier.arrived++;
    if (barrier.arrived < (threads ? threads : block.fibers.size())) {
        block_current(number == 0 ? "__syncthreads" : "named_barrier_sync", site);
        return barrier.result;
    }
    barrier.arrived = 0;
    barrier.result = barrier.predicate_sum;
    block.epoch++;
    wake_all(barrier.waiting);
    return barrier.result;
}

void warp_collective(uint32_t mask, const char* operation, Site site, void* argument, WarpFunction function) {
    const Thread& self = *current_thread;
    if (!(mask >> self.lane & 1)) {
        fail("%s at %s:%d: own lane %u is not in mask %08x", operation, site.file, site.line, self.lane, mask);
    }
    const unsigned first_fiber = self.warp * WARP_THREADS;
    WarpCollective& collective = find_collective(mask, operation, site);
    if (collective.arrived == 0) ignore_missing_lanes(collective, first_fiber, site);
    collective.arguments[self.lane] = argument;
    collective.arrived |= 1u << self.lane;
    if (collective.arrived != mask) {
        block_current(operation, site);
        return;
    }
    // Copied, because a woken lane may start the next collective in the same place.
    const WarpCollective complete = collective;
    collective.arrived = 0;
    static std::vector<unsigned> lanes; // kept for its memory
    lanes.clear();
    uint32_t present = 0;
    for (unsigned lane = 0; lane < WARP_THREADS; lane++) {
        if (!(mask >> lane & 1) || first_fiber + lane >= block.fibers.size()) continue;
        present |= 1u << lane;
        lanes.push_back(first_fiber + lane);
    }
    function(complete.arguments, present);
    wake_all(lanes);
}

void warpgroup_collective(const char* operation, Site site, void* argument, WarpgroupFunction function) {
    const unsigned group = current_thread->linear / WARPGROUP_THREADS;
    if ((group + 1) * WARPGROUP_THREADS > block.fibers.size()) fail("%s: an incomplete warpgroup", operation);
    GroupCollective& collective = block.warpgroups[group].collective;
    if (collective.arrived == 0) {
        collective.operation = operation;
        collective.site = site;
        collective.arguments.assign(WARPGROUP_THREADS, nullptr);
    } else if (!same_text(collective.operation, operation) || !same_site(collective.site, site)) {
        fail("divergent warpgroup operation: %s at %s:%d, but others wait in %s at %s:%d", operation, site.file,
             site.line, collective.operation, collective.site.file, collective.site.line);
    }
    collective.arguments[current_thread->linear % WARPGROUP_THREADS] = argument;
    collective.waiting.push_back(current_thread->linear);
    collective.arrived++;
    if (collective.arrived < WARPGROUP_THREADS) {
        block_current(operation, site);
        return;
    }
    collective.arrived = 0;
    function(collective.arguments.data(), block.warpgroups[group]);
    wake_all(collective.waiting);
}

void check_exit(const Fiber& fiber) {
    for (const WarpCollective& collective : block.warp_collectives[fiber.warp]) {
        if (collective.arrived == 0 || !(collective.mask >> fiber.lane & 1)) continue;
        fail("exits while its warp waits for it in %s at %s:%d", collective.operation, collective.site.file,
             collective.site.line);
    }
    const BlockBarrier& barrier = block.barriers[0];
    if (barrier.arrived > 0) {
        fail("exits while %u threads wait in __syncthreads at %s:%d", barrier.arrived, barrier.site.file,
             barrier.site.line);
    }
    for (const std::vector<AsyncCopy>& group : fiber.committed_copies) {
        if (!group.empty()) fail("exits with an unfinished cp.async of %s:%d", group[0].site.file, group[0].site.line);
    }
    if (!fiber.open_copies.empty()) {
        const Site site = fiber.open_copies[0].site;
        fail("exits with an uncommitted cp.async of %s:%d", site.file, site.line);
    }
}

} // namespace simulator
