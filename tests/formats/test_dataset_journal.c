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

static enum status open_named(struct dataset_writer **writer, const char *name, const char *key,
                              enum dataset_store store, bool replace, struct error *error)
{
    const struct dataset_writer_config config = {
        .store = store, .shard_bytes = 16384, .frame_bytes = 1, .journal = key, .replace = replace};
    return dataset_writer_open(writer, scratch_path(&scratch, name), &config, error);
}

static enum status open_writer(struct dataset_writer **writer, const char *key, struct error *error)
{
    return open_named(writer, "set", key, DATASET_SHARDS, false, error);
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

// --- into place --------------------------------------------------------------------------------

#define FEW 7u

static const char *const pair[2] = {"pair/a", "pair/b"};

struct pair_case {
    enum dataset_store store;
    bool replace;
};

// Makes both datasets of the pair, or goes on from where a killed process came to.
static enum status write_pair(const struct pair_case *how, struct error *error)
{
    struct dataset_writer *writers[2] = {NULL};
    struct dataset_places places;
    const char *const paths[2] = {scratch_path(&scratch, pair[0]), scratch_path(&scratch, pair[1])};
    enum status status = dataset_place_find(writers, paths, 2, how->replace, &places, error);
    if (status == STATUS_OK && places.found) {
        assert_true(dataset_places_are(writers, 2, pair[1]));
        assert_false(dataset_places_are(writers, 2, pair[0]));
        assert_int_equal(places.len, 5);
        assert_memory_equal(places.about, "about", 5);
    }
    for (int i = 0; i < 2 && status == STATUS_OK && !places.found; i++) {
        status = open_named(&writers[i], pair[i], pair[i], how->store, how->replace, error);
        status = status ? status
                        : add_from(writers[i], dataset_writer_resumed(writers[i]),
                                   FEW + 3 * (unsigned)i);
    }
    for (int i = 0; i < 2 && status == STATUS_OK && !places.found; i++) {
        status = dataset_writer_finish(writers[i], NULL, 0, error);
    }
    status = status ? status : dataset_place(writers, 2, "about", 5, error);
    status = status ? status : dataset_settle(writers, 2, error);
    dataset_writer_abort(&writers[0]);
    dataset_writer_abort(&writers[1]);
    return status;
}

static unsigned calls_left;

// A process that is gone at one of its calls that change the disk.
static int die_when_none_is_left(const char *call, const char *path)
{
    (void)call;
    (void)path;
    if (calls_left-- == 0) {
        _exit(7);
    }
    return 0;
}

// Runs `work` in a process that dies at its call number `calls`; false when it had fewer.
static bool dies_at(unsigned calls, enum status (*work)(const struct pair_case *, struct error *),
                    const struct pair_case *how)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        calls_left = calls;
        file_fault = die_when_none_is_left;
        _exit(work(how, NULL) == STATUS_OK ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 7));
    return WEXITSTATUS(status) == 7;
}

static bool complete(void)
{
    return file_exists(scratch_path(&scratch, "pair/a/index.byol")) &&
           file_exists(scratch_path(&scratch, "pair/b/index.byol")) &&
           !file_exists(scratch_path(&scratch, "pair/b/journal"));
}

static void expect_pair_after_any_kill(const struct pair_case *how)
{
    struct error error;
    unsigned calls = 0, begun = 0;
    shell("rm -rf pair whole");
    if (write_pair(how, &error) != STATUS_OK) {
        fail_msg("%s: %s", error.path, error.reason);
    }
    shell("mv pair whole");
    for (;; calls++) {
        shell("rm -rf pair");
        if (!dies_at(calls, write_pair, how)) {
            break;
        }
        begun += file_exists(scratch_path(&scratch, "pair/a/index.byol")) &&
                 file_exists(scratch_path(&scratch, "pair/b.partial/journal"));
        if (!complete() && write_pair(how, &error) != STATUS_OK) {
            fail_msg("killed at call %u: %s: %s", calls, error.path, error.reason);
        }
        if (scratch_shell(&scratch, "diff -r $DIR/whole $DIR/pair") != 0) {
            fail_msg("killed at call %u: other bytes", calls);
        }
    }
    assert_in_range(calls, 30, 1000);
    assert_in_range(begun, 1, calls);
}

static void a_kill_at_any_call_costs_nothing(void **state)
{
    (void)state;
    for (int store = 0; store < 2; store++) {
        const struct pair_case how = {.store = store ? DATASET_SHARDS : DATASET_LMDB};
        expect_pair_after_any_kill(&how);
    }
}

