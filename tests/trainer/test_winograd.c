// Our Winograd convolutions against a plain one in double precision: odd sizes, all numbers of
// vectors, the same bits for any number of threads, nothing touched that is not theirs.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#if HAVE_DNNL
#include "trainer/device/cpu_winograd.h"

#define GUARD 128
#define MOST  3 // threads

// Relative L2 errors; what the header promises.
#define HALF_BOUND  1e-2
#define FLOAT_BOUND 3e-6

static uint64_t random_state = 1;

static uint32_t random_below(uint32_t count)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % count;
}

static float random_value(void) // uniform in [-1, 1), a bfloat16 number
{
    return cpu_half_widen(cpu_half_round((float)random_below(1 << 24) / 8388608.0f - 1.0f));
}

static float *random_values(size_t count)
{
    float *values = malloc(count * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++) {
        values[i] = random_value();
    }
    return values;
}

// --- memory with guards: all bytes 0xff, which is NaN in both precisions

static char *guarded(size_t bytes)
{
    char *memory = aligned_alloc(64, cpu_aligned(bytes) + 2 * GUARD);
    assert_non_null(memory);
    return (char *)memset(memory, 0xff, cpu_aligned(bytes) + 2 * GUARD) + GUARD;
}

static void guarded_free(char *memory, size_t bytes)
{
    for (size_t i = 0; i < GUARD; i++) {
        assert_int_equal((uint8_t)memory[(ptrdiff_t)i - GUARD], 0xff);
        assert_int_equal((uint8_t)memory[bytes + i], 0xff);
    }
    free(memory - GUARD);
}

// --- the plain convolution

static double plain_value(const struct op_desc *desc, const float *x, const float *weights,
                          uint32_t n, int64_t h, int64_t w, uint32_t out)
{
    double sum = 0;
    for (int64_t tap = 0; tap < 9; tap++) {
        int64_t row = h + tap / 3 - 1, column = w + tap % 3 - 1;
        if (row < 0 || row >= desc->in.h || column < 0 || column >= desc->in.w) {
            continue;
        }
        const float *pixel =
            x + ((n * desc->in.h + (size_t)row) * desc->in.w + (size_t)column) * desc->in.c;
        for (size_t in = 0; in < desc->in.c; in++) {
            sum += (double)pixel[in] * weights[((size_t)tap * desc->in.c + in) * desc->out.c + out];
        }
    }
    return sum;
}

// Backward data is the forward pass of this convolution.
static float *turned_weights(const struct op_desc *desc, const float *weights)
{
    float *turned = malloc(9 * (size_t)desc->in.c * desc->out.c * sizeof *turned);
    assert_non_null(turned);
    for (size_t tap = 0; tap < 9; tap++) {
        for (size_t in = 0; in < desc->in.c; in++) {
            for (size_t out = 0; out < desc->out.c; out++) {
                turned[((8 - tap) * desc->out.c + out) * desc->in.c + in] =
                    weights[(tap * desc->in.c + in) * desc->out.c + out];
            }
        }
    }
    return turned;
}

static double plain_error(const struct op_desc *desc, const float *x, const float *weights,
                          const float *y)
{
    double square = 0, all = 0;
    for (uint32_t n = 0; n < desc->out.n; n++) {
        for (uint32_t at = 0; at < desc->out.h * desc->out.w; at++) {
            for (uint32_t c = 0; c < desc->out.c; c++) {
                double right =
                    plain_value(desc, x, weights, n, at / desc->out.w, at % desc->out.w, c);
                double miss = *y++ - right;
                square += miss * miss;
                all += right * right;
            }
        }
    }
    return sqrt(square / all);
}

// --- ours

struct fixture {
    struct cpu_device *devices[MOST]; // with 1, 2 and 3 threads
    double bound;
};

static char *convolved(struct cpu_device *device, const struct op_desc *desc,
                       enum cpu_winograd_pass pass, const void *x, const float *weights,
                       size_t out_bytes)
{
    size_t scratch_bytes = cpu_winograd_scratch_bytes(device, desc, pass);
    size_t weights_bytes = cpu_winograd_weights_bytes(device, desc);
    char *scratch = guarded(scratch_bytes), *own = guarded(weights_bytes), *y = guarded(out_bytes);
    cpu_winograd_weights(device, desc, pass, own, weights);
    if (pass == WINOGRAD_FORWARD) {
        cpu_winograd_forward(device, desc, y, x, own, scratch);
    } else {
        cpu_winograd_backward_data(device, desc, y, x, own, scratch);
    }
    guarded_free(scratch, scratch_bytes);
    guarded_free(own, weights_bytes);
    return y;
}

static double error_of(const struct op_desc *desc, enum cpu_winograd_pass pass, const float *x,
                       const float *weights, const float *y)
{
    if (pass == WINOGRAD_FORWARD) {
        return plain_error(desc, x, weights, y);
    }
    struct op_desc turned = *desc;
    turned.in = desc->out;
    turned.out = desc->in;
    float *other = turned_weights(desc, weights);
    double error = plain_error(&turned, x, other, y);
    free(other);
    return error;
}

