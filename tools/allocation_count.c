// The program's own malloc and its like stand before those of the C library for everything that is
// linked, libraries too: they count, when somebody wants to know, and hand on. What they return is
// freed by the C library as ever.
#include "tools/allocation_count.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

// Sanitizers bring an allocator of their own.
#if defined(__has_feature)
#define SANITIZED                                                                                  \
    (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                        \
     __has_feature(memory_sanitizer))
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#if defined(__GLIBC__) && !SANITIZED

static atomic_bool counting;
static atomic_int_fast64_t calls;

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
void *memalign(size_t alignment, size_t bytes);

static void count_call(void)
{
    if (atomic_load_explicit(&counting, memory_order_relaxed)) {
        atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    }
}

void *malloc(size_t bytes)
{
    count_call();
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    count_call();
    return __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    count_call();
    return __libc_realloc(memory, bytes);
}

void *memalign(size_t alignment, size_t bytes)
{
    count_call();
    return __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    return memalign(alignment, bytes);
}

int posix_memalign(void **memory, size_t alignment, size_t bytes)
{
    if (alignment < sizeof(void *) || (alignment & (alignment - 1)) != 0) {
        return EINVAL;
    }
    void *allocated = memalign(alignment, bytes);
    if (allocated == NULL) {
        return ENOMEM;
    }
    *memory = allocated;
    return 0;
}

void allocation_count_begin(void)
{
    atomic_store(&calls, 0);
    atomic_store(&counting, true);
}

int64_t allocation_count_end(void)
{
    atomic_store(&counting, false);
    return (int64_t)atomic_load(&calls);
}

#else

void allocation_count_begin(void)
{
}

int64_t allocation_count_end(void)
{
    return -1;
}

#endif
