// Images: every kind of JPEG against libjpeg called plainly, windows, limits, buffers, encoders.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jpeglib.h>

#include "formats/crc32c.h"
#include "formats/image.h"
#include "formats/limits.h"
#include "tests/support/mutate.h"
#include "tests/support/picture.h"

static struct image_decoder *decoder;

static const struct picture_jpeg kinds[] = {
    {PICTURE_YCBCR, .h = 1, .v = 1},
    {PICTURE_YCBCR, .h = 2, .v = 2},
    {PICTURE_YCBCR, .h = 2, .v = 1},
    {PICTURE_YCBCR, .h = 1, .v = 2},
    {PICTURE_YCBCR, .h = 4, .v = 1},
    {PICTURE_YCBCR, .h = 4, .v = 2},
    {PICTURE_YCBCR, .h = 1, .v = 4},
    {PICTURE_YCBCR, .h = 2, .v = 2, .restart = 3},
    {PICTURE_YCBCR, .h = 2, .v = 2, .progressive = true},
    {PICTURE_YCBCR, .h = 1, .v = 1, .progressive = true},
    {PICTURE_YCBCR, .h = 2, .v = 2, .arithmetic = true},
    {PICTURE_YCBCR, .h = 2, .v = 2, .quality = 100},
    {PICTURE_YCBCR, .h = 2, .v = 2, .quality = 5},
    {PICTURE_GREY, .h = 1},
    {PICTURE_GREY, .progressive = true},
    {PICTURE_GREY, .h = 2, .v = 2},
    {PICTURE_RGB, .h = 1},
    {PICTURE_RGB, .progressive = true},
    {PICTURE_CMYK, .h = 1},
    {PICTURE_CMYK, .progressive = true},
    {PICTURE_CMYK_PLAIN, .h = 1},
    {PICTURE_YCCK, .h = 1},
    {PICTURE_YCCK, .h = 2, .v = 2},
};
#define KINDS (sizeof kinds / sizeof *kinds)

// Chroma (or any component) of lower resolution: windows differ from cuts at their edges.
static bool is_subsampled(const struct picture_jpeg *kind)
{
    return kind->colors != PICTURE_GREY && kind->h * kind->v > 1;
}

static void decode(const uint8_t *bytes, size_t len, const struct image_window *window,
                   struct image *out)
{
    struct error error = {0};
    if (image_decode(decoder, bytes, len, window, out, &error) != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
}

// The whole image by libjpeg alone, in its own process-ending error mode.
static void decode_plainly(const uint8_t *bytes, size_t len, struct image *out)
{
    struct jpeg_decompress_struct plain;
    struct jpeg_error_mgr errors;
    plain.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&plain);
    jpeg_mem_src(&plain, bytes, len);
    jpeg_read_header(&plain, TRUE);
    plain.out_color_space = plain.num_components == 4 ? JCS_CMYK : JCS_RGB;
    plain.dct_method = JDCT_IFAST;
    jpeg_start_decompress(&plain);
    assert_int_equal(image_reserve(out, plain.output_width, plain.output_height, NULL), STATUS_OK);
    uint8_t *row = malloc((size_t)plain.output_width * 4);
    assert_non_null(row);
    while (plain.output_scanline < plain.output_height) {
        uint8_t *to = out->pixels + (size_t)plain.output_scanline * out->width * 3;
        jpeg_read_scanlines(&plain, &row, 1);
        for (uint32_t x = 0; x < out->width; x++) {
            for (uint32_t c = 0; c < 3; c++) {
                int channels = plain.num_components == 4 ? 4 : 3;
                const uint8_t *pixel = row + (size_t)x * (size_t)channels;
                int ink = pixel[c], black = pixel[3 * (channels - 3)];
                to[x * 3 + c] =
                    (uint8_t)(channels == 3            ? ink
                              : plain.saw_Adobe_marker ? ink * black / 255
                                                       : (255 - ink) * (255 - black) / 255);
            }
        }
    }
    jpeg_finish_decompress(&plain);
    jpeg_destroy_decompress(&plain);
    free(row);
}

