// The device heap: first fit over one reserved range, a fence after every allocation, freed memory poisoned and kept
// back for a while so that a use after free reads NaN (and is reported by the sanitising builds).
#include "checker.hpp"
#include "launch.hpp"
#include "memory.hpp"
#include "sanitizer.hpp"

#include <deque>
#include <map>
#include <mutex>
#include <sys/mman.h>

namespace simulator {

namespace {

const size_t ALIGNMENT = 256;
const size_t FENCE_BYTES = 256;
const size_t FENCED_AHEAD_BYTES = 1 << 20;
const size_t QUARANTINE_BYTES = 16 << 20;

struct Range {
    size_t offset;
    size_t bytes;
};

std::mutex heap_mutex;
unsigned char* heap = nullptr;
std::map<size_t, size_t> free_ranges;      // offset to bytes
std::map<size_t, size_t> live_allocations; // offset to the bytes asked for
std::deque<Range> quarantine;
size_t quarantined_bytes = 0;
size_t used_bytes = 0;
size_t fenced_bytes = 0; // the start of the heap that AddressSanitizer has been told about

// An allocation's share of the heap: its bytes, rounded up, and the fence behind them.
size_t footprint(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + FENCE_BYTES; }

void initialise_heap() {
    if (heap) return;
    heap = reserve_memory(DEVICE_BYTES);
    memset(heap, FENCE, FENCE_BYTES);
    free_ranges[FENCE_BYTES] = DEVICE_BYTES - FENCE_BYTES;
}

// Telling it about the whole heap at once would touch a gigabyte of its shadow.
void make_unaddressable_up_to(size_t end) {
    end = std::min(end + FENCED_AHEAD_BYTES, DEVICE_BYTES);
    if (end <= fenced_bytes) return;
    make_unaddressable(heap + fenced_bytes, end - fenced_bytes);
    fenced_bytes = end;
}

void give_back(Range range) {
    auto next = free_ranges.lower_bound(range.offset);
    if (next != free_ranges.end() && range.offset + range.bytes == next->first) {
        range.bytes += next->second;
        next = free_ranges.erase(next);
    }
    if (next != free_ranges.begin()) {
        auto previous = std::prev(next);
        if (previous->first + previous->second == range.offset) {
            previous->second += range.bytes;
            return;
        }
    }
    free_ranges[range.offset] = range.bytes;
}

void shrink_quarantine(size_t limit) {
    while (quarantined_bytes > limit) {
        quarantined_bytes -= quarantine.front().bytes;
        give_back(quarantine.front());
        quarantine.pop_front();
    }
}

bool take_range(size_t bytes, size_t& offset) {
    for (auto range = free_ranges.begin(); range != free_ranges.end(); ++range) {
        if (range->second < bytes) continue;
        offset = range->first;
        const size_t rest = range->second - bytes;
        free_ranges.erase(range);
        if (rest > 0) free_ranges[offset + bytes] = rest;
        return true;
    }
    return false;
}

// The live allocation that holds the address, or end().
std::map<size_t, size_t>::iterator find_allocation(const void* pointer) {
    const ptrdiff_t offset = static_cast<const unsigned char*>(pointer) - heap;
    auto after = live_allocations.upper_bound(size_t(offset));
    if (!heap || offset < 0 || after == live_allocations.begin()) return live_allocations.end();
    return std::prev(after);
}

bool owns(const void* pointer, size_t bytes) {
    const auto allocation = find_allocation(pointer);
    if (allocation == live_allocations.end()) return false;
    const size_t offset = size_t(static_cast<const unsigned char*>(pointer) - heap);
    return offset + bytes <= allocation->first + allocation->second;
}

bool fence_intact(size_t offset, size_t bytes) {
    static const std::vector<unsigned char> expected(ALIGNMENT + FENCE_BYTES, FENCE);
    return memcmp(heap + offset + bytes, expected.data(), footprint(bytes) - bytes) == 0;
}

} // namespace

unsigned char* device_base() { return heap; }

unsigned char* reserve_memory(size_t bytes) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr, "simulator: cannot reserve %zu bytes of address space\n", bytes);
        abort();
    }
    return static_cast<unsigned char*>(memory);
}

void* device_allocate(size_t bytes) {
    const std::lock_guard<std::mutex> lock(heap_mutex);
    initialise_heap();
    const size_t total = footprint(bytes);
    size_t offset = 0;
    if (!take_range(total, offset)) {
        shrink_quarantine(0);
        if (!take_range(total, offset)) return nullptr;
    }
    make_unaddressable_up_to(offset + total);
    make_addressable(heap + offset, total);
    memset(heap + offset, POISON, bytes);
    memset(heap + offset + bytes, FENCE, total - bytes);
    make_unaddressable(heap + offset + bytes, total - bytes);
    checker_allocate(heap + offset, bytes);
    live_allocations[offset] = bytes;
    used_bytes += total;
    return heap + offset;
}

bool device_free(void* pointer) {
    const std::lock_guard<std::mutex> lock(heap_mutex);
    const auto allocation = find_allocation(pointer);
    if (allocation == live_allocations.end() || heap + allocation->first != pointer) return false;
    const auto [offset, bytes] = *allocation;
    live_allocations.erase(allocation);
    memset(heap + offset, POISON, bytes);
    make_unaddressable(heap + offset, bytes);
    checker_free(heap + offset, bytes);
    quarantine.push_back({offset, footprint(bytes)});
    quarantined_bytes += footprint(bytes);
    used_bytes -= footprint(bytes);
    shrink_quarantine(QUARANTINE_BYTES);
    return true;
}

bool device_owns(const void* pointer, size_t bytes) {
    const std::lock_guard<std::mutex> lock(heap_mutex);
    return owns(pointer, bytes);
}

size_t device_total_bytes() { return DEVICE_BYTES; }

size_t device_free_bytes() {
    const std::lock_guard<std::mutex> lock(heap_mutex);
    return DEVICE_BYTES - FENCE_BYTES - used_bytes;
}

void device_write(void* destination, const void* source, size_t bytes) {
    memmove(destination, source, bytes);
    checker_mark_initialised(destination, bytes);
}

void device_fill(void* destination, unsigned value, size_t value_bytes, size_t count) {
    unsigned char* bytes = static_cast<unsigned char*>(destination);
    for (size_t i = 0; i < count; i++) memcpy(bytes + i * value_bytes, &value, value_bytes);
    checker_mark_initialised(destination, value_bytes * count);
}

void check_device_range(const void* pointer, size_t bytes, const char* instruction, Site site) {
    if (device_owns(pointer, bytes)) return;
    fail("%s at %s:%d: global memory out of bounds, %zu bytes at %p", instruction, site.file, site.line, bytes,
         pointer);
}

std::string overwritten_device_guard() {
    if (!FENCES_ARE_READABLE) return {};
    const std::lock_guard<std::mutex> lock(heap_mutex);
    for (const auto& [offset, bytes] : live_allocations) {
        if (fence_intact(offset, bytes)) continue;
        memset(heap + offset + bytes, FENCE, footprint(bytes) - bytes);
        return "global memory out of bounds: a write after an allocation of " + std::to_string(bytes) + " bytes";
    }
    return {};
}

} // namespace simulator