static void write_old(const char *name)
{
    struct dataset_writer *writer;
    assert_int_equal(open_named(&writer, name, NULL, DATASET_SHARDS, false, NULL), STATUS_OK);
    assert_int_equal(add_from(writer, 20, 25), STATUS_OK);
    assert_int_equal(dataset_writer_commit(&writer, NULL, 0, NULL), STATUS_OK);
}

static void so_it_is_where_datasets_are_replaced(void **state)
{
    (void)state;
    write_old("old/a");
    write_old("old/b");
    const struct pair_case how = {.store = DATASET_SHARDS, .replace = true};
    struct error error;
    shell("cp -r old pair");
    unsigned calls = 0;
    assert_int_equal(write_pair(&how, &error), STATUS_OK);
    shell("mv pair whole");
    for (;; calls++) {
        shell("rm -rf pair && cp -r old pair");
        if (!dies_at(calls, write_pair, &how)) {
            break;
        }
        // Whatever stands under a name is one of the two.
        assert_int_equal(scratch_shell(&scratch, "for i in a b; do diff -r -x journal $DIR/pair/$i "
                                                 "$DIR/old/$i || diff -r -x journal "
                                                 "$DIR/pair/$i $DIR/whole/$i || exit 1; done"),
                         0);
        if (write_pair(&how, &error) != STATUS_OK) {
            fail_msg("killed at call %u: %s: %s", calls, error.path, error.reason);
        }
        assert_int_equal(scratch_shell(&scratch, "diff -r $DIR/whole $DIR/pair"), 0);
    }
    assert_in_range(calls, 30, 1000);
}

// Leaves a in place and b beside its own.
static void stop_between(void)
{
    const struct pair_case how = {.store = DATASET_SHARDS};
    for (unsigned calls = 0;; calls++) {
        shell("rm -rf pair");
        assert_true(dies_at(calls, write_pair, &how));
        if (file_exists(scratch_path(&scratch, "pair/a")) &&
            file_exists(scratch_path(&scratch, "pair/b.partial/journal"))) {
            return;
        }
    }
}

static void expect_no_place(void)
{
    struct dataset_writer *writers[2];
    struct dataset_places places;
    const char *const paths[2] = {scratch_path(&scratch, pair[0]), scratch_path(&scratch, pair[1])};
    assert_int_equal(dataset_place_find(writers, paths, 2, true, &places, NULL), STATUS_OK);
    assert_false(places.found);
    assert_null(writers[0]);
    assert_null(writers[1]);
}

static void what_is_not_ours_is_never_taken_for_it(void **state)
{
    (void)state;
    struct error error;
    const struct pair_case how = {.store = DATASET_SHARDS};
    write_old("old");
    stop_between();
    shell("mv pair between");
    static const char *const changes[] = {
        "rm -r pair/a && cp -r old pair/a",                       // another dataset
        "rm -r pair/a && mkdir pair/a && echo mine >pair/a/file", // no dataset
        "rm -r pair/a",                                           // it was removed
        "truncate -s -1 pair/a/shard-00000.tar.zst",              // damaged since
        "rm pair/b.partial/shard-00000.tar.zst",
        "rm -r pair/b.partial",
        "rm pair/b.partial/journal",
        "echo more >>pair/b.partial/index.byol"};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        shell("rm -rf pair && cp -r between pair");
        shell(changes[i]);
        expect_no_place();
        if (file_exists(scratch_path(&scratch, "pair/a"))) {
            shell("cp -r pair/a before");
            assert_int_equal(write_pair(&how, &error), STATUS_EXISTS);
            shell("diff -r before pair/a && rm -r before");
        }
    }
    // Mutants of the journal: found in full, or not at all.
    char path[400];
    uint8_t *bytes;
    size_t len;
    uint64_t random = 4;
    unsigned found = 0;
    shell("rm -rf pair && cp -r between pair");
    snprintf(path, sizeof path, "%s/pair/b.partial/journal", scratch.path);
    assert_int_equal(file_read_all(path, 1 << 20, &bytes, &len, NULL), STATUS_OK);
    for (int i = 0; i < 300; i++) {
        size_t mutant_len;
        uint8_t *mutant = mutate_copy(bytes, len, 0, &random, &mutant_len);
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(mutant, 1, mutant_len, file), mutant_len);
        assert_int_equal(fclose(file), 0);
        free(mutant);
        struct dataset_writer *writers[2];
        struct dataset_places places;
        const char *const paths[2] = {scratch_path(&scratch, pair[0]),
                                      scratch_path(&scratch, pair[1])};
        assert_int_equal(dataset_place_find(writers, paths, 2, false, &places, NULL), STATUS_OK);
        found += places.found;
        dataset_writer_abort(&writers[0]);
        dataset_writer_abort(&writers[1]);
    }
    free(bytes);
    assert_in_range(found, 0, 100);
    assert_true(file_exists(scratch_path(&scratch, "pair/b.partial/index.byol")));
}

