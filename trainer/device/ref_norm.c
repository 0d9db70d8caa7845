// Batch normalisation: statistics of each group by itself, over images, rows and columns.
#include "trainer/device/ref.h"

#include <math.h>

// Double, so that E[x^2] - E[x]^2 keeps its digits.
struct channel {
    double mean, inverse; // inverse: 1 / sqrt(variance + epsilon)
};

size_t ref_norm_stats_bytes(const struct op_desc *desc)
{
    return (size_t)desc->groups * desc->in.c * sizeof(struct channel);
}

static size_t group_rows(const struct op_desc *desc)
{
    return (size_t)desc->in.n / desc->groups * desc->in.h * desc->in.w;
}

// Batch statistics of one group, which also move the running ones.
static void measure_group(const struct op_desc *desc, struct channel *stats, const float *x,
                          float *state)
{
    size_t rows = group_rows(desc);
    uint32_t channels = desc->in.c;
    state[0] += 1.0f;
    float weight = 1.0f - powf(BATCH_NORM_DECAY, state[0]);
    for (uint32_t c = 0; c < channels; c++) {
        double sum = 0, squares = 0;
        for (size_t row = 0; row < rows; row++) {
            double value = (double)x[row * channels + c];
            sum += value;
            squares += value * value;
        }
        double mean = sum / (double)rows;
        double variance = fmax(squares / (double)rows - mean * mean, 0.0);
        stats[c].mean = mean;
        stats[c].inverse = 1.0 / sqrt(variance + (double)BATCH_NORM_EPSILON);

        float *hidden_mean = state + 1 + c, *hidden_variance = hidden_mean + channels;
        *hidden_mean = BATCH_NORM_DECAY * *hidden_mean + (1.0f - BATCH_NORM_DECAY) * (float)mean;
        *hidden_variance =
            BATCH_NORM_DECAY * *hidden_variance + (1.0f - BATCH_NORM_DECAY) * (float)variance;
        hidden_mean[2 * (size_t)channels] = *hidden_mean / weight;
        hidden_variance[2 * (size_t)channels] = *hidden_variance / weight;
    }
}

static void recall_group(const struct op_desc *desc, struct channel *stats, const float *state)
{
    const float *mean = state + 1 + 2 * (size_t)desc->in.c, *variance = mean + desc->in.c;
    for (uint32_t c = 0; c < desc->in.c; c++) {
        stats[c].mean = (double)mean[c];
        stats[c].inverse = 1.0 / sqrt((double)variance[c] + (double)BATCH_NORM_EPSILON);
    }
}

static double normalised(const struct channel *stats, const float *params, uint32_t channels,
                         uint32_t c, float x)
{
    return ((double)x - stats[c].mean) * stats[c].inverse * (double)params[c] +
           (double)params[channels + c];
}

void ref_norm_forward(const struct op_desc *desc, const struct op_buffers *buffers, void *stats,
                      enum op_mode mode)
{
    size_t rows = group_rows(desc);
    uint32_t channels = desc->in.c;
    const float *x = buffers->x;
    float *y = buffers->y;
    struct channel *group_stats = stats;
    for (uint32_t group = 0; group < desc->groups; group++, group_stats += channels) {
        if (mode == OP_TRAIN) {
            measure_group(desc, group_stats, x, buffers->state);
        } else {
            recall_group(desc, group_stats, buffers->state);
        }
        for (size_t row = 0; row < rows; row++, x += channels, y += channels) {
            for (uint32_t c = 0; c < channels; c++) {
                double value = normalised(group_stats, buffers->params, channels, c, x[c]);
                y[c] = desc->relu && value < 0 ? 0.0f : (float)value; // a NaN passes
            }
        }
    }
}

// Gradient of one channel of one group: with x^ = (x - mean) / deviation,
// dx = scale / deviation (dy - mean(dy) - x^ mean(dy x^)).
static void backward_channel(const struct op_desc *desc, const struct op_buffers *buffers,
                             const struct channel *stats, size_t first, uint32_t c)
{
    size_t rows = group_rows(desc);
    uint32_t channels = desc->in.c;
    const float *x = (const float *)buffers->x + first, *dy = (const float *)buffers->dy + first;
    float *dx = buffers->dx == NULL ? NULL : (float *)buffers->dx + first;
    double sum = 0, product = 0;
    for (size_t at = c; at < rows * channels; at += channels) {
        bool cut = desc->relu && !(normalised(stats, buffers->params, channels, c, x[at]) > 0);
        double gradient = cut ? 0.0 : (double)dy[at];
        sum += gradient;
        product += gradient * ((double)x[at] - stats[c].mean) * stats[c].inverse;
    }
    buffers->param_grads[c] += (float)product;
    buffers->param_grads[channels + c] += (float)sum;
    double factor = (double)buffers->params[c] * stats[c].inverse, count = (double)rows;
    for (size_t at = c; dx != NULL && at < rows * channels; at += channels) {
        bool cut = desc->relu && !(normalised(stats, buffers->params, channels, c, x[at]) > 0);
        double gradient = cut ? 0.0 : (double)dy[at];
        double unit = ((double)x[at] - stats[c].mean) * stats[c].inverse;
        dx[at] = (float)(factor * (gradient - sum / count - unit * product / count));
    }
}

void ref_norm_backward(const struct op_desc *desc, const struct op_buffers *buffers,
                       const void *stats)
{
    const struct channel *group_stats = stats;
    for (uint32_t c = 0; c < 2 * desc->in.c; c++) {
        buffers->param_grads[c] = 0;
    }
    for (uint32_t group = 0; group < desc->groups; group++, group_stats += desc->in.c) {
        size_t first = group * group_rows(desc) * desc->in.c;
        for (uint32_t c = 0; c < desc->in.c; c++) {
            backward_channel(desc, buffers, group_stats, first, c);
        }
    }
}
