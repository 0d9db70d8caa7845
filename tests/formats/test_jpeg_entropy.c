// Our own reading of plain JPEG files against libjpeg's: the same frame, the same coefficients,
// whatever is asked for, and nothing accepted that libjpeg would warn of.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/isa.h"
#include "formats/jpeg/huffman.h"
#include "formats/source.h"
#include "tests/support/coefficients.h"
#include "tests/support/mutate.h"
#include "tests/support/photographs.h"
#include "tests/support/picture.h"

static struct jpeg_huffman decoder;

// A row of MCUs, poisoned before each use.
struct row {
    int16_t *blocks[3];
    size_t bytes[3];
};

static void row_make(struct row *row, const struct jpeg_frame *frame)
{
    *row = (struct row){0};
    for (uint32_t c = 0; c < frame->components; c++) {
        const struct jpeg_component *component = &frame->component[c];
        row->bytes[c] =
            (size_t)frame->mcus_wide * component->h * component->v * JPEG_BLOCK * sizeof(int16_t);
        row->blocks[c] = aligned_alloc(64, row->bytes[c]);
        assert_non_null(row->blocks[c]);
    }
}

static void row_free(struct row *row)
{
    for (int c = 0; c < 3; c++) {
        free(row->blocks[c]);
    }
}

static void row_poison(struct row *row, const struct jpeg_frame *frame)
{
    for (uint32_t c = 0; c < frame->components; c++) {
        memset(row->blocks[c], 0xa5, row->bytes[c]);
    }
}

static void assert_row(const struct row *row, const struct coefficients *want,
                       const struct jpeg_frame *frame, uint32_t y, uint32_t first, uint32_t end)
{
    for (uint32_t c = 0; c < frame->components; c++) {
        const struct jpeg_component *component = &frame->component[c];
        size_t line = (size_t)frame->mcus_wide * component->h;
        for (uint32_t v = 0; v < component->v; v++) {
            const int16_t *got = row->blocks[c] + (v * line + first * component->h) * JPEG_BLOCK;
            const int16_t *expected =
                want->blocks[c] +
                (((size_t)y * component->v + v) * line + first * component->h) * JPEG_BLOCK;
            assert_memory_equal(got, expected,
                                (size_t)(end - first) * component->h * JPEG_BLOCK * sizeof *got);
        }
    }
}

// Reads rows until one is refused, all of them if `seed` is NULL, else some, and parts of them.
// Returns the rows that were passed.
static uint32_t read_rows(const struct jpeg_header *header, const uint8_t *bytes, size_t len,
                          const struct coefficients *want, uint64_t *seed)
{
    const struct jpeg_frame *frame = &header->frame;
    struct row row;
    uint32_t passed = 0;
    row_make(&row, frame);
    jpeg_huffman_start(&decoder, header, bytes, len);
    for (uint32_t y = 0; y < frame->mcus_high; y++) {
        uint32_t first = 0, end = frame->mcus_wide;
        if (seed != NULL) {
            if (mutate_next(seed) % 4 == 0) {
                continue;
            }
            first = (uint32_t)(mutate_next(seed) % (end + 1));
            end = first + (uint32_t)(mutate_next(seed) % (end - first + 1));
        }
        row_poison(&row, frame);
        struct error error = {0};
        enum status status = decoder.source.row(&decoder.source, y, first, end, row.blocks, &error);
        if (status != STATUS_OK) {
            assert_int_equal(status, STATUS_CORRUPT);
            assert_int_equal(error.status, STATUS_CORRUPT);
            break;
        }
        passed = y + 1;
        assert_true(y < want->good_rows);
        if (want->complete && want->one_scan) {
            assert_row(&row, want, frame, y, first, end);
        }
    }
    row_free(&row);
    return passed;
}

// Returns the rows of MCUs that were read, 0 also if the file is not plain.
static uint32_t check(const uint8_t *bytes, size_t len, uint64_t *seed)
{
    struct jpeg_header header;
    if (!jpeg_header_read(&header, bytes, len)) {
        return 0;
    }
    struct coefficients want = {0};
    coefficients_read(&want, &header.frame, bytes, len);
    uint32_t passed = 0;
    for (int isa = ISA_BASE; isa < ISA_COUNT; isa++) {
        if (isa_supported((enum isa)isa)) {
            isa_force((enum isa)isa);
            uint32_t rows = read_rows(&header, bytes, len, &want, NULL);
            assert_true(isa == ISA_BASE || rows == passed);
            passed = rows;
            read_rows(&header, bytes, len, &want, seed);
        }
    }
    coefficients_free(&want);
    return passed;
}

// The file must be plain and good.
static void check_good(const uint8_t *bytes, size_t len, uint64_t *seed)
{
    struct jpeg_header header;
    assert_true(jpeg_header_read(&header, bytes, len));
    assert_int_equal(check(bytes, len, seed), header.frame.mcus_high);
}

// --- good files ----------------------------------------------------------------------------------

