// The main job end to end, through the program: images to datasets to a pretrained encoder to a
// score, and what happens when something is wrong.
#include "tests/support/program.h"

#include "formats/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define IMAGES "tests/data/images"
#define SAMPLE "../shared/data/imagenet-sample.tar"

#define TINY                                                                                       \
    "--set encoder=tiny --set batch=8 --set views.base=small --set projector_hidden=32 "           \
    "--set projector_output=16 --set predictor_hidden=32 --set warmup_epochs=1 --set threads=1 "

static struct scratch scratch;

// Datasets of the committed images, which every test may read.
static int setup(void **state)
{
    (void)state;
    scratch_make(&scratch);
    program_expect(&scratch, 0, NULL, "convert " IMAGES " -o \"$DIR/shards\" --store shards");
    program_expect(&scratch, 0, NULL, "convert " IMAGES " -o \"$DIR/lmdb\" --store lmdb");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(&scratch);
    return 0;
}

// Runs `byol bench loader ARGUMENTS` and gives its hash.
static void hash_of(char hash[80], const char *arguments)
{
    char line[600];
    snprintf(line, sizeof line, "bench loader %s --hash --json", arguments);
    program_string(&scratch, "hash", hash, 80, line);
    assert_true(strlen(hash) >= 8);
}

static void every_store_and_way_of_reading_gives_the_same_batches(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "\"$DIR/lmdb\" --epochs 2 --recipe small --size 32 --batch 8 --seed 3 --workers 1 --io "
        "pread --depth 1",
        "\"$DIR/shards\" --epochs 2 --recipe small --size 32 --batch 8 --seed 3 --workers 3 --io "
        "pread --depth 64",
        "\"$DIR/lmdb\" --epochs 2 --recipe small --size 32 --batch 8 --seed 3 --workers 2",
    };
    char first[80], other[80];
    hash_of(first, lines[0]);
    for (size_t i = 1; i < sizeof lines / sizeof lines[0]; i++) {
        hash_of(other, lines[i]);
        assert_string_equal(first, other);
    }
    hash_of(other, "\"$DIR/lmdb\" --epochs 2 --recipe small --size 32 --batch 8 --seed 4");
    assert_string_not_equal(first, other);
}

static void both_stores_verify(void **state)
{
    (void)state;
    program_expect(&scratch, 0, "20", "inspect \"$DIR/shards\" --verify");
    program_expect(&scratch, 0, "20", "inspect \"$DIR/lmdb\" --verify");
}

static void a_contact_sheet_is_a_png(void **state)
{
    (void)state;
    program_expect(&scratch, 0, NULL, "views \"$DIR/shards\" -o \"$DIR/sheet.png\"");
    program_expect(&scratch, 0, "PNG", "--version && head -c 4 \"$DIR/sheet.png\"");
}

static void pretraining_and_probing_work(void **state)
{
    (void)state;
    program_expect(&scratch, 0, NULL,
                   "pretrain --data \"$DIR/shards\" --run \"$DIR/run\" " TINY
                   "--set epochs=2 --set max_steps=2");
    program_expect(&scratch, 0, "config.yaml", "--version && ls \"$DIR/run\"");
    program_expect(&scratch, 0, "checkpoint-", "--version && ls \"$DIR/run/checkpoints\"");
    double top1 = program_number(&scratch, "top1",
                                 "eval knn --run \"$DIR/run\" --train \"$DIR/shards\" "
                                 "--test \"$DIR/lmdb\" --json");
    assert_true(top1 > 0 && top1 <= 100); // the test images are in the training set
    program_expect(&scratch, 1, "run",
                   "pretrain --data \"$DIR/shards\" --run \"$DIR/run\" " TINY
                   "--set epochs=2 --set max_steps=4");
    program_expect(&scratch, 0, NULL,
                   "pretrain --data \"$DIR/shards\" --run \"$DIR/run\" --resume " TINY
                   "--set epochs=2 --set max_steps=4");
}

static void the_imagenet_sample_goes_through(void **state)
{
    (void)state;
    if (!file_exists(SAMPLE)) {
        printf("skipped: %s is not here\n", SAMPLE);
        skip();
    }
    program_expect(&scratch, 0, NULL,
                   "convert " SAMPLE " -o \"$DIR/sample-shards\" --store shards");
    program_expect(&scratch, 0, NULL, "convert " SAMPLE " -o \"$DIR/sample-lmdb\" --store lmdb");
    program_expect(&scratch, 0, "300", "inspect \"$DIR/sample-shards\" --verify");
    program_expect(&scratch, 0, "300", "inspect \"$DIR/sample-lmdb\" --verify");
    char shards[80], lmdb[80];
    hash_of(shards, "\"$DIR/sample-shards\" --epochs 1 --recipe small --size 64 --batch 32");
    hash_of(lmdb, "\"$DIR/sample-lmdb\" --epochs 1 --recipe small --size 64 --batch 32 --io pread");
    assert_string_equal(shards, lmdb);
    program_expect(&scratch, 0, NULL,
                   "pretrain --data \"$DIR/sample-lmdb\" --run \"$DIR/sample-run\" " TINY
                   "--set epochs=1 --set max_steps=2 --set batch=32");
}

