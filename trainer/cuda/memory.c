// Device memory, pinned host memory, the copies between them, and tensors to and from the host.
#include "trainer/cuda/cuda.h"

#include "trainer/cuda/layers.h"

#define MIB 1048576.0

static struct cuda_device *entered(struct device *device)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    return cuda_enter(cuda) == STATUS_OK ? cuda : NULL;
}

// --- buffers

static enum status too_large(size_t bytes, size_t left, struct error *error)
{
    return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                     "%.0f MiB do not fit into the %.0f MiB of the GPU's memory that are free: a "
                     "smaller batch, accumulate or recompute need less",
                     (double)bytes / MIB, (double)left / MIB);
}

static enum status take(struct cuda_device *device, void **memory, size_t bytes,
                        struct error *error)
{
    size_t left = 0, total = 0;
    enum status status =
        cuda_check(device, cudaMemGetInfo(&left, &total), "asking for the GPU's memory");
    if (status != STATUS_OK) {
        return cuda_explain(device, status, error);
    }
    cudaError_t code = bytes > left ? cudaErrorMemoryAllocation : cudaMalloc(memory, bytes);
    if (code == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return too_large(bytes, left, error);
    }
    return cuda_explain(device, cuda_check(device, code, "taking memory of the GPU"), error);
}

enum status cuda_allocate(struct device *device, void **memory, size_t bytes, struct error *error)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    *memory = NULL;
    bytes = bytes == 0 ? 1 : bytes;
    enum status status = cuda_explain(cuda, cuda_enter(cuda), error);
    if (status == STATUS_OK) {
        status = take(cuda, memory, bytes, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = cuda_fill_zero(device, *memory, bytes);
    if (status == STATUS_OK) { // other streams may write into it from now on
        status = cuda_synchronise(device);
    }
    if (status != STATUS_OK) {
        cuda_release(device, *memory);
        *memory = NULL;
    }
    return cuda_explain(cuda, status, error);
}

void cuda_release(struct device *device, void *memory)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    if (memory != NULL && cuda_enter(cuda) == STATUS_OK) {
        cuda_check(cuda, cudaFree(memory), "giving memory of the GPU back");
    }
}

// --- copies

static enum status queue_copy(struct device *device, void *to, const void *from, size_t bytes,
                              enum cudaMemcpyKind kind)
{
    struct cuda_device *cuda = entered(device);
    if (cuda == NULL) {
        return STATUS_DEVICE;
    }
    return bytes == 0
               ? STATUS_OK
               : cuda_check(cuda, cudaMemcpyAsync(to, from, bytes, kind, cuda->stream), "a copy");
}

enum status cuda_copy_in(struct device *device, void *to, const void *host, size_t bytes)
{
    enum status status = queue_copy(device, to, host, bytes, cudaMemcpyHostToDevice);
    return status == STATUS_OK && bytes > 0 ? cuda_synchronise(device) : status;
}

enum status cuda_copy_out(struct device *device, void *host, const void *from, size_t bytes)
{
    enum status status = queue_copy(device, host, from, bytes, cudaMemcpyDeviceToHost);
    return status == STATUS_OK && bytes > 0 ? cuda_synchronise(device) : status;
}

enum status cuda_copy(struct device *device, void *to, const void *from, size_t bytes)
{
    return queue_copy(device, to, from, bytes, cudaMemcpyDeviceToDevice);
}

enum status cuda_copy_out_later(struct device *device, void *host, const void *from, size_t bytes)
{
    return queue_copy(device, host, from, bytes, cudaMemcpyDeviceToHost);
}

enum status cuda_copy_in_later(struct device *device, void *to, const void *host, size_t bytes)
{
    return queue_copy(device, to, host, bytes, cudaMemcpyHostToDevice);
}

enum status cuda_fill_zero(struct device *device, void *memory, size_t bytes)
{
    struct cuda_device *cuda = entered(device);
    if (cuda == NULL) {
        return STATUS_DEVICE;
    }
    return bytes == 0 ? STATUS_OK
                      : cuda_check(cuda, cudaMemsetAsync(memory, 0, bytes, cuda->stream), "a fill");
}

