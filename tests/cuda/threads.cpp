// Threads of a block as stacks that are switched by hand.
#include "tests/cuda/threads.h"

#include "tests/cuda/memory.h"

#include <map>
#include <mutex>
#include <numeric>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define STACK_BYTES ((size_t)512 << 10)
#else
#define STACK_BYTES ((size_t)128 << 10)
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

#define WARP      32
#define MAX_WARPS (EMULATED_BLOCK_THREADS / WARP)

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

[[noreturn]] void emulated_stop(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "emulated device: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    abort();
}

// --- order

static uint64_t random_state;

bool emulated_shuffled_order(void)
{
    static const bool wanted = [] {
        const char *seed = getenv("BYOL_EMULATE_SEED");
        random_state = seed ? strtoull(seed, nullptr, 10) : 0;
        return seed && *seed;
    }();
    return wanted;
}

uint64_t emulated_random(uint64_t bound)
{
    static std::mutex lock;
    if (!emulated_shuffled_order() || bound == 0) {
        return 0;
    }
    std::lock_guard<std::mutex> guard(lock);
    random_state += 0x9e3779b97f4a7c15u; // splitmix64
    uint64_t x = random_state;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (x ^ x >> 31) % bound;
}

// --- stacks

struct fiber {
    void *stack_pointer;
    char *stack; // lowest address; nullptr: the caller's own stack
    unsigned thread;
    uint3 index;
#if defined(__SANITIZE_ADDRESS__)
    void *fake_stack;
    const void *bottom;
    size_t size;
#endif
#if defined(__SANITIZE_THREAD__)
    void *tsan;
#endif
};

extern "C" void emulated_switch(void **save, void *to) __attribute__((visibility("hidden")));

// Saves what a call must keep, leaves its place on the old stack and goes on where the new one
// left.
#if defined(__x86_64__)
asm(".text\n"
    ".hidden emulated_switch\n"
    ".globl emulated_switch\n"
    ".type emulated_switch, @function\n"
    "emulated_switch:\n"
    "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n"
    "    pushq %r13\n    pushq %r14\n    pushq %r15\n"
    "    movq %rsp, (%rdi)\n    movq %rsi, %rsp\n"
    "    popq %r15\n    popq %r14\n    popq %r13\n"
    "    popq %r12\n    popq %rbx\n    popq %rbp\n"
    "    ret\n"
    ".size emulated_switch, . - emulated_switch\n");
#define SAVED_WORDS 8 // six registers, the return address, and one that aligns the stack
#define ENTRY_WORD  6
#elif defined(__aarch64__)
asm(".text\n"
    ".hidden emulated_switch\n"
    ".globl emulated_switch\n"
    ".type emulated_switch, %function\n"
    "emulated_switch:\n"
    "    sub sp, sp, #160\n"
    "    stp x19, x20, [sp, #0]\n    stp x21, x22, [sp, #16]\n    stp x23, x24, [sp, #32]\n"
    "    stp x25, x26, [sp, #48]\n   stp x27, x28, [sp, #64]\n    stp x29, x30, [sp, #80]\n"
    "    stp d8, d9, [sp, #96]\n     stp d10, d11, [sp, #112]\n   stp d12, d13, [sp, #128]\n"
    "    stp d14, d15, [sp, #144]\n  mov x9, sp\n                 str x9, [x0]\n"
    "    mov sp, x1\n"
    "    ldp x19, x20, [sp, #0]\n    ldp x21, x22, [sp, #16]\n    ldp x23, x24, [sp, #32]\n"
    "    ldp x25, x26, [sp, #48]\n   ldp x27, x28, [sp, #64]\n    ldp x29, x30, [sp, #80]\n"
    "    ldp d8, d9, [sp, #96]\n     ldp d10, d11, [sp, #112]\n   ldp d12, d13, [sp, #128]\n"
    "    ldp d14, d15, [sp, #144]\n  add sp, sp, #160\n           ret\n"
    ".size emulated_switch, . - emulated_switch\n");
#define SAVED_WORDS 20
#define ENTRY_WORD  11
#else
#error "no switch of stacks for this processor"
#endif