// A file named like a recipe in the working directory was once read instead of the recipe.
static void a_file_named_like_a_recipe_does_not_hide_it(void **state)
{
    (void)state;
    program_expect(
        &scratch, 0, "encoder",
        "--version && program=$(realpath \"$BYOL\") && cd \"$DIR\" && "
        "echo 'not: a recipe' >small && \"$program\" pretrain --settings --recipe small");
}

static void every_command_reads_recipe_files_with_training_keys(void **state)
{
    (void)state;
    program_expect(&scratch, 0, NULL,
                   "bench loader \"$DIR/lmdb\" --epochs 1 --batch 4 --recipe "
                   "tools/recipes/demo.yaml");
    program_expect(&scratch, 0, NULL,
                   "views \"$DIR/lmdb\" --count 1 -o \"$DIR/demo.png\" --recipe "
                   "tools/recipes/demo.yaml");
}

static void missing_paths_are_named(void **state)
{
    (void)state;
    program_expect(&scratch, 1, "nowhere", "convert \"$DIR/nowhere\" -o \"$DIR/x\"");
    program_expect(&scratch, 1, "nowhere", "inspect \"$DIR/nowhere\"");
    program_expect(&scratch, 1, "nowhere",
                   "pretrain --data \"$DIR/nowhere\" --run \"$DIR/r\" " TINY);
    program_expect(&scratch, 1, "nowhere",
                   "eval knn --run \"$DIR/nowhere\" --train \"$DIR/lmdb\" --test \"$DIR/lmdb\"");
}

static void unknown_options_and_keys_are_answered_with_the_nearest(void **state)
{
    (void)state;
    program_expect(&scratch, 2, "--store", "convert " IMAGES " -o \"$DIR/x\" --stroe lmdb");
    program_expect(&scratch, 1, "epochs",
                   "pretrain --data \"$DIR/lmdb\" --run \"$DIR/r\" --set epohcs=3");
    program_expect(&scratch, 1, "warmup_epochs",
                   "--version && printf 'encoder: tiny\\nwarm_epochs: 3\\n' >\"$DIR/bad.yaml\" && "
                   "\"$BYOL\" pretrain --data \"$DIR/lmdb\" --run \"$DIR/r\" --recipe "
                   "\"$DIR/bad.yaml\"");
    program_expect(&scratch, 1, "2", // the line
                   "pretrain --data \"$DIR/lmdb\" --run \"$DIR/r\" --recipe \"$DIR/bad.yaml\"");
}

static void a_jpeg_cut_short_is_refused_by_name(void **state)
{
    (void)state;
    program_expect(&scratch, 1, "cut.jpg",
                   "--version && mkdir -p \"$DIR/damaged/star\" && head -c 900 " IMAGES
                   "/star/0000.jpg >\"$DIR/damaged/star/cut.jpg\" && "
                   "\"$BYOL\" convert \"$DIR/damaged\" -o \"$DIR/x\"");
    program_expect(&scratch, 1, "x", "inspect \"$DIR/x\"");
}

static void damaged_datasets_are_refused(void **state)
{
    (void)state;
    program_expect(&scratch, 1, NULL,
                   "--version && cp -r \"$DIR/lmdb\" \"$DIR/flipped\" && "
                   "printf x | dd of=\"$(ls \"$DIR\"/flipped/*index*)\" bs=1 seek=70 "
                   "conv=notrunc status=none && \"$BYOL\" inspect \"$DIR/flipped\" --verify");
    program_expect(&scratch, 1, NULL,
                   "--version && rm -rf \"$DIR/flipped\" && cp -r \"$DIR/shards\" "
                   "\"$DIR/flipped\" && truncate -s -100 \"$(ls -S \"$DIR\"/flipped/* | head -n "
                   "1)\" && \"$BYOL\" inspect \"$DIR/flipped\" --verify");
}

static void an_existing_dataset_is_not_overwritten(void **state)
{
    (void)state;
    program_expect(&scratch, 1, "lmdb", "convert " IMAGES " -o \"$DIR/lmdb\"");
    program_expect(&scratch, 0, NULL, "inspect \"$DIR/lmdb\" --verify");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_stores_verify),
        cmocka_unit_test(every_store_and_way_of_reading_gives_the_same_batches),
        cmocka_unit_test(a_contact_sheet_is_a_png),
        cmocka_unit_test(pretraining_and_probing_work),
        cmocka_unit_test(the_imagenet_sample_goes_through),
        cmocka_unit_test(a_file_named_like_a_recipe_does_not_hide_it),
        cmocka_unit_test(every_command_reads_recipe_files_with_training_keys),
        cmocka_unit_test(missing_paths_are_named),
        cmocka_unit_test(unknown_options_and_keys_are_answered_with_the_nearest),
        cmocka_unit_test(a_jpeg_cut_short_is_refused_by_name),
        cmocka_unit_test(damaged_datasets_are_refused),
        cmocka_unit_test(an_existing_dataset_is_not_overwritten),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