static void check_pass(struct fixture *fixture, const struct op_desc *desc,
                       enum cpu_winograd_pass pass)
{
    struct tensor_shape in = pass == WINOGRAD_FORWARD ? desc->in : desc->out;
    struct tensor_shape out = pass == WINOGRAD_FORWARD ? desc->out : desc->in;
    struct device *device = &fixture->devices[0]->base;
    size_t in_bytes = device->ops->tensor_bytes(device, in);
    size_t out_bytes = device->ops->tensor_bytes(device, out);
    size_t pixels = (size_t)in.n * in.h * in.w;
    float *values = random_values(pixels * in.c), *result = random_values(pixels * out.c);
    float *weights = random_values(9 * (size_t)in.c * out.c);
    char *x = guarded(in_bytes), *first = NULL;
    assert_int_equal(device->ops->tensor_store(device, in, x, values), STATUS_OK);
    for (int i = 0; i < MOST; i++) {
        assert_true(cpu_winograd_fits(fixture->devices[i], desc, pass));
        char *y = convolved(fixture->devices[i], desc, pass, x, weights, out_bytes);
        if (i == 0) {
            first = y;
            continue;
        }
        assert_memory_equal(first, y, out_bytes);
        guarded_free(y, out_bytes);
    }
    assert_int_equal(device->ops->tensor_fetch(device, out, result, first), STATUS_OK);
    double error = error_of(desc, pass, values, weights, result);
    if (!(error < fixture->bound)) {
        fail_msg("n%u %u-%u %ux%u pass %d: error %g", in.n, in.c, out.c, in.h, in.w, pass, error);
    }
    guarded_free(first, out_bytes);
    guarded_free(x, in_bytes);
    free(values);
    free(result);
    free(weights);
}

static struct op_desc conv_desc(uint32_t n, uint32_t h, uint32_t w, uint32_t in, uint32_t out)
{
    return (struct op_desc){.kind = OP_CONV,
                            .in = {TENSOR_IMAGE, n, h, w, in},
                            .out = {TENSOR_IMAGE, n, h, w, out},
                            .kernel = 3,
                            .stride = 1,
                            .pad_top = 1,
                            .pad_left = 1,
                            .pad_bottom = 1,
                            .pad_right = 1};
}

// --- the tests

static bool fixture_open(struct fixture *fixture, enum device_precision precision)
{
    struct error error;
    *fixture = (struct fixture){.bound = precision == DEVICE_BF16 ? HALF_BOUND : FLOAT_BOUND};
    for (int i = 0; i < MOST; i++) {
        struct device *device;
        if (device_open(&device, "cpu", i + 1, precision, &error) != STATUS_OK) {
            print_message("skipped: %s\n", error.reason);
            return false;
        }
        fixture->devices[i] = (struct cpu_device *)device;
    }
    struct op_desc desc = conv_desc(1, 4, 4, 16, 16);
    if (!cpu_winograd_fits(fixture->devices[0], &desc, WINOGRAD_FORWARD)) {
        print_message("skipped: this processor lacks the vector instructions\n");
        return false;
    }
    return true;
}

static void fixture_close(struct fixture *fixture)
{
    for (int i = 0; i < MOST; i++) {
        device_close((struct device **)&fixture->devices[i]);
    }
}

// Every height and width up to 9, with channels and images drawn for each.
static void check_precision(enum device_precision precision)
{
    struct fixture fixture;
    if (!fixture_open(&fixture, precision)) {
        fixture_close(&fixture);
        skip();
    }
    for (uint32_t size = 0; size < 81; size++) {
        struct op_desc desc = conv_desc(1 + random_below(5), 1 + size / 9, 1 + size % 9,
                                        16 * (1 + random_below(5)), 16 * (1 + random_below(5)));
        check_pass(&fixture, &desc, WINOGRAD_FORWARD);
        check_pass(&fixture, &desc, WINOGRAD_BACKWARD_DATA);
    }
    // More tiles than one block of any thread.
    struct op_desc large = conv_desc(2, 37, 43, 32, 16);
    check_pass(&fixture, &large, WINOGRAD_FORWARD);
    check_pass(&fixture, &large, WINOGRAD_BACKWARD_DATA);
    // Long sums.
    struct op_desc deep = conv_desc(1, 4, 4, 1024, 16);
    check_pass(&fixture, &deep, WINOGRAD_FORWARD);
    deep = conv_desc(1, 4, 4, 16, 1024);
    check_pass(&fixture, &deep, WINOGRAD_BACKWARD_DATA);
    fixture_close(&fixture);
}

static void test_half(void **state)
{
    (void)state;
    check_precision(DEVICE_BF16);
}

static void test_float(void **state)
{
    (void)state;
    check_precision(DEVICE_F32);
}

static void test_other_convolutions_do_not_fit(void **state)
{
    (void)state;
    struct fixture fixture;
    if (!fixture_open(&fixture, DEVICE_AUTO)) {
        fixture_close(&fixture);
        skip();
    }
    for (int i = 0; i < 6; i++) {
        struct op_desc desc = conv_desc(1, 8, 8, 32, 32);
        uint32_t *const changed[] = {&desc.kernel,   &desc.stride,     &desc.pad_top,
                                     &desc.pad_left, &desc.pad_bottom, &desc.in.c};
        *changed[i] += 1;
        assert_false(cpu_winograd_fits(fixture.devices[0], &desc, WINOGRAD_FORWARD));
        assert_false(cpu_winograd_pays(fixture.devices[0], &desc, WINOGRAD_FORWARD));
    }
    fixture_close(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half),
        cmocka_unit_test(test_float),
        cmocka_unit_test(test_other_convolutions_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void)
{
    puts("skipped: built without oneDNN");
    return 0;
}
#endif
