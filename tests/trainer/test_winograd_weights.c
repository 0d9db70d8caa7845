// Gradients of 3x3 weights by Winograd's filtering, against sums in double precision: odd sizes,
// blocks of channels, images, the same bits for any number of threads, nothing read or written
// outside of the buffers.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/golden.h"
#if HAVE_DNNL
#include "trainer/device/cpu_winograd.h"
#include "trainer/device/cpu_winograd_weights.h"

#define GUARD      256  // bytes before and after every buffer
#define GUARD_BYTE 0xff // values of such bytes are NaN in both precisions
#define TAPS       9
#define BLOCK      16 // channels

static uint64_t random_state;

static uint32_t random_bits(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

static float random_value(void) // uniform in [-1, 1)
{
    return (float)(random_bits() >> 8) / 8388608.0f - 1.0f;
}

// --- guarded memory, filled with GUARD_BYTE

static void *guarded(size_t bytes)
{
    size_t all = (bytes + 2 * GUARD + 63) / 64 * 64;
    char *memory = aligned_alloc(64, all);
    assert_non_null(memory);
    memset(memory, GUARD_BYTE, all);
    return memory + GUARD;
}

static void check_and_free(void *inner, size_t bytes)
{
    unsigned char *memory = (unsigned char *)inner - GUARD;
    for (size_t i = 0; i < GUARD; i++) {
        assert_int_equal(memory[i], GUARD_BYTE);
        assert_int_equal(memory[GUARD + bytes + i], GUARD_BYTE);
    }
    free(memory);
}

// --- a convolution

struct trial {
    struct op_desc desc;
    float *x, *dy; // [n][h][w][c]
};

static struct op_desc describe(uint32_t n, uint32_t h, uint32_t w, uint32_t in, uint32_t out)
{
    return (struct op_desc){.kind = OP_CONV,
                            .in = {TENSOR_IMAGE, n, h, w, in},
                            .out = {TENSOR_IMAGE, n, h, w, out},
                            .groups = 1,
                            .kernel = 3,
                            .stride = 1,
                            .pad_top = 1,
                            .pad_left = 1,
                            .pad_bottom = 1,
                            .pad_right = 1,
                            .need_backward = true};
}

static float *random_image(struct tensor_shape shape)
{
    size_t count = tensor_count(shape);
    float *values = malloc(count * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++) {
        values[i] = cpu_half_widen(cpu_half_round(random_value())); // exact in both precisions
    }
    return values;
}

static size_t gradient_count(const struct op_desc *desc)
{
    return (size_t)TAPS * desc->in.c * desc->out.c;
}

// Adds the products of one pixel of dy with one of x.
static void add_pixel(double *gradient, const float *x, const float *dy, uint32_t in, uint32_t out)
{
    for (uint32_t i = 0; i < in; i++) {
        for (uint32_t o = 0; o < out; o++) {
            gradient[(size_t)i * out + o] += (double)x[i] * dy[o];
        }
    }
}

static float *wanted_gradient(const struct trial *trial)
{
    const struct tensor_shape *in = &trial->desc.in;
    uint32_t out = trial->desc.out.c;
    size_t count = gradient_count(&trial->desc), pixels = (size_t)in->n * in->h * in->w;
    double *sums = calloc(count, sizeof *sums);
    float *wanted = malloc(count * sizeof *wanted);
    assert_non_null(sums);
    assert_non_null(wanted);
    for (size_t at = 0; at < pixels * TAPS; at++) {
        size_t pixel = at / TAPS, tap = at % TAPS, row = pixel / in->w;
        int64_t y = (int64_t)(row % in->h + tap / 3) - 1,
                x = (int64_t)(pixel % in->w + tap % 3) - 1;
        if (y >= 0 && y < in->h && x >= 0 && x < in->w) {
            size_t from = (row / in->h * in->h + (size_t)y) * in->w + (size_t)x;
            add_pixel(sums + tap * in->c * out, trial->x + from * in->c, trial->dy + pixel * out,
                      in->c, out);
        }
    }
    for (size_t i = 0; i < count; i++) {
        wanted[i] = (float)sums[i];
    }
    free(sums);
    return wanted;
}

static float *computed_gradient(const struct trial *trial, struct device *device)
{
    struct cpu_device *cpu = (struct cpu_device *)device;
    const struct op_desc *desc = &trial->desc;
    size_t x_bytes = device->ops->tensor_bytes(device, desc->in);
    size_t dy_bytes = device->ops->tensor_bytes(device, desc->out);
    size_t scratch_bytes = cpu_winograd_weights_scratch(cpu, desc);
    size_t bytes = gradient_count(desc) * sizeof(float);
    void *x = guarded(x_bytes), *dy = guarded(dy_bytes), *scratch = guarded(scratch_bytes);
    float *gradient = guarded(bytes), *result = malloc(bytes);
    assert_non_null(result);
    assert_int_equal(device->ops->tensor_store(device, desc->in, x, trial->x), STATUS_OK);
    assert_int_equal(device->ops->tensor_store(device, desc->out, dy, trial->dy), STATUS_OK);
    cpu_enter(cpu);
    cpu_winograd_backward_weights(cpu, desc, gradient, x, dy, scratch);
    memcpy(result, gradient, bytes);
    check_and_free(x, x_bytes);
    check_and_free(dy, dy_bytes);
    check_and_free(scratch, scratch_bytes);
    check_and_free(gradient, bytes);
    return result;
}

// --- tests

#define DEVICES 3 // of 1, 2 and 3 threads

static void open_devices(struct device *devices[DEVICES], enum device_precision precision)
{
    struct op_desc desc = describe(1, 8, 8, 16, 16);
    struct error error;
    for (int i = 0; i < DEVICES; i++) {
        if (device_open(&devices[i], "cpu", i + 1, precision, &error) != STATUS_OK) {
            printf("skipped: %s\n", error.reason);
            skip();
        }
        if (!cpu_winograd_weights_fits((struct cpu_device *)devices[i], &desc)) {
            device_close(&devices[i]);
            printf("skipped: this processor has no AVX-512\n");
            skip();
        }
    }
}

static void close_devices(struct device *devices[DEVICES])
{
    for (int i = 0; i < DEVICES; i++) {
        device_close(&devices[i]);
    }
}

static void check_trial(struct device *devices[DEVICES], struct op_desc desc, double bound)
{
    struct trial trial = {desc, random_image(desc.in), random_image(desc.out)};
    float *wanted = wanted_gradient(&trial), *first = computed_gradient(&trial, devices[0]);
    size_t count = gradient_count(&desc);
    double error = relative_l2(first, wanted, count);
    if (!(error < bound)) {
        fail_msg("%u images of %ux%u, %u to %u channels: error %g", desc.in.n, desc.in.h, desc.in.w,
                 desc.in.c, desc.out.c, error);
    }
    for (int i = 1; i < DEVICES; i++) {
        float *other = computed_gradient(&trial, devices[i]);
        assert_memory_equal(other, first, count * sizeof *first);
        free(other);
    }
    free(first);
    free(wanted);
    free(trial.x);
    free(trial.dy);
}

static uint32_t random_channels(void)
{
    return (1 + random_bits() % 5) * BLOCK;
}

static void check_shapes(enum device_precision precision, double bound)
{
    struct device *devices[DEVICES];
    open_devices(devices, precision);
    random_state = 3;
    for (uint32_t i = 0; i < 81; i++) { // every size from 1x1 to 9x9
        uint32_t n = 1 + random_bits() % 5, in = random_channels(), out = random_channels();
        check_trial(devices, describe(n, 1 + i / 9, 1 + i % 9, in, out), bound);
    }
    check_trial(devices, describe(5, 22, 35, 32, 48), bound);
    check_trial(devices, describe(3, 19, 31, 112, 208), bound); // too many sums for groups of them
    check_trial(devices, describe(3, 64, 65, 96, 112), bound);  // too many panels for one round
    check_trial(devices, describe(1, 3, 2, 256, 272), bound);
    close_devices(devices);
}

static void test_half(void **state)
{
    (void)state;
    check_shapes(DEVICE_BF16, 6e-3);
}

static void test_f32(void **state)
{
    (void)state;
    check_shapes(DEVICE_F32, 1e-5);
}

static void test_pays_where_it_is_faster(void **state)
{
    (void)state;
    struct device *devices[DEVICES];
    open_devices(devices, DEVICE_AUTO);
    const struct cpu_device *device = (const struct cpu_device *)devices[0];
    struct op_desc usual = describe(8, 32, 32, 64, 64), few = describe(8, 32, 32, 16, 64);
    struct op_desc dot = describe(128, 1, 1, 64, 64), one = describe(1, 4, 4, 64, 64);
    assert_true(cpu_winograd_weights_pays(device, &usual));
    assert_false(cpu_winograd_weights_pays(device, &few));
    assert_false(cpu_winograd_weights_pays(device, &dot));
    assert_false(cpu_winograd_weights_pays(device, &one));
    close_devices(devices);
}

static void test_refuses_what_it_cannot_compute(void **state)
{
    (void)state;
    struct device *devices[DEVICES];
    open_devices(devices, DEVICE_AUTO);
    const struct cpu_device *device = (const struct cpu_device *)devices[0];
    struct op_desc strided = describe(4, 32, 32, 64, 64), planar = describe(4, 32, 32, 3, 64);
    struct op_desc pointwise = strided, unpadded = strided, broken = describe(4, 32, 32, 64, 72);
    strided.stride = 2;
    pointwise.kernel = 1;
    unpadded.pad_left = 0;
    assert_false(cpu_winograd_weights_fits(device, &strided));
    assert_false(cpu_winograd_weights_fits(device, &planar));
    assert_false(cpu_winograd_weights_fits(device, &pointwise));
    assert_false(cpu_winograd_weights_fits(device, &unpadded));
    assert_false(cpu_winograd_weights_fits(device, &broken));
    close_devices(devices);
}
#else
static void test_half(void **state)
{
    (void)state;
    printf("skipped: built without oneDNN\n");
    skip();
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half),
#if HAVE_DNNL
        cmocka_unit_test(test_f32),
        cmocka_unit_test(test_pays_where_it_is_faster),
        cmocka_unit_test(test_refuses_what_it_cannot_compute),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
