// Runs the blocks of a launch one after another, and the fibers of a block in the order that the schedule says.
#include "block.hpp"
#include "checker.hpp"
#include "launch.hpp"
#include "memory.hpp"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

namespace simulator {

Thread* current_thread = nullptr;
uint3 block_index;
dim3 grid_size;
dim3 block_size;
Block block;

namespace {

const Launch* current_launch = nullptr;
std::string failure;
std::mutex launch_mutex;

uint64_t random_state = 1;

std::vector<unsigned> ready;      // fibers, by index; the front is at ready_head
size_t ready_head = 0;
std::vector<unsigned> priorities; // by fiber; Adversarial runs the smallest that is ready

template <class T> void shuffle_items(std::vector<T>& items) {
    for (size_t remaining = items.size(); remaining > 1; remaining--) {
        std::swap(items[remaining - 1], items[random_number() % remaining]);
    }
}

std::vector<unsigned> shuffled_range(unsigned count) {
    std::vector<unsigned> items(count);
    for (unsigned i = 0; i < count; i++) items[i] = i;
    shuffle_items(items);
    return items;
}

void make_ready(unsigned fiber) {
    block.fibers[fiber].state = FiberState::Ready;
    ready.push_back(fiber);
}

size_t choose_ready() {
    size_t chosen = ready_head;
    switch (config().schedule) {
    case Schedule::Ascending:
    case Schedule::Descending:
        break;
    case Schedule::Random:
        chosen += random_number() % (ready.size() - ready_head);
        break;
    case Schedule::Adversarial:
        for (size_t i = ready_head; i < ready.size(); i++) {
            if (priorities[ready[i]] < priorities[ready[chosen]]) chosen = i;
        }
        break;
    }
    return chosen;
}

// The next fiber to run, or nullptr if all have ended or none can go on.
Fiber* next_fiber() {
    // Background loads land only when nobody else can run: as late as a correct kernel allows.
    while (ready_head == ready.size()) {
        ready.clear();
        ready_head = 0;
        if (block.background.empty()) return nullptr;
        const size_t chosen = config().schedule == Schedule::Random ? random_number() % block.background.size() : 0;
        const Work work = std::move(block.background[chosen]);
        block.background.erase(block.background.begin() + ptrdiff_t(chosen));
        work();
    }
    std::swap(ready[ready_head], ready[choose_ready()]);
    return &block.fibers[ready[ready_head++]];
}

void switch_to(Fiber* next) {
    Fiber* from = static_cast<Fiber*>(current_thread);
    if (next == from) return;
    current_thread = next;
    switch_fiber(from, next);
}

void run_current_fiber() {
    fiber_entered();
    current_launch->kernel->call(current_launch->arguments);
    Fiber& self = current_fiber();
    self.state = FiberState::Done;
    block.live_fibers--;
    check_exit(self);
    switch_to(next_fiber());
    abort(); // a fiber that is done is never resumed
}

std::string block_name() {
    char text[64];
    snprintf(text, sizeof text, "block (%u,%u,%u)", block_index.x, block_index.y, block_index.z);
    return text;
}

std::string deadlock_report() {
    std::map<std::string, unsigned> waiting_at;
    for (const Fiber& fiber : block.fibers) {
        if (fiber.state != FiberState::Blocked) continue;
        const std::string site = std::string(fiber.wait_site.file) + ":" + std::to_string(fiber.wait_site.line);
        waiting_at[std::string(fiber.wait_reason) + " at " + site]++;
    }
    std::string report = block_name() + ": deadlock, " + std::to_string(block.live_fibers) + " threads blocked:";
    for (const auto& [where, count] : waiting_at) report += " " + std::to_string(count) + " in " + where + ";";
    return report;
}

void choose_priorities(unsigned threads, unsigned warps) {
    const std::vector<unsigned> warp_order = shuffled_range(warps);
    const std::vector<unsigned> lane_order = shuffled_range(WARP_THREADS);
    priorities.resize(threads);
    for (unsigned i = 0; i < threads; i++) {
        priorities[i] = warp_order[i / WARP_THREADS] * WARP_THREADS + lane_order[i % WARP_THREADS];
    }
}

void reset_block_state(unsigned threads) {
    const unsigned warps = (threads + WARP_THREADS - 1) / WARP_THREADS;
    for (BlockBarrier& barrier : block.barriers) barrier = {};
    block.warp_collectives.assign(warps, {});
    block.warpgroups.assign((threads + WARPGROUP_THREADS - 1) / WARPGROUP_THREADS, {});
    block.memory_barriers.clear();
    block.background.clear();
    block.epoch++;
    block.live_fibers = threads;
    ready.clear();
    ready_head = 0;
    if (config().schedule == Schedule::Adversarial) choose_priorities(threads, warps);
}

void prepare_fibers(unsigned threads) {
    block.fibers.resize(threads);
    for (unsigned i = 0; i < threads; i++) {
        Fiber& fiber = block.fibers[i];
        fiber.index = {i % block_size.x, i / block_size.x % block_size.y, i / (block_size.x * block_size.y)};
        fiber.linear = i;
        fiber.lane = i % WARP_THREADS;
        fiber.warp = i / WARP_THREADS;
        fiber.warp_epoch = 0;
        fiber.fences = 0;
        fiber.committed_copies.clear();
        fiber.open_copies.clear();
        prepare_fiber(fiber, run_current_fiber);
    }
    const bool descending = config().schedule == Schedule::Descending;
    for (unsigned i = 0; i < threads; i++) make_ready(descending ? threads - 1 - i : i);
}

// Leaves what went wrong in `failure`.
void run_block(const Launch& launch) {
    const unsigned threads = block_size.x * block_size.y * block_size.z;
    reset_block_state(threads);
    begin_block_shared(launch.dynamic_shared_bytes, launch.shared_limit_bytes);
    checker_begin_block();
    prepare_fibers(threads);
    switch_to(next_fiber());
    if (failure.empty() && block.live_fibers > 0) failure = deadlock_report();
    if (failure.empty()) failure = registers_overdrawn();
    // The checker knows the line; a fence only tells that something was overwritten.
    if (failure.empty()) failure = checker_reports();
    if (failure.empty()) failure = overwritten_shared_guard();
}

std::vector<unsigned> block_order(unsigned blocks) {
    const Schedule schedule = config().schedule;
    if (schedule == Schedule::Random || schedule == Schedule::Adversarial) return shuffled_range(blocks);
    std::vector<unsigned> order(blocks);
    for (unsigned i = 0; i < blocks; i++) order[i] = schedule == Schedule::Descending ? blocks - 1 - i : i;
    return order;
}

std::vector<Kernel>& kernels() {
    static std::vector<Kernel> registered;
    return registered;
}

} // namespace

uint64_t random_number() { // xorshift64*
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545f4914f6cdd1dull;
}

bool random_coin() { return random_number() >> 63; }

bool takes_effect_at_issue() {
    switch (config().async_mode) {
    case AsyncMode::Early:
        return true;
    case AsyncMode::Late:
        return false;
    case AsyncMode::Random:
        return random_coin();
    }
    return false;
}

void block_current(const char* reason, Site site) {
    Fiber& self = current_fiber();
    self.state = FiberState::Blocked;
    self.wait_reason = reason;
    self.wait_site = site;
    switch_to(next_fiber());
}

void wake_all(std::vector<unsigned>& waiting) {
    std::sort(waiting.begin(), waiting.end());
    if (config().schedule == Schedule::Descending) std::reverse(waiting.begin(), waiting.end());
    for (unsigned fiber : waiting) {
        if (block.fibers[fiber].state == FiberState::Blocked) make_ready(fiber);
    }
    waiting.clear();
}

void fail(const char* format, ...) {
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    char thread[64] = "";
    if (current_thread) {
        const uint3 index = current_thread->index;
        snprintf(thread, sizeof thread, " thread (%u,%u,%u)", index.x, index.y, index.z);
    }
    failure = block_name() + thread + ": " + message;
    switch_to(nullptr);
    abort(); // the launch has ended; its fibers are never resumed
}

void require_capability(int capability, const char* instruction) {
    const int available = config().compute_capability;
    if (available >= capability) return;
    fail("%s needs compute capability %d.%d, the device has %d.%d", instruction, capability / 10, capability % 10,
         available / 10, available % 10);
}

std::string run(const Launch& launch) {
    const std::lock_guard<std::mutex> one_at_a_time(launch_mutex);
    current_launch = &launch;
    grid_size = launch.grid;
    block_size = launch.block;
    failure.clear();
    if (launch.dynamic_shared_bytes > launch.shared_limit_bytes) {
        const std::string bytes = std::to_string(launch.dynamic_shared_bytes);
        return launch.kernel->name + ": " + bytes + " bytes of dynamic shared memory are more than it may have";
    }
    random_state = (config().seed + 1) * 0x9e3779b97f4a7c15ull | 1;
    checker_begin_launch();
    for (unsigned linear : block_order(launch.grid.x * launch.grid.y * launch.grid.z)) {
        block_index = {linear % grid_size.x, linear / grid_size.x % grid_size.y, linear / (grid_size.x * grid_size.y)};
        run_block(launch);
        current_thread = nullptr;
        if (!failure.empty()) break;
    }
    if (failure.empty()) failure = overwritten_device_guard();
    return failure.empty() ? failure : launch.kernel->name + ": " + failure;
}

void register_kernel(Kernel kernel) {
    if (find_kernel(kernel.name)) {
        fprintf(stderr, "simulator: two kernels are named %s\n", kernel.name.c_str());
        abort();
    }
    kernels().push_back(std::move(kernel));
}

const Kernel* find_kernel(const std::string& name) {
    for (const Kernel& kernel : kernels()) {
        if (kernel.name == name) return &kernel;
    }
    return nullptr;
}

} // namespace simulator
