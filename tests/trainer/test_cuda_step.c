// Whole steps on the device `cuda`: against the processor in f32, bf16 against f32, recordings
// against work queued anew, steps in flight, and checkpoints that change devices. Skips with the
// reason where the device does not open.
//
// What a step computes differs between devices by rounding, and a network amplifies that. The
// controls are the processor against itself, with another number of threads and every pixel moved
// by a unit in the last place, up or down by chance, and the reference where networks are small
// enough for it. Where that is more than the plain bound, a tensor may be 10 times as far off as
// the farthest control: whether a ReLU changes its side makes single tensors a hundred times as far
// off, or does not. Gradients on the whole may be 3 times as far off where the reference is a
// control, else 10 times.
//
// Controls that have nothing in common any more would allow anything: for small networks that is a
// failure. So the rate is low, and no batch normalisation of these has fewer than 8 values: with 4,
// any two runs had parted after ten steps.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "tests/support/byol_compare.h"
#include "tests/support/device_rows.h"
#include "tests/support/program.h"
#include "tests/support/tiny_run.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/directory.h"

#define LOSS_BOUND      1e-6 // relative
#define TENSOR_BOUND    1e-4 // relative L2
#define SPREADS         10.0
#define TYPICAL_SPREADS 3.0
#define LOST            0.3 // from here on controls say nothing
#define CONTROLS        5u
#define RATE            0.03f
#define HALF_LOSS_BOUND 0.05
#define HALF_FACTOR     2.0

#define BATCH   6u
#define SIDE    16u
#define CLASSES 5u
#define STEPS   6u
#define VALUES  ((size_t)BATCH * SIDE * SIDE * 3)

static bool slow; // the device cuda

// Name, encoder, stem, norm, width, size, v2, standardised weights, batch.
// clang-format off
static const struct byol_model large_models[] = {
    {"ResNet-18", MODEL_RESNET18, MODEL_STEM_SMALL, MODEL_NORM_BATCH, 1, 32, 0, 0, 8},
    {"ResNet-50", MODEL_RESNET50, MODEL_STEM_IMAGENET, MODEL_NORM_BATCH, 1, 64, 0, 0, 8},
    {"ResNet-18, group norm", MODEL_RESNET18, MODEL_STEM_SMALL, MODEL_NORM_GROUP, 1, 32, 0, 1, 8},
};
// Group norm of so few channels would normalise pairs of values, whose gradients are rounding alone.
static const struct byol_model small_models[] = {
    {"tiny", MODEL_TINY, MODEL_STEM_SMALL, MODEL_NORM_BATCH, 0.25, 16, 0, 0, 8},
    {"tiny, large stem", MODEL_TINY, MODEL_STEM_IMAGENET, MODEL_NORM_BATCH, 0.25, 64, 0, 0, 8},
    {"tiny, layer norm", MODEL_TINY, MODEL_STEM_SMALL, MODEL_NORM_LAYER, 0.25, 16, 0, 1, 8},
};
// clang-format on
#define MODELS (sizeof large_models / sizeof *large_models)

static int look_for_device(void **state)
{
    static bool there;
    struct device *device;
    struct error error;
    enum status status = device_open(&device, "cuda", 1, DEVICE_F32, &error);
    if (status != STATUS_OK) {
        print_message("skipped: device 'cuda': %s\n", error.reason);
        return status == STATUS_NO_DEVICE && getenv("REQUIRE_DEVICE") == NULL ? 0 : -1;
    }
    slow = device_is_slow(device);
    for (size_t i = 0; slow && i < MODELS; i++) {
        print_message("left out: %s: the device is emulated\n", large_models[i].name);
    }
    device_close(&device);
    there = true;
    *state = &there;
    return 0;
}

static void need_device(void *const *state)
{
    if (*state == NULL) {
        skip();
    }
}

