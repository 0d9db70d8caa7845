// The training loop on a tiny run: whatever interrupts it, resuming ends in the same bytes and the
// same log as an undisturbed run.
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "formats/file.h"
#include "tests/support/device_rows.h"
#include "tests/support/program.h"
#include "tests/support/run_end.h"
#include "tests/support/sample_dataset.h"
#include "tests/support/tiny_run.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/directory.h"
#include "trainer/run/history.h"
#include "trainer/run/pretrain.h"

#define IMAGES     35 // 4 steps of 8 an epoch, 3 left over
#define STEPS      12 // 3 epochs
#define NOTE_BYTES 8192

static struct sample_dataset sample;
static struct scratch scratch; // with a folder per run
static char undisturbed[300];  // the run that all others are compared with

// --- running ---------------------------------------------------------------------------------

// One call of pretrain_run and what it told.
struct session {
    struct pretrain_options options;
    struct pretrain_result result;
    struct error error;
    uint64_t stop_at;     // raise the stop flag after this step; 0 = never
    uint64_t space_after; // the disk is no longer full after this step; 0 = no change
    volatile sig_atomic_t stop;
    char notes[NOTE_BYTES];
    uint64_t steps_seen;
    double top1_seen;
};

static void watch(void *context, const struct pretrain_progress *progress)
{
    struct session *session = context;
    if (progress->notice) {
        size_t len = strlen(session->notes);
        snprintf(session->notes + len, NOTE_BYTES - len, "%s\n", progress->notice);
        return;
    }
    session->steps_seen++;
    session->top1_seen = progress->top1;
    session->stop = progress->step == session->stop_at;
    if (progress->step == session->space_after) {
        file_fault = NULL;
    }
}

static void session_init(struct session *session, const char *directory)
{
    *session = (struct session){.options = {.data = sample.path[DATASET_SHARDS],
                                            .run_directory = directory,
                                            .config = tiny_config(),
                                            .progress = watch}};
}

static enum status session_run(struct session *session)
{
    session->options.context = session;
    session->options.stop = &session->stop;
    return pretrain_run(&session->options, &session->result, &session->error);
}

// Ends right after `stop_at` (0: with the last step). A stop where steps are in flight ends after
// those: there `max_steps` takes its place.
static enum status session_run_until(struct session *session, uint64_t stop_at)
{
    if (tiny_steps_ahead() == 0 || stop_at == 0 || stop_at >= STEPS) {
        session->stop_at = stop_at;
        return session_run(session);
    }
    session->options.config.max_steps = (int64_t)stop_at;
    enum status status = session_run(session);
    return status == STATUS_OK ? STATUS_STOPPED : status;
}

// Runs, or resumes, until after `stop_at` (0: to the end).
static void go_accumulating(const char *directory, uint64_t stop_at, int64_t accumulate)
{
    struct session session;
    session_init(&session, directory);
    session.options.config.accumulate = accumulate;
    session.options.resume = true;
    enum status wanted = stop_at > 0 && stop_at < STEPS ? STATUS_STOPPED : STATUS_OK;
    assert_status(session_run_until(&session, stop_at), wanted, &session.error);
}

static void go(const char *directory, uint64_t stop_at)
{
    go_accumulating(directory, stop_at, 1);
}

static void new_directory(char *directory)
{
    static unsigned number;
    snprintf(directory, 300, "%s/run%u", scratch.path, number++);
}

// --- comparing -------------------------------------------------------------------------------

static char *read_text(const char *directory, const char *name)
{
    char path[RUN_PATH];
    uint8_t *bytes;
    size_t len;
    struct error error;
    assert_status(run_directory_path(directory, name, path, &error), STATUS_OK, &error);
    assert_status(file_read_all(path, 1u << 26, &bytes, &len, &error), STATUS_OK, &error);
    return (char *)bytes;
}

// Blanks what follows ","NAME":" up to the end of the object, which is all that timing may change.
static void drop_timing(char *text, const char *name)
{
    char key[32];
    snprintf(key, sizeof key, ",\"%s\":", name);
    for (char *at = text; (at = strstr(at, key)); at++) {
        memset(at, ' ', strcspn(at, "\n"));
    }
}

