#include "config.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace simulator {

namespace {

// A misspelt value must not silently run another schedule than the one asked for.
[[noreturn]] void reject(const char* variable, const char* value, const char* expected) {
    fprintf(stderr, "simulator: %s=%s, expected %s\n", variable, value, expected);
    exit(2);
}

template <class Choice, int Count>
void read_choice(const char* variable, const char* const (&names)[Count], const char* expected, Choice& choice) {
    const char* value = getenv(variable);
    if (!value) return;
    for (int i = 0; i < Count; i++) {
        if (strcmp(value, names[i]) == 0) {
            choice = Choice(i);
            return;
        }
    }
    reject(variable, value, expected);
}

Config read_environment() {
    Config result;
    const char* const schedules[] = {"ascending", "descending", "random", "adversarial"};
    read_choice("SILUETTE_SIMULATOR_SCHEDULE", schedules, "ascending, descending, random or adversarial",
                result.schedule);
    const char* const async_modes[] = {"early", "late", "random"};
    read_choice("SILUETTE_SIMULATOR_ASYNC", async_modes, "early, late or random", result.async_mode);
    if (const char* seed = getenv("SILUETTE_SIMULATOR_SEED")) {
        char* end = nullptr;
        result.seed = strtoull(seed, &end, 10);
        if (*seed == 0 || *end != 0) reject("SILUETTE_SIMULATOR_SEED", seed, "an unsigned integer");
    }
    const char* variable = "SILUETTE_SIMULATOR_COMPUTE_CAPABILITY";
    if (const char* capability = getenv(variable)) {
        int major = 0, minor = 0, length = 0;
        const int fields = sscanf(capability, "%d.%d%n", &major, &minor, &length);
        const bool valid = fields == 2 && capability[length] == 0 && major >= 7 && minor >= 0 && minor < 10;
        if (!valid) reject(variable, capability, "MAJOR.MINOR, 7.0 or later");
        result.compute_capability = major * 10 + minor;
    }
    return result;
}

} // namespace

Config& config() {
    static Config value = read_environment();
    return value;
}

unsigned max_shared_bytes(int compute_capability) {
    const unsigned kibibyte = 1024;
    if (compute_capability < 80) return 64 * kibibyte;
    if (compute_capability == 80 || compute_capability == 87) return 163 * kibibyte;
    if (compute_capability < 90 || compute_capability >= 120) return 99 * kibibyte;
    return 227 * kibibyte;
}

} // namespace simulator