static void another_process_that_is_at_it_is_left_alone(void **state)
{
    (void)state;
    struct dataset_writer *writers[2], *others[2];
    struct dataset_places places;
    stop_between();
    const char *const paths[2] = {scratch_path(&scratch, pair[0]), scratch_path(&scratch, pair[1])};
    assert_int_equal(dataset_place_find(writers, paths, 2, false, &places, NULL), STATUS_OK);
    assert_true(places.found && places.begun);
    assert_int_equal(dataset_place_find(others, paths, 2, false, &places, NULL), STATUS_DENIED);
    assert_int_equal(dataset_place(writers, 2, NULL, 0, NULL), STATUS_OK);
    assert_int_equal(dataset_settle(writers, 2, NULL), STATUS_OK);
    assert_true(complete());
}

// --- joining -----------------------------------------------------------------------------------

static enum status join_parts(const struct pair_case *how, struct error *error)
{
    struct dataset_writer *writer = NULL;
    struct dataset_places places;
    const char *path = scratch_path(&scratch, "joined");
    char parts[2][560];
    snprintf(parts[0], sizeof parts[0], "%s/parts/a.partial", scratch.path);
    snprintf(parts[1], sizeof parts[1], "%s/parts/b.partial", scratch.path);
    enum status status = dataset_place_find(&writer, &path, 1, false, &places, error);
    if (status == STATUS_OK && !places.found) {
        status = open_named(&writer, "joined", "key", how->store, false, error);
        status = status ? status : dataset_writer_join(writer, (const char(*)[560])parts, 2, error);
    }
    status = status ? status : dataset_place(&writer, 1, NULL, 0, error);
    status = status ? status : dataset_settle(&writer, 1, error);
    dataset_writer_abort(&writer);
    return status;
}

static void parts_stay_whole_until_they_are_joined(void **state)
{
    (void)state;
    static const char *const parts[] = {"parts/a", "parts/b"};
    const struct pair_case how = {.store = DATASET_SHARDS};
    for (unsigned i = 0; i < 2; i++) {
        struct dataset_writer *writer;
        assert_int_equal(open_named(&writer, parts[i], "key", DATASET_SHARDS, false, NULL),
                         STATUS_OK);
        assert_int_equal(add_from(writer, FEW * i, FEW * (i + 1)), STATUS_OK);
        assert_int_equal(dataset_writer_finish(writer, NULL, 0, NULL), STATUS_OK);
        dataset_writer_abort(&writer); // which keeps what is complete
    }
    shell("cp -r parts kept");
    assert_int_equal(join_parts(&how, NULL), STATUS_OK);
    shell("mv joined whole");
    for (unsigned calls = 0;; calls++) {
        shell("rm -rf joined");
        if (!dies_at(calls, join_parts, &how)) {
            assert_in_range(calls, 5, 1000);
            break;
        }
        shell("diff -r kept parts");
        if (!file_exists(scratch_path(&scratch, "joined")) ||
            file_exists(scratch_path(&scratch, "joined/journal"))) {
            assert_int_equal(join_parts(&how, NULL), STATUS_OK);
        }
        shell("diff -r whole joined");
    }
    struct dataset *dataset;
    assert_int_equal(dataset_open(&dataset, scratch_path(&scratch, "whole"), NULL), STATUS_OK);
    assert_int_equal(dataset_count(dataset), 2 * FEW);
    dataset_close(&dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_next_writer_has_whole_shards_and_what_was_said_of_them,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_journals_do_no_harm, setup, teardown),
        cmocka_unit_test_setup_teardown(a_kill_at_any_call_costs_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(so_it_is_where_datasets_are_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_ours_is_never_taken_for_it, setup, teardown),
        cmocka_unit_test_setup_teardown(another_process_that_is_at_it_is_left_alone, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(parts_stay_whole_until_they_are_joined, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