static const uint32_t sizes[][2] = {{1, 1},  {1, 17},  {17, 1},  {2, 3},   {7, 7},
                                    {8, 8},  {9, 8},   {16, 16}, {15, 31}, {33, 17},
                                    {65, 9}, {40, 48}, {127, 65}};

static void test_every_kind_and_size_is_decoded(void **state)
{
    (void)state;
    struct image source = {0}, got = {0}, want = {0};
    for (size_t k = 0; k < KINDS; k++) {
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            picture_fill(&source, sizes[s][0], sizes[s][1], k);
            size_t len;
            uint8_t *bytes = picture_jpeg(&source, &kinds[k], &len);
            struct image_info info;
            assert_int_equal(image_probe(decoder, bytes, len, &info, NULL), STATUS_OK);
            assert_int_equal(info.kind, IMAGE_JPEG);
            assert_int_equal(info.width, source.width);
            assert_int_equal(info.height, source.height);
            assert_int_equal(info.components, kinds[k].colors == PICTURE_GREY   ? 1
                                              : kinds[k].colors >= PICTURE_CMYK ? 4
                                                                                : 3);
            assert_int_equal(info.progressive, kinds[k].progressive);
            decode(bytes, len, NULL, &got);
            decode_plainly(bytes, len, &want);
            assert_int_equal(got.width, source.width);
            assert_int_equal(got.height, source.height);
            assert_memory_equal(got.pixels, want.pixels, (size_t)got.width * got.height * 3);
            free(bytes);
        }
    }
    image_free(&source);
    image_free(&got);
    image_free(&want);
}

// Whether `part` is what `whole` shows there, leaving out `edge` columns at both sides.
static bool is_cut(const struct image *part, const struct image *whole,
                   const struct image_window *window, uint32_t edge)
{
    for (uint32_t y = 0; y < window->height; y++) {
        for (uint32_t x = edge; x + edge < window->width; x++) {
            const uint8_t *a = part->pixels + ((size_t)y * part->width + x) * 3;
            const uint8_t *b =
                whole->pixels + ((size_t)(y + window->y) * whole->width + x + window->x) * 3;
            if (memcmp(a, b, 3) != 0) {
                return false;
            }
        }
    }
    return true;
}

static struct image_window draw_window(uint64_t *seed, uint32_t width, uint32_t height)
{
    struct image_window window;
    window.width = 1 + (uint32_t)(mutate_next(seed) % width);
    window.height = 1 + (uint32_t)(mutate_next(seed) % height);
    window.x = (uint32_t)(mutate_next(seed) % (width - window.width + 1));
    window.y = (uint32_t)(mutate_next(seed) % (height - window.height + 1));
    return window;
}

// Exactly a cut where no component is subsampled, and inside the edges where one is. (What the
// edges hold then is told by the golden cases.)
static void test_windows_show_their_part(void **state)
{
    (void)state;
    struct image source = {0}, whole = {0}, part = {0};
    uint64_t seed = 11;
    for (size_t k = 0; k < KINDS; k++) {
        picture_fill(&source, 97, 75, k);
        size_t len;
        uint8_t *bytes = picture_jpeg(&source, &kinds[k], &len);
        decode(bytes, len, NULL, &whole);
        for (int i = 0; i < 200; i++) {
            struct image_window window = draw_window(&seed, 97, 75);
            decode(bytes, len, &window, &part);
            assert_int_equal(part.width, window.width);
            assert_int_equal(part.height, window.height);
            if (!is_cut(&part, &whole, &window, is_subsampled(&kinds[k]) ? 2 : 0)) {
                fail_msg("kind %zu, window %u x %u at (%u, %u)", k, window.width, window.height,
                         window.x, window.y);
            }
        }
        struct image_window everything = {0, 0, 97, 75};
        decode(bytes, len, &everything, &part);
        assert_memory_equal(part.pixels, whole.pixels, 97 * 75 * 3);
        free(bytes);
    }
    image_free(&source);
    image_free(&whole);
    image_free(&part);
}

