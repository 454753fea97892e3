// The checked build's shadow memory: for every byte the last write, the last read and who else read.
#include "checker.hpp"

#include "block.hpp"
#include "memory.hpp"

#include <cstdio>
#include <dlfcn.h>
#include <map>
#include <vector>

namespace simulator {

namespace {

// `block` is a serial number over all launches; 0 is "never".
struct Access {
    uint32_t block;
    uint32_t block_epoch;
    uint32_t warp_epoch;
    uint16_t thread;
    uint16_t fences;
};

// Who has read since the last write, as far as a write must know.
enum class Readers : uint8_t { One, OneWarp, OneBlock, SeveralBlocks };

struct Cell {
    Access write;
    Access read;
    Readers readers;
    bool live;
    bool initialised;
};

// An atomic behind a fence, by what its thread was at with that fence: of its block it hands over what lies in earlier
// epochs, and of the thread what lies before the fence.
struct Release {
    Access fence;

    bool covers(const Access& access) const {
        if (access.block != fence.block) return false;
        return access.block_epoch < fence.block_epoch ||
               (access.thread == fence.thread && access.fences < fence.fences);
    }
};

// An atomic of a thread of the current block that others had handed over at; effective from the thread's next fence on.
struct Acquisition {
    Access atomic;
    std::vector<Release> releases;
    bool is_fenced;
    uint32_t fenced_in; // the block's epoch at that fence

