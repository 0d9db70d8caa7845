// Optimisers of the cpu device. All spans are cut into chunks, which the threads share; one pass
// over them takes the norms where an optimiser wants them, the next moves parameters, momentum and
// what follows the parameters, value by value. Norms are sums over chunks of fixed size, added in
// order: the same bits for any number of threads.
#include "trainer/device/cpu.h"
#include "trainer/device/optim.h"

#include <math.h>
#include <stdlib.h>

#define CHUNK 4096
#define LANES 16 // partial sums, so that every vector width adds in the same order

// Sum w^2 and sum (g + decay w)^2.
struct square_sums {
    double weights, gradients;
};

// --- kernels: one chunk

union factors {
    struct lars_factors lars;
    struct sgd_factors sgd;
    struct adamw_factors adamw;
};

// What a kernel works on.
struct place {
    float *params;
    const float *grads;
    float *momentum, *second_moment; // the latter NULL for all but AdamW
    float *target;                   // NULL: nobody follows
    float target_rate;
    size_t count;
};

// Sum w^2 and sum (g + decay w)^2.
CPU_KERNEL static void norms_of_chunk(struct square_sums *sums, const float *params,
                                      const float *grads, float decay, size_t count)
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
    *sums = (struct square_sums){0, 0};
    for (size_t lane = 0; lane < LANES; lane++) {
        sums->weights += weights[lane];
        sums->gradients += gradients[lane];
    }
}

// One value.
static inline __attribute__((always_inline)) void move_lars(const struct lars_factors *own,
                                                            const struct place *at, size_t i)
{
    float moved =
        own->momentum * at->momentum[i] + own->ratio * (at->grads[i] + own->decay * at->params[i]);
    at->momentum[i] = moved;
    at->params[i] -= own->rate * moved;
}

static inline __attribute__((always_inline)) void move_sgd(const struct sgd_factors *own,
                                                           const struct place *at, size_t i)
{
    float gradient =
        own->gradient_rate * (own->ratio * (at->grads[i] + own->decay * at->params[i]));
    float moved = own->momentum * at->momentum[i] + gradient;
    at->momentum[i] = moved;
    at->params[i] -= own->rate * (own->nesterov ? gradient + own->momentum * moved : moved);
}

static inline __attribute__((always_inline)) void move_adamw(const struct adamw_factors *own,
                                                             const struct place *at, size_t i)
{
    float first = own->beta1 * at->momentum[i] + own->rest1 * at->grads[i];
    float second = own->beta2 * at->second_moment[i] + own->rest2 * (at->grads[i] * at->grads[i]);
    at->momentum[i] = first;
    at->second_moment[i] = second;
    at->params[i] =
        own->keep * at->params[i] - own->rate * first / (sqrtf(second) / own->root + own->epsilon);
}

static inline __attribute__((always_inline)) void follow(const struct place *at, size_t i)
{
    at->target[i] += at->target_rate * (at->params[i] - at->target[i]);
}

// A chunk by each optimiser. The target is asked for once, outside of the loops, so that they
// stay vectors.
#define CHUNK_KERNEL(optimiser)                                                                    \
    CPU_KERNEL static void optimiser##_chunk(const union factors *factors,                         \
                                             const struct place *place)                            \
    {                                                                                              \
        struct optimiser##_factors own = factors->optimiser;                                       \
        struct place at = *place;                                                                  \
        if (at.target == NULL) {                                                                   \
            _Pragma("omp simd") for (size_t i = 0; i < at.count; i++)                              \
            {                                                                                      \
                move_##optimiser(&own, &at, i);                                                    \
            }                                                                                      \
            return;                                                                                \
        }                                                                                          \
        _Pragma("omp simd") for (size_t i = 0; i < at.count; i++)                                  \
        {                                                                                          \
            move_##optimiser(&own, &at, i);                                                        \
            follow(&at, i);                                                                        \
        }                                                                                          \
    }
CHUNK_KERNEL(lars)
CHUNK_KERNEL(sgd)
CHUNK_KERNEL(adamw)

CPU_KERNEL static void average_chunk(float *target, const float *online, float rate, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        target[i] += rate * (online[i] - target[i]);
    }
}

// --- the list of chunks

