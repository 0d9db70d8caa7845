// The same images through two networks.
#include "trainer/weights/compare.h"

#include <math.h>
#include <stdlib.h>

#include "trainer/net/network.h"

#define OUTPUT "embedding"

// Everything one pass needs.
struct pass {
    struct device *device;
    struct network *network;
    float *params, *state, *input; // device memory
};

static uint32_t side_of(const struct weights *weights)
{
    return graph_value_at(weights->graph, graph_op_at(weights->graph, 0)->y)->h;
}

static uint32_t width_of(const struct weights *weights)
{
    const struct graph_output *output = graph_output_find(weights->graph, OUTPUT);
    return output == NULL ? 0 : graph_value_at(weights->graph, output->value)->c;
}

// Pixels in [0, 1], the same ones ever after.
static void draw(float *images, size_t count)
{
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        images[i] = (float)(state >> 8) / (float)(1u << 24);
    }
}

static enum status to_device(struct pass *pass, float **to, const float *from, uint64_t count,
                             struct error *error)
{
    const struct device_ops *ops = pass->device->ops;
    enum status status =
        ops->allocate(pass->device, (void **)to, (count + 1) * sizeof *from, error);
    if (status == STATUS_OK &&
        ops->copy_in(pass->device, *to, from, count * sizeof *from) != STATUS_OK) {
        status = error_set(error, STATUS_DEVICE, NULL, NOWHERE, NOWHERE,
                           "the device did not take the weights");
    }
    return status;
}

static enum status prepare(struct pass *pass, const struct weights *weights, const float *images,
                           size_t pixels, struct error *error)
{
    const struct network_config config = {
        .images = WEIGHTS_COMPARE_IMAGES, .groups = 1, .outputs = {OUTPUT, NULL}};
    const struct graph *graph = weights->graph;
    enum status status = network_open(&pass->network, graph, pass->device, &config, error);
    if (status == STATUS_OK) {
        status = to_device(pass, &pass->params, weights->params, graph_param_floats(graph), error);
    }
    if (status == STATUS_OK) {
        status = to_device(pass, &pass->state, weights->state, graph_state_floats(graph), error);
    }
    return status == STATUS_OK ? to_device(pass, &pass->input, images, pixels, error) : status;
}

static enum status run(struct pass *pass, const struct weights *weights, const float *images,
                       size_t pixels, float *features, struct error *error)
{
    enum status status = prepare(pass, weights, images, pixels, error);
    if (status == STATUS_OK) {
        status =
            network_forward(pass->network, pass->params, pass->state, pass->input, OP_EVAL, error);
    }
    size_t bytes = (size_t)WEIGHTS_COMPARE_IMAGES * width_of(weights) * sizeof *features;
    if (status == STATUS_OK &&
        pass->device->ops->copy_out(pass->device, features, network_output(pass->network, OUTPUT),
                                    bytes) != STATUS_OK) {
        status = error_set(error, STATUS_DEVICE, NULL, NOWHERE, NOWHERE,
                           "the device did not give back the features");
    }
    return status;
}

static enum status forward(const struct weights *weights, const char *device, int threads,
                           const float *images, size_t pixels, float *features, struct error *error)
{
    struct pass pass = {NULL, NULL, NULL, NULL, NULL};
    enum status status = device_open(&pass.device, device, threads, DEVICE_F32, error);
    if (status == STATUS_OK) {
        status = run(&pass, weights, images, pixels, features, error);
    }
    network_close(&pass.network);
    void *const memory[] = {pass.params, pass.state, pass.input};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) {
        if (memory[i] != NULL) {
            pass.device->ops->release(pass.device, memory[i]);
        }
    }
    device_close(&pass.device);
    return status;
}

static void measure(struct weights_difference *difference, const float *left, const float *right)
{
    for (size_t i = 0; i < (size_t)WEIGHTS_COMPARE_IMAGES * difference->width; i++) {
        double apart = fabs((double)left[i] - (double)right[i]);
        difference->largest =
            apart > difference->largest || isnan(apart) ? apart : difference->largest;
        difference->features = fmax(difference->features, fabs((double)left[i]));
    }
}

// `features` has room for those of both.
static enum status run_both(struct weights_difference *difference, const struct weights *left,
                            const struct weights *right, const char *device, int threads,
                            float *images, size_t pixels, float *features, struct error *error)
{
    float *second = features + (size_t)WEIGHTS_COMPARE_IMAGES * difference->width;
    draw(images, pixels);
    enum status status = forward(left, device, threads, images, pixels, features, error);
    if (status == STATUS_OK) {
        status = forward(right, device, threads, images, pixels, second, error);
    }
    if (status == STATUS_OK) {
        measure(difference, features, second);
    }
    return status;
}

enum status weights_compare(struct weights_difference *difference, const struct weights *left,
                            const struct weights *right, const char *device, int threads,
                            struct error *error)
{
    *difference = (struct weights_difference){.size = side_of(left), .width = width_of(left)};
    if (difference->size == 0 || difference->width == 0 || side_of(right) != difference->size ||
        width_of(right) != difference->width) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "%u features of images of %u pixels here, %u of %u there",
                         difference->width, difference->size, width_of(right), side_of(right));
    }
    size_t pixels = (size_t)WEIGHTS_COMPARE_IMAGES * difference->size * difference->size * 3;
    float *images = malloc(pixels * sizeof *images);
    float *features =
        malloc((size_t)WEIGHTS_COMPARE_IMAGES * difference->width * 2 * sizeof *features);
    enum status status =
        images != NULL && features != NULL
            ? run_both(difference, left, right, device, threads, images, pixels, features, error)
            : error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                        "no memory to compare features");
    free(images);
    free(features);
    return status;
}
