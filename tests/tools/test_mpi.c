// `mpirun -n N byol pretrain`: the step of several ranks is that of one, resume is exact at every
// step and with other numbers of ranks, and a rank that dies takes the job with it but not its
// checkpoint.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/file.h"
#include "formats/safetensors.h"
#include "tests/support/device_rows.h"
#include "tests/support/program.h"
#include "tests/support/ranks.h"
#include "tests/support/run_end.h"
#include "tests/support/sample_dataset.h"
#include "tests/support/tiny_run.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/directory.h"

#define IMAGES   53 // 4 steps of 12 an epoch, 5 left over
#define PER_STEP 12
#define EPOCH    4

static struct sample_dataset sample;
static struct scratch scratch;

// Two epochs unless said otherwise. Without warm-up: the first step moves the parameters.
#define SETTINGS                                                                                   \
    "--set encoder=tiny --set width=2 --set stem=small --set views.base=small --set views.size=8 " \
    "--set batch=12 --set epochs=2 --set warmup_epochs=0 --set base_learning_rate=2 "              \
    "--set projector_hidden=8 --set projector_output=8 --set predictor_hidden=8 "                  \
    "--set log_steps=1 --set threads=1 --set loader_threads=1 --set keep_checkpoints=4"

// --- running -------------------------------------------------------------------------------------

static void run_under(struct program_result *result, const char *launcher, const char *run,
                      const char *options)
{
    char arguments[1400];
    snprintf(arguments, sizeof arguments,
             "pretrain --data \"$DATA\" --run \"$DIR/%s\" $SETTINGS %s", run, options);
    program_run_under(result, &scratch, launcher, arguments);
}

static void run_ranks(struct program_result *result, unsigned ranks, const char *run,
                      const char *options)
{
    char launcher[64] = "", quiet[1024];
    if (ranks > 1) {
        snprintf(launcher, sizeof launcher, "mpirun -n %u", ranks);
    }
    snprintf(quiet, sizeof quiet, "--quiet %s", options);
    run_under(result, launcher, run, quiet);
}

// Fails the test unless all goes well and one rank speaks.
static void train(unsigned ranks, const char *run, const char *options)
{
    struct program_result result;
    run_ranks(&result, ranks, run, options);
    const char *line = strstr(result.out, " at step ");
    if (result.code != 0 || line == NULL || strstr(line + 1, " at step ") != NULL) {
        print_error("%u ranks, %s %s: exit code %d\nstdout: %s\nstderr: %s\n", ranks, run, options,
                    result.code, result.out, result.err);
        fail();
    }
    program_free(&result);
}

// `text`: in what the first rank says.
static void train_in_vain(unsigned ranks, const char *run, const char *options, const char *text)
{
    struct program_result result;
    run_ranks(&result, ranks, run, options);
    const char *line = strstr(result.err, "byol pretrain: ");
    if (result.code != 1 || line == NULL || strstr(line, text) == NULL ||
        strstr(line + 1, "byol pretrain: ") != NULL) {
        print_error("%u ranks, %s %s: exit code %d\nstdout: %s\nstderr: %s\n", ranks, run, options,
                    result.code, result.out, result.err);
        fail();
    }
    program_free(&result);
}

// --- comparing -----------------------------------------------------------------------------------

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

// || a - b || / || a || over all tensors whose name begins with `branch`.
static double difference(const struct safetensors *a, const struct safetensors *b,
                         const char *branch)
{
    double squares = 0, size = 0;
    for (size_t i = 0; i < safetensors_count(a); i++) {
        const struct tensor *left = safetensors_at(a, i);
        const struct tensor *right = safetensors_find(b, left->name);
        assert_non_null(right);
        assert_int_equal(left->bytes, right->bytes);
        if (strncmp(left->name, branch, strlen(branch)) != 0) {
            continue;
        }
        const float *x = left->data, *y = right->data;
        for (size_t at = 0; at < left->bytes / sizeof *x; at++) {
            squares += ((double)x[at] - (double)y[at]) * ((double)x[at] - (double)y[at]);
            size += (double)x[at] * (double)x[at];
        }
    }
    assert_true(size > 0);
    return sqrt(squares / size);
}

