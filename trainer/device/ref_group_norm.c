// Normalisation of each image by itself, over runs of channels; and the affine map alone.
#include "trainer/device/ref.h"

#include <math.h>

struct moments {
    double mean, inverse; // inverse: 1 / sqrt(variance + epsilon)
};

static const struct moments identity = {0, 1};

size_t ref_group_norm_stats_bytes(const struct op_desc *desc)
{
    return (size_t)desc->in.n * desc->channel_groups * sizeof(struct moments);
}

// One image, and of it the channels from `first` on that share their statistics.
struct run {
    size_t pixels;
    uint32_t channels, first, width;
    size_t at; // of the image's first value
};

static struct run run_at(const struct op_desc *desc, uint32_t image, uint32_t group,
                         uint32_t groups)
{
    struct run run = {.pixels = (size_t)desc->in.h * desc->in.w, .channels = desc->in.c};
    run.width = desc->in.c / groups;
    run.first = group * run.width;
    run.at = image * run.pixels * run.channels;
    return run;
}

static double unit_of(const struct moments *moments, float x)
{
    return ((double)x - moments->mean) * moments->inverse;
}

static struct moments measure(const struct run *run, const float *x)
{
    double sum = 0, squares = 0, count = (double)run->pixels * run->width;
    for (size_t i = 0; i < run->pixels; i++) {
        for (uint32_t c = run->first; c < run->first + run->width; c++) {
            double value = (double)x[run->at + i * run->channels + c];
            sum += value;
            squares += value * value;
        }
    }
    double mean = sum / count, variance = fmax(squares / count - mean * mean, 0.0);
    return (struct moments){mean, 1.0 / sqrt(variance + (double)BATCH_NORM_EPSILON)};
}

static void apply(const struct op_desc *desc, const struct op_buffers *buffers,
                  const struct run *run, const struct moments *moments)
{
    const float *x = buffers->x, *scale = buffers->params, *offset = scale + run->channels;
    float *y = buffers->y;
    for (size_t i = 0; i < run->pixels; i++) {
        for (uint32_t c = run->first; c < run->first + run->width; c++) {
            size_t at = run->at + i * run->channels + c;
            double value = unit_of(moments, x[at]) * (double)scale[c] + (double)offset[c];
            y[at] = desc->relu && value < 0 ? 0.0f : (float)value; // a NaN passes
        }
    }
}

// The gradient of the value before the ReLU.
static double gradient_at(const struct op_desc *desc, const struct op_buffers *buffers,
                          const struct moments *moments, size_t at, uint32_t c)
{
    const float *x = buffers->x, *dy = buffers->dy, *params = buffers->params;
    double value = unit_of(moments, x[at]) * (double)params[c] + (double)params[desc->in.c + c];
    return desc->relu && !(value > 0) ? 0.0 : (double)dy[at];
}

static void add_param_gradients(const struct op_desc *desc, const struct op_buffers *buffers,
                                const struct run *run, const struct moments *moments)
{
    const float *x = buffers->x;
    for (uint32_t c = run->first; c < run->first + run->width; c++) {
        double sum = 0, product = 0;
        for (size_t i = 0; i < run->pixels; i++) {
            size_t at = run->at + i * run->channels + c;
            double gradient = gradient_at(desc, buffers, moments, at, c);
            sum += gradient;
            product += gradient * unit_of(moments, x[at]);
        }
        buffers->param_grads[c] += (float)product;
        buffers->param_grads[run->channels + c] += (float)sum;
    }
}

// With x^ = (x - mean) / deviation and g = scale dy:
// dx = 1 / deviation (g - mean(g) - x^ mean(g x^)), means over the run; `fixed` moments do not
// depend on x and leave only the first term.
static void differentiate(const struct op_desc *desc, const struct op_buffers *buffers,
                          const struct run *run, const struct moments *moments, bool fixed)
{
    const float *x = buffers->x, *scale = buffers->params;
    float *dx = buffers->dx;
    double sum = 0, product = 0, count = (double)run->pixels * run->width;
    for (size_t i = 0; !fixed && i < run->pixels; i++) {
        for (uint32_t c = run->first; c < run->first + run->width; c++) {
            size_t at = run->at + i * run->channels + c;
            double gradient = gradient_at(desc, buffers, moments, at, c) * (double)scale[c];
            sum += gradient;
            product += gradient * unit_of(moments, x[at]);
        }
    }
    for (size_t i = 0; i < run->pixels; i++) {
        for (uint32_t c = run->first; c < run->first + run->width; c++) {
            size_t at = run->at + i * run->channels + c;
            double gradient = gradient_at(desc, buffers, moments, at, c) * (double)scale[c];
            double shared = (sum + unit_of(moments, x[at]) * product) / count;
            dx[at] = (float)(moments->inverse * (gradient - shared));
        }
    }
}

static void backward_run(const struct op_desc *desc, const struct op_buffers *buffers,
                         const struct run *run, const struct moments *moments, bool fixed)
{
    add_param_gradients(desc, buffers, run, moments);
    if (desc->need_input_gradient && buffers->dx != NULL) {
        differentiate(desc, buffers, run, moments, fixed);
    }
}

static void clear_gradients(const struct op_desc *desc, const struct op_buffers *buffers)
{
    for (uint32_t i = 0; i < 2 * desc->in.c; i++) {
        buffers->param_grads[i] = 0;
    }
}

void ref_group_norm_forward(const struct op_desc *desc, const struct op_buffers *buffers,
                            void *stats)
{
    struct moments *moments = stats;
    for (uint32_t n = 0; n < desc->in.n; n++) {
        for (uint32_t group = 0; group < desc->channel_groups; group++, moments++) {
            struct run run = run_at(desc, n, group, desc->channel_groups);
            *moments = measure(&run, buffers->x);
            apply(desc, buffers, &run, moments);
        }
    }
}

void ref_group_norm_backward(const struct op_desc *desc, const struct op_buffers *buffers,
                             const void *stats)
{
    const struct moments *moments = stats;
    clear_gradients(desc, buffers);
    for (uint32_t n = 0; n < desc->in.n; n++) {
        for (uint32_t group = 0; group < desc->channel_groups; group++, moments++) {
            struct run run = run_at(desc, n, group, desc->channel_groups);
            backward_run(desc, buffers, &run, moments, false);
        }
    }
}

void ref_affine_forward(const struct op_desc *desc, const struct op_buffers *buffers)
{
    for (uint32_t n = 0; n < desc->in.n; n++) {
        struct run run = run_at(desc, n, 0, 1);
        apply(desc, buffers, &run, &identity);
    }
}

void ref_affine_backward(const struct op_desc *desc, const struct op_buffers *buffers)
{
    clear_gradients(desc, buffers);
    for (uint32_t n = 0; n < desc->in.n; n++) {
        struct run run = run_at(desc, n, 0, 1);
        backward_run(desc, buffers, &run, &identity, true);
    }
}
