// Writers that were killed: the next one goes on, whatever its journal has suffered.
#include "formats/dataset.h"
#include "formats/file.h"
#include "tests/support/mutate.h"
#include "tests/support/program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define RECORDS 60
#define BYTES   3000u

static struct scratch scratch;

static int setup(void **state)
{
    (void)state;
    scratch_make(&scratch);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(&scratch);
    return 0;
}

static enum status open_writer(struct dataset_writer **writer, const char *key, struct error *error)
{
    char path[400];
    snprintf(path, sizeof path, "%s/set", scratch.path);
    const struct dataset_writer_config config = {
        .store = DATASET_SHARDS, .shard_bytes = 16384, .frame_bytes = 1, .journal = key};
    return dataset_writer_open(writer, path, &config, error);
}

static enum status add_from(struct dataset_writer *writer, uint64_t first, uint64_t end)
{
    static uint8_t bytes[BYTES];
    enum status status = STATUS_OK;
    for (uint64_t i = first; i < end && status == STATUS_OK; i++) {
        uint64_t random = i + 1;
        for (size_t at = 0; at < sizeof bytes; at++) {
            bytes[at] = (uint8_t)(mutate_next(&random) >> 30);
        }
        char name[32];
        snprintf(name, sizeof name, "%03u.jpg", (unsigned)i);
        const struct dataset_item item = {
            .name = name,
            .bytes = bytes,
            .len = sizeof bytes,
            .label = DATASET_NO_LABEL,
            .info = {.kind = IMAGE_JPEG, .width = 5, .height = 5, .components = 3},
            .trace = {.position = 2 * i, .about = i}};
        status = dataset_writer_add(writer, &item, NULL);
        const struct dataset_trace trace = {.position = 2 * i + 1, .about = 7};
        status = status ? status : dataset_writer_remark(writer, &trace, "odd one", NULL);
    }
    return status;
}

// A process that writes `count` records and is gone without a word.
static void write_and_die(uint64_t count)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct dataset_writer *writer;
        bool fine = open_writer(&writer, "key", NULL) == STATUS_OK &&
                    add_from(writer, dataset_writer_resumed(writer), count) == STATUS_OK;
        _exit(fine ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void shell(const char *line)
{
    char command[900];
    snprintf(command, sizeof command, "cd '%s' && %s", scratch.path, line);
    assert_int_equal(system(command), 0);
}

static void finish(struct dataset_writer *writer)
{
    assert_int_equal(add_from(writer, dataset_writer_resumed(writer), RECORDS), STATUS_OK);
    assert_int_equal(dataset_writer_commit(&writer, NULL, 0, NULL), STATUS_OK);
}

static void the_next_writer_has_whole_shards_and_what_was_said_of_them(void **state)
{
    (void)state;
    struct dataset_writer *writer;
    struct error error;
    assert_int_equal(open_writer(&writer, "key", NULL), STATUS_OK);
    finish(writer);
    shell("mv set whole");
    write_and_die(23);
    assert_int_equal(open_writer(&writer, "other key", &error), STATUS_EXISTS);
    write_and_die(41);
    assert_int_equal(open_writer(&writer, "key", NULL), STATUS_OK);
    uint64_t resumed = dataset_writer_resumed(writer);
    assert_in_range(resumed, 30, 41);
    for (uint64_t i = 0; i < resumed; i++) {
        struct dataset_trace trace = dataset_writer_trace(writer, i);
        assert_int_equal(trace.position, 2 * i);
        assert_int_equal(trace.about, i);
    }
    struct dataset_trace trace;
    const char *text;
    assert_true(dataset_writer_remark_at(writer, 0, &trace, &text));
    assert_int_equal(trace.position, 1);
    assert_int_equal(trace.about, 7);
    assert_string_equal(text, "odd one");
    finish(writer);
    shell("diff -r whole set");
}

// Damage costs work, never the result.
static void damaged_journals_do_no_harm(void **state)
{
    (void)state;
    struct dataset_writer *writer;
    struct error error;
    assert_int_equal(open_writer(&writer, "key", NULL), STATUS_OK);
    finish(writer);
    shell("mv set whole");
    write_and_die(41);
    shell("cp -r set.partial kept");
    char path[400];
    uint8_t *bytes;
    size_t len;
    uint64_t random = 9;
    unsigned resumed = 0, refused = 0;
    snprintf(path, sizeof path, "%s/kept/journal", scratch.path);
    assert_int_equal(file_read_all(path, 1 << 20, &bytes, &len, NULL), STATUS_OK);
    snprintf(path, sizeof path, "%s/set.partial/journal", scratch.path);
    for (int i = 0; i < 60; i++) {
        shell("rm -rf set set.partial && cp -r kept set.partial");
        size_t mutant_len;
        uint8_t *mutant = mutate_copy(bytes, len, 0, &random, &mutant_len);
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(mutant, 1, mutant_len, file), mutant_len);
        assert_int_equal(fclose(file), 0);
        free(mutant);
        if (open_writer(&writer, "key", &error) != STATUS_OK) {
            refused++; // the key itself was hit
            continue;
        }
        resumed += dataset_writer_resumed(writer) > 0;
        finish(writer);
        shell("diff -r whole set");
    }
    free(bytes);
    assert_in_range(resumed, 1, 60);
    assert_in_range(refused, 0, 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_next_writer_has_whole_shards_and_what_was_said_of_them,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_journals_do_no_harm, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
