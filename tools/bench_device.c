// `byol bench device`: what the hardware gives (copies, matrix products) and how near to it the
// device's own loops come, so that the figures of `bench step` can be read as shares of a ceiling.
#include "tools/bench.h"
#include "tools/command.h"
#include "tools/measure.h"
#include "trainer/device/device.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run_bench(int argc, char **argv);

const struct command command_bench_device = {
    .name = "bench device",
    .summary = "copies, products, layers",
    .help =
        "Usage: byol bench device [options]\n"
        "\n"
        "Measures a device: copies in its memory and to it, matrix products, convolutions as\n"
        "large as those of a ResNet-50, and the loops that only move memory, which are told as\n"
        "a share of the copy. On random numbers. Medians.\n"
        "\n"
        "Options:\n"
        "  --device NAME     cpu, cuda, ref (cpu)\n"
        "  --precision auto|f32|bf16\n"
        "                    of images and convolutions (auto)\n"
        "  --threads N       (0: one per core)\n"
        "  --mib N           size of an image tensor (64)\n"
        "  --rounds N        of which the median counts (5)\n"
        "  --json            print the result as JSON\n"
        "\n"
        "Example:\n"
        "  byol bench device --device cuda --mib 512\n"
        "\n"
        "Exit codes: 0 success, 1 failure, 2 wrong usage.\n",
    .run = run_bench,
};

#define MAX_ROUNDS 100
#define REPEATS    4 // queued between two looks at the clock
#define SIDE       56
#define CHANNELS   256
#define PARAMETERS (32u << 20)
#define PRODUCT    2048u
#define TENSORS    6

struct device_bench {
    const char *device_name, *precision_name;
    int64_t threads, mib, rounds;
    bool json;
    struct device *device;
    void *tensor[TENSORS]; // x, x2, y, dy, dx, dx2: each tensor_bytes
    size_t tensor_bytes;
    float *params[5]; // of PARAMETERS: weights, gradients, momentum, target; then two rates
    void *scratch, *saved;
    double copy_rate;
    json_t *rows;
};

// What a row measures: one piece of work, queued.
typedef enum status (*work)(struct device_bench *bench, const void *what);

// --- measuring -----------------------------------------------------------------------------------

static enum status time_once(struct device_bench *bench, work run, const void *what,
                             double *seconds)
{
    struct device *device = bench->device;
    enum status status = device->ops->synchronise(device);
    double start = measure_seconds();
    for (int i = 0; i < REPEATS && status == STATUS_OK; i++) {
        status = run(bench, what);
    }
    if (status == STATUS_OK) {
        status = device->ops->synchronise(device);
    }
    *seconds = (measure_seconds() - start) / REPEATS;
    return status;
}

static enum status time_work(struct device_bench *bench, work run, const void *what,
                             double *seconds)
{
    double times[MAX_ROUNDS];
    enum status status = time_once(bench, run, what, &times[0]); // warms up
    for (int64_t i = 0; i < bench->rounds && status == STATUS_OK; i++) {
        status = time_once(bench, run, what, &times[i]);
    }
    *seconds = measure_median(times, (size_t)bench->rounds);
    return status;
}

// `bytes` or `products` (multiplications with their additions) are 0 where they say nothing.
static enum status measure(struct device_bench *bench, const char *name, double bytes,
                           double products, work run, const void *what)
{
    double seconds;
    enum status status = time_work(bench, run, what, &seconds);
    if (status != STATUS_OK) {
        return status;
    }
    json_t *row = json_pack("{s:s, s:f}", "name", name, "seconds", seconds);
    if (bytes > 0) {
        double rate = bytes / seconds;
        bench->copy_rate = strcmp(name, "copy") == 0 ? rate : bench->copy_rate;
        json_object_set_new(row, "gigabytes_per_second", json_real(rate * 1e-9));
        json_object_set_new(row, "share_of_copy", json_real(rate / bench->copy_rate));
    }
    if (products > 0) {
        json_object_set_new(row, "gigaflops", json_real(2e-9 * products / seconds));
    }
    json_array_append_new(bench->rows, row);
    if (!bench->json) {
        printf("%-36s %9.3f ms", name, 1e3 * seconds);
        if (bytes > 0) {
            printf("  %8.1f GB/s  %5.1f %% of a copy", 1e-9 * bytes / seconds,
                   100 * bytes / seconds / bench->copy_rate);
        }
        printf(products > 0 ? "  %8.1f GFLOP/s\n" : "\n", 2e-9 * products / seconds);
        fflush(stdout);
    }
    return STATUS_OK;
}

// --- copies and products -------------------------------------------------------------------------

