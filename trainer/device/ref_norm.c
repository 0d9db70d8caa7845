// Batch normalisation: statistics of each group by itself, over images, rows and columns.
#include "trainer/device/ref.h"

#include <math.h>

// Double, so that E[x^2] - E[x]^2 keeps its digits. The two also hold a channel's two sums, before
// they become this.
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

// Sums over the group's rows of every peer. A struct channel is two of them.
static enum status sum_over_peers(const struct device_peers *peers, struct channel *sums,
                                  uint32_t channels)
{
    return peers == NULL ? STATUS_OK
                         : peers->sum(peers->context, &sums->mean, 2 * (size_t)channels);
}

static double rows_of_peers(const struct op_desc *desc, const struct device_peers *peers)
{
    return (double)group_rows(desc) * (peers == NULL ? 1.0 : (double)peers->count);
}

// Sums of the values and of their squares.
static void sum_group(const struct op_desc *desc, struct channel *sums, const float *x)
{
    size_t rows = group_rows(desc);
    uint32_t channels = desc->in.c;
    for (uint32_t c = 0; c < channels; c++) {
        double sum = 0, squares = 0;
        for (size_t row = 0; row < rows; row++) {
            double value = (double)x[row * channels + c];
            sum += value;
            squares += value * value;
        }
        sums[c] = (struct channel){sum, squares};
    }
}

// From the sums in `stats` to the batch statistics of one group, which also move the running ones.
static void measure_group(uint32_t channels, struct channel *stats, double rows, float *state)
{
    state[0] += 1.0f;
    float weight = 1.0f - powf(BATCH_NORM_DECAY, state[0]);
    for (uint32_t c = 0; c < channels; c++) {
        double mean = stats[c].mean / rows;
        double variance = fmax(stats[c].inverse / rows - mean * mean, 0.0);
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

enum status ref_norm_forward(const struct op_desc *desc, const struct op_buffers *buffers,
                             void *stats, enum op_mode mode, const struct device_peers *peers)
{
    size_t rows = group_rows(desc);
    uint32_t channels = desc->in.c;
    const float *x = buffers->x, *x2 = buffers->x2;
    float *y = buffers->y;
    struct channel *group_stats = stats;
    for (uint32_t group = 0; group < desc->groups; group++, group_stats += channels) {
        if (mode == OP_TRAIN) {
            sum_group(desc, group_stats, x);
            enum status status = sum_over_peers(peers, group_stats, channels);
            if (status != STATUS_OK) {
                return status;
            }
            measure_group(channels, group_stats, rows_of_peers(desc, peers), buffers->state);
        } else {
            recall_group(desc, group_stats, buffers->state);
        }
        for (size_t i = 0; i < rows * channels; i++) {
            uint32_t c = (uint32_t)(i % channels);
            float value = (float)normalised(group_stats, buffers->params, channels, c, x[i]);
            value = desc->join ? value + x2[i] : value;
            y[i] = desc->relu && value < 0 ? 0.0f : value; // a NaN passes
        }
        x += rows * channels;
        y += rows * channels;
        x2 = desc->join ? x2 + rows * channels : NULL;
    }
    return STATUS_OK;
}

// The gradient behind the ReLU of value `at`, which belongs to channel c.
static double gradient_at(const struct op_desc *desc, const struct op_buffers *buffers,
                          const struct channel *stats, size_t at, uint32_t c)
{
    const float *x = buffers->x, *dy = buffers->dy, *y = buffers->y;
    bool positive = true;
    if (desc->relu) {
        positive =
            desc->join ? y[at] > 0 : normalised(stats, buffers->params, desc->in.c, c, x[at]) > 0;
    }
    return positive ? (double)dy[at] : 0.0;
}

// Of one channel of the group whose first value is `first`: the sum of the gradients (`mean`) and
// that of their products with x^ = (x - mean) / deviation (`inverse`).
static struct channel sum_gradients(const struct op_desc *desc, const struct op_buffers *buffers,
                                    const struct channel *stats, size_t first, uint32_t c)
{
    struct channel sums = {0, 0};
    const float *x = buffers->x;
    size_t end = first + group_rows(desc) * desc->in.c;
    for (size_t at = first + c; at < end; at += desc->in.c) {
        double gradient = gradient_at(desc, buffers, stats, at, c);
        sums.mean += gradient;
        sums.inverse += gradient * ((double)x[at] - stats[c].mean) * stats[c].inverse;
    }
    return sums;
}

// dx = scale / deviation (dy - mean(dy) - x^ mean(dy x^)), dx2 = dy
static void backward_channel(const struct op_desc *desc, const struct op_buffers *buffers,
                             const struct channel *stats, const struct channel *sums, double count,
                             size_t first, uint32_t c)
{
    const float *x = buffers->x;
    float *dx = buffers->dx, *dx2 = desc->join ? buffers->dx2 : NULL;
    double factor = (double)buffers->params[c] * stats[c].inverse;
    size_t end = first + group_rows(desc) * desc->in.c;
    for (size_t at = first + c; at < end; at += desc->in.c) {
        double gradient = gradient_at(desc, buffers, stats, at, c);
        double unit = ((double)x[at] - stats[c].mean) * stats[c].inverse;
        if (dx != NULL) {
            dx[at] = (float)(factor *
                             (gradient - sums[c].mean / count - unit * sums[c].inverse / count));
        }
        if (dx2 != NULL) {
            dx2[at] = (float)gradient;
        }
    }
}

// The sums over peers make the gradients of the input; those of the parameters stay this one's.
enum status ref_norm_backward(const struct op_desc *desc, const struct op_buffers *buffers,
                              const void *stats, const struct device_peers *peers)
{
    const struct channel *group_stats = stats;
    struct channel *sums = buffers->scratch;
    uint32_t channels = desc->in.c;
    for (uint32_t c = 0; c < 2 * channels; c++) {
        buffers->param_grads[c] = 0;
    }
    for (uint32_t group = 0; group < desc->groups; group++, group_stats += channels) {
        size_t first = group * group_rows(desc) * channels;
        for (uint32_t c = 0; c < channels; c++) {
            sums[c] = sum_gradients(desc, buffers, group_stats, first, c);
            buffers->param_grads[c] += (float)sums[c].inverse;
            buffers->param_grads[channels + c] += (float)sums[c].mean;
        }
        enum status status = sum_over_peers(peers, sums, channels);
        if (status != STATUS_OK) {
            return status;
        }
        for (uint32_t c = 0; c < channels; c++) {
            backward_channel(desc, buffers, group_stats, sums, rows_of_peers(desc, peers), first,
                             c);
        }
    }
    return STATUS_OK;
}
