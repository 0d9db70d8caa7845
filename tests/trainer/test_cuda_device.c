// What the cuda device does beyond the table of ops: uploads while it works, marks, recordings,
// refusals, sums over peers through the host, and images of 3 channels that lie folded. Skips with
// the reason where it does not open.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/device_case.h"
#include "tests/support/device_rows.h"
#include "tests/support/golden.h"

#define I TENSOR_IMAGE
#define M TENSOR_MATRIX

static struct device *device, *ref;

static int open_devices(void **state)
{
    (void)state;
    struct error error;
    assert_int_equal(device_open(&ref, "ref", 1, DEVICE_F32, NULL), STATUS_OK);
    enum status status = device_open(&device, "cuda", 1, DEVICE_F32, &error);
    if (status != STATUS_OK) {
        print_message("skipped: device 'cuda': %s\n", error.reason);
        assert_true(status == STATUS_NO_DEVICE && getenv("REQUIRE_DEVICE") == NULL);
    }
    return 0;
}

static int close_devices(void **state)
{
    (void)state;
    device_close(&ref);
    device_close(&device);
    return 0;
}

static const struct device_ops *ops(void)
{
    static const struct device_ops none;
    if (device == NULL) {
        skip(); // does not return
    }
    return device != NULL ? device->ops : &none;
}

static float *block_of(const float *values, size_t count)
{
    void *memory;
    assert_int_equal(ops()->allocate(device, &memory, count * sizeof *values, NULL), STATUS_OK);
    assert_int_equal(ops()->copy_in(device, memory, values, count * sizeof *values), STATUS_OK);
    return memory;
}

static float *pinned(size_t count)
{
    void *memory;
    assert_int_equal(ops()->host_allocate(device, &memory, count * sizeof(float), NULL), STATUS_OK);
    return memory;
}

static struct device_mark *new_mark(void)
{
    struct device_mark *mark;
    assert_int_equal(ops()->mark_open(device, &mark, NULL), STATUS_OK);
    assert_int_equal(ops()->mark_wait(device, mark), STATUS_OK); // never set: nothing to wait for
    return mark;
}

// --- opening

static void test_a_wrong_gpu_is_refused(void **state)
{
    (void)state;
    ops();
    static const char *const wrong[] = {"4711", "-1", "first"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct device *none;
        struct error error = {0};
        setenv("BYOL_CUDA_DEVICE", wrong[i], 1);
        assert_int_equal(device_open(&none, "cuda", 1, DEVICE_AUTO, &error), STATUS_NO_DEVICE);
        assert_null(none);
        assert_non_null(strstr(error.reason, wrong[i]));
    }
    unsetenv("BYOL_CUDA_DEVICE");
}

static void test_ranks_share_the_gpus(void **state)
{
    (void)state;
    ops();
    struct device *other;
    setenv("OMPI_COMM_WORLD_LOCAL_RANK", "4096", 1); // GPU 4096 modulo how many there are
    assert_int_equal(device_open(&other, "cuda", 1, DEVICE_AUTO, NULL), STATUS_OK);
    unsetenv("OMPI_COMM_WORLD_LOCAL_RANK");
    assert_int_equal(other->precision, DEVICE_BF16);
    char text[256];
    other->ops->describe(other, text, sizeof text);
    assert_non_null(strstr(text, "CUDA"));
    assert_non_null(strstr(text, "bf16"));
    device_close(&other);
}

static void test_too_much_memory_is_refused(void **state)
{
    (void)state;
    void *memory = device;
    struct error error = {0};
    assert_int_equal(ops()->allocate(device, &memory, SIZE_MAX / 4, &error), STATUS_NO_MEMORY);
    assert_null(memory);
    assert_non_null(strstr(error.reason, "MiB"));
    assert_non_null(strstr(error.reason, "smaller batch"));
    float *small = block_of((float[]){3}, 1); // and it goes on
    ops()->release(device, small);
    assert_null(device->failure);
}

// --- the queue

#define ROUNDS 12
#define COUNT  5000
enum { PAIRS = ROUNDS * (ROUNDS - 1) / 2 }; // 0 + 1 + … + ROUNDS - 1

