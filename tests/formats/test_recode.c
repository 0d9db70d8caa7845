// The recoded form of JPEG files: libjpeg's coefficients, whichever rows are asked for; the file
// itself back; and nothing worse than an error from damaged bytes.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/image_recode.h"
#include "formats/isa.h"
#include "formats/jpeg/header.h"
#include "formats/jpeg/recode_source.h"
#include "formats/source.h"
#include "tests/support/coefficients.h"
#include "tests/support/mutate.h"
#include "tests/support/picture.h"

static struct recode_encoder *encoder;
static struct image_recoder *recoder;
static struct image_decoder *image_decoder;
static struct recode_source decoder;

static int open_all(void **state)
{
    (void)state;
    return recode_encoder_open(&encoder, NULL) == STATUS_OK &&
                   image_recoder_open(&recoder, NULL) == STATUS_OK &&
                   image_decoder_open(&image_decoder, NULL) == STATUS_OK
               ? 0
               : -1;
}

static int close_all(void **state)
{
    (void)state;
    recode_encoder_close(&encoder);
    image_recoder_close(&recoder);
    image_decoder_close(&image_decoder);
    return 0;
}

// --- rows ----------------------------------------------------------------------------------------

static size_t row_bytes(const struct jpeg_frame *frame, uint32_t c)
{
    const struct jpeg_component *component = &frame->component[c];
    return (size_t)frame->mcus_wide * component->h * component->v * JPEG_BLOCK * sizeof(int16_t);
}

// Rows that end where their memory does, so that a sanitizer sees what is written beyond.
static void make_row(int16_t *blocks[3], const struct jpeg_frame *frame)
{
    for (uint32_t c = 0; c < 3; c++) {
        blocks[c] = aligned_alloc(64, c < frame->components ? row_bytes(frame, c) : 64);
        assert_non_null(blocks[c]);
    }
}

// What is there before must not matter.
static void poison(int16_t *blocks, size_t bytes)
{
    for (size_t i = 0; i < bytes / sizeof *blocks; i++) {
        blocks[i] = -1234;
    }
}

static void free_row(int16_t *blocks[3])
{
    for (int c = 0; c < 3; c++) {
        free(blocks[c]);
    }
}

// Decodes the rows whose bit in `wanted` (repeated) is set and compares them with libjpeg's.
static void check_rows(const uint8_t *payload, size_t len, const struct coefficients *want,
                       uint64_t wanted)
{
    assert_int_equal(recode_source_start(&decoder, payload, len, NULL), STATUS_OK);
    const struct jpeg_frame *frame = &decoder.layout.frame;
    int16_t *blocks[3] = {NULL};
    make_row(blocks, frame);
    for (uint32_t row = 0; row < frame->mcus_high; row++) {
        if (!(wanted >> row % 64 & 1)) {
            continue;
        }
        struct error error = {0};
        for (uint32_t c = 0; c < frame->components; c++) {
            poison(blocks[c], row_bytes(frame, c));
        }
        assert_int_equal(
            decoder.source.row(&decoder.source, row, 0, frame->mcus_wide, blocks, &error),
            STATUS_OK);
        for (uint32_t c = 0; c < frame->components; c++) {
            size_t bytes = row_bytes(frame, c);
            assert_memory_equal(blocks[c], (const uint8_t *)want->blocks[c] + row * bytes, bytes);
        }
    }
    free_row(blocks);
}

// --- one file ------------------------------------------------------------------------------------

// What the encoder makes of a file, copied into memory of its own length.
static uint8_t *encode(const uint8_t *bytes, size_t len, enum recode_outcome *outcome,
                       size_t *payload_len)
{
    const uint8_t *payload;
    struct error error = {0};
    assert_int_equal(recode_encode(encoder, bytes, len, outcome, &payload, payload_len, &error),
                     STATUS_OK);
    bool made = *outcome == RECODE_EXACT || *outcome == RECODE_PIXELS;
    assert_true(made == (payload != NULL));
    uint8_t *copy = NULL;
    if (made && payload != NULL) {
        assert_true(recode_is(payload, *payload_len));
        assert_true(*payload_len * 100 <= len * RECODE_MOST_OF_100);
        copy = malloc(*payload_len);
        assert_non_null(copy);
        memcpy(copy, payload, *payload_len);
    }
    return copy;
}

static void check_restored(const uint8_t *payload, size_t payload_len, const uint8_t *bytes,
                           size_t len)
{
    uint8_t *jpeg;
    size_t jpeg_len;
    bool exact;
    assert_int_equal(recode_restore(payload, payload_len, &exact, &jpeg, &jpeg_len, NULL),
                     STATUS_OK);
    assert_true(exact);
    assert_int_equal(jpeg_len, len);
    assert_memory_equal(jpeg, bytes, len);
    free(jpeg);
}

