// TFRecord framing. Plain files are read directly; gzip goes through libarchive.
#include "formats/tfrecord.h"
#include "formats/crc32c.h"
#include "formats/file.h"
#include "formats/limits.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_BYTES (1u << 20)
#define MASK       0xa282ead8u

struct tfrecord_reader {
    char path[512];
    int fd;                  // of a plain file, else -1
    struct archive *archive; // of a compressed one
    uint8_t *bytes;          // the record
    size_t capacity;
    uint8_t *ahead; // [READ_BYTES]: what was read but not yet used
    size_t ahead_at, ahead_len;
    uint64_t at;             // where the next byte stands
    uint64_t offset, number; // of the last record
    uint64_t next_number;
    enum status lost; // what every further call says
    struct error why;
};

static uint64_t load(const uint8_t *bytes, size_t count)
{
    uint64_t value = 0;
    for (size_t i = 0; i < count; i++) {
        value |= (uint64_t)bytes[i] << (8 * i);
    }
    return value;
}

static void store(uint8_t *to, uint64_t value, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] = (uint8_t)(value >> (8 * i));
    }
}

static uint32_t masked_crc(const void *bytes, size_t len)
{
    uint32_t crc = crc32c(0, bytes, len);
    return (crc >> 15 | crc << 17) + MASK;
}

bool tfrecord_starts(const void *bytes, size_t len)
{
    return len >= TFRECORD_HEAD_BYTES &&
           load((const uint8_t *)bytes + 8, 4) == masked_crc(bytes, 8);
}

// --- opening -------------------------------------------------------------------------------------

void tfrecord_close(struct tfrecord_reader **reader)
{
    if (*reader != NULL) {
        if ((*reader)->fd >= 0) {
            close((*reader)->fd);
        }
        archive_read_free((*reader)->archive);
        free((*reader)->ahead);
        free((*reader)->bytes);
        free(*reader);
        *reader = NULL;
    }
}

static enum status unpack_failed(struct tfrecord_reader *reader, struct error *error)
{
    const char *reason = archive_error_string(reader->archive);
    reason = reason ? reason : "no reason given";
    enum status status =
        strcasestr(reason, "truncated") != NULL ? STATUS_TRUNCATED : STATUS_CORRUPT;
    return error_set(error, status, reader->path, reader->at, reader->next_number,
                     "cannot unpack (offset as unpacked): %s", reason);
}

// libarchive's "raw" format is one member of whatever the filter gives.
static enum status open_gzip(struct tfrecord_reader *reader, struct error *error)
{
    struct archive_entry *entry;
    reader->archive = archive_read_new();
    if (reader->archive == NULL) {
        return error_errno(error, ENOMEM, reader->path, NOWHERE, "allocate memory to read");
    }
    if (archive_read_support_format_raw(reader->archive) != ARCHIVE_OK ||
        archive_read_support_filter_gzip(reader->archive) != ARCHIVE_OK) {
        return error_set(error, STATUS_UNSUPPORTED, reader->path, NOWHERE, NOWHERE,
                         "this system's libarchive lacks gzip");
    }
    if (archive_read_open_filename(reader->archive, reader->path, READ_BYTES) != ARCHIVE_OK ||
        archive_read_next_header(reader->archive, &entry) != ARCHIVE_OK) {
        return unpack_failed(reader, error);
    }
    return STATUS_OK;
}

enum status tfrecord_open(struct tfrecord_reader **out, const char *path, struct error *error)
{
    struct tfrecord_reader *reader = calloc(1, sizeof *reader);
    *out = NULL;
    if (reader == NULL || (reader->ahead = malloc(READ_BYTES)) == NULL) {
        free(reader);
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory to read");
    }
    snprintf(reader->path, sizeof reader->path, "%s", path);
    reader->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (reader->fd < 0) {
        int errnum = errno;
        tfrecord_close(&reader);
        return error_errno(error, errnum, path, NOWHERE, "open");
    }
    uint8_t head[TFRECORD_HEAD_BYTES];
    ssize_t got = pread(reader->fd, head, sizeof head, 0);
    enum status status = STATUS_OK;
    // A length may look like gzip's mark, but then its checksum holds.
    if (got >= 2 && head[0] == 0x1f && head[1] == 0x8b && !tfrecord_starts(head, (size_t)got)) {
        close(reader->fd);
        reader->fd = -1;
        status = open_gzip(reader, error);
    }
    if (status != STATUS_OK) {
        tfrecord_close(&reader);
    }
    *out = reader;
    return status;
}

