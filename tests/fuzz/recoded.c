// Recoded JPEGs (formats/jpeg/recode.h), from both sides: damaged payloads, and the payloads of
// damaged JPEGs. What a payload shows is what libjpeg-turbo shows of the JPEG that it is turned
// back into.
#include "formats/image.h"
#include "formats/jpeg/recode_layout.h"
#include "tests/support/fuzz.h"
#include "tests/support/picture.h"

#include <stdlib.h>
#include <string.h>

static struct image_decoder *decoder;
static struct recode_encoder *encoder;
static struct image alone, original;
static struct image_planes planes[2];

static const struct picture_jpeg kinds[] = {
    {PICTURE_YCBCR, .h = 2, .v = 2}, {PICTURE_YCBCR, .h = 2, .v = 2, .restart = 2},
    {PICTURE_YCBCR, .h = 2, .v = 1}, {PICTURE_YCBCR, .h = 1, .v = 2, .quality = 98},
    {PICTURE_YCBCR, .h = 1, .v = 1}, {PICTURE_YCBCR, .h = 2, .v = 2, .quality = 20},
    {PICTURE_GREY, .h = 1},          {PICTURE_RGB, .h = 1},
};

// --- seeds -------------------------------------------------------------------------------------

static void seed_of(const struct picture_jpeg *kind, uint32_t width, uint32_t height)
{
    struct image image = {0};
    size_t len, payload_len;
    const uint8_t *payload;
    enum recode_outcome outcome;
    picture_fill(&image, width, height, width);
    uint8_t *bytes = picture_jpeg(&image, kind, &len);
    fuzz_seed(bytes, len, picture_jpeg_header(bytes, len));
    FUZZ_CHECK(recode_encode(encoder, bytes, len, &outcome, &payload, &payload_len, NULL) ==
               STATUS_OK);
    if (payload != NULL) {
        struct recode_layout layout;
        FUZZ_CHECK(recode_layout_read(&layout, payload, payload_len, NULL) == STATUS_OK);
        fuzz_seed(payload, payload_len, layout.rows);
        fuzz_seed(payload, payload_len, RECODE_FIXED_BYTES);
    }
    free(bytes);
    image_free(&image);
}

static void open_recoded(void)
{
    FUZZ_CHECK(image_decoder_open(&decoder, NULL) == STATUS_OK);
    FUZZ_CHECK(recode_encoder_open(&encoder, NULL) == STATUS_OK);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        seed_of(&kinds[i], 67 + 9 * (uint32_t)i, 60);
        seed_of(&kinds[i], 130, 75 + 4 * (uint32_t)i);
    }
}

static void close_recoded(void)
{
    image_decoder_close(&decoder);
    recode_encoder_close(&encoder);
    image_free(&alone);
    image_free(&original);
    image_planes_free(&planes[0]);
    image_planes_free(&planes[1]);
}

// --- repair ------------------------------------------------------------------------------------

// Makes the index of rows go up and end where the rows do.
static size_t repair_recoded(uint8_t *bytes, size_t len, uint64_t *random)
{
    struct recode_layout layout = {0};
    if (fuzz_below(random, 8) == 0 || !recode_is(bytes, len) ||
        recode_layout_read(&layout, bytes, len, NULL) == STATUS_OK || layout.rows_end == 0) {
        return len; // whole, or not to be understood
    }
    uint8_t *ends = bytes + (layout.ends - bytes);
    uint32_t last = 0, all = (uint32_t)(layout.rows_end - layout.rows);
    for (uint32_t row = 0; row < layout.frame.mcus_high; row++) {
        uint32_t end = recode_load32(ends + 4 * (size_t)row);
        end = end < last ? last : end > all ? all : end;
        last = row + 1 == layout.frame.mcus_high ? all : end;
        recode_store32(ends + 4 * (size_t)row, last);
    }
    return len;
}

// --- promises ----------------------------------------------------------------------------------

static bool same_pixels(const struct image_planes *a, const struct image *b)
{
    bool same = a->width == b->width && a->height == b->height;
    for (size_t i = 0; same && i < (size_t)b->width * b->height * 3; i++) {
        size_t x = i / 3 % b->width, y = i / 3 / b->width;
        same = a->plane[i % 3][y * a->stride + x] == b->pixels[i];
    }
    return same;
}

static struct image_window draw_window(uint64_t *random, uint32_t width, uint32_t height)
{
    struct image_window window = {.x = (uint32_t)fuzz_below(random, width),
                                  .y = (uint32_t)fuzz_below(random, height)};
    window.width = 1 + (uint32_t)fuzz_below(random, width - window.x);
    window.height = 1 + (uint32_t)fuzz_below(random, height - window.y);
    return window;
}