static const struct picture_jpeg kinds[] = {
    {PICTURE_YCBCR, .h = 1, .v = 1},
    {PICTURE_YCBCR, .h = 2, .v = 2},
    {PICTURE_YCBCR, .h = 2, .v = 1, .optimized = true},
    {PICTURE_YCBCR, .h = 1, .v = 2},
    {PICTURE_YCBCR, .h = 1, .v = 1, .quality = 100, .optimized = true},
    {PICTURE_YCBCR, .h = 2, .v = 2, .quality = 100},
    {PICTURE_YCBCR, .h = 2, .v = 2, .quality = 3, .optimized = true},
    {PICTURE_YCBCR, .h = 1, .v = 1, .quality = 1},
    {PICTURE_YCBCR, .h = 2, .v = 2, .restart = 1},
    {PICTURE_YCBCR, .h = 1, .v = 1, .restart = 5, .optimized = true},
    {PICTURE_YCBCR, .h = 2, .v = 1, .restart = 2, .quality = 98},
    {PICTURE_GREY, .h = 1},
    {PICTURE_GREY, .h = 2, .v = 2, .restart = 3},
    {PICTURE_GREY, .quality = 100, .optimized = true},
    {PICTURE_RGB, .h = 1},
    {PICTURE_RGB, .quality = 97, .restart = 4},
};
#define KINDS (sizeof kinds / sizeof *kinds)

static const uint32_t sizes[][2] = {{1, 1},   {1, 17},  {17, 1},   {7, 7},    {8, 8},   {9, 8},
                                    {16, 16}, {33, 17}, {130, 65}, {65, 130}, {301, 40}};
#define SIZES (sizeof sizes / sizeof *sizes)

static void test_made_files_have_the_same_coefficients(void **state)
{
    (void)state;
    struct image source = {0};
    uint64_t seed = 1;
    for (size_t k = 0; k < KINDS; k++) {
        for (size_t s = 0; s < SIZES; s++) {
            size_t len;
            picture_fill(&source, sizes[s][0], sizes[s][1], k * SIZES + s);
            uint8_t *bytes = picture_jpeg(&source, &kinds[k], &len);
            check_good(bytes, len, &seed);
            free(bytes);
        }
    }
    image_free(&source);
}

// Noise at the highest quality: blocks without an end mark, long codes, large amplitudes.
static void test_noise_has_the_same_coefficients(void **state)
{
    (void)state;
    struct image source = {0};
    uint64_t seed = 2;
    assert_int_equal(image_reserve(&source, 250, 90, NULL), STATUS_OK);
    for (size_t k = 0; k < KINDS; k++) {
        struct picture_jpeg how = kinds[k];
        how.quality = 100;
        for (size_t i = 0; i < (size_t)source.width * source.height * 3; i++) {
            source.pixels[i] = k % 2                    ? (uint8_t)mutate_next(&seed)
                               : mutate_next(&seed) & 1 ? 255
                                                        : 0;
        }
        size_t len;
        uint8_t *bytes = picture_jpeg(&source, &how, &len);
        check_good(bytes, len, &seed);
        free(bytes);
    }
    image_free(&source);
}