static void assert_same_log(const char *left, const char *right)
{
    char *a = read_text(left, "metrics.jsonl"), *b = read_text(right, "metrics.jsonl");
    drop_timing(a, "timing");
    drop_timing(b, "timing");
    // Blanks of different lengths stand for timings: compare line by line up to them.
    char *a_next, *b_next, *x = strtok_r(a, "\n", &a_next), *y = strtok_r(b, "\n", &b_next);
    unsigned lines = 0;
    for (; x && y; x = strtok_r(NULL, "\n", &a_next), y = strtok_r(NULL, "\n", &b_next)) {
        x[strcspn(x, " ")] = y[strcspn(y, " ")] = '\0';
        assert_string_equal(x, y);
        lines++;
    }
    assert_null(x);
    assert_null(y);
    assert_true(lines >= STEPS / 2);
    free(a);
    free(b);
}

static void assert_same_history(const char *left, const char *right)
{
    struct history a, b;
    struct error error;
    assert_status(history_parse(&a, left, &error), STATUS_OK, &error);
    assert_status(history_parse(&b, right, &error), STATUS_OK, &error);
    a.seconds = b.seconds = 0;
    char x[HISTORY_BYTES], y[HISTORY_BYTES];
    history_print(&a, x);
    history_print(&b, y);
    assert_string_equal(x, y);
}

// Step, position, history and every byte of every tensor of the newest checkpoints, and the logs.
static void assert_same_run(const char *left, const char *right)
{
    struct checkpoint_state a, b;
    struct safetensors *x = run_end_open(left, &a), *y = run_end_open(right, &b);
    assert_int_equal(a.step, b.step);
    assert_int_equal(a.position.epoch, b.position.epoch);
    assert_int_equal(a.position.batch, b.position.batch);
    assert_same_history(a.history, b.history);
    assert_same_tensors(x, y);
    safetensors_close(&x);
    safetensors_close(&y);
    assert_same_log(left, right);
}

