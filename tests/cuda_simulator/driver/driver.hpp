// The stand-in driver's objects. Every enqueued operation runs at once, in the calling thread, unless its stream is
// being captured.
#pragma once

#include "../runtime/launch.hpp"

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#define DRIVER_API extern "C" __attribute__((visibility("default")))

// CUresult, as far as it is used.
enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
    STREAM_CAPTURE_UNSUPPORTED = 900,
    STREAM_CAPTURE_INVALIDATED = 901,
    STREAM_CAPTURE_UNMATCHED = 903,
    STREAM_CAPTURE_ISOLATION = 905,
    CAPTURED_EVENT = 907,
    STREAM_CAPTURE_WRONG_THREAD = 908,
};

using DevicePointer = unsigned long long;
using StreamHandle = void*;

namespace driver {

using Operation = std::function<Result()>;

enum class CaptureMode { Global = 0, ThreadLocal = 1, Relaxed = 2 };

struct Capture {
    CaptureMode mode;
    std::thread::id thread;
    bool invalidated = false;
    std::vector<Operation> operations;
};

struct Stream {
    std::shared_ptr<Capture> capture;
};

struct Event {
    bool has_timing;
    bool recorded = false;
    std::chrono::steady_clock::time_point time;
    std::shared_ptr<Capture> captured_in;
};

// A CUgraph and a CUgraphExec alike: operations never change after the capture.
struct Graph {
    std::vector<Operation> operations;
};

// Guards all of the driver's tables. Never held while an operation runs.
extern std::mutex mutex;

// Runs the operation, or records it if the stream is being captured.
Result enqueue(StreamHandle stream, Operation operation);

// What a call that allocates, frees or synchronises must ask first: the error that invalidates a capture, or SUCCESS.
Result forbid_during_capture();
Result forbid_on_capturing_stream(StreamHandle stream);

// A printed message, and from then on what cuGetErrorString says of LAUNCH_FAILED.
void report_launch_failure(const std::string& message);

inline void* host_pointer(DevicePointer pointer) { return reinterpret_cast<void*>(pointer); }

} // namespace driver
