// How launches are scheduled; read once from SILUETTE_SIMULATOR_* variables, and writable by the C++ test programs.
#pragma once

#include <cstdint>

namespace simulator {

enum class Schedule {
    Ascending,
    Descending,
    Random,
    // Strict random priorities between warps and between lanes: the largest skew that barriers allow.
    Adversarial,
};

// When asynchronous copies and products take effect: at issue, at the wait that needs them, or either by a coin.
enum class AsyncMode { Early, Late, Random };

struct Config {
    Schedule schedule = Schedule::Ascending;
    AsyncMode async_mode = AsyncMode::Late;
    uint64_t seed = 1;
    int compute_capability = 90; // 75 stands for 7.5
};

Config& config();

// Shared memory that one block may have on this compute capability, in bytes.
unsigned max_shared_bytes(int compute_capability);

} // namespace simulator