// --- bytes in order ------------------------------------------------------------------------------

static enum status fill(struct tfrecord_reader *reader, struct error *error)
{
    ssize_t got;
    do {
        got = reader->fd >= 0 ? read(reader->fd, reader->ahead, READ_BYTES)
                              : archive_read_data(reader->archive, reader->ahead, READ_BYTES);
    } while (reader->fd >= 0 ? got < 0 && errno == EINTR : got == ARCHIVE_RETRY);
    if (got < 0) {
        return reader->fd >= 0 ? error_errno(error, errno, reader->path, reader->at, "read")
                               : unpack_failed(reader, error);
    }
    reader->ahead_at = 0;
    reader->ahead_len = (size_t)got;
    return STATUS_OK;
}

// Up to `len` bytes; fewer only at the end of the file. `to` may be NULL: they are passed over.
static enum status take(struct tfrecord_reader *reader, uint8_t *to, uint64_t len, uint64_t *got,
                        struct error *error)
{
    *got = 0;
    while (*got < len) {
        size_t part = reader->ahead_len - reader->ahead_at;
        if (part == 0) {
            enum status status = fill(reader, error);
            if (status != STATUS_OK || reader->ahead_len == 0) {
                return status;
            }
            continue;
        }
        part = part < len - *got ? part : (size_t)(len - *got);
        if (to != NULL) {
            memcpy(to + *got, reader->ahead + reader->ahead_at, part);
        }
        reader->ahead_at += part;
        reader->at += part;
        *got += part;
    }
    return STATUS_OK;
}

// --- records -------------------------------------------------------------------------------------

static enum status ends_early(struct tfrecord_reader *reader, const char *where,
                              struct error *error)
{
    return error_set(error, STATUS_TRUNCATED, reader->path, reader->at, reader->number,
                     "the file ends inside %s", where);
}

