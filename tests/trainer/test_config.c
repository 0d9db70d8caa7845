// How a run's settings come together, and which may change on resume.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "augment/run_keys.h"
#include "formats/file.h"
#include "tests/support/tiny_run.h"

static void write_text(char *path, size_t capacity, const char *text)
{
    const char *directory = getenv("TMPDIR");
    snprintf(path, capacity, "%s/byol-config-XXXXXX", directory ? directory : "/tmp");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static void assert_preset(const char *name, int64_t epochs, double rate, double decay, double tau)
{
    char assignment[64];
    snprintf(assignment, sizeof assignment, "preset=%s", name);
    const char *const assignments[] = {assignment};
    struct run_config config;
    struct error error;
    assert_status(run_config_resolve(&config, NULL, assignments, 1, &error), STATUS_OK, &error);
    assert_int_equal(config.epochs, epochs);
    assert_true(config.base_learning_rate == rate);
    assert_true(config.weight_decay == decay);
    assert_true(config.tau_base == tau);
    assert_true(config.warmup_epochs == 10);
    assert_true(config.trust == 1e-3 && config.momentum == 0.9);
}

// google-deepmind/deepmind-research byol/configs/byol.py
static void presets_are_those_of_the_reference(void **state)
{
    (void)state;
    assert_preset("byol-40", 40, 0.45, 1e-6, 0.97);
    assert_preset("byol-100", 100, 0.45, 1e-6, 0.99);
    assert_preset("byol-300", 300, 0.3, 1e-6, 0.99);
    assert_preset("byol-1000", 1000, 0.2, 1.5e-6, 0.996);
}

static void a_key_wins_over_a_preset_in_any_order(void **state)
{
    (void)state;
    const char *const first[] = {"epochs=25", "preset=byol-300"};
    const char *const last[] = {"preset=byol-300", "epochs=25"};
    struct run_config one, other;
    struct error error;
    assert_status(run_config_resolve(&one, NULL, first, 2, &error), STATUS_OK, &error);
    assert_status(run_config_resolve(&other, NULL, last, 2, &error), STATUS_OK, &error);
    assert_int_equal(one.epochs, 25);
    assert_true(one.base_learning_rate == 0.3);
    assert_memory_equal(&one, &other, sizeof one);
}

static void a_file_may_name_preset_and_base_anywhere(void **state)
{
    (void)state;
    char path[300];
    write_text(path, sizeof path,
               "epochs: 50\nviews:\n  view1: {blur: 0.25}\n  base: small\npreset: byol-100\n");
    struct run_config config;
    struct error error;
    const char *const assignments[] = {"views.size=48"};
    assert_status(run_config_resolve(&config, path, assignments, 1, &error), STATUS_OK, &error);
    unlink(path);
    assert_int_equal(config.epochs, 50);
    assert_true(config.tau_base == 0.99);
    assert_string_equal(config.recipe.name, "small");
    assert_true(config.recipe.view[0].blur == 0.25);
    assert_int_equal(config.recipe.size, 48);
    assert_int_equal(config.model.size, 48); // follows from the recipe
}

static void the_command_line_wins_over_the_file(void **state)
{
    (void)state;
    char path[300];
    write_text(path, sizeof path, "epochs: 50\nviews: {base: small, size: 40}\n");
    struct run_config config;
    struct error error;
    const char *const assignments[] = {"preset=byol-40", "views.base=byol"};
    assert_status(run_config_resolve(&config, path, assignments, 2, &error), STATUS_OK, &error);
    unlink(path);
    assert_int_equal(config.epochs, 40);
    assert_int_equal(config.recipe.size, 224);
}

static void printing_reads_back_to_the_same_config(void **state)
{
    (void)state;
    struct run_config config = tiny_config(), again;
    struct error error;
    char *text;
    config.base_learning_rate = 0.1 + 0.2; // needs 17 digits
    for (int with_help = 0; with_help <= 1; with_help++) {
        assert_status(run_config_print(&config, with_help, &text, &error), STATUS_OK, &error);
        assert_status(run_config_parse(&again, "printed", text, &error), STATUS_OK, &error);
        free(text);
        assert_memory_equal(&config, &again, sizeof config);
    }
}

static void assert_refused(const char *assignment, const char *text)
{
    const char *const assignments[] = {assignment};
    struct run_config config;
    struct error error;
    assert_status(run_config_resolve(&config, NULL, assignments, 1, &error), STATUS_CONFIG, &error);
    if (strstr(error.reason, text) == NULL) {
        fail_msg("'%s' is refused with '%s', which does not say '%s'", assignment, error.reason,
                 text);
    }
}

static void what_does_not_fit_is_named(void **state)
{
    (void)state;
    assert_refused("epohcs=3", "epochs");
    assert_refused("encoder=resnet19", "resnet18");
    assert_refused("epochs=5", "warmup_epochs");
    assert_refused("batch=1", "batch");
    assert_refused("accumulate=7", "divisor of batch"); // of 256
    assert_refused("accumulate=256", "at least 2 images");
    assert_refused("accumulate=0", "accumulate");
    assert_refused("keep_checkpoints=1", "keep_checkpoints");
    assert_refused("views.count=1", "views");
    assert_refused("optimizer=adam", "adamw");
    assert_refused("optimizer=lars-solo", "lars-solo-learn");
    assert_refused("predictor_rat=2", "predictor_rate");
    assert_refused("optimizer=adamw", "base_learning_rate"); // of LARS
    assert_refused("nesterov=true", "nesterov");
    assert_refused("lars_clip=true", "lars_clip");
    assert_refused("tuned_batch=0", "tuned_batch");
    assert_refused("shortcut=tourch", "torch");
    assert_refused("last_gamma_zero=maybe", "false");
    assert_refused("projector_layers=4096,", "projector_layers must be sizes");
    assert_refused("predictor_layers=0", "predictor_layers must be sizes");
}

static struct run_config resolved(const char *optimizer, const char *scaling)
{
    const char *const assignments[] = {optimizer, scaling, "batch=512", "tuned_batch=4096",
                                       "base_learning_rate=0.01"};
    struct run_config config;
    struct error error;
    assert_status(run_config_resolve(&config, NULL, assignments, 5, &error), STATUS_OK, &error);
    return config;
}

// The reference's tau of 0.996 at batch 4096 becomes the paper's 0.9995 at batch 512.
static void tau_follows_the_batch_when_asked(void **state)
{
    (void)state;
    struct run_config lars = resolved("optimizer=lars", "scaling=linear");
    struct method_step step = run_config_scaled(&lars, 0.25f, 0.996f);
    assert_true(step.learning_rate == 0.25f && step.tau == 0.996f);
    lars = resolved("optimizer=lars", "scaling=moving-average");
    step = run_config_scaled(&lars, 0.25f, 0.996f);
    assert_true(step.learning_rate == 0.25f); // linear already
    assert_true(step.tau > 0.99949f && step.tau < 0.99951f);
    assert_true(run_config_scaled(&lars, 0.25f, 1.0f).tau == 1);
    // Linear down to an eighth, times sqrt(8): in all the square root of an eighth.
    struct run_config adamw = resolved("optimizer=adamw", "scaling=moving-average");
    step = run_config_scaled(&adamw, 0.25f, 0.996f);
    assert_true(step.learning_rate > 0.707106f && step.learning_rate < 0.707108f);
}

// A config from before there was a choice.
static void an_old_config_means_lars(void **state)
{
    (void)state;
    struct run_config config;
    struct error error;
    assert_status(run_config_parse(&config, "old", "batch: 64\nmomentum: 0.9\n", &error), STATUS_OK,
                  &error);
    assert_int_equal(config.optimizer, OPTIMIZER_LARS);
    assert_int_equal(config.scaling, RUN_SCALING_LINEAR);
    assert_true(config.encoder_rate == 1 && config.projector_rate == 1);
    assert_true(config.predictor_rate == 1 && config.classifier_rate == 1);
}

static void only_how_it_runs_may_change(void **state)
{
    (void)state;
    struct run_config stored = tiny_config(), wanted = stored;
    struct error error;
    snprintf(wanted.device, sizeof wanted.device, "cuda");
    wanted.precision = DEVICE_BF16;
    wanted.threads = 7;
    wanted.loader_threads = 3;
    wanted.checkpoint_seconds = 5;
    wanted.keep_checkpoints = 9;
    wanted.log_steps = 1;
    wanted.max_steps = 4;
    wanted.bad_records = 1;
    wanted.recompute = true; // the same bits
    assert_status(run_config_compare(&stored, &wanted, &error), STATUS_OK, &error);
    wanted.recipe.view[1].solarize = 0.5;
    assert_status(run_config_compare(&stored, &wanted, &error), STATUS_CONFIG, &error);
    assert_non_null(strstr(error.reason, "views.view2.solarize"));
    wanted = stored;
    wanted.seed++;
    assert_status(run_config_compare(&stored, &wanted, &error), STATUS_CONFIG, &error);
    assert_non_null(strstr(error.reason, "seed"));
    wanted = stored;
    wanted.accumulate = 2;
    assert_status(run_config_compare(&stored, &wanted, &error), STATUS_CONFIG, &error);
    assert_non_null(strstr(error.reason, "accumulate"));
    wanted = stored;
    wanted.augment = RUN_AUGMENT_DEVICE; // other pixels, by rounding
    assert_status(run_config_compare(&stored, &wanted, &error), STATUS_CONFIG, &error);
    assert_non_null(strstr(error.reason, "augment"));
}

// A file from before the keys of heads and shortcuts existed.
static void older_configs_keep_their_meaning(void **state)
{
    (void)state;
    struct run_config config, defaults;
    struct error error;
    assert_status(run_config_parse(&config, "old", "last_gamma_zero: false\n", &error), STATUS_OK,
                  &error);
    assert_int_equal(config.model.last_gamma_zero, MODEL_LAST_GAMMA_ONE);
    assert_status(run_config_parse(&config, "old", "last_gamma_zero: true\n", &error), STATUS_OK,
                  &error);
    run_config_init(&defaults);
    defaults.precision = DEVICE_F32; // there was no other
    assert_memory_equal(&config, &defaults, sizeof config);
}

// Readers of recipes pass over the keys of a run by their names: the same ones, in the same order.
static void readers_of_recipes_know_every_key(void **state)
{
    (void)state;
    char passed_over[RUN_KEYS_BYTES];
    struct run_config config;
    struct settings_section sections[2], names = run_keys_section(passed_over);
    run_config_init(&config);
    run_config_sections(&config, sections);
    for (size_t i = 0; i < sections[0].count && i < names.count; i++) {
        assert_string_equal(names.fields[i].key, sections[0].fields[i].key);
    }
    assert_int_equal(names.count, sections[0].count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(presets_are_those_of_the_reference),
        cmocka_unit_test(a_key_wins_over_a_preset_in_any_order),
        cmocka_unit_test(a_file_may_name_preset_and_base_anywhere),
        cmocka_unit_test(the_command_line_wins_over_the_file),
        cmocka_unit_test(printing_reads_back_to_the_same_config),
        cmocka_unit_test(what_does_not_fit_is_named),
        cmocka_unit_test(older_configs_keep_their_meaning),
        cmocka_unit_test(only_how_it_runs_may_change),
        cmocka_unit_test(tau_follows_the_batch_when_asked),
        cmocka_unit_test(an_old_config_means_lars),
        cmocka_unit_test(readers_of_recipes_know_every_key),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
