// TensorBoard's event files of a run: every figure of the log as a scalar, one curve without
// overlap however the run was interrupted, and nothing lost to a full disk.
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "formats/file.h"
#include "formats/protobuf.h"
#include "formats/tfrecord.h"
#include "tests/support/program.h"
#include "tests/support/tiny_run.h"
#include "trainer/run/metrics.h"

static struct scratch scratch;

// --- reading an event file -----------------------------------------------------------------------

// The only event file of a directory.
static void find_file(const char *directory, char *path, size_t capacity)
{
    unsigned found = 0;
    DIR *stream = opendir(directory);
    assert_non_null(stream);
    for (const struct dirent *entry; (entry = readdir(stream));) {
        if (strncmp(entry->d_name, "events.out.tfevents.", 20) == 0) {
            snprintf(path, capacity, "%s/%s", directory, entry->d_name);
            found++;
        }
    }
    closedir(stream);
    assert_int_equal(found, 1);
}

struct scalar {
    uint64_t step;
    char tag[64];
    float value;
};

struct scalars {
    struct scalar item[2048];
    size_t count, events;
    char version[32];
    bool restarted;
};

static void read_value(struct scalars *scalars, uint64_t step, const struct protobuf_field *value)
{
    struct scalar *scalar = &scalars->item[scalars->count++];
    assert_true(scalars->count <= 2048);
    struct protobuf_reader reader = protobuf_enter(value);
    scalar->step = step;
    for (struct protobuf_field field; protobuf_next(&reader, &field);) {
        if (field.number == 1) {
            snprintf(scalar->tag, sizeof scalar->tag, "%.*s", (int)field.len,
                     (const char *)field.bytes);
        } else {
            assert_int_equal(field.number, 2);
            scalar->value = protobuf_float(&field);
        }
    }
    assert_null(reader.fault);
}

static void read_event(struct scalars *scalars, const uint8_t *bytes, size_t len)
{
    uint64_t step = 0;
    double wall_time = 0;
    struct protobuf_reader reader = protobuf_read(bytes, len);
    for (struct protobuf_field field; protobuf_next(&reader, &field);) {
        struct protobuf_reader inner = protobuf_enter(&field);
        switch (field.number) {
        case 1:
            wall_time = protobuf_double(&field);
            break;
        case 2:
            step = field.value;
            break;
        case 3:
            snprintf(scalars->version, sizeof scalars->version, "%.*s", (int)field.len,
                     (const char *)field.bytes);
            break;
        case 5:
            for (struct protobuf_field value; protobuf_next(&inner, &value);) {
                read_value(scalars, step, &value);
            }
            break;
        default:
            assert_int_equal(field.number, 7);
            scalars->restarted = true;
        }
    }
    assert_null(reader.fault);
    assert_true(wall_time > 1.7e9); // 2023
    scalars->events++;
}

static void read_file(const char *directory, struct scalars *scalars)
{
    char path[600];
    struct tfrecord_reader *reader;
    struct error error;
    *scalars = (struct scalars){0};
    find_file(directory, path, sizeof path);
    assert_status(tfrecord_open(&reader, path, &error), STATUS_OK, &error);
    const uint8_t *bytes;
    size_t len;
    enum status status;
    while ((status = tfrecord_next(reader, &bytes, &len, &error)) == STATUS_OK) {
        read_event(scalars, bytes, len);
    }
    assert_status(status, STATUS_END, &error);
    tfrecord_close(&reader);
    assert_string_equal(scalars->version, "brain.Event:2");
    assert_true(scalars->restarted);
}

static const struct scalar *find(const struct scalars *scalars, uint64_t step, const char *tag)
{
    for (size_t i = 0; i < scalars->count; i++) {
        if (scalars->item[i].step == step && strcmp(scalars->item[i].tag, tag) == 0) {
            return &scalars->item[i];
        }
    }
    return NULL;
}

// --- writing a log -------------------------------------------------------------------------------

static struct metrics *open_log(const char *directory, uint64_t step)
{
    char path[400];
    struct metrics *metrics;
    struct error error;
    assert_status(file_make_directories(directory, &error), STATUS_OK, &error);
    snprintf(path, sizeof path, "%s/metrics.jsonl", directory);
    assert_status(metrics_open(&metrics, path, step, &error), STATUS_OK, &error);
    return metrics;
}

static enum status write_step(struct metrics *metrics, uint64_t step, struct error *error)
{
    const struct metrics_line line = {.step = step,
                                      .epoch = (uint32_t)(step / 10),
                                      .loss = 4 - (double)step / 100,
                                      .top1 = NAN,
                                      .learning_rate = 0.25,
                                      .collapsed = step == 3,
                                      .pairs_per_second = 80};
    return metrics_write(metrics, &line, error);
}