// Number `round` is sent while the device is still adding up those before.
static void test_uploads_while_the_device_works(void **state)
{
    (void)state;
    struct device_upload *uploads[2];
    float *batches[2], *found = pinned(1), sums[COUNT] = {0};
    struct device_mark *mark = new_mark();
    float *total = block_of(sums, COUNT);
    for (size_t i = 0; i < 2; i++) {
        batches[i] = pinned(COUNT);
        assert_int_equal(ops()->upload_open(device, &uploads[i], COUNT * sizeof(float), NULL),
                         STATUS_OK);
    }
    for (size_t round = 0; round < ROUNDS; round++) {
        struct device_upload *upload = uploads[round % 2];
        float *batch = batches[round % 2];
        const void *there;
        ops()->upload_wait(device, upload); // then the host memory is ours again
        for (size_t i = 0; i < COUNT; i++) {
            batch[i] = (float)(round * i);
        }
        size_t half = COUNT / 2 * sizeof(float);
        assert_int_equal(ops()->upload_send(device, upload, 0, batch, half), STATUS_OK);
        assert_int_equal(ops()->upload_send(device, upload, half, batch + COUNT / 2, half),
                         STATUS_OK);
        assert_int_equal(ops()->upload_take(device, upload, &there), STATUS_OK);
        assert_int_equal(ops()->block_add(device, total, there, COUNT), STATUS_OK);
        assert_int_equal(ops()->upload_done(device, upload), STATUS_OK);
    }
    ops()->copy_out_later(device, found, total + COUNT - 1, sizeof(float));
    ops()->mark_set(device, mark);
    ops()->mark_wait(device, mark);
    assert_true(*found == (float)((COUNT - 1) * PAIRS));
    ops()->copy_out(device, sums, total, sizeof sums);
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(sums[i] == (float)(i * PAIRS));
    }
    for (size_t i = 0; i < 2; i++) {
        ops()->upload_close(device, uploads[i]);
        ops()->host_release(device, batches[i]);
    }
    ops()->host_release(device, found);
    ops()->mark_close(device, mark);
    ops()->release(device, total);
}

// What was queued before a mark has happened when the mark was waited for.
static void test_marks_keep_the_order(void **state)
{
    (void)state;
    float *values = block_of((float[]){0, 0}, 2), *in = pinned(2), *out = pinned(ROUNDS);
    struct device_mark *marks[ROUNDS];
    in[0] = 0, in[1] = 1;
    ops()->copy_in_later(device, values, in, 2 * sizeof(float));
    for (size_t i = 0; i < ROUNDS; i++) {
        marks[i] = new_mark();
        ops()->block_add(device, values, values + 1, 1);
        ops()->copy_out_later(device, &out[i], values, sizeof(float));
        assert_int_equal(ops()->mark_set(device, marks[i]), STATUS_OK);
    }
    for (size_t i = ROUNDS; i-- > 0;) {
        assert_int_equal(ops()->mark_wait(device, marks[i]), STATUS_OK);
        assert_true(out[i] == (float)(i + 1));
        ops()->mark_close(device, marks[i]);
    }
    ops()->release(device, values);
    ops()->host_release(device, in);
    ops()->host_release(device, out);
}

// --- recordings

// clang-format off
static const struct device_case recorded_rows[] = {
    {"conv 3x3", OP_CONV, I, 2, 6, 5, 17, 4, 1, 3, 1, {1, 1, 1, 1}, 0, 0, 0, 0, 0},
    {"conv 3x3 / 2, standardised", OP_CONV, I, 2, 7, 9, 17, 36, 1, 3, 2, {1, 1, 1, 1}, 1, 0, 0, 0, 0},
    {"norm join relu, 2 groups", OP_BATCH_NORM, I, 6, 4, 4, 64, 64, 2, 0, 0, {0}, 1, 1, 0, 0, 0},
    {"norm matrix relu", OP_BATCH_NORM, M, 24, 1, 1, 65, 65, 2, 0, 0, {0}, 1, 0, 0, 0, 0},
    {"group norm relu", OP_GROUP_NORM, I, 3, 3, 7, 36, 36, 1, 4, 0, {0}, 1, 0, 0, 0, 0},
    {"add relu", OP_ADD, I, 3, 4, 7, 17, 17, 1, 0, 0, {0}, 1, 0, 0, 0, 0},
    {"max 3x3 / 2", OP_MAX_POOL, I, 2, 7, 9, 17, 17, 1, 3, 2, {1, 1, 1, 1}, 0, 0, 0, 0, 0},
    {"mean", OP_MEAN_POOL, I, 3, 4, 5, 17, 17, 1, 0, 0, {0}, 0, 0, 0, 0, 0},
    {"linear with bias", OP_LINEAR, M, 16, 1, 1, 64, 130, 2, 0, 0, {0}, 0, 1, 0, 0, 0},
};
// clang-format on

