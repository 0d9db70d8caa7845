// Buffers of the devices that compute on the host. Private to trainer/device.
#ifndef TRAINER_DEVICE_HOST_H
#define TRAINER_DEVICE_HOST_H

#include "trainer/device/device.h"

enum status host_allocate(struct device *device, void **memory, size_t bytes, struct error *error);
void host_release(struct device *device, void *memory);
enum status host_copy(struct device *device, void *to, const void *from, size_t bytes);
enum status host_fill_zero(struct device *device, void *memory, size_t bytes);
enum status host_synchronise(struct device *device);
enum status host_block_sum_peers(struct device *device, float *block, uint64_t count);

#endif
