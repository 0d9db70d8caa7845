// Finishing views on every device that can: against plain C (view_finish), for records of every
// kind and sizes that no tile divides.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "augment/view.h"
#include "tests/support/device_rows.h"

#define BOUND 5e-6 // that of view.h
#define GUARD 64   // floats behind the output that must stay as they were

static uint32_t random_state = 1;

static uint32_t any(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

static float within(float low, float high)
{
    return low + (high - low) * (float)any() * 0x1p-24f;
}

// Where a few more taps than the size has values are asked for, and where there is one.
static uint32_t any_taps(uint32_t size)
{
    const uint32_t most[] = {1, 2 * size - 1, size | 1, 23};
    uint32_t taps = most[any() % 4];
    return taps < 2 * size ? taps : 2 * size - 1;
}

static struct view_record any_record(uint32_t size)
{
    struct view_record record = {.flip = any() % 2,
                                 .jitter = any() % 4 > 0,
                                 .grayscale = any() % 5 == 0,
                                 .blur = any() % 2,
                                 .solarize = any() % 3 == 0,
                                 .order = {0, 1, 2, 3},
                                 .taps = any_taps(size),
                                 .brightness = within(-0.5f, 0.5f),
                                 .contrast = within(0.5f, 1.5f),
                                 .saturation = within(0.5f, 1.5f),
                                 .hue = within(-0.5f, 0.5f),
                                 .sigma = within(0.05f, 4),
                                 .threshold = 0.5f};
    for (uint32_t i = 3; i > 0; i--) {
        uint32_t other = any() % (i + 1);
        uint8_t kept = record.order[i];
        record.order[i] = record.order[other];
        record.order[other] = kept;
    }
    return record;
}

// Gradients with noise, so that means and borders differ; some images are grey.
static void any_bytes(uint8_t *bytes, uint32_t size)
{
    bool grey = any() % 6 == 0;
    uint32_t slope = any() % 7;
    for (size_t i = 0; i < (size_t)size * size; i++) {
        for (size_t c = 0; c < 3; c++) {
            bytes[i * 3 + c] = (uint8_t)(i % size * slope + i / size * c + any() % 60);
            bytes[i * 3 + c] = grey ? bytes[i * 3] : bytes[i * 3 + c];
        }
    }
}

struct batch {
    uint32_t images, size;
    size_t values; // of an image
    uint8_t *bytes;
    struct view_record *records;
    float *out, *expected;
};

static struct batch batch_make(uint32_t images, uint32_t size)
{
    struct batch batch = {images, size, (size_t)size * size * 3, NULL, NULL, NULL, NULL};
    batch.bytes = malloc(images * batch.values);
    batch.records = malloc(images * sizeof *batch.records);
    batch.out = malloc((images * batch.values + GUARD) * sizeof(float));
    batch.expected = malloc(images * batch.values * sizeof(float));
    float *work = malloc(view_finish_floats(size) * sizeof(float));
    assert_true(batch.bytes && batch.records && batch.out && batch.expected && work);
    for (size_t i = 0; i < images; i++) {
        batch.records[i] = any_record(size);
        any_bytes(batch.bytes + i * batch.values, size);
        view_finish(&batch.records[i], size, batch.bytes + i * batch.values,
                    batch.expected + i * batch.values, work);
    }
    memset(batch.out, 0xff, (images * batch.values + GUARD) * sizeof(float)); // NaN
    free(work);
    return batch;
}

static void batch_free(struct batch *batch)
{
    free(batch->bytes);
    free(batch->records);
    free(batch->out);
    free(batch->expected);
}

static void *device_memory(struct device *device, const void *host, size_t bytes)
{
    void *memory = NULL;
    assert_int_equal(device->ops->allocate(device, &memory, bytes, NULL), STATUS_OK);
    if (host != NULL) {
        assert_int_equal(device->ops->copy_in(device, memory, host, bytes), STATUS_OK);
    }
    return memory;
}

static void run(struct device *device, struct batch *batch)
{
    const struct device_ops *ops = device->ops;
    size_t out_bytes = (batch->images * batch->values + GUARD) * sizeof(float);
    size_t scratch_bytes = ops->render_views_scratch(device, batch->images, batch->size);
    void *bytes = device_memory(device, batch->bytes, batch->images * batch->values);
    void *records = device_memory(device, batch->records, batch->images * sizeof *batch->records);
    void *out = device_memory(device, batch->out, out_bytes);
    char *poison = malloc(scratch_bytes);
    assert_non_null(poison);
    void *scratch = device_memory(device, memset(poison, 0xff, scratch_bytes), scratch_bytes);
    assert_int_equal(
        ops->render_views(device, batch->images, batch->size, bytes, records, out, scratch),
        STATUS_OK);
    assert_int_equal(ops->copy_out(device, batch->out, out, out_bytes), STATUS_OK);
    ops->release(device, bytes);
    ops->release(device, records);
    ops->release(device, out);
    ops->release(device, scratch);
    free(poison);
}

static void compare(const struct device_ops *ops, const struct batch *batch)
{
    for (size_t i = 0; i < batch->images * batch->values; i++) {
        double difference = fabs((double)batch->out[i] - (double)batch->expected[i]);
        if (!(difference <= BOUND)) {
            fail_msg("device '%s', %u px: image %zu, value %zu is %g, not %g", ops->name,
                     batch->size, i / batch->values, i % batch->values, (double)batch->out[i],
                     (double)batch->expected[i]);
        }
    }
    for (size_t i = 0; i < GUARD; i++) {
        assert_true(isnan(batch->out[batch->images * batch->values + i]));
    }
}

static struct device *open_row(const struct device_ops *ops)
{
    struct device *device;
    struct error error;
    if (device_open(&device, ops->name, 1, DEVICE_F32, &error) != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
    return device;
}

// The same work twice gives the same bits.
static void check(struct device *device, uint32_t images, uint32_t size)
{
    struct batch batch = batch_make(images, size);
    size_t bytes = images * batch.values * sizeof(float);
    run(device, &batch);
    compare(device->ops, &batch);
    memcpy(batch.expected, batch.out, bytes);
    run(device, &batch);
    assert_memory_equal(batch.out, batch.expected, bytes);
    batch_free(&batch);
}

static void check_sizes(struct device *device)
{
    static const struct {
        uint32_t images, size;
    } cases[] = {{40, 8},  {3, 1},  {9, 5},   {30, 20}, {12, 33},
                 {12, 64}, {4, 97}, {3, 224}, {1, 301}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check(device, cases[i].images, cases[i].size);
    }
}

// The widest views there are, and more of them than a GPU takes at a time.
static void check_wide(struct device *device)
{
    if (device->ops->steps_ahead > 0) {
        check(device, 3, RECIPE_MAX_SIZE);
    }
}

// What rows of the table can is known when they are open.
static unsigned on_every_device(void (*check_device)(struct device *device))
{
    unsigned devices = 0;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct device *device = open_row(*ops);
        if (device->ops->render_views != NULL) {
            check_device(device);
            devices++;
        }
        device_close(&device);
    }
    return devices;
}

static void test_views_are_those_of_plain_c(void **state)
{
    (void)state;
    assert_true(on_every_device(check_sizes) > 0); // ref at least
}

static void test_many_wide_views(void **state)
{
    (void)state;
    on_every_device(check_wide);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_views_are_those_of_plain_c),
        cmocka_unit_test(test_many_wide_views),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
