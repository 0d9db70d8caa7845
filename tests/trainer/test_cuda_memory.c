// What BYOL plans on the device `cuda`, for every encoder: which batches fit a card of 80 GB.
// Arenas are planned as ever, by the device's own figures, but nothing is allocated.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/device/device.h"
#include "trainer/net/model.h"
#include "trainer/net/network.h"

#define CARD      (79ull << 30)  // what a driver leaves of 80 GB
#define WORKSPACE (256ull << 20) // the most that a convolution may have
#define VIEWS     2u
#define MOST      4096u // pairs

static struct error error;

// Memory that nobody touches: networks are opened and closed, never run.
static enum status reserve(struct device *device, void **memory, size_t bytes, struct error *why)
{
    static char nothing[64];
    (void)device;
    (void)bytes;
    (void)why;
    *memory = nothing;
    return STATUS_OK;
}

static void release(struct device *device, void *memory)
{
    (void)device;
    (void)memory;
}

static uint64_t arena_of(struct device *device, const struct graph *graph, uint32_t pairs,
                         bool online, bool recompute)
{
    struct network_config config = {.images = VIEWS * pairs,
                                    .groups = VIEWS,
                                    .backward = online,
                                    .recompute = online && recompute,
                                    .outputs = {"projection", online ? "prediction" : NULL}};
    struct network *network = NULL;
    if (network_open(&network, graph, device, &config, &error) != STATUS_OK) {
        return UINT64_MAX / 4; // a tensor that no kernel can index
    }
    uint64_t bytes = network_arena_bytes(network) + WORKSPACE;
    network_close(&network);
    return bytes;
}

// Both arenas; parameters of both networks, momentum and gradients; statistics; views in float32
// and the two batches of float32 on their way.
static uint64_t total(struct device *device, const struct graph *graph, uint32_t side,
                      uint32_t pairs, bool recompute)
{
    uint64_t floats = 4 * graph_param_floats(graph) + 2 * graph_state_floats(graph);
    floats += 3ull * VIEWS * pairs * side * side * 3;
    return floats * sizeof(float) + arena_of(device, graph, pairs, true, recompute) +
           arena_of(device, graph, pairs, false, false);
}

static uint32_t most_pairs(struct device *device, const struct graph *graph, uint32_t side,
                           bool recompute)
{
    uint32_t pairs = MOST;
    while (pairs > 0 && total(device, graph, side, pairs, recompute) > CARD) {
        pairs /= 2;
    }
    return pairs;
}

static struct graph *build(int encoder, uint32_t width, uint32_t side)
{
    struct model_config model;
    model_config_init(&model);
    model.encoder = encoder;
    model.width = width;
    model.size = side;
    model.stem = side == 32 ? MODEL_STEM_SMALL : MODEL_STEM_IMAGENET;
    struct graph *graph = NULL;
    assert_int_equal(model_build(&graph, &model, &error), STATUS_OK);
    return graph;
}

static void check_encoder(struct device *device, int encoder, uint32_t side)
{
    static const char *const names[] = {"tiny", "18", "34", "50", "101", "152", "200"};
    uint64_t narrower = 0;
    for (uint32_t width = 1; width <= (encoder < MODEL_RESNET50 ? 1u : 4u); width *= 2) {
        struct graph *graph = build(encoder, width, side);
        uint32_t kept = most_pairs(device, graph, side, false);
        uint32_t recomputed = most_pairs(device, graph, side, true);
        uint64_t some = total(device, graph, side, 16, false);
        uint64_t more = total(device, graph, side, 32, false);
        printf("%s ResNet-%s %ux %u px: %u pairs, recomputed %u; 16 take %.2f GiB\n",
               device->precision == DEVICE_F32 ? "f32" : "bf16", names[encoder], width, side, kept,
               recomputed, (double)some / (double)(1ull << 30));
        assert_true(some > narrower);
        assert_true(more > some);
        assert_true(kept >= 16);
        assert_true(recomputed >= kept);
        narrower = some;
        graph_close(&graph);
    }
}

static void check_precision(enum device_precision precision)
{
    static const uint32_t sides[] = {32, 96, 224};
    struct device *device = NULL;
    if (device_open(&device, "cuda", 1, precision, &error) != STATUS_OK) {
        print_message("%s\n", error.reason);
        skip();
    }
    const struct device_ops *real = device->ops;
    struct device_ops planning = *real;
    planning.allocate = reserve;
    planning.release = release;
    device->ops = &planning;
    for (int encoder = MODEL_RESNET18; encoder <= MODEL_RESNET200; encoder++) {
        for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
            check_encoder(device, encoder, sides[i]);
        }
    }
    device->ops = real;
    device_close(&device);
}

static void test_bf16(void **state)
{
    (void)state;
    check_precision(DEVICE_BF16);
}

static void test_f32(void **state)
{
    (void)state;
    check_precision(DEVICE_F32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bf16), cmocka_unit_test(test_f32)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