// After one step the momentum is the gradient, scaled.
static void assert_near_end(const char *left, const char *right, double gradients,
                            double parameters)
{
    struct checkpoint_state a, b;
    struct safetensors *x = open_last(left, &a), *y = open_last(right, &b);
    assert_int_equal(a.step, b.step);
    const struct {
        const char *branch;
        double bound;
    } rows[] = {
        {"momentum/", gradients},
        {"online/", parameters},
        {"target/", parameters},
        {"state/", parameters},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        double found = difference(x, y, rows[i].branch);
        if (!(found <= rows[i].bound)) {
            fail_msg("%s and %s: %s differ by %.2g of their length, at most %.2g", left, right,
                     rows[i].branch, found, rows[i].bound);
        }
    }
    safetensors_close(&x);
    safetensors_close(&y);
}

// The log without its timings, through the shell's eyes.
static void assert_same_log(const char *left, const char *right)
{
    char command[700];
    snprintf(command, sizeof command,
             "for run in '%s' '%s'; do sed 's/,\"timing\".*//' \"%s/$run/metrics.jsonl\" | cksum; "
             "done | uniq | wc -l | grep -qx 1",
             left, right, scratch.path);
    assert_int_equal(system(command), 0);
}

// --- tests ---------------------------------------------------------------------------------------

// Bounds, of the length of the gradients and of the parameters: sums over rows in another order.
#define GRADIENTS  2e-5
#define PARAMETERS 1e-6

static void check_step(const char *options)
{
    char one[400];
    snprintf(one, sizeof one, "--set max_steps=1 %s", options);
    assert_int_equal(system("rm -rf \"$DIR\"/step-*"), 0);
    train(1, "step-1", one);
    train(2, "step-2", one);
    train(3, "step-3", one);
    assert_near_end("step-1", "step-2", GRADIENTS, PARAMETERS);
    assert_near_end("step-1", "step-3", GRADIENTS, PARAMETERS);
}

static void the_step_of_several_is_that_of_one(void **state)
{
    (void)state;
    check_step("");
}

static void so_it_is_on_the_reference_device(void **state)
{
    (void)state;
    check_step("--set device=ref");
}

static void so_it_is_with_accumulation(void **state)
{
    (void)state;
    check_step("--set accumulate=2");
}

// Its start is made from the first batch, that of all ranks.
static void so_it_is_without_normalisation(void **state)
{
    (void)state;
    check_step("--set norm=affine --set base_learning_rate=0.1");
}

// A stop after each step of an epoch; then both at once, another optimiser with accumulation.
static void resuming_with_two_changes_nothing(void **state)
{
    (void)state;
    static const char *const ways[] = {"", "--set optimizer=adamw --set base_learning_rate=0.001 "
                                           "--set accumulate=2 --set recompute=true"};
    for (size_t way = 0; way < 2; way++) {
        char whole[32], options[300];
        snprintf(whole, sizeof whole, "whole-%zu", way);
        train(2, whole, ways[way]);
        for (unsigned stop = way == 0 ? 1 : 3; stop <= EPOCH; stop++) {
            char run[32];
            snprintf(run, sizeof run, "parts-%zu-%u", way, stop);
            snprintf(options, sizeof options, "%s --set max_steps=%u", ways[way], stop);
            train(2, run, options);
            snprintf(options, sizeof options, "%s --resume --set max_steps=0", ways[way]);
            train(2, run, options);
            assert_same_ends(whole, run);
            assert_same_log(whole, run);
        }
    }
}

// What the ranks' number adds to the differences of one step, after five more.
static void the_number_of_ranks_may_change(void **state)
{
    (void)state;
    train(1, "alone", "");
    train(2, "two-one", "--set max_steps=3");
    train(1, "two-one", "--resume --set max_steps=0");
    train(1, "one-two", "--set max_steps=3");
    train(2, "one-two", "--resume --set max_steps=0");
    assert_near_end("alone", "two-one", 0.2, 1e-3);
    assert_near_end("alone", "one-two", 0.2, 1e-3);
}

