// The device heap: reuse, exhaustion, poison, ranges.
#include "check.hpp"

#include <cmath>
#include <set>

namespace {

const size_t MEBIBYTE = 1 << 20;

void test_reuse() {
    const size_t free_before = simulator::device_free_bytes();
    const size_t rounds = 40;
    std::set<void*> addresses;
    for (size_t i = 0; i < rounds; i++) {
        void* large = simulator::device_allocate(8 * MEBIBYTE / (1 + i % 3));
        void* small = simulator::device_allocate(1 + i);
        check(large && small, "an allocation among many", long(i));
        addresses.insert(large);
        check(simulator::device_free(large) && simulator::device_free(small), "a free among many", long(i));
    }
    check(addresses.size() < rounds, "freed memory is used again", long(addresses.size()));
    check(simulator::device_free_bytes() == free_before, "all memory is free again", 0);
}

void test_exhaustion() {
    check(simulator::device_allocate(simulator::device_total_bytes()) == nullptr, "more than the device has", 0);
    const size_t almost_all = simulator::device_free_bytes() - MEBIBYTE;
    check(simulator::device_allocate(almost_all + 2 * MEBIBYTE) == nullptr, "more than is free", 0);
}

void test_ranges() {
    unsigned char* start = static_cast<unsigned char*>(simulator::device_allocate(1000));
    check(reinterpret_cast<uintptr_t>(start) % 256 == 0, "alignment", 0);
    check(simulator::device_owns(start, 1000), "the whole allocation", 0);
    check(simulator::device_owns(start + 999, 1), "its last byte", 0);
    check(!simulator::device_owns(start + 999, 2), "one byte too many", 0);
    check(!simulator::device_owns(start - 1, 1), "one byte before", 0);
    check(!simulator::device_free(start + 1), "freeing the inside", 0);
    check(simulator::device_free(start), "freeing", 0);
    check(!simulator::device_free(start), "freeing twice", 0);
    check(!simulator::device_owns(start, 1), "after the free", 0);
}

void test_poison() {
    float* values = static_cast<float*>(simulator::device_allocate(64 * sizeof(float)));
    for (int i = 0; i < 64; i++) check(std::isnan(values[i]), "fresh memory is NaN", i);
    simulator::device_fill(values, 0x01020304, 4, 64);
    for (int i = 0; i < 64; i++) check(__float_as_uint(values[i]) == 0x01020304u, "fill", i);
    simulator::device_free(values);
}

} // namespace

void test_device_memory() {
    test_reuse();
    test_exhaustion();
    test_ranges();
    test_poison();
}
