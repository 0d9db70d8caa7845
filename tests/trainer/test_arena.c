// The arena of a planned network: blocks in use at the same time never overlap, and little is
// wasted.
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/support/device_rows.h"
#include "trainer/net/model.h"
#include "trainer/net/network_internal.h"

static struct error error;

static void check_status(enum status status)
{
    if (status != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
}

static bool clash(const struct block *a, const struct block *b)
{
    bool same_time = a->first <= b->last && b->first <= a->last;
    bool same_place = a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
    return same_time && same_place && a->bytes > 0 && b->bytes > 0;
}

// The most bytes that are needed at any one time: no plan can do with less.
static uint64_t floor_of(const struct network *network)
{
    uint64_t most = 0;
    for (size_t time = 0; time <= network->end; time++) {
        uint64_t bytes = 0;
        for (size_t i = 0; i < network->block_count; i++) {
            const struct block *at = &network->blocks[i];
            bytes += at->first <= time && time <= at->last ? at->bytes : 0;
        }
        most = bytes > most ? bytes : most;
    }
    return most;
}

static uint64_t check_arena(const struct graph *graph, struct device *device,
                            const struct network_config *config)
{
    struct network *network;
    check_status(network_open(&network, graph, device, config, &error));
    uint64_t arena = network_arena_bytes(network), all = 0;
    for (size_t i = 0; i < network->block_count; i++) {
        const struct block *at = &network->blocks[i];
        assert_true(at->offset % 64 == 0);
        assert_true(at->offset + at->bytes <= arena);
        all += at->bytes;
        for (size_t k = 0; k < i; k++) {
            assert_false(clash(at, &network->blocks[k]));
        }
    }
    uint64_t floor = floor_of(network);
    print_message("arena of %zu ops: %" PRIu64 " KiB; at least %" PRIu64 ", unshared %" PRIu64 "\n",
                  network->op_count, arena / 1024, floor / 1024, all / 1024);
    assert_true((double)arena <= 1.1 * (double)floor);
    network_close(&network);
    return arena;
}

static void check_arenas(const char *name)
{
    struct device *device;
    check_status(device_open(&device, name, 1, DEVICE_F32, &error));
    for (int v2 = 0; v2 < 2; v2++) {
        for (int encoder = MODEL_TINY; encoder <= MODEL_RESNET50; encoder++) {
            struct model_config config;
            model_config_init(&config);
            config.encoder = encoder;
            config.width = 0.25;
            config.size = 64;
            config.classes = 10;
            config.v2 = v2;
            struct graph *graph;
            check_status(model_build(&graph, &config, &error));
            struct network_config training = {.images = 4,
                                              .groups = 2,
                                              .backward = true,
                                              .outputs = {"prediction", "projection", "logits"}};
            struct network_config plain = {.images = 4, .groups = 2, .outputs = {"projection"}};
            uint64_t with_backward = check_arena(graph, device, &training);
            assert_true(check_arena(graph, device, &plain) < with_backward);
            training.recompute = true;
            assert_true(check_arena(graph, device, &training) < with_backward);
            graph_close(&graph);
        }
    }
    device_close(&device);
}

static void test_arenas(void **state)
{
    (void)state;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        check_arenas((*ops)->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_arenas)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
