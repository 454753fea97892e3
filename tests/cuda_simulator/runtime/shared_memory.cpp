#include "block.hpp"
#include "checker.hpp"
#include "memory.hpp"
#include "sanitizer.hpp"

namespace simulator {

namespace {

const size_t FENCE_BYTES = 256;
const size_t STATIC_LIMIT = 48 << 10; // what ptxas allows to static arrays
const size_t STATIC_ALIGNMENT = 128;
const size_t DYNAMIC_ALIGNMENT = 1024;

struct Array {
    const void* key; // nullptr: the dynamic shared memory
    size_t offset;
    size_t bytes;
};

unsigned char* arena = nullptr;
std::vector<Array> arrays; // in the order of their offsets, a fence before each and after the last
size_t arena_top = 0;
size_t limit = 0; // of all arrays together

size_t total_bytes(bool only_static) {
    size_t total = 0;
    for (const Array& array : arrays) {
        if (array.key || !only_static) total += array.bytes;
    }
    return total;
}

void* place(const void* key, size_t bytes, size_t alignment) {
    const size_t offset = (arena_top + FENCE_BYTES + alignment - 1) / alignment * alignment;
    const size_t end = offset + bytes + FENCE_BYTES;
    if (end > SHARED_ARENA_BYTES) fail("shared memory does not fit the simulator's arena");
    make_addressable(arena + arena_top, end - arena_top);
    memset(arena + arena_top, FENCE, end - arena_top);
    memset(arena + offset, POISON, bytes);
    make_unaddressable(arena + arena_top, end - arena_top);
    make_addressable(arena + offset, bytes);
    checker_allocate(arena + offset, bytes);
    arena_top = offset + bytes;
    arrays.push_back({key, offset, bytes});
    return arena + offset;
}

bool overwritten(size_t start, size_t end) {
    for (size_t i = start; i < end; i++) {
        if (arena[i] != FENCE) return true;
    }
    return false;
}

} // namespace

unsigned char* shared_base() { return arena; }

void begin_block_shared(size_t dynamic_bytes, size_t limit_bytes) {
    limit = limit_bytes;
    if (!arena) arena = reserve_memory(SHARED_ARENA_BYTES);
    for (const Array& array : arrays) checker_free(arena + array.offset, array.bytes);
    arrays.clear();
    make_unaddressable(arena, SHARED_ARENA_BYTES);
    arena_top = 0;
    place(nullptr, dynamic_bytes, DYNAMIC_ALIGNMENT);
}

void* dynamic_shared() { return arena + arrays[0].offset; }

void* shared_array(const void* key, size_t bytes) {
    for (const Array& array : arrays) {
        if (array.key == key) return arena + array.offset;
    }
    void* result = place(key, bytes, STATIC_ALIGNMENT);
    if (total_bytes(true) > STATIC_LIMIT) fail("%zu bytes of static shared memory, at most 48 KiB", total_bytes(true));
    if (total_bytes(false) > limit) fail("%zu bytes of shared memory, at most %zu here", total_bytes(false), limit);
    return result;
}

uint32_t shared_address(const void* pointer) {
    const ptrdiff_t offset = static_cast<const unsigned char*>(pointer) - arena;
    if (offset < 0 || size_t(offset) >= SHARED_ARENA_BYTES) fail("smem_address of a pointer outside shared memory");
    return uint32_t(offset);
}

unsigned char* shared_pointer(uint32_t address, size_t bytes) {
    for (const Array& array : arrays) {
        if (address >= array.offset && address + bytes <= array.offset + array.bytes) return arena + address;
    }
    fail("shared memory out of bounds: %zu bytes at address %#x are in no array", bytes, address);
}

std::string overwritten_shared_guard() {
    if (!FENCES_ARE_READABLE) return {};
    size_t fence_start = 0;
    for (const Array& array : arrays) {
        const size_t end = array.offset + array.bytes;
        if (overwritten(fence_start, array.offset) || overwritten(end, end + FENCE_BYTES)) {
            return "shared memory out of bounds: a write beside an array of " + std::to_string(array.bytes) + " bytes";
        }
        fence_start = end;
    }
    return {};
}

} // namespace simulator
