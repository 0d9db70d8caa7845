// `byol bench step`: training steps on made-up images, so that the network and the device are
// timed without a dataset.
#include "tools/bench.h"
#include "tools/command.h"
#include "tools/measure.h"
#include "tools/progress.h"
#include "trainer/method/method.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_STEPS 1000

static const struct command command = {
    .name = "bench step",
    .help = "Usage: byol bench step [options]\n"
            "\n"
            "Times whole training steps (both networks, both views, losses, gradients, update) on\n"
            "made-up images. The median of the steps counts, after one that is not timed.\n"
            "\n"
            "What is trained:\n"
            "  --net NAME        tiny, resnet18, 34, 50, 101, 152, 200 (resnet50)\n"
            "  --stem NAME       imagenet or small, for images of about 32 px (imagenet)\n"
            "  --padding NAME    same or torch (same)\n"
            "  --width F         channel multiplier (1)\n"
            "  --size N          pixels per side (224)\n"
            "  --batch N         pairs per step (64)\n"
            "  --accumulate N    micro-batches a batch is cut into (1)\n"
            "  --recompute       compute what lies inside blocks twice instead of keeping it\n"
            "  --hidden N        hidden units of projector and predictor (4096)\n"
            "  --output N        width of the projection (256)\n"
            "  --classes N       of the online classifier (0: none)\n"
            "\n"
            "How:\n"
            "  --device NAME     what computes (cpu)\n"
            "  --threads N       (0: one per core)\n"
            "  --steps N         timed steps (5)\n"
            "  --json            print the result as JSON\n"
            "  --quiet           no progress line\n"
            "\n"
            "Example:\n"
            "  byol bench step --net resnet18 --stem small --size 32 --batch 64\n"
            "\n"
            "Exit codes: 0 success, 1 failure, 2 wrong usage.\n",
};

struct bench {
    // As given.
    const char *net, *stem, *padding, *device_name;
    int64_t batch, accumulate, hidden, threads, steps;
    bool json, quiet;
    struct method_config config;
    // What runs.
    struct device *device;
    struct method *method;
    float *images;   // two views
    int32_t *labels; // NULL without classes
    struct progress progress;
    // What was measured.
    double seconds[MAX_STEPS];     // of each step
    double kinds[OP_KINDS];        // summed over the steps
    double optimiser, total, loss; // the first two summed too; the loss of the last step
};

// --- from options to a config --------------------------------------------------------------------

// Index of `value` among "a|b|c", or -1 after saying so.
static int choose(const char *option, const char *value, const char *choices)
{
    int index = 0;
    size_t len = strlen(value);
    for (const char *at = choices; *at; index++) {
        size_t choice = strcspn(at, "|");
        if (choice == len && strncmp(at, value, len) == 0) {
            return index;
        }
        at += choice + (at[choice] == '|');
    }
    command_misused(&command, "--%s is one of %s, not '%s'", option, choices, value);
    return -1;
}

static int parse(struct bench *bench, int argc, char **argv, bool *done)
{
    struct model_config *model = &bench->config.model;
    const struct option options[] = {
        {"net", 'n', OPTION_STRING, &bench->net, 0, 0},
        {"stem", 0, OPTION_STRING, &bench->stem, 0, 0},
        {"padding", 0, OPTION_STRING, &bench->padding, 0, 0},
        {"width", 0, OPTION_FLOAT, &model->width, 0.0625, 4},
        {"size", 0, OPTION_INT, &model->size, 8, 1024},
        {"batch", 'b', OPTION_INT, &bench->batch, 1, 65536},
        {"accumulate", 0, OPTION_INT, &bench->accumulate, 1, 65536},
        {"recompute", 0, OPTION_FLAG, &bench->config.recompute, 0, 0},
        {"hidden", 0, OPTION_INT, &bench->hidden, 1, 65536},
        {"output", 0, OPTION_INT, &model->projector_output, 1, 65536},
        {"classes", 0, OPTION_INT, &model->classes, 0, 100000},
        {"device", 0, OPTION_STRING, &bench->device_name, 0, 0},
        {"threads", 't', OPTION_INT, &bench->threads, 0, 1024},
        {"steps", 's', OPTION_INT, &bench->steps, 1, MAX_STEPS},
        {"json", 0, OPTION_FLAG, &bench->json, 0, 0},
        {"quiet", 'q', OPTION_FLAG, &bench->quiet, 0, 0},
    };
    struct option_list operands;
    int code = command_options(&command, argc, argv, options, sizeof options / sizeof options[0],
                               &operands, done);
    if (code != EXIT_OK || *done) {
        return code;
    }
    if (operands.count != 0) {
        return command_misused(&command, "'%s' is not an option", operands.item[0]);
    }
    return EXIT_OK;
}