struct chunk {
    uint64_t at; // in the blocks
    size_t count;
    const struct param_span *span;
    struct square_sums sums;
};

// One span, and where its chunks begin in the list.
struct piece {
    size_t first_chunk;
    union factors factors;
};

// Kept from step to step, so that only the first one allocates.
struct cpu_update {
    struct chunk *chunks;
    struct piece *pieces; // one more than spans: the end of the list
    size_t chunk_capacity, piece_capacity;
};

static size_t chunk_count(uint64_t values)
{
    return (size_t)((values + CHUNK - 1) / CHUNK);
}

void cpu_update_release(struct cpu_update *update)
{
    if (update != NULL) {
        free(update->chunks);
        free(update->pieces);
        free(update);
    }
}

static enum status reserve(struct cpu_device *device, const struct param_span *spans, size_t count)
{
    if (device->update == NULL) {
        device->update = calloc(1, sizeof *device->update);
    }
    struct cpu_update *update = device->update;
    if (update == NULL) {
        return STATUS_NO_MEMORY;
    }
    size_t chunks = 0;
    for (size_t i = 0; i < count; i++) {
        chunks += chunk_count(spans[i].count);
    }
    if (chunks > update->chunk_capacity) {
        free(update->chunks);
        update->chunks = malloc(chunks * sizeof *update->chunks);
        update->chunk_capacity = update->chunks == NULL ? 0 : chunks;
    }
    if (count + 1 > update->piece_capacity) {
        free(update->pieces);
        update->pieces = malloc((count + 1) * sizeof *update->pieces);
        update->piece_capacity = update->pieces == NULL ? 0 : count + 1;
    }
    return chunks <= update->chunk_capacity && count < update->piece_capacity ? STATUS_OK
                                                                              : STATUS_NO_MEMORY;
}

static void cut(struct cpu_update *update, const struct param_span *spans, size_t count)
{
    struct chunk *chunk = update->chunks;
    for (size_t i = 0; i < count; i++) {
        update->pieces[i].first_chunk = (size_t)(chunk - update->chunks);
        for (uint64_t at = 0; at < spans[i].count; at += CHUNK, chunk++) {
            uint64_t left = spans[i].count - at;
            *chunk = (struct chunk){.at = spans[i].offset + at,
                                    .count = left < CHUNK ? (size_t)left : CHUNK,
                                    .span = &spans[i]};
        }
    }
    update->pieces[count].first_chunk = (size_t)(chunk - update->chunks);
}

// --- one step of any optimiser

struct step {
    const struct param_span *spans;
    size_t count;
    struct place blocks; // from their first values on
    const void *settings;
    float steps; // of AdamW
    bool norms;  // of decay spans: of w and of g + norm_decay w
    float norm_decay;
    void (*find)(union factors *factors, const struct step *step, const struct param_span *span,
                 const struct square_sums *sums);
    void (*move_chunk)(const union factors *factors, const struct place *place);
};

static void find_lars(union factors *factors, const struct step *step,
                      const struct param_span *span, const struct square_sums *sums)
{
    factors->lars =
        lars_factors_of(step->settings, span, sqrt(sums->weights), sqrt(sums->gradients));
}

static void find_sgd(union factors *factors, const struct step *step, const struct param_span *span,
                     const struct square_sums *sums)
{
    factors->sgd = sgd_factors_of(step->settings, span, sqrt(sums->weights), sqrt(sums->gradients));
}

static void find_adamw(union factors *factors, const struct step *step,
                       const struct param_span *span, const struct square_sums *sums)
{
    (void)sums;
    factors->adamw = adamw_factors_of(step->settings, span, step->steps);
}

static void measure_chunk(struct chunk *chunk, const struct step *step)
{
    if (step->norms && chunk->span->decay) {
        norms_of_chunk(&chunk->sums, step->blocks.params + chunk->at,
                       step->blocks.grads + chunk->at, step->norm_decay, chunk->count);
    }
}

static void find_factors(struct piece *piece, const struct chunk *chunks, const struct step *step,
                         const struct param_span *span)
{
    struct square_sums sums = {0, 0};
    for (size_t i = piece[0].first_chunk; i < piece[1].first_chunk; i++) {
        sums.weights += chunks[i].sums.weights;
        sums.gradients += chunks[i].sums.gradients;
    }
    step->find(&piece->factors, step, span, &sums);
}

