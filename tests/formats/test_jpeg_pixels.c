// The pixel stage of the fast JPEG road against libjpeg-turbo, which decodes each window alone: the
// same bytes, from every vector level.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/isa.h"
#include "formats/jpeg/pixels.h"
#include "formats/limits.h"
#include "formats/source.h"
#include "tests/support/coefficient_source.h"
#include "tests/support/coefficients.h"
#include "tests/support/mutate.h"
#include "tests/support/photographs.h"
#include "tests/support/picture.h"

#define MOST_WINDOWS 3

static struct image_decoder *decoder;
static struct jpeg_pixels *pixels;
static uint64_t seed;

static uint32_t below(uint32_t end)
{
    return (uint32_t)(mutate_next(&seed) % end);
}

// --- windows -------------------------------------------------------------------------------------

// Edges of blocks and of MCUs are where the rules change.
static void draw_span(uint32_t side, uint32_t *start, uint32_t *len)
{
    switch (below(6)) {
    case 0:
        *start = 0;
        *len = side;
        return;
    case 1: // a narrow one
        *start = below(side);
        *len = 1 + below(5);
        break;
    case 2: // from an edge of blocks
        *start = below(side) & ~7u;
        *len = 1 + below(side);
        break;
    case 3: // to an edge of blocks
        *start = below(side);
        *len = 8 - *start % 8 + 8 * below(side / 8 + 1);
        break;
    default:
        *start = below(side);
        *len = 1 + below(side);
    }
    if (*len > side - *start) {
        *len = side - *start;
    }
}

static struct image_window draw_window(uint32_t width, uint32_t height)
{
    struct image_window window;
    draw_span(width, &window.x, &window.width);
    draw_span(height, &window.y, &window.height);
    return window;
}

static uint32_t draw_windows(struct image_window *windows, uint32_t width, uint32_t height)
{
    uint32_t count = 1 + below(MOST_WINDOWS);
    for (uint32_t i = 0; i < count; i++) {
        windows[i] = draw_window(width, height);
    }
    if (count > 1 && below(4) == 0) {
        windows[1] = windows[0];
    } else if (count > 1 && below(3) == 0) { // nested
        struct image_window inner = draw_window(windows[0].width, windows[0].height);
        inner.x += windows[0].x;
        inner.y += windows[0].y;
        windows[1] = inner;
    }
    return count;
}

// --- comparison ----------------------------------------------------------------------------------

static void assert_window(const struct image_planes *planes, const struct image *want,
                          const struct image_window *window)
{
    assert_int_equal(planes->width, want->width);
    assert_int_equal(planes->height, want->height);
    for (uint32_t y = 0; y < want->height; y++) {
        for (uint32_t x = 0; x < want->width; x++) {
            for (size_t c = 0; c < 3; c++) {
                uint8_t got = planes->plane[c][y * planes->stride + x];
                uint8_t asked = want->pixels[((size_t)y * want->width + x) * 3 + c];
                if (got != asked) {
                    fail_msg("window %u x %u at (%u, %u), level %s: pixel (%u, %u), channel %zu is "
                             "%u, libjpeg has %u",
                             window->width, window->height, window->x, window->y,
                             isa_name(isa_chosen()), x, y, c, got, asked);
                }
            }
        }
    }
}

static void assert_windows(const uint8_t *bytes, size_t len, struct coefficient_source *from,
                           const struct image_window *windows, uint32_t count)
{
    struct image want[MOST_WINDOWS] = {0};
    struct error error = {0};
    for (uint32_t i = 0; i < count; i++) {
        if (image_decode(decoder, bytes, len, &windows[i], &want[i], &error) != STATUS_OK) {
            fail_msg("%s", error.reason);
        }
    }
    enum isa chosen = isa_chosen();
    for (enum isa isa = ISA_BASE; isa < ISA_COUNT; isa++) {
        if (!isa_supported(isa)) {
            continue;
        }
        struct image_planes got[MOST_WINDOWS] = {0};
        isa_force(isa);
        from->rows_asked = from->mcus_asked = 0;
        if (jpeg_pixels_decode(pixels, &from->frame, &from->source, windows, count, got, &error) !=
            STATUS_OK) {
            fail_msg("%s", error.reason);
        }
        for (uint32_t i = 0; i < count; i++) {
            assert_window(&got[i], &want[i], &windows[i]);
            image_planes_free(&got[i]);
        }
    }
    isa_force(chosen);
    for (uint32_t i = 0; i < count; i++) {
        image_free(&want[i]);
    }
}

static void assert_file(const uint8_t *bytes, size_t len, int times)
{
    struct coefficient_source from;
    assert_true(coefficient_source_open(&from, bytes, len));
    assert_true(jpeg_pixels_takes(&from.frame));
    struct image_window windows[MOST_WINDOWS];
    for (int i = 0; i < times; i++) {
        uint32_t count = draw_windows(windows, from.frame.width, from.frame.height);
        assert_windows(bytes, len, &from, windows, count);
    }
    coefficient_source_close(&from);
}

