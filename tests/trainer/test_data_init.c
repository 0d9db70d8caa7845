// Affine maps that start as batch normalisation would have it: on the batch they started from, the
// network without normalisation computes what the one with it does.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/device_rows.h"
#include "tests/support/golden.h"
#include "trainer/net/data_init.h"
#include "trainer/net/network.h"

#define SIDE   16
#define IMAGES 6
#define FLOATS ((size_t)IMAGES * SIDE * SIDE * 3)

static struct error error;

static void check_status(enum status status)
{
    if (status != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
}

static struct model_config config_of(int norm, int head_norm, bool v2)
{
    struct model_config config;
    model_config_init(&config);
    config.encoder = MODEL_TINY;
    config.stem = MODEL_STEM_SMALL;
    config.size = SIDE;
    config.v2 = v2;
    config.projector_hidden = 12;
    config.projector_output = 8;
    config.predictor_hidden = 10;
    config.norm = norm;
    config.head_norm = head_norm;
    return config;
}

static float *device_block(struct device *device, const float *values, uint64_t count)
{
    void *memory = NULL;
    check_status(device->ops->allocate(device, &memory, count * sizeof *values, &error));
    if (values != NULL) {
        check_status(device->ops->copy_in(device, memory, values, count * sizeof *values));
    }
    return memory;
}

static float *initial_params(const struct graph *graph)
{
    float *params = malloc(graph_param_floats(graph) * sizeof *params);
    assert_non_null(params);
    model_initialise(graph, 5, "online", params);
    for (size_t i = 0; i < graph_param_count(graph); i++) { // so that every offset counts
        const struct graph_param *param = graph_param_at(graph, i);
        for (uint64_t k = 0; param->kind == PARAM_OFFSET && k < param->count; k++) {
            params[param->offset + k] = 0.1f * (float)(k % 3) - 0.1f;
        }
    }
    return params;
}

// The prediction for `images` from the reference start, after data_init when `from_data`.
static float *predict(struct device *device, const struct model_config *config, bool from_data,
                      const float *images)
{
    struct graph *graph;
    struct network *network;
    const struct network_config plan = {.images = IMAGES, .groups = 1, .outputs = {"prediction"}};
    check_status(model_build(&graph, config, &error));
    check_status(network_open(&network, graph, device, &plan, &error));
    float *host = initial_params(graph);
    float *params = device_block(device, host, graph_param_floats(graph));
    float *state = device_block(device, NULL, graph_state_floats(graph));
    if (from_data) {
        check_status(data_init(device, config, "prediction", images, IMAGES, params, &error));
    }
    check_status(network_forward(network, params, state, images, OP_TRAIN, &error));
    size_t count = (size_t)IMAGES * network_output_width(network, "prediction");
    float *values = malloc(count * sizeof *values);
    assert_non_null(values);
    check_status(device->ops->copy_out(device, values, network_output(network, "prediction"),
                                       count * sizeof *values));
    device->ops->release(device, params);
    device->ops->release(device, state);
    free(host);
    network_close(&network);
    graph_close(&graph);
    return values;
}

static void compare(struct device *device, int norm, int head_norm, int wanted_norm,
                    int wanted_head_norm, bool v2)
{
    float *host = malloc(FLOATS * sizeof *host);
    assert_non_null(host);
    for (size_t i = 0; i < FLOATS; i++) {
        host[i] = (float)(i * 2654435761u % 1024) / 1024.0f;
    }
    float *images = device_block(device, host, FLOATS);
    struct model_config affine = config_of(norm, head_norm, v2);
    struct model_config batch = config_of(wanted_norm, wanted_head_norm, v2);
    assert_true(data_init_needed(&affine));
    assert_false(data_init_needed(&batch));
    float *got = predict(device, &affine, true, images);
    float *wanted = predict(device, &batch, false, images);
    float *without = predict(device, &affine, false, images);
    size_t count = (size_t)IMAGES * 8;
    assert_true(relative_l2(got, wanted, count) < 1e-4);
    assert_true(relative_l2(without, wanted, count) > 0.1);
    device->ops->release(device, images);
    free(host);
    free(got);
    free(wanted);
    free(without);
}

static void test_starts_as_batch_normalisation(void **state)
{
    (void)state;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct device *device;
        check_status(device_open(&device, (*ops)->name, 2, DEVICE_F32, &error));
        for (int v2 = 0; v2 < 2; v2++) {
            compare(device, MODEL_NORM_AFFINE, 0, MODEL_NORM_BATCH, 0, v2);
            compare(device, MODEL_NORM_AFFINE, 1 + MODEL_NORM_LAYER, MODEL_NORM_BATCH,
                    1 + MODEL_NORM_LAYER, v2);
            compare(device, MODEL_NORM_BATCH, 1 + MODEL_NORM_AFFINE, MODEL_NORM_BATCH, 0, v2);
        }
        device_close(&device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_starts_as_batch_normalisation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
