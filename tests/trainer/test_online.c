// Probing during training: the figures that a run gets for its epochs, and that training does not
// change by a bit, whatever interrupts it.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "formats/file.h"
#include "tests/support/program.h"
#include "tests/support/run_end.h"
#include "tests/support/sample_dataset.h"
#include "tests/support/tiny_run.h"
#include "trainer/probe/online.h"
#include "trainer/probe/probe.h"
#include "trainer/run/directory.h"
#include "trainer/run/pretrain.h"

#define IMAGES 35 // 4 steps of 8 an epoch
#define STEPS  12 // 3 epochs

static struct sample_dataset sample, probe, other;
static struct scratch scratch;

// --- running ---------------------------------------------------------------------------------

struct session {
    struct pretrain_options options;
    struct pretrain_result result;
    struct error error;
    uint64_t stop_at;
    volatile sig_atomic_t stop;
    char notes[8192];
};

static void watch(void *context, const struct pretrain_progress *progress)
{
    struct session *session = context;
    if (progress->notice) {
        size_t len = strlen(session->notes);
        snprintf(session->notes + len, sizeof session->notes - len, "%s\n", progress->notice);
    } else if (session->stop_at > 0 && progress->step >= session->stop_at) {
        session->stop = 1;
    }
}

static void new_directory(char *directory)
{
    static unsigned number;
    snprintf(directory, 300, "%s/run%u", scratch.path, number++);
}

static void session_init(struct session *session, const char *directory, bool probing)
{
    *session = (struct session){.options = {.data = sample.path[DATASET_SHARDS],
                                            .run_directory = directory,
                                            .resume = true,
                                            .config = tiny_config(),
                                            .progress = watch}};
    struct run_config *config = &session->options.config;
    if (probing) {
        snprintf(config->probe, sizeof config->probe, "%s", probe.path[DATASET_SHARDS]);
        config->probe_bank = 20;
        config->probe_images = 8;
    }
}

static enum status session_run(struct session *session)
{
    session->options.context = session;
    session->options.stop = &session->stop;
    return pretrain_run(&session->options, &session->result, &session->error);
}

static void go(const char *directory, bool probing, uint64_t stop_at)
{
    struct session session;
    session_init(&session, directory, probing);
    session.stop_at = stop_at;
    enum status wanted = stop_at > 0 && stop_at < STEPS ? STATUS_STOPPED : STATUS_OK;
    assert_status(session_run(&session), wanted, &session.error);
}

// Probes of a log: "STEP KNN RANKME;" of each, without what timing may change.
static void probes_of(const char *directory, char *text, size_t capacity)
{
    char path[400];
    size_t len = 0;
    text[0] = '\0';
    snprintf(path, sizeof path, "%s/metrics.jsonl", directory);
    FILE *log = fopen(path, "r");
    assert_non_null(log);
    for (char line[4096]; fgets(line, sizeof line, log);) {
        json_t *object = json_loads(line, 0, NULL), *figures = json_object_get(object, "probe");
        if (figures != NULL) {
            char *dump = json_dumps(figures, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(17));
            len += (size_t)snprintf(text + len, capacity - len, "%lld %s;",
                                    (long long)json_integer_value(json_object_get(object, "step")),
                                    dump);
            free(dump);
        }
        json_decref(object);
    }
    fclose(log);
}

static void assert_same_probes(const char *left, const char *right)
{
    char a[4096], b[4096];
    probes_of(left, a, sizeof a);
    probes_of(right, b, sizeof b);
    assert_string_equal(a, b);
}

// --- what a probe says -----------------------------------------------------------------------

static void every_epoch_gets_its_figures(void **state)
{
    (void)state;
    char directory[300], probes[4096];
    struct session session;
    new_directory(directory);
    session_init(&session, directory, true);
    assert_status(session_run(&session), STATUS_OK, &session.error);
    probes_of(directory, probes, sizeof probes);
    assert_int_equal(strncmp(probes, "4 {\"images\": 8, \"bank\": 20, \"knn\": ", 34), 0);
    assert_non_null(strstr(probes, ";8 {"));
    assert_non_null(strstr(probes, ";12 {"));
    assert_true(session.result.knn >= 0 && session.result.knn <= 1);
    assert_true(session.result.rankme >= 1);
    assert_non_null(strstr(session.notes, "epoch 3: kNN top-1 "));
    assert_non_null(strstr(session.notes, "RankMe"));
}