static struct image_window random_window(const struct image_info *info, uint64_t *seed)
{
    struct image_window window = {.width = 1 + (uint32_t)(mutate_next(seed) % info->width),
                                  .height = 1 + (uint32_t)(mutate_next(seed) % info->height)};
    window.x = (uint32_t)(mutate_next(seed) % (info->width - window.width + 1));
    window.y = (uint32_t)(mutate_next(seed) % (info->height - window.height + 1));
    return window;
}

// Recoded or not, an image has the same pixels, whole and in windows.
static void check_pixels(const uint8_t *payload, size_t payload_len, const uint8_t *bytes,
                         size_t len, uint64_t *seed)
{
    struct image want = {0}, got = {0};
    struct image_planes planes[2] = {0}, split = {0};
    struct image_info info;
    assert_int_equal(image_probe(image_decoder, payload, payload_len, &info, NULL), STATUS_OK);
    assert_int_equal(info.kind, IMAGE_RECODED);
    struct image_window window[2] = {random_window(&info, seed), random_window(&info, seed)};
    const struct image_window *asked[3] = {NULL, &window[0], &window[1]};
    assert_int_equal(
        image_decode_windows(image_decoder, payload, payload_len, window, 2, planes, NULL),
        STATUS_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(image_decode(image_decoder, bytes, len, asked[i], &want, NULL), STATUS_OK);
        assert_int_equal(image_decode(image_decoder, payload, payload_len, asked[i], &got, NULL),
                         STATUS_OK);
        assert_int_equal(got.width, want.width);
        assert_int_equal(got.height, want.height);
        assert_memory_equal(got.pixels, want.pixels, (size_t)want.width * want.height * 3);
        assert_int_equal(image_split(&want, &split, NULL), STATUS_OK);
        for (size_t row = 0; i > 0 && row < 3 * (size_t)want.height; row++) {
            size_t at = row % want.height * split.stride;
            assert_memory_equal(planes[i - 1].plane[row / want.height] + at,
                                split.plane[row / want.height] + at, want.width);
        }
    }
    image_free(&want);
    image_free(&got);
    image_planes_free(&planes[0]);
    image_planes_free(&planes[1]);
    image_planes_free(&split);
}

static enum recode_outcome check_file(const uint8_t *bytes, size_t len, size_t *payload_len)
{
    static uint64_t seed = 1;
    enum recode_outcome outcome;
    uint8_t *payload = encode(bytes, len, &outcome, payload_len);
    if (payload != NULL) {
        struct jpeg_header header;
        struct coefficients want = {0};
        assert_true(jpeg_header_read(&header, bytes, len));
        coefficients_read(&want, &header.frame, bytes, len);
        assert_true(want.complete && want.one_scan);
        for (int isa = ISA_BASE; isa < ISA_COUNT; isa++) {
            if (isa_supported((enum isa)isa)) {
                isa_force((enum isa)isa);
                check_rows(payload, *payload_len, &want, UINT64_MAX);
                check_rows(payload, *payload_len, &want, UINT64_C(0x8421f00f37d62a94));
            }
        }
        coefficients_free(&want);
        check_pixels(payload, *payload_len, bytes, len, &seed);
        if (outcome == RECODE_EXACT) {
            check_restored(payload, *payload_len, bytes, len);
        }
        free(payload);
    }
    return outcome;
}

// --- good files ----------------------------------------------------------------------------------

static const struct picture_jpeg kinds[] = {
    {PICTURE_YCBCR, .h = 1, .v = 1},
    {PICTURE_YCBCR, .h = 2, .v = 2},
    {PICTURE_YCBCR, .h = 2, .v = 1, .optimized = true},
    {PICTURE_YCBCR, .h = 1, .v = 2},
    {PICTURE_YCBCR, .h = 1, .v = 1, .quality = 100, .optimized = true},
    {PICTURE_YCBCR, .h = 2, .v = 2, .quality = 100},
    {PICTURE_YCBCR, .h = 2, .v = 2, .restart = 1},
    {PICTURE_YCBCR, .h = 1, .v = 1, .restart = 5, .optimized = true},
    {PICTURE_YCBCR, .h = 2, .v = 1, .restart = 2, .quality = 98},
    {PICTURE_GREY, .h = 1},
    {PICTURE_GREY, .h = 2, .v = 2, .restart = 3},
    {PICTURE_RGB, .quality = 97, .restart = 4},
};
#define KINDS (sizeof kinds / sizeof *kinds)

