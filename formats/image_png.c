// PNG through libpng: every colour type and depth becomes 8-bit RGB.
//
// Only the chunks that decide pixels are read (the others are skipped by their lengths), every
// checksum counts, and a warning is an error: what libpng would repair by guessing is not trained
// on. libpng reports errors by a callback that must not return; each entry has one setjmp.
#include "formats/image_codec.h"
#include "formats/limits.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

#define CHUNK_MEMORY_LIMIT (8u << 20) // palettes and the like; the image's rows are not counted
#define HEADER_END         24         // signature, chunk head, width and height

struct codec {
    png_structp png;
    png_infop info;
    jmp_buf failed;
    bool out_of_memory; // an allocation failed, so the error that follows is not damage
    struct error *error;
    enum status status;

    const uint8_t *bytes; // read: the file
    size_t len, used;

    struct image rows; // read: one row, or the whole image when it is interlaced

    uint8_t *written; // write: the file so far
    size_t written_len, written_capacity;
};

static _Noreturn void fail(struct codec *codec, enum status status, const char *reason)
{
    codec->status = error_set(codec->error, status, NULL, codec->bytes ? codec->used : NOWHERE,
                              NOWHERE, "PNG: %s", reason);
    longjmp(codec->failed, 1);
}

static void on_error(png_structp png, png_const_charp message)
{
    struct codec *codec = png_get_error_ptr(png);
    fail(codec, codec->out_of_memory ? STATUS_NO_MEMORY : STATUS_CORRUPT, message);
}

// When memory ran out libpng warns first; leaving then, out of the middle of zlib, would leak.
static void on_warning(png_structp png, png_const_charp message)
{
    struct codec *codec = png_get_error_ptr(png);
    if (!codec->out_of_memory) {
        fail(codec, STATUS_CORRUPT, message);
    }
}

static png_voidp allocate(png_structp png, png_alloc_size_t size)
{
    void *memory = malloc(size);
    if (memory == NULL) {
        struct codec *codec = png_get_mem_ptr(png);
        codec->out_of_memory = true;
    }
    return memory;
}

static void release(png_structp png, png_voidp memory)
{
    (void)png;
    free(memory);
}

static void on_read(png_structp png, png_bytep to, size_t len)
{
    struct codec *codec = png_get_io_ptr(png);
    if (len > codec->len - codec->used) {
        codec->used = codec->len;
        fail(codec, STATUS_TRUNCATED, "the data ends before the image does");
    }
    memcpy(to, codec->bytes + codec->used, len);
    codec->used += len;
}

static uint32_t read_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void check(struct codec *codec, enum status status)
{
    if (status != STATUS_OK) {
        codec->status = status;
        longjmp(codec->failed, 1);
    }
}

// --- reading (may leave by longjmp) --------------------------------------------------------------

