// Sums over the peers of a device: by NCCL where each peer has a GPU of its own and the library,
// else through the host, by the functions that struct device_peers brings.
//
// Before the first sum the peers agree on which it is, by sums of their own: all come to the same
// answer, whatever each of them has.
#include "trainer/cuda/cuda.h"

#include "trainer/cuda/nccl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// What a device knows of its peers.
struct cuda_group {
    const struct device_peers *peers;
    struct cuda_nccl *nccl; // NULL: through the host
    void *host;             // memory of the host for blocks and sums, `bytes` of it
    size_t bytes;
};

unsigned cuda_peers_count(const struct cuda_device *device)
{
    return device->base.peers == NULL ? 1 : device->base.peers->count;
}

void cuda_peers_leave(struct cuda_device *device)
{
    struct cuda_group *group = device->group;
    if (group != NULL) {
        cuda_nccl_leave(group->nccl);
        free(group->host);
        free(group);
        device->group = NULL;
    }
}

// --- agreeing

// A number for this process's GPU, exact in a double: two peers with the same one share it.
static double gpu_number(const struct cuda_device *device)
{
    struct cudaDeviceProp gpu = {0};
    char place[320] = "";
    gethostname(place, 255);
    if (cudaGetDeviceProperties(&gpu, device->gpu) != cudaSuccess) {
        cudaGetLastError();
    }
    size_t used = strlen(place);
    snprintf(place + used, sizeof place - used, " %d %d %d", gpu.pciDomainID, gpu.pciBusID,
             gpu.pciDeviceID);
    uint64_t sum = 1469598103934665603u;
    for (const char *byte = place; *byte != '\0'; byte++) {
        sum = (sum ^ (unsigned char)*byte) * 1099511628211u;
    }
    return (double)((sum >> 12) + 1); // below 2^53, and never 0
}

// Each peer puts its GPU's number in its own place; all are there, and no two alike.
static bool each_has_its_own(const double *numbers, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        for (unsigned k = 0; k < i; k++) {
            if (numbers[k] == numbers[i]) {
                return false;
            }
        }
        if (numbers[i] == 0) {
            return false;
        }
    }
    return true;
}

// Whether NCCL can join the peers: all have it, their ranks are all different, and so are their
// GPUs.
static enum status ask_peers(struct cuda_device *device, bool *able)
{
    const struct device_peers *peers = device->base.peers;
    double *answers = calloc(1 + (size_t)peers->count, sizeof *answers);
    if (answers == NULL) {
        return cuda_fail(device, "meeting the peers", "no memory");
    }
    answers[0] = cuda_nccl_present() ? 1 : 0;
    answers[1 + (peers->rank < peers->count ? peers->rank : 0)] = gpu_number(device);
    enum status status = peers->sum(peers->context, answers, 1 + (size_t)peers->count);
    *able = status == STATUS_OK && answers[0] == (double)peers->count &&
            each_has_its_own(answers + 1, peers->count);
    free(answers);
    return status;
}

// The id of rank 0 comes to all, byte by byte; false there when it could not make one.
static enum status share_id(const struct device_peers *peers, char id[CUDA_NCCL_ID], bool *made)
{
    double values[CUDA_NCCL_ID + 1] = {0};
    if (peers->rank == 0 && cuda_nccl_new_id(id)) {
        values[CUDA_NCCL_ID] = 1;
        for (size_t i = 0; i < CUDA_NCCL_ID; i++) {
            values[i] = (double)(unsigned char)id[i];
        }
    }
    enum status status = peers->sum(peers->context, values, CUDA_NCCL_ID + 1);
    for (size_t i = 0; i < CUDA_NCCL_ID && status == STATUS_OK; i++) {
        id[i] = (char)(unsigned char)values[i];
    }
    *made = values[CUDA_NCCL_ID] > 0;
    return status;
}

