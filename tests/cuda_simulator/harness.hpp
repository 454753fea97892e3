// What the simulator's own test programs share: buffers, launches by name, the schedules to try.
#pragma once

#include "runtime/launch.hpp"

#include <string>
#include <vector>

namespace harness {

struct Setting {
    simulator::Schedule schedule;
    simulator::AsyncMode async_mode;
    uint64_t seed;
};

// Every schedule with every mode; those that draw random numbers with several seeds.
inline std::vector<Setting> all_settings() {
    using simulator::AsyncMode;
    using simulator::Schedule;
    std::vector<Setting> settings;
    for (Schedule schedule : {Schedule::Ascending, Schedule::Descending, Schedule::Random, Schedule::Adversarial}) {
        for (AsyncMode mode : {AsyncMode::Early, AsyncMode::Late, AsyncMode::Random}) {
            const bool draws = schedule >= Schedule::Random || mode == AsyncMode::Random;
            for (uint64_t seed = 1; seed <= (draws ? 3 : 1); seed++) settings.push_back({schedule, mode, seed});
        }
    }
    return settings;
}

inline void apply(const Setting& setting) {
    simulator::Config& config = simulator::config();
    config.schedule = setting.schedule;
    config.async_mode = setting.async_mode;
    config.seed = setting.seed;
}

template <class T> class DeviceBuffer {
public:
    explicit DeviceBuffer(size_t count)
        : count_(count), data_(static_cast<T*>(simulator::device_allocate(count * sizeof(T)))) {}
    explicit DeviceBuffer(const std::vector<T>& values) : DeviceBuffer(values.size()) {
        simulator::device_write(data_, values.data(), values.size() * sizeof(T));
    }
    ~DeviceBuffer() { simulator::device_free(data_); }
    DeviceBuffer(const DeviceBuffer&) = delete;
    DeviceBuffer& operator=(const DeviceBuffer&) = delete;

    T* data() { return data_; }
    std::vector<T> read() const { return std::vector<T>(data_, data_ + count_); }

private:
    size_t count_;
    T* data_;
};

// One kernel by name. Returns the launch's error, empty if there was none.
template <class... Arguments>
std::string launch(const std::string& name, dim3 grid, dim3 block, size_t dynamic_shared, Arguments... arguments) {
    const simulator::Kernel* kernel = simulator::find_kernel(name);
    if (!kernel) return "there is no kernel " + name;
    void* pointers[] = {&arguments...};
    const size_t shared_limit = simulator::max_shared_bytes(simulator::config().compute_capability);
    return simulator::run({kernel, grid, block, dynamic_shared, pointers, shared_limit});
}

} // namespace harness
