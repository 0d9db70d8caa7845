// `byol views`: the sheet, the raw views, and that printed parameters replay bit for bit.
#include "tests/support/program.h"
#include "tests/support/render.h"

#include "augment/view.h"
#include "formats/file.h"
#include "formats/npy.h"
#include "trainer/run/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define JPEGS "tests/data/golden/decode_crop_resize/jpeg/"
#define TWO   JPEGS "tiny.jpg " JPEGS "exif6.jpg "
#define SMALL "--recipe small "

static struct scratch scratch;
static struct error error;

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

static void views(const char *arguments)
{
    char line[2048];
    snprintf(line, sizeof line, "views %s", arguments);
    program_expect(&scratch, 0, NULL, line);
}

static void refuse(int code, const char *text, const char *arguments)
{
    char line[2048];
    snprintf(line, sizeof line, "views %s", arguments);
    program_expect(&scratch, code, text, line);
}

static void read_scratch(const char *name, uint8_t **bytes, size_t *len)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", scratch.path, name);
    if (file_read_all(path, UINT64_C(1) << 28, bytes, len, &error) != STATUS_OK) {
        fail_msg("%s: %s", path, error.reason);
    }
}

static bool same_files(const char *a, const char *b)
{
    uint8_t *a_bytes, *b_bytes;
    size_t a_len, b_len;
    read_scratch(a, &a_bytes, &a_len);
    read_scratch(b, &b_bytes, &b_len);
    bool same = a_len == b_len && memcmp(a_bytes, b_bytes, a_len) == 0;
    free(a_bytes);
    free(b_bytes);
    return same;
}

static struct npy read_raw(const char *name)
{
    char path[512];
    struct npy array;
    snprintf(path, sizeof path, "%s/%s", scratch.path, name);
    if (npy_read(path, &array, &error) != STATUS_OK) {
        fail_msg("%s: %s", path, error.reason);
    }
    return array;
}

static void test_sheet_is_a_picture(void **state)
{
    (void)state;
    views(TWO "-o \"$DIR/sheet.png\"");
    uint8_t *bytes;
    size_t len;
    read_scratch("sheet.png", &bytes, &len);
    struct image_decoder *decoder;
    struct image sheet = {0};
    assert_int_equal(image_decoder_open(&decoder, &error), STATUS_OK);
    assert_int_equal(image_decode(decoder, bytes, len, NULL, &sheet, &error), STATUS_OK);
    assert_true(sheet.width > 7 * 224 && sheet.height > 2 * 224);
    const uint8_t *corner = sheet.pixels, *last = corner + (size_t)sheet.width * 3 - 3;
    assert_memory_equal(corner, last, 3); // margins all around
    image_free(&sheet);
    image_decoder_close(&decoder);
    free(bytes);
}

static void test_raw_holds_every_view(void **state)
{
    (void)state;
    views(TWO SMALL "--pairs 2 --raw \"$DIR/raw.npy\"");
    struct npy raw = read_raw("raw.npy");
    assert_int_equal(raw.type, NPY_FLOAT32);
    assert_int_equal(raw.dims, 5);
    const uint64_t shape[5] = {2, 4, 32, 32, 3};
    assert_memory_equal(raw.shape, shape, sizeof shape);
    const float *values = raw.data;
    for (size_t i = 0; i < raw.count; i++) {
        assert_true(values[i] >= 0 && values[i] <= 1);
    }
    npy_free(&raw);
}

// The raw views are what the library gives for the same key.
static void test_views_are_those_of_training(void **state)
{
    (void)state;
    views(TWO SMALL "--pairs 1 --epoch 5 --seed 77 --raw \"$DIR/key.npy\"");
    struct npy raw = read_raw("key.npy");
    uint8_t *bytes;
    size_t len;
    assert_int_equal(file_read_all(JPEGS "exif6.jpg", 1 << 20, &bytes, &len, &error), STATUS_OK);
    struct recipe recipe;
    struct view_params params;
    struct image_info info;
    struct image_decoder *decoder;
    struct view_scratch *work;
    struct image crop = {0};
    float out[32 * 32 * 3];
    assert_int_equal(recipe_builtin("small", &recipe, &error), STATUS_OK);
    assert_int_equal(image_decoder_open(&decoder, &error), STATUS_OK);
    assert_int_equal(view_scratch_open(&work, 32, &error), STATUS_OK);
    assert_int_equal(image_probe(decoder, bytes, len, &info, &error), STATUS_OK);
    for (uint32_t view = 0; view < 2; view++) {
        struct view_key key = {.seed = 77, .record = 1, .epoch = 5, .view = view};
        view_draw(&recipe, key, info.width, info.height, &params);
        assert_int_equal(image_decode(decoder, bytes, len, &params.crop, &crop, &error), STATUS_OK);
        assert_int_equal(render_image(&params, &crop, work, out, &error), STATUS_OK);
        assert_memory_equal((float *)raw.data + (2 + view) * 32 * 32 * 3, out, sizeof out);
    }
    image_free(&crop);
    view_scratch_close(&work);
    image_decoder_close(&decoder);
    free(bytes);
    npy_free(&raw);
}

