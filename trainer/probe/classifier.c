// The linear classifier's forward, gradient and update in terms of device functions.
#include "trainer/probe/classifier.h"

#include <stdlib.h>
#include <string.h>

#define MOMENTUM 0.9f

static enum status failed(enum status status, struct error *error)
{
    return status == STATUS_OK ? STATUS_OK
                               : error_set(error, status, NULL, NOWHERE, NOWHERE,
                                           "the device failed in the linear classifier");
}

static size_t weight_count(const struct classifier *classifier)
{
    return (size_t)classifier->width * classifier->classes;
}

static size_t param_count(const struct classifier *classifier)
{
    return weight_count(classifier) + classifier->classes;
}

// --- life ------------------------------------------------------------------------------------

static enum status allocate_on_device(struct classifier *classifier, struct error *error)
{
    size_t params = param_count(classifier) * sizeof(float);
    size_t logits = (size_t)classifier->batch * classifier->classes * sizeof(float);
    size_t rows = classifier->batch;
    const struct {
        void **memory;
        size_t bytes;
    } blocks[] = {
        {(void **)&classifier->params, params},
        {(void **)&classifier->grads, params},
        {(void **)&classifier->trace, params},
        {(void **)&classifier->embeddings, rows * classifier->width * sizeof(float)},
        {(void **)&classifier->logits, logits},
        {(void **)&classifier->dlogits, logits},
        {(void **)&classifier->losses, rows * sizeof(float)},
        {(void **)&classifier->ones, rows * sizeof(float)},
        {(void **)&classifier->learning_rate, sizeof(float)},
        {(void **)&classifier->scale, sizeof(float)},
        {(void **)&classifier->labels, rows * sizeof(int32_t)},
        {(void **)&classifier->top1, rows},
        {(void **)&classifier->top5, rows},
    };
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < sizeof blocks / sizeof blocks[0]; i++) {
        status = classifier->device->ops->allocate(classifier->device, blocks[i].memory,
                                                   blocks[i].bytes, error);
    }
    return status;
}

enum status classifier_open(struct classifier *classifier, struct device *device, uint32_t width,
                            uint32_t classes, uint32_t batch, struct error *error)
{
    *classifier =
        (struct classifier){.device = device, .width = width, .classes = classes, .batch = batch};
    classifier->host_losses = calloc(batch, sizeof *classifier->host_losses);
    classifier->host_top1 = calloc(batch, 1);
    classifier->host_top5 = calloc(batch, 1);
    enum status status = STATUS_OK;
    if (!classifier->host_losses || !classifier->host_top1 || !classifier->host_top5) {
        status = error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                           "no memory for a linear classifier");
    }
    if (status == STATUS_OK) {
        status = allocate_on_device(classifier, error);
    }
    if (status == STATUS_OK) {
        for (uint32_t i = 0; i < batch; i++) {
            classifier->host_losses[i] = 1;
        }
        status = failed(device->ops->copy_in(device, classifier->ones, classifier->host_losses,
                                             batch * sizeof(float)),
                        error);
    }
    if (status != STATUS_OK) {
        classifier_close(classifier);
    }
    return status;
}

void classifier_close(struct classifier *classifier)
{
    void *const blocks[] = {classifier->params,     classifier->grads,         classifier->trace,
                            classifier->embeddings, classifier->logits,        classifier->dlogits,
                            classifier->losses,     classifier->ones,          classifier->labels,
                            classifier->top1,       classifier->learning_rate, classifier->scale,
                            classifier->top5};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        if (blocks[i]) {
            classifier->device->ops->release(classifier->device, blocks[i]);
        }
    }
    free(classifier->host_losses);
    free(classifier->host_top1);
    free(classifier->host_top5);
    *classifier = (struct classifier){0};
}

enum status classifier_load(struct classifier *classifier, const struct linear_classifier *from,
                            struct error *error)
{
    const struct device_ops *ops = classifier->device->ops;
    size_t weights = weight_count(classifier);
    const struct {
        float *to;
        const float *from;
        size_t count;
    } parts[] = {
        {classifier->params, from->weights, weights},
        {classifier->params + weights, from->bias, classifier->classes},
        {classifier->trace, from->weights_trace, weights},
        {classifier->trace + weights, from->bias_trace, classifier->classes},
    };
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < 4; i++) {
        status = ops->copy_in(classifier->device, parts[i].to, parts[i].from,
                              parts[i].count * sizeof(float));
    }
    return failed(status, error);
}

enum status classifier_store(const struct classifier *classifier, struct linear_classifier *to,
                             struct error *error)
{
    const struct device_ops *ops = classifier->device->ops;
    size_t weights = weight_count(classifier);
    const struct {
        float *to;
        const float *from;
        size_t count;
    } parts[] = {
        {to->weights, classifier->params, weights},
        {to->bias, classifier->params + weights, classifier->classes},
        {to->weights_trace, classifier->trace, weights},
        {to->bias_trace, classifier->trace + weights, classifier->classes},
    };
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < 4; i++) {
        status = ops->copy_out(classifier->device, parts[i].to, parts[i].from,
                               parts[i].count * sizeof(float));
    }
    return failed(status, error);
}

// --- work ------------------------------------------------------------------------------------

static enum status load_batch(struct classifier *classifier, const float *embeddings,
                              const int32_t *labels, uint32_t count)
{
    const struct device_ops *ops = classifier->device->ops;
    enum status status = ops->copy_in(classifier->device, classifier->embeddings, embeddings,
                                      (size_t)count * classifier->width * sizeof(float));
    return status == STATUS_OK ? ops->copy_in(classifier->device, classifier->labels, labels,
                                              count * sizeof(int32_t))
                               : status;
}