// Against the JPEG that comes back, where libjpeg takes it: its end may be missing, say.
static void check_restored(const uint8_t *bytes, size_t len, const struct image_window windows[2])
{
    bool exact;
    uint8_t *jpeg;
    size_t jpeg_len;
    struct error error = {0};
    enum status status = recode_restore(bytes, len, &exact, &jpeg, &jpeg_len, &error);
    FUZZ_CHECK((status == STATUS_OK) == (jpeg != NULL));
    if (status != STATUS_OK) {
        fuzz_check_error(status, &error);
        return;
    }
    for (int i = 0; i < 2; i++) {
        status = image_decode(decoder, jpeg, jpeg_len, &windows[i], &original, NULL);
        FUZZ_CHECK(status != STATUS_OK || same_pixels(&planes[i], &original));
    }
    free(jpeg);
}

static enum fuzz_outcome run_payload(const uint8_t *bytes, size_t len)
{
    uint64_t random = fuzz_random_of(bytes, len);
    struct image_info info;
    struct error error = {0};
    enum status status = image_probe(decoder, bytes, len, &info, &error);
    if (status != STATUS_OK) {
        fuzz_check_error(status, &error);
        FUZZ_CHECK(image_decode(decoder, bytes, len, NULL, &alone, NULL) == status);
        return FUZZ_REFUSED;
    }
    const struct image_window windows[2] = {draw_window(&random, info.width, info.height),
                                            draw_window(&random, info.width, info.height)};
    enum status together = image_decode_windows(decoder, bytes, len, windows, 2, planes, &error);
    if (together != STATUS_OK) {
        fuzz_check_error(together, &error);
    }
    for (int i = 0; i < 2; i++) {
        status = image_decode(decoder, bytes, len, &windows[i], &alone, NULL);
        FUZZ_CHECK(together != STATUS_OK ||
                   (status == STATUS_OK && same_pixels(&planes[i], &alone)));
    }
    status = image_decode(decoder, bytes, len, NULL, &alone, &error);
    if (status != STATUS_OK) {
        fuzz_check_error(status, &error);
        return FUZZ_ENTERED;
    }
    FUZZ_CHECK(together == STATUS_OK);
    check_restored(bytes, len, windows);
    return FUZZ_ACCEPTED;
}

// A JPEG that can be recoded is one that libjpeg decodes, to the same pixels.
static enum fuzz_outcome run_jpeg(const uint8_t *bytes, size_t len)
{
    size_t payload_len;
    const uint8_t *payload;
    enum recode_outcome outcome;
    struct error error = {0};
    FUZZ_CHECK(recode_encode(encoder, bytes, len, &outcome, &payload, &payload_len, &error) ==
               STATUS_OK);
    FUZZ_CHECK((payload != NULL) == (outcome == RECODE_EXACT || outcome == RECODE_PIXELS));
    FUZZ_CHECK(outcome != RECODE_DIFFERS && outcome < RECODE_OUTCOMES);
    if (payload == NULL) {
        return outcome == RECODE_UNUSUAL ? FUZZ_REFUSED : FUZZ_ENTERED;
    }
    if (image_decode(decoder, bytes, len, NULL, &original, &error) != STATUS_OK) {
        fuzz_fail(__FILE__, __LINE__, "libjpeg refuses what was recoded: %s", error.reason);
    }
    FUZZ_CHECK(image_decode(decoder, payload, payload_len, NULL, &alone, NULL) == STATUS_OK);
    FUZZ_CHECK(alone.width == original.width && alone.height == original.height);
    FUZZ_CHECK(memcmp(alone.pixels, original.pixels, (size_t)alone.width * alone.height * 3) == 0);
    bool exact;
    uint8_t *jpeg;
    size_t jpeg_len;
    FUZZ_CHECK(recode_restore(payload, payload_len, &exact, &jpeg, &jpeg_len, NULL) == STATUS_OK);
    FUZZ_CHECK(exact == (outcome == RECODE_EXACT));
    FUZZ_CHECK(!exact || (jpeg_len == len && memcmp(jpeg, bytes, len) == 0));
    free(jpeg);
    return FUZZ_ACCEPTED;
}

static enum fuzz_outcome run_recoded(const uint8_t *bytes, size_t len)
{
    return recode_is(bytes, len) ? run_payload(bytes, len) : run_jpeg(bytes, len);
}

static const struct fuzz_target target = {.name = "recoded",
                                          .open = open_recoded,
                                          .close = close_recoded,
                                          .repair = repair_recoded,
                                          .run = run_recoded};

FUZZ_MAIN(target)
