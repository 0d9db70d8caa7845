// `byol ablate` as a person runs it: rows trained, measured and tabled; killed, continued, failed;
// and that the ready files say nothing the program does not know.
#include "tests/support/program.h"
#include "tests/support/run_end.h"

#include "formats/file.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#define ABLATIONS "tools/ablations"
#define DATA      "--data \"$DIR/data\" --test \"$DIR/data\" "

// 20 pictures: 2 steps an epoch.
#define BASE                                                                                       \
    "base:\n"                                                                                      \
    "  recipe: small\n"                                                                            \
    "  set:\n"                                                                                     \
    "    {encoder: tiny, batch: 8, projector_hidden: 32, projector_output: 16, threads: 1,\n"      \
    "     predictor_hidden: 32, warmup_epochs: 1, precision: f32, views: {size: 16}}\n"

static struct scratch scratch;

static void write_file(const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", scratch.path, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int setup(void **state)
{
    (void)state;
    setenv("OMP_WAIT_POLICY", "passive", 1);
    scratch_make(&scratch);
    program_expect(&scratch, 0, NULL, "convert tests/data/images -o \"$DIR/data\" --store lmdb");
    write_file("two.yaml", "title: Two rows\n"
                           "paper: somewhere\n" BASE "    # and\n"
                           "seeds: 2\n"
                           "measure: [knn, {probe: linear, epochs: 1, batch: 16, name: short}]\n"
                           "rows:\n"
                           "  - {name: All of it, set: {epochs: 1}, paper: 72.5}\n"
                           "  - name: no flip\n"
                           "    set: {epochs: 1, views.*.flip: 0}\n"
                           "    paper: 71.9\n"
                           "    paper_sd: 0.5\n"
                           "  - {name: later, set: {method: simclr, what: 1}, waits_for: simclr,\n"
                           "     paper: 69.4}\n");
    write_file("long.yaml", BASE "    # long enough to be killed in the middle\n"
                                 "rows:\n"
                                 "  - {name: long, set: {epochs: 20, log_steps: 1}}\n");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(&scratch);
    return 0;
}

static json_t *table_of(const char *arguments)
{
    struct program_result result;
    program_run(&result, &scratch, arguments);
    assert_int_equal(result.code, 0);
    json_t *table = json_loads(result.out, 0, NULL);
    assert_non_null(table);
    program_free(&result);
    return table;
}

static const json_t *cell_of(const json_t *table, size_t row, const char *measure)
{
    const json_t *line = json_array_get(json_object_get(table, "rows"), row);
    return json_object_get(json_object_get(line, "measures"), measure);
}

static double number_in(const json_t *cell, const char *key)
{
    const json_t *value = json_object_get(cell, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

// --- a whole ablation ----------------------------------------------------------------------------

static void rows_are_trained_measured_and_tabled(void **state)
{
    (void)state;
    program_expect(&scratch, 0, "waits for simclr",
                   "ablate \"$DIR/two.yaml\" -o \"$DIR/two\" " DATA "--quiet");
    json_t *table = table_of("ablate \"$DIR/two.yaml\" -o \"$DIR/two\" --table --json");
    for (size_t row = 0; row < 2; row++) {
        const json_t *cell = cell_of(table, row, "short");
        const json_t *values = json_object_get(cell, "values");
        double a = json_number_value(json_array_get(values, 0));
        double b = json_number_value(json_array_get(values, 1));
        double first = number_in(cell_of(table, 0, "short"), "mean");
        assert_true(number_in(cell, "seeds") == 2);
        assert_true(fabs(number_in(cell, "mean") - (a + b) / 2) < 1e-6);
        assert_true(fabs(number_in(cell, "sd") - fabs(a - b) / sqrt(2)) < 1e-6);
        assert_true(fabs(number_in(cell, "difference") - ((a + b) / 2 - first)) < 1e-6);
        assert_true(number_in(cell_of(table, row, "knn"), "mean") > 0);
    }
    assert_true(isnan(number_in(cell_of(table, 2, "knn"), "mean")));
    json_decref(table);
    program_expect(&scratch, 0, "knn_seed_0", "--version && head -n 1 \"$DIR/two/table.csv\"");
    program_expect(&scratch, 0, "PNG", "--version && head -c 4 \"$DIR/two/table.png\"");
    program_expect(&scratch, 0, "paper: somewhere", "--version && cat \"$DIR/two/table.txt\"");
}

static void what_is_finished_is_skipped(void **state)
{
    (void)state;
    program_expect(&scratch, 0, "4 runs, 0 of them",
                   "ablate \"$DIR/two.yaml\" -o \"$DIR/two\" " DATA "--dry-run");
    program_expect(&scratch, 0, "same",
                   "--version && before=$(cd \"$DIR/two\" && cat */seed-*/report.json | cksum) && "
                   "\"$BYOL\" ablate \"$DIR/two.yaml\" -o \"$DIR/two\" " DATA " --quiet && "
                   "test \"$before\" = \"$(cd \"$DIR/two\" && cat */seed-*/report.json | cksum)\" "
                   "&& echo same");
    // A lost measure is taken again, without training.
    program_expect(&scratch, 0, "1 of them",
                   "--version && rm \"$DIR/two/no-flip/seed-1/measure-knn.json\" && "
                   "\"$BYOL\" ablate \"$DIR/two.yaml\" -o \"$DIR/two\" " DATA "--dry-run");
    program_expect(&scratch, 0, NULL, "ablate \"$DIR/two.yaml\" -o \"$DIR/two\" " DATA);
    program_expect(&scratch, 0, "0 of them",
                   "ablate \"$DIR/two.yaml\" -o \"$DIR/two\" " DATA "--dry-run");
}

static void other_settings_do_not_go_on_in_an_old_run(void **state)
{
    (void)state;
    program_expect(&scratch, 1, "the run was started with 'momentum: 0.9'",
                   "ablate \"$DIR/two.yaml\" -o \"$DIR/two\" " DATA "--set momentum=0.8");
}

// A row whose settings changed is not what the table is about any more.
static void a_changed_row_is_not_taken_as_finished(void **state)
{
    (void)state;
    program_expect(&scratch, 0, NULL,
                   "--version && sed 's/flip: 0/flip: 0.25/' \"$DIR/two.yaml\" "
                   ">\"$DIR/changed.yaml\"");
    program_expect(&scratch, 1, "no-flip/seed-0: the run was started with",
                   "ablate \"$DIR/changed.yaml\" -o \"$DIR/two\" " DATA);
    json_t *table = table_of("ablate \"$DIR/changed.yaml\" -o \"$DIR/two\" --table --json");
    const json_t *line = json_array_get(json_object_get(table, "rows"), 1);
    assert_true(number_in(cell_of(table, 0, "knn"), "seeds") == 2);
    assert_true(number_in(cell_of(table, 1, "knn"), "seeds") == 0);
    assert_true(json_integer_value(json_object_get(line, "trained")) == 0);
    assert_non_null(
        strstr(json_string_value(json_object_get(line, "failure")), "the run was started with"));
    json_decref(table);
    json_decref(table_of("ablate \"$DIR/two.yaml\" -o \"$DIR/two\" --table --json"));
    program_expect(&scratch, 1, "more than max_steps 1",
                   "ablate \"$DIR/two.yaml\" -o \"$DIR/two\" " DATA "--set max_steps=1");
    program_expect(&scratch, 1, "made with another precision",
                   "ablate \"$DIR/two.yaml\" -o \"$DIR/two\" " DATA "--set precision=bf16");
}

static void runs_of_other_data_do_not_count(void **state)
{
    (void)state;
    program_expect(&scratch, 0, NULL,
                   "convert tests/data/images -o \"$DIR/other\" --resize short=16");
    program_expect(&scratch, 1, "learnt from another dataset",
                   "ablate \"$DIR/two.yaml\" -o \"$DIR/two\" --data \"$DIR/other\" "
                   "--test \"$DIR/data\"");
    program_expect(&scratch, 1, "is not exact: larger images were resized",
                   "ablate \"$DIR/two.yaml\" -o \"$DIR/resized\" --data \"$DIR/other\" "
                   "--test \"$DIR/data\" --only 'All of it' --seed 0 --set batch=64");
}

static void two_processes_share_the_runs(void **state)
{
    (void)state;
    program_expect(&scratch, 0, "knn",
                   "ablate \"$DIR/two.yaml\" -o \"$DIR/shared\" " DATA "--quiet >/dev/null & "
                   "first=$!; \"$BYOL\" ablate \"$DIR/two.yaml\" -o \"$DIR/shared\" " DATA
                   "--quiet && wait $first");
    program_expect(&scratch, 0, "alike",
                   "--version && cmp \"$DIR/two/table.txt\" \"$DIR/shared/table.txt\" && "
                   "test \"$(cat \"$DIR\"/shared/*/seed-*/report.json | grep -c '\"from\"')\" = 4 "
                   "&& echo alike");
}

static void several_at_a_time_give_the_same_table(void **state)
{
    (void)state;
    program_expect(&scratch, 0, NULL,
                   "ablate \"$DIR/two.yaml\" -o \"$DIR/jobs\" " DATA "--jobs 3 --quiet");
    program_expect(&scratch, 0, "alike",
                   "--version && cmp \"$DIR/two/table.txt\" \"$DIR/jobs/table.txt\" && echo alike");
}

// --- interruptions -------------------------------------------------------------------------------

#define START_LONG(OUT)                                                                            \
    "ablate \"$DIR/long.yaml\" -o \"$DIR/" OUT "\" " DATA "--quiet & ablate=$!; "                  \
    "run=\"$DIR/" OUT "/long/seed-0\"; "                                                           \
    "until test -s \"$run/metrics.jsonl\"; do sleep 0.05; done; "

static void uninterrupted_run(void)
{
    char path[400];
    snprintf(path, sizeof path, "%s/whole", scratch.path);
    if (!file_exists(path)) {
        program_expect(&scratch, 0, NULL, "ablate \"$DIR/long.yaml\" -o \"$DIR/whole\" " DATA);
    }
}

static void assert_ends_as_uninterrupted(const char *out)
{
    char left[400], right[400];
    uninterrupted_run();
    snprintf(left, sizeof left, "%s/%s/long/seed-0", scratch.path, out);
    snprintf(right, sizeof right, "%s/whole/long/seed-0", scratch.path);
    assert_same_end(left, right);
}

static void killing_it_loses_nothing(void **state)
{
    (void)state;
    program_expect(&scratch, 0, NULL,
                   START_LONG("killed") "kill -KILL $ablate; ! wait $ablate && "
                                        "! test -e \"$run/trained.json\"");
    program_expect(&scratch, 0, "knn", "ablate \"$DIR/long.yaml\" -o \"$DIR/killed\" " DATA);
    assert_ends_as_uninterrupted("killed");
}

static void a_killed_child_goes_on_by_itself(void **state)
{
    (void)state;
    program_expect(&scratch, 0, NULL,
                   START_LONG("child") "kill -KILL $(cat \"$run/lock\"); wait $ablate");
    assert_ends_as_uninterrupted("child");
}

static void a_signal_stops_it_with_a_checkpoint(void **state)
{
    (void)state;
    program_expect(&scratch, 143, "not done",
                   START_LONG("stopped") "kill -TERM $ablate; wait $ablate");
    program_expect(&scratch, 0, "checkpoint-",
                   "--version && ls \"$DIR/stopped/long/seed-0/checkpoints\"");
    program_expect(&scratch, 0, "goes on",
                   "ablate \"$DIR/long.yaml\" -o \"$DIR/stopped\" " DATA "--dry-run");
    program_expect(&scratch, 0, "knn", "ablate \"$DIR/long.yaml\" -o \"$DIR/stopped\" " DATA);
    assert_ends_as_uninterrupted("stopped");
}

// As under nohup.
static void an_ignored_signal_stays_ignored(void **state)
{
    (void)state;
    program_expect(&scratch, 0, "knn",
                   "--version; trap '' HUP; \"$BYOL\" " START_LONG(
                       "ignored") "kill -HUP $ablate; wait $ablate");
}

static void a_failing_row_does_not_stop_the_others(void **state)
{
    (void)state;
    write_file("fail.yaml", BASE "    # 64 images a batch are more than there are\n"
                                 "rows:\n"
                                 "  - {name: too large, set: {epochs: 1, batch: 64}}\n"
                                 "  - {name: good, set: {epochs: 1}}\n");
    program_expect(&scratch, 1, "FAILED: too large, seed 0",
                   "ablate \"$DIR/fail.yaml\" -o \"$DIR/fail\" " DATA);
    json_t *table = table_of("ablate \"$DIR/fail.yaml\" -o \"$DIR/fail\" --table --json");
    const json_t *line = json_array_get(json_object_get(table, "rows"), 0);
    assert_non_null(
        strstr(json_string_value(json_object_get(line, "failure")), "a batch needs 64"));
    assert_true(number_in(cell_of(table, 1, "knn"), "mean") > 0);
    json_decref(table);
}

// --- elsewhere -----------------------------------------------------------------------------------

static void emitted_lines_do_the_work(void **state)
{
    (void)state;
    program_expect(&scratch, 0, "--only=no-flip --seed=1",
                   "ablate \"$DIR/two.yaml\" -o \"$DIR/lines\" " DATA "--emit commands");
    program_expect(&scratch, 0, "--array=1-4",
                   "ablate \"$DIR/two.yaml\" -o \"$DIR/lines\" " DATA "--emit slurm && "
                   "cat \"$DIR/lines/slurm.sh\"");
    // As a task of the array runs it.
    program_expect(&scratch, 0, "3 of them",
                   "--version && mkdir \"$DIR/bin\" && ln -s \"$(realpath \"$BYOL\")\" "
                   "\"$DIR/bin/byol\" && SLURM_ARRAY_TASK_ID=2 PATH=\"$DIR/bin:$PATH\" "
                   "sh \"$DIR/lines/slurm.sh\" && \"$BYOL\" ablate \"$DIR/two.yaml\" "
                   "-o \"$DIR/lines\" " DATA "--dry-run");
    program_expect(&scratch, 0, "nothing is left",
                   "ablate \"$DIR/two.yaml\" -o \"$DIR/two\" " DATA "--emit slurm && "
                   "! test -e \"$DIR/two/slurm.sh\"");
}

static void a_job_array_lives_with_odd_names(void **state)
{
    (void)state;
    program_expect(&scratch, 0, "it's 100%% of \\\"one\\\" $dir/slurm-%a.log\"",
                   "--version; odd=\"$DIR/it's 100% of \\\"one\\\" \\$dir\"; "
                   "\"$BYOL\" ablate \"$DIR/two.yaml\" -o \"$odd\" " DATA "--emit slurm && "
                   "bash -n \"$odd/slurm.sh\" && cat \"$odd/slurm.sh\" && "
                   "SLURM_ARRAY_TASK_ID=3 PATH=\"$DIR/bin:$PATH\" sh \"$odd/slurm.sh\" && "
                   "test -s \"$odd/all-of-it/seed-1/measure-knn.json\"");
    program_expect(&scratch, 1, "control character",
                   "ablate \"$DIR/two.yaml\" -o \"$DIR/a\nb\" " DATA "--emit commands");
}

static void refuse(const char *text, const char *rest)
{
    write_file("bad.yaml", rest);
    program_expect(&scratch, 1, text, "ablate \"$DIR/bad.yaml\" -o \"$DIR/bad\" " DATA);
    program_expect(&scratch, 0, "nothing", "--version && ! test -e \"$DIR/bad\" && echo nothing");
}

static void mistakes_are_refused_before_anything_runs(void **state)
{
    (void)state;
    refuse("bad.yaml: line 2: unknown key 'views.view1.blurr'; did you mean 'views.view1.blur'?",
           "rows:\n  - {name: a, set: {views.*.blurr: 0}}\n");
    refuse("line 1: unknown key 'row'; did you mean 'rows'?", "row:\n  - {name: a}\n");
    refuse("line 3: unknown key 'papper'; did you mean 'paper'?",
           "rows:\n  - name: a\n    papper: 3\n");
    refuse("line 1: batch", "base: {set: {batch: one}}\nrows: [{name: a}]\n");
    refuse("accumulate 3 does not cut", "rows: [{name: a, set: {batch: 8, accumulate: 3}}]\n");
    refuse("would share the folder a-b", "rows: [{name: a b}, {name: a-b}]\n");
    refuse("line 1: epochs stands here twice",
           "base: {set: {epochs: 1, epochs: 2}}\nrows: [{name: a}]\n");
    refuse("aliases", "base: {set: &x {epochs: 1}}\nrows: [{name: a, set: *x}]\n");
    refuse("not YAML", "rows: [{name: a\n");
    refuse("neither rows nor axes", "title: nothing\n");
    refuse("seeds", "seeds: 0\nrows: [{name: a}]\n");
    refuse("unknown key 'kk'", "measure: {probe: knn, kk: 3}\nrows: [{name: a}]\n");
    refuse("key of the other probe", "measure: {probe: knn, epochs: 3}\nrows: [{name: a}]\n");
    refuse("seeds: 1 to 100", "seeds: 2.5\nrows: [{name: a}]\n");
    refuse("control character", "rows: [{name: \"a\\x1b[31m\"}]\n");
    refuse("is the name of a file beside it", "rows: [{name: Table.txt}]\n");
    refuse("makes no folder name", "rows: [{name: \"..\"}]\n");
}

// What the rows without a moving average rely on.
static void tau_may_stay_where_it_starts(void **state)
{
    (void)state;
    write_file("tau.yaml",
               BASE "rows:\n  - {name: a, set: {epochs: 2, log_steps: 1, tau_base: 0.5,\n"
                    "     tau_schedule: constant}}\n");
    program_expect(&scratch, 0, "4",
                   "ablate \"$DIR/tau.yaml\" -o \"$DIR/tau\" " DATA "--json >/dev/null && "
                   "grep -c '\"tau\":0.5,' \"$DIR/tau/a/seed-0/metrics.jsonl\"");
}

static void a_grid_has_every_combination(void **state)
{
    (void)state;
    write_file("grid.yaml", "rows: [{name: a}, {name: b, set: {views.*.flip: 0}}]\n"
                            "axes: {tau_base: [0.9, 0.99], views.*.blur: [0, 1]}\n");
    program_expect(&scratch, 0, "b, tau_base=0.99, views.*.blur=1, seed 0",
                   "ablate \"$DIR/grid.yaml\" -o \"$DIR/grid\" --dry-run");
    program_expect(&scratch, 0, "8 runs", "ablate \"$DIR/grid.yaml\" -o \"$DIR/grid\" --dry-run");
}

// More than a picture should show: it shows the first.
static void a_large_grid_has_its_table(void **state)
{
    (void)state;
    char text[4096] = "axes:\n  tau_base: [0.5";
    for (int i = 1; i < 300; i++) {
        size_t len = strlen(text);
        snprintf(text + len, sizeof text - len, ", %.4f", 0.5 + i * 0.001);
    }
    size_t len = strlen(text);
    snprintf(text + len, sizeof text - len, "]\n");
    write_file("large.yaml", text);
    program_expect(&scratch, 0, "tau_base=0.7990",
                   "ablate \"$DIR/large.yaml\" -o \"$DIR/large\" --table && "
                   "test -s \"$DIR/large/table.png\"");
}

static void every_ready_file_resolves(void **state)
{
    (void)state;
    DIR *folder = opendir(ABLATIONS);
    size_t files = 0;
    assert_non_null(folder);
    for (const struct dirent *entry; (entry = readdir(folder));) {
        if (strstr(entry->d_name, ".yaml") == NULL) {
            continue;
        }
        char line[400];
        snprintf(line, sizeof line, "ablate " ABLATIONS "/%.200s -o \"$DIR/ready\" --table --json",
                 entry->d_name);
        json_t *table = table_of(line);
        const json_t *rows = json_object_get(table, "rows"), *first = json_array_get(rows, 0);
        assert_true(json_array_size(rows) >= 5);
        assert_true(json_string_length(json_object_get(table, "title")) > 0);
        assert_true(json_string_length(json_object_get(table, "paper")) > 0);
        assert_true(json_is_null(json_object_get(first, "waits_for")));
        assert_true(json_is_number(json_object_get(first, "paper")));
        json_decref(table);
        files++;
    }
    closedir(folder);
    assert_true(files >= 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_trained_measured_and_tabled),
        cmocka_unit_test(what_is_finished_is_skipped),
        cmocka_unit_test(other_settings_do_not_go_on_in_an_old_run),
        cmocka_unit_test(a_changed_row_is_not_taken_as_finished),
        cmocka_unit_test(runs_of_other_data_do_not_count),
        cmocka_unit_test(two_processes_share_the_runs),
        cmocka_unit_test(several_at_a_time_give_the_same_table),
        cmocka_unit_test(killing_it_loses_nothing),
        cmocka_unit_test(a_killed_child_goes_on_by_itself),
        cmocka_unit_test(a_signal_stops_it_with_a_checkpoint),
        cmocka_unit_test(an_ignored_signal_stays_ignored),
        cmocka_unit_test(a_failing_row_does_not_stop_the_others),
        cmocka_unit_test(emitted_lines_do_the_work),
        cmocka_unit_test(a_job_array_lives_with_odd_names),
        cmocka_unit_test(mistakes_are_refused_before_anything_runs),
        cmocka_unit_test(tau_may_stay_where_it_starts),
        cmocka_unit_test(a_grid_has_every_combination),
        cmocka_unit_test(a_large_grid_has_its_table),
        cmocka_unit_test(every_ready_file_resolves),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
