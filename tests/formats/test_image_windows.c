// Several windows at once against each alone: the same pixels from every kind of file, the same
// verdict on damaged ones, at every vector level.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/image.h"
#include "formats/isa.h"
#include "formats/jpeg/road.h"
#include "formats/source.h"
#include "tests/support/coefficients.h"
#include "tests/support/mutate.h"
#include "tests/support/photographs.h"
#include "tests/support/picture.h"

static struct image_decoder *decoder;
static struct jpeg_road *road;
static uint64_t seed;

static uint32_t below(uint32_t end)
{
    return (uint32_t)(mutate_next(&seed) % end);
}

static uint32_t draw_windows(struct image_window *windows, uint32_t width, uint32_t height)
{
    uint32_t count = 1 + below(IMAGE_MAX_WINDOWS);
    for (uint32_t i = 0; i < count; i++) {
        struct image_window *w = &windows[i];
        w->x = below(4) == 0 ? 0 : below(width);
        w->y = below(4) == 0 ? 0 : below(height);
        w->width = below(4) == 0 ? width - w->x : 1 + below(width - w->x);
        w->height = below(4) == 0 ? height - w->y : 1 + below(height - w->y);
    }
    return count;
}

static bool same_pixels(const struct image_planes *planes, const struct image *want)
{
    if (planes->width != want->width || planes->height != want->height) {
        return false;
    }
    for (uint32_t y = 0; y < want->height; y++) {
        for (size_t i = 0; i < (size_t)want->width * 3; i++) {
            if (planes->plane[i % 3][y * planes->stride + i / 3] !=
                want->pixels[(size_t)y * want->width * 3 + i]) {
                return false;
            }
        }
    }
    return true;
}

// Returns whether the windows could be decoded.
static bool compare(const uint8_t *bytes, size_t len, const struct image_window *windows,
                    uint32_t count)
{
    static struct image want[IMAGE_MAX_WINDOWS];
    static struct image_planes got[IMAGE_MAX_WINDOWS];
    struct error want_error = {0};
    enum status status = STATUS_OK;
    for (uint32_t i = 0; status == STATUS_OK && i < count; i++) {
        status = image_decode(decoder, bytes, len, &windows[i], &want[i], &want_error);
    }
    for (enum isa isa = ISA_BASE; isa < ISA_COUNT; isa++) {
        if (!isa_supported(isa)) {
            continue;
        }
        isa_force(isa);
        struct error error = {0};
        assert_int_equal(image_decode_windows(decoder, bytes, len, windows, count, got, &error),
                         status);
        if (status != STATUS_OK) {
            assert_string_equal(error.reason, want_error.reason);
            assert_int_equal(error.offset, want_error.offset);
        }
        for (uint32_t i = 0; status == STATUS_OK && i < count; i++) {
            if (!same_pixels(&got[i], &want[i])) {
                fail_msg("level %s: window %u x %u at (%u, %u) differs", isa_name(isa),
                         windows[i].width, windows[i].height, windows[i].x, windows[i].y);
            }
        }
    }
    // Memory of exactly the size needed, for sanitizers.
    for (uint32_t i = 0; i < IMAGE_MAX_WINDOWS; i++) {
        image_free(&want[i]);
        image_planes_free(&got[i]);
    }
    return status == STATUS_OK;
}

static const struct picture_jpeg kinds[] = {
    {PICTURE_YCBCR, .h = 1, .v = 1},
    {PICTURE_YCBCR, .h = 2, .v = 2},
    {PICTURE_YCBCR, .h = 2, .v = 1},
    {PICTURE_YCBCR, .h = 1, .v = 2},
    {PICTURE_YCBCR, .h = 4, .v = 1},
    {PICTURE_YCBCR, .h = 2, .v = 4},
    {PICTURE_YCBCR, .h = 2, .v = 2, .restart = 3},
    {PICTURE_YCBCR, .h = 2, .v = 2, .optimized = true},
    {PICTURE_YCBCR, .h = 2, .v = 2, .progressive = true},
    {PICTURE_YCBCR, .h = 2, .v = 2, .arithmetic = true},
    {PICTURE_YCBCR, .h = 2, .v = 2, .quality = 100},
    {PICTURE_GREY, .h = 1},
    {PICTURE_GREY, .h = 2, .v = 2},
    {PICTURE_GREY, .progressive = true},
    {PICTURE_RGB, .h = 1},
    {PICTURE_RGB, .h = 2, .v = 2},
    {PICTURE_CMYK, .h = 1},
    {PICTURE_YCCK, .h = 2, .v = 2},
};
#define KINDS (sizeof kinds / sizeof *kinds)

static uint8_t *make_file(size_t kind, uint32_t width, uint32_t height, size_t *len)
{
    struct image source = {0};
    uint8_t *bytes;
    picture_fill(&source, width, height, kind + width);
    if (kind < KINDS) {
        bytes = picture_jpeg(&source, &kinds[kind], len);
    } else {
        assert_int_equal(image_encode_png(&source, &bytes, len, NULL), STATUS_OK);
    }
    image_free(&source);
    return bytes;
}

static void test_every_kind_of_file(void **state)
{
    (void)state;
    struct image_window windows[IMAGE_MAX_WINDOWS];
    for (size_t kind = 0; kind <= KINDS; kind++) {
        for (int i = 0; i < 30; i++) {
            uint32_t width = 1 + below(90), height = 1 + below(90);
            size_t len;
            uint8_t *bytes = make_file(kind, width, height, &len);
            assert_true(compare(bytes, len, windows, draw_windows(windows, width, height)));
            free(bytes);
        }
    }
}

