// mbarrier, TMA and wgmma of sm_90a.
#include "simulator/hopper.hpp"
#include "barrier.hpp"
#include "checker.hpp"
#include "memory.hpp"
#include "tensor_core.hpp"

namespace simulator {

namespace {

MemoryBarrier& find_memory_barrier(uint32_t address) {
    for (MemoryBarrier& barrier : block.memory_barriers) {
        if (barrier.address == address) return barrier;
    }
    fail("an mbarrier is used before mbarrier_init");
}

void complete_phase_if_done(MemoryBarrier& barrier) {
    if (barrier.pending_arrivals > 0 || barrier.pending_bytes != 0) return;
    barrier.phase++;
    barrier.pending_arrivals = barrier.count;
    // Taken as an ordering of the whole block, so that races through mbarriers are under-reported, never invented.
    block.epoch++;
    wake_all(barrier.waiting);
}

// The 128-byte swizzle exchanges the 16-byte chunks of a 128-byte row according to the row's number modulo 8.
uint32_t swizzle_128_bytes(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

struct TmaLoad {
    uint32_t destination;
    TensorMap map; // a copy: here a kernel's parameters end with the thread, whose loads may still be under way
    uint32_t barrier;
    int x;
    int y;
    Site site;
};

void copy_element(const TmaLoad& load, uint32_t row, uint32_t column) {
    const TensorMap& map = load.map;
    const uint32_t packed = load.destination + (row * map.box[0] + column) * map.element_bytes;
    const uint32_t address = map.swizzle_128_bytes ? swizzle_128_bytes(packed) : packed;
    unsigned char* destination = shared_pointer(address, map.element_bytes);
    const int64_t x = int64_t(load.x) + column;
    const int64_t y = int64_t(load.y) + row;
    if (x >= 0 && y >= 0 && uint64_t(x) < map.extent[0] && uint64_t(y) < map.extent[1]) {
        const unsigned char* source = map.base + uint64_t(y) * map.row_stride + uint64_t(x) * map.element_bytes;
        check_device_range(source, map.element_bytes, "TMA load", load.site);
        memcpy(destination, source, map.element_bytes);
    } else {
        memset(destination, 0, map.element_bytes);
    }
    checker_mark_initialised(destination, map.element_bytes);
}

void complete_load(const TmaLoad& load) {
    const TensorMap& map = load.map;
    for (uint32_t row = 0; row < map.box[1]; row++) {
        for (uint32_t column = 0; column < map.box[0]; column++) copy_element(load, row, column);
    }
    MemoryBarrier& barrier = find_memory_barrier(load.barrier);
    barrier.pending_bytes -= int64_t(map.box[0]) * map.box[1] * map.element_bytes;
    complete_phase_if_done(barrier);
}

// Element (row, k) of a K-major tile that a wgmma descriptor points to.
float descriptor_element(Storage storage, uint64_t descriptor, uint32_t row, uint32_t k) {
    if (descriptor >> 62 != 1) fail("wgmma: only the 128-byte swizzle is emulated");
    const uint32_t start = uint32_t(descriptor & 0x3fff) << 4;
    // Along K it may start inside a row, but its first row is the first of a swizzle's eight.
    if (start % 1024 >= 128) fail("wgmma: a tile is not aligned to 1024 bytes");
    const uint32_t eight_row_stride = uint32_t(descriptor >> 32 & 0x3fff) << 4;
    const uint32_t address = swizzle_128_bytes(start + row / 8 * eight_row_stride + row % 8 * 128 + k * 2);
    uint16_t bits;
    memcpy(&bits, shared_pointer(address, 2), 2);
    return element_to_float(storage, bits);
}

struct WgmmaArgument {
    Storage storage;
    int columns;
    WgmmaOperands operands;
};

void run_product(const std::vector<WgmmaArgument>& threads) {
    const WgmmaArgument& first = threads[0];
    const unsigned columns = unsigned(first.columns);
    std::vector<float> a(64 * 16);
    std::vector<float> b(columns * 16);
    for (unsigned i = 0; i < a.size(); i++) a[i] = descriptor_element(first.storage, first.operands.a, i / 16, i % 16);
    for (unsigned i = 0; i < b.size(); i++) b[i] = descriptor_element(first.storage, first.operands.b, i / 16, i % 16);
    for (unsigned thread = 0; thread < WARPGROUP_THREADS; thread++) {
        const WgmmaOperands& operands = threads[thread].operands;
        for (unsigned i = 0; i < columns / 2; i++) {
            const unsigned row = thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8;
            const unsigned column = i / 4 * 8 + thread % 4 * 2 + i % 2;
            float sum = 0;
            for (unsigned k = 0; k < 16; k++) sum += a[row * 16 + k] * b[column * 16 + k];
            operands.d[i] = (operands.accumulate ? operands.d[i] : 0.0f) + sum;
        }
    }
}

void issue_product(void* const* arguments, Warpgroup& group) {
    if (!group.fenced) fail("wgmma before the warpgroup's first wgmma_fence");
    std::vector<WgmmaArgument> threads;
    for (unsigned i = 0; i < WARPGROUP_THREADS; i++) {
        threads.push_back(*static_cast<const WgmmaArgument*>(arguments[i]));
        const WgmmaOperands& operands = threads[i].operands;
        if (operands.a != threads[0].operands.a || operands.b != threads[0].operands.b) {
            fail("wgmma: the threads' descriptors differ");
        }
    }
    // Products of one warpgroup happen in the order of their issue.
    const bool none_pending = group.open_products.empty() && group.committed_products.empty();
    if (takes_effect_at_issue() && none_pending) {
        run_product(threads);
    } else {
        group.open_products.push_back([threads] { run_product(threads); });
    }
}

void fence_products(void* const*, Warpgroup& group) { group.fenced = true; }

void commit_products(void* const*, Warpgroup& group) {
    group.committed_products.push_back(std::move(group.open_products));
    group.open_products.clear();
}

void wait_products(void* const* arguments, Warpgroup& group) {
    const size_t pending = *static_cast<const size_t*>(arguments[0]);
    while (group.committed_products.size() > pending) {
        for (const Work& product : group.committed_products.front()) product();
        group.committed_products.erase(group.committed_products.begin());
    }
}

struct RegistersArgument {
    unsigned registers;
    bool takes;
};

// What ptxas gives every thread of a block that has an SM for itself.
unsigned registers_at_entry() { return std::min(255u, unsigned(65536 / block.fibers.size())) / 8 * 8; }

void change_registers(void* const* arguments, Warpgroup& group) {
    const RegistersArgument& change = *static_cast<const RegistersArgument*>(arguments[0]);
    const unsigned now = group.registers ? group.registers : registers_at_entry();
    if (change.registers % 8 != 0 || change.registers < 24 || change.registers > 256) {
        fail("setmaxnreg: %u registers, expected a multiple of 8 in 24..256", change.registers);
    }
    if (change.takes ? change.registers < now : change.registers > now) {
        fail("setmaxnreg: %s %u registers, the warpgroup has %u", change.takes ? "takes" : "gives back all but",
             change.registers, now);
    }
    group.registers = change.registers;
}

} // namespace

std::string registers_overdrawn() {
    unsigned registers = 0;
    for (const Warpgroup& group : block.warpgroups) {
        registers += group.registers ? group.registers : registers_at_entry();
    }
    if (registers <= registers_at_entry() * block.warpgroups.size()) return {};
    return "setmaxnreg: the block's warpgroups take more registers than it has: a GPU would wait for ever";
}

void mbarrier_init(uint32_t address, uint32_t arrivals) {
    require_capability(90, "mbarrier");
    checker_mark_initialised(shared_pointer(address, 8), 8);
    for (MemoryBarrier& barrier : block.memory_barriers) {
        if (barrier.address == address) fail("mbarrier_init of a barrier that is in use");
    }
    block.memory_barriers.push_back({address, arrivals, arrivals, 0, 0, false, {}});
}

void mbarrier_arrive(uint32_t address, uint32_t bytes) {
    MemoryBarrier& barrier = find_memory_barrier(address);
    if (barrier.pending_arrivals == 0) fail("mbarrier: more arrivals in a phase than its count, %u", barrier.count);
    barrier.pending_bytes += bytes;
    barrier.pending_arrivals--;
    complete_phase_if_done(barrier);
}

void mbarrier_wait(uint32_t address, uint32_t parity, Site site) {
    while (find_memory_barrier(address).phase % 2 == parity) {
        find_memory_barrier(address).waiting.push_back(current_thread->linear);
        block_current("mbarrier_wait", site);
    }
}

void fence_proxy_async() {
    for (MemoryBarrier& barrier : block.memory_barriers) barrier.fenced = true;
}

void tma_load_2d(uint32_t destination, const TensorMap* map, uint32_t barrier, int x, int y, Site site) {
    require_capability(90, "TMA");
    if (!find_memory_barrier(barrier).fenced) fail("TMA: no fence_proxy_async after mbarrier_init");
    if (reinterpret_cast<uintptr_t>(map) % 64 != 0) fail("TMA: the tensor map is not aligned to 64 bytes");
    const uint32_t alignment = map->swizzle_128_bytes ? 1024 : 128;
    if (destination % alignment != 0) fail("TMA: the destination is not aligned to %u bytes", alignment);
    const TmaLoad load{destination, *map, barrier, x, y, site};
    if (takes_effect_at_issue()) {
        complete_load(load);
    } else {
        block.background.push_back([load] { complete_load(load); });
    }
}

void tma_prefetch_map(const TensorMap* map) {
    require_capability(90, "TMA");
    if (reinterpret_cast<uintptr_t>(map) % 64 != 0) fail("TMA: the tensor map is not aligned to 64 bytes");
}

void set_registers(unsigned registers, bool takes, Site site) {
    require_capability(90, "setmaxnreg");
    RegistersArgument argument{registers, takes};
    warpgroup_collective(takes ? "take_registers" : "give_registers_back", site, &argument, change_registers);
}

void wgmma_fence(Site site) { warpgroup_collective("wgmma_fence", site, nullptr, fence_products); }

void wgmma(Storage storage, int columns, WgmmaOperands operands, Site site) {
    require_capability(90, "wgmma");
    WgmmaArgument argument{storage, columns, operands};
    warpgroup_collective("wgmma", site, &argument, issue_product);
}

void wgmma_commit(Site site) { warpgroup_collective("wgmma_commit", site, nullptr, commit_products); }

void wgmma_wait(size_t pending, Site site) { warpgroup_collective("wgmma_wait", site, &pending, wait_products); }

} // namespace simulator