static void test_windows_outside_are_refused(void **state)
{
    (void)state;
    static const struct image_window outside[] = {
        {0, 0, 0, 1},          {0, 0, 1, 0},          {0, 0, 21, 1},         {0, 0, 1, 11},
        {20, 0, 1, 1},         {0, 10, 1, 1},         {1, 0, 20, 1},         {0, 1, 1, 10},
        {UINT32_MAX, 0, 2, 1}, {0, UINT32_MAX, 1, 2}, {5, 5, UINT32_MAX, 1}, {5, 5, 1, UINT32_MAX},
    };
    struct image source = {0}, out = {0};
    picture_fill(&source, 20, 10, 1);
    uint8_t *files[2];
    size_t lens[2];
    files[0] = picture_jpeg(&source, &kinds[0], &lens[0]);
    assert_int_equal(image_encode_png(&source, &files[1], &lens[1], NULL), STATUS_OK);
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        for (int f = 0; f < 2; f++) {
            struct error error = {0};
            assert_int_equal(image_decode(decoder, files[f], lens[f], &outside[i], &out, &error),
                             STATUS_INVALID);
            assert_non_null(strstr(error.reason, "not inside an image of 20 x 10"));
            decode(files[f], lens[f], NULL, &out);
        }
    }
    free(files[0]);
    free(files[1]);
    image_free(&source);
    image_free(&out);
}

static void test_other_bytes_are_unsupported(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "", "\xff", "\xff\xd8", "GIF89a", "\x89PNG\r\n\x1a", "\xff\xd9\xff"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct image_info info;
        struct image out = {0};
        size_t len = strlen(texts[i]);
        assert_int_equal(image_probe(decoder, texts[i], len, &info, NULL), STATUS_UNSUPPORTED);
        assert_int_equal(info.kind, IMAGE_UNKNOWN);
        assert_int_equal(image_decode(decoder, texts[i], len, NULL, &out, NULL),
                         STATUS_UNSUPPORTED);
    }
}

// --- limits --------------------------------------------------------------------------------------

static void set_jpeg_size(uint8_t *bytes, size_t len, uint32_t width, uint32_t height)
{
    uint8_t *frame = bytes + picture_jpeg_frame(bytes, len);
    frame[1] = (uint8_t)(height >> 8);
    frame[2] = (uint8_t)height;
    frame[3] = (uint8_t)(width >> 8);
    frame[4] = (uint8_t)width;
}

static void test_sizes_above_the_limits(void **state)
{
    (void)state;
    static const struct {
        uint32_t width, height;
        enum status status;
    } cases[] = {
        {8192, 8192, STATUS_OK},      {8193, 8192, STATUS_LIMIT},   {65500, 1024, STATUS_OK},
        {65500, 1025, STATUS_LIMIT},  {65501, 1, STATUS_LIMIT},     {1, 65501, STATUS_LIMIT},
        {65535, 65535, STATUS_LIMIT}, {65500, 65500, STATUS_LIMIT}, {1, 65500, STATUS_OK},
        {0, 8, STATUS_CORRUPT},
    };
    struct image source = {0};
    picture_fill(&source, 16, 16, 1);
    size_t len;
    uint8_t *bytes = picture_jpeg(&source, &kinds[1], &len);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct image_info info;
        struct error error = {0};
        set_jpeg_size(bytes, len, cases[i].width, cases[i].height);
        assert_int_equal(image_probe(decoder, bytes, len, &info, &error), cases[i].status);
        if (cases[i].status == STATUS_LIMIT) {
            struct image out = {0};
            assert_int_equal(image_decode(decoder, bytes, len, NULL, &out, &error), STATUS_LIMIT);
            assert_null(out.pixels);
        }
    }
    free(bytes);
    image_free(&source);
}