static int configure(struct bench *bench)
{
    struct model_config *model = &bench->config.model;
    model->encoder = choose("net", bench->net, MODEL_ENCODER_CHOICES);
    model->stem = choose("stem", bench->stem, MODEL_STEM_CHOICES);
    model->padding = choose("padding", bench->padding, MODEL_PADDING_CHOICES);
    if (model->encoder < 0 || model->stem < 0 || model->padding < 0) {
        return EXIT_USAGE;
    }
    model->projector_hidden = model->predictor_hidden = bench->hidden;
    bench->config.batch = (uint32_t)bench->batch;
    bench->config.accumulate = (uint32_t)bench->accumulate;
    bench->config.weight_decay = 1e-6;
    bench->config.momentum = 0.9;
    bench->config.trust = 1e-3;
    return EXIT_OK;
}

// --- running -------------------------------------------------------------------------------------

static size_t view_floats(const struct bench *bench)
{
    size_t side = (size_t)bench->config.model.size;
    return bench->config.batch * side * side * 3;
}

// The same noise in every run; kernels take as long for noise as for images.
static enum status make_batch(struct bench *bench, struct error *error)
{
    uint64_t state = 1, classes = (uint64_t)bench->config.model.classes;
    size_t count = 2 * view_floats(bench);
    bench->images = malloc(count * sizeof *bench->images);
    bench->labels = classes ? malloc(bench->config.batch * sizeof *bench->labels) : NULL;
    if (bench->images == NULL || (classes && bench->labels == NULL)) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for a batch");
    }
    for (size_t i = 0; i < count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        bench->images[i] = (float)(state >> 40) / 16777216.0f;
    }
    for (uint32_t i = 0; bench->labels && i < bench->config.batch; i++) {
        bench->labels[i] = (int32_t)(i % classes);
    }
    return STATUS_OK;
}

static enum status run_step(struct bench *bench, double *seconds, struct method_metrics *metrics,
                            struct error *error)
{
    const float *views[] = {bench->images, bench->images + view_floats(bench)};
    const struct method_step step = {.learning_rate = 0.2f * (float)bench->batch / 256.0f,
                                     .tau = 0.99f};
    double start = measure_seconds();
    enum status status =
        bench->method->ops->step(bench->method, views, bench->labels, &step, metrics, error);
    *seconds = measure_seconds() - start;
    return status;
}

static enum status run_steps(struct bench *bench, struct error *error)
{
    struct method_metrics metrics;
    enum status status = run_step(bench, &bench->seconds[0], &metrics, error); // not counted
    for (int64_t i = 0; i < bench->steps && status == STATUS_OK; i++) {
        status = run_step(bench, &bench->seconds[i], &metrics, error);
        bench->total += bench->seconds[i];
        bench->optimiser += metrics.optimiser_seconds;
        bench->loss = metrics.loss;
        for (size_t kind = 0; kind < OP_KINDS; kind++) {
            bench->kinds[kind] += metrics.seconds[kind];
        }
        if (status == STATUS_OK && !isfinite(metrics.loss)) {
            return error_set(error, STATUS_DEVICE, NULL, NOWHERE, NOWHERE,
                             "the loss of step %" PRId64 " is not finite", i + 1);
        }
        progress_bar(&bench->progress, "steps", (uint64_t)i + 1, (uint64_t)bench->steps, "steps");
    }
    return status;
}