static enum status run_copy(struct device_bench *bench, const void *what)
{
    (void)what;
    return bench->device->ops->copy(bench->device, bench->tensor[2], bench->tensor[0],
                                    bench->tensor_bytes);
}

struct host_room {
    void *host;
    struct device_upload *upload;
};

static enum status run_upload(struct device_bench *bench, const void *what)
{
    const struct host_room *room = what;
    const struct device_ops *ops = bench->device->ops;
    const void *memory;
    enum status status =
        ops->upload_send(bench->device, room->upload, 0, room->host, bench->tensor_bytes);
    if (status == STATUS_OK) {
        status = ops->upload_take(bench->device, room->upload, &memory);
    }
    return status == STATUS_OK ? ops->upload_done(bench->device, room->upload) : status;
}

// From memory that the device can read by itself; devices on the host have no way to go.
static enum status measure_upload(struct device_bench *bench, struct error *error)
{
    const struct device_ops *ops = bench->device->ops;
    struct host_room room = {0};
    if (ops->upload_open == NULL) {
        return STATUS_OK;
    }
    enum status status = ops->host_allocate(bench->device, &room.host, bench->tensor_bytes, error);
    if (status == STATUS_OK) {
        memset(room.host, 1, bench->tensor_bytes);
        status = ops->upload_open(bench->device, &room.upload, bench->tensor_bytes, error);
    }
    if (status == STATUS_OK) {
        status = measure(bench, "upload", (double)bench->tensor_bytes, 0, run_upload, &room);
    }
    if (room.upload != NULL) {
        ops->upload_close(bench->device, room.upload);
    }
    if (room.host != NULL) {
        ops->host_release(bench->device, room.host);
    }
    return status;
}

static enum status run_product(struct device_bench *bench, const void *what)
{
    (void)what;
    return bench->device->ops->matrix_product(bench->device, false, false, PRODUCT, PRODUCT,
                                              PRODUCT, bench->params[0], bench->params[1],
                                              bench->params[2], false);
}

// --- ops -----------------------------------------------------------------------------------------

struct op_run {
    struct op *op;
    struct op_buffers buffers;
};

static enum status run_forward(struct device_bench *bench, const void *what)
{
    const struct op_run *run = what;
    return bench->device->ops->op_forward(bench->device, run->op, &run->buffers, OP_TRAIN);
}

static enum status run_backward(struct device_bench *bench, const void *what)
{
    const struct op_run *run = what;
    return bench->device->ops->op_backward(bench->device, run->op, &run->buffers);
}

// `passes`: how often a forward and a backward pass read or write a whole tensor; 0: it multiplies.
struct op_row {
    const char *name;
    enum op_kind kind;
    uint32_t channels,
        kernel; // of the images; SIDE x SIDE at CHANNELS, smaller where they are more
    bool relu, join;
    double forward, backward;
};

static const struct op_row op_rows[] = {
    {"batch norm, ReLU", OP_BATCH_NORM, 256, 0, true, false, 3, 5},
    {"batch norm, sum, ReLU", OP_BATCH_NORM, 256, 0, true, true, 4, 7},
    {"batch norm of 64 channels, ReLU", OP_BATCH_NORM, 64, 0, true, false, 3, 5},
    {"group norm, ReLU", OP_GROUP_NORM, 256, 0, true, false, 3, 5},
    {"convolution 1x1, 1024 channels", OP_CONV, 1024, 1, false, false, 0, 0},
    {"convolution 3x3, 256 channels", OP_CONV, 256, 3, false, false, 0, 0},
    {"convolution 3x3, 64 channels", OP_CONV, 64, 3, false, false, 0, 0},
};

static struct op_desc describe_row(const struct device_bench *bench, const struct op_row *row)
{
    uint32_t side = row->channels > CHANNELS ? SIDE / 4 : SIDE;
    size_t element = bench->device->precision == DEVICE_BF16 ? 2 : 4;
    size_t image = (size_t)side * side * row->channels * element;
    uint32_t images = (uint32_t)(bench->tensor_bytes / image) & ~1u;
    struct tensor_shape shape = {TENSOR_IMAGE, images < 2 ? 2 : images, side, side, row->channels};
    uint32_t pad = row->kernel / 2;
    return (struct op_desc){.kind = row->kind,
                            .in = shape,
                            .out = shape,
                            .groups = 2,
                            .kernel = row->kernel,
                            .stride = row->kernel > 0,
                            .pad_top = pad,
                            .pad_left = pad,
                            .pad_bottom = pad,
                            .pad_right = pad,
                            .channel_groups = row->kind == OP_GROUP_NORM ? 16 : 0,
                            .relu = row->relu,
                            .join = row->join,
                            .need_backward = true,
                            .need_input_gradient = true};
}