    // The thread itself, and all of its block behind a barrier.
    bool reaches(const Fiber& fiber) const {
        return is_fenced && (atomic.thread == fiber.linear || fenced_in < block.epoch);
    }
};

// A hook knows its caller's address, an emulated instruction its site.
struct Location {
    const void* instruction;
    Site site;
};

const unsigned PRINTED_REPORTS = 3;

Cell* shared_cells = nullptr;
Cell* device_cells = nullptr;
uint32_t current_block = 0;
uint32_t first_block_of_launch = 1;
// Of the launch, by the address of the atomic.
std::map<const void*, std::vector<Release>> releases;
std::vector<Acquisition> acquisitions;
std::map<unsigned, Access> last_fences; // of the block's threads

unsigned report_count = 0;
std::string first_report;

bool is_shared(const void* pointer) {
    const unsigned char* address = static_cast<const unsigned char*>(pointer);
    const unsigned char* shared = shared_base();
    return shared && address >= shared && address < shared + SHARED_ARENA_BYTES;
}

Cell* cells_of(const void* pointer) {
    const unsigned char* address = static_cast<const unsigned char*>(pointer);
    if (is_shared(pointer)) {
        const unsigned char* shared = shared_base();
        if (!shared_cells) shared_cells = reinterpret_cast<Cell*>(reserve_memory(SHARED_ARENA_BYTES * sizeof(Cell)));
        return shared_cells + (address - shared);
    }
    const unsigned char* device = device_base();
    if (device && address >= device && address < device + DEVICE_BYTES) {
        if (!device_cells) device_cells = reinterpret_cast<Cell*>(reserve_memory(DEVICE_BYTES * sizeof(Cell)));
        return device_cells + (address - device);
    }
    return nullptr;
}

std::string source_line(const Location& location) {
    if (!location.instruction) return std::string(location.site.file) + ":" + std::to_string(location.site.line);
    Dl_info library{};
    dladdr(location.instruction, &library);
    const long offset = static_cast<const char*>(location.instruction) - static_cast<const char*>(library.dli_fbase);
    char command[512];
    snprintf(command, sizeof command, "addr2line -i -e %s %#lx", library.dli_fname, offset - 1);
    FILE* output = popen(command, "r");
    if (!output) return "an unknown line";
    // Innermost first; the kernel's line says more than that of the helper that was inlined into it.
    std::string chosen = "an unknown line";
    char line[512];
    while (fgets(line, sizeof line, output)) {
        line[strcspn(line, "\n")] = 0;
        chosen = line;
        if (!strstr(line, "/include/simulator/")) break;
    }
    pclose(output);
    return chosen;
}

void report(const char* kind, const void* pointer, const Location& location, int other_thread) {
    report_count++;
    if (report_count > PRINTED_REPORTS) return;
    const unsigned char* address = static_cast<const unsigned char*>(pointer);
    const bool shared = is_shared(pointer);
    const size_t offset = size_t(address - (shared ? shared_base() : device_base()));
    char text[256];
    snprintf(text, sizeof text, "%s of %s memory +%zu, block (%u,%u,%u) thread %u", kind,
             shared ? "shared" : "global", offset, block_index.x, block_index.y, block_index.z,
             current_thread->linear);
    std::string message = text;
    if (other_thread >= 0) message += " and thread " + std::to_string(other_thread);
    message += " at " + source_line(location);
    fprintf(stderr, "simulator: %s\n", message.c_str());
    if (first_report.empty()) first_report = message;
}

bool in_this_launch(const Access& access) { return access.block >= first_block_of_launch; }

bool handed_over(const Access& access, const Fiber& fiber) {
    for (const Acquisition& acquisition : acquisitions) {
        if (!acquisition.reaches(fiber)) continue;
        for (const Release& release : acquisition.releases) {
            if (release.covers(access)) return true;
        }
    }
    return false;
}

// True if a barrier, or the fences of two blocks, lies between the access and what `fiber` does now.
bool ordered_before(const Access& access, const Fiber& fiber) {
    if (!in_this_launch(access)) return true;
    if (access.block != current_block) return handed_over(access, fiber);
    if (access.thread == fiber.linear || access.block_epoch < block.epoch) return true;
    return access.thread / WARP_THREADS == fiber.warp && access.warp_epoch < fiber.warp_epoch;
}

bool reads_ordered_before(const Cell& cell, const Fiber& fiber) {
    if (!in_this_launch(cell.read)) return true;
    switch (cell.readers) {
    case Readers::One:
        return ordered_before(cell.read, fiber);
    case Readers::OneWarp: {
        if (cell.read.block != current_block) return false;
        const bool own_warp = cell.read.thread / WARP_THREADS == fiber.warp;
        return cell.read.block_epoch < block.epoch || (own_warp && cell.read.warp_epoch < fiber.warp_epoch);
    }
    case Readers::OneBlock:
        return cell.read.block == current_block && cell.read.block_epoch < block.epoch;
    case Readers::SeveralBlocks:
        return false;
    }
    return false;
}

Access access_by(const Fiber& fiber) {
    return {current_block, block.epoch, fiber.warp_epoch, uint16_t(fiber.linear), fiber.fences};
}

void record_read(Cell& cell, const Fiber& fiber) {
    if (!in_this_launch(cell.read)) {
        cell.readers = Readers::One;
    } else if (cell.readers == Readers::SeveralBlocks || cell.read.block != current_block) {
        cell.readers = Readers::SeveralBlocks;
    } else if (cell.read.block_epoch < block.epoch) {
        cell.readers = Readers::One;
    } else if (cell.read.thread / WARP_THREADS != fiber.warp) {
        cell.readers = Readers::OneBlock;
    } else if (cell.read.thread != fiber.linear && cell.readers == Readers::One) {
        cell.readers = Readers::OneWarp;
    }
    cell.read = access_by(fiber);
}

// Returns false after a report: one for an access is enough.
bool check_byte(Cell& cell, const Fiber& fiber, const void* address, bool is_write, const Location& location) {
    if (!cell.live) {
        report(is_write ? "out-of-bounds write" : "out-of-bounds read", address, location, -1);
        return false;
    }
    if (!ordered_before(cell.write, fiber)) {
        report(is_write ? "race between writes" : "race between a write and a read", address, location,
               cell.write.thread);
        return false;
    }
    if (is_write && !reads_ordered_before(cell, fiber)) {
        report("race between a read and a write", address, location, cell.read.thread);
        return false;
    }
    if (!is_write && !cell.initialised) {
        report("read of uninitialised bytes", address, location, -1);
        return false;
    }
    return true;
}

void check_access(const Fiber& fiber, const void* start, size_t bytes, bool is_write, const Location& location) {
    Cell* cells = cells_of(start);
    if (!cells) return;
    for (size_t i = 0; i < bytes; i++) {
        Cell& cell = cells[i];
        if (!check_byte(cell, fiber, static_cast<const char*>(start) + i, is_write, location)) return;
        if (is_write) {
            cell.write = access_by(fiber);
            cell.initialised = true;
        } else {
            record_read(cell, fiber);
        }
    }
}

void check_hooked_access(const void* start, size_t bytes, bool is_write, const void* instruction) {
    if (current_thread) check_access(current_fiber(), start, bytes, is_write, {instruction, {}});
}

} // namespace

void checker_begin_launch() {
    first_block_of_launch = current_block + 1;
    report_count = 0;
    first_report.clear();
    releases.clear();
}

void checker_begin_block() {
    current_block++;
    acquisitions.clear();
    last_fences.clear();
}

void checker_atomic(const Fiber& fiber, const void* address) {
    if (is_shared(address)) return;
    std::vector<Release>& others = releases[address];
    if (!others.empty()) acquisitions.push_back({access_by(fiber), others, false, 0});
    const auto fence = last_fences.find(fiber.linear);
    if (fence != last_fences.end()) others.push_back({fence->second});
}

void checker_fence(Fiber& fiber) {
    fiber.fences++;
    last_fences[fiber.linear] = access_by(fiber);
    for (Acquisition& acquisition : acquisitions) {
        if (acquisition.atomic.thread != fiber.linear || acquisition.is_fenced) continue;
        acquisition.is_fenced = true;
        acquisition.fenced_in = block.epoch;
    }
}

void checker_allocate(const void* start, size_t bytes) {
    Cell* cells = cells_of(start);
    for (size_t i = 0; i < bytes; i++) cells[i] = {{}, {}, Readers::One, true, false};
}

void checker_free(const void* start, size_t bytes) {
    Cell* cells = cells_of(start);
    for (size_t i = 0; i < bytes; i++) cells[i].live = false;
}

void checker_mark_initialised(const void* start, size_t bytes) {
    Cell* cells = cells_of(start);
    for (size_t i = 0; cells && i < bytes; i++) cells[i].initialised = true;
}

void checker_read(const Fiber& fiber, const void* start, size_t bytes, Site site) {
    check_access(fiber, start, bytes, false, {nullptr, site});
}

void checker_write(const Fiber& fiber, const void* start, size_t bytes, Site site) {
    check_access(fiber, start, bytes, true, {nullptr, site});
}

std::string checker_reports() {
    if (report_count <= 1) return first_report;
    return first_report + " (and " + std::to_string(report_count - 1) + " more)";
}

} // namespace simulator

