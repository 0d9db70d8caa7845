// Reading a run directory.
#include "tools/report_run.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/file.h"
#include "formats/limits.h"
#include "trainer/run/directory.h"

#define LINE_BYTES    65536
#define REPORT_BYTES  (64u << 20)
#define MOST_SETTINGS 1024

// --- the log ---------------------------------------------------------------------------------

// Where a figure stands in a line: in the object itself, or in one of its members.
static const struct {
    const char *group, *key;
} places[REPORT_FIGURES] = {
    [REPORT_LOSS] = {NULL, "loss"},
    [REPORT_REPRESENTATION] = {NULL, "representation"},
    [REPORT_KNN] = {"probe", "knn"},
    [REPORT_TOP1] = {NULL, "top1"},
    [REPORT_LEARNING_RATE] = {NULL, "learning_rate"},
    [REPORT_TAU] = {NULL, "tau"},
    [REPORT_SPEED] = {"timing", "pairs_per_second"},
    [REPORT_WAIT] = {"timing", "data_wait"},
    [REPORT_SPREAD] = {NULL, "spread"},
    [REPORT_RANKME] = {"probe", "rankme"},
    [REPORT_RANKME_PROJECTIONS] = {"probe", "rankme_projections"},
    [REPORT_POSITIVE] = {NULL, "positive_cosine"},
    [REPORT_NEGATIVE] = {NULL, "negative_cosine"},
};

static bool append(struct report_series *series, double step, double value)
{
    if (series->count == series->capacity) {
        size_t capacity = series->capacity ? 2 * series->capacity : 256;
        double *steps = realloc(series->step, capacity * sizeof *steps);
        if (steps == NULL) {
            return false;
        }
        series->step = steps;
        double *values = realloc(series->value, capacity * sizeof *values);
        if (values == NULL) {
            return false;
        }
        series->value = values;
        series->capacity = capacity;
    }
    series->step[series->count] = step;
    series->value[series->count++] = value;
    return true;
}

// The last step of the first epoch tells how many an epoch has, once the second has begun: each
// epoch ends with a line.
static void take_epoch(struct report_run *run, const json_t *line, uint64_t step)
{
    const json_t *epoch = json_object_get(line, "epoch");
    if (json_is_integer(epoch) && json_integer_value(epoch) == 1 && run->steps_per_epoch == 0) {
        run->steps_per_epoch = run->last_step;
    }
    run->last_step = step;
}

// A run that goes on from a checkpoint logs steps again that were logged before it was killed: what
// was made last counts.
static void go_back(struct report_run *run, uint64_t step)
{
    for (size_t i = 0; i < REPORT_FIGURES; i++) {
        struct report_series *series = &run->series[i];
        while (series->count > 0 && series->step[series->count - 1] >= (double)step) {
            series->count--;
        }
    }
    run->collapsed = run->collapsed >= step ? 0 : run->collapsed;
}

static bool take_line(struct report_run *run, const json_t *line)
{
    const json_t *step = json_object_get(line, "step");
    if (!json_is_integer(step) || json_integer_value(step) < 0) {
        run->bad_lines++;
        return true;
    }
    if ((uint64_t)json_integer_value(step) <= run->last_step) {
        go_back(run, (uint64_t)json_integer_value(step));
    }
    double at = (double)json_integer_value(step);
    take_epoch(run, line, (uint64_t)json_integer_value(step));
    bool kept = true;
    for (size_t i = 0; i < REPORT_FIGURES && kept; i++) {
        const json_t *object = places[i].group ? json_object_get(line, places[i].group) : line;
        const json_t *value = json_object_get(object, places[i].key);
        if (json_is_number(value)) {
            kept = append(&run->series[i], at, json_number_value(value));
        }
    }
    if (run->collapsed == 0 && json_is_true(json_object_get(line, "collapsed"))) {
        run->collapsed = run->last_step;
    }
    return kept;
}

static enum status read_lines(struct report_run *run, FILE *log, const char *path,
                              struct error *error)
{
    char *text = malloc(LINE_BYTES);
    bool kept = text != NULL;
    while (kept && fgets(text, LINE_BYTES, log) != NULL) {
        json_t *line = json_loads(text, 0, NULL);
        bool whole = strchr(text, '\n') != NULL || !feof(log); // the last may just be written
        run->lines++;
        if (json_is_object(line)) {
            kept = take_line(run, line);
        } else {
            run->bad_lines += whole;
        }
        json_decref(line);
    }
    free(text);
    return kept ? STATUS_OK
                : error_set(error, STATUS_NO_MEMORY, path, NOWHERE, NOWHERE,
                            "no memory for the log");
}

