// A stretch of bytes that a reader of foreign containers looks into: a piece of an open file, or of
// memory. Every access is checked against its length, and only a small window of a file is held, so
// that a record's end can be read without what lies before it.
#ifndef FORMATS_SOURCE_RANGE_H
#define FORMATS_SOURCE_RANGE_H

#include "formats/status.h"

#include <stdbool.h>

#define SOURCE_RANGE_WINDOW 512

struct source_range {
    const char *path;      // for errors; lives longer than the range
    const uint8_t *memory; // NULL: a file
    int fd;
    uint64_t start, len; // in the file; `start` of memory only counts in errors
    uint64_t window_at;
    size_t window_len;
    uint8_t window[SOURCE_RANGE_WINDOW];
};

void source_range_file(struct source_range *range, int fd, const char *path, uint64_t start,
                       uint64_t len);
void source_range_memory(struct source_range *range, const void *bytes, uint64_t len,
                         const char *path);
// `len` bytes at `at` as a range of their own. False, and nothing done, when they are not inside.
bool source_range_part(const struct source_range *range, uint64_t at, uint64_t len,
                       struct source_range *part);
// STATUS_TRUNCATED when [at, at + len) is not inside.
enum status source_range_read(struct source_range *range, uint64_t at, void *to, size_t len,
                              struct error *error);
// The first bytes, as many as there are up to `len`.
enum status source_range_head(struct source_range *range, void *to, size_t len, size_t *got,
                              struct error *error);
// ".jpg" or ".png" as the first bytes say, or NULL: no image of ours.
enum status source_range_ending(struct source_range *range, const char **ending,
                                struct error *error);
// The little-endian number in `width` bytes (0 to 8).
uint64_t source_range_number(const uint8_t *bytes, unsigned width);
// The number whose low `width` bytes (0 to 8) are `bits`, in two's complement.
int64_t source_range_signed(uint64_t bits, unsigned width);
// The same number, or the largest one for what has no room.
int64_t source_range_unsigned(uint64_t bits);

#endif
