// PNG files, their chunks' checksums repaired. A window is what cutting it from the whole gives.
#include "formats/image.h"
#include "tests/support/fuzz.h"
#include "tests/support/mutate.h"

#include <stdlib.h>
#include <string.h>

#include <png.h>

#define HEADER_BYTES 33 // signature and IHDR
#define MOST_SIDE    200
#define WIDTH        23
#define HEIGHT       17

static struct image_decoder *decoder;
static struct image whole, part;
static struct image_planes planes[2];

struct growing {
    uint8_t bytes[FUZZ_INPUT_BYTES];
    size_t len;
};

static const struct kind {
    int color, depth, interlace, level;
} kinds[] = {
    {PNG_COLOR_TYPE_RGB, 8, PNG_INTERLACE_NONE, 0},
    {PNG_COLOR_TYPE_RGB, 8, PNG_INTERLACE_ADAM7, 6},
    {PNG_COLOR_TYPE_GRAY, 1, PNG_INTERLACE_ADAM7, 0},
    {PNG_COLOR_TYPE_GRAY, 4, PNG_INTERLACE_NONE, 0},
    {PNG_COLOR_TYPE_PALETTE, 2, PNG_INTERLACE_ADAM7, 6},
    {PNG_COLOR_TYPE_PALETTE, 8, PNG_INTERLACE_NONE, 0},
    {PNG_COLOR_TYPE_GRAY_ALPHA, 8, PNG_INTERLACE_NONE, 6},
    {PNG_COLOR_TYPE_RGB_ALPHA, 16, PNG_INTERLACE_NONE, 0},
};

// --- seeds -------------------------------------------------------------------------------------

static void append(png_structp png, png_bytep bytes, size_t len)
{
    struct growing *file = png_get_io_ptr(png);
    FUZZ_CHECK(len <= sizeof file->bytes - file->len);
    memcpy(file->bytes + file->len, bytes, len);
    file->len += len;
}

static void set_palette(png_structp png, png_infop info, int colors)
{
    png_color palette[256];
    png_byte alpha[256];
    for (int i = 0; i < colors; i++) {
        palette[i] = (png_color){(png_byte)(i * 7), (png_byte)(i * 31), (png_byte)(255 - i)};
        alpha[i] = (png_byte)i;
    }
    png_set_PLTE(png, info, palette, colors);
    png_set_tRNS(png, info, alpha, colors / 2, NULL);
}

static void write_rows(png_structp png, png_infop info)
{
    size_t stride = png_get_rowbytes(png, info);
    uint8_t *pixels = malloc(stride * HEIGHT);
    png_bytep rows[HEIGHT];
    uint64_t random = stride;
    FUZZ_CHECK(pixels != NULL);
    for (size_t i = 0; i < stride * HEIGHT; i++) {
        pixels[i] = (uint8_t)(i / stride * 9 + (mutate_next(&random) & 15));
    }
    for (size_t y = 0; y < HEIGHT; y++) {
        rows[y] = pixels + y * stride;
    }
    png_write_image(png, rows);
    free(pixels);
}

static void seed_of(const struct kind *kind)
{
    static struct growing file;
    file.len = 0;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_set_write_fn(png, &file, append, NULL);
    png_set_compression_level(png, kind->level);
    png_set_IHDR(png, info, WIDTH, HEIGHT, kind->depth, kind->color, kind->interlace,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (kind->color == PNG_COLOR_TYPE_PALETTE) {
        set_palette(png, info, 1 << kind->depth);
    }
    png_write_info(png, info);
    write_rows(png, info);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    fuzz_seed(file.bytes, file.len, HEADER_BYTES);
}

static void open_png(void)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        seed_of(&kinds[i]);
    }
    FUZZ_CHECK(image_decoder_open(&decoder, NULL) == STATUS_OK);
}

static void close_png(void)
{
    image_decoder_close(&decoder);
    image_free(&whole);
    image_free(&part);
    image_planes_free(&planes[0]);
    image_planes_free(&planes[1]);
}

// --- repair ------------------------------------------------------------------------------------

static uint32_t load_big(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void store_big(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> (24 - 8 * i));
    }
}

static uint32_t png_crc(const uint8_t *bytes, size_t len)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < len; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xedb88320) : 0);
        }
    }
    return ~crc;
}