// --- the tests -----------------------------------------------------------------------------------

static const struct picture_jpeg kinds[] = {
    {PICTURE_YCBCR, .h = 1, .v = 1},
    {PICTURE_YCBCR, .h = 2, .v = 2},
    {PICTURE_YCBCR, .h = 2, .v = 1},
    {PICTURE_YCBCR, .h = 1, .v = 2},
    {PICTURE_GREY, .h = 1},
    {PICTURE_GREY, .h = 2, .v = 2},
    {PICTURE_RGB, .h = 1},
    {PICTURE_RGB, .h = 2, .v = 2},
    {PICTURE_RGB, .h = 2, .v = 1},
    {PICTURE_YCBCR, .h = 2, .v = 2, .progressive = true},
    // Rare, but libjpeg knows them: components that differ, and colours finer than brightness.
    {PICTURE_YCBCR, .h = 2, .v = 2, .h2 = 2, .v2 = 1},
    {PICTURE_YCBCR, .h = 2, .v = 2, .h2 = 1, .v2 = 2},
    {PICTURE_YCBCR, .h = 1, .v = 1, .h2 = 2, .v2 = 2},
    {PICTURE_YCBCR, .h = 1, .v = 2, .h2 = 2, .v2 = 1},
};
#define KINDS (sizeof kinds / sizeof *kinds)

static void check_kind(size_t kind, uint32_t width, uint32_t height, int times)
{
    struct image source = {0};
    picture_fill(&source, width, height, mutate_next(&seed));
    struct picture_jpeg how = kinds[kind];
    how.quality = 1 + (int)below(100);
    size_t len;
    uint8_t *bytes = picture_jpeg(&source, &how, &len);
    assert_file(bytes, len, times);
    free(bytes);
    image_free(&source);
}

static void check_size(uint32_t width, uint32_t height, int times)
{
    for (size_t k = 0; k < KINDS; k++) {
        check_kind(k, width, height, times);
    }
}

static void test_every_small_width(void **state)
{
    (void)state;
    coefficients_need_x86();
    for (uint32_t width = 1; width <= 70; width++) {
        check_size(width, 1 + below(70), 4);
        check_size(1 + below(70), width, 4);
    }
}

// The few columns between repetition and fancy upsampling.
static void test_every_narrow_window(void **state)
{
    (void)state;
    struct image source = {0};
    for (size_t k = 0; k < KINDS; k++) {
        for (uint32_t width = 1; width <= 19; width++) {
            picture_fill(&source, width, 35, width);
            size_t len;
            uint8_t *bytes = picture_jpeg(&source, &kinds[k], &len);
            struct coefficient_source from;
            assert_true(coefficient_source_open(&from, bytes, len));
            for (uint32_t x = 0; x < width; x++) {
                for (uint32_t w = 1; w <= width - x; w++) {
                    uint32_t y = below(35);
                    struct image_window window = {x, y, w, 1 + below(35 - y)};
                    assert_windows(bytes, len, &from, &window, 1);
                }
            }
            coefficient_source_close(&from);
            free(bytes);
        }
    }
    image_free(&source);
}

static void test_every_row_of_a_window(void **state)
{
    (void)state;
    struct image source = {0};
    for (size_t k = 0; k < KINDS; k++) {
        picture_fill(&source, 21, 53, k);
        size_t len;
        uint8_t *bytes = picture_jpeg(&source, &kinds[k], &len);
        struct coefficient_source from;
        assert_true(coefficient_source_open(&from, bytes, len));
        for (uint32_t y = 0; y < 53; y++) {
            for (uint32_t h = 1; h <= 53 - y; h += 1 + below(4)) {
                struct image_window window = {3, y, 17, h};
                assert_windows(bytes, len, &from, &window, 1);
            }
        }
        coefficient_source_close(&from);
        free(bytes);
    }
    image_free(&source);
}

static void test_larger_images(void **state)
{
    (void)state;
    coefficients_need_x86();
    check_size(333, 251, 12);
    check_size(1031, 97, 12);
}

static void test_longest_sides(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < 2; kind++) {
        check_kind(kind, LIMIT_IMAGE_SIDE, 9, 3);
        check_kind(kind, 9, LIMIT_IMAGE_SIDE, 3);
    }
}

// What overflows 16 bits on the way must overflow alike.
static void test_extreme_coefficients(void **state)
{
    (void)state;
    coefficients_need_x86();
    static const struct {
        unsigned most, step;
    } extremes[] = {{1, 255},   {3, 16},     {40, 60},      {255, 255},   {1023, 1},
                    {1023, 99}, {700, 4000}, {1023, 32767}, {1023, 65535}};
    struct image source = {0};
    for (size_t k = 0; k < KINDS; k++) {
        for (size_t e = 0; e < sizeof extremes / sizeof *extremes; e++) {
            picture_fill(&source, 1 + below(90), 1 + below(60), k);
            size_t len, scrambled_len;
            uint8_t *bytes = picture_jpeg(&source, &kinds[k], &len);
            uint8_t *scrambled = coefficient_source_scramble(
                bytes, len, mutate_next(&seed), extremes[e].most, extremes[e].step, &scrambled_len);
            assert_file(scrambled, scrambled_len, 4);
            free(bytes);
            free(scrambled);
        }
    }
    image_free(&source);
}

