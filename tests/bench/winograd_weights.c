// Times the gradient of the weights of 3x3 convolutions: ours by Winograd's filtering against
// oneDNN's, direct and (float32) by Winograd's, on the same images.
//
//     build/tests/bench/winograd_weights [bf16|f32 [ROUNDS [THREADS [BATCH]]]]
//
// Every round takes each contestant once. One thread is measured by its processor time, which a
// busy machine changes little; several by the clock on the wall. Printed are nominal GFLOP/s (as
// the direct algorithm counts) of the least time of all rounds, and the relative L2 error of some
// of the gradients against sums in double precision of the same, rounded images: x is like the
// output of a ReLU, dy is normal.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "trainer/device/cpu_winograd.h"
#include "trainer/device/cpu_winograd_weights.h"

static const struct shape {
    uint32_t size, channels;
} shapes[] = {{32, 64},  {16, 128}, {8, 256}, {4, 512}, {56, 64},
              {28, 128}, {14, 256}, {7, 512}, {16, 64}, {2, 512}};

// Everything that one shape needs.
struct contest {
    struct cpu_device *device;
    struct op_desc desc;
    void *x, *dy, *scratch;
    float *host_x, *host_dy; // [n][h][w][c], rounded as the images are
    float *gradient;         // HWIO
    struct cpu_primitive library, reorder;
    void *library_gradient;
};

_Noreturn static void die(const char *what)
{
    fprintf(stderr, "winograd_weights: %s\n", what);
    exit(1);
}

static void *allocate(const struct contest *contest, size_t bytes)
{
    void *memory;
    struct error error;
    struct device *device = &contest->device->base;
    if (device->ops->allocate(device, &memory, bytes, &error) != STATUS_OK) {
        die(error.reason);
    }
    return memory;
}

static void release(const struct contest *contest, void *memory)
{
    contest->device->base.ops->release(&contest->device->base, memory);
}

