// The files that say what of an ablation is done, and the commands that do it.
#include "tools/ablate_store.h"

#include "formats/file.h"
#include "formats/limits.h"
#include "tools/json_text.h"
#include "tools/recipe_option.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// --- JSON files ----------------------------------------------------------------------------------

// NULL when it is missing or no JSON: then the step is simply done again.
static json_t *load(const char *directory, const char *name)
{
    char path[RUN_PATH];
    uint8_t *bytes = NULL;
    size_t len = 0;
    json_t *object = NULL;
    if (run_directory_path(directory, name, path, NULL) == STATUS_OK &&
        file_read_all(path, LIMIT_SETTINGS_BYTES, &bytes, &len, NULL) == STATUS_OK) {
        object = json_loadb((const char *)bytes, len, 0, NULL);
    }
    free(bytes);
    if (object && !json_is_object(object)) {
        json_decref(object);
        object = NULL;
    }
    return object;
}

// Takes the reference.
static enum status save(const char *directory, const char *name, json_t *object,
                        struct error *error)
{
    char path[RUN_PATH];
    char *text = object ? json_dumps(object, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(object);
    if (text == NULL) {
        return error_set(error, STATUS_NO_MEMORY, directory, NOWHERE, NOWHERE, "no memory for %s",
                         name);
    }
    enum status status = run_directory_path(directory, name, path, error);
    if (status == STATUS_OK) {
        status = file_write_durably(path, text, strlen(text), error);
    }
    free(text);
    return status;
}

static double number_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

// --- commands ------------------------------------------------------------------------------------

void ablate_command_add(struct ablate_command *command, const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    if (command->count == ABLATE_ARGUMENTS || vasprintf(&text, format, arguments) < 0) {
        command->failed = true;
    } else {
        command->item[command->count++] = text;
        command->item[command->count] = NULL;
    }
    va_end(arguments);
}

void ablate_command_free(struct ablate_command *command)
{
    for (size_t i = 0; i < command->count; i++) {
        free(command->item[i]);
    }
    *command = (struct ablate_command){0};
}

static enum status complete(struct ablate_command *command, struct error *error)
{
    return command->failed ? error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                                       "no memory for a command of so many arguments")
                           : STATUS_OK;
}

static void add_set(struct ablate_command *command, const char *text)
{
    ablate_command_add(command, "--set");
    ablate_command_add(command, "%s", text);
}

enum status ablate_command_train(struct ablate_command *command, const struct ablate_plan *plan,
                                 const struct ablate_row *row,
                                 const struct ablate_overrides *overrides, int64_t seed,
                                 int64_t threads, const char *directory, struct error *error)
{
    const char *const fixed[] = {"byol", "pretrain", "--data", plan->data, "--run", directory};
    *command = (struct ablate_command){0};
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) {
        ablate_command_add(command, "%s", fixed[i]);
    }
    if (plan->recipe[0]) {
        ablate_command_add(command, "--recipe");
        ablate_command_add(command, "%s", plan->recipe);
    }
    if (threads > 0) {
        ablate_command_add(command, "--threads=%lld", (long long)threads);
        ablate_command_add(command, "--loader-threads=%lld", (long long)threads);
    }
    for (size_t i = 0; i < plan->set.count; i++) {
        add_set(command, plan->set.item[i].text);
    }
    for (size_t i = 0; i < overrides->set_count; i++) {
        add_set(command, overrides->set[i]);
    }
    for (size_t i = 0; i < row->set.count; i++) {
        add_set(command, row->set.item[i].text);
    }
    ablate_command_add(command, "--set");
    ablate_command_add(command, "seed=%lld", (long long)seed);
    ablate_command_add(command, "--resume");
    ablate_command_add(command, "--json");
    ablate_command_add(command, "--quiet");
    return complete(command, error);
}

static void add_measure(struct ablate_command *command, const struct ablate_measure *measure)
{
    bool linear = measure->probe == ABLATE_LINEAR;
    ablate_command_add(command, "byol");
    ablate_command_add(command, "eval");
    ablate_command_add(command, linear ? "linear" : "knn");
    if (measure->convention[0]) {
        ablate_command_add(command, "--convention=%s", measure->convention);
    }
    if (measure->k > 0) {
        ablate_command_add(command, "--k=%lld", (long long)measure->k);
    }
    if (measure->temperature > 0) {
        ablate_command_add(command, "--temperature=%.9g", measure->temperature);
    }
    if (measure->epochs > 0) {
        ablate_command_add(command, "--epochs=%lld", (long long)measure->epochs);
    }
    if (measure->batch > 0) {
        ablate_command_add(command, "--batch=%lld", (long long)measure->batch);
    }
    if (measure->learning_rate > 0) {
        ablate_command_add(command, "--lr=%.9g", measure->learning_rate);
    }
    if (measure->cached) {
        ablate_command_add(command, "--cached");
    }
}