static void test_only_what_is_needed_is_asked_for(void **state)
{
    (void)state;
    struct image source = {0};
    picture_fill(&source, 320, 320, 1); // 20 x 20 MCUs
    size_t len;
    uint8_t *bytes = picture_jpeg(&source, &kinds[1], &len);
    struct coefficient_source from;
    assert_true(coefficient_source_open(&from, bytes, len));
    static const struct {
        struct image_window windows[2];
        uint32_t rows, mcus;
    } cases[] = {
        {{{0, 0, 320, 320}, {0, 0, 320, 320}}, 20, 400},
        {{{33, 33, 10, 10}, {33, 33, 10, 10}}, 1, 1},
        {{{32, 32, 16, 16}, {32, 32, 16, 16}}, 3, 3}, // rows above and below for the chroma
        {{{0, 0, 16, 14}, {64, 0, 16, 14}}, 1, 5},
        {{{0, 0, 16, 14}, {64, 305, 16, 15}}, 2, 2},
        {{{0, 0, 16, 15}, {0, 0, 16, 14}}, 2, 2}, // as libjpeg reads, which upsamples two rows
        {{{20, 20, 40, 40}, {50, 50, 20, 20}}, 4, 3 + 3 + 4 + 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_windows(bytes, len, &from, cases[i].windows, 2);
        assert_int_equal(from.rows_asked, cases[i].rows);
        assert_int_equal(from.mcus_asked, cases[i].mcus);
    }
    coefficient_source_close(&from);
    free(bytes);
    image_free(&source);
}

static void test_refusals(void **state)
{
    (void)state;
    struct image source = {0};
    picture_fill(&source, 40, 30, 1);
    size_t len;
    uint8_t *bytes = picture_jpeg(&source, &kinds[1], &len);
    struct coefficient_source from;
    assert_true(coefficient_source_open(&from, bytes, len));
    struct image_planes out = {0};
    static const struct image_window outside[] = {
        {0, 0, 0, 1}, {0, 0, 41, 1}, {40, 0, 1, 1}, {UINT32_MAX, 0, 2, 1}, {0, 1, 1, UINT32_MAX}};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        assert_int_equal(
            jpeg_pixels_decode(pixels, &from.frame, &from.source, &outside[i], 1, &out, NULL),
            STATUS_INVALID);
    }
    struct image_window whole = {0, 0, 40, 30};
    struct jpeg_frame frame = from.frame;
    frame.h_max = 4;
    frame.mcus_wide = 2;
    assert_int_equal(jpeg_pixels_decode(pixels, &frame, &from.source, &whole, 1, &out, NULL),
                     STATUS_UNSUPPORTED);
    assert_windows(bytes, len, &from, &whole, 1);
    image_planes_free(&out);
    coefficient_source_close(&from);
    free(bytes);
    image_free(&source);
}

static void test_photographs(void **state)
{
    (void)state;
    struct source *source;
    assert_int_equal(source_open(&source, photographs_path(), NULL), STATUS_OK);
    uint8_t *bytes = NULL;
    size_t len, capacity = 0;
    struct source_member member;
    unsigned compared = 0;
    while (source_next(source, &member, NULL) == STATUS_OK) {
        assert_int_equal(source_read(source, &bytes, &len, &capacity, NULL), STATUS_OK);
        struct coefficient_source from;
        if (coefficient_source_open(&from, bytes, len) && jpeg_pixels_takes(&from.frame)) {
            struct image_window windows[MOST_WINDOWS];
            uint32_t count = draw_windows(windows, from.frame.width, from.frame.height);
            assert_windows(bytes, len, &from, windows, count);
            compared++;
        }
        coefficient_source_close(&from);
    }
    print_message("%u photographs\n", compared);
    assert_true(compared > 0);
    free(bytes);
    source_close(&source);
}

static int set_up(void **state)
{
    (void)state;
    seed = 5;
    return image_decoder_open(&decoder, NULL) != STATUS_OK ||
           jpeg_pixels_open(&pixels, NULL) != STATUS_OK;
}

static int tear_down(void **state)
{
    (void)state;
    image_decoder_close(&decoder);
    jpeg_pixels_close(&pixels);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_narrow_window),
        cmocka_unit_test(test_every_small_width),
        cmocka_unit_test(test_every_row_of_a_window),
        cmocka_unit_test(test_larger_images),
        cmocka_unit_test(test_longest_sides),
        cmocka_unit_test(test_extreme_coefficients),
        cmocka_unit_test(test_only_what_is_needed_is_asked_for),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_photographs),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
