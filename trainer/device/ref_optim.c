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
                             uint32_t n, uint32_t classes, const float *scale, float *losses,
                             float *dlogits, uint8_t *top1, uint8_t *top5)
{
    (void)device;
    for (size_t row = 0; row < n; row++) {
        const float *values = logits + row * classes;
        int32_t label = labels[row];
        if (label >= (int64_t)classes) {
            return STATUS_INVALID;
        }
        softmax_row(values, label, classes, (double)*scale, losses + row,
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

// The values of one span, as a loop over them wants them; the target is NULL where none follows.
struct values {
    float *w, *m, *target;
    const float *g;
    float target_rate;
};

static struct values values_of(const struct param_span *span, float *params, const float *grads,
                               float *momentum, const struct moving_target *target)
{
    return (struct values){.w = params + span->offset,
                           .m = momentum + span->offset,
                           .g = grads + span->offset,
                           .target = target == NULL ? NULL : target->params + span->offset,
                           .target_rate = target == NULL ? 0 : *target->rate};
}

static void follow(const struct values *at, uint64_t i)
{
    if (at->target != NULL) {
        at->target[i] += at->target_rate * (at->w[i] - at->target[i]);
    }
}

// Of g + decay w.
static double norm(const float *g, float decay, const float *w, uint64_t count)
{
    double sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        double value = (double)(g[i] + decay * w[i]);
        sum += value * value;
    }
    return sqrt(sum);
}

enum status ref_lars_step(struct device *device, const struct param_span *spans, size_t count,
                          const struct lars_settings *settings, float *params, const float *grads,
                          float *momentum, const struct moving_target *target)
{
    (void)device;
    for (const struct param_span *span = spans; span < spans + count; span++) {
        struct values at = values_of(span, params, grads, momentum, target);
        struct lars_factors own =
            lars_factors_of(settings, span, norm(at.w, 0, at.w, span->count),
                            norm(at.g, settings->weight_decay, at.w, span->count));
        for (uint64_t i = 0; i < span->count; i++) {
            at.m[i] = own.momentum * at.m[i] + own.ratio * (at.g[i] + own.decay * at.w[i]);
            at.w[i] -= own.rate * at.m[i];
            follow(&at, i);
        }
    }
    return STATUS_OK;
}

enum status ref_sgd_step(struct device *device, const struct param_span *spans, size_t count,
                         const struct sgd_settings *settings, float *params, const float *grads,
                         float *momentum, const struct moving_target *target)
{
    (void)device;
    for (const struct param_span *span = spans; span < spans + count; span++) {
        struct values at = values_of(span, params, grads, momentum, target);
        struct sgd_factors own = sgd_factors_of(settings, span, norm(at.w, 0, at.w, span->count),
                                                norm(at.g, 0, at.w, span->count));
        for (uint64_t i = 0; i < span->count; i++) {
            float g = own.gradient_rate * (own.ratio * (at.g[i] + own.decay * at.w[i]));
            at.m[i] = own.momentum * at.m[i] + g;
            at.w[i] -= own.rate * (own.nesterov ? g + own.momentum * at.m[i] : at.m[i]);
            follow(&at, i);
        }
    }
    return STATUS_OK;
}

enum status ref_adamw_step(struct device *device, const struct param_span *spans, size_t count,
                           const struct adamw_settings *settings, float *params, const float *grads,
                           float *momentum, float *second_moment, float *steps,
                           const struct moving_target *target)
{
    (void)device;
    *steps += 1.0f;
    for (const struct param_span *span = spans; span < spans + count; span++) {
        struct values at = values_of(span, params, grads, momentum, target);
        float *v = second_moment + span->offset;
        struct adamw_factors own = adamw_factors_of(settings, span, *steps);
        for (uint64_t i = 0; i < span->count; i++) {
            at.m[i] = own.beta1 * at.m[i] + own.rest1 * at.g[i];
            v[i] = own.beta2 * v[i] + own.rest2 * (at.g[i] * at.g[i]);
            at.w[i] =
                own.keep * at.w[i] - own.rate * at.m[i] / (sqrtf(v[i]) / own.root + own.epsilon);
            follow(&at, i);
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
