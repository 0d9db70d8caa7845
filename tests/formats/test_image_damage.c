// Damaged JPEGs: each kind of damage ends in the right status, none harms the next image, and
// mutants behind an intact header never do more than that.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/image.h"
#include "tests/support/mutate.h"
#include "tests/support/picture.h"

struct fixture {
    struct image_decoder *decoder;
    uint8_t *good;
    size_t good_len;
    struct image pixels; // of the good image
    struct image out;
};

static struct fixture fixture;

static int open_fixture(void **state)
{
    (void)state;
    struct picture_jpeg how = {PICTURE_YCBCR, .h = 2, .v = 2};
    struct image source = {0};
    picture_fill(&source, 40, 30, 9);
    fixture.good = picture_jpeg(&source, &how, &fixture.good_len);
    image_free(&source);
    if (image_decoder_open(&fixture.decoder, NULL) != STATUS_OK) {
        return -1;
    }
    return (int)image_decode(fixture.decoder, fixture.good, fixture.good_len, NULL, &fixture.pixels,
                             NULL);
}

static int close_fixture(void **state)
{
    (void)state;
    image_decoder_close(&fixture.decoder);
    free(fixture.good);
    image_free(&fixture.pixels);
    image_free(&fixture.out);
    return 0;
}

static void assert_good_image_decodes(void)
{
    struct error error = {0};
    struct image_info info;
    if (image_probe(fixture.decoder, fixture.good, fixture.good_len, &info, &error) != STATUS_OK ||
        image_decode(fixture.decoder, fixture.good, fixture.good_len, NULL, &fixture.out, &error) !=
            STATUS_OK) {
        fail_msg("a good image fails after a bad one: %s", error.reason);
    }
    assert_int_equal(info.width, 40);
    assert_memory_equal(fixture.out.pixels, fixture.pixels.pixels, 40 * 30 * 3);
}

// Probes and decodes bytes that must fail, from memory of exactly their size.
static enum status fail_on(const uint8_t *bytes, size_t len, struct error *error)
{
    uint8_t *exact = malloc(len ? len : 1);
    assert_non_null(exact);
    memcpy(exact, bytes, len);
    struct image_info info = {.width = 77};
    *error = (struct error){0};
    if (image_probe(fixture.decoder, exact, len, &info, error) != STATUS_OK) {
        assert_int_equal(info.width, 0);
        assert_int_equal(info.kind, IMAGE_UNKNOWN);
    } else {
        assert_int_equal(info.width, 40); // success never comes without a size
    }
    enum status status = image_decode(fixture.decoder, exact, len, NULL, &fixture.out, error);
    assert_int_equal(error->status, status);
    free(exact);
    return status;
}

static void test_every_cut_is_noticed(void **state)
{
    (void)state;
    for (size_t cut = 3; cut < fixture.good_len; cut++) {
        struct error error;
        enum status status = fail_on(fixture.good, cut, &error);
        if (status != STATUS_TRUNCATED) {
            fail_msg("cut at %zu: %s, '%s'", cut, status_name(status), error.reason);
        }
        assert_int_equal(error.offset, cut);
        assert_good_image_decodes();
    }
}

enum where { FRAME, SCAN };

struct damage {
    const char *name;
    enum where where;
    enum status status;
    size_t offset; // from there
    size_t len;
    uint8_t bytes[6];
};

static const struct damage damages[] = {
    {"precision of 12 bits", FRAME, STATUS_UNSUPPORTED, 0, 1, {12}},
    {"precision of 0 bits", FRAME, STATUS_UNSUPPORTED, 0, 1, {0}},
    {"no height", FRAME, STATUS_CORRUPT, 1, 2, {0, 0}},
    {"no width", FRAME, STATUS_CORRUPT, 3, 2, {0, 0}},
    {"no components", FRAME, STATUS_CORRUPT, 5, 1, {0}},
    {"two components", FRAME, STATUS_CORRUPT, 5, 1, {2}},
    {"255 components", FRAME, STATUS_CORRUPT, 5, 1, {255}},
    {"sampling factor 0", FRAME, STATUS_CORRUPT, 7, 1, {0x02}},
    {"sampling factor 5", FRAME, STATUS_CORRUPT, 7, 1, {0x52}},
    {"sampling 3 to 2", FRAME, STATUS_UNSUPPORTED, 6, 5, {1, 0x31, 0, 2, 0x21}},
    {"a missing table", FRAME, STATUS_CORRUPT, 8, 1, {3}},
    {"lossless coding", FRAME, STATUS_UNSUPPORTED, (size_t)-3, 1, {0xc3}},
    {"hierarchical coding", FRAME, STATUS_UNSUPPORTED, (size_t)-3, 1, {0xc5}},
    {"a frame too short", FRAME, STATUS_CORRUPT, (size_t)-2, 2, {0, 7}},
    {"a second start", FRAME, STATUS_CORRUPT, (size_t)-3, 1, {0xd8}},
    {"an early end", FRAME, STATUS_CORRUPT, (size_t)-3, 1, {0xd9}},
    {"a code that no table has", SCAN, STATUS_CORRUPT, 40, 6, {0xff, 0, 0xff, 0, 0xff, 0}},
    {"an end marker in the data", SCAN, STATUS_CORRUPT, 60, 2, {0xff, 0xd9}},
    {"a restart marker in the data", SCAN, STATUS_CORRUPT, 60, 2, {0xff, 0xd3}},
    {"another marker in the data", SCAN, STATUS_CORRUPT, 60, 5, {0xff, 0xc4, 0, 3, 0}},
};