static struct device *open_device(const char *name, int threads, enum device_precision precision)
{
    struct device *device;
    struct error error;
    assert_status(device_open(&device, name, threads, precision, &error), STATUS_OK, &error);
    return device;
}

static const char *processor(void)
{
    struct device *device;
    if (device_open(&device, "cpu", 1, DEVICE_F32, NULL) != STATUS_OK) {
        return "ref";
    }
    device_close(&device);
    return "cpu";
}

// --- what a method holds -----------------------------------------------------------------------

#define GRADIENT "gradient/"

struct value {
    char name[224];
    uint64_t count;
    float *values;
};

struct snapshot {
    double loss;
    size_t count;
    struct value *all;
};

static void keep(struct snapshot *snapshot, struct device *device, const char *kind,
                 const char *name, const float *memory, uint64_t count)
{
    struct value *value = &snapshot->all[snapshot->count++];
    size_t bytes = (size_t)count * sizeof(float);
    snprintf(value->name, sizeof value->name, "%s%s", kind, name);
    value->count = count;
    value->values = malloc(bytes);
    assert_non_null(value->values);
    assert_int_equal(device->ops->copy_out(device, value->values, memory, bytes), STATUS_OK);
}

// Gradients first, then all that a checkpoint holds.
static struct snapshot look_at(struct method *method, double loss)
{
    const struct byol *byol = byol_of(method);
    size_t gradients = graph_param_count(byol->graph);
    size_t saved = method->ops->tensors(method, NULL, 0);
    struct snapshot snapshot = {.loss = loss};
    struct method_tensor *tensors = calloc(saved, sizeof *tensors);
    snapshot.all = calloc(gradients + saved, sizeof *snapshot.all);
    assert_non_null(tensors);
    assert_non_null(snapshot.all);
    for (size_t i = 0; i < gradients; i++) {
        const struct graph_param *param = graph_param_at(byol->graph, i);
        keep(&snapshot, byol->device, GRADIENT, param->name, byol->gradients + param->offset,
             param->count);
    }
    method->ops->tensors(method, tensors, saved);
    for (size_t i = 0; i < saved; i++) {
        keep(&snapshot, byol->device, "", tensors[i].name, tensors[i].device, tensors[i].count);
    }
    free(tensors);
    return snapshot;
}

static void forget(struct snapshot *snapshot)
{
    for (size_t i = 0; i < snapshot->count; i++) {
        free(snapshot->all[i].values);
    }
    free(snapshot->all);
}

static double distance(const struct value *from, const struct value *to)
{
    double square = 0, length = 0;
    assert_true(from->count == to->count);
    for (uint64_t i = 0; i < from->count; i++) {
        double difference = (double)to->values[i] - (double)from->values[i];
        square += difference * difference;
        length += (double)from->values[i] * (double)from->values[i];
    }
    return square == 0 ? 0 : sqrt(square / length);
}

static double loss_distance(const struct snapshot *from, const struct snapshot *to)
{
    return fabs(to->loss / from->loss - 1);
}

// How far off gradients are on the whole: the geometric mean, which single tensors, such as those
// that have no gradient but rounding, hardly move.
static double typical_distance(const struct snapshot *from, const struct snapshot *to)
{
    double sum = 0;
    size_t count = 0;
    for (size_t i = 0;
         i < from->count && strncmp(from->all[i].name, GRADIENT, strlen(GRADIENT)) == 0; i++) {
        sum += log(fmax(distance(&from->all[i], &to->all[i]), 1e-9));
        count++;
    }
    assert_true(count > 0);
    return exp(sum / (double)count);
}