// --- the block that runs

struct warp {
    fiber *waiting[WARP];
    unsigned count;
    uint64_t bits[2][WARP]; // of this exchange and of the next
    uint32_t arrived[2];    // lanes that gave theirs
    unsigned turn;
    emulated_place place;
};

static struct {
    const emulated_launch *launch;
    unsigned threads, next, live;
    unsigned order[EMULATED_BLOCK_THREADS];

    fiber *ready[EMULATED_BLOCK_THREADS];
    unsigned ready_first, ready_count;

    fiber *waiting[EMULATED_BLOCK_THREADS]; // at the barrier
    unsigned waiting_count;
    emulated_place place;

    struct warp warps[MAX_WARPS];
} block;

static fiber host, fibers[EMULATED_BLOCK_THREADS];
static fiber *idle[EMULATED_BLOCK_THREADS];
static unsigned idle_count, fiber_count;
static fiber *current, *previous;

static void arrive(void)
{
#if defined(__SANITIZE_ADDRESS__)
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(current->fake_stack, &bottom, &size);
    previous->bottom = bottom;
    previous->size = size;
#endif
    if (current != &host) {
        threadIdx = current->index;
    }
}

static void switch_to(fiber *next)
{
    if (next == current) {
        return;
    }
    previous = current;
    current = next;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&previous->fake_stack, next->bottom, next->size);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(next->tsan, 0);
#endif
    emulated_switch(&previous->stack_pointer, next->stack_pointer);
    arrive();
}

static void make_ready(fiber *const *list, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        unsigned at = (block.ready_first + block.ready_count++) % EMULATED_BLOCK_THREADS;
        block.ready[at] = list[i];
    }
}

static fiber *take_ready(void)
{
    if (emulated_shuffled_order()) {
        unsigned other = (unsigned)emulated_random(block.ready_count);
        other = (block.ready_first + other) % EMULATED_BLOCK_THREADS;
        std::swap(block.ready[block.ready_first], block.ready[other]);
    }
    fiber *taken = block.ready[block.ready_first];
    block.ready_first = (block.ready_first + 1) % EMULATED_BLOCK_THREADS;
    block.ready_count--;
    return taken;
}

static void release_barrier_when_complete(void)
{
    if (block.waiting_count > 0 && block.waiting_count == block.live) {
        make_ready(block.waiting, block.waiting_count);
        block.waiting_count = 0;
    }
}

static bool starts_next(void)
{
    return block.next < block.threads && (block.ready_count == 0 || emulated_random(2) == 1);
}

static void start_thread(fiber *self)
{
    unsigned thread = block.order[block.next++];
    self->thread = thread;
    self->index.x = thread % blockDim.x;
    self->index.y = thread / blockDim.x % blockDim.y;
    self->index.z = thread / blockDim.x / blockDim.y;
    threadIdx = self->index;
    block.launch->thread();
    block.live--;
    release_barrier_when_complete();
}

static fiber *next_fiber(void);

[[noreturn]] static void fiber_main(void)
{
    arrive();
    fiber *self = current;
    for (;;) {
        while (starts_next()) {
            start_thread(self);
        }
        idle[idle_count++] = self;
        switch_to(next_fiber());
    }
}

static fiber *new_fiber(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = STACK_BYTES + page;
    void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {
        emulated_stop("no memory for the stacks of threads");
    }
    fiber *made = &fibers[fiber_count++];
    made->stack = static_cast<char *>(memory) + page;
    void **words = reinterpret_cast<void **>(made->stack + STACK_BYTES) - SAVED_WORDS;
    words[ENTRY_WORD] = reinterpret_cast<void *>(fiber_main);
    made->stack_pointer = words;
#if defined(__SANITIZE_ADDRESS__)
    made->bottom = made->stack;
    made->size = STACK_BYTES;
#endif
#if defined(__SANITIZE_THREAD__)
    made->tsan = __tsan_create_fiber(0);
#endif
    return made;
}

