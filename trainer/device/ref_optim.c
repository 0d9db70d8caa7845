// Losses and optimisers of the reference device.
#include "trainer/device/optim.h"
#include "trainer/device/ref.h"

#include <float.h>
#include <math.h>

#define NORM_FLOOR 1e-12

// The factor is a constant for rows shorter than the floor, and, as in the reference
// implementation, for rows so long that its derivative (its cube) underflows in float32.
struct row {
    double inverse; // factor that gives the row length 1
    bool constant;  // whether it has no derivative
};

static struct row measure_row(const float *values, uint32_t d)
{
    double squares = 0;
    for (uint32_t i = 0; i < d; i++) {
        squares += (double)values[i] * (double)values[i];
    }
    double inverse = 1.0 / sqrt(fmax(squares, NORM_FLOOR));
    bool underflow = inverse * inverse * inverse < (double)FLT_MIN;
    return (struct row){inverse, squares < NORM_FLOOR || underflow};
}

// Gradient of scale ||x^ - y^||^2 to x: through x^ = x * inverse.
static void regression_gradient(float *dx, const float *x, struct row x_row, const float *y,
                                struct row y_row, uint32_t d, double scale)
{
    double along = 0; // of the gradient to x^, along x^
    for (uint32_t i = 0; i < d; i++) {
        double unit = (double)x[i] * x_row.inverse;
        along += 2 * (unit - (double)y[i] * y_row.inverse) * unit;
    }
    if (x_row.constant) {
        along = 0;
    }
    for (uint32_t i = 0; i < d; i++) {
        double unit = (double)x[i] * x_row.inverse;
        double gradient = 2 * (unit - (double)y[i] * y_row.inverse);
        dx[i] = (float)(scale * x_row.inverse * (gradient - along * unit));
    }
}

enum status ref_regression_loss(struct device *device, const float *x, const float *y, uint32_t n,
                                uint32_t d, float scale, float *losses, float *dx, float *dy)
{
    (void)device;
    for (size_t row = 0; row < n; row++) {
        const float *x_values = x + row * d, *y_values = y + row * d;
        struct row x_row = measure_row(x_values, d), y_row = measure_row(y_values, d);
        double loss = 0;
        for (uint32_t i = 0; i < d; i++) {
            double difference =
                (double)x_values[i] * x_row.inverse - (double)y_values[i] * y_row.inverse;
            loss += difference * difference;
        }
        losses[row] = (float)loss;
        if (dx != NULL) {
            regression_gradient(dx + row * d, x_values, x_row, y_values, y_row, d, (double)scale);
        }
        if (dy != NULL) {
            regression_gradient(dy + row * d, y_values, y_row, x_values, x_row, d, (double)scale);
        }
    }
    return STATUS_OK;
}

// How many classes rank before `label`: among equal logits the higher index comes first. A NaN
// ranks before everything, so that it never counts as a success.
static uint32_t rank_of(const float *logits, uint32_t label, uint32_t classes)
{
    uint32_t rank = 0;
    for (uint32_t c = 0; c < classes; c++) {
        rank +=
            c > label ? !(logits[c] < logits[label]) : c < label && !(logits[c] <= logits[label]);
    }
    return rank;
}

static void softmax_row(const float *logits, int32_t label, uint32_t classes, double scale,
                        float *loss, float *dlogits)
{
    double largest = (double)logits[0], sum = 0;
    for (uint32_t c = 1; c < classes; c++) {
        largest = fmax(largest, (double)logits[c]);
    }
    for (uint32_t c = 0; c < classes; c++) {
        sum += exp((double)logits[c] - largest);
    }
    *loss = label < 0 ? 0.0f : (float)(largest + log(sum) - (double)logits[label]);
    for (uint32_t c = 0; dlogits != NULL && c < classes; c++) {
        double share = exp((double)logits[c] - largest) / sum;
        double target = (int64_t)c == label ? 1.0 : 0.0;
        dlogits[c] = label < 0 ? 0.0f : (float)(scale * (share - target));
    }
}

enum status ref_softmax_loss(struct device *device, const float *logits, const int32_t *labels,
                             uint32_t n, uint32_t classes, float scale, float *losses,
                             float *dlogits, uint8_t *top1, uint8_t *top5)
{
    (void)device;
    for (size_t row = 0; row < n; row++) {
        const float *values = logits + row * classes;
        int32_t label = labels[row];
        if (label >= (int64_t)classes) {
            return STATUS_INVALID;
        }
        softmax_row(values, label, classes, (double)scale, losses + row,
                    dlogits == NULL ? NULL : dlogits + row * classes);
        uint32_t rank = label < 0 ? classes : rank_of(values, (uint32_t)label, classes);
        if (top1 != NULL) {
            top1[row] = rank < 1 && label >= 0;
        }
        if (top5 != NULL) {
            top5[row] = rank < 5 && label >= 0;
        }
    }
    return STATUS_OK;
}