enum status ablate_command_measure(struct ablate_command *command, const struct ablate_plan *plan,
                                   size_t measure, int64_t threads, const char *directory,
                                   struct error *error)
{
    *command = (struct ablate_command){0};
    add_measure(command, &plan->measures[measure]);
    ablate_command_add(command, "--train=%s", plan->measures[measure].train);
    ablate_command_add(command, "--test=%s", plan->measures[measure].test);
    ablate_command_add(command, "--run=%s", directory);
    if (threads > 0) {
        ablate_command_add(command, "--threads=%lld", (long long)threads);
    }
    ablate_command_add(command, "--json");
    ablate_command_add(command, "--quiet");
    return complete(command, error);
}

void ablate_put_quoted(FILE *stream, const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_./-=,:+%@";
    if (*text && text[strspn(text, plain)] == '\0') {
        fputs(text, stream);
        return;
    }
    fputc('\'', stream);
    for (; *text; text++) {
        if (*text == '\'') {
            fputs("'\\''", stream);
        } else {
            fputc(*text, stream);
        }
    }
    fputc('\'', stream);
}

char *ablate_command_text(const struct ablate_command *command)
{
    char *text = NULL;
    size_t len = 0;
    FILE *stream = open_memstream(&text, &len);
    if (stream == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < command->count; i++) {
        fputs(i ? " " : "", stream);
        ablate_put_quoted(stream, command->item[i]);
    }
    return fclose(stream) == 0 ? text : NULL;
}

// --- results -------------------------------------------------------------------------------------

enum status ablate_store_trained(const char *directory, json_t *result, struct error *error)
{
    return save(directory, "trained.json", json_incref(result), error);
}

static void measure_name(const struct ablate_measure *measure, char *name, size_t capacity)
{
    snprintf(name, capacity, "measure-%s.json", measure->name);
}

// One dataset may be named from anywhere.
static json_t *whole_path(const char *path)
{
    char *whole = realpath(path, NULL);
    json_t *text = json_text(whole ? whole : path);
    free(whole);
    return text;
}

// A table may be asked for without saying the datasets again: then any will do.
static bool same_dataset(const json_t *object, const char *key, const char *wanted)
{
    json_t *whole = wanted[0] ? whole_path(wanted) : NULL;
    bool same = wanted[0] == '\0' || json_equal(json_object_get(object, key), whole);
    json_decref(whole);
    return same;
}

// How a measure was asked for; a result that was asked for otherwise does not count.
static char *measure_question(const struct ablate_measure *measure)
{
    struct ablate_command command = {0};
    add_measure(&command, measure);
    char *text = command.failed ? NULL : ablate_command_text(&command);
    ablate_command_free(&command);
    return text;
}

enum status ablate_store_measure(const char *directory, const struct ablate_plan *plan,
                                 size_t measure, json_t *result, struct error *error)
{
    char name[64];
    measure_name(&plan->measures[measure], name, sizeof name);
    char *question = measure_question(&plan->measures[measure]);
    json_t *object = question
                         ? json_pack("{s:o, s:o, s:o, s:O}", "command", json_text(question),
                                     "train", whole_path(plan->measures[measure].train), "test",
                                     whole_path(plan->measures[measure].test), "result", result)
                         : NULL;
    free(question);
    return save(directory, name, object, error);
}

enum status ablate_store_failure(const char *directory, const char *reason, struct error *error)
{
    char path[RUN_PATH];
    enum status status = run_directory_path(directory, "failure.json", path, error);
    if (status == STATUS_OK && reason) {
        return save(directory, "failure.json", json_pack("{s:o}", "error", json_text(reason)),
                    error);
    }
    return status == STATUS_OK && unlink(path) != 0 && errno != ENOENT
               ? error_errno(error, errno, path, NOWHERE, "remove")
               : status;
}