static void check_typical(const char *title, const struct snapshot *exact,
                          const struct snapshot *other, const struct snapshot *controls,
                          size_t count)
{
    double off = typical_distance(exact, other), spread = 0;
    for (size_t k = 0; k < count; k++) {
        spread = fmax(spread, typical_distance(exact, &controls[k]));
    }
    print_message("%s: gradients off by %.1e (reference or first control %.1e, farthest %.1e)\n",
                  title, off, typical_distance(exact, &controls[0]), spread);
    if (spread > LOST) {
        print_message("%s: the controls are lost: this says nothing\n", title);
        assert_false(slow); // the small networks were chosen so that it does not happen
    }
    if (!(off <= fmax(TENSOR_BOUND, (slow ? TYPICAL_SPREADS : SPREADS) * spread))) {
        fail_msg("%s: gradients are off by %.2e, controls by %.2e", title, off, spread);
    }
}

static void check_near(const char *title, const struct snapshot *exact,
                       const struct snapshot *other, const struct snapshot *controls, size_t count)
{
    double loss = loss_distance(exact, other), worst = 0, bound = LOSS_BOUND;
    for (size_t k = 0; k < count; k++) {
        bound = fmax(bound, SPREADS * loss_distance(exact, &controls[k]));
    }
    assert_int_equal(exact->count, other->count);
    for (size_t i = 0; i < exact->count; i++) {
        double off = distance(&exact->all[i], &other->all[i]);
        double spread = 0;
        for (size_t k = 0; k < count; k++) {
            spread = fmax(spread, distance(&exact->all[i], &controls[k].all[i]));
        }
        worst = fmax(worst, off / fmax(TENSOR_BOUND, SPREADS * spread));
        if (!(off <= fmax(TENSOR_BOUND, SPREADS * spread))) {
            fail_msg("%s: first differs %s by %.2e (control %.2e); loss by %.2e", title,
                     exact->all[i].name, off, spread, loss);
        }
    }
    print_message("%s: loss off by %.1e of %.1e, worst tensor at %.2f of its bound\n", title, loss,
                  bound, worst);
    if (!(loss <= bound)) {
        fail_msg("%s: loss differs by %.2e, may by %.2e", title, loss, bound);
    }
}

static void check_same(const char *title, const struct snapshot *left, const struct snapshot *right,
                       size_t from)
{
    assert_int_equal(left->count, right->count);
    for (size_t i = from; i < left->count; i++) {
        const struct value *a = &left->all[i], *b = &right->all[i];
        assert_true(a->count == b->count);
        if (memcmp(a->values, b->values, (size_t)a->count * sizeof(float)) != 0) {
            fail_msg("%s: first differs %s, by %.2e", title, a->name, distance(a, b));
        }
    }
    if (!(left->loss == right->loss)) {
        fail_msg("%s: loss %.9g and %.9g", title, left->loss, right->loss);
    }
}

static size_t gradient_count(struct method *method)
{
    return graph_param_count(byol_of(method)->graph);
}

static double learn(struct method *method, float *const *views, const int32_t *labels)
{
    const float *const read[2] = {views[0], views[1]};
    const struct method_step settings = {.learning_rate = RATE, .tau = 0.9f};
    struct method_metrics metrics;
    struct error error;
    assert_status(method->ops->step(method, read, labels, &settings, &error), STATUS_OK, &error);
    assert_status(method->ops->collect(method, &metrics, &error), STATUS_OK, &error);
    return metrics.loss;
}

static void nudge(float *const *views, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < 2 * count; i++) {
        seed = seed * 1664525u + 1013904223u;
        float *value = &views[i / count][i % count];
        *value = nextafterf(*value, seed >> 31 ? 2.0f : 0.0f);
    }
}

// --- f32 against the processor -----------------------------------------------------------------

static struct snapshot learn_steps(const struct byol_case *byol_case, unsigned steps)
{
    struct method *method = &byol_case->byol->method;
    double loss = 0;
    for (unsigned i = 0; i < steps; i++) {
        loss = learn(method, byol_case->views, byol_case->labels);
    }
    return look_at(method, loss);
}

static void open_case(struct byol_case *out, const char *device, int threads,
                      enum device_precision precision, const struct byol_model *model)
{
    byol_case_open(out, open_device(device, threads, precision), model);
}

