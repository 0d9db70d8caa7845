#include "tests/support/byol_compare.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// A tensor whose gradient would move the loss by less than this share of what the tensor with the
// largest would, at equal relative steps, has no direction to compare: biases before batch
// normalisation, whose true gradient is 0.
#define NO_EFFECT 1e-5

// --- the control -----------------------------------------------------------------------------

// To the nearest bfloat16, ties to even.
static void round_values(float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bits = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
        memcpy(&values[i], &bits, sizeof bits);
    }
}

static void round_convolutions(const struct byol_case *byol_case, float *block)
{
    for (size_t i = 0; i < graph_param_count(byol_case->graph); i++) {
        const struct graph_param *param = graph_param_at(byol_case->graph, i);
        size_t bytes = (size_t)param->count * sizeof(float);
        if (param->kind == PARAM_CONV) {
            float *values = malloc(bytes);
            assert_non_null(values);
            byol_case->device->ops->copy_out(byol_case->device, values, block + param->offset,
                                             bytes);
            round_values(values, param->count);
            byol_case->device->ops->copy_in(byol_case->device, block + param->offset, values,
                                            bytes);
            free(values);
        }
    }
}

void byol_case_round(struct byol_case *byol_case)
{
    for (unsigned v = 0; v < 2; v++) {
        round_values(byol_case->views[v],
                     byol_case->byol->config.batch * (size_t)image_floats(byol_case->byol));
    }
    round_convolutions(byol_case, byol_case->byol->online_params);
    round_convolutions(byol_case, byol_case->byol->target_params);
}

// --- comparing -------------------------------------------------------------------------------

static double dot(const float *a, const float *b, uint64_t count)
{
    double sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

static double cosine_of(const struct byol_case *left, const struct byol_case *right,
                        const struct graph_param *param)
{
    const float *a = left->gradients + param->offset, *b = right->gradients + param->offset;
    return dot(a, b, param->count) / sqrt(dot(a, a, param->count) * dot(b, b, param->count));
}

// How much a relative step of a tensor could change the loss.
static double effect(const struct byol_case *byol_case, const struct graph_param *param)
{
    const float *w = byol_case->params + param->offset, *g = byol_case->gradients + param->offset;
    return sqrt(dot(w, w, param->count) * dot(g, g, param->count));
}

struct byol_cosines byol_case_cosines(const struct byol_case *exact, const struct byol_case *half,
                                      const struct byol_case *control)
{
    struct byol_cosines summary = {.worst = 1, .worst_control = 1, .worst_name = ""};
    double largest = 0;
    for (size_t i = 0; i < graph_param_count(exact->graph); i++) {
        largest = fmax(largest, effect(exact, graph_param_at(exact->graph, i)));
    }
    for (size_t i = 0; i < graph_param_count(exact->graph); i++) {
        const struct graph_param *param = graph_param_at(exact->graph, i);
        double cosine = cosine_of(exact, half, param), other = cosine_of(exact, control, param);
        if (getenv("BYOL_PRECISION_VERBOSE") != NULL) {
            print_message("  %-60s bf16 %.5f, control %.5f, effect %.1e\n", param->name, cosine,
                          other, effect(exact, param) / largest);
        }
        if (effect(exact, param) < NO_EFFECT * largest) {
            continue;
        }
        summary.compared++;
        summary.distance += 1 - cosine;
        summary.control += 1 - other;
        summary.worst_name = cosine < summary.worst ? param->name : summary.worst_name;
        summary.worst = fmin(cosine, summary.worst);
        summary.worst_control = fmin(other, summary.worst_control);
    }
    return summary;
}