static struct device_recording *record(void (*work)(void *), void *context)
{
    struct device_recording *recording;
    struct error error = {0};
    work(context); // every op has run once before
    if (ops()->record_begin(device, &error) != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
    work(context);
    if (ops()->record_end(device, &recording, &error) != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
    return recording;
}

static void there_and_back(void *context)
{
    rig_forward(context, OP_TRAIN);
    rig_backward(context);
}

static void fetch_results(struct rig *rig, struct host *host)
{
    rig_fetch(device, host->desc.out, host->y, rig->buffers.y);
    rig_fetch(device, host->desc.in, host->dx, rig->buffers.dx);
    ops()->copy_out(device, host->gradients, rig->buffers.param_grads,
                    host->params * sizeof(float));
    ops()->copy_out(device, host->state, rig->buffers.state, host->states * sizeof(float));
}

static void compare_recorded(const struct device_case *row)
{
    struct host eager = host_make(row), later = host_make(row);
    host_run(device, &eager);
    struct rig rig = rig_make(device, &later);
    struct device_recording *recording = record(there_and_back, &rig);
    ops()->copy_in(device, rig.buffers.state, later.state, later.states * sizeof(float));
    ops()->fill_zero(device, rig.buffers.y, ops()->tensor_bytes(device, later.desc.out));
    ops()->fill_zero(device, rig.buffers.dx, ops()->tensor_bytes(device, later.desc.in));
    assert_int_equal(ops()->record_run(device, recording), STATUS_OK);
    fetch_results(&rig, &later);
    assert_memory_equal(eager.y, later.y, eager.out * sizeof(float));
    assert_memory_equal(eager.dx, later.dx, eager.in * sizeof(float));
    assert_memory_equal(eager.gradients, later.gradients, eager.params * sizeof(float));
    assert_memory_equal(eager.state, later.state, eager.states * sizeof(float));
    ops()->record_close(device, recording);
    rig_free(&rig);
    host_free(&eager);
    host_free(&later);
}

static void test_recorded_ops_give_the_same_bits(void **state)
{
    (void)state;
    ops();
    for (size_t i = 0; i < sizeof recorded_rows / sizeof *recorded_rows; i++) {
        compare_recorded(&recorded_rows[i]);
    }
}

#define PARAMS 3000

// A step of an optimiser with a target behind it, and what comes back from it.
struct step {
    float *params, *grads, *momentum, *followers, *learning_rate, *rate, *out;
};

static const struct param_span spans[] = {{0, 2000, true, 1}, {2000, 1000, false, 0.5f}};

static void make_step(void *context)
{
    struct step *step = context;
    struct moving_target target = {step->followers, step->rate};
    struct lars_settings settings = {step->learning_rate, 1e-2f, 0.9f, 1e-2f};
    assert_int_equal(ops()->lars_step(device, spans, 2, &settings, step->params, step->grads,
                                      step->momentum, &target),
                     STATUS_OK);
    ops()->copy_out_later(device, step->out, step->followers, PARAMS * sizeof(float));
}

static struct step new_step(void)
{
    float *values = device_case_values(PARAMS);
    struct step step;
    for (size_t i = 0; i < PARAMS; i++) {
        values[i] = (float)(i % 17) - 8.25f;
    }
    step.params = block_of(values, PARAMS);
    step.followers = block_of(values, PARAMS);
    for (size_t i = 0; i < PARAMS; i++) {
        values[i] = (float)(i % 13) - 6.5f;
    }
    step.grads = block_of(values, PARAMS);
    memset(values, 0, PARAMS * sizeof *values);
    step.momentum = block_of(values, PARAMS);
    step.learning_rate = block_of((float[]){0.1f}, 1);
    step.rate = block_of((float[]){0.01f}, 1);
    step.out = pinned(PARAMS);
    free(values);
    return step;
}

static void set_rates(const struct step *step, float learning_rate, float rate)
{
    ops()->copy_in(device, step->learning_rate, &learning_rate, sizeof(float));
    ops()->copy_in(device, step->rate, &rate, sizeof(float));
}

static void free_step(struct step *step)
{
    float *all[] = {step->params,    step->grads,         step->momentum,
                    step->followers, step->learning_rate, step->rate};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        ops()->release(device, all[i]);
    }
    ops()->host_release(device, step->out);
}

static void test_a_recording_reads_new_rates(void **state)
{
    (void)state;
    ops();
    struct step eager = new_step(), later = new_step();
    struct device_recording *recording = record(make_step, &later);
    make_step(&eager);
    static const float rates[][2] = {{0.3f, 0.5f}, {0.05f, 0.0f}, {1.0f, 1.0f}};
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        set_rates(&eager, rates[i][0], rates[i][1]);
        set_rates(&later, rates[i][0], rates[i][1]);
        make_step(&eager);
        assert_int_equal(ops()->record_run(device, recording), STATUS_OK);
        assert_int_equal(ops()->synchronise(device), STATUS_OK);
        assert_memory_equal(eager.out, later.out, PARAMS * sizeof(float));
    }
    ops()->record_close(device, recording);
    free_step(&eager);
    free_step(&later);
}

