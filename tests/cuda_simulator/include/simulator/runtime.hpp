// What kernels and the instruction emulations need from the runtime: who am I, shared memory, registration, failure.
#pragma once

#include "simulator/language.hpp"

#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace simulator {

// Where in a kernel something happened. Captured by default arguments, so that kernels need not pass it.
struct Site {
    const char* file;
    int line;
    static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
        return {file, line};
    }
};

// The identity of a CUDA thread; the runtime's Fiber adds what is needed to run it.
struct Thread {
    uint3 index;
    unsigned linear;
    unsigned lane;
    unsigned warp;
};

// Plain globals: launches are serialised, and one host thread runs all fibers of a launch.
extern Thread* current_thread;
extern uint3 block_index;
extern dim3 grid_size;
extern dim3 block_size;

// Ends the launch with an error that names block, thread and site.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Fails unless the simulated device has at least this compute capability (80 stands for 8.0).
void require_capability(int capability, const char* instruction);

// Shared memory. `key` is an address unique to the declaration.
void* shared_array(const void* key, size_t bytes);
void* dynamic_shared();
uint32_t shared_address(const void* pointer);
unsigned char* shared_pointer(uint32_t address, size_t bytes);

struct Kernel {
    std::string name;
    std::function<void(void** arguments)> call;
    std::vector<size_t> argument_sizes;
};

void register_kernel(Kernel kernel);
const Kernel* find_kernel(const std::string& name);

template <class... Arguments, size_t... Index>
void call_kernel(void (*kernel)(Arguments...), void** arguments, std::index_sequence<Index...>) {
    kernel(*static_cast<std::remove_reference_t<Arguments>*>(arguments[Index])...);
}

struct Registration {
    template <class... Arguments> Registration(const char* name, void (*kernel)(Arguments...)) {
        auto call = [kernel](void** arguments) {
            call_kernel(kernel, arguments, std::index_sequence_for<Arguments...>{});
        };
        register_kernel({name, call, {sizeof(Arguments)...}});
    }
};

} // namespace simulator

#define SIMULATED_KERNEL(name) static const ::simulator::Registration simulator_registration_##name(#name, name);
#define SHARED_ARRAY(T, name, dims)                                                                                   \
    typedef T simulator_type_of_##name dims;                                                                          \
    static const char simulator_key_of_##name = 0;                                                                    \
    auto& name = *static_cast<simulator_type_of_##name*>(                                                             \
        ::simulator::shared_array(&simulator_key_of_##name, sizeof(simulator_type_of_##name)))
#define DYNAMIC_SHARED(name) unsigned char* const name = static_cast<unsigned char*>(::simulator::dynamic_shared())

#define threadIdx (::simulator::current_thread->index)
#define blockIdx (::simulator::block_index)
#define blockDim (::simulator::block_size)
#define gridDim (::simulator::grid_size)
#define warpSize 32

inline uint32_t smem_address(const void* pointer) { return simulator::shared_address(pointer); }
