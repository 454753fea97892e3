// What a launch refuses, and that launches from several host threads do not disturb each other.
#include "check.hpp"

#include "simulator.hpp"

#include <thread>

namespace {

extern "C" void uses_tensor_cores(float* output) {
    float accumulator[4] = {};
    const uint32_t a[4] = {}, b[2] = {};
    mma_m16n8k16<bf16>(accumulator, a, b);
    output[threadIdx.x] = accumulator[0];
}
SIMULATED_KERNEL(uses_tensor_cores)

extern "C" void counts_threads(uint32_t* output, uint32_t offset) {
    const uint32_t index = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const uint32_t threads = blockDim.x * blockDim.y * blockDim.z;
    const uint32_t thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    __syncthreads();
    output[index * threads + thread] = offset + index * threads + thread;
}
SIMULATED_KERNEL(counts_threads)

void test_capability() {
    harness::DeviceBuffer<float> output(32);
    simulator::Config& config = simulator::config();
    config.compute_capability = 75;
    const std::string refused = harness::launch("uses_tensor_cores", 1, 32, 0, output.data());
    check(refused.find("needs compute capability 8.0") != std::string::npos, "mma on 7.5", 0);
    config.compute_capability = 80;
    check(harness::launch("uses_tensor_cores", 1, 32, 0, output.data()).empty(), "mma on 8.0", 0);
    const size_t too_much = 164 * 1024;
    check(!harness::launch("uses_tensor_cores", 1, 32, too_much, output.data()).empty(), "164 KiB on 8.0", 0);
    config.compute_capability = 90;
    check(harness::launch("uses_tensor_cores", 1, 32, too_much, output.data()).empty(), "164 KiB on 9.0", 0);
}

extern "C" void uses_shared_arrays(float* output) {
    SHARED_ARRAY(float, tile, [32]);
    tile[threadIdx.x] = 1.0f;
    output[threadIdx.x] = tile[threadIdx.x];
}
SIMULATED_KERNEL(uses_shared_arrays)

// Without opting in, static and dynamic arrays share 48 KiB.
void test_shared_limit() {
    harness::DeviceBuffer<float> output(32);
    float* data = output.data();
    void* arguments[] = {&data};
    const simulator::Kernel* kernel = simulator::find_kernel("uses_shared_arrays");
    const size_t limit = simulator::DEFAULT_SHARED_BYTES, static_bytes = 32 * sizeof(float);
    check(simulator::run({kernel, 1, 32, limit - static_bytes, arguments}).empty(), "48 KiB in all", 0);
    check(!simulator::run({kernel, 1, 32, limit, arguments}).empty(), "48 KiB and a static array", 0);
    check(!simulator::run({kernel, 1, 32, limit + 1, arguments}).empty(), "more than 48 KiB", 0);
    check(simulator::run({kernel, 1, 32, limit + 1, arguments, 2 * limit}).empty(), "opted in", 0);
}

void launch_repeatedly(uint32_t offset, unsigned* failures) {
    const dim3 grid(3, 2, 2), block(5, 3, 4);
    const unsigned count = 12 * 60;
    for (int repeat = 0; repeat < 20; repeat++) {
        harness::DeviceBuffer<uint32_t> output(count);
        if (!harness::launch("counts_threads", grid, block, 0, output.data(), offset).empty()) ++*failures;
        const std::vector<uint32_t> result = output.read();
        for (uint32_t i = 0; i < count; i++) *failures += result[i] != offset + i;
    }
}

void test_host_threads() {
    unsigned failures[4] = {};
    std::vector<std::thread> threads;
    for (uint32_t i = 0; i < 4; i++) threads.emplace_back(launch_repeatedly, i * 1000000, &failures[i]);
    for (std::thread& thread : threads) thread.join();
    for (int i = 0; i < 4; i++) check(failures[i] == 0, "launches from several host threads", i);
}

} // namespace

void test_launches() {
    test_capability();
    test_shared_limit();
    test_host_threads();
}