// logits = 1 bias + embeddings weights; then losses and their gradients times `scale`.
static enum status forward(struct classifier *classifier, uint32_t count, float scale)
{
    const struct device_ops *ops = classifier->device->ops;
    uint32_t classes = classifier->classes;
    enum status status = ops->copy_in(classifier->device, classifier->scale, &scale, sizeof scale);
    if (status == STATUS_OK) {
        status = ops->matrix_product(
            classifier->device, false, false, count, classes, 1, classifier->ones,
            classifier->params + weight_count(classifier), classifier->logits, false);
    }
    if (status == STATUS_OK) {
        status = ops->matrix_product(classifier->device, false, false, count, classes,
                                     classifier->width, classifier->embeddings, classifier->params,
                                     classifier->logits, true);
    }
    if (status == STATUS_OK) {
        status = ops->softmax_loss(classifier->device, classifier->logits, classifier->labels,
                                   count, classes, classifier->scale, classifier->losses,
                                   classifier->dlogits, classifier->top1, classifier->top5);
    }
    return status;
}

static enum status backward(struct classifier *classifier, uint32_t count)
{
    const struct device_ops *ops = classifier->device->ops;
    uint32_t classes = classifier->classes;
    enum status status =
        ops->matrix_product(classifier->device, true, false, classifier->width, classes, count,
                            classifier->embeddings, classifier->dlogits, classifier->grads, false);
    return status == STATUS_OK
               ? ops->matrix_product(classifier->device, false, false, 1, classes, count,
                                     classifier->ones, classifier->dlogits,
                                     classifier->grads + weight_count(classifier), false)
               : status;
}

static enum status update(struct classifier *classifier, float learning_rate)
{
    const struct param_span spans[] = {
        {.offset = 0, .count = weight_count(classifier), .learning_rate_scale = 1},
        {.offset = weight_count(classifier),
         .count = classifier->classes,
         .learning_rate_scale = 1},
    };
    const struct sgd_settings settings = {
        .learning_rate = classifier->learning_rate, .momentum = MOMENTUM, .nesterov = true};
    const struct device_ops *ops = classifier->device->ops;
    enum status status = ops->copy_in(classifier->device, classifier->learning_rate, &learning_rate,
                                      sizeof learning_rate);
    return status == STATUS_OK
               ? ops->sgd_step(classifier->device, spans, 2, &settings, classifier->params,
                               classifier->grads, classifier->trace, NULL)
               : status;
}

static enum status fetch(struct classifier *classifier, uint32_t count, const int32_t *labels,
                         struct classifier_counts *counts)
{
    const struct device_ops *ops = classifier->device->ops;
    struct device *device = classifier->device;
    enum status status =
        ops->copy_out(device, classifier->host_losses, classifier->losses, count * sizeof(float));
    if (status == STATUS_OK) {
        status = ops->copy_out(device, classifier->host_top1, classifier->top1, count);
    }
    if (status == STATUS_OK) {
        status = ops->copy_out(device, classifier->host_top5, classifier->top5, count);
    }
    for (uint32_t i = 0; status == STATUS_OK && counts && i < count; i++) {
        if (labels[i] >= 0) {
            counts->rows++;
            counts->top1 += classifier->host_top1[i];
            counts->top5 += classifier->host_top5[i];
        }
    }
    return status;
}

enum status classifier_step(struct classifier *classifier, const float *embeddings,
                            const int32_t *labels, uint32_t count, float learning_rate,
                            float *mean_loss, struct classifier_counts *counts, struct error *error)
{
    enum status status = load_batch(classifier, embeddings, labels, count);
    if (status == STATUS_OK) {
        status = forward(classifier, count, 1.0f / (float)count);
    }
    if (status == STATUS_OK) {
        status = backward(classifier, count);
    }
    if (status == STATUS_OK) {
        status = update(classifier, learning_rate);
    }
    if (status == STATUS_OK) {
        status = fetch(classifier, count, labels, counts);
    }
    double sum = 0;
    for (uint32_t i = 0; status == STATUS_OK && i < count; i++) {
        sum += (double)classifier->host_losses[i];
    }
    *mean_loss = (float)(sum / count);
    return failed(status, error);
}

enum status classifier_evaluate(struct classifier *classifier, const float *embeddings,
                                const int32_t *labels, uint32_t count,
                                struct classifier_counts *counts, struct error *error)
{
    enum status status = load_batch(classifier, embeddings, labels, count);
    if (status == STATUS_OK) {
        status = forward(classifier, count, 1);
    }
    if (status == STATUS_OK) {
        status = fetch(classifier, count, labels, counts);
    }
    return failed(status, error);
}

enum status linear_update(struct device *device, struct linear_classifier *classifier,
                          const float *embeddings, const int32_t *labels, uint32_t count,
                          float learning_rate, float *mean_loss, struct error *error)
{
    struct classifier working;
    enum status status =
        classifier_open(&working, device, classifier->width, classifier->classes, count, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = classifier_load(&working, classifier, error);
    if (status == STATUS_OK) {
        status = classifier_step(&working, embeddings, labels, count, learning_rate, mean_loss,
                                 NULL, error);
    }
    if (status == STATUS_OK) {
        status = classifier_store(&working, classifier, error);
    }
    classifier_close(&working);
    return status;
}
