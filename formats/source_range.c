// Checked access to a piece of a file or of memory.
#include "formats/source_range.h"
#include "formats/file.h"

#include <string.h>

void source_range_file(struct source_range *range, int fd, const char *path, uint64_t start,
                       uint64_t len)
{
    range->path = path;
    range->memory = NULL;
    range->fd = fd;
    range->start = start;
    range->len = len;
    range->window_at = 0;
    range->window_len = 0;
}

void source_range_memory(struct source_range *range, const void *bytes, uint64_t len,
                         const char *path)
{
    source_range_file(range, -1, path, 0, len);
    range->memory = bytes;
}

bool source_range_part(const struct source_range *range, uint64_t at, uint64_t len,
                       struct source_range *part)
{
    if (at > range->len || len > range->len - at) {
        return false;
    }
    source_range_file(part, range->fd, range->path, range->start + at, len);
    part->memory = range->memory ? range->memory + at : NULL;
    return true;
}

// Small reads of a file come from the window, which is loaded where they start.
static enum status read_windowed(struct source_range *range, uint64_t at, void *to, size_t len,
                                 struct error *error)
{
    if (at < range->window_at || at - range->window_at > range->window_len ||
        len > range->window_len - (size_t)(at - range->window_at)) {
        uint64_t rest = range->len - at;
        size_t load = rest < sizeof range->window ? (size_t)rest : sizeof range->window;
        range->window_len = 0;
        enum status status =
            file_read_at(range->fd, range->path, range->window, load, range->start + at, error);
        if (status != STATUS_OK) {
            return status;
        }
        range->window_at = at;
        range->window_len = load;
    }
    memcpy(to, range->window + (at - range->window_at), len);
    return STATUS_OK;
}

enum status source_range_read(struct source_range *range, uint64_t at, void *to, size_t len,
                              struct error *error)
{
    if (at > range->len || len > range->len - at) {
        return error_set(error, STATUS_TRUNCATED, range->path, range->start + range->len, NOWHERE,
                         "a value ends here, within what it says it holds");
    }
    if (len == 0) {
        return STATUS_OK;
    }
    if (range->memory != NULL) {
        memcpy(to, range->memory + at, len);
        return STATUS_OK;
    }
    return len <= sizeof range->window
               ? read_windowed(range, at, to, len, error)
               : file_read_at(range->fd, range->path, to, len, range->start + at, error);
}

enum status source_range_head(struct source_range *range, void *to, size_t len, size_t *got,
                              struct error *error)
{
    *got = range->len < len ? (size_t)range->len : len;
    return source_range_read(range, 0, to, *got, error);
}

enum status source_range_ending(struct source_range *range, const char **ending,
                                struct error *error)
{
    uint8_t head[8];
    size_t got;
    *ending = NULL;
    enum status status = source_range_head(range, head, sizeof head, &got, error);
    if (status == STATUS_OK && got >= 3 && memcmp(head, "\xff\xd8\xff", 3) == 0) {
        *ending = ".jpg";
    }
    if (status == STATUS_OK && got >= 8 && memcmp(head, "\x89PNG\r\n\x1a\n", 8) == 0) {
        *ending = ".png";
    }
    return status;
}

uint64_t source_range_number(const uint8_t *bytes, unsigned width)
{
    uint64_t number = 0;
    for (unsigned i = width; i-- > 0;) {
        number = number << 8 | bytes[i];
    }
    return number;
}

int64_t source_range_signed(uint64_t bits, unsigned width)
{
    if (width == 0 || width >= 8) {
        return (int64_t)bits;
    }
    unsigned shift = 64 - 8 * width;
    return (int64_t)(bits << shift) >> shift;
}

int64_t source_range_unsigned(uint64_t bits)
{
    return bits > INT64_MAX ? INT64_MAX : (int64_t)bits;
}