static int set_up(void **state)
{
    (void)state;
    sample_dataset_make(&sample, IMAGES, NOWHERE);
    scratch_make(&scratch);
    new_directory(undisturbed);
    go(undisturbed, 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sample_dataset_remove(&sample);
    scratch_remove(&scratch);
    return 0;
}

static int clear_fault(void **state)
{
    (void)state;
    file_fault = NULL;
    return 0;
}

// --- the run itself --------------------------------------------------------------------------

static void a_run_learns_and_reports(void **state)
{
    (void)state;
    char directory[300];
    struct session session;
    new_directory(directory);
    session_init(&session, directory);
    assert_status(session_run(&session), STATUS_OK, &session.error);
    assert_int_equal(session.result.step, STEPS);
    assert_int_equal(session.steps_seen, STEPS);
    assert_true(isfinite(session.result.loss) && session.result.loss > 0);
    assert_true(session.top1_seen >= 0 && session.top1_seen <= 1);
    assert_true(file_exists(session.result.checkpoint));
    char *report = read_text(directory, "report.json");
    assert_non_null(strstr(report, "\"ended\": \"finished\""));
    assert_non_null(strstr(report, "\"images\": 35"));
    free(report);
    char *config = read_text(directory, "config.yaml");
    assert_non_null(strstr(config, "encoder: tiny"));
    free(config);
    assert_same_run(directory, undisturbed); // two runs, the same bytes
}

// The log holds the last step's schedule values: rate 2 * 8 / 256 at the end of the warm-up.
static void the_log_follows_the_schedule(void **state)
{
    (void)state;
    char *log = read_text(undisturbed, "metrics.jsonl");
    assert_int_equal(strncmp(log, "{\"step\":2,\"epoch\":0,\"loss\":", 27), 0);
    assert_non_null(strstr(log, "{\"step\":12,\"epoch\":2,"));
    const char *positive = strstr(log, "\"positive_cosine\":");
    const char *negative = strstr(log, "\"negative_cosine\":");
    assert_non_null(positive);
    assert_non_null(negative);
    assert_true(fabs(atof(positive + 18)) < 1 && fabs(atof(negative + 18)) < 1);
    assert_true(atof(positive + 18) != atof(negative + 18));
    // 1 epoch of 35 images is 4 steps of warm-up: step 4 (index 3) has 3/4 of the rate.
    const char *fourth = strstr(log, "{\"step\":4,");
    assert_non_null(fourth);
    const char *rate = strstr(fourth, "\"learning_rate\":");
    assert_non_null(rate);
    assert_true(fabs(atof(rate + 16) - 0.75 * 2 * 8 / 256) < 1e-7);
    free(log);
}

static void a_run_is_not_overwritten(void **state)
{
    (void)state;
    struct session session;
    session_init(&session, undisturbed);
    assert_status(session_run(&session), STATUS_EXISTS, &session.error);
    assert_non_null(strstr(session.error.reason, "--resume"));
}

static void a_run_that_never_began_may_begin(void **state)
{
    (void)state;
    char directory[300];
    struct session session;
    new_directory(directory);
    session_init(&session, directory);
    session.stop = 1;
    assert_status(session_run(&session), STATUS_STOPPED, &session.error);
    assert_int_equal(session.steps_seen, 0);
    session_init(&session, directory);
    session.options.config.seed = 5; // nothing was learnt with the other one
    assert_status(session_run(&session), STATUS_OK, &session.error);
}

static void a_batch_larger_than_the_data_is_explained(void **state)
{
    (void)state;
    char directory[300];
    struct session session;
    new_directory(directory);
    session_init(&session, directory);
    session.options.config.batch = 36;
    assert_status(session_run(&session), STATUS_CONFIG, &session.error);
    assert_non_null(strstr(session.error.reason, "at most 35"));
    assert_false(file_exists(directory));
}

static void without_classifier_there_is_no_accuracy(void **state)
{
    (void)state;
    char directory[300];
    struct session session;
    new_directory(directory);
    session_init(&session, directory);
    session.options.config.classifier = false;
    session.options.config.max_steps = 2;
    assert_status(session_run(&session), STATUS_OK, &session.error);
    assert_int_equal(session.result.step, 2);
    assert_true(isnan(session.result.top1));
    char *log = read_text(directory, "metrics.jsonl");
    assert_non_null(strstr(log, "\"top1\":null"));
    free(log);
}

// --- resuming --------------------------------------------------------------------------------

// What was handed over before the stop is taken in, and belongs to the checkpoint.
static void a_stop_takes_in_what_is_in_flight(void **state)
{
    (void)state;
    char directory[300];
    struct session session;
    new_directory(directory);
    session_init(&session, directory);
    session.stop_at = 5;
    assert_status(session_run(&session), STATUS_STOPPED, &session.error);
    assert_in_range(session.result.step, 5, 5 + tiny_steps_ahead());
    assert_int_equal(session.steps_seen, session.result.step);
    go(directory, 0);
    assert_same_run(directory, undisturbed);
}

static void resuming_after_any_step_changes_nothing(void **state)
{
    (void)state;
    for (uint64_t stop = 1; stop < STEPS; stop++) {
        char directory[300];
        new_directory(directory);
        go(directory, stop);
        go(directory, 0);
        assert_same_run(directory, undisturbed);
    }
}

// A batch is one step whatever it is cut into, so checkpoints, log and order of the images are at
// the same places.
static void resuming_changes_nothing_with_accumulation(void **state)
{
    (void)state;
    char whole[300], directory[300];
    new_directory(whole);
    go_accumulating(whole, 0, 4);
    for (uint64_t stop = 1; stop < STEPS; stop++) {
        new_directory(directory);
        go_accumulating(directory, stop, 4);
        go_accumulating(directory, 0, 4);
        assert_same_run(directory, whole);
    }
    struct checkpoint_state last;
    struct safetensors *file = run_end_open(whole, &last);
    assert_int_equal(last.step, STEPS);
    safetensors_close(&file);
}

static void recomputing_may_begin_on_resume(void **state)
{
    (void)state;
    char directory[300];
    struct session session;
    new_directory(directory);
    go(directory, 5);
    session_init(&session, directory);
    session.options.resume = true;
    session.options.config.recompute = true;
    assert_status(session_run(&session), STATUS_OK, &session.error);
    assert_non_null(strstr(session.notes, "recomputed"));
    assert_same_run(directory, undisturbed);
}

// Starts or resumes on a device; how it ends.
static double loss_on(const char *directory, const char *device)
{
    struct session session;
    session_init(&session, directory);
    session.options.resume = true;
    snprintf(session.options.config.device, sizeof session.options.config.device, "%s", device);
    assert_status(session_run(&session), STATUS_OK, &session.error);
    assert_int_equal(session.result.step, STEPS);
    return session.result.loss;
}

// The same run but for the order of sums; devices once refused each other's runs.
static void a_run_goes_on_on_another_device(void **state)
{
    (void)state;
    char directory[300];
    new_directory(directory);
    double loss = loss_on(directory, tiny_device());
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        new_directory(directory);
        go(directory, 5);
        assert_true(fabs(loss_on(directory, (*ops)->name) / loss - 1) < 1e-3);
    }
}

