// Allocation, copies and fills. A range that is not inside one live allocation is INVALID_VALUE.
#include "driver.hpp"

#include <cstdlib>
#include <cstring>

using namespace driver;

namespace {

Result allocate(DevicePointer* pointer, size_t bytes) {
    if (bytes == 0) return INVALID_VALUE;
    void* memory = simulator::device_allocate(bytes);
    *pointer = reinterpret_cast<DevicePointer>(memory);
    return memory ? SUCCESS : OUT_OF_MEMORY;
}

Result release(DevicePointer pointer) {
    if (pointer == 0) return SUCCESS;
    return simulator::device_free(host_pointer(pointer)) ? SUCCESS : INVALID_VALUE;
}

bool on_device(DevicePointer pointer, size_t bytes) {
    return bytes == 0 || simulator::device_owns(host_pointer(pointer), bytes);
}

Result copy_to_device(DevicePointer destination, const void* source, size_t bytes) {
    if (!on_device(destination, bytes)) return INVALID_VALUE;
    simulator::device_write(host_pointer(destination), source, bytes);
    return SUCCESS;
}

Result copy_to_host(void* destination, DevicePointer source, size_t bytes) {
    if (!on_device(source, bytes)) return INVALID_VALUE;
    memcpy(destination, host_pointer(source), bytes);
    return SUCCESS;
}

Result copy_on_device(DevicePointer destination, DevicePointer source, size_t bytes) {
    if (!on_device(source, bytes)) return INVALID_VALUE;
    return copy_to_device(destination, host_pointer(source), bytes);
}

Result fill(DevicePointer destination, unsigned value, size_t value_bytes, size_t count) {
    const bool aligned = destination % value_bytes == 0;
    if (!aligned || !on_device(destination, value_bytes * count)) return INVALID_VALUE;
    simulator::device_fill(host_pointer(destination), value, value_bytes, count);
    return SUCCESS;
}

Result unless_capturing(const Operation& operation) {
    const Result forbidden = forbid_during_capture();
    return forbidden == SUCCESS ? operation() : forbidden;
}

} // namespace

DRIVER_API Result cuMemGetInfo_v2(size_t* free, size_t* total) {
    *free = simulator::device_free_bytes();
    *total = simulator::device_total_bytes();
    return SUCCESS;
}

DRIVER_API Result cuMemAlloc_v2(DevicePointer* pointer, size_t bytes) {
    return unless_capturing([=] { return allocate(pointer, bytes); });
}

DRIVER_API Result cuMemFree_v2(DevicePointer pointer) {
    return unless_capturing([=] { return release(pointer); });
}

DRIVER_API Result cuMemAllocAsync(DevicePointer* pointer, size_t bytes, StreamHandle stream) {
    const Result forbidden = forbid_on_capturing_stream(stream);
    return forbidden == SUCCESS ? allocate(pointer, bytes) : forbidden;
}

DRIVER_API Result cuMemFreeAsync(DevicePointer pointer, StreamHandle stream) {
    const Result forbidden = forbid_on_capturing_stream(stream);
    return forbidden == SUCCESS ? release(pointer) : forbidden;
}

DRIVER_API Result cuMemHostAlloc(void** pointer, size_t bytes, unsigned) {
    *pointer = malloc(bytes);
    return *pointer ? SUCCESS : OUT_OF_MEMORY;
}

DRIVER_API Result cuMemFreeHost(void* pointer) {
    free(pointer);
    return SUCCESS;
}

DRIVER_API Result cuMemcpyHtoD_v2(DevicePointer destination, const void* source, size_t bytes) {
    return unless_capturing([=] { return copy_to_device(destination, source, bytes); });
}

DRIVER_API Result cuMemcpyDtoH_v2(void* destination, DevicePointer source, size_t bytes) {
    return unless_capturing([=] { return copy_to_host(destination, source, bytes); });
}

DRIVER_API Result cuMemcpyDtoD_v2(DevicePointer destination, DevicePointer source, size_t bytes) {
    return unless_capturing([=] { return copy_on_device(destination, source, bytes); });
}

DRIVER_API Result cuMemcpyHtoDAsync_v2(DevicePointer destination, const void* source, size_t bytes,
                                       StreamHandle stream) {
    return enqueue(stream, [=] { return copy_to_device(destination, source, bytes); });
}

DRIVER_API Result cuMemcpyDtoHAsync_v2(void* destination, DevicePointer source, size_t bytes, StreamHandle stream) {
    return enqueue(stream, [=] { return copy_to_host(destination, source, bytes); });
}

DRIVER_API Result cuMemcpyDtoDAsync_v2(DevicePointer destination, DevicePointer source, size_t bytes,
                                       StreamHandle stream) {
    return enqueue(stream, [=] { return copy_on_device(destination, source, bytes); });
}

DRIVER_API Result cuMemcpyPeerAsync(DevicePointer destination, void*, DevicePointer source, void*, size_t bytes,
                                    StreamHandle stream) {
    return cuMemcpyDtoDAsync_v2(destination, source, bytes, stream);
}

DRIVER_API Result cuMemsetD8_v2(DevicePointer destination, unsigned char value, size_t count) {
    return unless_capturing([=] { return fill(destination, value, 1, count); });
}

DRIVER_API Result cuMemsetD8Async(DevicePointer destination, unsigned char value, size_t count, StreamHandle stream) {
    return enqueue(stream, [=] { return fill(destination, value, 1, count); });
}

DRIVER_API Result cuMemsetD16Async(DevicePointer destination, unsigned short value, size_t count,
                                   StreamHandle stream) {
    return enqueue(stream, [=] { return fill(destination, value, 2, count); });
}

DRIVER_API Result cuMemsetD32Async(DevicePointer destination, unsigned value, size_t count, StreamHandle stream) {
    return enqueue(stream, [=] { return fill(destination, value, 4, count); });
}