// All join, or none.
static enum status join(const struct device_peers *peers, struct cuda_group *group)
{
    char id[CUDA_NCCL_ID];
    bool made = false;
    enum status status = share_id(peers, id, &made);
    if (status != STATUS_OK || !made) {
        return status;
    }
    group->nccl = cuda_nccl_join(id, peers->count, peers->rank);
    double joined = group->nccl != NULL ? 1 : 0;
    status = peers->sum(peers->context, &joined, 1);
    if (status != STATUS_OK || joined != (double)peers->count) {
        cuda_nccl_leave(group->nccl);
        group->nccl = NULL;
    }
    return status;
}

static enum status meet(struct cuda_device *device)
{
    if (device->group != NULL && device->group->peers == device->base.peers) {
        return STATUS_OK;
    }
    if (device->recording) {
        return cuda_fail(device, "meeting the peers", "work is being recorded");
    }
    cuda_peers_leave(device);
    struct cuda_group *group = calloc(1, sizeof *group);
    if (group == NULL) {
        return cuda_fail(device, "meeting the peers", "no memory");
    }
    bool able = false;
    enum status status = ask_peers(device, &able);
    if (status == STATUS_OK && able) {
        status = join(device->base.peers, group);
    }
    if (status != STATUS_OK) {
        free(group);
        return status;
    }
    group->peers = device->base.peers;
    device->group = group;
    return STATUS_OK;
}

const char *cuda_peers_obstacle(const struct cuda_device *device)
{
    if (device->base.peers == NULL) {
        return NULL;
    }
    if (device->group == NULL || device->group->peers != device->base.peers) {
        return "its peers have not met yet";
    }
    return device->group->nccl == NULL
               ? "sums over its peers go through the host, for want of NCCL or of a GPU each"
               : NULL;
}

// --- sums

static enum status reserve(struct cuda_device *device, size_t bytes)
{
    struct cuda_group *group = device->group;
    if (device->recording) {
        return cuda_fail(device, "a sum over peers", "through the host it cannot be recorded");
    }
    if (bytes <= group->bytes) {
        return STATUS_OK;
    }
    void *larger = realloc(group->host, bytes);
    if (larger == NULL) {
        return cuda_fail(device, "a sum over peers", "no memory");
    }
    group->host = larger;
    group->bytes = bytes;
    return STATUS_OK;
}

static enum status explain(struct cuda_device *device, const char *reason)
{
    return reason == NULL ? STATUS_OK : cuda_fail(device, "a sum over peers", reason);
}

enum status cuda_peers_sum(struct cuda_device *device, double *values, size_t count)
{
    const struct device_peers *peers = device->base.peers;
    size_t bytes = count * sizeof *values;
    enum status status = peers == NULL ? STATUS_OK : meet(device);
    if (peers == NULL || status != STATUS_OK) {
        return status;
    }
    struct cuda_group *group = device->group;
    if (group->nccl != NULL) {
        return explain(device, cuda_nccl_sum_doubles(group->nccl, values, count, device->stream));
    }
    status = reserve(device, bytes);
    if (status == STATUS_OK) {
        status = cuda_copy_out(&device->base, group->host, values, bytes);
    }
    if (status == STATUS_OK) {
        status = peers->sum(peers->context, group->host, count);
    }
    return status == STATUS_OK ? cuda_copy_in(&device->base, values, group->host, bytes) : status;
}

enum status cuda_block_sum_peers(struct device *base, float *block, uint64_t count)
{
    struct cuda_device *device = (struct cuda_device *)base;
    const struct device_peers *peers = base->peers;
    size_t bytes = count * sizeof *block;
    enum status status = cuda_enter(device);
    if (status == STATUS_OK && peers != NULL) {
        status = meet(device);
    }
    if (status != STATUS_OK || peers == NULL) {
        return status;
    }
    struct cuda_group *group = device->group;
    if (group->nccl != NULL) {
        return explain(device, cuda_nccl_sum_floats(group->nccl, block, count, device->stream));
    }
    status = reserve(device, bytes);
    if (status == STATUS_OK) {
        status = cuda_copy_out(base, group->host, block, bytes);
    }
    if (status == STATUS_OK) {
        status = peers->sum_block(peers->context, group->host, count);
    }
    return status == STATUS_OK ? cuda_copy_in(base, block, group->host, bytes) : status;
}