static void write_steps(struct metrics *metrics, uint64_t from, uint64_t to)
{
    struct error error;
    for (uint64_t step = from; step <= to; step++) {
        assert_status(write_step(metrics, step, &error), STATUS_OK, &error);
    }
}

static void write_probe(struct metrics *metrics, uint64_t step)
{
    struct error error;
    const struct metrics_probe probe = {
        .step = step, .knn = 0.5, .knn_top5 = 0.75, .rankme = 12.5, .rankme_projections = NAN};
    assert_status(metrics_write_probe(metrics, &probe, &error), STATUS_OK, &error);
}

static void new_directory(char *directory)
{
    static unsigned number;
    snprintf(directory, 300, "%s/run%u", scratch.path, number++);
}

// Every number of every line is an event's scalar, and there are no others.
static void assert_as_the_log(const char *directory)
{
    char path[400], tag[64];
    struct scalars scalars;
    size_t numbers = 0, lines = 0;
    read_file(directory, &scalars);
    snprintf(path, sizeof path, "%s/metrics.jsonl", directory);
    FILE *log = fopen(path, "r");
    assert_non_null(log);
    for (char text[4096]; fgets(text, sizeof text, log); lines++) {
        json_t *line = json_loads(text, 0, NULL);
        uint64_t step = (uint64_t)json_integer_value(json_object_get(line, "step"));
        json_t *probe = json_object_get(line, "probe"), *figures = probe ? probe : line, *value;
        const char *key;
        json_object_foreach(figures, key, value)
        {
            if (json_is_number(value) && strcmp(key, "step") != 0) {
                snprintf(tag, sizeof tag, "%s/%s", probe ? "eval" : "train", key);
                const struct scalar *scalar = find(&scalars, step, tag);
                assert_non_null(scalar);
                assert_true(scalar->value == (float)json_number_value(value));
                numbers++;
            }
        }
        json_decref(line);
    }
    fclose(log);
    size_t found = 0;
    for (size_t i = 0; i < scalars.count; i++) {
        found += strncmp(scalars.item[i].tag, "time/", 5) != 0 &&
                 strcmp(scalars.item[i].tag, "train/collapsed") != 0;
    }
    assert_int_equal(found, numbers);
    assert_int_equal(scalars.events, lines + 2); // the version, and the start of the session
}

static void the_log_becomes_scalars(void **state)
{
    (void)state;
    char directory[300];
    struct scalars scalars;
    new_directory(directory);
    struct metrics *metrics = open_log(directory, 0);
    write_steps(metrics, 1, 4);
    write_probe(metrics, 4);
    metrics_close(&metrics);
    assert_as_the_log(directory);
    read_file(directory, &scalars);
    assert_true(find(&scalars, 2, "train/loss")->value == (float)3.98);
    assert_true(find(&scalars, 2, "train/learning_rate")->value == 0.25f);
    assert_true(find(&scalars, 2, "train/collapsed")->value == 0);
    assert_true(find(&scalars, 3, "train/collapsed")->value == 1);
    assert_true(find(&scalars, 4, "time/pairs_per_second")->value == 80);
    assert_true(find(&scalars, 4, "eval/knn")->value == 0.5f);
    assert_true(find(&scalars, 4, "eval/rankme")->value == 12.5f);
    assert_null(find(&scalars, 4, "train/top1")); // there is none
    assert_null(find(&scalars, 4, "eval/rankme_projections"));
}

// A kill leaves a log that is ahead of the checkpoint and events that are ahead of it too.
static void a_resumed_run_has_one_curve(void **state)
{
    (void)state;
    char directory[300], path[600];
    struct scalars scalars;
    new_directory(directory);
    struct metrics *metrics = open_log(directory, 0);
    write_steps(metrics, 1, 9);
    metrics_close(&metrics);
    find_file(directory, path, sizeof path);
    FILE *file = fopen(path, "a");
    fputs("half a rec", file);
    fclose(file);
    metrics = open_log(directory, 5);
    assert_int_equal(metrics_probed(metrics), 0);
    assert_as_the_log(directory); // before the first step already
    write_steps(metrics, 6, 7);
    write_probe(metrics, 7);
    metrics_close(&metrics);
    assert_as_the_log(directory);
    read_file(directory, &scalars);
    assert_non_null(find(&scalars, 1, "train/loss"));
    assert_non_null(find(&scalars, 7, "train/loss"));
    assert_null(find(&scalars, 8, "train/loss"));
    metrics = open_log(directory, 7);
    assert_int_equal(metrics_probed(metrics), 7);
    metrics_close(&metrics);
    metrics = open_log(directory, 6);
    assert_int_equal(metrics_probed(metrics), 0); // cut off
    metrics_close(&metrics);
}