static void close_case(struct byol_case *byol_case)
{
    struct device *device = byol_case->device;
    byol_case_close(byol_case);
    device_close(&device);
}

static void open_control(struct byol_case *out, unsigned number, const struct byol_model *model)
{
    bool reference = slow && number == 0;
    open_case(out, reference ? "ref" : processor(), 2, DEVICE_F32, model);
    if (!reference) {
        nudge(out->views, model->batch * (size_t)image_floats(out->byol), number + 2);
    }
}

static void check_model(const struct byol_model *model)
{
    struct byol_case cases[2 + CONTROLS];
    open_case(&cases[0], processor(), 1, DEVICE_F32, model);
    open_case(&cases[1], "cuda", 1, DEVICE_F32, model);
    for (unsigned i = 0; i < CONTROLS; i++) {
        open_control(&cases[2 + i], i, model);
    }
    for (unsigned steps = 1; steps <= 9; steps += 8) { // 1 in all, then 10
        struct snapshot snapshots[2 + CONTROLS];
        char title[96];
        snprintf(title, sizeof title, "%s, %s step", model->name, steps == 1 ? "first" : "tenth");
        for (unsigned i = 0; i < 2 + CONTROLS; i++) {
            snapshots[i] = learn_steps(&cases[i], steps);
        }
        check_near(title, &snapshots[0], &snapshots[1], &snapshots[2], CONTROLS);
        check_typical(title, &snapshots[0], &snapshots[1], &snapshots[2], CONTROLS);
        for (unsigned i = 0; i < 2 + CONTROLS; i++) {
            forget(&snapshots[i]);
        }
    }
    for (unsigned i = 0; i < 2 + CONTROLS; i++) {
        close_case(&cases[i]);
    }
}

static void steps_are_those_of_the_processor(void **state)
{
    need_device(state);
    for (size_t i = 0; i < MODELS; i++) {
        check_model(slow ? &small_models[i] : &large_models[i]);
    }
}

// --- bf16 --------------------------------------------------------------------------------------

static void check_half(const struct byol_model *model)
{
    struct byol_case exact, half, control;
    open_case(&exact, "cuda", 1, DEVICE_F32, model);
    open_case(&half, "cuda", 1, DEVICE_BF16, model);
    open_case(&control, "cuda", 1, DEVICE_F32, model);
    byol_case_round(&control);
    byol_case_step(&exact);
    byol_case_step(&half);
    byol_case_step(&control);
    struct byol_cosines cosines = byol_case_cosines(&exact, &half, &control);
    learn(&exact.byol->method, exact.views, exact.labels);
    learn(&half.byol->method, half.views, half.labels);
    learn(&control.byol->method, control.views, control.labels);
    byol_case_step(&exact);
    byol_case_step(&half);
    byol_case_step(&control);
    double loss = half.metrics.loss / exact.metrics.loss - 1;
    double rounded = control.metrics.loss / exact.metrics.loss - 1;
    print_message("%s: bf16: loss %+.2f %%, mean distance of %zu gradients %.4f (control %.4f)\n",
                  model->name, 100 * loss, cosines.compared,
                  cosines.distance / (double)cosines.compared,
                  cosines.control / (double)cosines.compared);
    assert_true(cosines.compared > 0);
    assert_true(fabs(loss) <= fmax(HALF_LOSS_BOUND, HALF_FACTOR * fabs(rounded)));
    if (!(cosines.distance <= HALF_FACTOR * cosines.control)) {
        fail_msg("%s: too far from f32, worst %s, cosine %.4f", model->name, cosines.worst_name,
                 cosines.worst);
    }
    close_case(&exact);
    close_case(&half);
    close_case(&control);
}

static void bf16_is_near_f32(void **state)
{
    need_device(state);
    for (size_t i = 0; i < MODELS; i++) {
        check_half(slow ? &small_models[i] : &large_models[i]);
    }
}

// --- steps in a row ----------------------------------------------------------------------------

