// Ranks begin with the same parameters, add up the same gradients in the same order and take the
// same steps: they stay equal without ever being sent to each other. This is what proves it.
#include "trainer/run/run.h"

#include <stdlib.h>
#include <string.h>

#include "formats/crc32c.h"

#define PIECE_FLOATS 65536u // copied from the device at a time

static enum status checksum_tensor(struct device *device, const struct method_tensor *tensor,
                                   float *host, uint32_t *crc)
{
    for (uint64_t at = 0; at < tensor->count; at += PIECE_FLOATS) {
        uint64_t left = tensor->count - at;
        size_t bytes = (left < PIECE_FLOATS ? left : PIECE_FLOATS) * sizeof *host;
        enum status status = device->ops->copy_out(device, host, tensor->device + at, bytes);
        if (status != STATUS_OK) {
            return status;
        }
        *crc = crc32c(*crc, host, bytes);
    }
    return STATUS_OK;
}

// Of all tensors that a checkpoint would hold.
static enum status checksum(const struct run *run, uint32_t *crc, struct error *error)
{
    size_t count = run->method->ops->tensors(run->method, NULL, 0);
    struct method_tensor *tensors = calloc(count, sizeof *tensors);
    float *host = malloc(PIECE_FLOATS * sizeof *host);
    enum status status = STATUS_OK;
    *crc = 0;
    if (tensors == NULL || host == NULL) {
        status = error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                           "no memory to compare %zu tensors", count);
    } else {
        run->method->ops->tensors(run->method, tensors, count);
        for (size_t i = 0; i < count && status == STATUS_OK; i++) {
            if (checksum_tensor(run->device, &tensors[i], host, crc) != STATUS_OK) {
                status = error_set(error, STATUS_DEVICE, NULL, NOWHERE, NOWHERE,
                                   "the device did not give back tensor '%s'", tensors[i].name);
            }
        }
    }
    free(tensors);
    free(host);
    return status;
}

enum status run_compare_ranks(struct run *run, struct error *error)
{
    if (run->comm == NULL) {
        return STATUS_OK;
    }
    uint32_t crc;
    enum status status = checksum(run, &crc, error);
    status = comm_agree(run->comm, status, NULL, error);
    if (status == STATUS_OK) {
        status = comm_same(run->comm, dataset_id(run->dataset), "the images", error);
    }
    if (status == STATUS_OK) {
        uint32_t settings = crc32c(0, run->config_text, strlen(run->config_text));
        status = comm_same(run->comm, settings, "the settings", error);
    }
    return status == STATUS_OK ? comm_same(run->comm, crc, "the parameters", error) : status;
}