// Who runs when the current one cannot: the host when nobody can.
static fiber *next_fiber(void)
{
    if (starts_next()) {
        return idle_count > 0 ? idle[--idle_count] : new_fiber();
    }
    return block.ready_count > 0 ? take_ready() : &host;
}

// --- waiting

static void stop_when_elsewhere(const char *what, emulated_place before, emulated_place here)
{
    if (before.line != here.line || strcmp(before.file, here.file) != 0) {
        emulated_stop("kernel %s: threads meet at different places: %s at %s:%d and at %s:%d",
                      block.launch->name, what, before.file, before.line, here.file, here.line);
    }
}

void emulated_barrier(emulated_place place)
{
    if (block.waiting_count == 0) {
        block.place = place;
    }
    stop_when_elsewhere("__syncthreads", block.place, place);
    if (block.waiting_count + 1 == block.live) {
        make_ready(block.waiting, block.waiting_count);
        block.waiting_count = 0;
        return;
    }
    block.waiting[block.waiting_count++] = current;
    switch_to(next_fiber());
}

static unsigned partner(enum emulated_shuffle shuffle, unsigned lane, unsigned operand, int width)
{
    unsigned segment = (unsigned)width, first = lane / segment * segment, in = lane - first, to;
    switch (shuffle) {
    case EMULATED_XOR:
        return lane ^ operand;
    case EMULATED_DOWN:
        to = in + operand;
        break;
    case EMULATED_UP:
        to = in - operand; // wraps below zero: no such lane
        break;
    default:
        return first + operand % segment;
    }
    return to < segment ? first + to : lane;
}

uint64_t emulated_exchange(enum emulated_shuffle shuffle, unsigned mask, uint64_t bits,
                           unsigned operand, int width, emulated_place place)
{
    unsigned thread = current->thread, lane = thread % WARP, first = thread - lane;
    unsigned lanes = block.threads - first < WARP ? block.threads - first : WARP;
    struct warp *warp = &block.warps[thread / WARP];
    if (mask != 0xffffffffu) {
        emulated_stop("kernel %s: %s:%d: a shuffle of part of a warp", block.launch->name,
                      place.file, place.line);
    }
    if (warp->count == 0) {
        warp->place = place;
    }
    stop_when_elsewhere("shuffle", warp->place, place);
    unsigned turn = warp->turn;
    warp->bits[turn][lane] = bits;
    warp->arrived[turn] |= 1u << lane;
    if (warp->count + 1 == lanes) {
        make_ready(warp->waiting, warp->count);
        warp->count = 0;
        warp->turn = 1 - turn; // nobody gives for the turn after before all have read this one
        warp->arrived[warp->turn] = 0;
    } else {
        warp->waiting[warp->count++] = current;
        switch_to(next_fiber());
    }
    unsigned from = partner(shuffle, lane, operand, width);
    bool there = from < WARP && (warp->arrived[turn] >> from & 1u) != 0;
    return there ? warp->bits[turn][from] : UINT64_MAX;
}

[[noreturn]] static void stop_in_deadlock(void)
{
    char text[512];
    int used = snprintf(text, sizeof text, "%u of %u threads have returned",
                        block.threads - block.live, block.threads);
    if (block.waiting_count > 0) {
        used +=
            snprintf(text + used, sizeof text - (size_t)used, ", %u wait in __syncthreads at %s:%d",
                     block.waiting_count, block.place.file, block.place.line);
    }
    for (unsigned w = 0; w < MAX_WARPS; w++) {
        if (block.warps[w].count > 0) {
            snprintf(text + used, sizeof text - (size_t)used,
                     ", %u of warp %u wait in a shuffle at %s:%d", block.warps[w].count, w,
                     block.warps[w].place.file, block.warps[w].place.line);
            break;
        }
    }
    emulated_stop("kernel %s waits for ever: block (%u, %u, %u): %s", block.launch->name,
                  blockIdx.x, blockIdx.y, blockIdx.z, text);
}

// --- shared memory

// The linker's names for the ends of the section; absent when no kernel has shared memory.
extern "C" char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));

struct extent {
    size_t first, end;
    unsigned looks; // launches that were looked at
};
#define LOOKS 4