enum status cuda_synchronise(struct device *device)
{
    struct cuda_device *cuda = entered(device);
    return cuda == NULL ? STATUS_DEVICE
                        : cuda_check(cuda, cudaStreamSynchronize(cuda->stream), "queued work");
}

// --- pinned host memory

enum status cuda_host_allocate(struct device *device, void **memory, size_t bytes,
                               struct error *error)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    *memory = NULL;
    enum status status = cuda_explain(cuda, cuda_enter(cuda), error);
    if (status != STATUS_OK) {
        return status;
    }
    cudaError_t code = cudaHostAlloc(memory, bytes == 0 ? 1 : bytes, cudaHostAllocDefault);
    if (code == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no %.0f MiB of pinned memory for copies to the GPU", (double)bytes / MIB);
    }
    return cuda_explain(cuda, cuda_check(cuda, code, "pinning memory"), error);
}

void cuda_host_release(struct device *device, void *memory)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    if (memory != NULL && cuda_enter(cuda) == STATUS_OK) {
        cuda_check(cuda, cudaFreeHost(memory), "giving pinned memory back");
    }
}

// --- tensors

bool cuda_stored_half(const struct cuda_device *device, struct tensor_shape shape)
{
    return device->half && shape.kind == TENSOR_IMAGE;
}

uint64_t cuda_stored_values(const struct cuda_device *device, struct tensor_shape shape)
{
    if (shape.kind == TENSOR_MATRIX) {
        return tensor_count(shape);
    }
    struct cuda_image image = cuda_image_of(shape, device->half);
    return cuda_image_values(&image);
}

size_t cuda_tensor_bytes(const struct device *device, struct tensor_shape shape)
{
    const struct cuda_device *cuda = (const struct cuda_device *)device;
    size_t width = cuda_stored_half(cuda, shape) ? sizeof(bfloat) : sizeof(float);
    return cuda_stored_values(cuda, shape) * width;
}

enum status cuda_tensor_store(struct device *device, struct tensor_shape shape, void *to,
                              const float *host)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    size_t bytes = tensor_count(shape) * sizeof *host;
    if (shape.kind == TENSOR_MATRIX) {
        return cuda_copy_in(device, to, host, bytes);
    }
    void *plain;
    enum status status = cuda_allocate(device, &plain, bytes, NULL);
    if (status != STATUS_OK) {
        return status;
    }
    status = cuda_copy_in(device, plain, host, bytes);
    if (status == STATUS_OK) {
        status = cuda_check(cuda, cuda_image_pack(shape, cuda->half, plain, to, cuda->stream),
                            "storing an image");
    }
    if (status == STATUS_OK) {
        status = cuda_synchronise(device);
    }
    cuda_release(device, plain);
    return status;
}

enum status cuda_tensor_fetch(struct device *device, struct tensor_shape shape, float *host,
                              const void *from)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    size_t bytes = tensor_count(shape) * sizeof *host;
    if (shape.kind == TENSOR_MATRIX) {
        return cuda_copy_out(device, host, from, bytes);
    }
    void *plain;
    enum status status = cuda_allocate(device, &plain, bytes, NULL);
    if (status != STATUS_OK) {
        return status;
    }
    status = cuda_check(cuda, cuda_image_unpack(shape, cuda->half, from, plain, cuda->stream),
                        "fetching an image");
    if (status == STATUS_OK) {
        status = cuda_copy_out(device, host, plain, bytes);
    }
    cuda_release(device, plain);
    return status;
}

enum status cuda_tensor_add(struct device *device, struct tensor_shape shape, void *to,
                            const void *from)
{
    struct cuda_device *cuda = entered(device);
    if (cuda == NULL) {
        return STATUS_DEVICE;
    }
    return cuda_check(cuda,
                      cuda_accumulate(cuda_stored_values(cuda, shape),
                                      cuda_stored_half(cuda, shape), to, from, cuda->stream),
                      "a sum of tensors");
}
