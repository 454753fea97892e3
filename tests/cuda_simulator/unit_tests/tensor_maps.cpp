// What cuTensorMapEncodeTiled refuses, condition by condition of the driver's manual.
#include "check.hpp"

#include "simulator.hpp"

extern "C" int cuTensorMapEncodeTiled(TensorMap*, int, unsigned, void*, const uint64_t*, const uint64_t*,
                                      const uint32_t*, const uint32_t*, int, int, int, int);

namespace {

const int SUCCESS = 0, INVALID_VALUE = 1, NOT_SUPPORTED = 801;

struct Arguments {
    int data_type = 6; // FLOAT16
    unsigned rank = 2;
    uint64_t base = 4096;
    uint64_t extent[2] = {100, 7};
    uint64_t stride = 208;
    uint32_t box[2] = {64, 256};
    uint32_t element_strides[2] = {1, 1};
    int interleave = 0;
    int swizzle = 3; // 128 bytes
    int promotion = 3;
    int out_of_bounds = 0;
    size_t map_offset = 0;
};

int encode(const Arguments& arguments) {
    alignas(64) unsigned char memory[sizeof(TensorMap) + 64];
    TensorMap* map = reinterpret_cast<TensorMap*>(memory + arguments.map_offset);
    return cuTensorMapEncodeTiled(map, arguments.data_type, arguments.rank, reinterpret_cast<void*>(arguments.base),
                                  arguments.extent, &arguments.stride, arguments.box, arguments.element_strides,
                                  arguments.interleave, arguments.swizzle, arguments.promotion,
                                  arguments.out_of_bounds);
}

template <class Change> void expect(int result, const char* what, const Change& change) {
    Arguments arguments;
    change(arguments);
    check(encode(arguments) == result, what, result);
}

} // namespace

void test_tensor_maps() {
    expect(SUCCESS, "a map", [](Arguments&) {});
    expect(SUCCESS, "rows without gaps", [](Arguments& a) { a.extent[0] = 104; });
    expect(SUCCESS, "a wide box without swizzle", [](Arguments& a) { a.swizzle = 0, a.box[0] = 256; });
    expect(INVALID_VALUE, "map not aligned to 64", [](Arguments& a) { a.map_offset = 32; });
    expect(INVALID_VALUE, "base not aligned to 16", [](Arguments& a) { a.base += 8; });
    expect(INVALID_VALUE, "no base", [](Arguments& a) { a.base = 0; });
    expect(INVALID_VALUE, "stride not a multiple of 16", [](Arguments& a) { a.stride = 216; });
    expect(INVALID_VALUE, "stride of 2^40", [](Arguments& a) { a.stride = 1ull << 40; });
    expect(INVALID_VALUE, "rows that overlap", [](Arguments& a) { a.stride = 192; });
    expect(INVALID_VALUE, "no columns", [](Arguments& a) { a.extent[0] = 0; });
    expect(INVALID_VALUE, "no rows", [](Arguments& a) { a.extent[1] = 0; });
    expect(INVALID_VALUE, "more than 2^32 rows", [](Arguments& a) { a.extent[1] = (1ull << 32) + 1; });
    expect(INVALID_VALUE, "a box of 257 rows", [](Arguments& a) { a.box[1] = 257; });
    expect(INVALID_VALUE, "an empty box", [](Arguments& a) { a.box[1] = 0; });
    expect(INVALID_VALUE, "a row of a box beyond the swizzle", [](Arguments& a) { a.box[0] = 72; });
    expect(INVALID_VALUE, "a row of a box of 24 bytes", [](Arguments& a) { a.box[0] = 12; });
    expect(INVALID_VALUE, "steps between elements", [](Arguments& a) { a.element_strides[0] = 2; });
    expect(INVALID_VALUE, "an unknown promotion", [](Arguments& a) { a.promotion = 4; });
    expect(NOT_SUPPORTED, "f32", [](Arguments& a) { a.data_type = 7; });
    expect(NOT_SUPPORTED, "three dimensions", [](Arguments& a) { a.rank = 3; });
    simulator::config().compute_capability = 89;
    expect(NOT_SUPPORTED, "a device without TMA", [](Arguments&) {});
    simulator::config().compute_capability = 90;
}