static void add_note(struct report_run *run, const char *format, const char *what)
{
    size_t len = strlen(run->note);
    snprintf(run->note + len, sizeof run->note - len, format, what);
}

static enum status read_log(struct report_run *run, struct error *error)
{
    char path[RUN_PATH];
    enum status status = run_directory_path(run->directory, "metrics.jsonl", path, error);
    FILE *log = status == STATUS_OK ? fopen(path, "re") : NULL;
    if (status != STATUS_OK) {
        return status;
    }
    if (log == NULL) {
        if (errno != ENOENT) {
            return error_errno(error, errno, path, NOWHERE, "open");
        }
        add_note(run, "%s", "There is no log yet (metrics.jsonl). ");
        return STATUS_OK;
    }
    status = read_lines(run, log, path, error);
    fclose(log);
    char count[32];
    snprintf(count, sizeof count, "%llu", (unsigned long long)run->bad_lines);
    if (run->bad_lines > 0) {
        add_note(run, "%s lines of the log could not be read and are left out. ", count);
    }
    return status;
}

// --- settings --------------------------------------------------------------------------------

static void split_settings(struct report_run *run, const char *text)
{
    run->settings = calloc(MOST_SETTINGS, sizeof *run->settings);
    for (const char *line = text; run->settings && *line && run->setting_count < MOST_SETTINGS;) {
        size_t len = strcspn(line, "\n"), key = strcspn(line, ":\n");
        if (key < len && line[0] != '#') {
            const char *value = line + key + 1;
            value += strspn(value, " ");
            run->settings[run->setting_count++] = (struct report_setting){
                strndup(line, key), strndup(value, (size_t)(line + len - value))};
        }
        line += len + (line[len] == '\n');
    }
}