// The settings that the run on disk was made with.
static enum status check_config(const struct ablate_row *row, int64_t seed, const char *directory,
                                int64_t *max_steps, bool *started, struct error *error)
{
    char path[RUN_PATH];
    uint8_t *text = NULL;
    size_t len = 0;
    struct run_config stored, wanted = row->config;
    wanted.seed = seed;
    *started = false;
    enum status status = run_directory_path(directory, "config.yaml", path, error);
    if (status != STATUS_OK || !run_directory_used(directory) || !file_exists(path)) {
        return status; // a run that never took a step takes any settings
    }
    status = file_read_all(path, LIMIT_SETTINGS_BYTES, &text, &len, error);
    if (status == STATUS_OK) {
        status = run_config_parse(&stored, path, (const char *)text, error);
    }
    free(text);
    if (status == STATUS_OK) {
        *started = true;
        *max_steps = stored.max_steps;
        status = run_config_compare(&stored, &wanted, error);
    }
    if (status == STATUS_OK && *started && wanted.precision != DEVICE_AUTO &&
        stored.precision != wanted.precision) {
        status = error_set(error, STATUS_CONFIG, directory, NOWHERE, NOWHERE,
                           "the run was made with another precision");
    }
    if (status == STATUS_CONFIG && error) {
        snprintf(error->path, sizeof error->path, "%s", directory);
    }
    return status;
}

// The data that the run learnt from, where its report says so.
static enum status check_data(const struct ablate_plan *plan, const char *directory,
                              struct error *error)
{
    json_t *report = plan->data_id ? load(directory, "report.json") : NULL;
    const char *id = text_of(json_object_get(report, "dataset"), "id");
    bool same = id[0] == '\0' || strtoull(id, NULL, 16) == plan->data_id;
    json_decref(report);
    return same ? STATUS_OK
                : error_set(error, STATUS_CONFIG, directory, NOWHERE, NOWHERE,
                            "the run learnt from another dataset than %.300s", plan->data);
}

static enum status check_steps(const struct ablate_row *row, const json_t *trained,
                               const char *directory, struct error *error)
{
    double made = number_of(trained, "step"), wanted = (double)row->config.max_steps;
    return !(wanted > 0 && made > wanted)
               ? STATUS_OK
               : error_set(error, STATUS_CONFIG, directory, NOWHERE, NOWHERE,
                           "the run has made %.0f steps, which are more than max_steps %.0f", made,
                           wanted);
}

// Paths may be spelt otherwise from elsewhere; checkpoints are named by their steps.
static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void read_measures(const struct ablate_plan *plan, const char *directory,
                          const char *checkpoint, struct ablate_state *state)
{
    for (size_t i = 0; i < plan->measure_count; i++) {
        char name[64];
        measure_name(&plan->measures[i], name, sizeof name);
        char *question = measure_question(&plan->measures[i]);
        json_t *object = load(directory, name);
        const json_t *result = json_object_get(object, "result");
        if (question && strcmp(text_of(object, "command"), question) == 0 &&
            same_dataset(object, "train", plan->measures[i].train) &&
            same_dataset(object, "test", plan->measures[i].test) &&
            strcmp(last_part(text_of(result, "checkpoint")), last_part(checkpoint)) == 0) {
            state->measured[i].top1 = number_of(result, "top1");
            state->measured[i].top5 = number_of(result, "top5");
            state->measured[i].done = isfinite(state->measured[i].top1);
        }
        json_decref(object);
        free(question);
    }
}

enum status ablate_state_read(const struct ablate_plan *plan, const struct ablate_row *row,
                              int64_t seed, const char *directory, struct ablate_state *state,
                              struct error *error)
{
    int64_t max_steps = 0;
    *state = (struct ablate_state){0};
    enum status status = check_config(row, seed, directory, &max_steps, &state->started, error);
    if (status == STATUS_OK && state->started) {
        status = check_data(plan, directory, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    json_t *trained = load(directory, "trained.json"), *failure = load(directory, "failure.json");
    if (state->started) {
        status = check_steps(row, trained, directory, error);
    }
    snprintf(state->failure, sizeof state->failure, "%s", text_of(failure, "error"));
    if (status == STATUS_OK && trained && state->started && max_steps == row->config.max_steps) {
        state->trained = true;
        state->loss = number_of(trained, "loss");
        state->seconds = number_of(trained, "seconds");
        read_measures(plan, directory, text_of(trained, "checkpoint"), state);
    }
    json_decref(trained);
    json_decref(failure);
    return status;
}