static const uint32_t sizes[][2] = {{1, 1}, {17, 9}, {16, 16}, {130, 65}, {65, 130}, {301, 240}};
#define SIZES (sizeof sizes / sizeof *sizes)

static void test_made_files_come_back(void **state)
{
    (void)state;
    struct image source = {0};
    size_t recoded = 0;
    for (size_t k = 0; k < KINDS; k++) {
        for (size_t s = 0; s < SIZES; s++) {
            size_t len, payload_len;
            picture_fill(&source, sizes[s][0], sizes[s][1], k * SIZES + s);
            uint8_t *bytes = picture_jpeg(&source, &kinds[k], &len);
            enum recode_outcome outcome = check_file(bytes, len, &payload_len);
            assert_true(outcome == RECODE_EXACT || outcome == RECODE_LARGE);
            assert_true(outcome == RECODE_EXACT || len < 8192); // tables outweigh small files
            recoded += outcome == RECODE_EXACT;
            free(bytes);
        }
    }
    assert_true(recoded > 2 * KINDS);
    image_free(&source);
}

// Long codes, large amplitudes, and DC differences that need all of their bits.
static void test_noise_comes_back(void **state)
{
    (void)state;
    coefficients_need_x86();
    struct image source = {0};
    uint64_t seed = 2;
    assert_int_equal(image_reserve(&source, 250, 90, NULL), STATUS_OK);
    for (size_t k = 0; k < KINDS; k++) {
        struct picture_jpeg how = kinds[k];
        how.quality = 100;
        for (size_t i = 0; i < (size_t)source.width * source.height * 3; i++) {
            bool flat = k % 3 == 0; // blocks of black and white
            source.pixels[i] = flat         ? (uint8_t)(i / 24 % 2 ? 255 : 0)
                               : k % 3 == 1 ? (uint8_t)mutate_next(&seed)
                                            : (uint8_t)(mutate_next(&seed) & 1 ? 255 : 0);
        }
        size_t len, payload_len;
        uint8_t *bytes = picture_jpeg(&source, &how, &len);
        enum recode_outcome outcome = check_file(bytes, len, &payload_len);
        assert_true(outcome == RECODE_EXACT || outcome == RECODE_EXTREME);
        free(bytes);
    }
    image_free(&source);
}

static void test_photographs_come_back(void **state)
{
    (void)state;
    const char *path = getenv("BYOL_IMAGENET_SAMPLE");
    path = path ? path : "../shared/data/imagenet-sample.tar";
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        printf("skipped: no %s (BYOL_IMAGENET_SAMPLE names another tar of photographs)\n", path);
        skip();
    }
    fclose(file);
    struct source *source;
    struct source_member member;
    uint8_t *bytes = NULL;
    size_t len, capacity = 0, files = 0, exact = 0, before = 0, after = 0;
    assert_int_equal(source_open(&source, path, NULL), STATUS_OK);
    while (source_next(source, &member, NULL) == STATUS_OK) {
        assert_int_equal(source_read(source, &bytes, &len, &capacity, NULL), STATUS_OK);
        size_t payload_len;
        enum recode_outcome outcome = check_file(bytes, len, &payload_len);
        files++;
        if (outcome == RECODE_EXACT) {
            exact++;
            before += len;
            after += payload_len;
        }
    }
    printf("%zu of %zu photographs come back, recoded to %.4f of their size\n", exact, files,
           (double)after / (double)before);
    assert_true(exact * 10 > files * 9);
    free(bytes);
    source_close(&source);
}

// --- unusual files -------------------------------------------------------------------------------

static void test_unusual_files_stay_as_they_are(void **state)
{
    (void)state;
    static const struct picture_jpeg unusual[] = {
        {PICTURE_YCBCR, .h = 4, .v = 1},
        {PICTURE_YCBCR, .h = 2, .v = 2, .progressive = true},
        {PICTURE_YCBCR, .h = 2, .v = 2, .arithmetic = true},
        {PICTURE_CMYK, .h = 1},
    };
    struct image source = {0};
    size_t len, payload_len;
    picture_fill(&source, 200, 150, 1);
    for (size_t k = 0; k < sizeof unusual / sizeof *unusual; k++) {
        uint8_t *bytes = picture_jpeg(&source, &unusual[k], &len);
        assert_int_equal(check_file(bytes, len, &payload_len), RECODE_UNUSUAL);
        free(bytes);
    }
    uint8_t *bytes = picture_jpeg(&source, &kinds[1], &len);
    assert_int_equal(check_file(bytes, len - 20, &payload_len), RECODE_UNUSUAL); // cut short
    assert_int_equal(check_file((const uint8_t *)"no picture", 10, &payload_len), RECODE_UNUSUAL);
    free(bytes);
    image_free(&source);
}

