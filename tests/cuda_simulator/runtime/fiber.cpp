#include "fiber.hpp"

#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SIMULATOR_ASAN 1
#else
#define SIMULATOR_ASAN 0
#endif

#if defined(__x86_64__) && !defined(SIMULATOR_UCONTEXT)
#define SIMULATOR_ASSEMBLY_SWITCH 1
#else
#define SIMULATOR_ASSEMBLY_SWITCH 0
#include <ucontext.h>
#endif

namespace simulator {

namespace {

const size_t STACK_BYTES = 64 << 10;

std::vector<unsigned char*> stacks;

#if SIMULATOR_ASAN
void* host_sanitizer_stack = nullptr;
const void* host_stack_bottom = nullptr;
size_t host_stack_bytes = 0;
#endif

unsigned char* stack_number(unsigned index) {
    while (stacks.size() <= index) {
        void* stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED) {
            fprintf(stderr, "simulator: no memory for the stack of thread %u\n", index);
            abort();
        }
        stacks.push_back(static_cast<unsigned char*>(stack));
    }
    return stacks[index];
}

} // namespace

#if SIMULATOR_ASSEMBLY_SWITCH

// Saves the callee-saved registers on the current stack, publishes its pointer, and continues on the other one.
// Floating-point control words never change in kernels, so they are not saved.
asm(R"(
.text
.local simulator_switch_stack
.type simulator_switch_stack,@function
simulator_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size simulator_switch_stack, .-simulator_switch_stack
)");
extern "C" void simulator_switch_stack(void** save, void* next);

static void* host_stack_pointer = nullptr;

static void prepare_context(Fiber& fiber, void (*entry)()) {
    const int callee_saved_registers = 6;
    void** top = reinterpret_cast<void**>(fiber.stack + STACK_BYTES);
    *--top = nullptr; // alignment, and the return address that entry never uses
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < callee_saved_registers; i++) *--top = nullptr;
    fiber.stack_pointer = top;
}

static void switch_context(Fiber* from, Fiber* to) {
    void** save = from ? &from->stack_pointer : &host_stack_pointer;
    simulator_switch_stack(save, to ? to->stack_pointer : host_stack_pointer);
}

#else

static ucontext_t host_context;
static std::vector<ucontext_t> contexts;

static void prepare_context(Fiber& fiber, void (*entry)()) {
    const size_t max_threads = 1024; // the vector must never move while a context is live
    if (contexts.empty()) contexts.resize(max_threads);
    ucontext_t& context = contexts[fiber.linear];
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack;
    context.uc_stack.ss_size = STACK_BYTES;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}

static void switch_context(Fiber* from, Fiber* to) {
    ucontext_t* save = from ? &contexts[from->linear] : &host_context;
    swapcontext(save, to ? &contexts[to->linear] : &host_context);
}

#endif

void prepare_fiber(Fiber& fiber, void (*entry)()) {
    fiber.stack = stack_number(fiber.linear);
    fiber.sanitizer_stack = nullptr;
#if SIMULATOR_ASAN
    // A failed launch abandons its fibers, whose red zones would otherwise outlive them.
    __asan_unpoison_memory_region(fiber.stack, STACK_BYTES);
#endif
    prepare_context(fiber, entry);
}

void switch_fiber(Fiber* from, Fiber* to) {
#if SIMULATOR_ASAN
    const bool leaves_for_good = from && from->state == FiberState::Done;
    void** save = from ? &from->sanitizer_stack : &host_sanitizer_stack;
    __sanitizer_start_switch_fiber(leaves_for_good ? nullptr : save, to ? to->stack : host_stack_bottom,
                                   to ? STACK_BYTES : host_stack_bytes);
#endif
    switch_context(from, to);
#if SIMULATOR_ASAN
    __sanitizer_finish_switch_fiber(from ? from->sanitizer_stack : host_sanitizer_stack, nullptr, nullptr);
#endif
}

void fiber_entered() {
#if SIMULATOR_ASAN
    // Only the switch from the host reports the host's stack; later ones report a fiber's.
    const void* bottom = nullptr;
    size_t bytes = 0;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
    const bool came_from_host = bytes != STACK_BYTES;
    if (came_from_host) {
        host_stack_bottom = bottom;
        host_stack_bytes = bytes;
    }
#endif
}

} // namespace simulator