// Returns the plain files among all.
static size_t check_source(const char *path, size_t *files)
{
    struct source *source;
    struct error error = {0};
    if (source_open(&source, path, &error) != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
    struct source_member member;
    uint8_t *bytes = NULL;
    size_t len, capacity = 0, plain = 0;
    uint64_t seed = 3;
    *files = 0;
    while (source_next(source, &member, &error) == STATUS_OK) {
        assert_int_equal(source_read(source, &bytes, &len, &capacity, &error), STATUS_OK);
        struct jpeg_header header;
        if (jpeg_header_read(&header, bytes, len)) {
            plain += check(bytes, len, &seed) == header.frame.mcus_high;
        }
        ++*files;
    }
    free(bytes);
    source_close(&source);
    return plain;
}

static void test_committed_images_have_the_same_coefficients(void **state)
{
    (void)state;
    size_t files, plain = check_source("tests/data/images", &files);
    assert_int_equal(plain, files);
    assert_true(files > 0);
}

static void test_photographs_have_the_same_coefficients(void **state)
{
    (void)state;
    size_t files, plain = check_source(photographs_path(), &files);
    printf("%zu of %zu photographs are plain\n", plain, files);
    assert_true(plain * 10 > files * 9);
}

// --- unusual and damaged files -------------------------------------------------------------------

static void test_unusual_files_are_left_to_libjpeg(void **state)
{
    (void)state;
    static const struct picture_jpeg unusual[] = {
        {PICTURE_YCBCR, .h = 4, .v = 1},
        {PICTURE_YCBCR, .h = 1, .v = 4},
        {PICTURE_YCBCR, .h = 2, .v = 2, .progressive = true},
        {PICTURE_YCBCR, .h = 2, .v = 2, .arithmetic = true},
        {PICTURE_GREY, .progressive = true},
        {PICTURE_CMYK, .h = 1},
        {PICTURE_YCCK, .h = 1},
        {PICTURE_CMYK_PLAIN, .h = 1},
    };
    struct image source = {0};
    struct jpeg_header header;
    picture_fill(&source, 50, 40, 1);
    for (size_t k = 0; k < sizeof unusual / sizeof *unusual; k++) {
        size_t len;
        uint8_t *bytes = picture_jpeg(&source, &unusual[k], &len);
        assert_false(jpeg_header_read(&header, bytes, len));
        free(bytes);
    }
    image_free(&source);
}

static void test_every_cut_is_noticed(void **state)
{
    (void)state;
    struct image source = {0};
    size_t len;
    uint64_t seed = 4;
    picture_fill(&source, 40, 24, 5);
    uint8_t *bytes = picture_jpeg(&source, &kinds[1], &len);
    for (size_t cut = 0; cut < len; cut++) {
        uint8_t *copy = malloc(cut ? cut : 1); // exact, so that a sanitizer sees reads beyond
        assert_non_null(copy);
        memcpy(copy, bytes, cut);
        struct jpeg_header header;
        if (jpeg_header_read(&header, copy, cut)) {
            assert_true(check(copy, cut, &seed) < header.frame.mcus_high);
        }
        free(copy);
    }
    free(bytes);
    image_free(&source);
}

static void test_what_is_accepted_of_mutants_is_what_libjpeg_reads(void **state)
{
    (void)state;
    struct image source = {0};
    uint64_t seed = 5;
    size_t read = 0, refused = 0;
    for (size_t k = 0; k < KINDS; k++) {
        size_t len;
        picture_fill(&source, 70, 60, k);
        uint8_t *bytes = picture_jpeg(&source, &kinds[k], &len);
        size_t header = picture_jpeg_header(bytes, len);
        for (int i = 0; i < 250; i++) {
            size_t mutant_len;
            uint8_t *mutant = mutate_copy(bytes, len, i % 2 ? header : 2, &seed, &mutant_len);
            uint32_t rows = check(mutant, mutant_len, &seed);
            read += rows > 0;
            refused += rows == 0;
            free(mutant);
        }
        free(bytes);
    }
    assert_true(read > 100);
    assert_true(refused > 100);
    image_free(&source);
}

// They may stand before any marker.
static void test_fill_bytes_are_passed_over(void **state)
{
    (void)state;
    struct image source = {0};
    uint64_t seed = 6;
    for (size_t k = 0; k < KINDS; k++) {
        size_t len, filled = 0;
        picture_fill(&source, 90, 60, k);
        uint8_t *bytes = picture_jpeg(&source, &kinds[k], &len);
        size_t scan = picture_jpeg_header(bytes, len);
        uint8_t *copy = malloc(3 * len);
        assert_non_null(copy);
        for (size_t i = 0; i < len; i++) {
            copy[filled++] = bytes[i];
            for (uint64_t n =
                     i > scan && bytes[i] == 0xff && bytes[i + 1] != 0 ? mutate_next(&seed) % 3 : 0;
                 n > 0; n--) {
                copy[filled++] = 0xff;
            }
        }
        check_good(copy, filled, &seed);
        free(copy);
        free(bytes);
    }
    image_free(&source);
}

static void test_rows_out_of_order_are_refused(void **state)
{
    (void)state;
    struct image source = {0};
    size_t len;
    picture_fill(&source, 64, 64, 7);
    uint8_t *bytes = picture_jpeg(&source, &kinds[0], &len);
    struct jpeg_header header;
    struct row row;
    assert_true(jpeg_header_read(&header, bytes, len));
    row_make(&row, &header.frame);
    struct jpeg_source *rows = &decoder.source;
    jpeg_huffman_start(&decoder, &header, bytes, len);
    assert_int_equal(rows->row(rows, 3, 0, 8, row.blocks, NULL), STATUS_OK);
    assert_int_equal(rows->row(rows, 3, 0, 8, row.blocks, NULL), STATUS_INVALID);
    assert_int_equal(rows->row(rows, 2, 0, 8, row.blocks, NULL), STATUS_INVALID);
    assert_int_equal(rows->row(rows, 4, 0, 9, row.blocks, NULL), STATUS_INVALID);
    assert_int_equal(rows->row(rows, 4, 5, 4, row.blocks, NULL), STATUS_INVALID);
    assert_int_equal(rows->row(rows, 8, 0, 8, row.blocks, NULL), STATUS_INVALID);
    assert_int_equal(rows->row(rows, 7, 8, 8, NULL, NULL), STATUS_OK);
    row_free(&row);
    free(bytes);
    image_free(&source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_made_files_have_the_same_coefficients),
        cmocka_unit_test(test_noise_has_the_same_coefficients),
        cmocka_unit_test(test_committed_images_have_the_same_coefficients),
        cmocka_unit_test(test_photographs_have_the_same_coefficients),
        cmocka_unit_test(test_unusual_files_are_left_to_libjpeg),
        cmocka_unit_test(test_every_cut_is_noticed),
        cmocka_unit_test(test_what_is_accepted_of_mutants_is_what_libjpeg_reads),
        cmocka_unit_test(test_fill_bytes_are_passed_over),
        cmocka_unit_test(test_rows_out_of_order_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
