#include "tests/support/byol_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/support/real_views.h"

static struct method_config config_of(const struct byol_model *model)
{
    struct method_config config = {
        .batch = model->batch, .seed = 1, .momentum = 0.9, .trust = 1e-3};
    model_config_init(&config.model);
    config.model.encoder = model->encoder;
    config.model.width = model->width;
    config.model.stem = model->stem;
    config.model.size = model->size;
    config.model.norm = model->norm;
    config.model.norm_groups = 16;
    config.model.v2 = model->v2;
    config.model.weight_standardisation = model->standardise;
    config.model.last_gamma_zero = MODEL_LAST_GAMMA_ZERO;
    config.model.projector_hidden = config.model.predictor_hidden = 256;
    config.model.projector_output = 64;
    config.model.classes = BYOL_CASE_CLASSES;
    return config;
}

static float *floats(uint64_t count)
{
    float *values = malloc((size_t)count * sizeof *values);
    assert_non_null(values);
    return values;
}

// Uniform in [-1, 1).
static float noise(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(*seed >> 8) * 0x1p-23f - 1.0f;
}

static void move_vectors(struct byol_case *out)
{
    uint32_t seed = 5;
    for (size_t i = 0; i < graph_param_count(out->graph); i++) {
        const struct graph_param *param = graph_param_at(out->graph, i);
        for (uint64_t k = 0; param->fan_in == 0 && k < param->count; k++) {
            float *value = &out->params[param->offset + k];
            bool scaled = param->kind == PARAM_SCALE && *value != 0;
            *value += (scaled ? 0.3f * *value : 0.2f) * noise(&seed);
        }
    }
}

void byol_case_open(struct byol_case *out, struct device *device, const struct byol_model *model)
{
    *out = (struct byol_case){.device = device};
    struct method_config config = config_of(model);
    struct method *method;
    struct error error;
    if (method_open(&method, "byol", device, &config, &error) != STATUS_OK) {
        fail_msg("%s: %s", model->name, error.reason);
    }
    out->byol = byol_of(method);
    out->graph = out->byol->graph;
    uint64_t params = graph_param_floats(out->graph);
    out->params = floats(params);
    out->gradients = floats(params);
    real_views_make(out->views, model->batch, (uint32_t)model->size);
    out->labels = calloc(model->batch, sizeof *out->labels);
    assert_non_null(out->labels);
    for (uint32_t i = 0; i < model->batch; i++) {
        out->labels[i] = (int32_t)(i % BYOL_CASE_CLASSES);
    }
    byol_case_step(out); // affine maps take their start from the first batch
    size_t bytes = (size_t)params * sizeof(float);
    device->ops->copy_out(device, out->params, out->byol->online_params, bytes);
    move_vectors(out);
    device->ops->copy_in(device, out->byol->online_params, out->params, bytes);
}

void byol_case_close(struct byol_case *byol_case)
{
    struct method *method = &byol_case->byol->method;
    method_close(&method);
    free(byol_case->views[0]);
    free(byol_case->views[1]);
    free(byol_case->labels);
    free(byol_case->params);
    free(byol_case->gradients);
}

void byol_case_step(struct byol_case *byol_case)
{
    const float *const views[2] = {byol_case->views[0], byol_case->views[1]};
    const struct method_step nothing = {.learning_rate = 0, .tau = 1};
    struct byol *byol = byol_case->byol;
    struct error error;
    const struct method_ops *ops = byol->method.ops;
    if (ops->step(&byol->method, views, byol_case->labels, &nothing, &error) != STATUS_OK ||
        ops->collect(&byol->method, &byol_case->metrics, &error) != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
    byol_case->device->ops->copy_out(byol_case->device, byol_case->gradients, byol->gradients,
                                     (size_t)graph_param_floats(byol_case->graph) * sizeof(float));
}