// The same images, the same encoder, the same votes as of the probe that a person runs.
static void it_is_the_knn_of_eval(void **state)
{
    (void)state;
    char directory[300];
    struct session session;
    struct error error;
    struct features bank, test;
    struct probe_options options;
    struct probe_score score;
    struct encoder *encoder;
    new_directory(directory);
    session_init(&session, directory, true);
    struct run_config *config = &session.options.config;
    snprintf(config->probe_test, sizeof config->probe_test, "%s", other.path[DATASET_LMDB]);
    config->probe_bank = config->probe_images = 1000;
    config->probe_every = 2;
    assert_status(session_run(&session), STATUS_OK, &session.error);
    char probes[4096];
    probes_of(directory, probes, sizeof probes);
    assert_null(strstr(probes, "4 {\"images\"")); // epochs 2 and, as the last, 3
    assert_non_null(strstr(probes, "12 {\"images\": 20, \"bank\": 30"));
    struct dataset *bank_data = sample_dataset_open(&probe, DATASET_SHARDS);
    struct dataset *test_data = sample_dataset_open(&other, DATASET_LMDB);
    probe_options_init(&options);
    assert_status(
        encoder_open(&encoder, session.result.checkpoint, tiny_device(), 1, false, &error),
        STATUS_OK, &error);
    assert_status(features_extract(&bank, encoder, bank_data, &options, &error), STATUS_OK, &error);
    assert_status(features_extract(&test, encoder, test_data, &options, &error), STATUS_OK, &error);
    assert_status(knn_score(&bank, &test, &knn_conventions[0].config, &score, &error), STATUS_OK,
                  &error);
    assert_true(fabs(score.top1 / 100 - session.result.knn) < 1e-12);
    double rank;
    assert_status(quality_rank(&rank, bank.values, bank.count, bank.width, &error), STATUS_OK,
                  &error);
    assert_true(fabs(rank - session.result.rankme) < 1e-6 * rank);
    features_free(&bank);
    features_free(&test);
    encoder_close(&encoder);
    dataset_close(&bank_data);
    dataset_close(&test_data);
}

// --- that nothing else changes ---------------------------------------------------------------

static void training_does_not_change_by_a_bit(void **state)
{
    (void)state;
    char plain[300], probed[300];
    new_directory(plain);
    new_directory(probed);
    go(plain, false, 0);
    go(probed, true, 0);
    assert_same_end(plain, probed);
}

static void resuming_anywhere_gives_the_same_probes(void **state)
{
    (void)state;
    char whole[300], parts[300];
    new_directory(whole);
    go(whole, true, 0);
    for (uint64_t stop = 3; stop <= 9; stop++) { // 4 and 8 are ends of epochs
        new_directory(parts);
        go(parts, true, stop);
        go(parts, true, 0);
        assert_same_end(whole, parts);
        assert_same_probes(whole, parts);
    }
}

// A kill between the checkpoint of an epoch's end and the line of its probe.
static void a_probe_that_a_kill_came_before_is_made_up(void **state)
{
    (void)state;
    char whole[300], cut[300], path[RUN_PATH];
    new_directory(whole);
    new_directory(cut);
    go(whole, true, 0);
    go(cut, true, 0);
    snprintf(path, sizeof path, "%s/metrics.jsonl", cut);
    uint8_t *text;
    size_t len;
    assert_status(file_read_all(path, 1u << 20, &text, &len, NULL), STATUS_OK, NULL);
    char *last = strstr((char *)text, "{\"step\":12,\"epoch\":2,\"probe\"");
    assert_non_null(last);
    assert_int_equal(truncate(path, last - (char *)text), 0);
    free(text);
    go(cut, true, 0);
    assert_same_probes(whole, cut);
    go(cut, true, 0); // and only once
    assert_same_probes(whole, cut);
}

