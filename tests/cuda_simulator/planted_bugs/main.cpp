// Runs every planted kernel under every schedule and asynchronous mode, each run in a process of its own. The correct
// version must pass under all of them; the broken one must be caught, by an error or by a wrong result, under at least
// one. Exit status 1 if not.
#include "../harness.hpp"

#include "simulator.hpp"

#include "params.hpp"

#include <cstdio>
#include <cstdlib>
#include <sys/wait.h>
#include <unistd.h>

namespace {

const int THREADS = 128;
const int BLOCKS = 3;
const int COUNT = THREADS * BLOCKS;

const char* const CASES[] = {
    "missing_barrier",
    "missing_trailing_barrier",
    "missing_named_barrier",
    "missing_cp_async_wait",
    "missing_syncwarp",
    "divergent_barrier",
    "barrier_in_a_branch",
    "early_exit",
    "shuffle_of_an_exited_lane",
    "global_read_out_of_bounds",
    "global_write_out_of_bounds",
    "shared_read_out_of_bounds",
    "shared_write_out_of_bounds",
    "uninitialised_shared_read",
    "race_between_blocks",
#ifdef SIMULATOR_CHECKED
    // Blocks run one after another: what one has written the next ones see, with fences or without.
    "missing_fence_before_arrival",
    "missing_fence_behind_arrival",
#endif
    "miscounted_arrival",
    "misaligned_vector_load",
    "missing_mbarrier_wait",
    "missing_proxy_fence",
    "missing_wgmma_fence",
    "missing_wgmma_wait",
    "misaligned_wgmma_tile",
    "registers_that_nobody_gave_back",
};

TensorMap map_of(const float* input) {
    TensorMap map = {};
    map.base = reinterpret_cast<const unsigned char*>(input);
    map.extent[0] = 64;
    map.extent[1] = COUNT / 32;
    map.row_stride = 128;
    map.box[0] = 64;
    map.box[1] = THREADS / 32;
    map.element_bytes = 2;
    return map;
}

bool runs_correctly(const std::string& kernel) {
    std::vector<float> values(COUNT);
    for (int i = 0; i < COUNT; i++) values[i] = float(i % 61) - 30.0f;
    harness::DeviceBuffer<float> input(values);
    harness::DeviceBuffer<float> output(COUNT);
    harness::DeviceBuffer<unsigned> arrivals(std::vector<unsigned>{0});
    const PlantedParams params = {map_of(input.data()), input.data(), output.data(), COUNT, arrivals.data()};
    if (!harness::launch(kernel, BLOCKS, THREADS, THREADS * sizeof(float), params).empty()) return false;
    const std::vector<float> result = output.read();
    for (int i = 0; i < COUNT; i++) {
        const int mirrored = i / THREADS * THREADS + THREADS - 1 - i % THREADS;
        if (result[i] != values[mirrored]) return false; // NaN too is unequal
    }
    return true;
}

// In a child, because AddressSanitizer ends the process.
bool passes(const std::string& kernel, const harness::Setting& setting) {
    fflush(stdout);
    const pid_t child = fork();
    if (child < 0) {
        perror("fork");
        exit(2);
    }
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr)) _exit(3);
        harness::apply(setting);
        _exit(runs_correctly(kernel) ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

unsigned count_passes(const std::string& kernel, const std::vector<harness::Setting>& settings) {
    unsigned count = 0;
    for (const harness::Setting& setting : settings) count += passes(kernel, setting);
    return count;
}

} // namespace

int main() {
    const std::vector<harness::Setting> settings = harness::all_settings();
    const unsigned all = unsigned(settings.size());
    unsigned passed = 0, failed = 0;
    for (const std::string bug : CASES) {
        const unsigned correct_passes = count_passes(bug + "_correct", settings);
        const bool correct_ok = correct_passes == all;
        printf("%s %s_correct: passed under %u of %u settings\n", correct_ok ? "ok  " : "FAIL", bug.c_str(),
               correct_passes, all);
        const unsigned caught = all - count_passes(bug + "_broken", settings);
        const bool broken_ok = caught > 0;
        printf("%s %s_broken: caught under %u of %u settings\n", broken_ok ? "ok  " : "FAIL", bug.c_str(), caught, all);
        passed += correct_ok + broken_ok;
        failed += !correct_ok + !broken_ok;
    }
    printf("%u passed, %u failed\n", passed, failed);
    return failed != 0;
}