static enum status open_op(struct device_bench *bench, const struct op_desc *desc,
                           struct op_run *run, struct error *error)
{
    const struct device_ops *ops = bench->device->ops;
    *run = (struct op_run){.buffers = {.x = bench->tensor[0],
                                       .x2 = desc->join ? bench->tensor[1] : NULL,
                                       .y = bench->tensor[2],
                                       .params = bench->params[0],
                                       .param_grads = bench->params[1],
                                       .state = bench->params[2],
                                       .dy = bench->tensor[3],
                                       .dx = bench->tensor[4],
                                       .dx2 = desc->join ? bench->tensor[5] : NULL}};
    enum status status = ops->op_create(bench->device, desc, &run->op, error);
    if (status == STATUS_OK) {
        status = ops->allocate(bench->device, &run->buffers.saved, ops->op_saved_bytes(run->op) + 1,
                               error);
    }
    if (status == STATUS_OK) {
        status = ops->allocate(bench->device, &run->buffers.scratch,
                               ops->op_scratch_bytes(run->op) + 1, error);
    }
    return status;
}

static void close_op(struct device_bench *bench, struct op_run *run)
{
    const struct device_ops *ops = bench->device->ops;
    ops->op_release(bench->device, run->op);
    if (run->buffers.saved != NULL) {
        ops->release(bench->device, run->buffers.saved);
    }
    if (run->buffers.scratch != NULL) {
        ops->release(bench->device, run->buffers.scratch);
    }
}

static enum status measure_op(struct device_bench *bench, const struct op_row *row,
                              struct error *error)
{
    struct op_desc desc = describe_row(bench, row);
    double values = (double)desc.in.n * desc.in.h * desc.in.w * desc.in.c;
    double bytes = values * (bench->device->precision == DEVICE_BF16 ? 2 : 4);
    double products = row->kind == OP_CONV ? values * row->channels * row->kernel * row->kernel : 0;
    struct op_run run;
    char name[64];
    enum status status = open_op(bench, &desc, &run, error);
    if (status == STATUS_OK) {
        status = measure(bench, row->name, row->forward * bytes, products, run_forward, &run);
    }
    if (status == STATUS_OK) {
        snprintf(name, sizeof name, "  backward");
        status = measure(bench, name, row->backward * bytes, 2 * products, run_backward, &run);
    }
    close_op(bench, &run);
    return status;
}

// --- the optimiser -------------------------------------------------------------------------------

static enum status run_lars(struct device_bench *bench, const void *what)
{
    const struct param_span *span = what;
    const struct lars_settings settings = {
        .learning_rate = bench->params[4], .weight_decay = 1e-6f, .momentum = 0.9f, .trust = 1e-3f};
    const struct moving_target target = {bench->params[3], bench->params[4] + 1};
    return bench->device->ops->lars_step(bench->device, span, 1, &settings, bench->params[0],
                                         bench->params[1], bench->params[2], &target);
}

// Reads weights and gradients for their norms; then weights, gradients, momentum and target, and
// writes all but the gradients.
static enum status measure_lars(struct device_bench *bench)
{
    const struct param_span span = {0, PARAMETERS, true, 1};
    return measure(bench, "LARS with moving average", 9.0 * PARAMETERS * sizeof(float), 0, run_lars,
                   &span);
}

// --- set-up --------------------------------------------------------------------------------------

// Random bits of small floats or bfloat16s: products of zeros are faster than they should be.
static enum status fill(struct device_bench *bench, void *memory, size_t bytes)
{
    size_t piece = 1 << 20;
    float *host = malloc(piece);
    uint64_t state = 1;
    if (host == NULL) {
        return STATUS_NO_MEMORY;
    }
    for (size_t i = 0; i < piece / sizeof *host; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint32_t bits = (uint32_t)(state >> 32);
        // Both halves read as bfloat16 lie between 0.25 and 1, with either sign.
        bits = (bits & 0x80ff80ffu) | 0x3e803e80u;
        memcpy(&host[i], &bits, sizeof bits);
    }
    enum status status = STATUS_OK;
    for (size_t at = 0; at < bytes && status == STATUS_OK; at += piece) {
        size_t count = bytes - at < piece ? bytes - at : piece;
        status = bench->device->ops->copy_in(bench->device, (char *)memory + at, host, count);
    }
    free(host);
    return status;
}

