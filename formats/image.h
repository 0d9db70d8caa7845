// Image files to pixels and back: JPEG (libjpeg-turbo, and an own decoder for plain files) and PNG
// (libpng). Whole images, or windows with exactly the pixels that the BYOL reference's decoder
// gives for each.
//
// Pixels are always 8-bit RGB, rows tightly packed (stride = 3 * width). Grey becomes R = G = B;
// Adobe CMYK and YCCK become c * k / 255 per channel, truncated; PNG alpha is dropped, 16-bit PNG
// keeps its high byte, palettes are expanded. EXIF orientation is ignored, as the reference ignores
// it.
//
// Window rule (tests/golden, group decode_crop_resize): fast integer DCT, fancy chroma upsampling
// as it falls at the window's edges. Decoding the whole image and cutting afterwards gives other
// pixels where chroma is subsampled.
#ifndef FORMATS_IMAGE_H
#define FORMATS_IMAGE_H

#include "formats/status.h"

#include <stdbool.h>

// IMAGE_RECODED: a JPEG in the faster coding of formats/jpeg/recode.h, with the JPEG's pixels.
enum image_kind { IMAGE_UNKNOWN, IMAGE_JPEG, IMAGE_PNG, IMAGE_RECODED };

struct image_info {
    enum image_kind kind;
    uint32_t width, height; // pixels
    uint32_t components;    // 1 grey, 3 colour, 4 CMYK or alpha
    bool progressive;       // JPEG only
};

// A rectangle in pixels; must lie inside the image and be at least 1 x 1.
struct image_window {
    uint32_t x, y, width, height;
};

// Pixels owned by the caller's struct; start from {0}, reuse freely (the buffer only grows), end
// with image_free.
struct image {
    uint8_t *pixels; // height * width * 3
    uint32_t width, height;
    size_t capacity; // bytes allocated
};

void image_free(struct image *image);

// The same pixels with each channel by itself, as the renderer wants them. Each row starts at a
// multiple of 64 bytes and may be read (not relied upon) up to 64 bytes beyond its last pixel. The
// planes of a grey image may be one and the same. Owned by the caller's struct; start from {0},
// reuse freely, end with image_planes_free.
#define IMAGE_PLANES_ALIGN 64
struct image_planes {
    uint8_t *plane[3]; // R, G, B: height rows of width bytes, `stride` apart
    uint32_t width, height;
    size_t stride;
    uint8_t *memory;
    size_t capacity; // bytes allocated
};

void image_planes_free(struct image_planes *planes);
// What planes of width x height pixels allocate. Any window of an image needs at most what the
// whole image does.
size_t image_planes_bytes(uint32_t width, uint32_t height);
// Makes room for width x height pixels and sets all but the pixels; keeps the memory when it is
// large enough.
enum status image_planes_reserve(struct image_planes *planes, uint32_t width, uint32_t height,
                                 struct error *error);
enum status image_split(const struct image *image, struct image_planes *out, struct error *error);

// Makes room for width x height pixels and sets both; keeps the buffer when it is large enough.
enum status image_reserve(struct image *image, uint32_t width, uint32_t height,
                          struct error *error);

// A decoder keeps buffers between images, and nothing else: what an image gives does not depend on
// those before it, corrupt or good. One decoder, one thread. A decoder warning (premature end, bad
// Huffman code…) is STATUS_CORRUPT.
struct image_decoder;
enum status image_decoder_open(struct image_decoder **out, struct error *error);
void image_decoder_close(struct image_decoder **decoder); // accepts a pointer to NULL
// Makes room for images of up to `width` columns and `pixels` pixels, so that no buffer has to grow
// for them any more.
enum status image_decoder_reserve(struct image_decoder *decoder, uint32_t width, uint64_t pixels,
                                  struct error *error);
// Bytes of the buffers that stay between images. They grow to the largest need; what libjpeg and
// libpng hold while they decode is not counted.
size_t image_decoder_memory(const struct image_decoder *decoder);

// Reads the header only. STATUS_UNSUPPORTED for bytes that are neither JPEG, recoded or not, nor
// PNG.
enum status image_probe(struct image_decoder *decoder, const void *bytes, size_t len,
                        struct image_info *info, struct error *error);

// Decodes `window`, or the whole image when it is NULL, into `out` (whose size becomes the
// window's). Errors: STATUS_CORRUPT, _TRUNCATED, _UNSUPPORTED, _LIMIT, _INVALID (window outside the
// image), _NO_MEMORY.
enum status image_decode(struct image_decoder *decoder, const void *bytes, size_t len,
                         const struct image_window *window, struct image *out, struct error *error);

// Decodes `count` windows (1 to IMAGE_MAX_WINDOWS) of one image, each with exactly the pixels that
// image_decode gives for it alone, while doing what they share once: plain JPEGs by our own decoder
// (formats/jpeg/road.h), PNGs by cutting, the rest window by window. Grey may come as one plane
// named three times. Errors as image_decode, of the first window that has one.
#define IMAGE_MAX_WINDOWS 8
enum status image_decode_windows(struct image_decoder *decoder, const void *bytes, size_t len,
                                 const struct image_window *windows, uint32_t count,
                                 struct image_planes *out, struct error *error);

// Encoders. `*bytes` is malloc'ed for the caller to free. JPEG: baseline 4:2:0 at quality 1-100,
// accurate integer DCT, optimised Huffman tables: the same pixels give the same bytes on every
// machine. `quality` above 90 writes 4:4:4.
enum status image_encode_jpeg(const struct image *image, int quality, uint8_t **bytes, size_t *len,
                              struct error *error);
enum status image_encode_png(const struct image *image, uint8_t **bytes, size_t *len,
                             struct error *error);

#endif
