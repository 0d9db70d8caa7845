// `byol convert` goes on after a kill, wherever it came, alone and as several processes.
#include "formats/crc32c.h"
#include "formats/file.h"
#include "tests/support/mutate.h"
#include "tests/support/program.h"
#include "tests/support/ranks.h"
#include "tools/convert.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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

// Noise, which no compression makes smaller: DIR/one has seven shards of 1 MiB.
static void make_some(void)
{
    struct image image = {0};
    uint64_t random = 3;
    assert_int_equal(image_reserve(&image, 400, 300, NULL), STATUS_OK);
    assert_int_equal(file_make_directories(scratch_path(&scratch, "one"), NULL), STATUS_OK);
    for (unsigned i = 0; i < 20; i++) {
        for (size_t at = 0; at < (size_t)400 * 300 * 3; at++) {
            image.pixels[at] = (uint8_t)(mutate_next(&random) >> 20);
        }
        uint8_t *bytes;
        size_t len;
        char name[64];
        assert_int_equal(image_encode_png(&image, &bytes, &len, NULL), STATUS_OK);
        snprintf(name, sizeof name, "one/%02u.png", i);
        FILE *file = fopen(scratch_path(&scratch, name), "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(bytes, 1, len, file), len);
        assert_int_equal(fclose(file), 0);
        free(bytes);
    }
    image_free(&image);
}

// Several batches of LMDB.
static void make_many(void)
{
    make_some();
    assert_int_equal(scratch_shell(&scratch,
                                   "mkdir $DIR/big && for i in 0 1 2 3 4 5 6 7; do "
                                   "cp -r $DIR/one $DIR/big/$i; done; head -c 5 /dev/zero "
                                   ">$DIR/big/0/07bad.png"),
                     0);
}

// The last image is damaged, or as it was, which is no difference of names and sizes.
static void damage_the_last(bool damaged)
{
    assert_int_equal(
        scratch_shell(&scratch, damaged ? "cp $DIR/one/19.png $DIR/kept.png && printf garbage | "
                                          "dd of=$DIR/one/19.png bs=1 seek=9000 conv=notrunc"
                                        : "cat $DIR/kept.png >$DIR/one/19.png"),
        0);
}

// Converts to DIR/part and kills the program when `ready` says so; false when it was faster.
static bool convert_until(const char *options, const char *ready)
{
    char line[1500];
    snprintf(line, sizeof line,
             "$BYOL convert $DIR/big -o $DIR/part --bad skip --threads 1 %s & p=$!; "
             "while kill -0 $p 2>/dev/null; do if %s; then kill -9 $p; break; fi; sleep 0.005; "
             "done; wait $p",
             options, ready);
    scratch_shell(&scratch, line);
    return !file_exists(scratch_path(&scratch, "part"));
}

static void killed_conversions_go_on(void **state)
{
    (void)state;
    make_many();
    static const char *const options[] = {
        "--store lmdb", "--store shards --shard-size 1",
        "--store shards --shard-size 2 --split a=first:61,b=rest"};
    // LMDB's journal has two batches by then.
    static const char *const ready[] = {
        "test $(stat -c %s $DIR/part.partial/journal || echo 0) -gt 9000",
        "test -e $DIR/part.partial/shard-00003.tar.zst",
        "test -e $DIR/part/b.partial/shard-00002.tar.zst"};
    unsigned resumed = 0;
    for (int s = 0; s < 3; s++) {
        char line[300];
        snprintf(line, sizeof line, "convert $DIR/big -o $DIR/whole --bad skip %s", options[s]);
        program_expect(&scratch, 0, NULL, line);
        convert_until(options[s], ready[s]);
        convert_until(options[s], "sleep 0.1; true"); // and again, soon after it went on
        snprintf(line, sizeof line, "convert $DIR/big -o $DIR/part --bad skip --json %s",
                 options[s]);
        if (scratch_shell(&scratch,
                          "(test -e $DIR/part/index.byol || test -e $DIR/part/b/index.byol) && "
                          "! test -e $DIR/part/journal && ! test -e $DIR/part/b/journal") != 0) {
            struct program_result result;
            program_run(&result, &scratch, line);
            if (result.code != 0) {
                fail_msg("%s", result.err);
            }
            resumed += strstr(result.err, "going on where it was interrupted") != NULL;
            if (s < 2) {
                assert_non_null(strstr(result.out, "\"images\": 160"));
            }
            assert_non_null(strstr(result.out, "\"skipped\": 1"));
            assert_non_null(strstr(result.out, "07bad.png"));
            program_free(&result);
        }
        assert_int_equal(
            scratch_shell(&scratch, "diff -r $DIR/whole $DIR/part && rm -r $DIR/whole $DIR/part"),
            0);
    }
    printf("%u of 3 were gone on with\n", resumed);
}

static void other_options_and_changed_sources_are_refused(void **state)
{
    (void)state;
    make_many();
    if (!convert_until("--store shards --shard-size 1",
                       "test -e $DIR/part.partial/shard-00002.tar.zst")) {
        printf("skipped: it was faster than the kill\n");
        skip();
    }
    program_expect(&scratch, 1, "an unfinished conversion with other options",
                   "convert $DIR/big -o $DIR/part --store shards --shard-size 2 --bad skip");
    assert_true(file_exists(scratch_path(&scratch, "part.partial/shard-00000.tar.zst")));
    assert_int_equal(scratch_shell(&scratch, "cp $DIR/one/03.png $DIR/big/0/new.png"), 0);
    program_expect(&scratch, 1, "--restart to begin anew",
                   "convert $DIR/big -o $DIR/part --store shards --shard-size 1 --bad skip");
    program_expect(&scratch, 0, "161 images",
                   "convert $DIR/big -o $DIR/part --store shards --shard-size 1 --bad skip "
                   "--restart");
    program_expect(&scratch, 0, "verified", "inspect $DIR/part --verify");
}

// --- between the datasets of a split -----------------------------------------------------------

#define SPLIT                                                                                      \
    "convert $DIR/one -o $DIR/part --store shards --shard-size 1 --split a=first:10,b=rest"

static uint64_t id_of(const char *index)
{
    uint64_t id;
    FILE *file = fopen(scratch_path(&scratch, index), "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, -(long)sizeof id, SEEK_END), 0);
    assert_int_equal(fread(&id, sizeof id, 1, file), 1);
    assert_int_equal(fclose(file), 0);
    return id;
}

static size_t put_string(uint8_t *body, size_t at, const char *text)
{
    memcpy(body + at, text, strlen(text) + 1);
    return at + strlen(text) + 1;
}

// Two outputs' numbers: ten images each, and the first left one out.
static size_t put_outcome(uint8_t *body, size_t at)
{
    for (int output = 0; output < 2; output++) {
        for (size_t i = 0; i < sizeof(struct convert_totals) / sizeof(uint64_t); i++) {
            bool skips = i == offsetof(struct convert_totals, skipped) / sizeof(uint64_t);
            at = put_string(body, at, i == 0 ? "10" : skips && output == 0 ? "1" : "0");
        }
        at = put_string(body, at, output == 0 ? "1" : "0");
        if (output == 0) {
            at = put_string(body, at, "20");
            at = put_string(body, at, "odd.png");
            at = put_string(body, at, "is odd");
        }
    }
    return at;
}

// DIR/part as a kill leaves it that comes after a was put in its place and before b was. What the
// journal says of the conversion comes from one that failed.
static void arrange_between(void)
{
    make_some();
    program_expect(&scratch, 0, NULL, SPLIT "; mv $DIR/part $DIR/whole");
    damage_the_last(true);
    program_expect(&scratch, 1, "19.png", SPLIT);
    damage_the_last(false);
    uint8_t *journal, body[2000], head[16];
    size_t len, body_len = 24;
    assert_int_equal(file_read_all(scratch_path(&scratch, "part/b.partial/journal"), 1 << 20,
                                   &journal, &len, NULL),
                     STATUS_OK);
    uint32_t key_len, kind = 0x43414c50, crc;
    memcpy(&key_len, journal + 20, sizeof key_len);
    assert_int_equal(scratch_shell(&scratch, "rm -r $DIR/part/* && cp -r $DIR/whole/a $DIR/part/a "
                                             "&& cp -r $DIR/whole/b $DIR/part/b.partial"),
                     0);
    const uint64_t places[3] = {2, id_of("whole/a/index.byol"), id_of("whole/b/index.byol")};
    memcpy(body, places, sizeof places);
    body_len = put_outcome(body, body_len);
    crc = crc32c(0, body, body_len);
    memcpy(head, &kind, 4);
    memcpy(head + 4, &crc, 4);
    memcpy(head + 8, &body_len, 8);
    FILE *file = fopen(scratch_path(&scratch, "part/b.partial/journal"), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(journal, 1, 32 + key_len, file), 32 + key_len);
    assert_int_equal(fwrite(head, 1, sizeof head, file), sizeof head);
    assert_int_equal(fwrite(body, 1, body_len, file), body_len);
    assert_int_equal(fclose(file), 0);
    free(journal);
    assert_int_equal(scratch_shell(&scratch, "mv $DIR/part $DIR/between"), 0);
}

static void begin_again(const char *change)
{
    char line[600];
    snprintf(line, sizeof line, "rm -rf $DIR/part && cp -r $DIR/between $DIR/part && { %s; }",
             change);
    assert_int_equal(scratch_shell(&scratch, line), 0);
}

static void splits_killed_between_their_datasets_go_on(void **state)
{
    (void)state;
    arrange_between();
    static const char *const changes[] = {
        "true", "mv $DIR/part/b.partial $DIR/part/b", // killed a moment later
        "mv $DIR/part/a $DIR/part/a.partial"};        // and a moment earlier
    for (int i = 0; i < 3; i++) {
        begin_again(changes[i]);
        struct program_result result;
        program_run(&result, &scratch, SPLIT " --json");
        if (result.code != 0) {
            fail_msg("%s", result.err);
        }
        assert_non_null(strstr(result.err, "what is left is to put the datasets in place"));
        assert_non_null(strstr(result.out, "\"images\": 10"));
        assert_non_null(strstr(result.out, "\"resumed_images\": 10"));
        assert_non_null(strstr(result.out, "\"skipped\": 1"));
        assert_non_null(strstr(result.out, "\"odd.png\""));
        program_free(&result);
        assert_int_equal(scratch_shell(&scratch, "diff -r $DIR/whole $DIR/part"), 0);
        program_expect(&scratch, 1, "exists already", SPLIT); // as after any that ended
    }
}

static void splits_of_others_are_not_taken_for_ones_own(void **state)
{
    (void)state;
    arrange_between();
    assert_int_equal(scratch_shell(&scratch, "mkdir $DIR/two && cp $DIR/one/0*.png $DIR/two"), 0);
    static const char *const changes[] = {
        "rm -r $DIR/part/a; $BYOL convert $DIR/two -o $DIR/part/a --store shards",
        "rm -r $DIR/part/a && mkdir $DIR/part/a && echo notes >$DIR/part/a/notes",
        "rm $DIR/part/b.partial/journal"};
    for (int i = 0; i < 3; i++) {
        begin_again(changes[i]);
        assert_int_equal(scratch_shell(&scratch, "rm -rf $DIR/a && cp -r $DIR/part/a $DIR/a"), 0);
        program_expect(&scratch, 1, "part/a: exists already", SPLIT);
        assert_int_equal(scratch_shell(&scratch, "diff -r $DIR/a $DIR/part/a"), 0);
    }
    begin_again("mkdir $DIR/part/b");
    program_expect(&scratch, 1, "part/b: exists already; choose", SPLIT);
    assert_int_equal(scratch_shell(&scratch, "rmdir $DIR/part/b"), 0); // as it was
    begin_again("true");
    program_expect(&scratch, 1, "part/a: exists already", SPLIT " --restart");
    program_expect(&scratch, 1, "part/a: exists already", SPLIT " --seed 4");
    program_expect(&scratch, 1, "part/a: exists already",
                   "convert $DIR/two -o $DIR/part --store shards --split a=first:5,b=rest");
    assert_int_equal(scratch_shell(&scratch, "diff -r $DIR/between $DIR/part"), 0);
    program_expect(&scratch, 0, "b: 10 images", SPLIT " --restart --force");
    assert_int_equal(scratch_shell(&scratch, "diff -r $DIR/whole $DIR/part"), 0);
}

// Ctrl-C, once: nothing is torn, and it is said what is kept.
static void stopped_conversions_say_what_is_kept(void **state)
{
    (void)state;
    make_many();
    struct program_result result;
    program_run(&result, &scratch,
                "--version; $BYOL convert $DIR/big -o $DIR/part --store shards "
                "--shard-size 1 --bad skip --threads 1 & p=$!; while kill -0 $p && ! test -e "
                "$DIR/part.partial/shard-00003.tar.zst; do sleep 0.005; done; kill -TERM $p; "
                "wait $p");
    if (result.code == 0) {
        printf("skipped: it was faster than the signal\n");
        program_free(&result);
        skip();
    }
    assert_int_equal(result.code, 1);
    assert_non_null(strstr(result.err, "stopped"));
    assert_non_null(strstr(result.err, "what was done so far is kept"));
    program_free(&result);
    program_expect(&scratch, 0, "160 images",
                   "convert $DIR/big -o $DIR/part --store shards --shard-size 1 --bad skip");
    program_expect(&scratch, 0, "verified", "inspect $DIR/part --verify");
}

// --- several processes -------------------------------------------------------------------------

static bool can_launch(void)
{
    const char *reason = ranks_reason_to_skip();
    if (reason != NULL) {
        printf("skipped: %s\n", reason);
        return false;
    }
    ranks_prepare();
    return true;
}

static void processes_share_the_work(void **state)
{
    (void)state;
    if (!can_launch()) {
        skip();
    }
    make_some();
    program_expect(&scratch, 0, "20 images", "convert $DIR/one -o $DIR/alone --store shards");
    struct program_result result;
    program_run_under(&result, &scratch, "mpirun -n 3",
                      "convert $DIR/one -o $DIR/three/ --store shards");
    if (result.code != 0) {
        fail_msg("%s", result.err);
    }
    assert_non_null(strstr(result.out, "20 images"));
    program_free(&result);
    program_expect(&scratch, 0, "verified", "inspect $DIR/three --verify");
    assert_int_equal(scratch_shell(&scratch, "test -z \"$(ls -d $DIR/three.*)\""), 0);
    assert_int_equal(
        scratch_shell(&scratch,
                      "$BYOL inspect $DIR/alone --extract $DIR/a && "
                      "$BYOL inspect $DIR/three --extract $DIR/b && diff -r $DIR/a $DIR/b"),
        0);
    assert_int_equal(scratch_shell(&scratch,
                                   "$BYOL inspect $DIR/alone --records | cut -f 5- >$DIR/a.txt; "
                                   "$BYOL inspect $DIR/three --records | cut -f 5- >$DIR/b.txt; "
                                   "diff $DIR/a.txt $DIR/b.txt"),
                     0);
    program_run_under(&result, &scratch, "mpirun -n 2", "convert $DIR/one -o $DIR/l");
    assert_int_not_equal(result.code, 0);
    assert_non_null(strstr(result.err, "--store shards"));
    program_free(&result);
}

#define SHARDS "convert $DIR/one -o $DIR/p --store shards --shard-size 1 --threads 1 --quiet"

static void processes_go_on_in_the_same_number(void **state)
{
    (void)state;
    if (!can_launch()) {
        skip();
    }
    make_some();
    struct program_result result;
    program_run_under(&result, &scratch, "mpirun -n 2", SHARDS "; mv $DIR/p $DIR/whole");
    program_free(&result);
    damage_the_last(true);
    program_run_under(&result, &scratch, "mpirun -n 2", SHARDS);
    assert_int_not_equal(result.code, 0);
    assert_non_null(strstr(result.err, "19.png"));
    assert_non_null(strstr(result.err, "is kept in"));
    program_free(&result);
    damage_the_last(false);
    program_expect(&scratch, 1, "an unfinished conversion by 2 processes", SHARDS);
    program_run_under(&result, &scratch, "mpirun -n 3", SHARDS);
    assert_int_not_equal(result.code, 0);
    assert_non_null(strstr(result.err, "an unfinished conversion by 2 processes"));
    program_free(&result);
    assert_int_equal(scratch_shell(&scratch, "cp -r $DIR/p.part-00000-of-00002.partial $DIR/0 && "
                                             "cp -r $DIR/p.part-00001-of-00002.partial $DIR/1"),
                     0);
    program_run_under(&result, &scratch, "mpirun -n 2", SHARDS " --json");
    if (result.code != 0) {
        fail_msg("%s", result.err);
    }
    assert_non_null(strstr(result.out, "\"images\": 20"));
    assert_null(strstr(result.out, "\"resumed_images\": 0"));
    program_free(&result);
    assert_int_equal(scratch_shell(&scratch, "diff -r $DIR/whole $DIR/p && ! ls $DIR/p.*"), 0);
    assert_int_equal(scratch_shell(&scratch, "rm -r $DIR/p && mv $DIR/0 "
                                             "$DIR/p.part-00000-of-00002.partial && mv $DIR/1 "
                                             "$DIR/p.part-00001-of-00002.partial"),
                     0);
    program_expect(&scratch, 0, NULL, SHARDS " --restart");
    assert_int_equal(scratch_shell(&scratch, "! ls $DIR/p.*"), 0);
}

static void killed_processes_go_on(void **state)
{
    (void)state;
    if (!can_launch()) {
        skip();
    }
    make_some();
    struct program_result result;
    program_run_under(&result, &scratch, "mpirun -n 2", SHARDS "; mv $DIR/p $DIR/whole");
    program_free(&result);
    // One rank, the launcher as Ctrl-C does, all at once.
    static const char *const kills[] = {"kill -9 $(pgrep -P $p | tail -n 1)", "kill -INT $p",
                                        "kill -9 $p $(pgrep -P $p)"};
    for (int i = 0; i < 3; i++) {
        char line[700];
        snprintf(line, sizeof line,
                 "mpirun -n 2 $BYOL " SHARDS " & p=$!; while kill -0 $p && ! test -e "
                 "$DIR/p.part-00001-of-00002.partial/shard-00001.tar.zst; do sleep 0.005; done; "
                 "%s; wait $p; sleep 0.3",
                 kills[i]);
        scratch_shell(&scratch, line);
        if (!file_exists(scratch_path(&scratch, "p")) ||
            file_exists(scratch_path(&scratch, "p/journal"))) {
            program_run_under(&result, &scratch, "mpirun -n 2", SHARDS);
            if (result.code != 0) {
                fail_msg("%s: %s", kills[i], result.err);
            }
            program_free(&result);
        }
        assert_int_equal(
            scratch_shell(&scratch, "diff -r $DIR/whole $DIR/p && ! ls $DIR/p.* && rm -r $DIR/p"),
            0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(killed_conversions_go_on, setup, teardown),
        cmocka_unit_test_setup_teardown(other_options_and_changed_sources_are_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(splits_killed_between_their_datasets_go_on, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(splits_of_others_are_not_taken_for_ones_own, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(stopped_conversions_say_what_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(processes_share_the_work, setup, teardown),
        cmocka_unit_test_setup_teardown(processes_go_on_in_the_same_number, setup, teardown),
        cmocka_unit_test_setup_teardown(killed_processes_go_on, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