static void a_run_that_is_begun_anew_has_none_of_the_old(void **state)
{
    (void)state;
    char directory[300];
    struct scalars scalars;
    new_directory(directory);
    struct metrics *metrics = open_log(directory, 0);
    write_steps(metrics, 1, 3);
    metrics_close(&metrics);
    metrics = open_log(directory, 0);
    metrics_close(&metrics);
    read_file(directory, &scalars);
    assert_int_equal(scalars.count, 0);
}

// --- a full disk ---------------------------------------------------------------------------------

static const char *full_for; // part of a path that finds the disk full

static int disk_is_full(const char *call, const char *path)
{
    (void)call;
    return path && strstr(path, full_for) ? ENOSPC : 0;
}

static void catches_up(const char *name, bool checkpoint_may_come)
{
    char directory[300];
    struct error error;
    new_directory(directory);
    struct metrics *metrics = open_log(directory, 0);
    write_steps(metrics, 1, 2);
    full_for = name;
    file_fault = disk_is_full;
    assert_status(write_step(metrics, 3, &error), STATUS_NO_SPACE, &error);
    assert_status(write_step(metrics, 4, &error), STATUS_NO_SPACE, &error);
    enum status wanted = checkpoint_may_come ? STATUS_OK : STATUS_NO_SPACE;
    assert_status(metrics_flush(metrics, true, &error), wanted, &error);
    file_fault = NULL;
    write_steps(metrics, 5, 5);
    metrics_close(&metrics);
    assert_as_the_log(directory);
}

// Events are made up from the log, so they alone do not keep a checkpoint from being written.
static void events_catch_up_after_a_full_disk(void **state)
{
    (void)state;
    catches_up("events.out.tfevents", true);
    catches_up("/", false);
}

static void a_resume_on_a_full_disk_keeps_the_old_events(void **state)
{
    (void)state;
    char directory[300];
    new_directory(directory);
    struct metrics *metrics = open_log(directory, 0);
    write_steps(metrics, 1, 4);
    metrics_close(&metrics);
    full_for = "events.out.tfevents";
    file_fault = disk_is_full;
    metrics = open_log(directory, 2);
    assert_int_equal(write_step(metrics, 3, NULL), STATUS_NO_SPACE);
    file_fault = NULL;
    char path[600];
    find_file(directory, path, sizeof path); // still that of the session before
    write_steps(metrics, 4, 4);
    metrics_close(&metrics);
    assert_as_the_log(directory);
}

// --- TensorBoard itself --------------------------------------------------------------------------

// BYOL_TENSORBOARD_PYTHON: a Python that has the package `tensorboard`.
static void tensorboard_reads_it(void **state)
{
    (void)state;
    const char *python = getenv("BYOL_TENSORBOARD_PYTHON");
    char directory[300], command[1200];
    snprintf(command, sizeof command, "'%s' -c 'import tensorboard' 2>/dev/null",
             python ? python : "python3");
    if (system(command) != 0) {
        print_message("skipped: no package tensorboard for %s (BYOL_TENSORBOARD_PYTHON names "
                      "another Python)\n",
                      python ? python : "python3");
        skip();
    }
    new_directory(directory);
    struct metrics *metrics = open_log(directory, 0);
    write_steps(metrics, 1, 9);
    metrics_close(&metrics);
    metrics = open_log(directory, 5);
    write_steps(metrics, 6, 8);
    write_probe(metrics, 8);
    metrics_close(&metrics);
    snprintf(command, sizeof command, "'%s' tests/tools/check_tensorboard.py '%s'",
             python ? python : "python3", directory);
    assert_int_equal(system(command), 0);
}

static int set_up(void **state)
{
    (void)state;
    scratch_make(&scratch);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_remove(&scratch);
    return 0;
}

static int clear_fault(void **state)
{
    (void)state;
    file_fault = NULL;
    return 0;
}

#define TEST(name) cmocka_unit_test_teardown(name, clear_fault)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_log_becomes_scalars),
        TEST(a_resumed_run_has_one_curve),
        TEST(a_run_that_is_begun_anew_has_none_of_the_old),
        TEST(events_catch_up_after_a_full_disk),
        TEST(a_resume_on_a_full_disk_keeps_the_old_events),
        TEST(tensorboard_reads_it),
    };
    return cmocka_run_group_tests_name("events", tests, set_up, tear_down);
}