// `auto` is what the device found when the run began; a resumed run stays with what it has.
static void auto_precision_is_settled_once(void **state)
{
    (void)state;
    char directory[300];
    struct session session;
    new_directory(directory);
    go(directory, 5); // f32
    session_init(&session, directory);
    session.options.resume = true;
    session.options.config.precision = DEVICE_AUTO;
    assert_status(session_run(&session), STATUS_OK, &session.error);
    assert_same_run(directory, undisturbed);

    new_directory(directory);
    session_init(&session, directory);
    session.options.config.precision = DEVICE_AUTO;
    session.options.config.max_steps = 1;
    snprintf(session.options.config.device, sizeof session.options.config.device, "ref");
    assert_status(session_run(&session), STATUS_OK, &session.error);
    assert_non_null(strstr(session.notes, "f32"));
    char *config = read_text(directory, "config.yaml");
    char *report = read_text(directory, "report.json");
    assert_non_null(strstr(config, "precision: f32"));
    assert_non_null(strstr(report, "f32"));
    free(config);
    free(report);
}

static void a_precision_that_is_lacking_is_refused(void **state)
{
    (void)state;
    char directory[300];
    struct session session;
    new_directory(directory);
    session_init(&session, directory);
    session.options.config.precision = DEVICE_BF16;
    snprintf(session.options.config.device, sizeof session.options.config.device, "ref");
    assert_status(session_run(&session), STATUS_UNSUPPORTED, &session.error);
}

static void finish_on_the_device(const char *directory, const char *device, uint64_t stop_at,
                                 enum status wanted, struct session *session)
{
    session_init(session, directory);
    struct run_config *config = &session->options.config;
    config->augment = RUN_AUGMENT_DEVICE;
    snprintf(config->device, sizeof config->device, "%s", device);
    session->options.resume = true;
    session->stop_at = stop_at;
    assert_status(session_run(session), wanted, &session->error);
}

static void views_finished_by_the_device_resume_as_exactly(void **state)
{
    (void)state;
    char whole[300], broken[300];
    struct session session;
    new_directory(whole);
    new_directory(broken);
    finish_on_the_device(whole, "ref", 0, STATUS_OK, &session);
    assert_true(isfinite(session.result.loss));
    finish_on_the_device(broken, "ref", 1, STATUS_STOPPED, &session);
    finish_on_the_device(broken, "ref", 0, STATUS_OK, &session);
    assert_same_run(broken, whole);
}

static void a_device_that_cannot_finish_views_is_refused(void **state)
{
    (void)state;
    char directory[300];
    struct session session;
    if (strcmp(tiny_device(), "cpu") != 0) {
        printf("skipped: device 'cpu' was not built in\n");
        skip();
    }
    new_directory(directory);
    finish_on_the_device(directory, "cpu", 0, STATUS_CONFIG, &session);
    assert_non_null(strstr(session.error.reason, "set augment=host"));
}

