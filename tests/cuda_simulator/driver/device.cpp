// Initialisation, the one device and its attributes, contexts, error texts.
#include "driver.hpp"

#include <cstdio>
#include <cstring>
#include <deque>

namespace {

const int DRIVER_VERSION = 13040; // the newest that cudarc has bindings for
const int MULTIPROCESSORS = 4;    // small, so that persistent kernels loop
int context_tag;
thread_local void* current_context = nullptr;

// Kept for ever: cuGetErrorString hands out pointers to them.
std::deque<std::string> launch_failures;

int attribute_value(int attribute) {
    const int capability = simulator::config().compute_capability;
    const int shared_bytes = int(simulator::max_shared_bytes(capability));
    const int reserved_shared_bytes = capability >= 80 ? 1024 : 0;
    switch (attribute) {
    case 1: // MAX_THREADS_PER_BLOCK
    case 2: // MAX_BLOCK_DIM_X
    case 3: // MAX_BLOCK_DIM_Y
        return 1024;
    case 4: // MAX_BLOCK_DIM_Z
        return 64;
    case 5: // MAX_GRID_DIM_X
        return 0x7fffffff;
    case 6: // MAX_GRID_DIM_Y
    case 7: // MAX_GRID_DIM_Z
        return 65535;
    case 8: // MAX_SHARED_MEMORY_PER_BLOCK
        return 48 << 10;
    case 10: // WARP_SIZE
        return 32;
    case 12: // MAX_REGISTERS_PER_BLOCK
    case 82: // MAX_REGISTERS_PER_MULTIPROCESSOR
        return 65536;
    case 13: // CLOCK_RATE, kHz
    case 36: // MEMORY_CLOCK_RATE, kHz
        return 1000000;
    case 16: // MULTIPROCESSOR_COUNT
        return MULTIPROCESSORS;
    case 37: // GLOBAL_MEMORY_BUS_WIDTH, bits
        return 64;
    case 38: // L2_CACHE_SIZE
        return 1 << 20;
    case 39: // MAX_THREADS_PER_MULTIPROCESSOR
        return capability < 80 ? 1024 : 2048;
    case 41:  // UNIFIED_ADDRESSING
    case 115: // MEMORY_POOLS_SUPPORTED
        return 1;
    case 75: // COMPUTE_CAPABILITY_MAJOR
        return capability / 10;
    case 76: // COMPUTE_CAPABILITY_MINOR
        return capability % 10;
    case 81: // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
        return shared_bytes + reserved_shared_bytes;
    case 97: // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
        return shared_bytes;
    case 106: // MAX_BLOCKS_PER_MULTIPROCESSOR
        return 16;
    case 111: // RESERVED_SHARED_MEMORY_PER_BLOCK
        return reserved_shared_bytes;
    default:
        return 0;
    }
}

struct ErrorText {
    Result result;
    const char* name;
    const char* text;
};

const ErrorText ERROR_TEXTS[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {STREAM_CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not ended in the same stream"},
    {STREAM_CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
     "dependency created on uncaptured work in another stream"},
    {CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capture"},
    {STREAM_CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
     "attempt to terminate a thread-local capture sequence from another thread"},
};

const ErrorText* error_text(int error) {
    for (const ErrorText& entry : ERROR_TEXTS) {
        if (entry.result == error) return &entry;
    }
    return nullptr;
}

} // namespace

namespace driver {

std::mutex mutex;

void report_launch_failure(const std::string& message) {
    fprintf(stderr, "simulator: %s\n", message.c_str());
    const std::lock_guard<std::mutex> lock(mutex);
    launch_failures.push_back("unspecified launch failure: " + message);
}

} // namespace driver

DRIVER_API Result cuInit(unsigned) {
    simulator::config(); // a bad environment variable is reported here and not at the first launch
    return SUCCESS;
}

DRIVER_API Result cuDriverGetVersion(int* version) {
    *version = DRIVER_VERSION;
    return SUCCESS;
}

DRIVER_API Result cuDeviceGetCount(int* count) {
    *count = 1;
    return SUCCESS;
}

DRIVER_API Result cuDeviceGet(int* device, int ordinal) {
    if (ordinal != 0) return INVALID_DEVICE;
    *device = 0;
    return SUCCESS;
}

DRIVER_API Result cuDeviceGetName(char* name, int length, int) {
    snprintf(name, size_t(length), "siluette CUDA simulator");
    return SUCCESS;
}

DRIVER_API Result cuDeviceGetUuid_v2(unsigned char* uuid, int) {
    memcpy(uuid, "siluettesimulate", 16);
    return SUCCESS;
}

DRIVER_API Result cuDeviceGetUuid(unsigned char* uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }

DRIVER_API Result cuDeviceGetAttribute(int* value, int attribute, int) {
    *value = attribute_value(attribute);
    return SUCCESS;
}

DRIVER_API Result cuDeviceTotalMem_v2(size_t* bytes, int) {
    *bytes = simulator::device_total_bytes();
    return SUCCESS;
}

DRIVER_API Result cuDevicePrimaryCtxRetain(void** context, int) {
    *context = &context_tag;
    return SUCCESS;
}

DRIVER_API Result cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }

DRIVER_API Result cuCtxSetCurrent(void* context) {
    if (context && context != &context_tag) return INVALID_CONTEXT;
    current_context = context;
    return SUCCESS;
}

DRIVER_API Result cuCtxGetCurrent(void** context) {
    *context = current_context;
    return SUCCESS;
}

DRIVER_API Result cuCtxGetDevice(int* device) {
    if (!current_context) return INVALID_CONTEXT;
    *device = 0;
    return SUCCESS;
}

DRIVER_API Result cuCtxSynchronize() { return driver::forbid_during_capture(); }

DRIVER_API Result cuCtxSetFlags(unsigned) { return SUCCESS; }

DRIVER_API Result cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    *least = 0;
    *greatest = 0;
    return SUCCESS;
}

DRIVER_API Result cuProfilerStart() { return SUCCESS; }
DRIVER_API Result cuProfilerStop() { return SUCCESS; }

DRIVER_API Result cuGetErrorName(int error, const char** name) {
    const ErrorText* entry = error_text(error);
    *name = entry ? entry->name : nullptr;
    return entry ? SUCCESS : INVALID_VALUE;
}

DRIVER_API Result cuGetErrorString(int error, const char** text) {
    const ErrorText* entry = error_text(error);
    *text = entry ? entry->text : nullptr;
    const std::lock_guard<std::mutex> lock(driver::mutex);
    if (error == LAUNCH_FAILED && !launch_failures.empty()) *text = launch_failures.back().c_str();
    return entry ? SUCCESS : INVALID_VALUE;
}