static void read_header(struct codec *codec, struct image_info *info)
{
    // libpng has its own limits, but reports crossing them as damage.
    if (codec->len >= HEADER_END) {
        check(codec, image_check_size(read_u32(codec->bytes + 16), read_u32(codec->bytes + 20),
                                      codec->error));
    }
    codec->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, codec, on_error, on_warning, codec,
                                          allocate, release);
    if (codec->png == NULL || (codec->info = png_create_info_struct(codec->png)) == NULL) {
        fail(codec, STATUS_NO_MEMORY, "no memory for a decoder");
    }
    png_set_read_fn(codec->png, codec, on_read);
    png_set_crc_action(codec->png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_keep_unknown_chunks(codec->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_set_chunk_malloc_max(codec->png, CHUNK_MEMORY_LIMIT);
    png_set_user_limits(codec->png, LIMIT_IMAGE_SIDE, LIMIT_IMAGE_SIDE);
    png_read_info(codec->png, codec->info);
    unsigned color = png_get_color_type(codec->png, codec->info);
    bool alpha = color & PNG_COLOR_MASK_ALPHA;
    *info = (struct image_info){
        .kind = IMAGE_PNG,
        .width = png_get_image_width(codec->png, codec->info),
        .height = png_get_image_height(codec->png, codec->info),
        .components = alpha                          ? 4
                      : color == PNG_COLOR_TYPE_GRAY ? 1
                                                     : 3,
    };
}

static void ask_for_rgb(struct codec *codec)
{
    unsigned color = png_get_color_type(codec->png, codec->info);
    if (color == PNG_COLOR_TYPE_PALETTE) {
        png_set_palette_to_rgb(codec->png);
    } else if (!(color & PNG_COLOR_MASK_COLOR)) {
        png_set_expand_gray_1_2_4_to_8(codec->png);
        png_set_gray_to_rgb(codec->png);
    }
    png_set_strip_16(codec->png);
    png_set_strip_alpha(codec->png);
}

static void copy_row(struct image *out, const struct image_window *window, uint32_t y,
                     const uint8_t *row)
{
    size_t stride = (size_t)window->width * 3;
    memcpy(out->pixels + (y - window->y) * stride, row + (size_t)window->x * 3, stride);
}

// An interlaced image is complete only after its last pass, so all of it is kept.
static void read_interlaced(struct codec *codec, const struct image_info *info,
                            const struct image_window *window, struct image *out, int passes)
{
    check(codec, image_reserve(&codec->rows, info->width, info->height, codec->error));
    size_t stride = (size_t)info->width * 3;
    for (int pass = 0; pass < passes; pass++) {
        for (uint32_t y = 0; y < info->height; y++) {
            png_read_row(codec->png, codec->rows.pixels + y * stride, NULL);
        }
    }
    for (uint32_t y = window->y; y < window->y + window->height; y++) {
        copy_row(out, window, y, codec->rows.pixels + y * stride);
    }
    png_read_end(codec->png, NULL);
}

static void read_sequential(struct codec *codec, const struct image_info *info,
                            const struct image_window *window, struct image *out)
{
    check(codec, image_reserve(&codec->rows, info->width, 1, codec->error));
    for (uint32_t y = 0; y < window->y + window->height; y++) {
        png_read_row(codec->png, codec->rows.pixels, NULL);
        if (y >= window->y) {
            copy_row(out, window, y, codec->rows.pixels);
        }
    }
    if (window->y + window->height == info->height) {
        png_read_end(codec->png, NULL);
    }
}

static void read_image(struct codec *codec, const struct image_info *info,
                       const struct image_window *wanted, struct image *out)
{
    struct image_window window;
    check(codec, image_check_window(&window, wanted, info->width, info->height, codec->error));
    ask_for_rgb(codec);
    int passes = png_set_interlace_handling(codec->png);
    png_read_update_info(codec->png, codec->info);
    if (png_get_rowbytes(codec->png, codec->info) != (size_t)info->width * 3) {
        fail(codec, STATUS_UNSUPPORTED, "its pixels cannot be turned into RGB");
    }
    check(codec, image_reserve(out, window.width, window.height, codec->error));
    if (passes > 1) {
        read_interlaced(codec, info, &window, out, passes);
    } else {
        read_sequential(codec, info, &window, out);
    }
}

// Header only when `out` is NULL.
static enum status read_guarded(struct codec *codec, struct image_info *info,
                                const struct image_window *window, struct image *out)
{
    if (setjmp(codec->failed)) {
        return codec->status;
    }
    read_header(codec, info);
    if (out != NULL) {
        read_image(codec, info, window, out);
    }
    return STATUS_OK;
}

static enum status read_file(const uint8_t *bytes, size_t len, struct image_info *info,
                             const struct image_window *window, struct image *out,
                             struct error *error)
{
    struct codec codec = {.bytes = bytes, .len = len, .error = error};
    enum status status = read_guarded(&codec, info, window, out);
    png_destroy_read_struct(&codec.png, &codec.info, NULL);
    image_free(&codec.rows);
    return status;
}

enum status image_png_probe(const uint8_t *bytes, size_t len, struct image_info *info,
                            struct error *error)
{
    return read_file(bytes, len, info, NULL, NULL, error);
}

enum status image_png_decode(const uint8_t *bytes, size_t len, const struct image_window *window,
                             struct image *out, struct error *error)
{
    struct image_info info = {0};
    return read_file(bytes, len, &info, window, out, error);
}

// --- writing -------------------------------------------------------------------------------------

static void on_write(png_structp png, png_bytep from, size_t len)
{
    struct codec *codec = png_get_io_ptr(png);
    if (len > codec->written_capacity - codec->written_len) {
        size_t capacity = (codec->written_capacity + len) * 2;
        uint8_t *written = realloc(codec->written, capacity);
        if (written == NULL) {
            fail(codec, STATUS_NO_MEMORY, "no memory for the file");
        }
        codec->written = written;
        codec->written_capacity = capacity;
    }
    memcpy(codec->written + codec->written_len, from, len);
    codec->written_len += len;
}

static void on_flush(png_structp png)
{
    (void)png;
}

static enum status write_guarded(struct codec *codec, const struct image *image)
{
    if (setjmp(codec->failed)) {
        return codec->status;
    }
    codec->png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, codec, on_error, on_warning,
                                           codec, allocate, release);
    if (codec->png == NULL || (codec->info = png_create_info_struct(codec->png)) == NULL) {
        fail(codec, STATUS_NO_MEMORY, "no memory for an encoder");
    }
    png_set_write_fn(codec->png, codec, on_write, on_flush);
    png_set_IHDR(codec->png, codec->info, image->width, image->height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(codec->png, codec->info);
    for (uint32_t y = 0; y < image->height; y++) {
        png_write_row(codec->png, image->pixels + (size_t)y * image->width * 3);
    }
    png_write_end(codec->png, NULL);
    return STATUS_OK;
}

enum status image_encode_png(const struct image *image, uint8_t **bytes, size_t *len,
                             struct error *error)
{
    *bytes = NULL;
    *len = 0;
    enum status status = image_check_asked(image->width, image->height, error);
    if (status != STATUS_OK) {
        return status;
    }
    struct codec codec = {.error = error};
    status = write_guarded(&codec, image);
    png_destroy_write_struct(&codec.png, &codec.info);
    if (status != STATUS_OK) {
        free(codec.written);
        return status;
    }
    *bytes = codec.written;
    *len = codec.written_len;
    return STATUS_OK;
}
