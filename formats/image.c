// What JPEG and PNG have in common: pixel buffers, limits, and the choice of the codec by the first
// bytes (file names lie: ImageNet has a PNG called JPEG).
#include "formats/image.h"
#include "formats/image_codec.h"
#include "formats/jpeg/recode_source.h"
#include "formats/jpeg/road.h"
#include "formats/limits.h"

#include <stdlib.h>
#include <string.h>

struct image_decoder {
    struct image_jpeg *jpeg;
    struct jpeg_road *road;
    struct image part;          // between a codec that gives interleaved pixels and planes
    struct image_planes planes; // the other way
};

void image_free(struct image *image)
{
    free(image->pixels);
    *image = (struct image){0};
}

enum status image_check_size(uint32_t width, uint32_t height, struct error *error)
{
    if (width == 0 || height == 0) {
        return error_set(error, STATUS_CORRUPT, NULL, NOWHERE, NOWHERE,
                         "the image header names no size");
    }
    if (width > LIMIT_IMAGE_SIDE || height > LIMIT_IMAGE_SIDE ||
        (uint64_t)width * height > LIMIT_IMAGE_PIXELS) {
        return error_set(error, STATUS_LIMIT, NULL, NOWHERE, NOWHERE,
                         "an image of %u x %u pixels is above the limit of %llu pixels, %u a side",
                         width, height, (unsigned long long)LIMIT_IMAGE_PIXELS, LIMIT_IMAGE_SIDE);
    }
    return STATUS_OK;
}

enum status image_check_asked(uint32_t width, uint32_t height, struct error *error)
{
    if (width == 0 || height == 0) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "an image of %u x %u pixels cannot be made", width, height);
    }
    return image_check_size(width, height, error);
}

enum status image_check_window(struct image_window *resolved, const struct image_window *window,
                               uint32_t width, uint32_t height, struct error *error)
{
    *resolved = window ? *window : (struct image_window){.width = width, .height = height};
    const struct image_window *w = resolved;
    if (w->width == 0 || w->height == 0 || w->width > width || w->height > height ||
        w->x > width - w->width || w->y > height - w->height) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "window %u x %u at (%u, %u) is not inside an image of %u x %u", w->width,
                         w->height, w->x, w->y, width, height);
    }
    return STATUS_OK;
}

static enum status grow(struct image *image, size_t bytes, struct error *error)
{
    if (bytes > image->capacity) {
        uint8_t *pixels = malloc(bytes);
        if (pixels == NULL) {
            return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                             "no memory for an image of %zu bytes", bytes);
        }
        free(image->pixels);
        image->pixels = pixels;
        image->capacity = bytes;
    }
    return STATUS_OK;
}

enum status image_reserve(struct image *image, uint32_t width, uint32_t height, struct error *error)
{
    enum status status = image_check_asked(width, height, error);
    if (status == STATUS_OK) {
        status = grow(image, (size_t)width * height * 3, error);
    }
    if (status == STATUS_OK) {
        image->width = width;
        image->height = height;
    }
    return status;
}

void image_planes_free(struct image_planes *planes)
{
    free(planes->memory);
    *planes = (struct image_planes){0};
}

static size_t planes_stride(uint32_t width)
{
    size_t align = IMAGE_PLANES_ALIGN;
    return (width + align - 1) / align * align;
}

size_t image_planes_bytes(uint32_t width, uint32_t height)
{
    // Room to align the start, and to read beyond the last row too.
    return planes_stride(width) * height * 3 + 2 * (size_t)IMAGE_PLANES_ALIGN;
}

enum status image_planes_reserve(struct image_planes *planes, uint32_t width, uint32_t height,
                                 struct error *error)
{
    enum status status = image_check_asked(width, height, error);
    if (status != STATUS_OK) {
        return status;
    }
    size_t align = IMAGE_PLANES_ALIGN, stride = planes_stride(width);
    size_t bytes = image_planes_bytes(width, height);
    if (bytes > planes->capacity) {
        uint8_t *memory = calloc(bytes, 1); // what lies between rows is read, if not used
        if (memory == NULL) {
            return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                             "no memory for an image of %u x %u pixels", width, height);
        }
        free(planes->memory);
        planes->memory = memory;
        planes->capacity = bytes;
    }
    planes->width = width;
    planes->height = height;
    planes->stride = stride;
    uint8_t *first = planes->memory + (align - (uintptr_t)planes->memory % align) % align;
    for (size_t channel = 0; channel < 3; channel++) {
        planes->plane[channel] = first + channel * stride * height;
    }
    return STATUS_OK;
}

