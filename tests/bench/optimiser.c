// One update of a network's parameters and of its moving average, by every optimiser.
//
//     build/tests/bench/optimiser [ROUNDS [THREADS]]
//
// The parameter tables are those of ResNet-50 and ResNet-18 with the paper's heads. Beside each
// time stands the floor: one pass that reads and writes the same blocks and only adds. Both take
// turns, so that a busy machine hits them alike; printed are the fastest and the median in
// milliseconds, and the ratio of the medians.
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "trainer/method/optimiser.h"

#define MOST_ROUNDS 99

static const struct {
    const char *name;
    struct method_config config;
} optimisers[] = {
    {"lars", {.optimizer = OPTIMIZER_LARS, .weight_decay = 1e-6, .momentum = 0.9, .trust = 1e-3}},
    {"lars-solo-learn",
     {.optimizer = OPTIMIZER_LARS_SOLO_LEARN,
      .weight_decay = 1e-5,
      .momentum = 0.9,
      .trust = 0.02,
      .lars_clip = true}},
    {"sgd", {.optimizer = OPTIMIZER_SGD, .weight_decay = 1e-4, .momentum = 0.9}},
    {"adamw",
     {.optimizer = OPTIMIZER_ADAMW,
      .weight_decay = 1e-4,
      .beta1 = 0.9,
      .beta2 = 0.999,
      .epsilon = 1e-8}},
};

static struct device *device;
static struct param_span *spans;
static size_t span_count;
static uint64_t values; // of a block
static float *gradients;
static struct optimiser_blocks blocks;
static const float learning_rate = 1e-4f, target_rate = 0.01f; // the device's memory is the host's

static void check(enum status status)
{
    if (status != STATUS_OK) {
        fprintf(stderr, "optimiser: %s\n", status_name(status));
        exit(1);
    }
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static float *make_block(uint64_t seed)
{
    void *memory;
    check(device->ops->allocate(device, &memory, values * sizeof(float), NULL));
    float *block = memory;
    for (uint64_t i = 0; i < values; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        block[i] = (float)(seed >> 40) / 16777216.0f;
    }
    return block;
}

static void make_parameters(int encoder)
{
    struct model_config model;
    struct graph *graph;
    model_config_init(&model);
    model.encoder = encoder;
    check(model_build(&graph, &model, NULL));
    values = graph_param_floats(graph);
    span_count = graph_param_count(graph);
    spans = calloc(span_count, sizeof *spans);
    for (size_t i = 0; i < span_count; i++) {
        const struct graph_param *param = graph_param_at(graph, i);
        spans[i] = (struct param_span){param->offset, param->count, param->decay, 1.0f};
    }
    graph_close(&graph);
    gradients = make_block(2);
    blocks = (struct optimiser_blocks){.params = make_block(1),
                                       .grads = gradients,
                                       .momentum = make_block(3),
                                       .second_moment = make_block(4),
                                       .steps = make_block(5),
                                       .target = {make_block(6), &target_rate}};
}

static void release_parameters(void)
{
    void *const memory[] = {blocks.params,        gradients,    blocks.momentum,
                            blocks.second_moment, blocks.steps, blocks.target.params};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) {
        device->ops->release(device, memory[i]);
    }
    free(spans);
}

// Reads gradients, reads and writes the others.
static void touch(bool second_moment, int threads)
{
    const float *grads = blocks.grads;
    float *params = blocks.params, *momentum = blocks.momentum, *target = blocks.target.params;
    float *second = blocks.second_moment;
    if (second_moment) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
        for (uint64_t i = 0; i < values; i++) {
            params[i] += grads[i];
            momentum[i] += grads[i];
            target[i] += grads[i];
            second[i] += grads[i];
        }
    } else {
#pragma omp parallel for simd num_threads(threads) schedule(static)
        for (uint64_t i = 0; i < values; i++) {
            params[i] += grads[i];
            momentum[i] += grads[i];
            target[i] += grads[i];
        }
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void bench(const char *net, size_t optimiser, int rounds, int threads)
{
    const struct method_config *config = &optimisers[optimiser].config;
    double spent[2][MOST_ROUNDS];
    for (int round = -1; round < rounds; round++) { // one that is not counted
        double start = now();
        check(optimiser_step(device, config, spans, span_count, &learning_rate, &blocks));
        double between = now();
        touch(optimiser_has_second_moment(config), threads);
        if (round >= 0) {
            spent[0][round] = 1e3 * (between - start);
            spent[1][round] = 1e3 * (now() - between);
        }
    }
    for (size_t i = 0; i < 2; i++) {
        qsort(spent[i], (size_t)rounds, sizeof spent[i][0], compare);
    }
    printf("%-10s %-16s %8.2f %8.2f ms   floor %8.2f %8.2f ms   %.2f of the floor\n", net,
           optimisers[optimiser].name, spent[0][0], spent[0][rounds / 2], spent[1][0],
           spent[1][rounds / 2], spent[0][rounds / 2] / spent[1][rounds / 2]);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int encoder;
    } nets[] = {{"resnet50", MODEL_RESNET50}, {"resnet18", MODEL_RESNET18}};
    int rounds = argc > 1 ? atoi(argv[1]) : 15;
    int threads = argc > 2 ? atoi(argv[2]) : omp_get_num_procs();
    if (rounds < 1 || rounds > MOST_ROUNDS || threads < 1) {
        fprintf(stderr, "usage: optimiser [ROUNDS up to %d [THREADS]]\n", MOST_ROUNDS);
        return 2;
    }
    check(device_open(&device, "cpu", threads, DEVICE_F32, NULL));
    for (size_t net = 0; net < sizeof nets / sizeof *nets; net++) {
        make_parameters(nets[net].encoder);
        printf("%s: %.1f million parameters in %zu tensors\n", nets[net].name, (double)values / 1e6,
               span_count);
        for (size_t i = 0; i < sizeof optimisers / sizeof *optimisers; i++) {
            bench(nets[net].name, i, rounds, threads);
        }
        release_parameters();
    }
    device_close(&device);
    return 0;
}
