// Optimisers of the cpu device. Norms are sums over chunks of fixed size, added in order: the same
// bits for any number of threads.
#include "trainer/device/cpu.h"
#include "trainer/device/optim.h"

#include <math.h>
#include <stdlib.h>

#define CHUNK 4096
#define LANES 16 // partial sums, so that every vector width adds in the same order

static size_t chunk_count(uint64_t values)
{
    return (size_t)((values + CHUNK - 1) / CHUNK);
}

static size_t chunk_length(uint64_t values, size_t chunk)
{
    uint64_t left = values - (uint64_t)chunk * CHUNK;
    return left < CHUNK ? (size_t)left : CHUNK;
}

// --- kernels: one chunk

// Adds sum w^2 and sum (g + decay w)^2.
CPU_KERNEL static void norms_of_chunk(double *sums, const float *params, const float *grads,
                                      float decay, size_t count)
{
    double weights[LANES] = {0}, gradients[LANES] = {0};
    size_t whole = count / LANES * LANES;
    for (size_t i = 0; i < whole; i += LANES) {
#pragma omp simd
        for (size_t lane = 0; lane < LANES; lane++) {
            float weight = params[i + lane], gradient = grads[i + lane] + decay * weight;
            weights[lane] += (double)weight * (double)weight;
            gradients[lane] += (double)gradient * (double)gradient;
        }
    }
    for (size_t i = whole; i < count; i++) {
        float gradient = grads[i] + decay * params[i];
        weights[i - whole] += (double)params[i] * (double)params[i];
        gradients[i - whole] += (double)gradient * (double)gradient;
    }
    sums[0] = sums[1] = 0;
    for (size_t lane = 0; lane < LANES; lane++) {
        sums[0] += weights[lane];
        sums[1] += gradients[lane];
    }
}

struct lars_factors {
    float momentum, ratio, decay, rate;
};

CPU_KERNEL static void lars_chunk(const struct lars_factors *factors, float *params,
                                  const float *grads, float *momentum, size_t count)
{
    struct lars_factors own = *factors;
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        float moved = own.momentum * momentum[i] + own.ratio * (grads[i] + own.decay * params[i]);
        momentum[i] = moved;
        params[i] -= own.rate * moved;
    }
}

CPU_KERNEL static void sgd_chunk(float rate, float decay, bool nesterov, float *params,
                                 const float *grads, float *momentum, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        float moved = decay * momentum[i] + grads[i];
        momentum[i] = moved;
        params[i] -= rate * (nesterov ? grads[i] + decay * moved : moved);
    }
}

CPU_KERNEL static void prepare_chunk(const struct gradient_factors *factors, const float *params,
                                     float *grads, size_t count)
{
    struct gradient_factors own = *factors;
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        grads[i] = own.rate * (own.ratio * (grads[i] + own.decay * params[i]));
    }
}

CPU_KERNEL static void adamw_chunk(const struct adamw_factors *factors, float *params,
                                   const float *grads, float *momentum, float *second_moment,
                                   size_t count)
{
    struct adamw_factors own = *factors;
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        float first = own.beta1 * momentum[i] + own.rest1 * grads[i];
        float second = own.beta2 * second_moment[i] + own.rest2 * (grads[i] * grads[i]);
        momentum[i] = first;
        second_moment[i] = second;
        params[i] =
            own.keep * params[i] - own.rate * first / (sqrtf(second) / own.root + own.epsilon);
    }
}

CPU_KERNEL static void average_chunk(float *target, const float *online, float rate, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        target[i] += rate * (online[i] - target[i]);
    }
}

// --- whole blocks

static enum status reserve_sums(struct cpu_device *device, const struct param_span *spans,
                                size_t count)
{
    size_t chunks = 0;
    for (size_t i = 0; i < count; i++) {
        chunks = chunk_count(spans[i].count) > chunks ? chunk_count(spans[i].count) : chunks;
    }
    if (chunks <= device->sums_capacity) {
        return STATUS_OK;
    }
    double *grown = realloc(device->sums, chunks * 2 * sizeof *grown);
    if (grown == NULL) {
        return STATUS_NO_MEMORY;
    }
    device->sums = grown;
    device->sums_capacity = chunks;
    return STATUS_OK;
}

// Sum w^2 and sum (g + decay w)^2 of one tensor.
struct square_sums {
    double weights, gradients;
};

static struct square_sums sum_squares(struct cpu_device *device, float decay, const float *params,
                                      const float *grads, uint64_t count)
{
    size_t chunks = chunk_count(count);
    double *sums = device->sums;
    struct square_sums total = {0, 0};
#pragma omp parallel for num_threads(device->threads)
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        norms_of_chunk(sums + 2 * chunk, params + chunk * CHUNK, grads + chunk * CHUNK, decay,
                       chunk_length(count, chunk));
    }
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        total.weights += sums[2 * chunk];
        total.gradients += sums[2 * chunk + 1];
    }
    return total;
}