static enum status read_settings(struct report_run *run, struct error *error)
{
    char path[RUN_PATH];
    uint8_t *text = NULL;
    size_t len = 0;
    struct error mistake;
    enum status status = run_directory_path(run->directory, "config.yaml", path, error);
    if (status == STATUS_OK && !file_exists(path)) {
        add_note(run, "%s", "There are no settings (config.yaml). ");
        return STATUS_OK;
    }
    if (status == STATUS_OK) {
        status = file_read_all(path, LIMIT_SETTINGS_BYTES, &text, &len, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    char *resolved = NULL; // with the keys that an older program did not know
    run->has_config =
        run_config_parse(&run->config, path, (const char *)text, &mistake) == STATUS_OK &&
        run_config_print(&run->config, false, &resolved, &mistake) == STATUS_OK;
    if (!run->has_config) {
        add_note(run, "The settings are not understood: %s. ", mistake.reason);
    }
    split_settings(run, resolved ? resolved : (const char *)text);
    free(resolved);
    free(text);
    return STATUS_OK;
}

const char *report_setting_of(const struct report_run *run, const char *key)
{
    for (size_t i = 0; i < run->setting_count; i++) {
        if (strcmp(run->settings[i].key, key) == 0) {
            return run->settings[i].value;
        }
    }
    return NULL;
}

// --- the end ---------------------------------------------------------------------------------

static enum status read_end(struct report_run *run, struct error *error)
{
    char path[RUN_PATH];
    uint8_t *text = NULL;
    size_t len = 0;
    enum status status = run_directory_path(run->directory, "report.json", path, error);
    if (status != STATUS_OK || !file_exists(path)) {
        return status;
    }
    status = file_read_all(path, REPORT_BYTES, &text, &len, error);
    if (status == STATUS_OK) {
        run->end = json_loadb((const char *)text, len, 0, NULL);
        if (!json_is_object(run->end)) {
            json_decref(run->end);
            run->end = NULL;
            add_note(run, "%s", "report.json could not be read. ");
        }
    }
    free(text);
    return status;
}

struct dataset *report_dataset(const struct report_run *run)
{
    const json_t *described = json_object_get(run->end, "dataset");
    const char *directory = json_string_value(json_object_get(described, "directory"));
    const char *id = json_string_value(json_object_get(described, "id"));
    struct dataset *dataset = NULL;
    if (directory == NULL || id == NULL || dataset_open(&dataset, directory, NULL) != STATUS_OK) {
        return NULL;
    }
    if (strtoull(id, NULL, 16) != dataset_id(dataset)) {
        dataset_close(&dataset);
    }
    return dataset;
}

// The mark of the run's dataset: from report.json, or for an older one from the dataset itself.
// It stands among the settings, where runs are told apart.
static void read_exactness(struct report_run *run)
{
    const json_t *said = json_object_get(json_object_get(run->end, "dataset"), "not_exact");
    struct dataset *dataset = said ? NULL : report_dataset(run);
    run->not_exact = json_is_string(said) ? strdup(json_string_value(said))
                     : dataset            ? dataset_not_exact(dataset)
                                          : NULL;
    dataset_close(&dataset);
    if (run->not_exact != NULL && run->settings != NULL && run->setting_count < MOST_SETTINGS) {
        run->settings[run->setting_count++] =
            (struct report_setting){strdup("dataset not exact"), strdup(run->not_exact)};
    }
}

// --- all of it -------------------------------------------------------------------------------

// The spread is told as a share of what is healthy, which depends on the run.
static void scale_spread(struct report_run *run)
{
    double dimensions = run->has_config ? (double)run->config.model.projector_output : NAN;
    struct report_series *spread = &run->series[REPORT_SPREAD];
    for (size_t i = 0; i < spread->count; i++) {
        spread->value[i] *= sqrt(dimensions);
    }
    if (!run->has_config) {
        spread->count = 0;
    }
}

enum status report_run_open(struct report_run *run, const char *directory, struct error *error)
{
    *run = (struct report_run){.directory = directory};
    enum status status = read_log(run, error);
    if (status == STATUS_OK) {
        status = read_settings(run, error);
    }
    if (status == STATUS_OK) {
        status = read_end(run, error);
    }
    if (status == STATUS_OK && run->lines == 0 && run->setting_count == 0) {
        status = error_set(error, STATUS_NOT_FOUND, directory, NOWHERE, NOWHERE,
                           "is no run: it has neither metrics.jsonl nor config.yaml");
    }
    read_exactness(run);
    scale_spread(run);
    return status;
}

void report_run_close(struct report_run *run)
{
    for (size_t i = 0; i < REPORT_FIGURES; i++) {
        free(run->series[i].step);
        free(run->series[i].value);
    }
    for (size_t i = 0; i < run->setting_count; i++) {
        free(run->settings[i].key);
        free(run->settings[i].value);
    }
    free(run->settings);
    free(run->not_exact);
    json_decref(run->end);
    *run = (struct report_run){0};
}

// The last `parts` parts of a path, without slashes at its end.
static void last_parts(const char *path, unsigned parts, char *name, size_t capacity)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') {
        len--;
    }
    size_t from = len;
    for (; from > 0 && (path[from - 1] != '/' || --parts > 0); from--) {
    }
    snprintf(name, capacity, "%.*s", (int)(len - from), path + from);
}

void report_run_name(struct report_run *runs, size_t count)
{
    bool twice = true;
    for (unsigned parts = 1; twice && parts <= 16; parts++) {
        twice = false;
        for (size_t i = 0; i < count; i++) {
            last_parts(runs[i].directory, parts, runs[i].name, sizeof runs[i].name);
            for (size_t j = 0; j < i; j++) {
                twice |= strcmp(runs[i].name, runs[j].name) == 0;
            }
        }
    }
}

double report_last(const struct report_run *run, enum report_figure figure)
{
    const struct report_series *series = &run->series[figure];
    return series->count > 0 ? series->value[series->count - 1] : NAN;
}

static int ascending(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

double report_median(const struct report_run *run, enum report_figure figure)
{
    const struct report_series *series = &run->series[figure];
    double *sorted = series->count > 0 ? malloc(series->count * sizeof *sorted) : NULL;
    if (sorted == NULL) {
        return NAN;
    }
    memcpy(sorted, series->value, series->count * sizeof *sorted);
    qsort(sorted, series->count, sizeof *sorted, ascending);
    double median = sorted[series->count / 2];
    free(sorted);
    return median;
}