// Bytes after the end are kept; bits that nobody looks at cost the promise of the same bytes, not
// the pixels.
static void test_odd_ends_come_back_as_far_as_they_can(void **state)
{
    (void)state;
    struct image source = {0};
    size_t len, payload_len, jpeg_len, again_len;
    picture_fill(&source, 200, 150, 3);
    uint8_t *bytes = picture_jpeg(&source, &kinds[7], &len);
    uint8_t *longer = malloc(len + 40);
    assert_non_null(longer);
    memcpy(longer, bytes, len);
    memset(longer + len, '?', 40);
    assert_int_equal(check_file(longer, len + 40, &payload_len), RECODE_EXACT);

    // A fill byte before the end marker belongs to the tail; one before a restart marker is lost.
    memcpy(longer, bytes, len - 2);
    static const uint8_t filled_end[3] = {0xff, 0xff, 0xd9};
    memcpy(longer + len - 2, filled_end, sizeof filled_end);
    assert_int_equal(check_file(longer, len + 1, &payload_len), RECODE_EXACT);
    size_t at = picture_jpeg_header(bytes, len);
    while (bytes[at] != 0xff || bytes[at + 1] != 0xd0) {
        at++;
    }
    memcpy(longer, bytes, at);
    longer[at] = 0xff;
    memcpy(longer + at + 1, bytes + at, len - at);
    assert_int_equal(check_file(longer, len + 1, &payload_len), RECODE_PIXELS);

    enum recode_outcome outcome;
    bool exact;
    uint8_t *jpeg, *payload = encode(longer, len + 1, &outcome, &payload_len);
    assert_int_equal(recode_restore(payload, payload_len, &exact, &jpeg, &jpeg_len, NULL),
                     STATUS_OK);
    assert_false(exact);
    assert_int_equal(jpeg_len, len);
    assert_memory_equal(jpeg, bytes, len);
    assert_int_equal(check_file(jpeg, jpeg_len, &again_len), RECODE_EXACT);
    free(payload);
    free(jpeg);
    free(longer);
    free(bytes);
    image_free(&source);
}

static void test_only_jpegs_with_the_same_pixels_are_recoded(void **state)
{
    (void)state;
    struct image source = {0};
    uint8_t *bytes;
    const uint8_t *payload;
    size_t len, payload_len;
    enum recode_outcome outcome;
    picture_fill(&source, 200, 150, 9);
    assert_int_equal(image_encode_png(&source, &bytes, &len, NULL), STATUS_OK);
    assert_int_equal(image_recode(recoder, bytes, len, &outcome, &payload, &payload_len, NULL),
                     STATUS_OK);
    assert_int_equal(outcome, RECODE_UNUSUAL);
    assert_null(payload);
    free(bytes);
    bytes = picture_jpeg(&source, &kinds[1], &len);
    assert_int_equal(image_recode(recoder, bytes, len, &outcome, &payload, &payload_len, NULL),
                     STATUS_OK);
    assert_int_equal(outcome, RECODE_EXACT);
    check_restored(payload, payload_len, bytes, len);
    struct image_window outside = {.x = 100, .y = 100, .width = 101, .height = 50};
    assert_int_equal(image_decode(image_decoder, payload, payload_len, &outside, &source, NULL),
                     STATUS_INVALID);
    free(bytes);
    image_free(&source);
}

static void test_rows_out_of_order_are_refused(void **state)
{
    (void)state;
    struct image source = {0};
    size_t len, payload_len;
    enum recode_outcome outcome;
    picture_fill(&source, 200, 150, 7);
    uint8_t *bytes = picture_jpeg(&source, &kinds[0], &len);
    uint8_t *payload = encode(bytes, len, &outcome, &payload_len);
    int16_t *blocks[3];
    struct jpeg_source *rows = &decoder.source;
    assert_int_equal(recode_source_start(&decoder, payload, payload_len, NULL), STATUS_OK);
    make_row(blocks, &decoder.layout.frame);
    assert_int_equal(rows->row(rows, 3, 0, 25, blocks, NULL), STATUS_OK);
    assert_int_equal(rows->row(rows, 3, 0, 25, blocks, NULL), STATUS_INVALID);
    assert_int_equal(rows->row(rows, 2, 0, 25, blocks, NULL), STATUS_INVALID);
    assert_int_equal(rows->row(rows, 4, 0, 26, blocks, NULL), STATUS_INVALID);
    assert_int_equal(rows->row(rows, 4, 5, 4, blocks, NULL), STATUS_INVALID);
    assert_int_equal(rows->row(rows, 19, 0, 25, blocks, NULL), STATUS_INVALID);
    int16_t *const none[3] = {NULL, NULL, NULL};
    assert_int_equal(rows->row(rows, 17, 4, 4, none, NULL), STATUS_OK);
    assert_int_equal(rows->row(rows, 18, 3, 4, blocks, NULL), STATUS_OK);
    free_row(blocks);
    free(payload);
    free(bytes);
    image_free(&source);
}