// A network wide enough for the convolutions that only bf16 has.
static void go_in_bf16(const char *directory, uint64_t stop_at)
{
    struct session session;
    session_init(&session, directory);
    struct run_config *config = &session.options.config;
    config->precision = DEVICE_BF16;
    config->threads = 2;
    config->model.encoder = MODEL_RESNET18;
    config->model.width = 0.5;
    session.options.resume = true;
    assert_status(session_run_until(&session, stop_at), stop_at > 0 ? STATUS_STOPPED : STATUS_OK,
                  &session.error);
}

static void bf16_resumes_as_exactly(void **state)
{
    (void)state;
    struct device *device;
    struct error error;
    if (device_open(&device, tiny_device(), 1, DEVICE_BF16, &error) != STATUS_OK) {
        printf("skipped: %s\n", error.reason);
        skip();
    }
    device_close(&device);
    char whole[300], broken[300];
    new_directory(whole);
    new_directory(broken);
    go_in_bf16(whole, 0);
    go_in_bf16(broken, 2);
    go_in_bf16(broken, 5);
    go_in_bf16(broken, 0);
    assert_same_run(broken, whole);
}

// As `go`, with a network that keeps no batch statistics and heads of other depths.
static void go_with_norm(const char *directory, int norm, int head_norm, uint64_t stop_at)
{
    struct session session;
    session_init(&session, directory);
    struct model_config *model = &session.options.config.model;
    model->norm = norm;
    model->head_norm = 1 + head_norm;
    model->norm_groups = 4;
    model->weight_standardisation = norm == MODEL_NORM_GROUP;
    model->shortcut = MODEL_SHORTCUT_TORCH;
    snprintf(model->projector_layers, sizeof model->projector_layers, "12,8");
    snprintf(model->predictor_layers, sizeof model->predictor_layers, "none");
    session.options.resume = true;
    assert_status(session_run_until(&session, stop_at), stop_at > 0 ? STATUS_STOPPED : STATUS_OK,
                  &session.error);
    assert_true(isfinite(session.result.loss));
}

static void other_networks_resume_as_well(void **state)
{
    (void)state;
    static const int norms[][2] = {{MODEL_NORM_GROUP, MODEL_NORM_LAYER},
                                   {MODEL_NORM_AFFINE, MODEL_NORM_AFFINE}};
    for (size_t i = 0; i < 2; i++) {
        char whole[300], broken[300];
        new_directory(whole);
        new_directory(broken);
        go_with_norm(whole, norms[i][0], norms[i][1], 0);
        go_with_norm(broken, norms[i][0], norms[i][1], 5);
        go_with_norm(broken, norms[i][0], norms[i][1], 0);
        assert_same_run(broken, whole);
    }
}

static void stopping_after_every_step_changes_nothing(void **state)
{
    (void)state;
    char directory[300];
    new_directory(directory);
    for (uint64_t stop = 1; stop <= STEPS; stop++) {
        go(directory, stop);
    }
    assert_same_run(directory, undisturbed);
    go(directory, 0); // nothing left to do
    assert_same_run(directory, undisturbed);
}

// What a kill leaves: a log that is ahead of the checkpoint and ends in half a line.
static void the_log_is_cut_back(void **state)
{
    (void)state;
    char directory[300], path[RUN_PATH];
    new_directory(directory);
    go(directory, 5);
    snprintf(path, sizeof path, "%s/metrics.jsonl", directory);
    FILE *log = fopen(path, "a");
    assert_non_null(log);
    fputs("{\"step\":6,\"epoch\":1,\"loss\":99}\n{\"step\":8,\"epo", log);
    fclose(log);
    go(directory, 0);
    assert_same_run(directory, undisturbed);
}

static void max_steps_can_be_raised(void **state)
{
    (void)state;
    char directory[300];
    struct session session;
    new_directory(directory);
    session_init(&session, directory);
    session.options.config.max_steps = 7;
    assert_status(session_run(&session), STATUS_OK, &session.error);
    assert_int_equal(session.result.step, 7);
    go(directory, 0);
    assert_same_run(directory, undisturbed);
}

