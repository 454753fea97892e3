// Streams, events, stream capture and graphs.
#include "driver.hpp"

#include <cstdio>
#include <set>

using namespace driver;

namespace {

const unsigned EVENT_DISABLE_TIMING = 2;

Stream legacy_stream;     // handles 0 and 1
Stream per_thread_stream; // handle 2
std::set<Stream*> streams;
std::set<Event*> events;
std::set<Graph*> graphs;

// All of these expect the mutex to be held.

Stream* find_stream(StreamHandle handle) {
    const uintptr_t number = reinterpret_cast<uintptr_t>(handle);
    if (number < 2) return &legacy_stream;
    if (number == 2) return &per_thread_stream;
    Stream* stream = static_cast<Stream*>(handle);
    return streams.count(stream) ? stream : nullptr;
}

Event* find_event(void* handle) {
    Event* event = static_cast<Event*>(handle);
    return events.count(event) ? event : nullptr;
}

// True if this capture forbids the calling thread to allocate or synchronise.
bool forbids_this_thread(const Capture& capture) {
    switch (capture.mode) {
    case CaptureMode::Global:
        return true;
    case CaptureMode::ThreadLocal:
        return capture.thread == std::this_thread::get_id();
    case CaptureMode::Relaxed:
        return false;
    }
    return false;
}

std::vector<Stream*> all_streams() {
    std::vector<Stream*> all(streams.begin(), streams.end());
    all.push_back(&per_thread_stream);
    return all;
}

Result create_stream(void** handle) {
    const std::lock_guard<std::mutex> lock(driver::mutex);
    Stream* stream = new Stream;
    streams.insert(stream);
    *handle = stream;
    return SUCCESS;
}

Result make_graph(std::vector<Operation> operations, void** handle) {
    Graph* graph = new Graph{std::move(operations)};
    graphs.insert(graph);
    *handle = graph;
    return SUCCESS;
}

Result destroy_graph(void* handle) {
    const std::lock_guard<std::mutex> lock(driver::mutex);
    Graph* graph = static_cast<Graph*>(handle);
    if (graphs.erase(graph) == 0) return INVALID_HANDLE;
    delete graph;
    return SUCCESS;
}

} // namespace

namespace driver {

Result enqueue(StreamHandle handle, Operation operation) {
    {
        const std::lock_guard<std::mutex> lock(mutex);
        Stream* stream = find_stream(handle);
        if (!stream) return INVALID_HANDLE;
        if (stream->capture) {
            if (stream->capture->invalidated) return STREAM_CAPTURE_INVALIDATED;
            stream->capture->operations.push_back(std::move(operation));
            return SUCCESS;
        }
    }
    return operation();
}

Result forbid_during_capture() {
    const std::lock_guard<std::mutex> lock(mutex);
    Result result = SUCCESS;
    for (Stream* stream : all_streams()) {
        if (!stream->capture || !forbids_this_thread(*stream->capture)) continue;
        stream->capture->invalidated = true;
        result = STREAM_CAPTURE_UNSUPPORTED;
    }
    return result;
}

// The real driver can capture cuMemAllocAsync. Refusing it proves that a captured call allocates nothing.
Result forbid_on_capturing_stream(StreamHandle handle) {
    const std::lock_guard<std::mutex> lock(mutex);
    Stream* stream = find_stream(handle);
    if (!stream) return INVALID_HANDLE;
    if (!stream->capture) return SUCCESS;
    stream->capture->invalidated = true;
    return STREAM_CAPTURE_UNSUPPORTED;
}

} // namespace driver

DRIVER_API Result cuStreamCreate(void** stream, unsigned) { return create_stream(stream); }

DRIVER_API Result cuStreamCreateWithPriority(void** stream, unsigned, int) { return create_stream(stream); }

DRIVER_API Result cuStreamDestroy_v2(StreamHandle handle) {
    const std::lock_guard<std::mutex> lock(driver::mutex);
    Stream* stream = static_cast<Stream*>(handle);
    if (streams.erase(stream) == 0) return INVALID_HANDLE;
    delete stream;
    return SUCCESS;
}

DRIVER_API Result cuStreamSynchronize(StreamHandle handle) {
    const Result forbidden = forbid_on_capturing_stream(handle);
    return forbidden == SUCCESS ? forbid_during_capture() : forbidden;
}

DRIVER_API Result cuStreamQuery(StreamHandle handle) { return cuStreamSynchronize(handle); }

DRIVER_API Result cuStreamWaitEvent(StreamHandle stream_handle, void* event_handle, unsigned) {
    const std::lock_guard<std::mutex> lock(driver::mutex);
    const Stream* stream = find_stream(stream_handle);
    const Event* event = find_event(event_handle);
    if (!stream || !event) return INVALID_HANDLE;
    if (!event->recorded || event->captured_in == stream->capture) return SUCCESS;
    if (stream->capture) {
        stream->capture->invalidated = true;
        return STREAM_CAPTURE_ISOLATION;
    }
    fprintf(stderr, "simulator: a second stream joining a capture is not emulated\n");
    return NOT_SUPPORTED;
}

DRIVER_API Result cuLaunchHostFunc(StreamHandle stream, void (*function)(void*), void* data) {
    return enqueue(stream, [=] {
        function(data);
        return SUCCESS;
    });
}