static size_t shared_bytes(void)
{
    return (size_t)(__stop_emulated_shared - __start_emulated_shared);
}

#if defined(__SANITIZE_ADDRESS__)
__attribute__((no_sanitize("address"))) static void poison_around_redzones(struct extent part)
{
    volatile char *shared = __start_emulated_shared;
    for (size_t i = part.first; i < part.end; i++) {
        shared[i] = (char)0xff;
    }
}
#endif

static void poison_shared(struct extent part)
{
    if (part.first >= part.end) {
        return;
    }
#if defined(__SANITIZE_ADDRESS__) // redzones lie in between, which memset may not write
    poison_around_redzones(part);
#else
    memset(__start_emulated_shared + part.first, 0xff, part.end - part.first);
#endif
}

// What of the section is not poison: the kernel's own variables.
__attribute__((no_sanitize("address"))) static void look_at_shared(struct extent *part)
{
    const volatile char *shared = __start_emulated_shared;
    size_t bytes = shared_bytes(), first = 0, end = bytes;
    while (first < bytes && shared[first] == (char)0xff) {
        first++;
    }
    while (end > first && shared[end - 1] == (char)0xff) {
        end--;
    }
    if (first < end) {
        part->end = part->end > end ? part->end : end;
        part->first = part->first < first ? part->first : first;
    }
}

static struct extent *extent_of(const char *name)
{
    static std::map<const char *, struct extent> extents;
    auto found = extents.find(name);
    if (found == extents.end()) {
        if (extents.empty()) {
            poison_shared({0, shared_bytes(), 0});
        }
        found = extents.insert({name, {shared_bytes(), 0, 0}}).first;
    }
    return &found->second;
}

// --- launches

static void run_block(void)
{
    block.next = 0;
    block.live = block.threads;
    if (emulated_shuffled_order()) {
        for (unsigned i = block.threads; i > 1; i--) {
            std::swap(block.order[i - 1], block.order[emulated_random(i)]);
        }
    }
    switch_to(next_fiber());
    if (block.live > 0) {
        stop_in_deadlock();
    }
}

static void run_blocks(struct extent *shared)
{
    uint64_t count = (uint64_t)gridDim.x * gridDim.y * gridDim.z, step = 1;
    uint64_t at = emulated_random(count);
    if (emulated_shuffled_order()) {
        do {
            step = 1 + emulated_random(count);
        } while (std::gcd(step, count) != 1);
    }
    for (uint64_t i = 0; i < count; i++, at = (at + step) % count) {
        blockIdx.x = (unsigned)(at % gridDim.x);
        blockIdx.y = (unsigned)(at / gridDim.x % gridDim.y);
        blockIdx.z = (unsigned)(at / gridDim.x / gridDim.y);
        run_block();
        if (shared->looks < LOOKS) {
            look_at_shared(shared);
            shared->looks++;
        }
        poison_shared(*shared);
    }
}

cudaError_t emulated_check(const emulated_launch &launch)
{
    const dim3 &grid = launch.grid, &threads = launch.block;
    uint64_t together = (uint64_t)threads.x * threads.y * threads.z;
    bool fits = together > 0 && together <= EMULATED_BLOCK_THREADS && threads.z <= 64 &&
                grid.x > 0 && grid.x <= 0x7fffffffu && grid.y > 0 && grid.y <= 65535 &&
                grid.z > 0 && grid.z <= 65535;
    return fits ? cudaSuccess : cudaErrorInvalidConfiguration;
}

void emulated_run(const emulated_launch &launch)
{
    static std::mutex lock;
    std::lock_guard<std::mutex> guard(lock);
    gridDim = launch.grid;
    blockDim = launch.block;
    block.launch = &launch;
    block.threads = blockDim.x * blockDim.y * blockDim.z;
    for (unsigned i = 0; i < block.threads; i++) {
        block.order[i] = i;
    }
    current = &host;
#if defined(__SANITIZE_THREAD__)
    host.tsan = __tsan_get_current_fiber();
#endif
    run_blocks(extent_of(launch.name));
    emulated_guards_check(launch.name);
}