static void damage(const char *directory, uint64_t step)
{
    char path[RUN_PATH];
    snprintf(path, sizeof path, "%s/checkpoints/checkpoint-%012llu.safetensors", directory,
             (unsigned long long)step);
    assert_int_equal(truncate(path, 3000), 0);
}

static void a_damaged_checkpoint_is_passed_over_loudly(void **state)
{
    (void)state;
    char directory[300];
    struct session session;
    new_directory(directory);
    go(directory, 10); // checkpoints of steps 4, 8 and 10
    damage(directory, 10);
    damage(directory, 8);
    session_init(&session, directory);
    session.options.resume = true;
    assert_status(session_run(&session), STATUS_OK, &session.error);
    assert_non_null(strstr(session.notes, "WARNING"));
    assert_non_null(strstr(session.notes, "checkpoint-000000000010"));
    assert_non_null(strstr(session.notes, "step 4 of 12"));
    assert_same_run(directory, undisturbed);
}

static void when_all_are_damaged_it_does_not_start_over(void **state)
{
    (void)state;
    char directory[300];
    struct session session;
    new_directory(directory);
    go(directory, 5);
    damage(directory, 4);
    damage(directory, 5);
    session_init(&session, directory);
    session.options.resume = true;
    assert_status(session_run(&session), STATUS_CORRUPT, &session.error);
    assert_int_equal(session.steps_seen, 0);
}

static void what_is_learnt_cannot_change_on_resume(void **state)
{
    (void)state;
    char directory[300];
    struct session session;
    new_directory(directory);
    go(directory, 2);
    session_init(&session, directory);
    session.options.resume = true;
    session.options.config.base_learning_rate = 0.5;
    assert_status(session_run(&session), STATUS_CONFIG, &session.error);
    assert_non_null(strstr(session.error.reason, "base_learning_rate"));
    session_init(&session, directory);
    session.options.resume = true;
    session.options.data = sample.path[DATASET_LMDB];
    assert_status(session_run(&session), STATUS_CONFIG, &session.error);
    assert_non_null(strstr(session.error.reason, "another dataset"));
    go(directory, 0);
    assert_same_run(directory, undisturbed);
}

// Tensors whose name begins with `prefix`, and whether the first of them holds only zeros.
static size_t count_tensors(const char *directory, const char *prefix, bool *zero)
{
    struct checkpoint_state state;
    struct safetensors *file = run_end_open(directory, &state);
    size_t count = 0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct tensor *tensor = safetensors_at(file, i);
        if (strncmp(tensor->name, prefix, strlen(prefix)) == 0 && count++ == 0) {
            *zero = true;
            for (size_t byte = 0; byte < tensor->bytes; byte++) {
                *zero = *zero && ((const uint8_t *)tensor->data)[byte] == 0;
            }
        }
    }
    safetensors_close(&file);
    return count;
}

static void run_optimizer(const char *directory, int optimizer, uint64_t stop_at)
{
    struct session session;
    session_init(&session, directory);
    struct run_config *config = &session.options.config;
    config->optimizer = optimizer;
    config->base_learning_rate = optimizer == OPTIMIZER_ADAMW ? 0.05 : 0.5;
    config->nesterov = optimizer == OPTIMIZER_SGD || optimizer == OPTIMIZER_LARS_SUNCET;
    config->lars_clip = optimizer == OPTIMIZER_LARS_SOLO_LEARN;
    config->predictor_rate = 10;
    config->scaling = RUN_SCALING_MOVING_AVERAGE;
    session.options.resume = true;
    assert_status(session_run_until(&session, stop_at), stop_at ? STATUS_STOPPED : STATUS_OK,
                  &session.error);
}