// What -fsanitize=thread calls. The real run-time library is not linked: these are all the checker needs.
#define SIMULATOR_HOOK(name, is_write, bytes)                                                                         \
    extern "C" void name(void* address) {                                                                             \
        simulator::check_hooked_access(address, bytes, is_write, __builtin_return_address(0));                        \
    }
#define SIMULATOR_HOOKS(bytes)                                                                                        \
    SIMULATOR_HOOK(__tsan_read##bytes, false, bytes)                                                                  \
    SIMULATOR_HOOK(__tsan_write##bytes, true, bytes)                                                                  \
    SIMULATOR_HOOK(__tsan_unaligned_read##bytes, false, bytes)                                                        \
    SIMULATOR_HOOK(__tsan_unaligned_write##bytes, true, bytes)
SIMULATOR_HOOK(__tsan_read1, false, 1)
SIMULATOR_HOOK(__tsan_write1, true, 1)
SIMULATOR_HOOKS(2)
SIMULATOR_HOOKS(4)
SIMULATOR_HOOKS(8)
SIMULATOR_HOOKS(16)

extern "C" void __tsan_read_range(void* address, size_t bytes) {
    simulator::check_hooked_access(address, bytes, false, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void* address, size_t bytes) {
    simulator::check_hooked_access(address, bytes, true, __builtin_return_address(0));
}
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_update(void*, void*) {}
extern "C" void __tsan_vptr_read(void*) {}
