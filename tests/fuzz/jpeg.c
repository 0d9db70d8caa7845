// JPEG files: probing, decoding the whole and windows of it. image_decode (libjpeg-turbo) is the
// oracle of image_decode_windows, which may take roads of its own: the same pixels, or the same
// kind of failure.
#include "formats/image.h"
#include "tests/support/fuzz.h"
#include "tests/support/picture.h"

#include <stdlib.h>
#include <string.h>

#define MOST_WINDOWS 4

static struct image_decoder *decoder;
static struct image whole, alone;
static struct image_planes windows_out[MOST_WINDOWS];
static uint8_t *good;
static size_t good_len;

// --- seeds -------------------------------------------------------------------------------------

static const struct picture_jpeg kinds[] = {
    {PICTURE_YCBCR, .h = 2, .v = 2},
    {PICTURE_YCBCR, .h = 2, .v = 2, .restart = 2},
    {PICTURE_YCBCR, .h = 2, .v = 2, .quality = 100},
    {PICTURE_YCBCR, .h = 2, .v = 2, .quality = 30},
    {PICTURE_YCBCR, .h = 2, .v = 1},
    {PICTURE_YCBCR, .h = 2, .v = 1, .restart = 1},
    {PICTURE_YCBCR, .h = 1, .v = 2},
    {PICTURE_YCBCR, .h = 1, .v = 1},
    {PICTURE_YCBCR, .h = 4, .v = 1},
    {PICTURE_YCBCR, .h = 4, .v = 2},
    {PICTURE_RGB, .h = 1},
    {PICTURE_GREY, .h = 1},
    {PICTURE_GREY, .restart = 3},
    {PICTURE_YCBCR, .h = 2, .v = 2, .progressive = true},
    {PICTURE_YCBCR, .h = 2, .v = 1, .arithmetic = true},
    {PICTURE_GREY, .scans = 20},
    {PICTURE_CMYK, .h = 1},
    {PICTURE_YCCK, .h = 2, .v = 2},
};
#define KINDS (sizeof kinds / sizeof *kinds)

static void open_jpeg(void)
{
    static const uint32_t sizes[][2] = {{37, 29}, {16, 16}, {70, 41}, {9, 65}, {130, 51}};
    for (size_t i = 0; i < KINDS * 2; i++) {
        const struct picture_jpeg *kind = &kinds[i % KINDS];
        const uint32_t *size = sizes[i % 5];
        struct image image = {0};
        size_t len;
        picture_fill(&image, size[0], size[1], i + 1);
        uint8_t *bytes = picture_jpeg(&image, kind, &len);
        fuzz_seed(bytes, len, picture_jpeg_header(bytes, len));
        if (i == 0) {
            good = bytes;
            good_len = len;
        } else {
            free(bytes);
        }
        image_free(&image);
    }
    FUZZ_CHECK(image_decoder_open(&decoder, NULL) == STATUS_OK);
}

static void close_jpeg(void)
{
    image_decoder_close(&decoder);
    image_free(&whole);
    image_free(&alone);
    for (size_t i = 0; i < MOST_WINDOWS; i++) {
        image_planes_free(&windows_out[i]);
    }
    free(good);
}

// --- repair ------------------------------------------------------------------------------------

