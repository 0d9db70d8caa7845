// Losses of the cpu device: rows in parallel, each row's sums in double.
#include "trainer/device/cpu.h"

#include <float.h>
#include <math.h>

#define NORM_FLOOR 1e-12
#define LANES      16 // partial sums, so that every vector width adds in the same order

CPU_KERNEL static double dot(const float *a, const float *b, size_t count)
{
    double lanes[LANES] = {0}, sum = 0;
    size_t whole = count / LANES * LANES;
    for (size_t i = 0; i < whole; i += LANES) {
#pragma omp simd
        for (size_t lane = 0; lane < LANES; lane++) {
            lanes[lane] += (double)a[i + lane] * (double)b[i + lane];
        }
    }
    for (size_t i = whole; i < count; i++) {
        lanes[i - whole] += (double)a[i] * (double)b[i];
    }
    for (size_t lane = 0; lane < LANES; lane++) {
        sum += lanes[lane];
    }
    return sum;
}

// One row: x^ = x * inverse has length 1. The factor is a constant for rows shorter than the floor,
// and, as in the reference implementation, for rows so long that its derivative (its cube)
// underflows in float32.
struct row {
    const float *values;
    double inverse;
    bool constant;
};

static struct row measure_row(const float *values, uint32_t d)
{
    double squares = dot(values, values, d);
    double inverse = 1.0 / sqrt(fmax(squares, NORM_FLOOR));
    bool underflow = inverse * inverse * inverse < (double)FLT_MIN;
    return (struct row){values, inverse, squares < NORM_FLOOR || underflow};
}

static double row_loss(const struct row *x, const struct row *y, uint32_t d)
{
    double loss = 0;
    for (uint32_t i = 0; i < d; i++) {
        double difference = (double)x->values[i] * x->inverse - (double)y->values[i] * y->inverse;
        loss += difference * difference;
    }
    return loss;
}

// Gradient of scale ||x^ - y^||^2 to x. What lies along x^ is cut off by the normalisation, unless
// the factor is a constant.
static void row_gradient(float *dx, const struct row *x, const struct row *y, uint32_t d,
                         double scale)
{
    double along = 0;
    for (uint32_t i = 0; !x->constant && i < d; i++) {
        double unit = (double)x->values[i] * x->inverse;
        along += (unit - (double)y->values[i] * y->inverse) * unit;
    }
    double factor = 2 * scale * x->inverse;
    for (uint32_t i = 0; i < d; i++) {
        double unit = (double)x->values[i] * x->inverse;
        dx[i] = (float)(factor * (unit - (double)y->values[i] * y->inverse - along * unit));
    }
}

enum status cpu_regression_loss(struct device *device, const float *x, const float *y, uint32_t n,
                                uint32_t d, float scale, float *losses, float *dx, float *dy)
{
#pragma omp parallel for num_threads(((struct cpu_device *)device)->threads)
    for (size_t i = 0; i < n; i++) {
        struct row x_row = measure_row(x + i * d, d), y_row = measure_row(y + i * d, d);
        losses[i] = (float)row_loss(&x_row, &y_row, d);
        if (dx != NULL) {
            row_gradient(dx + i * d, &x_row, &y_row, d, (double)scale);
        }
        if (dy != NULL) {
            row_gradient(dy + i * d, &y_row, &x_row, d, (double)scale);
        }
    }
    return STATUS_OK;
}

// --- softmax

// How many classes rank before `label`: among equal logits the higher index comes first. A NaN
// ranks before everything, so that it never counts as a success.
static uint32_t rank_of(const float *logits, uint32_t label, uint32_t classes)
{
    uint32_t rank = 0;
    float own = logits[label];
    for (uint32_t c = 0; c < label; c++) {
        rank += !(logits[c] <= own);
    }
    for (uint32_t c = label + 1; c < classes; c++) {
        rank += !(logits[c] < own);
    }
    return rank;
}

static float softmax_row(const float *logits, int32_t label, uint32_t classes, float scale,
                         float *dlogits)
{
    float largest = logits[0];
    for (uint32_t c = 1; c < classes; c++) {
        largest = logits[c] > largest ? logits[c] : largest;
    }
    double sum = 0;
    for (uint32_t c = 0; c < classes; c++) {
        sum += exp((double)logits[c] - (double)largest);
    }
    for (uint32_t c = 0; dlogits != NULL && c < classes; c++) {
        double share = exp((double)logits[c] - (double)largest) / sum;
        share -= (int64_t)c == label ? 1.0 : 0.0;
        dlogits[c] = label < 0 ? 0.0f : (float)((double)scale * share);
    }
    return label < 0 ? 0.0f : (float)((double)largest + log(sum) - (double)logits[label]);
}

enum status cpu_softmax_loss(struct device *device, const float *logits, const int32_t *labels,
                             uint32_t n, uint32_t classes, const float *scale, float *losses,
                             float *dlogits, uint8_t *top1, uint8_t *top5)
{
    for (size_t i = 0; i < n; i++) {
        if (labels[i] >= (int64_t)classes) {
            return STATUS_INVALID;
        }
    }
#pragma omp parallel for num_threads(((struct cpu_device *)device)->threads)
    for (size_t i = 0; i < n; i++) {
        const float *row = logits + i * classes;
        losses[i] = softmax_row(row, labels[i], classes, *scale,
                                dlogits == NULL ? NULL : dlogits + i * classes);
        bool known = labels[i] >= 0;
        uint32_t rank = known ? rank_of(row, (uint32_t)labels[i], classes) : classes;
        if (top1 != NULL) {
            top1[i] = known && rank < 1;
        }
        if (top5 != NULL) {
            top5[i] = known && rank < 5;
        }
    }
    return STATUS_OK;
}