static enum status measure(struct bench *bench, struct error *error)
{
    enum status status =
        device_open(&bench->device, bench->device_name, (int)bench->threads, DEVICE_F32, error);
    if (status == STATUS_OK) {
        status = method_open(&bench->method, "byol", bench->device, &bench->config, error);
    }
    if (status == STATUS_OK) {
        status = make_batch(bench, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    progress_begin(&bench->progress, bench->quiet || bench->json);
    status = run_steps(bench, error);
    progress_end(&bench->progress);
    return status;
}

// --- telling -------------------------------------------------------------------------------------

static void print_text(struct bench *bench)
{
    char device[128];
    double step = measure_median(bench->seconds, (size_t)bench->steps), other = bench->total;
    bench->device->ops->describe(bench->device, device, sizeof device);
    printf("device           %s\n", device);
    printf("pairs/s          %.2f\n", (double)bench->batch / step);
    printf("step             %.1f ms (median of %" PRId64 ", fastest %.1f)\n", step * 1e3,
           bench->steps, bench->seconds[0] * 1e3);
    for (size_t kind = 0; kind < OP_KINDS; kind++) {
        printf("%-16s %5.1f %%\n", op_kind_names[kind], 100 * bench->kinds[kind] / bench->total);
        other -= bench->kinds[kind];
    }
    printf("optimiser        %5.1f %%\n", 100 * bench->optimiser / bench->total);
    printf("other            %5.1f %%\n", 100 * (other - bench->optimiser) / bench->total);
    printf("memory           %.1f MiB planned, %.1f MiB at the peak\n",
           (double)bench->method->ops->memory(bench->method) / (1 << 20),
           (double)measure_peak_memory() / (1 << 20));
    printf("loss             %.4f\n", bench->loss);
}

static void print_json(struct bench *bench)
{
    char device[128];
    double step = measure_median(bench->seconds, (size_t)bench->steps), other = bench->total;
    bench->device->ops->describe(bench->device, device, sizeof device);
    json_t *shares = json_object();
    for (size_t kind = 0; kind < OP_KINDS; kind++) {
        json_object_set_new(shares, op_kind_names[kind],
                            json_real(bench->kinds[kind] / bench->total));
        other -= bench->kinds[kind];
    }
    json_object_set_new(shares, "optimiser", json_real(bench->optimiser / bench->total));
    json_object_set_new(shares, "other", json_real((other - bench->optimiser) / bench->total));
    json_t *result =
        json_pack("{s:f, s:f, s:f, s:I, s:I, s:s, s:s, s:o, s:I, s:I, s:f}", "pairs_per_second",
                  (double)bench->batch / step, "step_seconds", step, "fastest_step_seconds",
                  bench->seconds[0], "steps", (json_int_t)bench->steps, "batch",
                  (json_int_t)bench->batch, "net", bench->net, "device", device, "shares", shares,
                  "peak_memory_bytes", (json_int_t)measure_peak_memory(), "planned_memory_bytes",
                  (json_int_t)bench->method->ops->memory(bench->method), "loss", bench->loss);
    json_dumpf(result, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(result);
}

int bench_step(int argc, char **argv)
{
    struct bench bench = {.net = "resnet50",
                          .stem = "imagenet",
                          .padding = "same",
                          .device_name = "cpu",
                          .batch = 64,
                          .accumulate = 1,
                          .hidden = 4096,
                          .steps = 5};
    struct error error;
    bool done;
    model_config_init(&bench.config.model);
    int code = parse(&bench, argc, argv, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    code = configure(&bench);
    if (code != EXIT_OK) {
        return code;
    }
    enum status status = measure(&bench, &error);
    if (status != STATUS_OK) {
        code = command_failed(&command, &error, bench.json);
    } else if (bench.json) {
        print_json(&bench);
    } else {
        print_text(&bench);
    }
    free(bench.images);
    free(bench.labels);
    method_close(&bench.method);
    device_close(&bench.device);
    return code;
}