// Each rank leaves its process id; one is killed once there is a checkpoint.
static void a_killed_rank_ends_the_job(void **state)
{
    (void)state;
    struct program_result result;
    program_run_under(
        &result, &scratch,
        "mpirun -n 2 sh -c 'echo $$ >\"$DIR/pid.${OMPI_COMM_WORLD_RANK:-$PMI_RANK}\"; exec \"$@\"' "
        "rank",
        "pretrain --data \"$DATA\" --run \"$DIR/killed\" $SETTINGS --quiet --set epochs=2000 & "
        "job=$!; for i in $(seq 600); do ls \"$DIR\"/killed/checkpoints/*-0*16.* && break; "
        "sleep 0.05; done; sleep 0.03; kill -9 $(cat \"$DIR/pid.1\"); wait $job");
    assert_true(result.code != 0);
    assert_true(strlen(result.err) > 0);
    assert_null(strstr(result.out, " at step "));
    program_free(&result);
    struct checkpoint_state found;
    struct safetensors *file = open_last("killed", &found);
    assert_true(found.step >= 16 && found.step % EPOCH == 0);
    safetensors_close(&file);
    char options[100], resumed[120];
    snprintf(options, sizeof options, "--set epochs=2000 --set max_steps=%d", (int)found.step + 5);
    snprintf(resumed, sizeof resumed, "%s --resume", options);
    train(2, "unharmed", options);
    train(2, "killed", resumed);
    assert_same_ends("unharmed", "killed");
    assert_same_log("unharmed", "killed");
}

static void a_signal_to_one_stops_all(void **state)
{
    (void)state;
    struct program_result result;
    program_run_under(
        &result, &scratch,
        "mpirun -n 2 sh -c 'echo $$ >\"$DIR/pid.${OMPI_COMM_WORLD_RANK:-$PMI_RANK}\"; exec \"$@\"' "
        "rank",
        "pretrain --data \"$DATA\" --run \"$DIR/stopped\" $SETTINGS --quiet --set epochs=2000 & "
        "job=$!; for i in $(seq 600); do ls \"$DIR\"/stopped/checkpoints/*.safetensors && break; "
        "sleep 0.05; done; kill -TERM $(cat \"$DIR/pid.1\"); wait $job");
    assert_int_equal(result.code, 0);
    assert_non_null(strstr(result.out, "stopped at step "));
    program_free(&result);
    struct checkpoint_state found;
    struct safetensors *file = open_last("stopped", &found);
    assert_true(found.step >= EPOCH);
    safetensors_close(&file);
}

static void what_cannot_be_shared_is_refused(void **state)
{
    (void)state;
    train_in_vain(5, "uneven", "", "set batch to a multiple of 5");
    train_in_vain(3, "uneven", "--set accumulate=6", "set batch to a multiple of 18");
    train_in_vain(2, "uneven", "--set nothing=1", "unknown key 'nothing'");
    char path[300];
    snprintf(path, sizeof path, "%s/uneven", scratch.path);
    assert_false(file_exists(path));
}

// Ranks that would not train the same thing end before the first step.
static void ranks_must_be_told_the_same(void **state)
{
    (void)state;
    struct program_result result;
    program_run_under(&result, &scratch,
                      "mpirun -n 1 \"$BYOL\" pretrain --data \"$DATA\" --run \"$DIR/torn\" "
                      "$SETTINGS --set max_steps=3 : -n 1",
                      "pretrain --data \"$DATA\" --run \"$DIR/torn\" $SETTINGS --set max_steps=4");
    assert_int_equal(result.code, 1);
    assert_non_null(strstr(result.err, "rank 1: the settings differ from those of rank 0"));
    program_free(&result);
}

// The rank that meets the image tells the others; the state before that step is kept.
static void a_damaged_image_ends_all(void **state)
{
    (void)state;
    struct sample_dataset bad;
    sample_dataset_make(&bad, IMAGES, 17);
    setenv("DATA", bad.path[DATASET_LMDB], 1);
    train_in_vain(2, "bad", "", "record 17");
    setenv("DATA", sample.path[DATASET_LMDB], 1);
    sample_dataset_remove(&bad);
}

// --- plans of a GPU ------------------------------------------------------------------------------

// One step on the emulated GPU, on two ranks of which one has other libraries
// (tests/cuda/library.cpp).
#define ON_GPU "--set device=cuda --set precision=f32 --set max_steps=1"