DRIVER_API Result cuStreamBeginCapture_v2(StreamHandle handle, unsigned mode) {
    const std::lock_guard<std::mutex> lock(driver::mutex);
    Stream* stream = find_stream(handle);
    if (!stream) return INVALID_HANDLE;
    if (mode > 2) return INVALID_VALUE;
    if (stream == &legacy_stream || stream->capture) return STREAM_CAPTURE_UNSUPPORTED;
    stream->capture = std::make_shared<Capture>();
    stream->capture->mode = CaptureMode(mode);
    stream->capture->thread = std::this_thread::get_id();
    return SUCCESS;
}

DRIVER_API Result cuStreamIsCapturing(StreamHandle handle, int* status) {
    const int none = 0, active = 1, invalidated = 2;
    const std::lock_guard<std::mutex> lock(driver::mutex);
    const Stream* stream = find_stream(handle);
    if (!stream) return INVALID_HANDLE;
    *status = none;
    if (stream->capture) *status = stream->capture->invalidated ? invalidated : active;
    return SUCCESS;
}

DRIVER_API Result cuStreamEndCapture(StreamHandle handle, void** graph) {
    const std::lock_guard<std::mutex> lock(driver::mutex);
    *graph = nullptr;
    Stream* stream = find_stream(handle);
    if (!stream) return INVALID_HANDLE;
    if (!stream->capture) return INVALID_VALUE;
    const bool same_thread = stream->capture->thread == std::this_thread::get_id();
    if (!same_thread && stream->capture->mode != CaptureMode::Relaxed) return STREAM_CAPTURE_WRONG_THREAD;
    const std::shared_ptr<Capture> capture = std::move(stream->capture);
    stream->capture = nullptr;
    if (capture->invalidated) return STREAM_CAPTURE_INVALIDATED;
    return make_graph(std::move(capture->operations), graph);
}

DRIVER_API Result cuGraphInstantiateWithFlags(void** executable, void* handle, unsigned long long flags) {
    const unsigned long long auto_free = 1, device_launch = 4, known = 15;
    const std::lock_guard<std::mutex> lock(driver::mutex);
    Graph* graph = static_cast<Graph*>(handle);
    if (!graphs.count(graph)) return INVALID_HANDLE;
    const bool conflicting = (flags & auto_free) && (flags & device_launch);
    if ((flags & ~known) || conflicting) return INVALID_VALUE;
    return make_graph(graph->operations, executable);
}

DRIVER_API Result cuGraphUpload(void*, StreamHandle) { return SUCCESS; }
DRIVER_API Result cuGraphDestroy(void* graph) { return destroy_graph(graph); }
DRIVER_API Result cuGraphExecDestroy(void* executable) { return destroy_graph(executable); }

DRIVER_API Result cuGraphLaunch(void* executable, StreamHandle stream) {
    std::vector<Operation> operations;
    {
        const std::lock_guard<std::mutex> lock(driver::mutex);
        Graph* graph = static_cast<Graph*>(executable);
        if (!graphs.count(graph)) return INVALID_HANDLE;
        operations = graph->operations;
    }
    return enqueue(stream, [operations] {
        for (const Operation& operation : operations) {
            const Result result = operation();
            if (result != SUCCESS) return result;
        }
        return SUCCESS;
    });
}

DRIVER_API Result cuEventCreate(void** handle, unsigned flags) {
    const std::lock_guard<std::mutex> lock(driver::mutex);
    Event* event = new Event;
    event->has_timing = !(flags & EVENT_DISABLE_TIMING);
    events.insert(event);
    *handle = event;
    return SUCCESS;
}

DRIVER_API Result cuEventDestroy_v2(void* handle) {
    const std::lock_guard<std::mutex> lock(driver::mutex);
    Event* event = static_cast<Event*>(handle);
    if (events.erase(event) == 0) return INVALID_HANDLE;
    delete event;
    return SUCCESS;
}

DRIVER_API Result cuEventRecord(void* event_handle, StreamHandle stream_handle) {
    const std::lock_guard<std::mutex> lock(driver::mutex);
    const Stream* stream = find_stream(stream_handle);
    Event* event = find_event(event_handle);
    if (!stream || !event) return INVALID_HANDLE;
    event->recorded = true;
    event->time = std::chrono::steady_clock::now();
    event->captured_in = stream->capture;
    return SUCCESS;
}

DRIVER_API Result cuEventQuery(void* handle) {
    const std::lock_guard<std::mutex> lock(driver::mutex);
    const Event* event = find_event(handle);
    if (!event) return INVALID_HANDLE;
    return event->captured_in ? CAPTURED_EVENT : SUCCESS;
}

DRIVER_API Result cuEventSynchronize(void* handle) {
    const Result query = cuEventQuery(handle);
    return query == SUCCESS ? forbid_during_capture() : query;
}

DRIVER_API Result cuEventElapsedTime_v2(float* milliseconds, void* start_handle, void* end_handle) {
    const std::lock_guard<std::mutex> lock(driver::mutex);
    const Event* start = find_event(start_handle);
    const Event* end = find_event(end_handle);
    if (!start || !end || !start->has_timing || !end->has_timing) return INVALID_HANDLE;
    if (!start->recorded || !end->recorded) return INVALID_HANDLE;
    if (start->captured_in || end->captured_in) return CAPTURED_EVENT;
    *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
    return SUCCESS;
}

DRIVER_API Result cuEventElapsedTime(float* milliseconds, void* start, void* end) {
    return cuEventElapsedTime_v2(milliseconds, start, end);
}
