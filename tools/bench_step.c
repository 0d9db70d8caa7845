// `byol bench step`: training steps on made-up images, so that the network and the device are
// timed without a dataset.
#include "tools/bench_step.h"
#include "tools/allocation_count.h"
#include "tools/bench.h"
#include "tools/command.h"
#include "tools/measure.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROFILED_STEPS 3

static int run(int argc, char **argv);

const struct command command_bench_step = {
    .name = "bench step",
    .summary = "training steps",
    .help = "Usage: byol bench step [options]\n"
            "\n"
            "Times whole training steps (both networks, both views, losses, gradients, update) on\n"
            "made-up images. The median of the steps counts, after one that is not timed. Tells\n"
            "first what is planned, then where time and memory went. A device that works ahead is\n"
            "timed with steps in flight; where its time goes, other steps tell, in which it waits\n"
            "after each op.\n"
            "\n"
            "What is trained:\n"
            "  --net NAME        tiny, resnet18, 34, 50, 101, 152, 200 (resnet50)\n"
            "  --stem imagenet|small\n"
            "                    small: for images of about 32 px (imagenet)\n"
            "  --padding same|torch\n"
            "                    as the reference pads, or as torchvision (same)\n"
            "  --shortcut first|torch\n"
            "                    convolutions in the first block of every group, or where\n"
            "                    torchvision has them (first)\n"
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
            "  --precision auto|f32|bf16\n"
            "                    of images and convolutions; auto: what the device computes\n"
            "                    fastest (auto)\n"
            "  --threads N       (0: one per core)\n"
            "  --steps N         timed steps (5)\n"
            "  --json            print the result as JSON\n"
            "  --quiet           no progress line\n"
            "\n"
            "Example:\n"
            "  byol bench step --net resnet18 --stem small --size 32 --batch 64\n"
            "\n"
            "Exit codes: 0 success, 1 failure, 2 wrong usage.\n",
    .run = run,
};

// --- from options to a config --------------------------------------------------------------------

static int parse(struct step_bench *bench, int argc, char **argv, bool *done)
{
    struct model_config *model = &bench->config.model;
    const struct option options[] = {
        {"net", 'n', OPTION_STRING, &bench->net, 0, 0},
        {"stem", 0, OPTION_STRING, &bench->stem, 0, 0},
        {"padding", 0, OPTION_STRING, &bench->padding, 0, 0},
        {"shortcut", 0, OPTION_STRING, &bench->shortcut, 0, 0},
        {"width", 0, OPTION_FLOAT, &model->width, 0.0625, 4},
        {"size", 0, OPTION_INT, &model->size, 8, 1024},
        {"batch", 'b', OPTION_INT, &bench->batch, 1, 65536},
        {"accumulate", 0, OPTION_INT, &bench->accumulate, 1, 65536},
        {"recompute", 0, OPTION_FLAG, &bench->config.recompute, 0, 0},
        {"hidden", 0, OPTION_INT, &bench->hidden, 1, 65536},
        {"output", 0, OPTION_INT, &model->projector_output, 1, 65536},
        {"classes", 0, OPTION_INT, &model->classes, 0, 100000},
        {"device", 0, OPTION_STRING, &bench->device_name, 0, 0},
        {"precision", 0, OPTION_STRING, &bench->precision_name, 0, 0},
        {"threads", 't', OPTION_INT, &bench->threads, 0, 1024},
        {"steps", 's', OPTION_INT, &bench->steps, 1, BENCH_MAX_STEPS},
        {"json", 0, OPTION_FLAG, &bench->json, 0, 0},
        {"quiet", 'q', OPTION_FLAG, &bench->quiet, 0, 0},
    };
    struct option_list operands;
    int code = command_options(&command_bench_step, argc, argv, options,
                               sizeof options / sizeof options[0], &operands, done);
    if (code != EXIT_OK || *done) {
        return code;
    }
    if (operands.count != 0) {
        return command_misused(&command_bench_step, "'%s' is not an option", operands.item[0]);
    }
    return EXIT_OK;
}

