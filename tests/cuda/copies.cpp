// Copies and fills. Both ends of a copy must be what its kind says, inside one allocation each.
#include "tests/cuda/memory.h"
#include "tests/cuda/streams.h"

#include <memory>
#include <string.h>
#include <vector>

static bool on_device(const void *memory, size_t bytes)
{
    return emulated_find(memory, bytes) == EMULATED_DEVICE;
}

static bool on_host(const void *memory, size_t bytes)
{
    enum emulated_place_of place = emulated_find(memory, bytes);
    return place == EMULATED_PAGEABLE || place == EMULATED_PINNED;
}

static bool is_as_said(const void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    switch (kind) {
    case cudaMemcpyHostToHost:
        return on_host(to, bytes) && on_host(from, bytes);
    case cudaMemcpyHostToDevice:
        return on_device(to, bytes) && on_host(from, bytes);
    case cudaMemcpyDeviceToHost:
        return on_host(to, bytes) && on_device(from, bytes);
    case cudaMemcpyDeviceToDevice:
        return on_device(to, bytes) && on_device(from, bytes);
    default:
        return emulated_find(to, bytes) != EMULATED_OUTSIDE &&
               emulated_find(from, bytes) != EMULATED_OUTSIDE;
    }
}

// Pageable memory: what is read is taken before the call returns, what is written is there then.
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    if (bytes == 0) {
        return cudaSuccess;
    }
    if (!is_as_said(to, from, bytes, kind)) {
        return emulated_error(cudaErrorInvalidValue);
    }
    bool reads = emulated_find(from, bytes) == EMULATED_PAGEABLE;
    bool writes = emulated_find(to, bytes) == EMULATED_PAGEABLE;
    if ((reads || writes) && emulated_capturing(stream)) {
        emulated_unsafe_now();
        return emulated_error(cudaErrorStreamCaptureUnsupported);
    }
    if (reads) {
        const char *bytes_of = static_cast<const char *>(from);
        auto taken = std::make_shared<std::vector<char>>(bytes_of, bytes_of + bytes);
        return emulated_enqueue(stream, [=] { memcpy(to, taken->data(), bytes); });
    }
    cudaError_t error = emulated_enqueue(stream, [=] { memmove(to, from, bytes); });
    if (error == cudaSuccess && writes) {
        emulated_finish(stream);
    }
    return error;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    if (emulated_unsafe_now()) {
        return emulated_error(cudaErrorStreamCaptureUnsupported);
    }
    return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream)
{
    if (bytes == 0) {
        return cudaSuccess;
    }
    if (!on_device(memory, bytes)) {
        return emulated_error(cudaErrorInvalidValue);
    }
    return emulated_enqueue(stream, [=] { memset(memory, value, bytes); });
}

cudaError_t cudaMemset(void *memory, int value, size_t bytes)
{
    if (emulated_unsafe_now()) {
        return emulated_error(cudaErrorStreamCaptureUnsupported);
    }
    return cudaMemsetAsync(memory, value, bytes, nullptr);
}
