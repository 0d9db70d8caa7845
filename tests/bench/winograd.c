// Our Winograd convolutions against oneDNN's convolutions, forward and backward data.
//
//     build/tests/bench/winograd [bf16|f32 [THREADS [SHAPE]]]
//
// SHAPE is a part of a shape's name. Every round takes each contestant once, so that a busy machine
// hits them alike; printed is the best round of each, in GFLOP/s of the direct convolution
// (2 n h w in out 9). `ours` includes the transform of the weights, as the library's figures
// include reordering them; `kernel` is without. After the ratio to the library's best: + where ours
// is chosen (cpu_winograd_pays). With one thread it is the processor's time, which a
// busy machine changes little. The last columns are relative L2 errors against the
// library's direct float32 convolution of the same values, which are all bfloat16 numbers in bf16.
#include <stdio.h>

#if HAVE_DNNL
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "trainer/device/cpu_winograd.h"

#define ROUNDS_MOST  60
#define ROUNDS_LEAST 3
#define WINDOW       0.25 // seconds of rounds of each shape and pass

static const uint32_t shapes[][4] = {
    // n, in and out channels, side
    {128, 64, 64, 32}, {128, 128, 128, 16}, {128, 256, 256, 8},  {128, 512, 512, 4},
    {128, 64, 64, 16}, {128, 128, 128, 8},  {128, 256, 256, 4},  {128, 512, 512, 2},
    {128, 64, 64, 56}, {128, 128, 128, 28}, {128, 256, 256, 14}, {128, 512, 512, 7},
    {128, 16, 16, 32}, {128, 32, 32, 32},   {128, 48, 80, 16},   {128, 64, 64, 3},
    {128, 64, 64, 5},  {16, 64, 64, 32},    {16, 128, 128, 16},  {16, 256, 256, 8},
    {16, 512, 512, 4}, {16, 64, 64, 56},    {16, 128, 128, 28},  {16, 256, 256, 14},
    {16, 512, 512, 7},
};

static void die(const char *what)
{
    fprintf(stderr, "winograd: %s\n", what);
    exit(1);
}

static void *zeros(size_t bytes)
{
    void *memory = aligned_alloc(64, cpu_aligned(bytes + 1));
    if (memory == NULL) {
        die("no memory");
    }
    return memset(memory, 0, cpu_aligned(bytes + 1));
}

