// Which GPU a process takes, and the life of a device.
#include "trainer/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>

#define OLDEST 8 // compute capability: the first with bfloat16

static enum status no_device(struct error *error, const char *reason)
{
    return error_set(error, STATUS_NO_DEVICE, NULL, NOWHERE, NOWHERE, "no device 'cuda': %s",
                     reason);
}

// --- which one

// A whole number from the environment; false when there is none.
static bool number_of(const char *name, int *number)
{
    const char *text = getenv(name);
    char *end;
    if (text == NULL || *text == '\0') {
        return false;
    }
    long value = strtol(text, &end, 10);
    *number = *end == '\0' && value >= 0 && value <= 65535 ? (int)value : -1;
    return true;
}

// Processes of one machine take its GPUs in turn.
static int local_rank(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID",
                                        "LOCAL_RANK"};
    int rank;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (number_of(names[i], &rank) && rank >= 0) {
            return rank;
        }
    }
    return 0;
}

static enum status count_gpus(int *count, struct error *error)
{
    cudaError_t code = cudaGetDeviceCount(count);
    char reason[256];
    if (code == cudaSuccess && *count > 0) {
        return STATUS_OK;
    }
    cudaGetLastError();
    if (code == cudaSuccess || code == cudaErrorNoDevice) {
        return no_device(error, "this machine has no NVIDIA GPU that may be used");
    }
    bool driver = code == cudaErrorInsufficientDriver || code == cudaErrorStubLibrary;
    snprintf(reason, sizeof reason, "%s (%s)",
             driver ? "no NVIDIA driver, or one that is too old" : cudaGetErrorString(code),
             cudaGetErrorName(code));
    return no_device(error, reason);
}

static enum status choose_gpu(int *gpu, struct error *error)
{
    int count = 0;
    enum status status = count_gpus(&count, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (!number_of("BYOL_CUDA_DEVICE", gpu)) {
        *gpu = local_rank() % count;
    } else if (*gpu < 0 || *gpu >= count) {
        char reason[256];
        snprintf(reason, sizeof reason,
                 "BYOL_CUDA_DEVICE is '%.32s', and this machine has the GPUs 0 to %d",
                 getenv("BYOL_CUDA_DEVICE"), count - 1);
        return no_device(error, reason);
    }
    return STATUS_OK;
}

// --- opening

static enum status describe_gpu(struct cuda_device *device, struct error *error)
{
    struct cudaDeviceProp properties;
    int version = 0;
    char reason[384], library[64];
    cudaError_t code = cudaGetDeviceProperties(&properties, device->gpu);
    if (code == cudaSuccess) {
        code = cudaRuntimeGetVersion(&version);
    }
    if (code != cudaSuccess) {
        return no_device(error, cudaGetErrorString(code));
    }
    if (properties.major < OLDEST) {
        snprintf(reason, sizeof reason, "%s has compute capability %d.%d, and %d.0 is needed",
                 properties.name, properties.major, properties.minor, OLDEST);
        return no_device(error, reason);
    }
    cuda_library_describe(device->library, library, sizeof library);
    snprintf(device->name, sizeof device->name, "%.48s, CUDA %d.%d, %s", properties.name,
             version / 1000, version % 1000 / 10, library);
    return STATUS_OK;
}

static enum status open_streams(struct cuda_device *device, struct error *error)
{
    enum status status = cuda_enter(device);
    if (status == STATUS_OK) {
        status =
            cuda_check(device, cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking),
                       "opening the GPU");
    }
    if (status == STATUS_OK) {
        status =
            cuda_check(device, cudaStreamCreateWithFlags(&device->uploads, cudaStreamNonBlocking),
                       "opening the GPU");
    }
    return status == STATUS_OK ? STATUS_OK : no_device(error, device->failure);
}

static enum status open_library(struct cuda_device *device, struct error *error)
{
    struct error own = {0};
    enum status status = cuda_library_open(&device->library, !device->half, device->stream, &own);
    return status == STATUS_OK ? STATUS_OK : no_device(error, own.reason);
}

static enum status open_parts(struct cuda_device *device, struct error *error)
{
    enum status status = choose_gpu(&device->gpu, error);
    if (status == STATUS_OK) {
        status = open_streams(device, error);
    }
    if (status == STATUS_OK) {
        status = open_library(device, error);
    }
    return status == STATUS_OK ? describe_gpu(device, error) : status;
}

enum status cuda_open(struct device **out, int threads, enum device_precision precision,
                      struct error *error)
{
    (void)threads;
    *out = NULL;
    struct cuda_device *device = calloc(1, sizeof *device);
    if (device == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory");
    }
    device->base.ops = byol_cuda_device();
    device->half = precision != DEVICE_F32;
    device->base.precision = device->half ? DEVICE_BF16 : DEVICE_F32;
    enum status status = open_parts(device, error);
    if (status != STATUS_OK) {
        cuda_close(&device->base);
        return status;
    }
    *out = &device->base;
    return STATUS_OK;
}

static void drop_recording(struct cuda_device *device)
{
    struct device_recording *recording = NULL;
    if (device->recording) {
        cuda_record_end(&device->base, &recording, NULL);
        cuda_record_close(&device->base, recording);
    }
}

// Accepts devices that are half open.
void cuda_close(struct device *device)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    if (cuda->stream != NULL) {
        cuda_enter(cuda);
        drop_recording(cuda);
        cudaStreamSynchronize(cuda->stream);
    }
    cuda_peers_leave(cuda);
    cuda_span_lists_close(cuda);
    cuda_choices_close(cuda);
    cuda_library_close(&cuda->library);
    if (cuda->uploads != NULL) {
        cudaStreamSynchronize(cuda->uploads);
        cudaStreamDestroy(cuda->uploads);
    }
    if (cuda->stream != NULL) {
        cudaStreamDestroy(cuda->stream);
    }
    free(cuda);
}

enum status cuda_enter(struct cuda_device *device)
{
    static _Thread_local int current = -1;
    if (current == device->gpu) {
        return STATUS_OK;
    }
    enum status status = cuda_check(device, cudaSetDevice(device->gpu), "choosing the GPU");
    current = status == STATUS_OK ? device->gpu : -1;
    return status;
}

void cuda_describe(const struct device *device, char *text, size_t capacity)
{
    const struct cuda_device *cuda = (const struct cuda_device *)device;
    snprintf(text, capacity, "%s, %s%s%s", cuda->name, cuda->half ? "bf16" : "f32",
             device->failure != NULL ? ", failed: " : "",
             device->failure != NULL ? device->failure : "");
}