static bool is_frame(uint8_t marker)
{
    return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

// Huge sizes end at our limits or cost seconds without showing anything new.
static void shrink_frame(uint8_t *frame)
{
    if (frame[1] > 1 || frame[3] > 1) {
        frame[1] &= 1; // high bytes of height and width
        frame[3] &= 1;
    }
}

// Behind a scan's header; finds and shrinks frames on the way. `len` when there is no scan.
static size_t find_scan(uint8_t *bytes, size_t len)
{
    size_t at = 2;
    while (at + 9 < len && bytes[at] == 0xff) {
        size_t size = (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (is_frame(bytes[at + 1])) {
            shrink_frame(bytes + at + 4);
        }
        if (size + 2 > len - at) {
            return len;
        }
        at += 2 + size;
        if (bytes[at - size - 1] == 0xda) {
            return at;
        }
    }
    return len;
}

// Behind the start marker, a piece of `piece_len` bytes goes in at `at`.
static size_t insert(uint8_t *bytes, size_t len, size_t at, const uint8_t *piece, size_t piece_len)
{
    uint8_t copy[FUZZ_INPUT_BYTES / 4];
    if (piece_len > sizeof copy || piece_len > FUZZ_INPUT_BYTES - len) {
        return len;
    }
    memcpy(copy, piece, piece_len);
    memmove(bytes + at + piece_len, bytes + at, len - at);
    memcpy(bytes + at, copy, piece_len);
    return len + piece_len;
}

// What editors and cameras do to the order of things, and what they should not: segments doubled,
// moved and left out, fill bytes, comments, restart intervals from nowhere.
static size_t move_segments(uint8_t *bytes, size_t len, uint64_t *random)
{
    static const uint8_t comment[] = {0xff, 0xfe, 0, 5, 0xff, 0xda, 1}, fill[] = {0xff, 0xff};
    const uint8_t restart[] = {0xff, 0xdd, 0, 4, 0, (uint8_t)fuzz_below(random, 5)};
    size_t place[32], count = 0, at = 2;
    while (at + 4 < len && bytes[at] == 0xff && count < 32) {
        place[count++] = at;
        at += 2 + ((size_t)bytes[at + 2] << 8 | bytes[at + 3]);
    }
    if (count < 2 || at > len) {
        return len;
    }
    size_t to = place[fuzz_below(random, count)], which = fuzz_below(random, count - 1);
    size_t from = place[which], from_len = place[which + 1] - from;
    switch (fuzz_below(random, 6)) {
    case 0:
        return insert(bytes, len, to, comment, sizeof comment);
    case 1:
        return insert(bytes, len, to, fill, 1 + fuzz_below(random, 2));
    case 2:
        return insert(bytes, len, to, restart, sizeof restart);
    case 3:
        memmove(bytes + from, bytes + from + from_len, len - from - from_len);
        return len - from_len;
    default:
        return insert(bytes, len, to, bytes + from, from_len);
    }
}

// Keeps accidental markers out of the first scan's data, and an end marker at the end.
static size_t repair_jpeg(uint8_t *bytes, size_t len, uint64_t *random)
{
    while (fuzz_below(random, 4) == 0) {
        len = move_segments(bytes, len, random);
    }
    size_t scan = find_scan(bytes, len);
    size_t choice = fuzz_below(random, 4);
    for (size_t i = scan; choice > 0 && i + 1 < len; i++) {
        uint8_t next = bytes[i + 1];
        bool meant = next == 0 || (next >= 0xd0 && next <= 0xd9) || next == 0xc4 || next == 0xda;
        if (bytes[i] == 0xff && !meant) {
            bytes[i + 1] = 0;
        }
    }
    if (choice > 1 && len >= 4) {
        bytes[len - 2] = 0xff;
        bytes[len - 1] = 0xd9;
    }
    return len;
}

// --- promises ----------------------------------------------------------------------------------

static uint32_t draw(uint64_t *random, uint32_t below)
{
    return (uint32_t)fuzz_below(random, below);
}

static struct image_window draw_window(uint64_t *random, const struct image_info *info)
{
    struct image_window window;
    window.x = draw(random, info->width);
    window.y = draw(random, info->height);
    window.width = 1 + draw(random, info->width - window.x);
    window.height = 1 + draw(random, info->height - window.y);
    if (draw(random, 64) == 0) {
        window.width += info->width; // outside
    }
    return window;
}

static void check_planes(const struct image_planes *planes, const struct image *image)
{
    FUZZ_CHECK(planes->width == image->width && planes->height == image->height);
    for (size_t c = 0; c < 3; c++) {
        FUZZ_CHECK((uintptr_t)planes->plane[c] % IMAGE_PLANES_ALIGN == 0);
        for (size_t y = 0; y < image->height; y++) {
            const uint8_t *row = planes->plane[c] + y * planes->stride;
            const uint8_t *want = image->pixels + y * image->width * 3 + c;
            for (size_t x = 0; x < image->width; x++) {
                if (row[x] != want[3 * x]) {
                    fuzz_fail(__FILE__, __LINE__, "channel %zu at %zu,%zu is %u, not %u", c, x, y,
                              row[x], want[3 * x]);
                }
            }
        }
    }
}

static void check_good(void)
{
    FUZZ_CHECK(image_decode(decoder, good, good_len, NULL, &alone, NULL) == STATUS_OK);
}

// What decoding each window alone gives: the first failure, or OK.
static enum status decode_each(const uint8_t *bytes, size_t len, const struct image_window *windows,
                               uint32_t count, bool compare)
{
    for (uint32_t i = 0; i < count; i++) {
        struct error error = {0};
        enum status status = image_decode(decoder, bytes, len, &windows[i], &alone, &error);
        if (status != STATUS_OK) {
            fuzz_check_error(status, &error);
            return status;
        }
        FUZZ_CHECK(alone.width == windows[i].width && alone.height == windows[i].height);
        if (compare) {
            check_planes(&windows_out[i], &alone);
        }
    }
    return STATUS_OK;
}

static enum status check_windows(const uint8_t *bytes, size_t len, const struct image_info *info,
                                 uint64_t *random)
{
    struct image_window windows[MOST_WINDOWS];
    uint32_t count = 1 + draw(random, MOST_WINDOWS);
    for (uint32_t i = 0; i < count; i++) {
        windows[i] = draw_window(random, info);
    }
    struct error error = {0};
    enum status together =
        image_decode_windows(decoder, bytes, len, windows, count, windows_out, &error);
    if (together != STATUS_OK) {
        fuzz_check_error(together, &error);
    }
    if (draw(random, 4) == 0) {
        check_good(); // what another image leaves behind must not matter
    }
    enum status each = decode_each(bytes, len, windows, count, together == STATUS_OK);
    if (together != each) {
        fuzz_fail(__FILE__, __LINE__, "%u windows give %s (%s), each alone %s", count,
                  status_name(together), error.reason, status_name(each));
    }
    return together;
}

static enum fuzz_outcome run_jpeg(const uint8_t *bytes, size_t len)
{
    uint64_t random = fuzz_random_of(bytes, len);
    struct image_info info;
    struct error error = {0};
    enum status probed = image_probe(decoder, bytes, len, &info, &error);
    if (probed != STATUS_OK) {
        fuzz_check_error(probed, &error);
        FUZZ_CHECK(image_decode(decoder, bytes, len, NULL, &whole, NULL) == probed);
        const struct image_window pixel = {.width = 1, .height = 1};
        FUZZ_CHECK(image_decode_windows(decoder, bytes, len, &pixel, 1, windows_out, NULL) ==
                   probed);
        return FUZZ_REFUSED;
    }
    enum status decoded = image_decode(decoder, bytes, len, NULL, &whole, &error);
    if (decoded != STATUS_OK) {
        fuzz_check_error(decoded, &error);
    } else {
        FUZZ_CHECK(whole.width == info.width && whole.height == info.height);
    }
    enum status windows = check_windows(bytes, len, &info, &random);
    FUZZ_CHECK(decoded != STATUS_OK || windows == STATUS_OK || windows == STATUS_INVALID);
    return decoded == STATUS_OK ? FUZZ_ACCEPTED : FUZZ_ENTERED;
}

static const struct fuzz_target target = {
    .name = "jpeg", .open = open_jpeg, .close = close_jpeg, .repair = repair_jpeg, .run = run_jpeg};

FUZZ_MAIN(target)