static void test_epochs_and_seeds_differ(void **state)
{
    (void)state;
    views(TWO SMALL "--pairs 1 --raw \"$DIR/a.npy\"");
    views(TWO SMALL "--pairs 1 --raw \"$DIR/again.npy\"");
    views(TWO SMALL "--pairs 1 --epoch 1 --raw \"$DIR/b.npy\"");
    views(TWO SMALL "--pairs 1 --seed 1 --raw \"$DIR/c.npy\"");
    assert_true(same_files("a.npy", "again.npy"));
    assert_false(same_files("a.npy", "b.npy"));
    assert_false(same_files("a.npy", "c.npy"));
}

static void test_parameters_replay_bit_for_bit(void **state)
{
    (void)state;
    views(TWO "--size 48 --seed 3 --epoch 2 --params --raw \"$DIR/one.npy\" > \"$DIR/p.json\"");
    views("--replay \"$DIR/p.json\" --raw \"$DIR/two.npy\" --params > \"$DIR/q.json\"");
    views(TWO "--replay \"$DIR/p.json\" --raw \"$DIR/three.npy\" -o \"$DIR/replayed.png\"");
    assert_true(same_files("one.npy", "two.npy"));
    assert_true(same_files("one.npy", "three.npy"));
    assert_true(same_files("p.json", "q.json"));
}

static void test_edited_parameters_show(void **state)
{
    (void)state;
    views(TWO SMALL "--params --raw \"$DIR/drawn.npy\" > \"$DIR/drawn.json\"");
    program_expect(&scratch, 0, NULL,
                   "views --replay \"$DIR/drawn.json\" --raw \"$DIR/x.npy\" && "
                   "sed 's/\"flip\": true/\"flip\": false/' \"$DIR/drawn.json\" > "
                   "\"$DIR/edited.json\"");
    views("--replay \"$DIR/edited.json\" --raw \"$DIR/edited.npy\"");
    assert_true(same_files("drawn.npy", "x.npy"));
    assert_false(same_files("drawn.npy", "edited.npy"));
}

static void test_recipe_files_equal_the_builtins(void **state)
{
    (void)state;
    const char *const names[] = {"byol", "small", "linear-train", "eval"};
    for (size_t i = 0; i < 4; i++) {
        char line[512];
        snprintf(line, sizeof line, TWO "--recipe %s --raw \"$DIR/name.npy\"", names[i]);
        views(line);
        snprintf(line, sizeof line, TWO "--recipe tools/recipes/%s.yaml --raw \"$DIR/file.npy\"",
                 names[i]);
        views(line);
        assert_true(same_files("name.npy", "file.npy"));
    }
}

// The files for training must also be what `byol pretrain --recipe` accepts.
static void test_training_recipes_resolve(void **state)
{
    (void)state;
    const char *const names[] = {"byol", "small"};
    for (size_t i = 0; i < 2; i++) {
        char file[64];
        snprintf(file, sizeof file, "tools/recipes/%s.yaml", names[i]);
        struct run_config config;
        struct recipe expected;
        if (run_config_resolve(&config, file, NULL, 0, &error) != STATUS_OK) {
            fail_msg("%s: %s", file, error.reason);
        }
        assert_int_equal(recipe_builtin(names[i], &expected, &error), STATUS_OK);
        assert_memory_equal(&config.recipe, &expected, sizeof expected);
    }
}

// A record of a dataset gives the views of the file it was made from.
static void test_dataset_shows_what_its_files_show(void **state)
{
    (void)state;
    program_expect(&scratch, 0, NULL,
                   "--version; mkdir \"$DIR/in\" && cp " JPEGS "exif6.jpg \"$DIR/in/\" && "
                   "\"$BYOL\" convert \"$DIR/in\" -o \"$DIR/data\"");
    views("\"$DIR/data\" --size 64 --raw \"$DIR/data.npy\" -o \"$DIR/data.png\"");
    views(JPEGS "exif6.jpg --size 64 --raw \"$DIR/file.npy\" -o \"$DIR/file.png\"");
    assert_true(same_files("data.npy", "file.npy"));
    assert_true(same_files("data.png", "file.png"));
}

static void test_evaluation_view_does_not_change(void **state)
{
    (void)state;
    views(TWO "--recipe eval --size 64 --pairs 1 --raw \"$DIR/first.npy\"");
    views(TWO "--recipe eval --size 64 --pairs 1 --epoch 9 --seed 4 --raw \"$DIR/later.npy\"");
    assert_true(same_files("first.npy", "later.npy"));
}

static void test_wrong_usage(void **state)
{
    (void)state;
    refuse(2, "nothing to write", TWO);
    refuse(2, "which images", "-o \"$DIR/none.png\"");
    refuse(2, "--replay takes", "--replay \"$DIR/p.json\" --seed 3 --params");
    refuse(2, "--size", TWO "--size 3 --params");
    refuse(2, "did you mean '--recipe'", TWO "--recip small --params");
}

