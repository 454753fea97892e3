// Modules, functions, launches, occupancy, tensor maps.
#include "driver.hpp"
#include "image.hpp"

#include "simulator/hopper.hpp"

#include <cstring>
#include <set>

using namespace driver;

namespace {

const unsigned MAX_BLOCK_THREADS = 1024;

struct Function {
    const simulator::Kernel* kernel;
    // Raised by cuFuncSetAttribute; a launch that asks for more is refused, as on a GPU.
    int max_dynamic_shared_bytes = int(simulator::DEFAULT_SHARED_BYTES);
    bool opted_in = false;
};

struct Module {
    std::map<std::string, Function> functions;
};

std::set<Module*> modules;

enum FunctionAttribute { MAX_THREADS_PER_BLOCK = 0, BINARY_VERSION = 6, MAX_DYNAMIC_SHARED_SIZE_BYTES = 8 };

// A kernel's parameters, copied at the call as the driver does: the caller's may be gone when a graph replays.
struct Arguments {
    struct alignas(64) Unit {
        unsigned char bytes[64];
    };
    std::vector<std::vector<Unit>> values;

    Arguments(const simulator::Kernel& kernel, void** parameters) {
        for (size_t i = 0; i < kernel.argument_sizes.size(); i++) {
            const size_t bytes = kernel.argument_sizes[i];
            values.emplace_back((bytes + sizeof(Unit) - 1) / sizeof(Unit));
            memcpy(values.back().data(), parameters[i], bytes);
        }
    }

    std::vector<void*> pointers() {
        std::vector<void*> result;
        for (std::vector<Unit>& value : values) result.push_back(value.data());
        return result;
    }
};

bool valid_geometry(dim3 grid, dim3 block) {
    const bool empty = !grid.x || !grid.y || !grid.z || !block.x || !block.y || !block.z;
    const bool large_grid = grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535;
    const bool large_block = block.x > 1024 || block.y > 1024 || block.z > 64;
    return !empty && !large_grid && !large_block && block.x * block.y * block.z <= MAX_BLOCK_THREADS;
}

Result launch(void* handle, dim3 grid, dim3 block, unsigned dynamic_shared, StreamHandle stream, void** parameters) {
    if (!handle) return INVALID_HANDLE;
    const Function& function = *static_cast<const Function*>(handle);
    const bool shared_fits = dynamic_shared <= unsigned(function.max_dynamic_shared_bytes);
    if (!valid_geometry(grid, block) || !shared_fits) return INVALID_VALUE;
    const simulator::Kernel* kernel = function.kernel;
    const unsigned device_limit = simulator::max_shared_bytes(simulator::config().compute_capability);
    const size_t shared_limit = function.opted_in ? device_limit : simulator::DEFAULT_SHARED_BYTES;
    const auto arguments = std::make_shared<Arguments>(*kernel, parameters);
    return enqueue(stream, [=] {
        std::vector<void*> pointers = arguments->pointers();
        const std::string failure = simulator::run({kernel, grid, block, dynamic_shared, pointers.data(), shared_limit});
        if (failure.empty()) return SUCCESS;
        report_launch_failure(failure);
        return LAUNCH_FAILED;
    });
}

// CUlaunchConfig.
struct LaunchConfig {
    unsigned grid[3];
    unsigned block[3];
    unsigned dynamic_shared_bytes;
    StreamHandle stream;
    const struct LaunchAttribute* attributes;
    unsigned attribute_count;
};

// CUlaunchAttribute.
struct LaunchAttribute {
    unsigned id;
    unsigned padding;
    unsigned char value[64];
};
static_assert(sizeof(LaunchAttribute) == 72 && sizeof(LaunchConfig) == 56, "as in cuda.h");

} // namespace

DRIVER_API Result cuModuleLoadData(void** handle, const void* data) {
    const Result forbidden = forbid_during_capture();
    if (forbidden != SUCCESS) return forbidden;
    if (!image::is_valid(static_cast<const char*>(data))) return INVALID_IMAGE;
    const std::lock_guard<std::mutex> lock(driver::mutex);
    Module* module = new Module;
    modules.insert(module);
    *handle = module;
    return SUCCESS;
}

DRIVER_API Result cuModuleUnload(void* handle) {
    const std::lock_guard<std::mutex> lock(driver::mutex);
    Module* module = static_cast<Module*>(handle);
    if (modules.erase(module) == 0) return INVALID_HANDLE;
    delete module;
    return SUCCESS;
}

DRIVER_API Result cuModuleGetFunction(void** handle, void* module_handle, const char* name) {
    const std::lock_guard<std::mutex> lock(driver::mutex);
    Module* module = static_cast<Module*>(module_handle);
    if (!modules.count(module)) return INVALID_HANDLE;
    const simulator::Kernel* kernel = simulator::find_kernel(name);
    if (!kernel) return NOT_FOUND;
    *handle = &module->functions.emplace(name, Function{kernel}).first->second;
    return SUCCESS;
}

DRIVER_API Result cuFuncGetAttribute(int* value, int attribute, void* handle) {
    const Function& function = *static_cast<const Function*>(handle);
    switch (attribute) {
    case MAX_THREADS_PER_BLOCK:
        *value = int(MAX_BLOCK_THREADS);
        break;
    case BINARY_VERSION:
        *value = simulator::config().compute_capability;
        break;
    case MAX_DYNAMIC_SHARED_SIZE_BYTES:
        *value = function.max_dynamic_shared_bytes;
        break;
    default: // registers, local, constant and static shared memory are ptxas's business
        *value = 0;
    }
    return SUCCESS;
}