// What waits for the device cannot be recorded: the recording fails, and the device goes on.
static void test_a_failed_recording_leaves_the_device(void **state)
{
    (void)state;
    float *values = block_of((float[]){1, 2}, 2), found[2];
    struct device_recording *recording = NULL;
    struct error error = {0};
    assert_int_equal(ops()->record_end(device, &recording, &error), STATUS_UNSUPPORTED);
    assert_int_equal(ops()->record_begin(device, &error), STATUS_OK);
    assert_int_equal(ops()->record_begin(device, &error), STATUS_UNSUPPORTED);
    ops()->block_add(device, values, values + 1, 1);
    assert_int_equal(ops()->synchronise(device), STATUS_DEVICE);
    assert_non_null(device->failure);
    assert_int_equal(ops()->record_end(device, &recording, &error), STATUS_DEVICE);
    assert_null(recording);
    assert_true(error.reason[0] != '\0');
    assert_int_equal(ops()->copy_out(device, found, values, sizeof found), STATUS_OK);
    assert_true(found[0] == 1); // nothing of it was done
    assert_int_equal(ops()->block_add(device, values, values + 1, 1), STATUS_OK);
    assert_int_equal(ops()->copy_out(device, found, values, sizeof found), STATUS_OK);
    assert_true(found[0] == 3);
    ops()->release(device, values);
    device->timed = true;
    assert_int_equal(ops()->record_begin(device, &error), STATUS_UNSUPPORTED);
    device->timed = false;
}

static void test_a_device_is_closed_while_it_records(void **state)
{
    (void)state;
    ops();
    struct device *other;
    assert_int_equal(device_open(&other, "cuda", 1, DEVICE_AUTO, NULL), STATUS_OK);
    assert_int_equal(ops()->record_begin(other, NULL), STATUS_OK);
    device_close(&other); // with what was noted so far: a sanitizer sees what stays
}

// --- peers

static enum status sum_alone(void *context, double *values, size_t count)
{
    (void)values;
    *(size_t *)context += count;
    return STATUS_OK;
}

static enum status double_block(void *context, float *values, uint64_t count)
{
    *(size_t *)context += count;
    for (uint64_t i = 0; i < count; i++) {
        values[i] *= 2;
    }
    return STATUS_OK;
}