// At every step of an epoch, in the middle of the warm-up and after it.
static void resuming_changes_nothing_for_any_optimizer(void **state)
{
    (void)state;
    for (int optimizer = OPTIMIZER_LARS; optimizer <= OPTIMIZER_ADAMW; optimizer++) {
        char whole[300], directory[300];
        bool zero = true;
        new_directory(whole);
        run_optimizer(whole, optimizer, 0);
        size_t params = count_tensors(whole, "online/", &zero);
        assert_int_equal(count_tensors(whole, "momentum/", &zero), params);
        assert_false(zero);
        bool adamw = optimizer == OPTIMIZER_ADAMW;
        assert_int_equal(count_tensors(whole, "second_moment/", &zero), adamw ? params : 0);
        assert_int_equal(count_tensors(whole, "optimizer/steps", &zero), adamw ? 1 : 0);
        assert_false(zero);
        for (uint64_t stop = 1; stop <= 5; stop++) {
            new_directory(directory);
            run_optimizer(directory, optimizer, stop);
            run_optimizer(directory, optimizer, 0);
            assert_same_run(directory, whole);
        }
    }
}

static void the_optimizer_cannot_change_on_resume(void **state)
{
    (void)state;
    char directory[300];
    struct session session;
    new_directory(directory);
    go(directory, 2);
    session_init(&session, directory);
    session.options.resume = true;
    session.options.config.optimizer = OPTIMIZER_SGD;
    assert_status(session_run(&session), STATUS_CONFIG, &session.error);
    assert_non_null(strstr(session.error.reason, "optimizer: lars"));
}

// --- trouble ---------------------------------------------------------------------------------

static const char *full_for; // part of a path that finds the disk full

static int disk_is_full(const char *call, const char *path)
{
    (void)call;
    return path && strstr(path, full_for) ? ENOSPC : 0;
}

static void training_goes_on_when_the_disk_is_full(void **state)
{
    (void)state;
    char directory[300];
    struct session session;
    new_directory(directory);
    session_init(&session, directory);
    full_for = "checkpoint-000000000004";
    file_fault = disk_is_full;
    assert_status(session_run(&session), STATUS_OK, &session.error);
    file_fault = NULL;
    assert_non_null(strstr(session.notes, "WARNING: no checkpoint could be written"));
    assert_same_run(directory, undisturbed);
}

static void a_missing_last_checkpoint_is_a_failure(void **state)
{
    (void)state;
    char directory[300], path[RUN_PATH], warning[1024];
    struct session session;
    struct error error;
    new_directory(directory);
    session_init(&session, directory);
    full_for = "checkpoint-000000000012";
    file_fault = disk_is_full;
    assert_status(session_run(&session), STATUS_NO_SPACE, &session.error);
    file_fault = NULL;
    assert_int_equal(session.result.step, STEPS);
    assert_non_null(strstr(session.error.reason, "step 8"));
    assert_status(checkpoint_latest(directory, path, sizeof path, warning, sizeof warning, &error),
                  STATUS_OK, &error);
    go(directory, 0);
    assert_same_run(directory, undisturbed);
}

static void the_log_catches_up_after_a_full_disk(void **state)
{
    (void)state;
    char directory[300];
    struct session session;
    new_directory(directory);
    session_init(&session, directory);
    full_for = "metrics.jsonl";
    file_fault = disk_is_full;
    session.space_after = 7;
    assert_status(session_run(&session), STATUS_OK, &session.error);
    assert_non_null(strstr(session.notes, "WARNING: the log"));
    assert_non_null(strstr(session.notes, "WARNING: no checkpoint")); // the log would have a hole
    assert_same_run(directory, undisturbed);
}

static void a_bad_loss_stops_the_run(void **state)
{
    (void)state;
    char directory[300];
    struct session session;
    new_directory(directory);
    session_init(&session, directory);
    session.options.config.base_learning_rate = 1000;
    session.options.config.trust = 1;
    session.options.config.warmup_epochs = 0;
    session.options.config.epochs = 100;
    assert_status(session_run(&session), STATUS_INVALID, &session.error);
    assert_non_null(strstr(session.error.reason, "step"));
    assert_non_null(strstr(session.error.reason, "base_learning_rate"));
    assert_true(session.result.step > 4); // there was a checkpoint, and it is a good one
    struct checkpoint_state last;
    struct safetensors *file = run_end_open(directory, &last);
    safetensors_close(&file);
}