static void move_chunk(const struct chunk *chunk, const struct piece *piece,
                       const struct step *step)
{
    struct place place = step->blocks;
    place.params += chunk->at;
    place.grads += chunk->at;
    place.momentum += chunk->at;
    place.second_moment += place.second_moment == NULL ? 0 : chunk->at;
    place.target += place.target == NULL ? 0 : chunk->at;
    place.count = chunk->count;
    step->move_chunk(&piece->factors, &place);
}

static enum status run_step(struct device *device, const struct step *step)
{
    struct cpu_device *cpu = (struct cpu_device *)device;
    enum status status = reserve(cpu, step->spans, step->count);
    if (status != STATUS_OK) {
        return status;
    }
    cut(cpu->update, step->spans, step->count);
    struct chunk *chunks = cpu->update->chunks;
    struct piece *pieces = cpu->update->pieces;
    size_t count = pieces[step->count].first_chunk;
#pragma omp parallel num_threads(cpu->threads)
    {
#pragma omp for schedule(static)
        for (size_t i = 0; i < count; i++) {
            measure_chunk(&chunks[i], step);
        }
#pragma omp for schedule(static)
        for (size_t i = 0; i < step->count; i++) {
            find_factors(&pieces[i], chunks, step, &step->spans[i]);
        }
#pragma omp for schedule(static)
        for (size_t i = 0; i < count; i++) {
            const struct chunk *chunk = &chunks[i];
            move_chunk(chunk, &pieces[chunk->span - step->spans], step);
        }
    }
    return STATUS_OK;
}

static struct step make_step(const struct param_span *spans, size_t count, const void *settings,
                             const struct place *blocks, const struct moving_target *target)
{
    struct step step = {.spans = spans, .count = count, .settings = settings, .blocks = *blocks};
    if (target != NULL) {
        step.blocks.target = target->params;
        step.blocks.target_rate = *target->rate;
    }
    return step;
}

enum status cpu_lars_step(struct device *device, const struct param_span *spans, size_t count,
                          const struct lars_settings *settings, float *params, const float *grads,
                          float *momentum, const struct moving_target *target)
{
    const struct place blocks = {.params = params, .grads = grads, .momentum = momentum};
    struct step step = make_step(spans, count, settings, &blocks, target);
    step.norms = true;
    step.norm_decay = settings->weight_decay;
    step.find = find_lars;
    step.move_chunk = lars_chunk;
    return run_step(device, &step);
}

enum status cpu_sgd_step(struct device *device, const struct param_span *spans, size_t count,
                         const struct sgd_settings *settings, float *params, const float *grads,
                         float *momentum, const struct moving_target *target)
{
    const struct place blocks = {.params = params, .grads = grads, .momentum = momentum};
    struct step step = make_step(spans, count, settings, &blocks, target);
    step.norms = settings->gradient.adaptive;
    step.find = find_sgd;
    step.move_chunk = sgd_chunk;
    return run_step(device, &step);
}

enum status cpu_adamw_step(struct device *device, const struct param_span *spans, size_t count,
                           const struct adamw_settings *settings, float *params, const float *grads,
                           float *momentum, float *second_moment, float *steps,
                           const struct moving_target *target)
{
    const struct place blocks = {
        .params = params, .grads = grads, .momentum = momentum, .second_moment = second_moment};
    struct step step = make_step(spans, count, settings, &blocks, target);
    *steps += 1.0f;
    step.steps = *steps;
    step.find = find_adamw;
    step.move_chunk = adamw_chunk;
    return run_step(device, &step);
}

enum status cpu_moving_average(struct device *device, float *target, const float *online,
                               uint64_t count, float rate)
{
#pragma omp parallel for num_threads(((struct cpu_device *)device)->threads)
    for (size_t chunk = 0; chunk < chunk_count(count); chunk++) {
        size_t at = chunk * CHUNK;
        uint64_t left = count - at;
        average_chunk(target + at, online + at, rate, left < CHUNK ? (size_t)left : CHUNK);
    }
    return STATUS_OK;
}

enum status cpu_block_add(struct device *device, float *sum, const float *block, uint64_t count)
{
    cpu_accumulate((struct cpu_device *)device, sum, block, count);
    return STATUS_OK;
}
