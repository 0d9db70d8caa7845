// Each candidate runs once to be loaded and then three times between events; the shortest counts.
// The images are random, because multiplying zeros takes less power and so less time.
#include "trainer/cuda/lanes.h"
#include "trainer/cuda/library_internal.h"

#include <float.h>
#include <stdlib.h>

#define RUNS    3
#define PATTERN ((size_t)1 << 20) // bytes of random values, repeated

struct bench {
    void *x, *w, *y, *workspace;
    cudaEvent_t start, stop;
};

// --- buffers -------------------------------------------------------------------------------------

static void make_pattern(void *pattern, bool half)
{
    uint32_t state = 2463534242u;
    size_t count = PATTERN / (half ? sizeof(bfloat) : sizeof(float));
    for (size_t i = 0; i < count; i++) {
        state ^= state << 13, state ^= state >> 17, state ^= state << 5;
        float value = (float)(state >> 8) / (float)(1 << 23) - 1;
        if (half) {
            ((bfloat *)pattern)[i] = bfloat_of(value);
        } else {
            ((float *)pattern)[i] = value;
        }
    }
}

// Device memory full of the pattern, which is copied over and over, twice as much every time.
static cudaError_t make_buffer(void **memory, size_t bytes, const void *pattern,
                               cudaStream_t stream)
{
    cudaError_t result = cudaMalloc(memory, bytes);
    size_t filled = bytes < PATTERN ? bytes : PATTERN;
    if (result == cudaSuccess) {
        result = cudaMemcpyAsync(*memory, pattern, filled, cudaMemcpyHostToDevice, stream);
    }
    while (filled < bytes && result == cudaSuccess) {
        size_t more = filled < bytes - filled ? filled : bytes - filled;
        result = cudaMemcpyAsync((char *)*memory + filled, *memory, more, cudaMemcpyDeviceToDevice,
                                 stream);
        filled += more;
    }
    return result;
}

static cudaError_t make_buffers(struct bench *bench, const struct cuda_conv *conv, size_t workspace,
                                const void *pattern, cudaStream_t stream)
{
    size_t value = conv->half ? sizeof(bfloat) : sizeof(float);
    size_t x = (size_t)conv->n * conv->h * conv->w * conv->c * value,
           w = (size_t)conv->out_c * conv->kernel * conv->kernel * conv->c * value,
           y = (size_t)conv->n * conv->out_h * conv->out_w * conv->out_c * value;
    cudaError_t result = make_buffer(&bench->x, x, pattern, stream);
    if (result == cudaSuccess) {
        result = make_buffer(&bench->w, w, pattern, stream);
    }
    if (result == cudaSuccess) {
        result = make_buffer(&bench->y, y, pattern, stream);
    }
    if (result == cudaSuccess && workspace > 0) {
        result = cudaMalloc(&bench->workspace, workspace);
    }
    return result == cudaSuccess ? cudaStreamSynchronize(stream) : result;
}

static size_t largest_workspace(const struct conv_candidates *candidates)
{
    size_t largest = 0;
    for (size_t i = 0; i < candidates->count; i++) {
        size_t bytes = candidates->plans[i].workspace;
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

static enum status open_bench(struct bench *bench, const struct cuda_conv *conv,
                              const struct conv_candidates *candidates, cudaStream_t stream,
                              struct error *error)
{
    void *pattern = malloc(PATTERN);
    if (pattern == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory to try out a convolution");
    }
    make_pattern(pattern, conv->half);
    enum status status =
        library_check(make_buffers(bench, conv, largest_workspace(candidates), pattern, stream),
                      "buffers to try out a convolution", error);
    free(pattern);
    if (status == STATUS_OK) {
        status = library_check(cudaEventCreate(&bench->start), "an event", error);
    }
    return status == STATUS_OK ? library_check(cudaEventCreate(&bench->stop), "an event", error)
                               : status;
}

static void close_bench(struct bench *bench)
{
    if (bench->start != NULL) {
        cudaEventDestroy(bench->start);
    }
    if (bench->stop != NULL) {
        cudaEventDestroy(bench->stop);
    }
    cudaFree(bench->workspace);
    cudaFree(bench->y);
    cudaFree(bench->w);
    cudaFree(bench->x);
}

// --- times ---------------------------------------------------------------------------------------

static enum status time_run(const struct bench *bench, const struct cuda_library *library,
                            const struct cudnn_plan *plan, float *milliseconds, struct error *error)
{
    enum status status =
        library_check(cudaEventRecord(bench->start, library->stream), "an event", error);
    if (status == STATUS_OK) {
        status = cudnn_plan_run(plan, library->handle, bench->x, bench->w, bench->y,
                                bench->workspace, error);
    }
    if (status == STATUS_OK) {
        status = library_check(cudaEventRecord(bench->stop, library->stream), "an event", error);
    }
    if (status == STATUS_OK) {
        status =
            library_check(cudaEventSynchronize(bench->stop), "trying out a convolution", error);
    }
    return status == STATUS_OK
               ? library_check(cudaEventElapsedTime(milliseconds, bench->start, bench->stop),
                               "the time of a convolution", error)
               : status;
}

static enum status time_plan(const struct bench *bench, const struct cuda_library *library,
                             const struct cudnn_plan *plan, float *shortest, struct error *error)
{
    float milliseconds = 0;
    *shortest = FLT_MAX;
    enum status status = time_run(bench, library, plan, &milliseconds, error);
    for (int run = 0; run < RUNS && status == STATUS_OK; run++) {
        status = time_run(bench, library, plan, &milliseconds, error);
        *shortest = milliseconds < *shortest ? milliseconds : *shortest;
    }
    return status;
}

// A candidate that fails is passed over; that all do is an error, the last one's.
static enum status time_all(const struct bench *bench, const struct cuda_library *library,
                            const struct conv_candidates *candidates, size_t *best,
                            struct error *error)
{
    float shortest = FLT_MAX;
    bool found = false;
    struct error last = {.status = STATUS_DEVICE};
    for (size_t i = 0; i < candidates->count; i++) {
        float milliseconds = 0;
        if (time_plan(bench, library, &candidates->plans[i], &milliseconds, &last) == STATUS_OK &&
            (!found || milliseconds < shortest)) {
            shortest = milliseconds;
            *best = i;
            found = true;
        }
    }
    if (!found && error != NULL) {
        *error = last;
    }
    return found ? STATUS_OK : last.status;
}

enum status conv_tune(const struct cuda_library *library, const struct cuda_conv *conv,
                      const struct conv_candidates *candidates, size_t *best, bool *measured,
                      struct error *error)
{
    *best = 0;
    *measured = false;
    struct bench bench = {0};
    enum status status = open_bench(&bench, conv, candidates, library->stream, error);
    if (status == STATUS_OK) {
        status = time_all(&bench, library, candidates, best, error);
        *measured = status == STATUS_OK;
    } else if (status == STATUS_NO_MEMORY) {
        cudaGetLastError(); // or the next check of a launch would report it
        status = STATUS_OK;
    }
    close_bench(&bench);
    return status;
}