// The pixels of `window`, whose x and y count from the image's first pixel.
static enum status split_window(const struct image *image, const struct image_window *window,
                                struct image_planes *out, struct error *error)
{
    enum status status = image_planes_reserve(out, window->width, window->height, error);
    for (size_t y = 0; status == STATUS_OK && y < window->height; y++) {
        const uint8_t *row = image->pixels + ((window->y + y) * image->width + window->x) * 3;
        for (size_t channel = 0; channel < 3; channel++) {
            uint8_t *to = out->plane[channel] + y * out->stride;
            for (size_t x = 0; x < window->width; x++) {
                to[x] = row[x * 3 + channel];
            }
        }
    }
    return status;
}

enum status image_split(const struct image *image, struct image_planes *out, struct error *error)
{
    const struct image_window whole = {.width = image->width, .height = image->height};
    return split_window(image, &whole, out, error);
}

enum status image_decoder_open(struct image_decoder **out, struct error *error)
{
    *out = NULL;
    struct image_decoder *decoder = calloc(1, sizeof *decoder);
    if (decoder == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for an image decoder");
    }
    enum status status = image_jpeg_open(&decoder->jpeg, error);
    if (status == STATUS_OK) {
        status = jpeg_road_open(&decoder->road, error);
    }
    if (status != STATUS_OK) {
        image_decoder_close(&decoder);
        return status;
    }
    *out = decoder;
    return STATUS_OK;
}

void image_decoder_close(struct image_decoder **decoder)
{
    if (*decoder != NULL) {
        image_jpeg_close(&(*decoder)->jpeg);
        jpeg_road_close(&(*decoder)->road);
        image_free(&(*decoder)->part);
        image_planes_free(&(*decoder)->planes);
        free(*decoder);
        *decoder = NULL;
    }
}

enum status image_decoder_reserve(struct image_decoder *decoder, uint32_t width, uint64_t pixels,
                                  struct error *error)
{
    enum status status = grow(&decoder->part, (size_t)pixels * 3, error);
    return status ? status : jpeg_road_reserve(decoder->road, width, error);
}

size_t image_decoder_memory(const struct image_decoder *decoder)
{
    return sizeof *decoder + decoder->part.capacity + decoder->planes.capacity +
           image_jpeg_memory(decoder->jpeg) + jpeg_road_memory(decoder->road);
}

static enum status find_kind(const void *bytes, size_t len, enum image_kind *kind,
                             struct error *error)
{
    if (len > LIMIT_IMAGE_BYTES) {
        return error_set(error, STATUS_LIMIT, NULL, NOWHERE, NOWHERE,
                         "an image file of %zu bytes is above the limit of %llu", len,
                         (unsigned long long)LIMIT_IMAGE_BYTES);
    }
    if (len >= 3 && memcmp(bytes, "\xff\xd8\xff", 3) == 0) {
        *kind = IMAGE_JPEG;
    } else if (len >= 8 && memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) == 0) {
        *kind = IMAGE_PNG;
    } else if (recode_is(bytes, len)) {
        *kind = IMAGE_RECODED;
    } else {
        return error_set(error, STATUS_UNSUPPORTED, NULL, 0, NOWHERE, "neither a JPEG nor a PNG");
    }
    return STATUS_OK;
}

static enum status probe_recoded(const uint8_t *bytes, size_t len, struct image_info *info,
                                 struct error *error)
{
    struct recode_layout layout;
    enum status status = recode_layout_read(&layout, bytes, len, error);
    if (status == STATUS_OK) {
        *info = (struct image_info){.kind = IMAGE_RECODED,
                                    .width = layout.frame.width,
                                    .height = layout.frame.height,
                                    .components = layout.frame.components};
    }
    return status;
}

enum status image_probe(struct image_decoder *decoder, const void *bytes, size_t len,
                        struct image_info *info, struct error *error)
{
    *info = (struct image_info){0};
    enum image_kind kind = IMAGE_UNKNOWN;
    enum status status = find_kind(bytes, len, &kind, error);
    if (status != STATUS_OK) {
        return status;
    }
    switch (kind) {
    case IMAGE_JPEG:
        return image_jpeg_probe(decoder->jpeg, bytes, len, info, error);
    case IMAGE_RECODED:
        return probe_recoded(bytes, len, info, error);
    default:
        return image_png_probe(bytes, len, info, error);
    }
}

