// The queue of steps that methods share, with a step of its own that is so small that every result
// is known: on devices that compute at once, and on those that work ahead of the host.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/device_rows.h"
#include "trainer/method/queue.h"

#define VALUES 1000u
#define STEPS  12u

// What a step leaves on the host; the first value is its setting.
struct place {
    float setting;
    uint32_t number;
    float sum[VALUES], parts[2];
};

// sum += first part; sum[0] += setting. The second part is one value.
struct rig {
    struct device *device;
    struct queue *queue;
    float *sum, *copy, *setting; // device memory
    bool fails, waits;
    uint32_t queued, collected;
    float host[VALUES]; // of the batch
};

static enum status work(void *context, const void *const *parts, void *memory, struct error *error)
{
    struct rig *rig = context;
    struct place *place = memory;
    const struct device_ops *ops = rig->device->ops;
    if (rig->fails) {
        return error_set(error, STATUS_DEVICE, NULL, NOWHERE, NOWHERE, "does not want to");
    }
    enum status status = ops->copy(rig->device, rig->copy, parts[0], sizeof place->sum);
    if (status == STATUS_OK) {
        status = ops->block_add(rig->device, rig->sum, rig->copy, VALUES);
    }
    if (status == STATUS_OK && rig->waits) {
        status = ops->synchronise(rig->device);
    }
    if (status == STATUS_OK) {
        status = ops->block_add(rig->device, rig->sum, rig->setting, 1);
    }
    if (status == STATUS_OK) {
        status = queue_fetch(rig->queue, place->sum, rig->sum, sizeof place->sum);
    }
    if (status == STATUS_OK) {
        status = queue_fetch(rig->queue, place->parts, parts[1], sizeof *place->parts);
    }
    return status == STATUS_OK
               ? STATUS_OK
               : error_set(error, status, NULL, NOWHERE, NOWHERE, "the device did not");
}

static float *zeros(struct device *device, size_t count)
{
    void *memory;
    assert_int_equal(device->ops->allocate(device, &memory, count * sizeof(float), NULL),
                     STATUS_OK);
    return memory;
}

static struct rig *open_rig(const struct device_ops *ops)
{
    struct error error;
    struct rig *rig = calloc(1, sizeof *rig);
    assert_non_null(rig);
    assert_int_equal(device_open(&rig->device, ops->name, 2, DEVICE_F32, NULL), STATUS_OK);
    rig->sum = zeros(rig->device, VALUES);
    rig->copy = zeros(rig->device, VALUES);
    rig->setting = zeros(rig->device, 1);
    const struct queue_config config = {
        .part_bytes = {sizeof rig->host, sizeof(float)},
        .place_bytes = sizeof(struct place),
        .setting_bytes = sizeof(float),
        .settings = rig->setting,
        .work = work,
        .context = rig,
    };
    if (queue_open(&rig->queue, rig->device, &config, &error) != STATUS_OK) {
        fail_msg("%s: %s", ops->name, error.reason);
    }
    return rig;
}

static void close_rig(struct rig *rig)
{
    queue_close(&rig->queue);
    assert_null(rig->queue);
    queue_close(&rig->queue);
    rig->device->ops->release(rig->device, rig->sum);
    rig->device->ops->release(rig->device, rig->copy);
    rig->device->ops->release(rig->device, rig->setting);
    device_close(&rig->device);
    free(rig);
}

// Step n brings n in every value, and 1000 n as its setting. What was handed over is overwritten at
// once: the queue has no more business with it.
static void queue_one(struct rig *rig)
{
    struct error error;
    void *memory;
    assert_int_equal(queue_place(rig->queue, &memory, &error), STATUS_OK);
    struct place *place = memory;
    float number = (float)++rig->queued, second = -number;
    place->number = rig->queued;
    place->setting = 1000 * number;
    for (size_t i = 0; i < VALUES; i++) {
        rig->host[i] = number;
    }
    const void *const parts[] = {rig->host, &second};
    if (queue_step(rig->queue, parts, &error) != STATUS_OK) {
        fail_msg("%s: %s", rig->device->ops->name, error.reason);
    }
    memset(rig->host, 0xff, sizeof rig->host);
    second = 0;
}