// LARS' factor for the gradient of one tensor: trust ||w|| / ||g + decay w||.
static float trust_ratio(const struct lars_settings *settings, const float *params,
                         const float *grads, uint64_t count)
{
    double weights = 0, gradients = 0;
    for (uint64_t i = 0; i < count; i++) {
        double gradient = (double)(grads[i] + settings->weight_decay * params[i]);
        weights += (double)params[i] * (double)params[i];
        gradients += gradient * gradient;
    }
    if (weights == 0 || gradients == 0) {
        return 1.0f;
    }
    return (float)((double)settings->trust * sqrt(weights) / sqrt(gradients));
}

enum status ref_lars_step(struct device *device, const struct param_span *spans, size_t count,
                          const struct lars_settings *settings, float *params, const float *grads,
                          float *momentum)
{
    (void)device;
    for (const struct param_span *span = spans; span < spans + count; span++) {
        float *w = params + span->offset, *m = momentum + span->offset;
        const float *g = grads + span->offset;
        float ratio = span->decay ? trust_ratio(settings, w, g, span->count) : 1.0f;
        float decay = span->decay ? settings->weight_decay : 0.0f;
        float rate = settings->learning_rate * span->learning_rate_scale;
        for (uint64_t i = 0; i < span->count; i++) {
            m[i] = settings->momentum * m[i] + ratio * (g[i] + decay * w[i]);
            w[i] -= rate * m[i];
        }
    }
    return STATUS_OK;
}

enum status ref_sgd_step(struct device *device, const struct param_span *spans, size_t count,
                         const struct sgd_settings *settings, float *params, const float *grads,
                         float *momentum)
{
    (void)device;
    for (const struct param_span *span = spans; span < spans + count; span++) {
        float *w = params + span->offset, *m = momentum + span->offset;
        const float *g = grads + span->offset;
        float rate = settings->learning_rate * span->learning_rate_scale;
        for (uint64_t i = 0; i < span->count; i++) {
            m[i] = settings->momentum * m[i] + g[i];
            w[i] -= rate * (settings->nesterov ? g[i] + settings->momentum * m[i] : m[i]);
        }
    }
    return STATUS_OK;
}

static double norm(const float *values, uint64_t count)
{
    double sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        sum += (double)values[i] * (double)values[i];
    }
    return sqrt(sum);
}

enum status ref_prepare_gradients(struct device *device, const struct param_span *spans,
                                  size_t count, const struct gradient_settings *settings,
                                  const float *params, float *grads)
{
    (void)device;
    for (const struct param_span *span = spans; span < spans + count; span++) {
        const float *w = params + span->offset;
        float *g = grads + span->offset;
        struct gradient_factors own =
            gradient_factors(settings, span, norm(w, span->count), norm(g, span->count));
        for (uint64_t i = 0; i < span->count; i++) {
            g[i] = own.rate * (own.ratio * (g[i] + own.decay * w[i]));
        }
    }
    return STATUS_OK;
}

enum status ref_adamw_step(struct device *device, const struct param_span *spans, size_t count,
                           const struct adamw_settings *settings, float *params, const float *grads,
                           float *momentum, float *second_moment, float *steps)
{
    (void)device;
    *steps += 1.0f;
    for (const struct param_span *span = spans; span < spans + count; span++) {
        float *w = params + span->offset, *m = momentum + span->offset;
        float *v = second_moment + span->offset;
        const float *g = grads + span->offset;
        struct adamw_factors own = adamw_factors(settings, span, *steps);
        for (uint64_t i = 0; i < span->count; i++) {
            m[i] = own.beta1 * m[i] + own.rest1 * g[i];
            v[i] = own.beta2 * v[i] + own.rest2 * (g[i] * g[i]);
            w[i] = own.keep * w[i] - own.rate * m[i] / (sqrtf(v[i]) / own.root + own.epsilon);
        }
    }
    return STATUS_OK;
}

enum status ref_moving_average(struct device *device, float *target, const float *online,
                               uint64_t count, float rate)
{
    (void)device;
    for (uint64_t i = 0; i < count; i++) {
        target[i] += rate * (online[i] - target[i]);
    }
    return STATUS_OK;
}

enum status ref_block_add(struct device *device, float *sum, const float *block, uint64_t count)
{
    (void)device;
    for (uint64_t i = 0; i < count; i++) {
        sum[i] += block[i];
    }
    return STATUS_OK;
}
