#include "tests/simd/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct guard guard_open(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = (bytes + page - 1) / page * page;
    uint8_t *all = mmap(NULL, room + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || mprotect(all + page, room, PROT_READ | PROT_WRITE) != 0) {
        perror("guard");
        exit(EXIT_FAILURE);
    }
    return (struct guard){.first = all + page, .end = all + page + room};
}

void guard_close(struct guard *guard)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    munmap(guard->first - page, (size_t)(guard->end - guard->first) + 2 * page);
    *guard = (struct guard){0};
}

void *guard_first(const struct guard *guard)
{
    return guard->first;
}

void *guard_last(const struct guard *guard, size_t bytes)
{
    return guard->end - bytes;
}