static enum status read_length(struct tfrecord_reader *reader, uint64_t *len, struct error *error)
{
    uint8_t head[TFRECORD_HEAD_BYTES];
    uint64_t got;
    enum status status = take(reader, head, sizeof head, &got, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (got == 0) {
        return STATUS_END;
    }
    if (got < sizeof head) {
        return ends_early(reader, "a record's length", error);
    }
    *len = load(head, 8);
    if (!tfrecord_starts(head, sizeof head)) {
        return error_set(error, STATUS_CORRUPT, reader->path, reader->offset, reader->number,
                         "the checksum of a record's length is %08x, the file says %08x",
                         (unsigned)masked_crc(head, 8), (unsigned)load(head + 8, 4));
    }
    return STATUS_OK;
}

static enum status make_room(struct tfrecord_reader *reader, size_t need, struct error *error)
{
    if (need > reader->capacity) {
        size_t capacity = need + need / 4;
        free(reader->bytes);
        reader->bytes = malloc(capacity);
        reader->capacity = reader->bytes ? capacity : 0;
    }
    return reader->bytes ? STATUS_OK
                         : error_errno(error, ENOMEM, reader->path, reader->offset,
                                       "allocate memory for a record");
}

static enum status pass_over(struct tfrecord_reader *reader, uint64_t len, struct error *error)
{
    uint64_t got, want = len + TFRECORD_FOOT_BYTES;
    enum status status = want < len ? STATUS_OK : take(reader, NULL, want, &got, error);
    if (status == STATUS_OK && (want < len || got < want)) {
        status = ends_early(reader, "a record", error);
    }
    return status;
}

static enum status read_record(struct tfrecord_reader *reader, size_t len, struct error *error)
{
    enum status status = make_room(reader, len + TFRECORD_FOOT_BYTES, error);
    uint64_t got = 0;
    if (status == STATUS_OK) {
        status = take(reader, reader->bytes, len + TFRECORD_FOOT_BYTES, &got, error);
    }
    if (status == STATUS_OK && got < len + TFRECORD_FOOT_BYTES) {
        status = ends_early(reader, "a record", error);
    }
    return status;
}

// What keeps the file from being read on is kept.
static enum status lose(struct tfrecord_reader *reader, enum status status, const struct error *why,
                        struct error *error)
{
    reader->lost = status;
    reader->why = *why;
    if (error != NULL && status != STATUS_END) {
        *error = *why;
    }
    return status;
}

enum status tfrecord_next(struct tfrecord_reader *reader, const uint8_t **bytes, size_t *len,
                          struct error *error)
{
    struct error why = {0};
    if (reader->lost != STATUS_OK) {
        return lose(reader, reader->lost, &reader->why, error);
    }
    reader->offset = reader->at;
    reader->number = reader->next_number;
    uint64_t length = 0;
    enum status status = read_length(reader, &length, &why);
    if (status == STATUS_OK) {
        reader->next_number++;
        status = length > LIMIT_TFRECORD_BYTES ? pass_over(reader, length, &why)
                                               : read_record(reader, (size_t)length, &why);
    }
    if (status != STATUS_OK) {
        return lose(reader, status, &why, error);
    }
    if (length > LIMIT_TFRECORD_BYTES) {
        return error_set(error, STATUS_LIMIT, reader->path, reader->offset, reader->number,
                         "a record of %" PRIu64 " bytes; the limit is %" PRIu64, length,
                         LIMIT_TFRECORD_BYTES);
    }
    *bytes = reader->bytes;
    *len = (size_t)length;
    uint32_t stored = (uint32_t)load(reader->bytes + length, TFRECORD_FOOT_BYTES);
    uint32_t crc = masked_crc(reader->bytes, *len);
    return crc == stored
               ? STATUS_OK
               : error_set(error, STATUS_CORRUPT, reader->path, reader->offset, reader->number,
                           "the record's checksum is %08x, the file says %08x", crc, stored);
}

bool tfrecord_goes_on(const struct tfrecord_reader *reader)
{
    return reader->lost == STATUS_OK;
}

uint64_t tfrecord_offset(const struct tfrecord_reader *reader)
{
    return reader->offset;
}

uint64_t tfrecord_number(const struct tfrecord_reader *reader)
{
    return reader->number;
}

bool tfrecord_compressed(const struct tfrecord_reader *reader)
{
    return reader->archive != NULL;
}

// --- writing -------------------------------------------------------------------------------------

void tfrecord_head(uint8_t head[TFRECORD_HEAD_BYTES], size_t len)
{
    store(head, len, 8);
    store(head + 8, masked_crc(head, 8), 4);
}

void tfrecord_foot(uint8_t foot[TFRECORD_FOOT_BYTES], const void *bytes, size_t len)
{
    store(foot, masked_crc(bytes, len), TFRECORD_FOOT_BYTES);
}

enum status tfrecord_append(int fd, const char *path, const void *bytes, size_t len,
                            struct error *error)
{
    if (len > SIZE_MAX - TFRECORD_HEAD_BYTES - TFRECORD_FOOT_BYTES) {
        return error_set(error, STATUS_LIMIT, path, NOWHERE, NOWHERE, "a record of %zu bytes", len);
    }
    size_t total = TFRECORD_HEAD_BYTES + len + TFRECORD_FOOT_BYTES;
    uint8_t *frame = malloc(total);
    if (frame == NULL) {
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory for a record");
    }
    tfrecord_head(frame, len);
    if (len > 0) {
        memcpy(frame + TFRECORD_HEAD_BYTES, bytes, len);
    }
    tfrecord_foot(frame + TFRECORD_HEAD_BYTES + len, bytes, len);
    enum status status = file_write_all(fd, path, frame, total, error);
    free(frame);
    return status;
}