static double now(const struct contest *contest)
{
    struct timespec time;
    clock_gettime(contest->device->threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

// Nearly normal.
static float random_value(void)
{
    static uint64_t state = 1;
    int64_t sum = 0;
    for (int i = 0; i < 4; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        sum += (int32_t)(state >> 32);
    }
    return (float)sum * 0x1p-31f * 0.866f;
}

static float *random_image(const struct contest *contest, bool positive)
{
    size_t count = tensor_count(contest->desc.in);
    float *host = malloc(count * sizeof *host);
    if (host == NULL) {
        die("no memory");
    }
    for (size_t i = 0; i < count; i++) {
        float value = random_value();
        host[i] = positive && value < 0 ? 0 : value;
    }
    return host;
}

// The values on the device, which rounds them.
static void *store_image(const struct contest *contest, float *host)
{
    struct device *device = &contest->device->base;
    void *image = allocate(contest, device->ops->tensor_bytes(device, contest->desc.in));
    device->ops->tensor_store(device, contest->desc.in, image, host);
    device->ops->tensor_fetch(device, contest->desc.in, host, image);
    return image;
}

// --- contestants

// `winograd`: the library's, where it has it, else its direct kernel.
static bool make_library(struct contest *contest, bool winograd)
{
    static const int arguments[] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS};
    struct cpu_device *device = contest->device;
    const struct op_desc *desc = &contest->desc;
    dnnl_primitive_desc_t hint = NULL, described = NULL;
    struct error error;
    bool made =
        cpu_conv_describe(device, &hint, desc, CONV_FORWARD, winograd, NULL, &error) == STATUS_OK &&
        cpu_conv_describe(device, &described, desc, CONV_BACKWARD_WEIGHTS, winograd, hint,
                          &error) == STATUS_OK &&
        cpu_primitive_create(device, &contest->library, described, arguments, 3, &error) ==
            STATUS_OK &&
        cpu_reorder_create(device, &contest->reorder, desc, CONV_BACKWARD_WEIGHTS, described,
                           &error) == STATUS_OK;
    if (made) {
        contest->library_gradient =
            allocate(contest, cpu_argument_bytes(described, DNNL_ARG_DIFF_WEIGHTS));
    }
    cpu_description_release(described);
    cpu_description_release(hint);
    return made;
}

static void run_library(struct contest *contest)
{
    const void *const gradient[] = {contest->x, contest->dy, contest->library_gradient};
    const void *const plain[] = {contest->library_gradient, contest->gradient};
    if (cpu_run(contest->device, &contest->library, gradient, contest->scratch) != STATUS_OK ||
        cpu_run(contest->device, &contest->reorder, plain, contest->scratch) != STATUS_OK) {
        die("oneDNN failed");
    }
}

static void run_ours(struct contest *contest)
{
    cpu_winograd_backward_weights(contest->device, &contest->desc, contest->gradient, contest->x,
                                  contest->dy, contest->scratch);
}

// --- errors

// Of tap (row, column), from channel i to channel o.
static double exact(const struct contest *contest, uint32_t row, uint32_t column, uint32_t i,
                    uint32_t o)
{
    const struct tensor_shape *in = &contest->desc.in;
    double sum = 0;
    for (uint32_t n = 0; n < in->n; n++) {
        for (uint32_t y = row == 0; y < in->h && y + row < in->h + 1; y++) {
            for (uint32_t x = column == 0; x < in->w && x + column < in->w + 1; x++) {
                size_t to = ((size_t)n * in->h + y) * in->w + x;
                size_t from = ((size_t)n * in->h + y + row - 1) * in->w + x + column - 1;
                sum += (double)contest->host_x[from * in->c + i] * contest->host_dy[to * in->c + o];
            }
        }
    }
    return sum;
}

#define SAMPLES 128

static void compute_samples(const struct contest *contest, double samples[SAMPLES])
{
    uint32_t c = contest->desc.in.c;
    for (uint32_t s = 0; s < SAMPLES; s++) {
        uint32_t tap = s % 9;
        samples[s] = exact(contest, tap / 3, tap % 3, s * 37 % c, s * 101 % c);
    }
}

static double error_of(const struct contest *contest, const double samples[SAMPLES])
{
    uint32_t c = contest->desc.in.c;
    double error = 0, all = 0;
    for (uint32_t s = 0; s < SAMPLES; s++) {
        size_t at = ((size_t)(s % 9) * c + s * 37 % c) * c + s * 101 % c;
        double difference = contest->gradient[at] - samples[s];
        error += difference * difference;
        all += samples[s] * samples[s];
    }
    return sqrt(error / all);
}

// --- the contest

static double rate(const struct contest *contest, double seconds)
{
    const struct tensor_shape *in = &contest->desc.in;
    return 2.0 * in->n * in->h * in->w * 9 * in->c * in->c / seconds * 1e-9;
}

// Rounds of oneDNN by one algorithm and of ours; oneDNN's rate is 0 where it has no such kernel.
static void compete(struct contest *contest, bool library_winograd, int rounds, double rates[2])
{
    memset(&contest->library, 0, sizeof contest->library);
    memset(&contest->reorder, 0, sizeof contest->reorder);
    bool library = make_library(contest, library_winograd);
    size_t own = cpu_winograd_weights_scratch(contest->device, &contest->desc);
    size_t theirs = contest->library.scratch_bytes + contest->reorder.scratch_bytes;
    contest->scratch = allocate(contest, own > theirs ? own : theirs);
    double least[2] = {1e9, 1e9};
    for (int round = -1; round < rounds; round++) {
        for (int who = 0; who < 2; who++) {
            if (who == 0 && !library) {
                continue;
            }
            double start = now(contest);
            (who == 0 ? run_library : run_ours)(contest);
            double seconds = now(contest) - start;
            least[who] = round >= 0 && seconds < least[who] ? seconds : least[who];
        }
    }
    rates[0] = library ? rate(contest, least[0]) : 0;
    rates[1] = rate(contest, least[1]);
    cpu_primitive_release(&contest->library);
    cpu_primitive_release(&contest->reorder);
    if (library) {
        release(contest, contest->library_gradient);
    }
    release(contest, contest->scratch);
}

static void measure(struct contest *contest, int rounds)
{
    double samples[SAMPLES], direct[2], winograd[2] = {0, 0};
    contest->host_x = random_image(contest, true);
    contest->host_dy = random_image(contest, false);
    contest->x = store_image(contest, contest->host_x);
    contest->dy = store_image(contest, contest->host_dy);
    compute_samples(contest, samples);
    contest->gradient = allocate(contest, op_fan_in(&contest->desc) * contest->desc.out.c *
                                              sizeof *contest->gradient);
    if (!contest->device->half) {
        compete(contest, true, rounds, winograd);
    }
    compete(contest, false, rounds, direct);
    double ours = direct[1] > winograd[1] ? direct[1] : winograd[1];
    double best = direct[0] > winograd[0] ? direct[0] : winograd[0];
    printf("%4u ch %2ux%-2u  direct %5.0f  winograd %5.0f  ours %5.0f  x%.2f  error %.1e  %s\n",
           contest->desc.in.c, contest->desc.in.h, contest->desc.in.w, direct[0], winograd[0], ours,
           ours / best, error_of(contest, samples),
           cpu_winograd_weights_pays(contest->device, &contest->desc) ? "taken" : "not taken");
    fflush(stdout);
    release(contest, contest->x);
    release(contest, contest->dy);
    release(contest, contest->gradient);
    free(contest->host_x);
    free(contest->host_dy);
}

int main(int argc, char **argv)
{
    bool half = argc < 2 || strcmp(argv[1], "f32") != 0;
    int rounds = argc > 2 ? atoi(argv[2]) : 5, threads = argc > 3 ? atoi(argv[3]) : 0;
    uint32_t batch = argc > 4 ? (uint32_t)atoi(argv[4]) : 128;
    struct device *device;
    struct error error;
    if (device_open(&device, "cpu", threads, half ? DEVICE_BF16 : DEVICE_F32, &error)) {
        die(error.reason);
    }
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct tensor_shape shape = {TENSOR_IMAGE, batch, shapes[i].size, shapes[i].size,
                                     shapes[i].channels};
        struct contest contest = {
            .device = (struct cpu_device *)device,
            .desc = {.kind = OP_CONV,
                     .in = shape,
                     .out = shape,
                     .groups = 1,
                     .kernel = 3,
                     .stride = 1,
                     .pad_top = 1,
                     .pad_left = 1,
                     .pad_bottom = 1,
                     .pad_right = 1},
        };
        cpu_enter(contest.device);
        measure(&contest, rounds);
    }
    device_close(&device);
    return 0;
}