static void test_files_above_the_limit(void **state)
{
    (void)state;
    struct image source = {0}, out = {0};
    picture_fill(&source, 16, 16, 1);
    size_t len;
    uint8_t *bytes = picture_jpeg(&source, &kinds[0], &len);
    uint8_t *padded = calloc(1, LIMIT_IMAGE_BYTES + 1); // bytes after the end marker are no harm
    assert_non_null(padded);
    memcpy(padded, bytes, len);
    assert_int_equal(image_decode(decoder, padded, LIMIT_IMAGE_BYTES, NULL, &out, NULL), STATUS_OK);
    assert_int_equal(image_decode(decoder, padded, LIMIT_IMAGE_BYTES + 1, NULL, &out, NULL),
                     STATUS_LIMIT);
    free(padded);
    free(bytes);
    image_free(&source);
    image_free(&out);
}

static void test_scans_above_the_limit(void **state)
{
    (void)state;
    struct image source = {0}, out = {0};
    picture_fill(&source, 24, 24, 1);
    for (int scans = LIMIT_JPEG_SCANS; scans <= LIMIT_JPEG_SCANS + 1; scans++) {
        struct picture_jpeg how = {PICTURE_GREY, .scans = scans};
        size_t len;
        uint8_t *bytes = picture_jpeg(&source, &how, &len);
        struct error error = {0};
        assert_int_equal(image_decode(decoder, bytes, len, NULL, &out, &error),
                         scans > LIMIT_JPEG_SCANS ? STATUS_LIMIT : STATUS_OK);
        free(bytes);
    }
    image_free(&source);
    image_free(&out);
}

// The coefficients of a progressive image wait in memory until its last scan.
static void test_memory_above_the_limit(void **state)
{
    (void)state;
    struct image source = {0}, out = {0};
    picture_fill(&source, 16, 16, 1);
    size_t len;
    uint8_t *bytes = picture_jpeg(&source, &kinds[9], &len);
    set_jpeg_size(bytes, len, 8000, 8000); // 64 million x 3 coefficients of 2 bytes
    struct error error = {0};
    assert_int_equal(image_decode(decoder, bytes, len, NULL, &out, &error), STATUS_LIMIT);
    free(bytes);
    image_free(&source);
    image_free(&out);
}

// --- buffers and encoders ------------------------------------------------------------------------

static void test_buffers_only_grow(void **state)
{
    (void)state;
    struct image image = {0};
    assert_int_equal(image_reserve(&image, 100, 50, NULL), STATUS_OK);
    uint8_t *pixels = image.pixels;
    assert_int_equal(image.capacity, 15000);
    assert_int_equal(image_reserve(&image, 50, 100, NULL), STATUS_OK);
    assert_int_equal(image_reserve(&image, 3, 2, NULL), STATUS_OK);
    assert_ptr_equal(image.pixels, pixels);
    assert_int_equal(image.capacity, 15000);
    assert_int_equal(image.width, 3);
    assert_int_equal(image.height, 2);
    assert_int_equal(image_reserve(&image, 101, 50, NULL), STATUS_OK);
    assert_int_equal(image.capacity, 15150);
    assert_int_equal(image_reserve(&image, 0, 50, NULL), STATUS_INVALID);
    assert_int_equal(image_reserve(&image, 65501, 1, NULL), STATUS_LIMIT);
    assert_int_equal(image_reserve(&image, 8193, 8192, NULL), STATUS_LIMIT);
    assert_int_equal(image.width, 101);
    image_free(&image);
    assert_null(image.pixels);
    image_free(&image);
}