static enum status join_planes(const struct image_planes *planes, struct image *out,
                               struct error *error)
{
    enum status status = image_reserve(out, planes->width, planes->height, error);
    for (size_t y = 0; status == STATUS_OK && y < planes->height; y++) {
        uint8_t *row = out->pixels + y * planes->width * 3;
        for (size_t channel = 0; channel < 3; channel++) {
            const uint8_t *from = planes->plane[channel] + y * planes->stride;
            for (size_t x = 0; x < planes->width; x++) {
                row[x * 3 + channel] = from[x];
            }
        }
    }
    return status;
}

static enum status decode_recoded(struct image_decoder *decoder, const uint8_t *bytes, size_t len,
                                  const struct image_window *window, struct image *out,
                                  struct error *error)
{
    struct image_info info;
    struct image_window resolved;
    enum status status = probe_recoded(bytes, len, &info, error);
    if (status == STATUS_OK) {
        status = image_check_window(&resolved, window, info.width, info.height, error);
    }
    if (status == STATUS_OK) {
        status = jpeg_road_decode_recoded(decoder->road, bytes, len, &resolved, 1, &decoder->planes,
                                          error);
    }
    return status ? status : join_planes(&decoder->planes, out, error);
}

enum status image_decode(struct image_decoder *decoder, const void *bytes, size_t len,
                         const struct image_window *window, struct image *out, struct error *error)
{
    enum image_kind kind = IMAGE_UNKNOWN;
    enum status status = find_kind(bytes, len, &kind, error);
    if (status != STATUS_OK) {
        return status;
    }
    switch (kind) {
    case IMAGE_JPEG:
        return image_jpeg_decode(decoder->jpeg, bytes, len, window, out, error);
    case IMAGE_RECODED:
        return decode_recoded(decoder, bytes, len, window, out, error);
    default:
        return image_png_decode(bytes, len, window, out, error);
    }
}

// The smallest window around all. False when one of them can be in no image.
static bool find_bounds(const struct image_window *windows, uint32_t count,
                        struct image_window *bounds)
{
    uint32_t left = UINT32_MAX, top = UINT32_MAX, right = 0, bottom = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct image_window *w = &windows[i];
        if (w->width == 0 || w->height == 0 || w->width > UINT32_MAX - w->x ||
            w->height > UINT32_MAX - w->y) {
            return false;
        }
        left = w->x < left ? w->x : left;
        top = w->y < top ? w->y : top;
        right = w->x + w->width > right ? w->x + w->width : right;
        bottom = w->y + w->height > bottom ? w->y + w->height : bottom;
    }
    *bounds =
        (struct image_window){.x = left, .y = top, .width = right - left, .height = bottom - top};
    return true;
}

// A window of a PNG is what the image shows there, so what is around all windows is read once.
static bool decode_png_once(struct image_decoder *decoder, const void *bytes, size_t len,
                            const struct image_window *windows, uint32_t count,
                            struct image_planes *out)
{
    struct image_window bounds;
    bool good = find_bounds(windows, count, &bounds) &&
                image_png_decode(bytes, len, &bounds, &decoder->part, NULL) == STATUS_OK;
    for (uint32_t i = 0; good && i < count; i++) {
        struct image_window window = windows[i];
        window.x -= bounds.x;
        window.y -= bounds.y;
        good = split_window(&decoder->part, &window, &out[i], NULL) == STATUS_OK;
    }
    return good;
}

// What happens once for all windows may fail where windows alone do not, and it does not say why:
// then each window is decoded as image_decode does, which decides.
enum status image_decode_windows(struct image_decoder *decoder, const void *bytes, size_t len,
                                 const struct image_window *windows, uint32_t count,
                                 struct image_planes *out, struct error *error)
{
    enum image_kind kind = IMAGE_UNKNOWN;
    enum status status = find_kind(bytes, len, &kind, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (kind == IMAGE_RECODED) {
        return jpeg_road_decode_recoded(decoder->road, bytes, len, windows, count, out, error);
    }
    if (kind == IMAGE_JPEG ? jpeg_road_decode(decoder->road, bytes, len, windows, count, out)
                           : decode_png_once(decoder, bytes, len, windows, count, out)) {
        return STATUS_OK;
    }
    for (uint32_t i = 0; status == STATUS_OK && i < count; i++) {
        status = image_decode(decoder, bytes, len, &windows[i], &decoder->part, error);
        if (status == STATUS_OK) {
            status = image_split(&decoder->part, &out[i], error);
        }
    }
    return status;
}