static void run_other(struct program_result *result, unsigned rank, const char *plans,
                      const char *run)
{
    char launcher[200];
    snprintf(launcher, sizeof launcher,
             "mpirun -n 2 sh -c 'test ${OMPI_COMM_WORLD_RANK:-$PMI_RANK} != %u || "
             "export BYOL_EMULATE_PLANS=%s; exec \"$@\"' rank",
             rank, plans);
    run_under(result, launcher, run, ON_GPU);
}

// `text`: in what is said; NULL: nothing is asked of it.
static void expect_other(unsigned rank, const char *plans, const char *run, int code,
                         const char *text)
{
    struct program_result result;
    run_other(&result, rank, plans, run);
    if (result.code != code || (text != NULL && strstr(result.err, text) == NULL)) {
        print_error("rank %u has plans '%s': exit code %d\nstdout: %s\nstderr: %s\n", rank, plans,
                    result.code, result.out, result.err);
        fail();
    }
    program_free(&result);
}

static bool ends_differ(const char *left, const char *right)
{
    struct checkpoint_state a, b;
    struct safetensors *x = open_last(left, &a), *y = open_last(right, &b);
    double found = difference(x, y, "momentum/");
    safetensors_close(&x);
    safetensors_close(&y);
    return found > 0;
}

static void need_emulation(void)
{
    struct device *device;
    bool there = device_open(&device, "cuda", 1, DEVICE_F32, NULL) == STATUS_OK;
    bool emulated = there && device_is_slow(device);
    if (there) {
        device_close(&device);
    }
    if (!emulated) {
        skip();
    }
}

static void rank_0_chooses_plans_for_all(void **state)
{
    (void)state;
    need_emulation();
    train(2, "plain", ON_GPU);
    expect_other(1, "none", "told", 0, NULL); // by itself it would find none
    assert_same_ends("plain", "told");
    setenv("BYOL_EMULATE_PLANS", "turned", 1);
    train(2, "turned", ON_GPU);
    unsetenv("BYOL_EMULATE_PLANS");
    assert_true(ends_differ("plain", "turned"));
    expect_other(0, "turned", "told-turned", 0, NULL);
    assert_same_ends("turned", "told-turned");
}

static void other_libraries_choose_for_themselves(void **state)
{
    (void)state;
    need_emulation();
    expect_other(1, "other", "other", 0, "ranks compute with different hardware or libraries");
}

// Either way all end, and rank 0 says why.
static void a_rank_without_plans_ends_all(void **state)
{
    (void)state;
    need_emulation();
    expect_other(0, "none", "none", 1, "byol pretrain: no plan is found");
    expect_other(1, "refused", "refused", 1, "byol pretrain: rank 1: no plan: 'plain loops'");
}

// --- setting up ----------------------------------------------------------------------------------

static int set_up(void **state)
{
    (void)state;
    sample_dataset_make(&sample, IMAGES, NOWHERE);
    scratch_make(&scratch);
    char settings[1200];
    snprintf(settings, sizeof settings, SETTINGS " --set device=%s", tiny_device());
    setenv("SETTINGS", settings, 1);
    setenv("DATA", sample.path[DATASET_LMDB], 1);
    setenv("DIR", scratch.path, 1);
    setenv("OMP_WAIT_POLICY", "passive", 1);
    ranks_prepare();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_remove(&scratch);
    sample_dataset_remove(&sample);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_step_of_several_is_that_of_one),
        cmocka_unit_test(so_it_is_on_the_reference_device),
        cmocka_unit_test(so_it_is_with_accumulation),
        cmocka_unit_test(so_it_is_without_normalisation),
        cmocka_unit_test(resuming_with_two_changes_nothing),
        cmocka_unit_test(the_number_of_ranks_may_change),
        cmocka_unit_test(a_killed_rank_ends_the_job),
        cmocka_unit_test(a_signal_to_one_stops_all),
        cmocka_unit_test(what_cannot_be_shared_is_refused),
        cmocka_unit_test(ranks_must_be_told_the_same),
        cmocka_unit_test(a_damaged_image_ends_all),
        cmocka_unit_test(rank_0_chooses_plans_for_all),
        cmocka_unit_test(other_libraries_choose_for_themselves),
        cmocka_unit_test(a_rank_without_plans_ends_all),
    };
    const char *reason = ranks_reason_to_skip();
    if (reason != NULL) {
        printf("skipped: several ranks: %s\n", reason);
        return 0;
    }
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