static void it_may_begin_and_end_on_resume(void **state)
{
    (void)state;
    char whole[300], parts[300], probes[4096];
    new_directory(whole);
    new_directory(parts);
    go(whole, false, 0);
    go(parts, false, 5);
    go(parts, true, 9);
    go(parts, false, 0);
    assert_same_end(whole, parts);
    probes_of(parts, probes, sizeof probes);
    assert_int_equal(strncmp(probes, "8 {", 3), 0);
    assert_null(strstr(probes, ";12 {"));
}

// The report keeps how each session ended; a run that begins anew does not.
static void sessions_are_listed(void **state)
{
    (void)state;
    char directory[300], path[400];
    new_directory(directory);
    go(directory, true, 5);
    go(directory, true, 0);
    snprintf(path, sizeof path, "%s/report.json", directory);
    json_t *report = json_load_file(path, 0, NULL), *list = json_object_get(report, "sessions");
    assert_int_equal(json_array_size(list), 2);
    json_t *first = json_array_get(list, 0), *last = json_array_get(list, 1);
    assert_string_equal(json_string_value(json_object_get(first, "ended")), "stopped");
    assert_string_equal(json_string_value(json_object_get(last, "ended")), "finished");
    assert_int_equal(json_integer_value(json_object_get(first, "from")), 0);
    assert_true(json_equal(json_object_get(first, "step"), json_object_get(last, "from")));
    assert_int_equal(json_integer_value(json_object_get(last, "step")), STEPS);
    assert_true(json_is_number(json_object_get(report, "knn_top1")));
    json_decref(report);
}

// --- trouble ---------------------------------------------------------------------------------

static void a_probe_that_fails_costs_its_figures_only(void **state)
{
    (void)state;
    char plain[300], probed[300];
    struct sample_dataset damaged;
    struct session session;
    sample_dataset_make(&damaged, 30, 3);
    new_directory(plain);
    new_directory(probed);
    go(plain, false, 0);
    session_init(&session, probed, true);
    struct run_config *config = &session.options.config;
    snprintf(config->probe, sizeof config->probe, "%s", damaged.path[DATASET_SHARDS]);
    config->probe_bank = 1000;
    assert_status(session_run(&session), STATUS_OK, &session.error);
    assert_non_null(strstr(session.notes, "WARNING: the probe failed, training goes on"));
    assert_true(isnan(session.result.knn));
    assert_same_end(plain, probed);
    sample_dataset_remove(&damaged);
}

static void refuse(const char *data, const char *test, const char *reason)
{
    char directory[300];
    struct session session;
    new_directory(directory);
    session_init(&session, directory, true);
    struct run_config *config = &session.options.config;
    snprintf(config->probe, sizeof config->probe, "%s", data);
    snprintf(config->probe_test, sizeof config->probe_test, "%s", test);
    assert_status(session_run(&session), STATUS_CONFIG, &session.error);
    assert_non_null(strstr(session.error.reason, reason));
    assert_false(file_exists(directory));
}

static void images_that_are_learnt_from_are_not_classified(void **state)
{
    (void)state;
    const char *training = sample.path[DATASET_SHARDS];
    refuse(training, "", "learnt from");
    refuse(probe.path[DATASET_SHARDS], training, "learnt from");
    refuse(probe.path[DATASET_SHARDS], probe.path[DATASET_SHARDS], "the same images");
}

static int set_up(void **state)
{
    (void)state;
    sample_dataset_make(&sample, IMAGES, NOWHERE);
    sample_dataset_make(&probe, 30, NOWHERE);
    sample_dataset_make(&other, 20, NOWHERE);
    scratch_make(&scratch);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sample_dataset_remove(&sample);
    sample_dataset_remove(&probe);
    sample_dataset_remove(&other);
    scratch_remove(&scratch);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_epoch_gets_its_figures),
        cmocka_unit_test(it_is_the_knn_of_eval),
        cmocka_unit_test(training_does_not_change_by_a_bit),
        cmocka_unit_test(resuming_anywhere_gives_the_same_probes),
        cmocka_unit_test(a_probe_that_a_kill_came_before_is_made_up),
        cmocka_unit_test(it_may_begin_and_end_on_resume),
        cmocka_unit_test(sessions_are_listed),
        cmocka_unit_test(a_probe_that_fails_costs_its_figures_only),
        cmocka_unit_test(images_that_are_learnt_from_are_not_classified),
    };
    return cmocka_run_group_tests_name("online", tests, set_up, tear_down);
}