enum way { AT_ONCE, EAGERLY, IN_FLIGHT };

struct rig {
    struct device *device;
    struct method *method;
    float *views[2];
    int32_t labels[BATCH];
};

// Step `number`'s batch.
static void fill(struct rig *rig, uint32_t number)
{
    uint32_t seed = 17 + number;
    for (size_t i = 0; i < 2 * VALUES; i++) {
        seed = seed * 1664525u + 1013904223u;
        rig->views[i / VALUES][i % VALUES] = (float)(seed >> 8) * 0x1p-24f;
    }
    for (uint32_t i = 0; i < BATCH; i++) {
        rig->labels[i] = (int32_t)((i + number) % CLASSES);
    }
}

static void open_rig(struct rig *rig, const char *device, uint64_t seed, uint32_t accumulate)
{
    struct method_config config = {.batch = BATCH,
                                   .accumulate = accumulate,
                                   .seed = seed,
                                   .weight_decay = 1e-4,
                                   .momentum = 0.9,
                                   .trust = 1e-2};
    struct error error;
    config.model = tiny_config().model;
    config.model.size = SIDE;
    config.model.classes = CLASSES;
    *rig = (struct rig){.device = open_device(device, 1, DEVICE_F32)};
    assert_status(method_open(&rig->method, "byol", rig->device, &config, &error), STATUS_OK,
                  &error);
    for (unsigned v = 0; v < 2; v++) {
        rig->views[v] = malloc(VALUES * sizeof(float));
        assert_non_null(rig->views[v]);
    }
    fill(rig, 0);
}

static void close_rig(struct rig *rig)
{
    method_close(&rig->method);
    device_close(&rig->device);
    free(rig->views[0]);
    free(rig->views[1]);
}

static void dawdle(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    const struct timespec pause = {.tv_nsec = (long)(*seed >> 12)}; // up to a millisecond
    nanosleep(&pause, NULL);
}

static void queue_step_of(struct rig *rig, uint32_t number)
{
    const struct method_step settings = {.learning_rate = 0.1f + 0.01f * (float)number,
                                         .tau = 0.9f};
    const float *const views[2] = {rig->views[0], rig->views[1]};
    struct error error;
    fill(rig, number);
    assert_status(rig->method->ops->step(rig->method, views, rig->labels, &settings, &error),
                  STATUS_OK, &error);
}

// The sum of the losses stands for all of them.
static struct snapshot run_steps(enum way way, uint32_t accumulate)
{
    struct rig rig;
    open_rig(&rig, "cuda", 3, accumulate);
    rig.device->timed = way == EAGERLY;
    unsigned most = way == IN_FLIGHT ? rig.device->ops->steps_ahead : 0, waiting = 0;
    uint32_t seed = 29;
    double sum = 0;
    for (uint32_t i = 0; i < STEPS + most; i++) {
        if (i < STEPS) {
            queue_step_of(&rig, i);
            waiting++;
        }
        if (way == IN_FLIGHT) {
            dawdle(&seed);
        }
        if (waiting > most || i >= STEPS) {
            struct method_metrics metrics;
            struct error error;
            assert_status(rig.method->ops->collect(rig.method, &metrics, &error), STATUS_OK,
                          &error);
            assert_null(metrics.notice); // that steps are not recorded
            sum += metrics.loss;
            waiting--;
        }
    }
    struct snapshot snapshot = look_at(rig.method, sum);
    close_rig(&rig);
    return snapshot;
}

static void check_ways(void *const *state, const char *title, enum way left, enum way right)
{
    need_device(state);
    for (uint32_t accumulate = 1; accumulate <= 2; accumulate++) {
        struct snapshot a = run_steps(left, accumulate), b = run_steps(right, accumulate);
        check_same(title, &a, &b, 0);
        forget(&a);
        forget(&b);
    }
}

static void recorded_steps_are_those_queued_anew(void **state)
{
    check_ways(state, "recorded and eager", AT_ONCE, EAGERLY);
}