static void collect_one(struct rig *rig)
{
    struct error error;
    void *memory;
    if (queue_collect(rig->queue, &memory, &error) != STATUS_OK) {
        fail_msg("%s: %s", rig->device->ops->name, error.reason);
    }
    const struct place *place = memory;
    uint32_t number = ++rig->collected, sum = number * (number + 1) / 2;
    assert_int_equal(place->number, number);
    assert_int_equal(place->sum[0], 1001 * sum);
    assert_int_equal(place->sum[1], sum);
    assert_int_equal(place->sum[VALUES - 1], sum);
    assert_int_equal(place->parts[0], -(int)number);
}

// With as many in flight as the device takes, and with `most` at most.
static void run_steps(struct rig *rig, unsigned most)
{
    unsigned takes = 1 + rig->device->ops->steps_ahead;
    for (uint32_t i = 0; i < STEPS; i++) {
        queue_one(rig);
        while (rig->queued - rig->collected >= (most < takes ? most : takes)) {
            collect_one(rig);
        }
    }
    while (rig->collected < rig->queued) {
        collect_one(rig);
    }
}

static void steps_come_back_in_their_order(void **state)
{
    (void)state;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        for (unsigned most = 1; most <= 1 + (*ops)->steps_ahead; most++) {
            struct rig *rig = open_rig(*ops);
            run_steps(rig, most);
            assert_null(queue_notice(rig->queue));
            close_rig(rig);
        }
    }
}

static void too_many_steps_are_refused(void **state)
{
    (void)state;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct rig *rig = open_rig(*ops);
        struct error error = {0};
        void *memory;
        assert_int_equal(queue_collect(rig->queue, &memory, &error), STATUS_INVALID);
        for (unsigned i = 0; i <= (*ops)->steps_ahead; i++) {
            queue_one(rig);
        }
        assert_int_equal(queue_place(rig->queue, &memory, &error), STATUS_INVALID);
        assert_null(memory);
        assert_non_null(strstr(error.reason, "wait to be collected"));
        collect_one(rig);
        queue_one(rig);
        while (rig->collected < rig->queued) {
            collect_one(rig);
        }
        assert_int_equal(queue_collect(rig->queue, &memory, &error), STATUS_INVALID);
        close_rig(rig);
    }
}

static void a_queue_may_close_with_steps_in_flight(void **state)
{
    (void)state;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct rig *rig = open_rig(*ops);
        queue_one(rig);
        close_rig(rig);
    }
}

static void a_step_that_fails_is_not_queued(void **state)
{
    (void)state;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct rig *rig = open_rig(*ops);
        struct error error;
        void *memory;
        const float second = 0;
        const void *const parts[] = {rig->host, &second};
        rig->fails = true;
        assert_int_equal(queue_place(rig->queue, &memory, &error), STATUS_OK);
        assert_int_equal(queue_step(rig->queue, parts, &error), STATUS_DEVICE);
        assert_string_equal(error.reason, "does not want to");
        assert_int_equal(queue_collect(rig->queue, &memory, &error), STATUS_INVALID);
        close_rig(rig);
    }
}

// A device may refuse to record work that waits for it; the results are the same.
static void what_cannot_be_recorded_is_done_as_well(void **state)
{
    (void)state;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct rig *rig = open_rig(*ops);
        rig->waits = true;
        run_steps(rig, UINT32_MAX);
        const char *notice = queue_notice(rig->queue);
        if (notice != NULL) {
            assert_non_null(strstr(notice, "not recorded"));
            assert_null(queue_notice(rig->queue)); // told once
        }
        close_rig(rig);
    }
}

// While a device is timed its recordings rest.
static void timing_changes_nothing_else(void **state)
{
    (void)state;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct rig *rig = open_rig(*ops);
        run_steps(rig, UINT32_MAX);
        rig->device->timed = true;
        run_steps(rig, UINT32_MAX);
        rig->device->timed = false;
        run_steps(rig, UINT32_MAX);
        close_rig(rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_come_back_in_their_order),
        cmocka_unit_test(too_many_steps_are_refused),
        cmocka_unit_test(a_queue_may_close_with_steps_in_flight),
        cmocka_unit_test(a_step_that_fails_is_not_queued),
        cmocka_unit_test(what_cannot_be_recorded_is_done_as_well),
        cmocka_unit_test(timing_changes_nothing_else),
    };
    return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}
