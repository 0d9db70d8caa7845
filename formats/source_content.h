// The current image of a foreign container, as `read` of its source hands it out: an image file's
// bytes where they lie, raw pixels, which become a PNG when they are first read, or the reason why
// this one record cannot be read.
#ifndef FORMATS_SOURCE_CONTENT_H
#define FORMATS_SOURCE_CONTENT_H

#include "formats/source.h"
#include "formats/source_range.h"

enum source_pixels {
    SOURCE_PIXELS_NONE, // an image file
    SOURCE_PIXELS_GREY,
    SOURCE_PIXELS_RGB,        // interleaved
    SOURCE_PIXELS_RGB_PLANES, // one channel after the other
    SOURCE_PIXELS_BGR_PLANES,
    SOURCE_PIXELS_RGB_COLUMNS, // planes, column by column
};

// Start from {0}, use again and again, end with source_content_free.
struct source_content {
    struct source_range range;
    enum source_pixels pixels;
    uint32_t width, height;
    uint64_t at; // how far it was read
    uint8_t *png;
    size_t png_len;
    struct error bad; // with STATUS_OK for nothing
};

void source_content_free(struct source_content *content);
// The next image: the range is copied, what it points to must stay.
void source_content_file(struct source_content *content, const struct source_range *range);
// STATUS_CORRUPT when the range's length is not that of the pixels, STATUS_LIMIT for too many.
enum status source_content_pixels(struct source_content *content, const struct source_range *range,
                                  enum source_pixels pixels, uint64_t width, uint64_t height,
                                  struct error *error);
// Ends the look at a record that came out with `status` and `why`. STATUS_OK where the source goes
// on: then a record whose own bytes are at fault has become an image of unknown size and no label,
// whose reading gives STATUS_LIMIT or STATUS_CORRUPT for that reason. Everything else ends the
// source: its error is `why`.
enum status source_content_judge(struct source_content *content, enum status status,
                                 const struct error *why, struct source_entry *entry,
                                 struct error *error);
uint64_t source_content_size(const struct source_content *content);
// As `read` of struct source_kind.
enum status source_content_read(struct source_content *content, void *buf, size_t len, size_t *got,
                                struct error *error);

// A number of a container as a label: -1 is none; STATUS_LIMIT for what no class can have.
enum status source_label_of(int64_t number, const char *path, uint64_t record, int32_t *label,
                            struct error *error);

#endif
