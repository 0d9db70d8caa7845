// `byol pretrain` and `byol eval` as a person or a script uses them: killed at random moments,
// stopped by signals, started twice, misused.
//
// BYOL_KILLS=N kills N times instead of 6.
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "formats/file.h"
#include "formats/npy.h"
#include "formats/safetensors.h"
#include "tests/support/program.h"
#include "tests/support/run_end.h"
#include "tests/support/sample_dataset.h"
#include "tests/support/tiny_run.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/directory.h"

#define IMAGES 43

static struct sample_dataset sample;
static struct scratch scratch;
static char data_option[340], device_option[32];

// As tests/support/tiny_run.c, in words. Enough epochs to be killed in.
#define SETTINGS                                                                                   \
    "encoder=tiny", "width=2", "stem=small", "views.base=small", "views.size=8", "batch=4",        \
        "epochs=8", "warmup_epochs=2", "base_learning_rate=2", "projector_hidden=8",               \
        "projector_output=8", "predictor_hidden=8", "log_steps=3", "precision=f32", "threads=1",   \
        "loader_threads=1"

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

// --- processes -------------------------------------------------------------------------------

// Starts `byol pretrain --resume` on a run of the scratch directory; stdout and stderr go to files.
static pid_t start(const char *run, const char *extra_setting)
{
    static const char *const settings[] = {SETTINGS};
    char directory[300], output[330];
    snprintf(directory, sizeof directory, "%s/%s", scratch.path, run);
    snprintf(output, sizeof output, "%s.out", directory);
    const char *program = getenv("BYOL_PROGRAM");
    program = program ? program : "build/byol";
    const char *argv[64] = {program,   "pretrain", data_option, "--run",
                            directory, "--resume", "--set",     device_option};
    size_t count = 8;
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        argv[count++] = "--set";
        argv[count++] = settings[i];
    }
    if (extra_setting) {
        argv[count++] = "--set";
        argv[count++] = extra_setting;
    }
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (freopen(output, "w", stdout) == NULL || dup2(STDOUT_FILENO, STDERR_FILENO) < 0) {
            _exit(126);
        }
        execv(program, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    return child;
}