// A peer that is alone: joined by NCCL where that is, and able to record; else its block goes
// through the host, and recordings are refused.
static void test_one_peer(void **state)
{
    (void)state;
    size_t summed = 0;
    struct device_peers peers = {
        .count = 1, .context = &summed, .sum = sum_alone, .sum_block = double_block};
    const float values[3] = {1, 2, 3};
    float *block = block_of(values, 3), found[3];
    struct device_recording *recording;
    struct error error = {0};
    device->peers = &peers;
    assert_int_equal(ops()->record_begin(device, &error), STATUS_UNSUPPORTED); // not met yet
    assert_int_equal(ops()->block_sum_peers(device, block, 3), STATUS_OK);
    assert_int_equal(ops()->copy_out(device, found, block, sizeof found), STATUS_OK);
    bool by_host = found[0] == 2;
    print_message("one peer: sums %s\n", by_host ? "through the host" : "by NCCL");
    assert_true(found[2] == (by_host ? 6 : 3));
    assert_true(summed > 0);
    if (by_host) {
        assert_int_equal(ops()->record_begin(device, &error), STATUS_UNSUPPORTED);
        assert_non_null(strstr(error.reason, "NCCL"));
    } else {
        assert_int_equal(ops()->record_begin(device, &error), STATUS_OK);
        assert_int_equal(ops()->block_sum_peers(device, block, 3), STATUS_OK);
        assert_int_equal(ops()->record_end(device, &recording, &error), STATUS_OK);
        assert_int_equal(ops()->record_run(device, recording), STATUS_OK);
        ops()->record_close(device, recording);
    }
    device->peers = NULL;
    ops()->release(device, block);
}

// --- images of 3 channels that lie folded

// clang-format off
static const struct device_case folded_rows[] = {
    {"input", OP_INPUT, I, 2, 64, 66, 3, 3, 1, 0, 0, {0}, 0, 0, 1e-7, 0, 0},
    {"7x7 / 2, same", OP_CONV, I, 2, 64, 64, 3, 16, 2, 7, 2, {2, 2, 3, 3}, 0, 0, 1e-6, 2e-6, 0},
    {"7x7 / 2, torch", OP_CONV, I, 2, 66, 64, 3, 8, 1, 7, 2, {3, 3, 3, 3}, 0, 0, 1e-6, 2e-6, 0},
    {"7x7 / 2, mixed", OP_CONV, I, 1, 64, 68, 3, 8, 1, 7, 2, {2, 3, 3, 2}, 0, 0, 1e-6, 2e-6, 0},
    {"7x7 / 2, standardised", OP_CONV, I, 2, 64, 64, 3, 17, 1, 7, 2, {2, 2, 3, 3}, 1, 0, 1e-6, 4e-6, 0},
    {"3x3 / 2, same", OP_CONV, I, 2, 64, 64, 3, 8, 1, 3, 2, {0, 0, 1, 1}, 0, 0, 1e-6, 2e-6, 0},
    {"3x3 / 2, no padding", OP_CONV, I, 1, 64, 70, 3, 8, 1, 3, 2, {0}, 0, 0, 1e-6, 2e-6, 0},
    {"1x1 / 2", OP_CONV, I, 2, 64, 64, 3, 8, 1, 1, 2, {0}, 0, 0, 1e-6, 2e-6, 0},
    {"3x3", OP_CONV, I, 2, 64, 64, 3, 8, 1, 3, 1, {1, 1, 1, 1}, 0, 0, 1e-6, 2e-6, 0},
    {"5x5 / 3", OP_CONV, I, 1, 64, 66, 3, 8, 1, 5, 3, {2, 2, 2, 2}, 0, 0, 1e-6, 2e-6, 0},
    {"relu", OP_RELU, I, 1, 64, 64, 3, 3, 1, 0, 0, {0}, 0, 0, 0, 0, 0},
    {"add", OP_ADD, I, 1, 64, 64, 3, 3, 1, 0, 0, {0}, 0, 0, 0, 0, 0},
};
// clang-format on

static int mistakes;

