// Recomputation of the ResNets' blocks: the same bytes as without, from less memory.
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/device_rows.h"
#include "trainer/net/model.h"
#include "trainer/net/network.h"

#define IMAGES 4u
#define SIDE   32u

static const char *const outputs[] = {"prediction", "projection", "logits"};
#define OUTPUTS (sizeof outputs / sizeof outputs[0])

static struct error error;

static void check_status(enum status status)
{
    if (status != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
}

static float noise(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(*seed >> 8) * 0x1p-24f;
}

// Device memory with noise in [0, scale).
static float *filled(struct device *device, size_t count, float scale)
{
    void *memory = NULL;
    uint32_t seed = (uint32_t)count;
    float *host = malloc(count * sizeof *host);
    assert_non_null(host);
    for (size_t i = 0; i < count; i++) {
        host[i] = scale * noise(&seed);
    }
    check_status(device->ops->allocate(device, &memory, count * sizeof *host, &error));
    assert_int_equal(device->ops->copy_in(device, memory, host, count * sizeof *host), STATUS_OK);
    free(host);
    return memory;
}

// What a network computes, on the host.
struct computed {
    float *grads, *state, *values;
    size_t grad_count, state_count, value_count;
    uint64_t bytes;
};

static float *fetched(struct device *device, const float *from, size_t count)
{
    float *host = malloc(count * sizeof *host);
    assert_non_null(host);
    assert_int_equal(device->ops->copy_out(device, host, from, count * sizeof *host), STATUS_OK);
    return host;
}

// Every output feels the loss.
static void seed_gradients(struct device *device, struct network *network)
{
    for (size_t i = 0; i < OUTPUTS; i++) {
        size_t count = IMAGES * network_output_width(network, outputs[i]);
        float *weights = filled(device, count, 1);
        device->ops->copy(device, network_output_gradient(network, outputs[i]), weights,
                          count * sizeof *weights);
        device->ops->release(device, weights);
    }
}

// Two training passes one after the other.
static struct computed compute(struct device *device, const struct graph *graph, bool recompute)
{
    const struct network_config config = {.images = IMAGES,
                                          .groups = 2,
                                          .backward = true,
                                          .recompute = recompute,
                                          .outputs = {outputs[0], outputs[1], outputs[2]}};
    struct network *network;
    check_status(network_open(&network, graph, device, &config, &error));
    struct computed result = {.grad_count = graph_param_floats(graph),
                              .state_count = graph_state_floats(graph),
                              .value_count = IMAGES * network_output_width(network, outputs[0]),
                              .bytes = network_arena_bytes(network)};
    float *params = filled(device, result.grad_count, 0.2f);
    float *grads = filled(device, result.grad_count, 1);
    float *state = filled(device, result.state_count, 0);
    float *images = filled(device, (size_t)IMAGES * SIDE * SIDE * 3, 1);
    for (int pass = 0; pass < 2; pass++) {
        check_status(network_forward(network, params, state, images, OP_TRAIN, &error));
        seed_gradients(device, network);
        check_status(network_backward(network, params, grads, images, &error));
    }
    result.grads = fetched(device, grads, result.grad_count);
    result.state = fetched(device, state, result.state_count);
    result.values = fetched(device, network_output(network, outputs[0]), result.value_count);
    float *const memory[] = {params, grads, state, images};
    for (size_t i = 0; i < 4; i++) {
        device->ops->release(device, memory[i]);
    }
    network_close(&network);
    return result;
}

static void release(struct computed *computed)
{
    free(computed->grads);
    free(computed->state);
    free(computed->values);
}

static void check_model(struct device *device, int encoder, bool v2)
{
    struct model_config config;
    model_config_init(&config);
    config.encoder = encoder;
    config.width = 0.125;
    config.stem = encoder == MODEL_RESNET50 ? MODEL_STEM_IMAGENET : MODEL_STEM_SMALL;
    config.size = SIDE;
    config.classes = 7;
    config.v2 = v2;
    config.projector_hidden = config.predictor_hidden = 24;
    config.projector_output = 8;
    struct graph *graph;
    check_status(model_build(&graph, &config, &error));
    struct computed kept = compute(device, graph, false), again = compute(device, graph, true);
    print_message("%s, encoder %d, v%d: %" PRIu64 " KiB kept, %" PRIu64 " KiB recomputed\n",
                  device->ops->name, encoder, 1 + v2, kept.bytes / 1024, again.bytes / 1024);
    assert_memory_equal(again.grads, kept.grads, kept.grad_count * sizeof(float));
    assert_memory_equal(again.state, kept.state, kept.state_count * sizeof(float));
    assert_memory_equal(again.values, kept.values, kept.value_count * sizeof(float));
    for (size_t i = 0; i < kept.grad_count; i++) {
        assert_true(isfinite(kept.grads[i]));
    }
    // The cpu's scratch memory does not grow with the batch, and outweighs four small images.
    bool plain = strcmp(device->ops->name, "ref") == 0 && encoder != MODEL_TINY;
    assert_true((double)again.bytes < (plain ? 0.6 : 1.0) * (double)kept.bytes);
    release(&kept);
    release(&again);
    graph_close(&graph);
}

static void test_same_bytes_from_less_memory(void **state)
{
    (void)state;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct device *device;
        check_status(device_open(&device, (*ops)->name, 1, DEVICE_F32, &error));
        for (int v2 = 0; v2 < 2; v2++) {
            check_model(device, MODEL_TINY, v2);
            check_model(device, MODEL_RESNET18, v2);
            check_model(device, MODEL_RESNET50, v2);
        }
        device_close(&device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bytes_from_less_memory)};
    return cmocka_run_group_tests_name("recompute", tests, NULL, NULL);
}
