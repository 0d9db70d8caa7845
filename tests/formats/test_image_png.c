// PNG: every colour type, depth and order of rows against the samples that were written; windows
// are cuts; any flipped bit is noticed.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <png.h>

#include "formats/image.h"
#include "formats/limits.h"
#include "tests/support/mutate.h"
#include "tests/support/picture.h"

static struct image_decoder *decoder;

struct kind {
    int color, depth;
    bool transparency; // a tRNS chunk
};

static const struct kind kinds[] = {
    {PNG_COLOR_TYPE_GRAY, 1, false},       {PNG_COLOR_TYPE_GRAY, 2, false},
    {PNG_COLOR_TYPE_GRAY, 4, false},       {PNG_COLOR_TYPE_GRAY, 8, false},
    {PNG_COLOR_TYPE_GRAY, 16, false},      {PNG_COLOR_TYPE_GRAY, 8, true},
    {PNG_COLOR_TYPE_RGB, 8, false},        {PNG_COLOR_TYPE_RGB, 16, false},
    {PNG_COLOR_TYPE_RGB, 8, true},         {PNG_COLOR_TYPE_PALETTE, 1, false},
    {PNG_COLOR_TYPE_PALETTE, 2, false},    {PNG_COLOR_TYPE_PALETTE, 4, false},
    {PNG_COLOR_TYPE_PALETTE, 8, false},    {PNG_COLOR_TYPE_PALETTE, 8, true},
    {PNG_COLOR_TYPE_GRAY_ALPHA, 8, false}, {PNG_COLOR_TYPE_GRAY_ALPHA, 16, false},
    {PNG_COLOR_TYPE_RGB_ALPHA, 8, false},  {PNG_COLOR_TYPE_RGB_ALPHA, 16, false},
};
#define KINDS (sizeof kinds / sizeof *kinds)

struct file {
    uint8_t *bytes;
    size_t len, capacity;
};

static void append(png_structp png, png_bytep from, size_t len)
{
    struct file *file = png_get_io_ptr(png);
    if (file->len + len > file->capacity) {
        file->capacity = 2 * (file->len + len);
        file->bytes = realloc(file->bytes, file->capacity);
        assert_non_null(file->bytes);
    }
    memcpy(file->bytes + file->len, from, len);
    file->len += len;
}

static unsigned channels_of(int color)
{
    return color == PNG_COLOR_TYPE_RGB          ? 3
           : color == PNG_COLOR_TYPE_RGB_ALPHA  ? 4
           : color == PNG_COLOR_TYPE_GRAY_ALPHA ? 2
                                                : 1;
}

static void set_palette(png_structp png, png_infop info, const struct kind *kind)
{
    png_color colors[256];
    png_byte alpha[256];
    for (int i = 0; i < 256; i++) {
        colors[i] = (png_color){(png_byte)(i * 7), (png_byte)(i * 31), (png_byte)(255 - i)};
        alpha[i] = (png_byte)i;
    }
    png_color_16 one = {.red = 5, .green = 5, .blue = 5, .gray = 5};
    bool palette = kind->color == PNG_COLOR_TYPE_PALETTE;
    if (palette) {
        png_set_PLTE(png, info, colors, 1 << kind->depth);
    }
    if (kind->transparency) {
        png_set_tRNS(png, info, palette ? alpha : NULL, palette ? 200 : 0, &one);
    }
}

// The sample's value as its 8-bit RGB channel.
static uint8_t expected_channel(const struct kind *kind, const unsigned *samples, unsigned channel)
{
    unsigned value = samples[channels_of(kind->color) >= 3 ? channel : 0];
    if (kind->color == PNG_COLOR_TYPE_PALETTE) {
        unsigned colors[3] = {value * 7, value * 31, 255 - value};
        return (uint8_t)colors[channel];
    }
    return (uint8_t)(kind->depth == 16 ? value >> 8 : value * 255 / ((1u << kind->depth) - 1));
}

// Random samples: packed into `rows` as a PNG stores them, and as pixels into `want`.
static void draw_samples(const struct kind *kind, uint32_t width, uint32_t height, uint8_t *rows,
                         size_t stride, struct image *want)
{
    uint64_t seed = (uint64_t)kind->depth * 100 + width;
    unsigned channels = channels_of(kind->color);
    unsigned depth = (unsigned)kind->depth;
    assert_int_equal(image_reserve(want, width, height, NULL), STATUS_OK);
    memset(rows, 0, stride * height);
    for (uint32_t pixel = 0; pixel < width * height; pixel++) {
        uint8_t *row = rows + pixel / width * stride;
        unsigned samples[4] = {0};
        for (unsigned c = 0; c < channels; c++) {
            samples[c] = (unsigned)(mutate_next(&seed) & ((1u << depth) - 1));
            size_t bit = ((size_t)(pixel % width) * channels + c) * depth;
            if (depth == 16) {
                row[bit / 8] = (uint8_t)(samples[c] >> 8);
                row[bit / 8 + 1] = (uint8_t)samples[c];
            } else {
                row[bit / 8] |= (uint8_t)(samples[c] << (8 - depth - bit % 8));
            }
        }
        for (unsigned c = 0; c < 3; c++) {
            want->pixels[pixel * 3 + c] = expected_channel(kind, samples, c);
        }
    }
}