// --- damage --------------------------------------------------------------------------------------

// Every way into a payload; returns whether one of them noticed something.
static bool is_refused(const uint8_t *payload, size_t len)
{
    struct error error = {0};
    enum status status = recode_source_start(&decoder, payload, len, &error);
    if (status == STATUS_OK) {
        const struct jpeg_frame *frame = &decoder.layout.frame;
        int16_t *blocks[3];
        make_row(blocks, frame);
        for (uint32_t row = 0; row < frame->mcus_high && status == STATUS_OK; row++) {
            status = decoder.source.row(&decoder.source, row, 0, frame->mcus_wide, blocks, &error);
        }
        free_row(blocks);
    }
    uint8_t *jpeg;
    size_t jpeg_len;
    bool exact;
    enum status restored = recode_restore(payload, len, &exact, &jpeg, &jpeg_len, NULL);
    free(jpeg);
    assert_true(status == STATUS_OK || error.status == status);
    assert_true(status == STATUS_OK || status == STATUS_CORRUPT || status == STATUS_TRUNCATED ||
                status == STATUS_VERSION);
    assert_true(status == STATUS_OK || restored != STATUS_OK);
    struct image image = {0};
    assert_true(image_decode(image_decoder, payload, len, NULL, &image, NULL) == STATUS_OK ||
                status != STATUS_OK || !recode_is(payload, len));
    image_free(&image);
    return restored != STATUS_OK;
}

static void test_damage_is_an_error(void **state)
{
    (void)state;
    struct image source = {0};
    uint64_t seed = 5;
    size_t refused = 0, tried = 0;
    for (size_t k = 0; k < KINDS; k++) {
        size_t len, payload_len;
        enum recode_outcome outcome;
        picture_fill(&source, 150, 120, k);
        uint8_t *bytes = picture_jpeg(&source, &kinds[k], &len);
        uint8_t *payload = encode(bytes, len, &outcome, &payload_len);
        for (int i = 0; payload != NULL && i < 400; i++) {
            size_t mutant_len;
            uint8_t *mutant =
                mutate_copy(payload, payload_len, i % 2 ? 9 : 900, &seed, &mutant_len);
            refused += is_refused(mutant, mutant_len);
            tried++;
            free(mutant);
        }
        free(payload);
        free(bytes);
    }
    assert_true(tried > 2000);
    assert_true(refused * 100 > tried * 98); // else zeros among the slack were hit
    image_free(&source);
}

static void test_every_cut_is_noticed(void **state)
{
    (void)state;
    struct image source = {0};
    size_t len, payload_len;
    enum recode_outcome outcome;
    picture_fill(&source, 100, 80, 5);
    uint8_t *bytes = picture_jpeg(&source, &kinds[5], &len);
    uint8_t *payload = encode(bytes, len, &outcome, &payload_len);
    assert_non_null(payload);
    for (size_t cut = 0; cut < payload_len; cut += cut < 1000 ? 1 : 13) {
        uint8_t *copy = malloc(cut ? cut : 1);
        assert_non_null(copy);
        memcpy(copy, payload, cut);
        assert_int_not_equal(recode_source_start(&decoder, copy, cut, NULL), STATUS_OK);
        free(copy);
    }
    free(payload);
    free(bytes);
    image_free(&source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_made_files_come_back),
        cmocka_unit_test(test_noise_comes_back),
        cmocka_unit_test(test_photographs_come_back),
        cmocka_unit_test(test_unusual_files_stay_as_they_are),
        cmocka_unit_test(test_odd_ends_come_back_as_far_as_they_can),
        cmocka_unit_test(test_only_jpegs_with_the_same_pixels_are_recoded),
        cmocka_unit_test(test_rows_out_of_order_are_refused),
        cmocka_unit_test(test_damage_is_an_error),
        cmocka_unit_test(test_every_cut_is_noticed),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