// Else the comparison above would compare libjpeg with itself.
static void test_plain_files_take_the_fast_road(void **state)
{
    (void)state;
    static const bool plain[KINDS] = {true,  true, true, true, false, false, true, true,  false,
                                      false, true, true, true, false, true,  true, false, false};
    for (size_t kind = 0; kind < KINDS; kind++) {
        size_t len;
        uint8_t *bytes = make_file(kind, 50, 40, &len);
        struct image_window window = {3, 4, 30, 20};
        struct image_planes out = {0};
        assert_int_equal(jpeg_road_decode(road, bytes, len, &window, 1, &out), plain[kind]);
        image_planes_free(&out);
        free(bytes);
    }
}

static void test_windows_outside_are_refused(void **state)
{
    (void)state;
    static const struct image_window outside[] = {
        {0, 0, 0, 1},  {0, 0, 1, 0},          {0, 0, 41, 1},        {40, 0, 1, 1},
        {0, 29, 1, 2}, {UINT32_MAX, 0, 2, 1}, {5, 5, 1, UINT32_MAX}};
    for (size_t kind = 0; kind <= KINDS; kind++) {
        size_t len;
        uint8_t *bytes = make_file(kind, 40, 30, &len);
        for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
            struct image_window windows[2] = {{1, 2, 10, 10}, outside[i]};
            assert_false(compare(bytes, len, windows, 2));
            assert_false(compare(bytes, len, windows + 1, 1));
        }
        free(bytes);
    }
}

static void test_damaged_files(void **state)
{
    (void)state;
    coefficients_need_x86(); // damage makes any coefficients
    struct image_window windows[IMAGE_MAX_WINDOWS];
    unsigned good = 0, bad = 0;
    for (size_t kind = 0; kind <= KINDS; kind++) {
        size_t len, mutant_len;
        uint8_t *bytes = make_file(kind, 75, 85, &len);
        size_t header = kind < KINDS ? picture_jpeg_header(bytes, len) : 8;
        for (int i = 0; i < 150; i++) {
            size_t keep = below(4) == 0 ? 2 : header;
            uint8_t *mutant = mutate_copy(bytes, len, keep, &seed, &mutant_len);
            // A mutant may be of another size: then windows are outside, which is compared too.
            bool decoded = compare(mutant, mutant_len, windows, draw_windows(windows, 75, 85));
            good += decoded;
            bad += !decoded;
            free(mutant);
        }
        free(bytes);
    }
    assert_true(good > 50 && bad > 500);
}

// Damage in one byte after another: which rows a window depends on must be the same.
static void test_damage_everywhere(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < 4; kind++) {
        size_t len;
        uint8_t *bytes = make_file(kind, 33, 50, &len);
        for (size_t at = picture_jpeg_header(bytes, len); at < len; at += 1 + below(5)) {
            uint32_t y = below(50);
            struct image_window window = {below(33), y, 1, 1 + below(50 - y)};
            uint8_t kept = bytes[at];
            bytes[at] = 0xff;
            compare(bytes, len, &window, 1);
            bytes[at] = kept;
        }
        free(bytes);
    }
}

static void test_buffers_only_grow(void **state)
{
    (void)state;
    struct image_planes out[2] = {0};
    size_t len, memory = 0;
    uint8_t *bytes = make_file(1, 500, 300, &len);
    struct image_window windows[2] = {{0, 0, 500, 300}, {10, 10, 480, 200}};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(image_decode_windows(decoder, bytes, len, windows, 2, out, NULL),
                         STATUS_OK);
        assert_true(i == 0 || image_decoder_memory(decoder) == memory);
        memory = image_decoder_memory(decoder);
        windows[1].width -= 7;
    }
    assert_true(memory > sizeof *windows && memory < 1 << 20);
    image_planes_free(&out[0]);
    image_planes_free(&out[1]);
    free(bytes);
}

static void test_photographs(void **state)
{
    (void)state;
    struct source *source;
    assert_int_equal(source_open(&source, photographs_path(), NULL), STATUS_OK);
    uint8_t *bytes = NULL;
    size_t len, capacity = 0;
    struct source_member member;
    for (unsigned i = 0; source_next(source, &member, NULL) == STATUS_OK; i++) {
        assert_int_equal(source_read(source, &bytes, &len, &capacity, NULL), STATUS_OK);
        if (i % 5 != 0) {
            continue;
        }
        struct image_info info;
        struct image_window windows[IMAGE_MAX_WINDOWS];
        assert_int_equal(image_probe(decoder, bytes, len, &info, NULL), STATUS_OK);
        uint32_t count = draw_windows(windows, info.width, info.height);
        assert_true(compare(bytes, len, windows, count));
    }
    free(bytes);
    source_close(&source);
}

static int set_up(void **state)
{
    (void)state;
    seed = 9;
    return image_decoder_open(&decoder, NULL) != STATUS_OK ||
           jpeg_road_open(&road, NULL) != STATUS_OK;
}

static int tear_down(void **state)
{
    (void)state;
    image_decoder_close(&decoder);
    jpeg_road_close(&road);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_of_file),
        cmocka_unit_test(test_plain_files_take_the_fast_road),
        cmocka_unit_test(test_windows_outside_are_refused),
        cmocka_unit_test(test_damaged_files),
        cmocka_unit_test(test_damage_everywhere),
        cmocka_unit_test(test_buffers_only_grow),
        cmocka_unit_test(test_photographs),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