static void near(const struct device_case *row, const char *what, const float *got,
                 const float *wanted, size_t count, double bound)
{
    double distance = count == 0 ? 0 : relative_l2(got, wanted, count);
    if (!(distance <= bound)) {
        print_error("%s: %s is off by %.2e, bound %.0e\n", row->name, what, distance, bound);
        mistakes++;
    }
}

static void test_folded_images(void **state)
{
    (void)state;
    ops();
    mistakes = 0;
    for (size_t i = 0; i < sizeof folded_rows / sizeof *folded_rows; i++) {
        const struct device_case *row = &folded_rows[i];
        struct host got = host_make(row), wanted = host_make(row);
        host_run(device, &got);
        host_run(ref, &wanted);
        near(row, "y", got.y, wanted.y, got.out, row->forward);
        if (got.desc.need_backward) {
            near(row, "dx", got.dx, wanted.dx, got.in, row->backward);
            near(row, "dparams", got.gradients, wanted.gradients, got.params, row->backward);
        }
        host_free(&got);
        host_free(&wanted);
    }
    assert_int_equal(mistakes, 0);
}

static void test_folded_images_have_no_channels(void **state)
{
    (void)state;
    static const struct device_case row = {"norm", OP_BATCH_NORM, I, 2, 64, 64, 3, 3, 1, 0,
                                           0,      {0},           0, 0, 0,  0,  0};
    struct op_desc desc = device_case_desc(&row);
    struct op *op;
    struct error error = {0};
    assert_int_equal(ops()->op_create(device, &desc, &op, &error), STATUS_UNSUPPORTED);
    assert_null(op);
    assert_non_null(strstr(error.reason, "3 channels"));
}

// Kernels count in 32 bits: what they cannot count is refused before any of them runs.
static void test_tensors_too_large_to_count_are_refused(void **state)
{
    (void)state;
    const struct tensor_shape images = {I, 1u << 24, 64, 64, 8}, rows = {I, 1u << 30, 1, 1, 8};
    const struct op_desc wrong[] = {
        {.kind = OP_RELU, .in = images, .out = images, .groups = 1},
        {.kind = OP_BATCH_NORM, .in = images, .out = images, .groups = 1},
        {.kind = OP_GROUP_NORM, .in = rows, .out = rows, .groups = 1, .channel_groups = 8},
        {.kind = OP_LINEAR,
         .in = {M, 1, 1, 1, 1u << 20},
         .out = {M, 1, 1, 1, 1u << 13},
         .groups = 1},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct op *op;
        struct error error = {0};
        assert_int_equal(ops()->op_create(device, &wrong[i], &op, &error), STATUS_UNSUPPORTED);
        assert_null(op);
        assert_non_null(strstr(error.reason, "too large"));
    }
}

static void test_views_too_many_to_count_are_refused(void **state)
{
    (void)state;
    ops();
    struct device *other;
    assert_int_equal(device_open(&other, "cuda", 1, DEVICE_AUTO, NULL), STATUS_OK);
    assert_int_equal(ops()->render_views(other, 1u << 28, 1, NULL, NULL, NULL, NULL),
                     STATUS_DEVICE);
    assert_non_null(strstr(other->failure, "finishing views"));
    device_close(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_wrong_gpu_is_refused),
        cmocka_unit_test(test_ranks_share_the_gpus),
        cmocka_unit_test(test_too_much_memory_is_refused),
        cmocka_unit_test(test_uploads_while_the_device_works),
        cmocka_unit_test(test_marks_keep_the_order),
        cmocka_unit_test(test_recorded_ops_give_the_same_bits),
        cmocka_unit_test(test_a_recording_reads_new_rates),
        cmocka_unit_test(test_a_failed_recording_leaves_the_device),
        cmocka_unit_test(test_a_device_is_closed_while_it_records),
        cmocka_unit_test(test_one_peer),
        cmocka_unit_test(test_folded_images),
        cmocka_unit_test(test_folded_images_have_no_channels),
        cmocka_unit_test(test_tensors_too_large_to_count_are_refused),
        cmocka_unit_test(test_views_too_many_to_count_are_refused),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