static void test_each_kind_of_damage(void **state)
{
    (void)state;
    size_t places[] = {[FRAME] = picture_jpeg_frame(fixture.good, fixture.good_len),
                       [SCAN] = picture_jpeg_header(fixture.good, fixture.good_len)};
    uint8_t *bytes = malloc(fixture.good_len);
    assert_non_null(bytes);
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        const struct damage *damage = &damages[i];
        memcpy(bytes, fixture.good, fixture.good_len);
        memcpy(bytes + places[damage->where] + damage->offset, damage->bytes, damage->len);
        struct error error;
        enum status status = fail_on(bytes, fixture.good_len, &error);
        if (status != damage->status) {
            fail_msg("%s: %s, '%s'", damage->name, status_name(status), error.reason);
        }
        assert_good_image_decodes();
    }
    free(bytes);
}

static void test_a_loop_of_probes_survives_a_bad_header(void **state)
{
    (void)state;
    size_t frame = picture_jpeg_frame(fixture.good, fixture.good_len);
    struct error error;
    for (size_t cut = frame - 4; cut < frame + 15; cut++) {
        struct image_info info;
        assert_int_equal(image_probe(fixture.decoder, fixture.good, cut, &info, &error),
                         STATUS_TRUNCATED);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(
                image_probe(fixture.decoder, fixture.good, fixture.good_len, &info, &error),
                STATUS_OK);
            assert_int_equal(info.height, 30);
        }
    }
}

// Found by fuzzing: libjpeg kept the tables of the image before, and a file without its own was
// decoded with them.
static void test_tables_of_one_image_do_not_serve_the_next(void **state)
{
    (void)state;
    size_t at = 2, seen = 0;
    while ((seen += fixture.good[at + 1] == 0xdb) < 2) { // to the second table of quantisation
        at += 2 + ((size_t)fixture.good[at + 2] << 8 | fixture.good[at + 3]);
        assert_true(at + 4 < fixture.good_len);
    }
    size_t size = 2 + ((size_t)fixture.good[at + 2] << 8 | fixture.good[at + 3]);
    size_t len = fixture.good_len - size;
    uint8_t *without = malloc(len);
    assert_non_null(without);
    memcpy(without, fixture.good, at);
    memcpy(without + at, fixture.good + at + size, len - at);
    for (int i = 0; i < 2; i++) {
        struct error error;
        assert_good_image_decodes();
        assert_int_equal(fail_on(without, len, &error), STATUS_CORRUPT);
    }
    free(without);
}

// What follows the window's last row is not looked at, so only damage before it can show.
static void test_windows_see_the_damage_before_their_end(void **state)
{
    (void)state;
    size_t scan = picture_jpeg_header(fixture.good, fixture.good_len);
    size_t early = scan + 10;
    struct image_window bottom = {3, 20, 9, 10};
    struct error error;
    assert_int_equal(
        image_decode(fixture.decoder, fixture.good, early, &bottom, &fixture.out, &error),
        STATUS_TRUNCATED);
    assert_int_equal(error.offset, early);
    assert_good_image_decodes();
}

static const struct picture_jpeg mutant_kinds[] = {
    {PICTURE_YCBCR, .h = 2, .v = 2},
    {PICTURE_YCBCR, .h = 1, .v = 1, .restart = 2},
    {PICTURE_YCBCR, .h = 2, .v = 2, .progressive = true},
    {PICTURE_YCBCR, .h = 2, .v = 1, .arithmetic = true},
    {PICTURE_GREY, .progressive = true},
    {PICTURE_CMYK, .h = 1},
    {PICTURE_YCCK, .h = 2, .v = 2, .progressive = true},
};

static void count_mutants(const struct picture_jpeg *kind, bool keep_header, uint64_t *seed,
                          size_t *decoded)
{
    struct image source = {0};
    picture_fill(&source, 37, 29, *seed);
    size_t len;
    uint8_t *bytes = picture_jpeg(&source, kind, &len);
    size_t keep = keep_header ? picture_jpeg_header(bytes, len) : 3;
    for (size_t i = 0; i < 1000; i++) {
        size_t mutant_len;
        uint8_t *mutant = mutate_copy(bytes, len, keep, seed, &mutant_len);
        struct image_window window = {5, 7, 17, 13};
        struct error error = {0};
        enum status status = image_decode(fixture.decoder, mutant, mutant_len,
                                          i % 2 ? &window : NULL, &fixture.out, &error);
        if (status != STATUS_OK && status != STATUS_INVALID &&
            (status < STATUS_CORRUPT || status > STATUS_LIMIT)) {
            fail_msg("a mutant gives %s, '%s'", status_name(status), error.reason);
        }
        *decoded += status == STATUS_OK;
        free(mutant);
        if (i % 16 == 0) {
            assert_good_image_decodes();
        }
    }
    free(bytes);
    image_free(&source);
}

static void test_mutants_give_a_status(void **state)
{
    (void)state;
    uint64_t seed = 12;
    size_t decoded = 0, kinds = sizeof mutant_kinds / sizeof *mutant_kinds;
    for (size_t k = 0; k < kinds; k++) {
        count_mutants(&mutant_kinds[k], true, &seed, &decoded);
        count_mutants(&mutant_kinds[k], false, &seed, &decoded);
    }
    print_message("%zu of %zu mutants decode without a warning\n", decoded, 2000 * kinds);
    assert_in_range(decoded, 1, 2000 * kinds - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut_is_noticed),
        cmocka_unit_test(test_each_kind_of_damage),
        cmocka_unit_test(test_a_loop_of_probes_survives_a_bad_header),
        cmocka_unit_test(test_tables_of_one_image_do_not_serve_the_next),
        cmocka_unit_test(test_windows_see_the_damage_before_their_end),
        cmocka_unit_test(test_mutants_give_a_status),
    };
    return cmocka_run_group_tests_name("formats/image_damage", tests, open_fixture, close_fixture);
}
