// Memory that device and host share: copies are plain copies and nothing is ever queued.
#include "trainer/device/host.h"

#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 64

enum status host_allocate(struct device *device, void **memory, size_t bytes, struct error *error)
{
    (void)device;
    *memory = NULL;
    if (bytes <= SIZE_MAX - ALIGNMENT) {
        size_t rounded = bytes == 0 ? ALIGNMENT : (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        *memory = aligned_alloc(ALIGNMENT, rounded);
        if (*memory != NULL) {
            memset(*memory, 0, rounded);
            return STATUS_OK;
        }
    }
    return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                     "no memory for a device buffer of %zu bytes", bytes);
}

void host_release(struct device *device, void *memory)
{
    (void)device;
    free(memory);
}

enum status host_copy(struct device *device, void *to, const void *from, size_t bytes)
{
    (void)device;
    if (bytes > 0) {
        memmove(to, from, bytes);
    }
    return STATUS_OK;
}

enum status host_fill_zero(struct device *device, void *memory, size_t bytes)
{
    (void)device;
    if (bytes > 0) {
        memset(memory, 0, bytes);
    }
    return STATUS_OK;
}

enum status host_synchronise(struct device *device)
{
    (void)device;
    return STATUS_OK;
}

enum status host_block_sum_peers(struct device *device, float *block, uint64_t count)
{
    const struct device_peers *peers = device->peers;
    return peers == NULL ? STATUS_OK : peers->sum_block(peers->context, block, count);
}