DRIVER_API Result cuFuncSetAttribute(void* handle, int attribute, int value) {
    if (attribute != MAX_DYNAMIC_SHARED_SIZE_BYTES) return SUCCESS;
    const int limit = int(simulator::max_shared_bytes(simulator::config().compute_capability));
    if (value < 0 || value > limit) return INVALID_VALUE;
    Function& function = *static_cast<Function*>(handle);
    function.max_dynamic_shared_bytes = value;
    function.opted_in = true;
    return SUCCESS;
}

DRIVER_API Result cuFuncSetCacheConfig(void*, int) { return SUCCESS; }

DRIVER_API Result cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                                 unsigned block_y, unsigned block_z, unsigned dynamic_shared, StreamHandle stream,
                                 void** parameters, void**) {
    return launch(function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, dynamic_shared, stream, parameters);
}

DRIVER_API Result cuLaunchKernelEx(const LaunchConfig* config, void* function, void** parameters, void**) {
    const unsigned cooperative = 2, cluster_dimension = 4; // blocks run one after another, so neither can work
    for (unsigned i = 0; i < config->attribute_count; i++) {
        const unsigned id = config->attributes[i].id;
        if (id == cooperative || id == cluster_dimension) return NOT_SUPPORTED;
    }
    const dim3 grid(config->grid[0], config->grid[1], config->grid[2]);
    const dim3 block(config->block[0], config->block[1], config->block[2]);
    return launch(function, grid, block, config->dynamic_shared_bytes, config->stream, parameters);
}

DRIVER_API Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int block_threads,
                                                              size_t dynamic_shared) {
    if (block_threads <= 0 || unsigned(block_threads) > MAX_BLOCK_THREADS) return INVALID_VALUE;
    const int capability = simulator::config().compute_capability;
    const int threads = capability < 80 ? 1024 : 2048;
    const size_t shared = simulator::max_shared_bytes(capability);
    const int by_threads = std::min(16, threads / block_threads);
    const size_t by_shared = dynamic_shared ? shared / dynamic_shared : 16;
    *blocks = int(std::min(size_t(by_threads), by_shared));
    return SUCCESS;
}

DRIVER_API Result cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, void* function, int block_threads,
                                                                       size_t dynamic_shared, unsigned) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, block_threads, dynamic_shared);
}

// Two dimensions, 16-bit elements, no swizzle or the 128-byte one: what device.cuh's tma_load_2d is for. Refuses what the
// driver's manual says is refused.
DRIVER_API Result cuTensorMapEncodeTiled(TensorMap* map, int data_type, unsigned rank, void* base,
                                         const uint64_t* extent, const uint64_t* strides, const uint32_t* box,
                                         const uint32_t* element_strides, int interleave, int swizzle, int promotion,
                                         int out_of_bounds) {
    const int uint16 = 1, float16 = 6, bfloat16 = 9, no_swizzle = 0, swizzle_128_bytes = 3, promotion_256_bytes = 3;
    const uint64_t element = 2, max_extent = 1ull << 32, max_stride = 1ull << 40, alignment = 16;
    const bool sixteen_bits = data_type == uint16 || data_type == float16 || data_type == bfloat16;
    const bool known_swizzle = swizzle == no_swizzle || swizzle == swizzle_128_bytes;
    const bool has_maps = simulator::config().compute_capability >= 90;
    if (!has_maps || rank != 2 || !sixteen_bits || !known_swizzle || interleave != 0 || out_of_bounds != 0) {
        return NOT_SUPPORTED;
    }
    const auto multiple = [](uint64_t value, uint64_t of) { return value % of == 0; };
    const auto within = [](uint64_t value, uint64_t most) { return value >= 1 && value <= most; };
    const bool map_fits = map && multiple(reinterpret_cast<uintptr_t>(map), alignof(TensorMap));
    const bool base_fits = base && multiple(reinterpret_cast<uintptr_t>(base), alignment);
    const bool extent_fits = within(extent[0], max_extent) && within(extent[1], max_extent);
    const bool stride_fits = multiple(strides[0], alignment) && strides[0] < max_stride;
    const bool rows_apart = strides[0] >= extent[0] * element;
    const bool box_fits = within(box[0], 256) && within(box[1], 256) && multiple(box[0] * element, alignment);
    const bool row_fits = swizzle == no_swizzle || box[0] * element <= 128;
    const bool unit_strides = element_strides[0] == 1 && element_strides[1] == 1;
    const bool known_promotion = promotion >= 0 && promotion <= promotion_256_bytes;
    if (!map_fits || !base_fits || !extent_fits || !stride_fits || !rows_apart || !box_fits || !row_fits ||
        !unit_strides || !known_promotion) {
        return INVALID_VALUE;
    }
    *map = {};
    map->base = static_cast<const unsigned char*>(base);
    map->extent[0] = extent[0];
    map->extent[1] = extent[1];
    map->row_stride = strides[0];
    map->box[0] = box[0];
    map->box[1] = box[1];
    map->element_bytes = uint32_t(element);
    map->swizzle_128_bytes = swizzle == swizzle_128_bytes;
    return SUCCESS;
}