static struct file make_png(const struct kind *kind, uint32_t width, uint32_t height,
                            bool interlaced, struct image *want)
{
    struct file file = {0};
    size_t stride = ((size_t)width * channels_of(kind->color) * (size_t)kind->depth + 7) / 8;
    uint8_t *rows = malloc(stride * height);
    png_bytep *pointers = calloc(height, sizeof *pointers);
    assert_non_null(rows);
    assert_non_null(pointers);
    draw_samples(kind, width, height, rows, stride, want);
    for (uint32_t y = 0; y < height; y++) {
        pointers[y] = rows + y * stride;
    }
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_set_write_fn(png, &file, append, NULL);
    png_set_IHDR(png, info, width, height, kind->depth, kind->color,
                 interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    set_palette(png, info, kind);
    png_set_gAMA(png, info, 1.0); // says that the pixels are meant otherwise: not followed
    png_write_info(png, info);
    png_write_image(png, pointers);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    free(pointers);
    free(rows);
    return file;
}

static void check_windows(const struct file *file, const struct image *want, uint64_t *seed)
{
    struct image part = {0};
    for (int i = 0; i < 20; i++) {
        struct image_window window;
        window.width = 1 + (uint32_t)(mutate_next(seed) % want->width);
        window.height = 1 + (uint32_t)(mutate_next(seed) % want->height);
        window.x = (uint32_t)(mutate_next(seed) % (want->width - window.width + 1));
        window.y = (uint32_t)(mutate_next(seed) % (want->height - window.height + 1));
        assert_int_equal(image_decode(decoder, file->bytes, file->len, &window, &part, NULL),
                         STATUS_OK);
        for (uint32_t y = 0; y < window.height; y++) {
            assert_memory_equal(part.pixels + (size_t)y * window.width * 3,
                                want->pixels +
                                    ((size_t)(y + window.y) * want->width + window.x) * 3,
                                (size_t)window.width * 3);
        }
    }
    image_free(&part);
}

static void test_every_kind_size_and_window(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{1, 1}, {1, 9}, {13, 1}, {3, 5}, {8, 8}, {37, 21}};
    struct image want = {0}, got = {0};
    uint64_t seed = 2;
    for (size_t k = 0; k < KINDS; k++) {
        for (size_t s = 0; s < 2 * sizeof sizes / sizeof *sizes; s++) {
            struct file file = make_png(&kinds[k], sizes[s / 2][0], sizes[s / 2][1], s % 2, &want);
            struct image_info info;
            assert_int_equal(image_probe(decoder, file.bytes, file.len, &info, NULL), STATUS_OK);
            assert_int_equal(info.kind, IMAGE_PNG);
            assert_int_equal(info.width, want.width);
            assert_int_equal(info.height, want.height);
            assert_int_equal(info.components, kinds[k].color & PNG_COLOR_MASK_ALPHA   ? 4
                                              : kinds[k].color == PNG_COLOR_TYPE_GRAY ? 1
                                                                                      : 3);
            assert_false(info.progressive);
            struct error error = {0};
            if (image_decode(decoder, file.bytes, file.len, NULL, &got, &error) != STATUS_OK) {
                fail_msg("kind %zu: %s", k, error.reason);
            }
            assert_memory_equal(got.pixels, want.pixels, (size_t)want.width * want.height * 3);
            check_windows(&file, &want, &seed);
            free(file.bytes);
        }
    }
    image_free(&want);
    image_free(&got);
}

static void test_encoded_pngs_read_back(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{1, 1}, {3, 2}, {200, 1}, {1, 200}, {97, 65}};
    struct image source = {0}, got = {0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *bytes;
        size_t len;
        picture_fill(&source, sizes[i][0], sizes[i][1], i);
        assert_int_equal(image_encode_png(&source, &bytes, &len, NULL), STATUS_OK);
        assert_int_equal(image_decode(decoder, bytes, len, NULL, &got, NULL), STATUS_OK);
        assert_int_equal(got.width, source.width);
        assert_int_equal(got.height, source.height);
        assert_memory_equal(got.pixels, source.pixels, (size_t)got.width * got.height * 3);
        free(bytes);
    }
    image_free(&source);
    image_free(&got);
}