// Checkpoints of programs that did not know the cosines: unknown in the next line, known again
// after.
static void a_history_may_lack_the_cosines(void **state)
{
    (void)state;
    static const char old[] =
        "{\"window_steps\":1,\"steps\":3,\"low_steps\":0,\"collapsed\":false,\"loss\":2.5,"
        "\"representation\":2.5,\"classification\":0,\"top1\":null,\"top5\":null,\"spread\":0.1,"
        "\"smooth_loss\":2.5,\"smooth_top1\":null,\"smooth_spread\":0.1,\"seconds\":1}";
    const struct method_metrics metrics = {.loss = 1.5, .positive_cosine = 0.5};
    struct history history;
    struct metrics_line line;
    struct error error;
    assert_status(history_parse(&history, old, &error), STATUS_OK, &error);
    history_add(&history, &metrics, 0.25);
    history_take(&history, &line);
    assert_true(line.loss == 2 && isnan(line.positive_cosine));
    history_add(&history, &metrics, 0.25);
    history_take(&history, &line);
    assert_true(line.loss == 1.5 && line.positive_cosine == 0.5 && line.negative_cosine == 0);
    assert_int_equal(history_parse(&history, "{\"steps\":3}", &error), STATUS_CORRUPT);
}

static void the_collapse_alarm_rises_and_falls_once(void **state)
{
    (void)state;
    struct history history = {0};
    struct method_metrics metrics = {.spread = 0.01};
    unsigned risen = 0, fallen = 0;
    for (int step = 0; step < 300; step++) {
        metrics.spread = step >= 200 ? 0.2 : 0.01;
        enum history_event event = history_add(&history, &metrics, 0.25);
        risen += event == HISTORY_COLLAPSED;
        fallen += event == HISTORY_RECOVERED;
        assert_int_equal(history.collapsed, step >= 49 && step < 200);
    }
    assert_int_equal(risen, 1);
    assert_int_equal(fallen, 1);
}

#define TEST(name) cmocka_unit_test_teardown(name, clear_fault)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_run_learns_and_reports),
        TEST(the_log_follows_the_schedule),
        TEST(a_run_is_not_overwritten),
        TEST(a_run_that_never_began_may_begin),
        TEST(a_batch_larger_than_the_data_is_explained),
        TEST(without_classifier_there_is_no_accuracy),
        TEST(a_stop_takes_in_what_is_in_flight),
        TEST(resuming_after_any_step_changes_nothing),
        TEST(resuming_changes_nothing_with_accumulation),
        TEST(recomputing_may_begin_on_resume),
        TEST(a_run_goes_on_on_another_device),
        TEST(auto_precision_is_settled_once),
        TEST(bf16_resumes_as_exactly),
        TEST(a_precision_that_is_lacking_is_refused),
        TEST(views_finished_by_the_device_resume_as_exactly),
        TEST(a_device_that_cannot_finish_views_is_refused),
        TEST(other_networks_resume_as_well),
        TEST(stopping_after_every_step_changes_nothing),
        TEST(the_log_is_cut_back),
        TEST(max_steps_can_be_raised),
        TEST(a_damaged_checkpoint_is_passed_over_loudly),
        TEST(when_all_are_damaged_it_does_not_start_over),
        TEST(what_is_learnt_cannot_change_on_resume),
        TEST(resuming_changes_nothing_for_any_optimizer),
        TEST(the_optimizer_cannot_change_on_resume),
        TEST(training_goes_on_when_the_disk_is_full),
        TEST(a_missing_last_checkpoint_is_a_failure),
        TEST(the_log_catches_up_after_a_full_disk),
        TEST(a_bad_loss_stops_the_run),
        TEST(a_history_may_lack_the_cosines),
        TEST(the_collapse_alarm_rises_and_falls_once),
    };
    return cmocka_run_group_tests_name("pretrain", tests, set_up, tear_down);
}