// LARS' factor for the gradient of one tensor: trust ||w|| / ||g + decay w||.
static float trust_ratio(struct cpu_device *device, const struct lars_settings *settings,
                         const float *params, const float *grads, uint64_t count)
{
    struct square_sums sums = sum_squares(device, settings->weight_decay, params, grads, count);
    if (sums.weights == 0 || sums.gradients == 0) {
        return 1.0f;
    }
    return (float)((double)settings->trust * sqrt(sums.weights) / sqrt(sums.gradients));
}

static void lars_span(struct cpu_device *device, const struct param_span *span,
                      const struct lars_settings *settings, float *params, const float *grads,
                      float *momentum)
{
    struct lars_factors factors = {settings->momentum, 1.0f, 0.0f,
                                   settings->learning_rate * span->learning_rate_scale};
    if (span->decay) {
        factors.ratio = trust_ratio(device, settings, params, grads, span->count);
        factors.decay = settings->weight_decay;
    }
#pragma omp parallel for num_threads(device->threads)
    for (size_t chunk = 0; chunk < chunk_count(span->count); chunk++) {
        size_t at = chunk * CHUNK;
        lars_chunk(&factors, params + at, grads + at, momentum + at,
                   chunk_length(span->count, chunk));
    }
}

enum status cpu_lars_step(struct device *device, const struct param_span *spans, size_t count,
                          const struct lars_settings *settings, float *params, const float *grads,
                          float *momentum)
{
    struct cpu_device *cpu = (struct cpu_device *)device;
    enum status status = reserve_sums(cpu, spans, count);
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        uint64_t at = spans[i].offset;
        lars_span(cpu, &spans[i], settings, params + at, grads + at, momentum + at);
    }
    return status;
}

enum status cpu_sgd_step(struct device *device, const struct param_span *spans, size_t count,
                         const struct sgd_settings *settings, float *params, const float *grads,
                         float *momentum)
{
    for (size_t i = 0; i < count; i++) {
        const struct param_span *span = &spans[i];
        float rate = settings->learning_rate * span->learning_rate_scale;
#pragma omp parallel for num_threads(((struct cpu_device *)device)->threads)
        for (size_t chunk = 0; chunk < chunk_count(span->count); chunk++) {
            size_t at = span->offset + chunk * CHUNK;
            sgd_chunk(rate, settings->momentum, settings->nesterov, params + at, grads + at,
                      momentum + at, chunk_length(span->count, chunk));
        }
    }
    return STATUS_OK;
}

static void prepare_span(struct cpu_device *device, const struct param_span *span,
                         const struct gradient_settings *settings, const float *params,
                         float *grads)
{
    struct square_sums sums = {0, 0};
    if (settings->adaptive && span->decay) {
        sums = sum_squares(device, 0, params, grads, span->count);
    }
    struct gradient_factors factors =
        gradient_factors(settings, span, sqrt(sums.weights), sqrt(sums.gradients));
#pragma omp parallel for num_threads(device->threads)
    for (size_t chunk = 0; chunk < chunk_count(span->count); chunk++) {
        size_t at = chunk * CHUNK;
        prepare_chunk(&factors, params + at, grads + at, chunk_length(span->count, chunk));
    }
}

enum status cpu_prepare_gradients(struct device *device, const struct param_span *spans,
                                  size_t count, const struct gradient_settings *settings,
                                  const float *params, float *grads)
{
    struct cpu_device *cpu = (struct cpu_device *)device;
    enum status status = reserve_sums(cpu, spans, count);
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        uint64_t at = spans[i].offset;
        prepare_span(cpu, &spans[i], settings, params + at, grads + at);
    }
    return status;
}

enum status cpu_adamw_step(struct device *device, const struct param_span *spans, size_t count,
                           const struct adamw_settings *settings, float *params, const float *grads,
                           float *momentum, float *second_moment, float *steps)
{
    *steps += 1.0f;
    for (size_t i = 0; i < count; i++) {
        const struct param_span *span = &spans[i];
        struct adamw_factors factors = adamw_factors(settings, span, *steps);
#pragma omp parallel for num_threads(((struct cpu_device *)device)->threads)
        for (size_t chunk = 0; chunk < chunk_count(span->count); chunk++) {
            size_t at = span->offset + chunk * CHUNK;
            adamw_chunk(&factors, params + at, grads + at, momentum + at, second_moment + at,
                        chunk_length(span->count, chunk));
        }
    }
    return STATUS_OK;
}

enum status cpu_moving_average(struct device *device, float *target, const float *online,
                               uint64_t count, float rate)
{
#pragma omp parallel for num_threads(((struct cpu_device *)device)->threads)
    for (size_t chunk = 0; chunk < chunk_count(count); chunk++) {
        size_t at = chunk * CHUNK;
        average_chunk(target + at, online + at, rate, chunk_length(count, chunk));
    }
    return STATUS_OK;
}

enum status cpu_block_add(struct device *device, float *sum, const float *block, uint64_t count)
{
    cpu_accumulate((struct cpu_device *)device, sum, block, count);
    return STATUS_OK;
}
