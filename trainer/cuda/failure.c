// What went wrong on the device, kept in words.
#include "trainer/cuda/cuda.h"

#include <stdio.h>

enum status cuda_fail(struct cuda_device *device, const char *what, const char *reason)
{
    snprintf(device->failure, sizeof device->failure, "%s: %s", what, reason);
    device->base.failure = device->failure;
    return STATUS_DEVICE;
}

enum status cuda_check(struct cuda_device *device, cudaError_t code, const char *what)
{
    if (code == cudaSuccess) {
        return STATUS_OK;
    }
    cudaGetLastError(); // or the next launch would be blamed
    char reason[128];
    snprintf(reason, sizeof reason, "%s (%s)", cudaGetErrorName(code), cudaGetErrorString(code));
    return cuda_fail(device, what, reason);
}

enum status cuda_explain(const struct cuda_device *device, enum status status, struct error *error)
{
    if (status == STATUS_OK) {
        return STATUS_OK;
    }
    return error_set(error, status, NULL, NOWHERE, NOWHERE, "device 'cuda' failed: %s",
                     device->base.failure != NULL ? device->base.failure : "no reason given");
}