// Checksums of what the encoder gave when these lines were written: they must not depend on the
// machine.
static void test_encoded_jpegs_are_the_same_everywhere(void **state)
{
    (void)state;
    static const struct {
        uint32_t width, height;
        int quality;
        uint32_t crc;
    } cases[] = {
        {96, 64, 90, 0x120c4e90}, {96, 64, 91, 0x1d59f2b2}, {33, 17, 50, 0x18fa0204},
        {1, 1, 100, 0xc6c04ce0},  {200, 3, 1, 0x56d77953},
    };
    struct image source = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *bytes;
        size_t len;
        picture_fill(&source, cases[i].width, cases[i].height, 5);
        assert_int_equal(image_encode_jpeg(&source, cases[i].quality, &bytes, &len, NULL),
                         STATUS_OK);
        uint8_t luma_sampling = bytes[picture_jpeg_frame(bytes, len) + 7];
        assert_int_equal(luma_sampling, cases[i].quality > 90 ? 0x11 : 0x22);
        uint32_t crc = crc32c(0, bytes, len);
        if (crc != cases[i].crc) {
            fail_msg("case %zu: checksum 0x%08x", i, crc);
        }
        free(bytes);
    }
    image_free(&source);
}

static void test_encoded_jpegs_look_alike(void **state)
{
    (void)state;
    struct image source = {0}, out = {0};
    picture_fill(&source, 96, 64, 5);
    double worst = 256;
    for (int quality = 20; quality <= 100; quality += 20) {
        uint8_t *bytes;
        size_t len;
        assert_int_equal(image_encode_jpeg(&source, quality, &bytes, &len, NULL), STATUS_OK);
        decode(bytes, len, NULL, &out);
        double sum = 0;
        for (size_t i = 0; i < 96 * 64 * 3; i++) {
            sum += abs(out.pixels[i] - source.pixels[i]);
        }
        double mean = sum / (96 * 64 * 3);
        assert_true(mean < worst && mean < (quality > 90 ? 5 : 30)); // full chroma above 90
        worst = mean;
        free(bytes);
    }
    image_free(&source);
    image_free(&out);
}

static void test_encoders_refuse_nonsense(void **state)
{
    (void)state;
    struct image source = {0}, nothing = {0};
    uint8_t *bytes;
    size_t len;
    picture_fill(&source, 8, 8, 1);
    assert_int_equal(image_encode_jpeg(&source, 0, &bytes, &len, NULL), STATUS_INVALID);
    assert_int_equal(image_encode_jpeg(&source, 101, &bytes, &len, NULL), STATUS_INVALID);
    assert_null(bytes);
    assert_int_equal(image_encode_jpeg(&nothing, 90, &bytes, &len, NULL), STATUS_INVALID);
    assert_int_equal(image_encode_png(&nothing, &bytes, &len, NULL), STATUS_INVALID);
    assert_null(bytes);
    image_free(&source);
}

static int open_decoder(void **state)
{
    (void)state;
    return image_decoder_open(&decoder, NULL) == STATUS_OK ? 0 : -1;
}

static int close_decoder(void **state)
{
    (void)state;
    image_decoder_close(&decoder);
    image_decoder_close(&decoder); // accepts a pointer to NULL
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_and_size_is_decoded),
        cmocka_unit_test(test_windows_show_their_part),
        cmocka_unit_test(test_windows_outside_are_refused),
        cmocka_unit_test(test_other_bytes_are_unsupported),
        cmocka_unit_test(test_sizes_above_the_limits),
        cmocka_unit_test(test_files_above_the_limit),
        cmocka_unit_test(test_scans_above_the_limit),
        cmocka_unit_test(test_memory_above_the_limit),
        cmocka_unit_test(test_buffers_only_grow),
        cmocka_unit_test(test_encoded_jpegs_are_the_same_everywhere),
        cmocka_unit_test(test_encoded_jpegs_look_alike),
        cmocka_unit_test(test_encoders_refuse_nonsense),
    };
    return cmocka_run_group_tests_name("formats/image", tests, open_decoder, close_decoder);
}
