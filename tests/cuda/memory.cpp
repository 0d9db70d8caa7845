// Allocations by address, with guards.
#include "tests/cuda/memory.h"

#include "tests/cuda/streams.h"
#include "tests/cuda/threads.h"

#include <map>
#include <mutex>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#define GUARD  256
#define TOTAL  ((size_t)80 << 30)
#define POISON 0xff

struct allocation {
    size_t bytes;
    bool pinned;
};
static std::map<uintptr_t, struct allocation> allocations;
static size_t used;
static std::recursive_mutex lock;

enum emulated_place_of emulated_find(const void *memory, size_t bytes)
{
    std::lock_guard<std::recursive_mutex> guard(lock);
    uintptr_t address = reinterpret_cast<uintptr_t>(memory);
    auto after = allocations.upper_bound(address);
    if (after == allocations.begin()) {
        return EMULATED_PAGEABLE;
    }
    auto found = std::prev(after);
    size_t offset = address - found->first, size = found->second.bytes;
    if (offset >= size + GUARD) {
        return EMULATED_PAGEABLE;
    }
    if (offset > size || bytes > size - offset) {
        return EMULATED_OUTSIDE;
    }
    return found->second.pinned ? EMULATED_PINNED : EMULATED_DEVICE;
}

static void close_guards(char *memory, size_t bytes)
{
#if defined(__SANITIZE_ADDRESS__)
    ASAN_POISON_MEMORY_REGION(memory - GUARD, GUARD);
    ASAN_POISON_MEMORY_REGION(memory + bytes, GUARD);
#else
    (void)memory, (void)bytes;
#endif
}

static void open_guards(char *memory, size_t bytes)
{
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(memory - GUARD, GUARD);
    ASAN_UNPOISON_MEMORY_REGION(memory + bytes, GUARD);
#else
    (void)memory, (void)bytes;
#endif
}

static void check_guard(const char *guard, const char *memory, size_t bytes, const char *writer)
{
    static const struct poison {
        unsigned char bytes[GUARD];
        poison()
        {
            memset(bytes, POISON, sizeof bytes);
        }
    } poison;
    if (memcmp(guard, poison.bytes, GUARD) == 0) {
        return;
    }
    for (size_t i = 0; i < GUARD; i++) {
        if ((unsigned char)guard[i] != POISON) {
            emulated_stop("%s wrote at byte %td of an allocation of %zu bytes", writer,
                          guard + i - memory, bytes);
        }
    }
}

static void check(uintptr_t address, size_t bytes, const char *writer)
{
    const char *memory = reinterpret_cast<const char *>(address);
    check_guard(memory - GUARD, memory, bytes, writer);
    check_guard(memory + bytes, memory, bytes, writer);
}

void emulated_guards_check(const char *writer)
{
#if !defined(__SANITIZE_ADDRESS__) // which stops the writer itself
    std::lock_guard<std::recursive_mutex> guard(lock);
    for (const auto &[address, allocation] : allocations) {
        check(address, allocation.bytes, writer);
    }
#else
    (void)writer;
#endif
}

static cudaError_t allocate(void **memory, size_t bytes, bool pinned)
{
    *memory = nullptr;
    if (emulated_unsafe_now()) {
        return emulated_error(cudaErrorStreamCaptureUnsupported);
    }
    if (bytes == 0) {
        return cudaSuccess;
    }
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (bytes > TOTAL - used) {
        return emulated_error(cudaErrorMemoryAllocation);
    }
    size_t whole = (bytes + 2 * GUARD + GUARD - 1) / GUARD * GUARD;
    char *raw = static_cast<char *>(aligned_alloc(GUARD, whole));
    if (raw == nullptr) {
        return emulated_error(cudaErrorMemoryAllocation);
    }
    memset(raw, POISON, bytes + 2 * GUARD);
    *memory = raw + GUARD;
    close_guards(raw + GUARD, bytes);
    allocations[reinterpret_cast<uintptr_t>(*memory)] = {bytes, pinned};
    used += pinned ? 0 : bytes;
    return cudaSuccess;
}

static cudaError_t release(void *memory, bool pinned)
{
    if (memory == nullptr) {
        return cudaSuccess;
    }
    if (emulated_unsafe_now()) {
        return emulated_error(cudaErrorStreamCaptureUnsupported);
    }
    emulated_finish_all(); // as cudaFree waits for the device
    std::lock_guard<std::recursive_mutex> guard(lock);
    auto found = allocations.find(reinterpret_cast<uintptr_t>(memory));
    if (found == allocations.end() || found->second.pinned != pinned) {
        return emulated_error(cudaErrorInvalidValue);
    }
    size_t bytes = found->second.bytes;
    open_guards(static_cast<char *>(memory), bytes);
    check(found->first, bytes, "somebody");
    used -= pinned ? 0 : bytes;
    allocations.erase(found);
    free(static_cast<char *>(memory) - GUARD);
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    return allocate(memory, bytes, false);
}
cudaError_t cudaFree(void *memory)
{
    return release(memory, false);
}
cudaError_t cudaMallocHost(void **memory, size_t bytes)
{
    return allocate(memory, bytes, true);
}
cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned)
{
    return allocate(memory, bytes, true);
}
cudaError_t cudaFreeHost(void *memory)
{
    return release(memory, true);
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    std::lock_guard<std::recursive_mutex> guard(lock);
    *available = TOTAL - used;
    *total = TOTAL;
    return cudaSuccess;
}
