// What BYOL plans on the device `cuda`, for every encoder: which batches fit a card of 80 GB.
// Arenas are planned as ever, by the device's own figures, but nothing is allocated.
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/device/device.h"
#include "trainer/method/method.h"
#include "trainer/net/model.h"
#include "trainer/net/network.h"

#define CARD         (79ull << 30)  // what a driver leaves of 80 GB
#define WORKSPACE    (256ull << 20) // the most that a convolution may have
#define VIEWS        2u
#define SMALL_BLOCKS (64u << 10) // losses, rates and the like, which are not counted here
#define MOST         4096u       // pairs

// Pairs at once, the largest power of two up to MOST: kept and recomputed.
static const struct row {
    int encoder;
    uint32_t width, side;
    uint32_t bf16[2], f32[2];
} rows[] = {
    {MODEL_RESNET18, 1, 32, {4096, 4096}, {4096, 4096}},
    {MODEL_RESNET18, 1, 96, {4096, 4096}, {4096, 4096}},
    {MODEL_RESNET18, 1, 224, {2048, 2048}, {1024, 2048}},
    {MODEL_RESNET34, 1, 32, {4096, 4096}, {4096, 4096}},
    {MODEL_RESNET34, 1, 96, {4096, 4096}, {4096, 4096}},
    {MODEL_RESNET34, 1, 224, {2048, 2048}, {1024, 2048}},
    {MODEL_RESNET50, 1, 32, {2048, 4096}, {1024, 2048}},
    {MODEL_RESNET50, 2, 32, {1024, 2048}, {512, 1024}},
    {MODEL_RESNET50, 4, 32, {512, 1024}, {256, 512}},
    {MODEL_RESNET50, 1, 96, {4096, 4096}, {2048, 4096}},
    {MODEL_RESNET50, 2, 96, {2048, 4096}, {1024, 2048}},
    {MODEL_RESNET50, 4, 96, {1024, 2048}, {512, 1024}},
    {MODEL_RESNET50, 1, 224, {512, 1024}, {256, 1024}},
    {MODEL_RESNET50, 2, 224, {256, 512}, {128, 512}},
    {MODEL_RESNET50, 4, 224, {128, 256}, {64, 128}},
    {MODEL_RESNET101, 1, 32, {1024, 4096}, {512, 2048}},
    {MODEL_RESNET101, 2, 32, {512, 2048}, {256, 1024}},
    {MODEL_RESNET101, 4, 32, {256, 1024}, {128, 512}},
    {MODEL_RESNET101, 1, 96, {2048, 4096}, {1024, 4096}},
    {MODEL_RESNET101, 2, 96, {1024, 2048}, {512, 2048}},
    {MODEL_RESNET101, 4, 96, {512, 1024}, {256, 512}},
    {MODEL_RESNET101, 1, 224, {512, 1024}, {256, 512}},
    {MODEL_RESNET101, 2, 224, {256, 512}, {128, 256}},
    {MODEL_RESNET101, 4, 224, {128, 256}, {64, 128}},
    {MODEL_RESNET152, 1, 32, {1024, 2048}, {512, 1024}},
    {MODEL_RESNET152, 2, 32, {512, 1024}, {256, 512}},
    {MODEL_RESNET152, 4, 32, {256, 512}, {128, 256}},
    {MODEL_RESNET152, 1, 96, {2048, 4096}, {1024, 2048}},
    {MODEL_RESNET152, 2, 96, {1024, 2048}, {512, 1024}},
    {MODEL_RESNET152, 4, 96, {256, 1024}, {128, 512}},
    {MODEL_RESNET152, 1, 224, {256, 1024}, {128, 512}},
    {MODEL_RESNET152, 2, 224, {128, 512}, {64, 256}},
    {MODEL_RESNET152, 4, 224, {64, 128}, {32, 64}},
    {MODEL_RESNET200, 1, 32, {512, 2048}, {256, 1024}},
    {MODEL_RESNET200, 2, 32, {256, 1024}, {128, 512}},
    {MODEL_RESNET200, 4, 32, {128, 512}, {64, 256}},
    {MODEL_RESNET200, 1, 96, {1024, 4096}, {512, 2048}},
    {MODEL_RESNET200, 2, 96, {512, 2048}, {256, 1024}},
    {MODEL_RESNET200, 4, 96, {256, 512}, {128, 256}},
    {MODEL_RESNET200, 1, 224, {256, 512}, {128, 256}},
    {MODEL_RESNET200, 2, 224, {128, 256}, {64, 128}},
    {MODEL_RESNET200, 4, 224, {32, 128}, {16, 64}},
};

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