static int configure(struct step_bench *bench)
{
    struct model_config *model = &bench->config.model;
    model->encoder = command_choice(&command_bench_step, "net", bench->net, MODEL_ENCODER_CHOICES);
    model->stem = command_choice(&command_bench_step, "stem", bench->stem, MODEL_STEM_CHOICES);
    model->padding =
        command_choice(&command_bench_step, "padding", bench->padding, MODEL_PADDING_CHOICES);
    model->shortcut =
        command_choice(&command_bench_step, "shortcut", bench->shortcut, MODEL_SHORTCUT_CHOICES);
    bench->precision = command_choice(&command_bench_step, "precision", bench->precision_name,
                                      DEVICE_PRECISION_CHOICES);
    if (model->encoder < 0 || model->stem < 0 || model->padding < 0 || model->shortcut < 0 ||
        bench->precision < 0) {
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

static size_t view_floats(const struct step_bench *bench)
{
    size_t side = (size_t)bench->config.model.size;
    return bench->config.batch * side * side * 3;
}

// The same noise in every run; kernels take as long for noise as for images.
static enum status make_batch(struct step_bench *bench, struct error *error)
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

static enum status queue_step(struct step_bench *bench, struct error *error)
{
    const float *views[] = {bench->images, bench->images + view_floats(bench)};
    const struct method_step step = {.learning_rate = 0.2f * (float)bench->batch / 256.0f,
                                     .tau = 0.99f};
    enum status status =
        bench->method->ops->step(bench->method, views, bench->labels, &step, error);
    bench->queued += status == STATUS_OK;
    return status;
}

// `seconds` since the step before was collected, or since `last_collected` was set.
static enum status collect_step(struct step_bench *bench, double *seconds,
                                struct method_metrics *metrics, struct error *error)
{
    enum status status = bench->method->ops->collect(bench->method, metrics, error);
    if (status != STATUS_OK) {
        return status;
    }
    double now = measure_seconds();
    *seconds = now - bench->last_collected;
    bench->last_collected = now;
    if (!isfinite(metrics->loss)) {
        return error_set(error, STATUS_DEVICE, NULL, NOWHERE, NOWHERE,
                         "the loss of step %" PRIu64 " is not finite", bench->collected);
    }
    if (bench->collected++ == (uint64_t)bench->steps) {
        bench->loss = metrics->loss;
    }
    return STATUS_OK;
}

static void add_metrics(struct step_bench *bench, const struct method_metrics *metrics,
                        double seconds)
{
    bench->profiled++;
    bench->total += seconds;
    bench->optimiser += metrics->optimiser_seconds;
    for (size_t kind = 0; kind < OP_KINDS; kind++) {
        bench->kinds[kind] += metrics->seconds[kind];
        bench->backward[kind] += metrics->backward_seconds[kind];
    }
}

// A step more in flight, until as many are as the device takes; then the oldest comes back.
static enum status run_step(struct step_bench *bench, uint64_t last, double *seconds,
                            struct method_metrics *metrics, struct error *error)
{
    enum status status = STATUS_OK;
    while (status == STATUS_OK && bench->queued < last &&
           bench->queued - bench->collected <= bench->device->ops->steps_ahead) {
        status = queue_step(bench, error);
    }
    return status == STATUS_OK ? collect_step(bench, seconds, metrics, error) : status;
}

// Steps that are not timed: caches become warm, and what a device records it has recorded.
static uint64_t warm_up_steps(const struct step_bench *bench)
{
    unsigned ahead = bench->device->ops->steps_ahead;
    return ahead == 0 ? 1 : 2 * (1 + (uint64_t)ahead);
}

static enum status run_steps(struct step_bench *bench, struct error *error)
{
    struct method_metrics metrics;
    bool ahead = bench->device->ops->steps_ahead > 0;
    uint64_t first = warm_up_steps(bench), last = first + (uint64_t)bench->steps;
    double spent;
    enum status status = STATUS_OK;
    while (bench->collected < first && status == STATUS_OK) {
        status = run_step(bench, last, &spent, &metrics, error);
    }
    for (int64_t i = 0; i < bench->steps && status == STATUS_OK; i++) {
        allocation_count_begin();
        bench->last_collected = ahead ? bench->last_collected : measure_seconds();
        status = run_step(bench, last, &bench->seconds[i], &metrics, error);
        int64_t calls = allocation_count_end();
        bench->allocations = calls < 0 ? -1 : bench->allocations + calls;
        if (!ahead) {
            add_metrics(bench, &metrics, bench->seconds[i]);
        }
        progress_bar(&bench->progress, "steps", (uint64_t)i + 1, (uint64_t)bench->steps, "steps");
    }
    measure_median(bench->seconds, (size_t)bench->steps); // for its order
    return status;
}

// Where the time goes on a device that works ahead: it waits after each op.
static enum status profile(struct step_bench *bench, struct error *error)
{
    enum status status = STATUS_OK;
    bench->device->timed = true;
    for (int i = 0; i < PROFILED_STEPS && status == STATUS_OK; i++) {
        struct method_metrics metrics;
        double spent;
        bench->last_collected = measure_seconds();
        status = run_step(bench, bench->queued + 1, &spent, &metrics, error);
        if (status == STATUS_OK) {
            add_metrics(bench, &metrics, spent);
        }
    }
    bench->device->timed = false;
    return status;
}

enum status step_bench_run(struct step_bench *bench, struct error *error)
{
    enum status status = device_open(&bench->device, bench->device_name, (int)bench->threads,
                                     (enum device_precision)bench->precision, error);
    if (status == STATUS_OK) {
        status = method_open(&bench->method, "byol", bench->device, &bench->config, error);
    }
    if (status == STATUS_OK) {
        status = make_batch(bench, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (!bench->json) {
        step_bench_print_plan(bench);
    }
    progress_begin(&bench->progress, bench->quiet);
    status = run_steps(bench, error);
    if (status == STATUS_OK && bench->device->ops->steps_ahead > 0) {
        status = profile(bench, error);
    }
    progress_end(&bench->progress);
    return status;
}

void step_bench_close(struct step_bench *bench)
{
    free(bench->images);
    free(bench->labels);
    method_close(&bench->method);
    device_close(&bench->device);
}

static int run(int argc, char **argv)
{
    struct step_bench bench = {.net = "resnet50",
                               .stem = "imagenet",
                               .padding = "same",
                               .shortcut = "first",
                               .precision_name = "auto",
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
    enum status status = step_bench_run(&bench, &error);
    if (status != STATUS_OK) {
        code = command_failed(&command_bench_step, &error, bench.json);
    } else if (bench.json) {
        step_bench_print_json(&bench);
    } else {
        step_bench_print_text(&bench);
    }
    step_bench_close(&bench);
    return code;
}