static void two_runs_are_the_same(void **state)
{
    check_ways(state, "two runs", AT_ONCE, AT_ONCE);
}

static void steps_in_flight_are_those_at_once(void **state)
{
    check_ways(state, "in flight and at once", IN_FLIGHT, AT_ONCE);
}

// --- checkpoints -------------------------------------------------------------------------------

static void save(const struct scratch *scratch, const struct rig *rig, uint64_t step)
{
    const struct checkpoint_state state = {.step = step, .config = "epochs: 3\n", .history = ""};
    char path[RUN_PATH];
    struct error error;
    assert_status(checkpoint_save(scratch->path, rig->device, rig->method, &state, 2, path, &error),
                  STATUS_OK, &error);
}

static void restore(const struct scratch *scratch, const struct rig *rig)
{
    char path[RUN_PATH], warning[1024];
    struct checkpoint_state state;
    struct safetensors *file;
    struct error error;
    assert_status(
        checkpoint_latest(scratch->path, path, sizeof path, warning, sizeof warning, &error),
        STATUS_OK, &error);
    assert_status(checkpoint_open(&file, path, &state, &error), STATUS_OK, &error);
    assert_status(checkpoint_restore(file, rig->device, rig->method, &error), STATUS_OK, &error);
    safetensors_close(&file);
}

// `from` goes on as `to`, with the same bits; then all take a step, and the control a nudged one.
static void hand_over(const struct scratch *scratch, struct rig *from, struct rig *to,
                      struct rig *control, uint32_t step)
{
    struct rig *rigs[3] = {from, to, control};
    struct snapshot snapshots[3];
    save(scratch, from, step);
    restore(scratch, to);
    restore(scratch, control);
    struct snapshot old = look_at(from->method, 0), restored = look_at(to->method, 0);
    check_same("restored", &old, &restored, gradient_count(from->method));
    forget(&old);
    forget(&restored);
    for (unsigned i = 0; i < 3; i++) {
        fill(rigs[i], step);
        if (i == 2) {
            nudge(rigs[i]->views, VALUES, step);
        }
        snapshots[i] =
            look_at(rigs[i]->method, learn(rigs[i]->method, rigs[i]->views, rigs[i]->labels));
    }
    unsigned exact = strcmp(from->device->ops->name, "cuda") == 0;
    check_near(exact ? "cuda to processor" : "processor to cuda", &snapshots[exact],
               &snapshots[1 - exact], &snapshots[2], 1);
    for (unsigned i = 0; i < 3; i++) {
        forget(&snapshots[i]);
    }
}

static void checkpoints_change_devices(void **state)
{
    need_device(state);
    struct scratch scratch;
    struct error error;
    struct rig first, middle, last, control;
    int lock;
    scratch_make(&scratch);
    assert_status(run_directory_open(scratch.path, &lock, &error), STATUS_OK, &error);
    run_directory_close(&lock);
    open_rig(&first, "cuda", 1, 1);
    open_rig(&middle, processor(), 2, 1);
    open_rig(&last, "cuda", 3, 1);
    open_rig(&control, processor(), 4, 1);
    learn(first.method, first.views, first.labels);
    hand_over(&scratch, &first, &middle, &control, 1);
    hand_over(&scratch, &middle, &last, &control, 2);
    close_rig(&first);
    close_rig(&middle);
    close_rig(&last);
    close_rig(&control);
    scratch_remove(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_are_those_of_the_processor),
        cmocka_unit_test(bf16_is_near_f32),
        cmocka_unit_test(recorded_steps_are_those_queued_anew),
        cmocka_unit_test(two_runs_are_the_same),
        cmocka_unit_test(steps_in_flight_are_those_at_once),
        cmocka_unit_test(checkpoints_change_devices),
    };
    return cmocka_run_group_tests_name("cuda step", tests, look_for_device, NULL);
}
