// Losses, optimisers and products: the kernels of optim.h, and the tables of spans that they read.
#include "trainer/cuda/cuda.h"

#include "trainer/cuda/optim.h"

#include <stdlib.h>
#include <string.h>

// --- tables of spans

// A list of spans that an optimiser has seen. Recordings go on using its table: it stays until the
// device is closed.
struct cuda_span_list {
    const struct param_span *given;
    size_t count;
    uint64_t contents;
    struct cuda_spans *table;
    struct cuda_span_list *next;
};

static uint64_t mix(uint64_t sum, uint64_t value)
{
    sum = (sum ^ value) * 0x9e3779b97f4a7c15u;
    return sum ^ sum >> 29;
}

static uint64_t contents_of(const struct param_span *spans, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t scale;
        memcpy(&scale, &spans[i].learning_rate_scale, sizeof scale);
        sum = mix(sum, spans[i].offset);
        sum = mix(sum, spans[i].count);
        sum = mix(sum, (uint64_t)scale << 1 | spans[i].decay);
    }
    return sum;
}

static enum status add_list(struct cuda_device *device, struct cuda_span_list list,
                            struct cuda_spans **table)
{
    if (device->recording) {
        return cuda_fail(device, "an optimiser", "its spans are new, and work is being recorded");
    }
    struct cuda_span_list *added = malloc(sizeof *added);
    if (added == NULL) {
        return cuda_fail(device, "an optimiser", "no memory for its spans");
    }
    enum status status = cuda_check(device, cuda_spans_open(&list.table, list.given, list.count),
                                    "a table of spans");
    if (status != STATUS_OK) {
        free(added);
        return status;
    }
    list.next = device->spans;
    *added = list;
    device->spans = added;
    *table = list.table;
    return STATUS_OK;
}

static enum status table_of(struct cuda_device *device, const struct param_span *spans,
                            size_t count, struct cuda_spans **table)
{
    uint64_t contents = contents_of(spans, count);
    *table = NULL;
    enum status status = cuda_enter(device);
    if (status != STATUS_OK) {
        return status;
    }
    for (const struct cuda_span_list *list = device->spans; list != NULL; list = list->next) {
        if (list->given == spans && list->count == count && list->contents == contents) {
            *table = list->table;
            return STATUS_OK;
        }
    }
    struct cuda_span_list list = {.given = spans, .count = count, .contents = contents};
    return add_list(device, list, table);
}

void cuda_span_lists_close(struct cuda_device *device)
{
    while (device->spans != NULL) {
        struct cuda_span_list *list = device->spans;
        device->spans = list->next;
        cuda_spans_close(list->table);
        free(list);
    }
}

// --- optimisers

enum status cuda_device_lars_step(struct device *device, const struct param_span *spans,
                                  size_t count, const struct lars_settings *settings, float *params,
                                  const float *grads, float *momentum,
                                  const struct moving_target *target)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    struct cuda_spans *table;
    enum status status = table_of(cuda, spans, count, &table);
    if (status != STATUS_OK) {
        return status;
    }
    return cuda_check(
        cuda, cuda_lars_step(table, settings, params, grads, momentum, target, cuda->stream),
        "a step of LARS");
}

enum status cuda_device_sgd_step(struct device *device, const struct param_span *spans,
                                 size_t count, const struct sgd_settings *settings, float *params,
                                 const float *grads, float *momentum,
                                 const struct moving_target *target)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    struct cuda_spans *table;
    enum status status = table_of(cuda, spans, count, &table);
    if (status != STATUS_OK) {
        return status;
    }
    return cuda_check(cuda,
                      cuda_sgd_step(table, settings, params, grads, momentum, target, cuda->stream),
                      "a step of SGD");
}

enum status cuda_device_adamw_step(struct device *device, const struct param_span *spans,
                                   size_t count, const struct adamw_settings *settings,
                                   float *params, const float *grads, float *momentum,
                                   float *second_moment, float *steps,
                                   const struct moving_target *target)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    struct cuda_spans *table;
    enum status status = table_of(cuda, spans, count, &table);
    if (status != STATUS_OK) {
        return status;
    }
    return cuda_check(cuda,
                      cuda_adamw_step(table, settings, params, grads, momentum, second_moment,
                                      steps, target, cuda->stream),
                      "a step of AdamW");
}

enum status cuda_device_moving_average(struct device *device, float *target, const float *online,
                                       uint64_t count, float rate)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    enum status status = cuda_enter(cuda);
    if (status != STATUS_OK) {
        return status;
    }
    return cuda_check(cuda, cuda_moving_average(target, online, count, rate, cuda->stream),
                      "a moving average");
}

enum status cuda_device_block_add(struct device *device, float *sum, const float *block,
                                  uint64_t count)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    enum status status = cuda_enter(cuda);
    return status == STATUS_OK ? cuda_check(cuda, cuda_block_add(sum, block, count, cuda->stream),
                                            "a sum of blocks")
                               : status;
}

// --- losses

enum status cuda_device_regression_loss(struct device *device, const float *x, const float *y,
                                        uint32_t n, uint32_t d, float scale, float *losses,
                                        float *dx, float *dy)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    enum status status = cuda_enter(cuda);
    if (status != STATUS_OK) {
        return status;
    }
    return cuda_check(cuda, cuda_regression_loss(x, y, n, d, scale, losses, dx, dy, cuda->stream),
                      "a regression loss");
}

enum status cuda_device_softmax_loss(struct device *device, const float *logits,
                                     const int32_t *labels, uint32_t n, uint32_t classes,
                                     const float *scale, float *losses, float *dlogits,
                                     uint8_t *top1, uint8_t *top5)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    enum status status = cuda_enter(cuda);
    if (status != STATUS_OK) {
        return status;
    }
    return cuda_check(cuda,
                      cuda_softmax_loss(logits, labels, n, classes, scale, losses, dlogits, top1,
                                        top5, cuda->stream),
                      "a softmax loss");
}

// --- products

enum status cuda_device_matrix_product(struct device *device, bool transpose_a, bool transpose_b,
                                       uint32_t m, uint32_t n, uint32_t k, const float *a,
                                       const float *b, float *c, bool accumulate)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    enum status status = cuda_enter(cuda);
    if (status == STATUS_OK) {
        status =
            cuda_product(cuda->library, transpose_a, transpose_b, m, n, k, a, b, c, accumulate);
    }
    return status == STATUS_OK
               ? STATUS_OK
               : cuda_fail(cuda, "a matrix product", cuda_library_failure(cuda->library));
}
