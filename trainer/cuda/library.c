// Opening and closing what the libraries of NVIDIA need.
#include "trainer/cuda/library_internal.h"

#include <cublasLt.h>
#include <stdio.h>
#include <stdlib.h>

enum status library_check(cudaError_t result, const char *what, struct error *error)
{
    if (result == cudaSuccess) {
        return STATUS_OK;
    }
    enum status status = result == cudaErrorMemoryAllocation ? STATUS_NO_MEMORY : STATUS_DEVICE;
    return error_set(error, status, NULL, NOWHERE, NOWHERE, "CUDA, %s: %s", what,
                     cudaGetErrorString(result));
}

static enum status open_cudnn(struct cuda_library *library, struct error *error)
{
    char version[32];
    cudnn_version_text(version, sizeof version);
    if (cudnnGetVersion() < CUDNN_OLDEST) {
        return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                         "cuDNN %s is too old: 9.8 or newer is needed", version);
    }
    enum status status = cudnn_check(cudnnCreate(&library->handle), "handle", "opening", error);
    if (status == STATUS_OK) {
        status = cudnn_check(cudnnSetStream(library->handle, library->stream), "handle",
                             "choosing the queue", error);
    }
    if (status == STATUS_OK) {
        status = cudnn_properties_of_handle(&library->properties, library->handle, error);
    }
    return status;
}

static enum status open_cache(struct cuda_library *library, struct error *error)
{
    int device = 0;
    struct cudaDeviceProp properties;
    enum status status = library_check(cudaGetDevice(&device), "which device", error);
    if (status == STATUS_OK) {
        status = library_check(cudaGetDeviceProperties(&properties, device),
                               "properties of the device", error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    char version[32], name[48];
    cudnn_version_text(version, sizeof version);
    snprintf(name, sizeof name, "cudnn-%s", version);
    return plan_cache_open(&library->cache, name, properties.name, error);
}

enum status cuda_library_open(struct cuda_library **out, bool strict, cudaStream_t stream,
                              struct error *error)
{
    *out = calloc(1, sizeof **out);
    if (*out == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for the libraries of the device");
    }
    (*out)->strict = strict;
    (*out)->stream = stream;
    enum status status = open_cudnn(*out, error);
    if (status == STATUS_OK) {
        status = open_cache(*out, error);
    }
    if (status == STATUS_OK) {
        status = products_open(&(*out)->products, strict, error);
    }
    if (status != STATUS_OK) {
        cuda_library_close(out);
    }
    return status;
}

void cuda_library_close(struct cuda_library **library)
{
    if (*library == NULL) {
        return;
    }
    products_close(&(*library)->products);
    plan_cache_close(&(*library)->cache);
    cudnn_drop(&(*library)->properties);
    if ((*library)->handle != NULL) {
        cudnnDestroy((*library)->handle);
    }
    free(*library);
    *library = NULL;
}

void cuda_library_describe(const struct cuda_library *library, char *text, size_t capacity)
{
    (void)library;
    char version[32];
    cudnn_version_text(version, sizeof version);
    size_t blas = cublasLtGetVersion();
    snprintf(text, capacity, "cuDNN %s, cuBLASLt %zu.%zu", version, blas / 10000, blas / 100 % 100);
}

const char *cuda_library_failure(const struct cuda_library *library)
{
    return library->failure.reason;
}