static enum status forget(struct device *device, void *to, const void *host, size_t bytes)
{
    (void)device;
    (void)to;
    (void)host;
    (void)bytes;
    return STATUS_OK;
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
        fail_msg("%u pairs: %s", pairs, error.reason);
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

static struct model_config model_of(int encoder, uint32_t width, uint32_t side)
{
    struct model_config model;
    model_config_init(&model);
    model.encoder = encoder;
    model.width = width;
    model.size = side;
    model.stem = side == 32 ? MODEL_STEM_SMALL : MODEL_STEM_IMAGENET;
    return model;
}

static struct graph *build(int encoder, uint32_t width, uint32_t side)
{
    struct model_config model = model_of(encoder, width, side);
    struct graph *graph = NULL;
    assert_int_equal(model_build(&graph, &model, &error), STATUS_OK);
    return graph;
}

static void check_row(struct device *device, const struct row *row, uint64_t *bytes)
{
    bool half = device->precision == DEVICE_BF16;
    const uint32_t *pairs = half ? row->bf16 : row->f32;
    struct graph *graph = build(row->encoder, row->width, row->side);
    uint64_t less = total(device, graph, row->side, 8, false);
    *bytes = total(device, graph, row->side, 16, false);
    uint32_t kept = most_pairs(device, graph, row->side, false);
    uint32_t recomputed = most_pairs(device, graph, row->side, true);
    print_message("%s, encoder %d, width %u, %u px: %u pairs, recomputed %u; 16 take %.2f GiB\n",
                  half ? "bf16" : "f32", row->encoder, row->width, row->side, kept, recomputed,
                  (double)*bytes / (double)(1ull << 30));
    assert_true(*bytes > less);
    assert_int_equal(kept, pairs[0]);
    assert_int_equal(recomputed, pairs[1]);
    graph_close(&graph);
}

// The emulation only: a GPU would try out every convolution.
static struct device *open_emulated(enum device_precision precision)
{
    struct device *device = NULL;
    char text[256] = "";
    if (device_open(&device, "cuda", 1, precision, &error) != STATUS_OK) {
        print_message("%s\n", error.reason);
        skip();
    }
    device->ops->describe(device, text, sizeof text);
    if (strstr(text, "emulated") == NULL) {
        device_close(&device);
        skip();
    }
    return device;
}

static void check_precision(enum device_precision precision)
{
    struct device *device = open_emulated(precision);
    const struct device_ops *real = device->ops;
    struct device_ops planning = *real;
    planning.allocate = reserve;
    planning.release = release;
    device->ops = &planning;
    uint64_t before = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t bytes = 0;
        check_row(device, &rows[i], &bytes);
        assert_true(rows[i].width == 1 || bytes > before); // rows of one encoder widen
        before = bytes;
    }
    device->ops = real;
    device_close(&device);
}

// The method itself opens with parameters, which takes long for the largest networks.
static void test_the_method_plans_the_same(void **state)
{
    (void)state;
    static const uint32_t sides[] = {32, 224}, pairs = 16;
    struct device *device = open_emulated(DEVICE_BF16);
    const struct device_ops *real = device->ops;
    struct device_ops planning = *real;
    planning.allocate = reserve;
    planning.release = release;
    planning.copy_in = forget;
    device->ops = &planning;
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
        const struct method_config config = {.model = model_of(MODEL_RESNET18, 1, sides[i]),
                                             .batch = pairs};
        struct method *method = NULL;
        struct graph *graph = build(MODEL_RESNET18, 1, sides[i]);
        assert_int_equal(method_open(&method, "byol", device, &config, &error), STATUS_OK);
        uint64_t bytes = method->ops->memory(method) + 2 * WORKSPACE;
        uint64_t here = total(device, graph, sides[i], pairs, false);
        print_message("%u px: the method plans %" PRIu64 " bytes, this suite %" PRIu64 "\n",
                      sides[i], bytes, here);
        assert_true(bytes - here < SMALL_BLOCKS);
        method_close(&method);
        graph_close(&graph);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_the_method_plans_the_same),
                                       cmocka_unit_test(test_bf16), cmocka_unit_test(test_f32)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
