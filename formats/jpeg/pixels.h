// The second half of the fast JPEG road: from quantised coefficients to the pixels of windows, each
// window with exactly the pixels that libjpeg-turbo gives when it decodes that window alone
// (formats/image.h, "Window rule"), while entropy decoding and inverse DCT are done once for all.
//
// Windows share samples; what differs between decoding a window alone and cutting it out of the
// whole image lies in the upsampling, which is done window by window:
// - libjpeg-turbo starts at the multiple of the MCU's width at or left of the window, and ends with
//   the window. Fancy upsampling has no neighbours beyond those two edges.
// - What starts there and is so narrow that a component has one column is upsampled by repetition.
//   So is an image of which a component has at most two.
// - Above and below, neighbours are the image's: rows are skipped, not cut off.
#ifndef FORMATS_JPEG_PIXELS_H
#define FORMATS_JPEG_PIXELS_H

#include "formats/image.h"
#include "formats/jpeg/frame.h"

// Buffers for one image at a time; they only grow. One struct, one thread.
struct jpeg_pixels;
enum status jpeg_pixels_open(struct jpeg_pixels **out, struct error *error);
void jpeg_pixels_close(struct jpeg_pixels **pixels);         // accepts a pointer to NULL
size_t jpeg_pixels_memory(const struct jpeg_pixels *pixels); // bytes

// Makes room for every frame of up to `width` pixels' width.
enum status jpeg_pixels_reserve(struct jpeg_pixels *pixels, uint32_t width, struct error *error);

// Whether the frame is of a kind that jpeg_pixels_decode knows: every component has the full
// resolution, or half of it in one or both directions.
bool jpeg_pixels_takes(const struct jpeg_frame *frame);

// Decodes `count` windows (1 to IMAGE_MAX_WINDOWS) into out[0] to out[count - 1]. Of `source` it
// wants the MCU rows that windows or their upsampling lie in, and of each row the MCUs from the
// first to the last that a window on this row needs. Grey comes as one plane named three times.
// Memory: four MCU rows. Errors: STATUS_UNSUPPORTED for a frame that is not taken, _INVALID for a
// window outside the image, _LIMIT, _NO_MEMORY, and those of the source.
enum status jpeg_pixels_decode(struct jpeg_pixels *pixels, const struct jpeg_frame *frame,
                               struct jpeg_source *source, const struct image_window *windows,
                               uint32_t count, struct image_planes *out, struct error *error);

#endif