// The exit code; 128 + signal when one ended it.
static int finish(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void sleep_for(double seconds)
{
    struct timespec time = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
    nanosleep(&time, NULL);
}

// Waits until the run has a log of some length, so that it is certainly training.
static void wait_until_training(const char *run, pid_t child)
{
    char path[330];
    snprintf(path, sizeof path, "%s/%s/metrics.jsonl", scratch.path, run);
    for (double end = now() + 60; now() < end; sleep_for(0.005)) {
        uint8_t *bytes;
        size_t len = 0;
        if (file_read_all(path, 1u << 26, &bytes, &len, NULL) == STATUS_OK) {
            free(bytes);
        }
        if (len > 0) {
            return;
        }
        assert_int_equal(waitpid(child, NULL, WNOHANG), 0);
    }
    fail_msg("%s: nothing was logged for a minute", path);
}

// --- comparing -------------------------------------------------------------------------------

static struct safetensors *open_last(const char *run, struct checkpoint_state *state)
{
    char directory[300];
    snprintf(directory, sizeof directory, "%s/%s", scratch.path, run);
    return run_end_open(directory, state);
}

// Of runs in the scratch folder.
static void assert_same_ends(const char *left, const char *right)
{
    char x[300], y[300];
    snprintf(x, sizeof x, "%s/%s", scratch.path, left);
    snprintf(y, sizeof y, "%s/%s", scratch.path, right);
    assert_same_end(x, y);
}

// The log without its timings, through the shell's eyes.
static void assert_same_log(const char *left, const char *right)
{
    char command[700];
    snprintf(command, sizeof command,
             "--version && cd \"$DIR\" && for run in %s %s; do sed 's/,\"timing\".*//' "
             "$run/metrics.jsonl >$run.log; done && cmp %s.log %s.log && test -s %s.log",
             left, right, left, right, left);
    program_expect(&scratch, 0, NULL, command);
}

static int set_up(void **state)
{
    (void)state;
    sample_dataset_make(&sample, IMAGES, NOWHERE);
    scratch_make(&scratch);
    snprintf(data_option, sizeof data_option, "--data=%s", sample.path[DATASET_SHARDS]);
    snprintf(device_option, sizeof device_option, "device=%s", tiny_device());
    setenv("DATA", sample.path[DATASET_SHARDS], 1);
    setenv("OTHER", sample.path[DATASET_LMDB], 1);
    assert_int_equal(finish(start("undisturbed", NULL)), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sample_dataset_remove(&sample);
    scratch_remove(&scratch);
    return 0;
}

// --- kills and signals -----------------------------------------------------------------------

static unsigned kills_wanted(void)
{
    const char *text = getenv("BYOL_KILLS");
    return text ? (unsigned)atoi(text) : 6;
}

// Kills a run until it ends by itself; returns how often. `random` is the state of rand_r.
static unsigned kill_until_done(const char *run, double longest, unsigned limit, unsigned *random)
{
    unsigned kills = 0;
    for (;;) {
        pid_t child = start(run, NULL);
        if (kills < limit) {
            sleep_for(longest * rand_r(random) / RAND_MAX);
            kill(child, SIGKILL);
        }
        int code = finish(child);
        if (code != 128 + SIGKILL) {
            assert_int_equal(code, 0);
            return kills;
        }
        kills++;
    }
}

static void kills_change_nothing(void **state)
{
    (void)state;
    double began = now();
    assert_int_equal(finish(start("timed", NULL)), 0);
    double longest = 0.8 * (now() - began);
    unsigned random = 20260101, kills = 0, wanted = kills_wanted(), runs = 0;
    while (kills < wanted) {
        char run[32];
        snprintf(run, sizeof run, "killed%u", runs++);
        kills += kill_until_done(run, longest, wanted - kills, &random);
        assert_same_ends(run, "undisturbed");
        assert_same_log(run, "undisturbed");
    }
    print_message("killed %u times in %u runs\n", kills, runs);
}

static void a_signal_stops_with_a_checkpoint(void **state)
{
    (void)state;
    const int signals[] = {SIGTERM, SIGINT};
    const char *const runs[] = {"terminated", "interrupted"};
    for (size_t i = 0; i < 2; i++) {
        pid_t child = start(runs[i], NULL);
        wait_until_training(runs[i], child);
        kill(child, signals[i]);
        assert_int_equal(finish(child), 0);
        struct checkpoint_state stopped;
        struct safetensors *file = open_last(runs[i], &stopped);
        assert_true(stopped.step >= 3 && stopped.step < 80);
        safetensors_close(&file);
        char line[64];
        snprintf(line, sizeof line, "--version && cat \"$DIR/%s.out\"", runs[i]);
        program_expect(&scratch, 0, "--resume", line); // says how to go on
        assert_int_equal(finish(start(runs[i], NULL)), 0);
        assert_same_ends(runs[i], "undisturbed");
        assert_same_log(runs[i], "undisturbed");
    }
}

// Both signals are pending when the process goes on, so both are delivered before its next step.
static void a_second_signal_ends_it_at_once(void **state)
{
    (void)state;
    pid_t child = start("hurried", NULL);
    wait_until_training("hurried", child);
    kill(child, SIGSTOP);
    kill(child, SIGTERM);
    kill(child, SIGINT);
    kill(child, SIGCONT);
    int code = finish(child);
    assert_true(code == 128 + SIGTERM || code == 128 + SIGINT);
    assert_int_equal(finish(start("hurried", NULL)), 0);
    assert_same_ends("hurried", "undisturbed");
}

static void a_second_process_is_refused(void **state)
{
    (void)state;
    pid_t child = start("shared", NULL);
    wait_until_training("shared", child);
    kill(child, SIGSTOP);
    assert_int_equal(finish(start("shared", NULL)), 1);
    program_expect(&scratch, 0, "another process", "--version && cat \"$DIR/shared.out\"");
    kill(child, SIGCONT);
    assert_int_equal(finish(child), 0);
    assert_same_ends("shared", "undisturbed");
}

static void resuming_needs_no_settings_again(void **state)
{
    (void)state;
    assert_int_equal(finish(start("brief", "max_steps=9")), 0);
    program_expect(&scratch, 0, "finished",
                   "pretrain --data \"$DATA\" --run \"$DIR/brief\" --resume --set max_steps=0");
    assert_same_ends("brief", "undisturbed");
    program_expect(&scratch, 1, "seed",
                   "pretrain --data \"$DATA\" --run \"$DIR/brief\" --resume --set seed=5");
    program_expect(&scratch, 1, "another dataset",
                   "pretrain --data \"$OTHER\" --run \"$DIR/brief\" --resume");
}

// --- words -----------------------------------------------------------------------------------

static void results_are_json(void **state)
{
    (void)state;
    double step = program_number(&scratch, "step",
                                 "pretrain --data \"$DATA\" --run \"$DIR/undisturbed\" --resume "
                                 "--quiet --json");
    assert_true(step == 80);
    double top1 = program_number(&scratch, "top1",
                                 "eval knn --run \"$DIR/undisturbed\" --train \"$DATA\" --test "
                                 "\"$OTHER\" --k 1 --json --quiet");
    assert_true(top1 == 100); // each image finds itself
    program_expect(&scratch, 0, "\"distance\":\"euclidean\"",
                   "eval knn --run \"$DIR/undisturbed\" --train \"$DATA\" --test \"$OTHER\" "
                   "--convention solo-learn-euclidean --json -q");
    program_expect(&scratch, 0, "k 100: top-1",
                   "eval knn --run \"$DIR/undisturbed\" --train \"$DATA\" --test \"$OTHER\" "
                   "--convention dinov2 -q");
    double linear = program_number(&scratch, "top1",
                                   "eval linear --run \"$DIR/undisturbed\" --train \"$DATA\" "
                                   "--test \"$OTHER\" --cached --epochs 2 --untrained --json -q");
    assert_true(linear >= 0 && linear <= 100);
    double held_out = program_number(&scratch, "held_out",
                                     "eval linear --run \"$DIR/undisturbed\" --train \"$DATA\" "
                                     "--test \"$OTHER\" --cached --epochs 2 --sweep paper --json");
    assert_int_equal((int)held_out, IMAGES / 10);
    program_expect(&scratch, 0, "chosen on 4 training images held out",
                   "eval linear --run \"$DIR/undisturbed\" --train \"$DATA\" --test \"$OTHER\" "
                   "--cached --epochs 2 --learning-rates 0.25,1e6 -q");
}

// records.json lists the names of all records in order.
static void check_names(void)
{
    char path[400];
    struct dataset *dataset;
    struct error error;
    snprintf(path, sizeof path, "%s/exported/records.json", scratch.path);
    json_t *object = json_load_file(path, 0, NULL);
    const json_t *names = json_object_get(object, "names");
    assert_status(dataset_open(&dataset, sample.path[DATASET_SHARDS], &error), STATUS_OK, &error);
    assert_int_equal(json_array_size(names), IMAGES);
    assert_int_equal(json_array_size(json_object_get(object, "classes")), SAMPLE_CLASSES);
    for (size_t i = 0; i < IMAGES; i++) {
        assert_string_equal(json_string_value(json_array_get(names, i)),
                            dataset_record_name(dataset, i));
    }
    dataset_close(&dataset);
    json_decref(object);
}

static struct npy exported(const char *file)
{
    char path[400];
    struct npy array;
    struct error error;
    snprintf(path, sizeof path, "%s/exported/%s", scratch.path, file);
    assert_status(npy_read(path, &array, &error), STATUS_OK, &error);
    return array;
}

static void features_are_written_once(void **state)
{
    (void)state;
    static const char command[] = "eval features --run \"$DIR/undisturbed\" --data \"$DATA\" "
                                  "-o \"$DIR/exported\" --projections --json -q";
    double width = program_number(&scratch, "projection_width", command);
    assert_true(width == 8);
    struct npy features = exported("features.npy"), labels = exported("labels.npy"),
               projections = exported("projections.npy");
    assert_true(features.type == NPY_FLOAT32 && features.dims == 2 && features.shape[0] == IMAGES);
    assert_true(projections.type == NPY_FLOAT32 && projections.dims == 2);
    assert_true(projections.shape[0] == IMAGES && projections.shape[1] == 8);
    assert_true(labels.type == NPY_INT32 && labels.dims == 1 && labels.shape[0] == IMAGES);
    for (int32_t i = 0; i < IMAGES; i++) {
        assert_int_equal(((const int32_t *)labels.data)[i], i % SAMPLE_CLASSES);
    }
    npy_free(&features);
    npy_free(&labels);
    npy_free(&projections);
    check_names();
    program_expect(&scratch, 1, "exists already", command);
    program_expect(&scratch, 0, "43 x",
                   "eval features --run \"$DIR/undisturbed\" --data \"$DATA\" --untrained "
                   "-o \"$DIR/plain\" -q && test ! -e \"$DIR/plain/projections.npy\"");
}

static void quality_needs_no_labels(void **state)
{
    (void)state;
    static const char command[] = "eval quality --run \"$DIR/undisturbed\" --data \"$DATA\" -q";
    char json[200];
    assert_true(program_number(&scratch, "count",
                               "eval quality --run \"$DIR/undisturbed\" --data \"$DATA\" "
                               "--limit 20 --json -q") == 20);
    program_expect(&scratch, 0, "projections  RankMe", command);
    snprintf(json, sizeof json, "%s --json", command);
    program_expect(&scratch, 0, "\"positive_cosine\":", json);
}

static void help_and_settings_teach(void **state)
{
    (void)state;
    program_expect(&scratch, 0, "Example", "pretrain --help");
    program_expect(&scratch, 0, "Example", "eval --help");
    program_expect(&scratch, 0, "base_learning_rate: 0.45",
                   "pretrain --settings --preset byol-100");
    program_expect(&scratch, 0, "views.size: 32", "pretrain --settings --recipe small");
    program_expect(&scratch, 0, "# ", "pretrain --settings");
}

static void misuse_is_explained(void **state)
{
    (void)state;
    program_expect(&scratch, 2, "--data", "pretrain --run \"$DIR/x\"");
    program_expect(&scratch, 2, "--run", "pretrain --data \"$DATA\" --runs \"$DIR/x\"");
    program_expect(&scratch, 1, "precision: 'f16' is none of",
                   "pretrain --settings --precision f16");
    program_expect(&scratch, 0, "precision: bf16", "pretrain --settings --precision bf16");
    program_expect(&scratch, 2, "linear", "eval --run x --train a --test b");
    program_expect(&scratch, 2, "--checkpoint", "eval knn --train a --test b");
    program_expect(&scratch, 2, "quality wants one --data",
                   "eval quality --run x --train a --test b");
    program_expect(&scratch, 2, "-o DIR", "eval features --run x --data a");
    program_expect(&scratch, 2, "--learning-rates wants numbers",
                   "eval linear --run x --train a --test b --learning-rates 0.1,,0.2");
    program_expect(&scratch, 2, "exclude each other",
                   "eval linear --run x --train a --test b --sweep paper --lr 0.1");
    program_expect(&scratch, 2, "did you mean 'lightly'",
                   "eval knn --run x --train a --test b --convention lightley");
    program_expect(&scratch, 1, "batch",
                   "pretrain --data \"$DATA\" --run \"$DIR/x\" --set batch=64 --set encoder=tiny");
    program_expect(&scratch, 1, "did you mean",
                   "pretrain --data \"$DATA\" --run \"$DIR/x\" --recipe smal");
    program_expect(&scratch, 1, "--resume",
                   "pretrain --data \"$DATA\" --run \"$DIR/undisturbed\" "
                   "--set batch=8");
    program_expect(&scratch, 1, "no checkpoint",
                   "eval knn --run \"$DIR\" --train \"$DATA\" --test \"$DATA\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kills_change_nothing),
        cmocka_unit_test(a_signal_stops_with_a_checkpoint),
        cmocka_unit_test(a_second_signal_ends_it_at_once),
        cmocka_unit_test(a_second_process_is_refused),
        cmocka_unit_test(resuming_needs_no_settings_again),
        cmocka_unit_test(results_are_json),
        cmocka_unit_test(features_are_written_once),
        cmocka_unit_test(quality_needs_no_labels),
        cmocka_unit_test(help_and_settings_teach),
        cmocka_unit_test(misuse_is_explained),
    };
    return cmocka_run_group_tests_name("pretrain_cli", tests, set_up, tear_down);
}