static void test_failures_name_the_cause(void **state)
{
    (void)state;
    refuse(1, "no-such.jpg", JPEGS "no-such.jpg --params");
    refuse(1, "did you mean 'small'", TWO "--recipe smal --params");
    refuse(1, "test_views.c", "tests/tools/test_views.c --params");
    refuse(1, "no-such-folder", TWO "-o \"$DIR/no-such-folder/sheet.png\"");
    refuse(1, "must be the only input", JPEGS "tiny.jpg tests --params");
    program_expect(&scratch, 0, NULL,
                   "--version; head -c 700 " JPEGS "tiny.jpg > \"$DIR/cut.jpg\"; "
                   "echo '{views: {view1: {blurr: 1}}}' > \"$DIR/misspelt.yaml\"; "
                   "echo '{}' > \"$DIR/empty.json\"");
    refuse(1, "cut.jpg", "\"$DIR/cut.jpg\" -o \"$DIR/never.png\"");
    refuse(1, "view1.blur", TWO "--recipe \"$DIR/misspelt.yaml\" --params");
    refuse(1, "not a parameter file", "--replay \"$DIR/empty.json\" --params");
    char path[512];
    snprintf(path, sizeof path, "%s/never.png", scratch.path);
    assert_false(file_exists(path));
}

static void test_replay_refuses_what_does_not_fit(void **state)
{
    (void)state;
    views(TWO SMALL "--params > \"$DIR/fit.json\"");
    refuse(1, "parameters are for",
           JPEGS "exif6.jpg " JPEGS "tiny.jpg --replay \"$DIR/fit.json\" --params");
    refuse(1, "have only 1 image", JPEGS "tiny.jpg --replay \"$DIR/fit.json\" --params");
    program_expect(&scratch, 0, NULL,
                   "--version; sed '0,/\"size\": 32/s//\"size\": 16/' \"$DIR/fit.json\" > "
                   "\"$DIR/sizes.json\"; sed 's/\"x\": [0-9]*/\"x\": 5000/' \"$DIR/fit.json\" > "
                   "\"$DIR/outside.json\"; sed 's/^ *\"hue\"/\"hua\"/; s/\"hua\":/\"hue\":/' "
                   "\"$DIR/fit.json\" > \"$DIR/order.json\"");
    refuse(1, "same 'size'", "--replay \"$DIR/sizes.json\" --params");
    refuse(1, "tiny.jpg", "--replay \"$DIR/outside.json\" --params");
    refuse(1, "records[0].views[0]", "--replay \"$DIR/order.json\" --params");
}

// The rows of an image differ in what is compared and in nothing else.
static void test_compare_keeps_the_draws(void **state)
{
    (void)state;
    views(TWO SMALL "--compare views.*.flip=0,1 --pairs 1 -o \"$DIR/compare.png\" --raw "
                    "\"$DIR/compare.npy\" --params > \"$DIR/compare.json\"");
    views(TWO SMALL "--compare flip=0 -o \"$DIR/x.png\" 2>\"$DIR/err\"; grep -q \"unknown key "
                    "'views.flip'\" \"$DIR/err\"");
    views("--replay \"$DIR/compare.json\" --raw \"$DIR/again.npy\"");
    assert_true(same_files("compare.npy", "again.npy"));
    program_expect(&scratch, 0, "2 4 0",
                   "--version >/dev/null; echo $(grep -c 'flip = 1' \"$DIR/compare.json\") "
                   "$(grep -c '\"flip\": true' \"$DIR/compare.json\") "
                   "$(sed 's/\"flip\": .*//; /variant/d' \"$DIR/compare.json\" | "
                   "awk '/\"crop\"/,/}/' | sort | uniq -c | awk '$1 % 2' | wc -l)");
    views(TWO "--compare tools/ablations/cifar-augmentations.yaml --pairs 1 --json");
    refuse(1, "did you mean 'views.view1.blur'", TWO "--compare view1.blurr=0,1 -o x.png");
    refuse(1, "do not fit one sheet", TWO "--compare size=32,64 -o x.png");
    refuse(2, "brings its recipe",
           TWO SMALL "--compare tools/ablations/cifar-augmentations.yaml -o x.png");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sheet_is_a_picture),
        cmocka_unit_test(test_raw_holds_every_view),
        cmocka_unit_test(test_views_are_those_of_training),
        cmocka_unit_test(test_epochs_and_seeds_differ),
        cmocka_unit_test(test_parameters_replay_bit_for_bit),
        cmocka_unit_test(test_edited_parameters_show),
        cmocka_unit_test(test_recipe_files_equal_the_builtins),
        cmocka_unit_test(test_training_recipes_resolve),
        cmocka_unit_test(test_dataset_shows_what_its_files_show),
        cmocka_unit_test(test_evaluation_view_does_not_change),
        cmocka_unit_test(test_wrong_usage),
        cmocka_unit_test(test_failures_name_the_cause),
        cmocka_unit_test(test_replay_refuses_what_does_not_fit),
        cmocka_unit_test(test_compare_keeps_the_draws),
    };
    return cmocka_run_group_tests_name("views", tests, setup, teardown);
}