static clockid_t watch = CLOCK_MONOTONIC;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(watch, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static struct cpu_device *open_device(enum device_precision precision, int threads)
{
    struct device *device;
    struct error error;
    if (device_open(&device, "cpu", threads, precision, &error) != STATUS_OK) {
        die(error.reason);
    }
    cpu_enter((struct cpu_device *)device);
    return (struct cpu_device *)device;
}

// --- the library

struct library {
    struct cpu_primitive convolution, reorder;
    void *weights, *scratch;
};

// `winograd`: the library's, where it has it, else its direct kernel.
static void library_make(struct library *library, struct cpu_device *device,
                         const struct op_desc *desc, bool forward, bool winograd)
{
    static const int forward_arguments[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    static const int backward_arguments[] = {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS,
                                             DNNL_ARG_DIFF_SRC};
    const int *arguments = forward ? forward_arguments : backward_arguments;
    enum cpu_conv_pass pass = forward ? CONV_FORWARD : CONV_BACKWARD_DATA;
    dnnl_primitive_desc_t hint = NULL, described = NULL;
    struct error error;
    *library = (struct library){0};
    if (cpu_conv_describe(device, &hint, desc, CONV_FORWARD, winograd, NULL, &error) != STATUS_OK ||
        cpu_conv_describe(device, &described, desc, pass, winograd, hint, &error) != STATUS_OK ||
        cpu_primitive_create(device, &library->convolution, described, arguments, 3, &error) !=
            STATUS_OK ||
        cpu_reorder_create(device, &library->reorder, desc, pass, described, &error) != STATUS_OK) {
        die(error.reason);
    }
    library->weights = zeros(cpu_argument_bytes(described, DNNL_ARG_WEIGHTS));
    library->scratch = zeros(library->convolution.scratch_bytes + library->reorder.scratch_bytes);
    cpu_description_release(described);
    cpu_description_release(hint);
}

static void library_run(struct cpu_device *device, struct library *library, void *y, const void *x,
                        const float *weights)
{
    const void *reorder[] = {weights, library->weights};
    const void *convolution[] = {x, library->weights, y};
    if (cpu_run(device, &library->reorder, reorder, library->scratch) != STATUS_OK ||
        cpu_run(device, &library->convolution, convolution, library->scratch) != STATUS_OK) {
        die("the library failed");
    }
}

static void library_free(struct library *library)
{
    cpu_primitive_release(&library->convolution);
    cpu_primitive_release(&library->reorder);
    free(library->weights);
    free(library->scratch);
}

// --- values

static float random_value(void) // of variance 1, about normal
{
    static uint64_t state = 88172645463325252u;
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(state >> 40) / 16777216.0f - 0.5f;
    }
    return cpu_half_widen(cpu_half_round(sum * 1.7320508f));
}

static float *random_values(size_t count, float scale)
{
    float *values = zeros(count * sizeof *values);
    for (size_t i = 0; i < count; i++) {
        values[i] = cpu_half_widen(cpu_half_round(random_value() * scale));
    }
    return values;
}

static void *stored(bool half, const float *values, size_t count)
{
    uint16_t *halves = zeros(count * cpu_value_bytes(half));
    for (size_t i = 0; half && i < count; i++) {
        halves[i] = cpu_half_round(values[i]);
    }
    return half ? halves : memcpy(halves, values, count * sizeof *values);
}

static double error_of(bool half, const void *result, const float *right, size_t count)
{
    double square = 0, all = 0;
    for (size_t i = 0; i < count; i++) {
        double value =
            half ? cpu_half_widen(((const uint16_t *)result)[i]) : ((const float *)result)[i];
        square += (value - right[i]) * (value - right[i]);
        all += (double)right[i] * right[i];
    }
    return sqrt(square / all);
}

// --- one shape and pass

enum contestant { DIRECT, WINOGRAD, OURS, KERNEL, CONTESTANTS };

struct contest {
    struct cpu_device *device, *exact; // exact: float32
    struct op_desc desc;
    bool forward;
    size_t in_values, out_values; // of what the pass reads and writes
    float *values, *weights, *right;
    void *x, *y, *own_weights, *scratch;
    struct library direct, winograd;
    bool runs[CONTESTANTS];
    double best[CONTESTANTS], errors[CONTESTANTS];
};

static void run_ours(struct contest *contest, bool whole)
{
    enum cpu_winograd_pass pass = contest->forward ? WINOGRAD_FORWARD : WINOGRAD_BACKWARD_DATA;
    if (whole) {
        cpu_winograd_weights(contest->device, &contest->desc, pass, contest->own_weights,
                             contest->weights);
    }
    (contest->forward ? cpu_winograd_forward : cpu_winograd_backward_data)(
        contest->device, &contest->desc, contest->y, contest->x, contest->own_weights,
        contest->scratch);
}

static void run_one(struct contest *contest, enum contestant who)
{
    switch (who) {
    case DIRECT:
        library_run(contest->device, &contest->direct, contest->y, contest->x, contest->weights);
        return;
    case WINOGRAD:
        library_run(contest->device, &contest->winograd, contest->y, contest->x, contest->weights);
        return;
    case OURS:
    case KERNEL:
    case CONTESTANTS:
        run_ours(contest, who == OURS);
    }
}

static void contest_prepare(struct contest *contest)
{
    struct op_desc *desc = &contest->desc;
    bool half = contest->device->half, forward = contest->forward;
    enum cpu_winograd_pass pass = forward ? WINOGRAD_FORWARD : WINOGRAD_BACKWARD_DATA;
    contest->in_values = cpu_layout_of(forward ? desc->in : desc->out).values;
    contest->out_values = cpu_layout_of(forward ? desc->out : desc->in).values;
    contest->values = random_values(contest->in_values, 1.0f);
    contest->weights = random_values((size_t)9 * desc->in.c * desc->out.c,
                                     sqrtf(2.0f / (9.0f * (float)desc->in.c)));
    contest->right = zeros(contest->out_values * sizeof(float));
    contest->x = stored(half, contest->values, contest->in_values);
    contest->y = zeros(contest->out_values * cpu_value_bytes(half));
    struct library exact;
    library_make(&exact, contest->exact, desc, forward, false);
    library_run(contest->exact, &exact, contest->right, contest->values, contest->weights);
    library_free(&exact);
    contest->runs[DIRECT] = true;
    library_make(&contest->direct, contest->device, desc, forward, false);
    contest->runs[WINOGRAD] = !half;
    if (!half) {
        library_make(&contest->winograd, contest->device, desc, forward, true);
    }
    contest->runs[OURS] = contest->runs[KERNEL] = cpu_winograd_fits(contest->device, desc, pass);
    if (contest->runs[OURS]) {
        contest->own_weights = zeros(cpu_winograd_weights_bytes(contest->device, desc));
        contest->scratch = zeros(cpu_winograd_scratch_bytes(contest->device, desc, pass));
    }
}

static void contest_run(struct contest *contest)
{
    double start = seconds();
    for (int round = 0; round < ROUNDS_MOST; round++) {
        for (enum contestant who = 0; who < CONTESTANTS; who++) {
            if (!contest->runs[who]) {
                continue;
            }
            double before = seconds();
            run_one(contest, who);
            double time = seconds() - before;
            contest->best[who] =
                round == 0 || time < contest->best[who] ? time : contest->best[who];
            if (round == 0) {
                contest->errors[who] = error_of(contest->device->half, contest->y, contest->right,
                                                contest->out_values);
            }
        }
        if (round + 1 >= ROUNDS_LEAST && seconds() - start > WINDOW) {
            return;
        }
    }
}

static void contest_free(struct contest *contest)
{
    library_free(&contest->direct);
    library_free(&contest->winograd);
    free(contest->values);
    free(contest->weights);
    free(contest->right);
    free(contest->x);
    free(contest->y);
    free(contest->own_weights);
    free(contest->scratch);
}

// --- the table

static void print_figures(const struct contest *contest, const char *name)
{
    const struct tensor_shape *out = &contest->desc.out;
    double work = 18.0 * out->n * out->h * out->w * out->c * contest->desc.in.c;
    printf("%-20s %-8s", name, contest->forward ? "forward" : "data");
    for (enum contestant who = 0; who < CONTESTANTS; who++) {
        if (contest->runs[who]) {
            printf(" %8.0f", work / contest->best[who] * 1e-9);
        } else {
            printf(" %8s", "-");
        }
    }
    double library = contest->best[DIRECT];
    if (contest->runs[WINOGRAD] && contest->best[WINOGRAD] < library) {
        library = contest->best[WINOGRAD];
    }
    bool pays = cpu_winograd_pays(contest->device, &contest->desc,
                                  contest->forward ? WINOGRAD_FORWARD : WINOGRAD_BACKWARD_DATA);
    printf(" %6.2f%c", contest->runs[OURS] ? library / contest->best[OURS] : 0.0, pays ? '+' : '-');
    for (enum contestant who = DIRECT; who <= OURS; who++) {
        printf(" %8.1e", contest->errors[who]);
    }
    printf("\n");
    fflush(stdout);
}

static void contest_hold(struct cpu_device *device, struct cpu_device *exact,
                         const uint32_t shape[4], const char *name, bool forward)
{
    struct contest contest = {
        .device = device,
        .exact = exact,
        .forward = forward,
        .desc = {.kind = OP_CONV,
                 .in = {TENSOR_IMAGE, shape[0], shape[3], shape[3], shape[1]},
                 .out = {TENSOR_IMAGE, shape[0], shape[3], shape[3], shape[2]},
                 .kernel = 3,
                 .stride = 1,
                 .pad_top = 1,
                 .pad_left = 1,
                 .pad_bottom = 1,
                 .pad_right = 1},
    };
    contest_prepare(&contest);
    contest_run(&contest);
    print_figures(&contest, name);
    contest_free(&contest);
}

int main(int argc, char **argv)
{
    bool half = argc < 2 || strcmp(argv[1], "f32") != 0;
    int threads = argc > 2 ? atoi(argv[2]) : 2;
    watch = threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
    struct cpu_device *device = open_device(half ? DEVICE_BF16 : DEVICE_F32, threads);
    struct cpu_device *exact = open_device(DEVICE_F32, threads);
    printf("%-20s %-8s %8s %8s %8s %8s %7s %8s %8s %8s\n", "shape", "pass", "direct", "winograd",
           "ours", "kernel", "faster", "direct", "winograd", "ours");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const uint32_t *shape = shapes[i];
        char name[64];
        snprintf(name, sizeof name, "n%u %u-%u %ux%u", shape[0], shape[1], shape[2], shape[3],
                 shape[3]);
        for (int backward = 0; backward < 2 && (argc < 4 || strstr(name, argv[3])); backward++) {
            contest_hold(device, exact, shape, name, backward == 0);
        }
    }
    device_close((struct device **)&exact);
    device_close((struct device **)&device);
    return 0;
}
#else
int main(void)
{
    puts("winograd: built without oneDNN");
    return 0;
}
#endif