static void test_every_flipped_bit_is_noticed(void **state)
{
    (void)state;
    struct image want = {0}, got = {0};
    for (int interlaced = 0; interlaced < 2; interlaced++) {
        struct file file = make_png(&kinds[13], 9, 7, interlaced, &want);
        for (size_t bit = 0; bit < 8 * file.len; bit++) {
            file.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            struct error error = {0};
            enum status status = image_decode(decoder, file.bytes, file.len, NULL, &got, &error);
            if (status == STATUS_OK) {
                fail_msg("bit %zu of byte %zu flipped and nobody noticed", bit % 8, bit / 8);
            }
            assert_in_range(status, STATUS_CORRUPT, STATUS_LIMIT);
            assert_true(error.reason[0] != '\0');
            file.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        assert_int_equal(image_decode(decoder, file.bytes, file.len, NULL, &got, NULL), STATUS_OK);
        free(file.bytes);
    }
    image_free(&want);
    image_free(&got);
}

static void test_every_cut_is_noticed(void **state)
{
    (void)state;
    struct image want = {0}, got = {0};
    struct file file = make_png(&kinds[6], 9, 7, false, &want);
    for (size_t cut = 8; cut < file.len; cut++) {
        uint8_t *exact = malloc(cut);
        assert_non_null(exact);
        memcpy(exact, file.bytes, cut);
        struct error error = {0};
        assert_int_equal(image_decode(decoder, exact, cut, NULL, &got, &error), STATUS_TRUNCATED);
        assert_int_equal(error.offset, cut);
        free(exact);
    }
    free(file.bytes);
    image_free(&want);
    image_free(&got);
}

// --- with checksums repaired, so that they do not shield what is behind them ---------------------

static uint32_t png_crc(const uint8_t *bytes, size_t len)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < len; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        }
    }
    return ~crc;
}

static void put_u32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        to[i] = (uint8_t)(value >> (24 - 8 * i));
    }
}

static void repair_checksums(uint8_t *bytes, size_t len)
{
    size_t at = 8;
    while (len - at >= 12) {
        size_t size = (size_t)bytes[at] << 24 | (size_t)bytes[at + 1] << 16 |
                      (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (size > len - at - 12) {
            return;
        }
        put_u32(bytes + at + 8 + size, png_crc(bytes + at + 4, size + 4));
        at += size + 12;
    }
}

static void test_sizes_above_the_limits(void **state)
{
    (void)state;
    static const struct {
        uint32_t width, height;
        enum status status;
    } cases[] = {
        {8192, 8192, STATUS_OK},
        {8193, 8192, STATUS_LIMIT},
        {65501, 1, STATUS_LIMIT},
        {1, 65500, STATUS_OK},
        {UINT32_MAX, 1, STATUS_LIMIT},
        {0, 5, STATUS_CORRUPT},
        {1u << 31, 1u << 31, STATUS_LIMIT},
    };
    struct image want = {0};
    struct file file = make_png(&kinds[6], 9, 7, false, &want);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_u32(file.bytes + 16, cases[i].width);
        put_u32(file.bytes + 20, cases[i].height);
        repair_checksums(file.bytes, file.len);
        struct image_info info;
        struct image out = {0};
        assert_int_equal(image_probe(decoder, file.bytes, file.len, &info, NULL), cases[i].status);
        if (cases[i].status == STATUS_LIMIT) {
            assert_int_equal(image_decode(decoder, file.bytes, file.len, NULL, &out, NULL),
                             STATUS_LIMIT);
            assert_null(out.pixels);
        }
    }
    free(file.bytes);
    image_free(&want);
}

static void test_mutants_give_a_status(void **state)
{
    (void)state;
    struct image want = {0}, got = {0};
    uint64_t seed = 6;
    size_t accepted = 0;
    for (size_t i = 0; i < 6000; i++) {
        struct file file = make_png(&kinds[i % KINDS], 11, 9, i % 5 == 0, &want);
        size_t len;
        uint8_t *mutant = mutate_copy(file.bytes, file.len, i % 3 ? 33 : 8, &seed, &len);
        repair_checksums(mutant, len);
        struct image_window window = {2, 3, 5, 4};
        struct error error = {0};
        enum status status =
            image_decode(decoder, mutant, len, i % 2 ? &window : NULL, &got, &error);
        accepted += status == STATUS_OK;
        assert_true(status == STATUS_OK || status == STATUS_INVALID ||
                    (status >= STATUS_CORRUPT && status <= STATUS_LIMIT));
        free(mutant);
        free(file.bytes);
    }
    print_message("%zu of 6000 mutants were still pictures\n", accepted);
    assert_in_range(accepted, 1, 5999);
    image_free(&want);
    image_free(&got);
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
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_size_and_window),
        cmocka_unit_test(test_encoded_pngs_read_back),
        cmocka_unit_test(test_every_flipped_bit_is_noticed),
        cmocka_unit_test(test_every_cut_is_noticed),
        cmocka_unit_test(test_sizes_above_the_limits),
        cmocka_unit_test(test_mutants_give_a_status),
    };
    return cmocka_run_group_tests_name("formats/image_png", tests, open_decoder, close_decoder);
}