static size_t repair_png(uint8_t *bytes, size_t len, uint64_t *random)
{
    (void)random;
    for (size_t side = 16; side <= 20 && len >= HEADER_BYTES; side += 4) {
        if (load_big(bytes + side) > MOST_SIDE) { // larger ones cost time and show nothing new
            store_big(bytes + side, load_big(bytes + side) % MOST_SIDE);
        }
    }
    for (size_t at = 8; len - at >= 12 && at < len;) {
        uint32_t size = load_big(bytes + at);
        if (size > len - at - 12) {
            break;
        }
        store_big(bytes + at + 8 + size, png_crc(bytes + at + 4, 4 + (size_t)size));
        at += 12 + (size_t)size;
    }
    return len;
}

// --- promises ----------------------------------------------------------------------------------

// The pixel of the whole that the window's first one is.
static const uint8_t *corner(const struct image_window *window)
{
    return whole.pixels + ((size_t)window->y * whole.width + window->x) * 3;
}

static void check_part(const struct image_window *window)
{
    FUZZ_CHECK(part.width == window->width && part.height == window->height);
    for (size_t y = 0; y < window->height; y++) {
        size_t stride = (size_t)window->width * 3;
        const uint8_t *want = corner(window) + y * whole.width * 3;
        FUZZ_CHECK(memcmp(part.pixels + y * stride, want, stride) == 0);
    }
}

static void check_planes(const struct image_planes *out, const struct image_window *window)
{
    FUZZ_CHECK(out->width == window->width && out->height == window->height);
    for (size_t i = 0; i < (size_t)window->width * window->height * 3; i++) {
        size_t x = i / 3 % window->width, y = i / 3 / window->width;
        uint8_t want = corner(window)[(y * whole.width + x) * 3 + i % 3];
        FUZZ_CHECK(out->plane[i % 3][y * out->stride + x] == want);
    }
}

static struct image_window draw_window(uint64_t *random, const struct image_info *info)
{
    struct image_window window = {.x = (uint32_t)fuzz_below(random, info->width),
                                  .y = (uint32_t)fuzz_below(random, info->height)};
    window.width = 1 + (uint32_t)fuzz_below(random, info->width - window.x);
    window.height = 1 + (uint32_t)fuzz_below(random, info->height - window.y);
    return window;
}

// Two windows together, against each alone.
static enum status check_windows(const uint8_t *bytes, size_t len,
                                 const struct image_window windows[2])
{
    struct error error = {0};
    enum status together = image_decode_windows(decoder, bytes, len, windows, 2, planes, &error);
    enum status alone = image_decode(decoder, bytes, len, &windows[1], &part, NULL);
    enum status first = image_decode(decoder, bytes, len, &windows[0], &part, NULL);
    if (together != STATUS_OK) {
        fuzz_check_error(together, &error);
    }
    FUZZ_CHECK(together == (first != STATUS_OK ? first : alone));
    return together;
}

static enum fuzz_outcome run_png(const uint8_t *bytes, size_t len)
{
    uint64_t random = fuzz_random_of(bytes, len);
    struct image_info info;
    struct error error = {0};
    enum status status = image_probe(decoder, bytes, len, &info, &error);
    if (status != STATUS_OK) {
        fuzz_check_error(status, &error);
        FUZZ_CHECK(image_decode(decoder, bytes, len, NULL, &whole, NULL) != STATUS_OK);
        return FUZZ_REFUSED;
    }
    const struct image_window windows[2] = {draw_window(&random, &info),
                                            draw_window(&random, &info)};
    enum status cut = check_windows(bytes, len, windows);
    status = image_decode(decoder, bytes, len, NULL, &whole, &error);
    if (status != STATUS_OK) {
        fuzz_check_error(status, &error);
        return FUZZ_ENTERED;
    }
    FUZZ_CHECK(cut == STATUS_OK && whole.width == info.width && whole.height == info.height);
    check_part(&windows[0]);
    check_planes(&planes[0], &windows[0]);
    check_planes(&planes[1], &windows[1]);
    return FUZZ_ACCEPTED;
}

static const struct fuzz_target target = {
    .name = "png", .open = open_png, .close = close_png, .repair = repair_png, .run = run_png};

FUZZ_MAIN(target)