static enum status prepare(struct device_bench *bench, struct error *error)
{
    const struct device_ops *ops = bench->device->ops;
    const float rates[] = {1e-3f, 1e-2f};
    enum status status = STATUS_OK;
    bench->tensor_bytes = (size_t)bench->mib << 20;
    for (size_t i = 0; i < TENSORS && status == STATUS_OK; i++) {
        // A tensor of two images may be larger than asked for.
        size_t room = bench->tensor_bytes + ((size_t)16 << 20);
        status = ops->allocate(bench->device, &bench->tensor[i], room, error);
        status = status == STATUS_OK ? fill(bench, bench->tensor[i], room) : status;
    }
    for (size_t i = 0; i < 5 && status == STATUS_OK; i++) {
        size_t bytes = (i < 4 ? PARAMETERS : 2) * sizeof(float);
        void *block = NULL;
        status = ops->allocate(bench->device, &block, bytes, error);
        bench->params[i] = block;
        if (status == STATUS_OK && i < 4) {
            status = fill(bench, block, bytes);
        }
    }
    return status == STATUS_OK ? ops->copy_in(bench->device, bench->params[4], rates, sizeof rates)
                               : status;
}

static void close(struct device_bench *bench)
{
    for (size_t i = 0; bench->device != NULL && i < TENSORS; i++) {
        if (bench->tensor[i] != NULL) {
            bench->device->ops->release(bench->device, bench->tensor[i]);
        }
    }
    for (size_t i = 0; bench->device != NULL && i < 5; i++) {
        if (bench->params[i] != NULL) {
            bench->device->ops->release(bench->device, bench->params[i]);
        }
    }
    device_close(&bench->device);
    json_decref(bench->rows);
}

static enum status run_all(struct device_bench *bench, struct error *error)
{
    double tensor = (double)bench->tensor_bytes;
    enum status status = measure(bench, "copy", 2 * tensor, 0, run_copy, NULL);
    if (status == STATUS_OK) {
        status = measure_upload(bench, error);
    }
    if (status == STATUS_OK) {
        status = measure(bench, "matrix product", 0, (double)PRODUCT * PRODUCT * PRODUCT,
                         run_product, NULL);
    }
    for (size_t i = 0; i < sizeof op_rows / sizeof op_rows[0] && status == STATUS_OK; i++) {
        status = measure_op(bench, &op_rows[i], error);
    }
    return status == STATUS_OK ? measure_lars(bench) : status;
}

static enum status bench_all(struct device_bench *bench, int precision, struct error *error)
{
    char words[128];
    enum status status = device_open(&bench->device, bench->device_name, (int)bench->threads,
                                     (enum device_precision)precision, error);
    if (status != STATUS_OK) {
        return status;
    }
    bench->device->ops->describe(bench->device, words, sizeof words);
    if (!bench->json) {
        printf("%s\n", words);
    }
    *error = (struct error){0};
    status = prepare(bench, error);
    if (status == STATUS_OK) {
        status = run_all(bench, error);
    }
    if (status != STATUS_OK && error->reason[0] == '\0') {
        return error_set(error, status, NULL, NOWHERE, NOWHERE, "device '%s' failed",
                         bench->device_name);
    }
    if (status == STATUS_OK && bench->json) {
        json_t *result = json_pack("{s:s, s:i, s:O}", "device", words, "mib", (int)bench->mib,
                                   "rows", bench->rows);
        json_dumpf(result, stdout, JSON_INDENT(2));
        printf("\n");
        json_decref(result);
    }
    return status;
}

static int run_bench(int argc, char **argv)
{
    struct device_bench bench = {
        .device_name = "cpu", .precision_name = "auto", .mib = 64, .rounds = 5};
    const struct option options[] = {
        {"device", 0, OPTION_STRING, &bench.device_name, 0, 0},
        {"precision", 0, OPTION_STRING, &bench.precision_name, 0, 0},
        {"threads", 't', OPTION_INT, &bench.threads, 0, 1024},
        {"mib", 0, OPTION_INT, &bench.mib, 1, 4096},
        {"rounds", 0, OPTION_INT, &bench.rounds, 1, MAX_ROUNDS},
        {"json", 0, OPTION_FLAG, &bench.json, 0, 0},
    };
    struct option_list operands;
    struct error error;
    bool done;
    int code = command_options(&command_bench_device, argc, argv, options,
                               sizeof options / sizeof options[0], &operands, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    int precision = command_choice(&command_bench_device, "precision", bench.precision_name,
                                   DEVICE_PRECISION_CHOICES);
    if (precision < 0 || operands.count != 0) {
        return precision < 0 ? EXIT_USAGE
                             : command_misused(&command_bench_device, "'%s' is not an option",
                                               operands.item[0]);
    }
    bench.rows = json_array();
    enum status status = bench_all(&bench, precision, &error);
    code =
        status == STATUS_OK ? EXIT_OK : command_failed(&command_bench_device, &error, bench.json);
    close(&bench);
    return code;
}
