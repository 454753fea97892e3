// cp.async, ldmatrix and mma.sync. Layouts as the PTX manual gives them; tests/cuda_simulator/wrappers keeps them
// comparable with a GPU.
#include "barrier.hpp"
#include "checker.hpp"
#include "memory.hpp"
#include "tensor_core.hpp"

namespace simulator {

namespace {

void complete_copy(const AsyncCopy& copy) {
    unsigned char* destination = shared_pointer(copy.destination, 16);
    const size_t bytes = size_t(copy.source_bytes);
    memset(destination, 0, 16);
    if (bytes > 0) {
        check_device_range(copy.source, bytes, "cp.async", copy.site);
        checker_read(current_fiber(), copy.source, bytes, copy.site);
        memcpy(destination, copy.source, bytes);
    }
    checker_write(current_fiber(), destination, 16, copy.site);
}

struct LdmatrixArgument {
    uint32_t row_address;
    uint32_t* fragment;
    int matrices;
    bool transposed;
    Site site;
};

const LdmatrixArgument& ldmatrix_argument(void* const* arguments, unsigned lane) {
    return *static_cast<const LdmatrixArgument*>(arguments[lane]);
}

void load_matrix(void* const* arguments, int matrix, uint16_t (&elements)[8][8]) {
    for (unsigned row = 0; row < 8; row++) {
        const unsigned lane = unsigned(matrix) * 8 + row;
        const LdmatrixArgument& argument = ldmatrix_argument(arguments, lane);
        if (argument.row_address % 16 != 0) fail("ldmatrix: the address of lane %u is not 16-byte aligned", lane);
        const unsigned char* source = shared_pointer(argument.row_address, 16);
        checker_read(block.fibers[current_thread->warp * WARP_THREADS + lane], source, 16, argument.site);
        memcpy(elements[row], source, 16);
    }
}

void run_ldmatrix(void* const* arguments, uint32_t lanes) {
    if (lanes != ~0u) fail("ldmatrix needs a whole warp");
    const LdmatrixArgument& first = ldmatrix_argument(arguments, 0);
    for (int matrix = 0; matrix < first.matrices; matrix++) {
        uint16_t elements[8][8];
        load_matrix(arguments, matrix, elements);
        for (unsigned lane = 0; lane < WARP_THREADS; lane++) {
            const unsigned row = lane / 4;
            const unsigned column = lane % 4 * 2;
            const uint16_t low = first.transposed ? elements[column][row] : elements[row][column];
            const uint16_t high = first.transposed ? elements[column + 1][row] : elements[row][column + 1];
            ldmatrix_argument(arguments, lane).fragment[matrix] = low | uint32_t(high) << 16;
        }
    }
}

struct MmaArgument {
    float* accumulator;
    const uint32_t* a;
    const uint32_t* b;
};

float low_element(Storage storage, uint32_t word) { return element_to_float(storage, uint16_t(word)); }
float high_element(Storage storage, uint32_t word) { return element_to_float(storage, uint16_t(word >> 16)); }

template <Storage storage> void run_mma(void* const* arguments, uint32_t lanes) {
    if (lanes != ~0u) fail("mma.sync needs a whole warp");
    float a[16][16];
    float b[16][8];
    for (unsigned lane = 0; lane < WARP_THREADS; lane++) {
        const MmaArgument& argument = *static_cast<const MmaArgument*>(arguments[lane]);
        const unsigned group = lane / 4;
        const unsigned pair = lane % 4 * 2;
        for (unsigned i = 0; i < 4; i++) {
            const unsigned row = group + i % 2 * 8;
            const unsigned k = pair + i / 2 * 8;
            a[row][k] = low_element(storage, argument.a[i]);
            a[row][k + 1] = high_element(storage, argument.a[i]);
        }
        for (unsigned i = 0; i < 2; i++) {
            b[pair + i * 8][group] = low_element(storage, argument.b[i]);
            b[pair + i * 8 + 1][group] = high_element(storage, argument.b[i]);
        }
    }
    float product[16][8] = {};
    for (unsigned row = 0; row < 16; row++) {
        for (unsigned k = 0; k < 16; k++) {
            for (unsigned column = 0; column < 8; column++) product[row][column] += a[row][k] * b[k][column];
        }
    }
    for (unsigned lane = 0; lane < WARP_THREADS; lane++) {
        float* accumulator = static_cast<const MmaArgument*>(arguments[lane])->accumulator;
        for (unsigned i = 0; i < 4; i++) accumulator[i] += product[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
    }
}

} // namespace

void cp_async(uint32_t destination, const void* source, int source_bytes, Site site) {
    if (source_bytes < 0 || source_bytes > 16) fail("cp.async of %d bytes", source_bytes);
    require_capability(80, "cp.async");
    const bool aligned = destination % 16 == 0 && (source_bytes == 0 || reinterpret_cast<uintptr_t>(source) % 16 == 0);
    if (!aligned) fail("cp.async at %s:%d: an address is not 16-byte aligned", site.file, site.line);
    const AsyncCopy copy{destination, source, source_bytes, site};
    if (takes_effect_at_issue()) {
        complete_copy(copy);
    } else {
        current_fiber().open_copies.push_back(copy);
    }
}

void cp_async_commit() {
    Fiber& self = current_fiber();
    self.committed_copies.push_back(std::move(self.open_copies));
    self.open_copies.clear();
}

void cp_async_wait(size_t pending) {
    std::vector<std::vector<AsyncCopy>>& groups = current_fiber().committed_copies;
    while (groups.size() > pending) {
        for (const AsyncCopy& copy : groups.front()) complete_copy(copy);
        groups.erase(groups.begin());
    }
}

void ldmatrix(uint32_t* fragment, int matrices, bool transposed, uint32_t row_address, Site site) {
    LdmatrixArgument argument{row_address, fragment, matrices, transposed, site};
    const char* operation = matrices == 4 ? (transposed ? "ldmatrix_x4_trans" : "ldmatrix_x4")
                                          : (transposed ? "ldmatrix_x2_trans" : "ldmatrix_x2");
    warp_collective(~0u, operation, site, &argument, run_ldmatrix);
}

void mma_m16n8k16(Storage storage, float* accumulator, const uint32_t* a, const uint32_t* b, Site site) {
    require_capability(80, "mma.sync.m16n8k16");
    MmaArgument argument{accumulator, a, b};
    WarpFunction function = storage == Storage::BF16 ? run_mma<Storage::BF16> : run_mma<Storage::F16>;
    warp_collective(~0u, "mma_m16n8k16", site, &argument, function);
}

} // namespace simulator
