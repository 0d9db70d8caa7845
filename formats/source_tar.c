// Reads a tar through libarchive, the fuzzed reader. Only tar and the filters that libarchive has
// built in are allowed: some of its other filters would run programs.
//
// libarchive asks us for blocks of the file, and to skip. While nobody asks it for members' data,
// blocks are small, so that of a plain tar little more than the headers goes through it.
#include "formats/source_tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_BYTES    (128u << 10) // while members' data are read; stays in a core's cache
#define HEADER_BYTES   1024u        // while they are skipped
#define LOOK_BYTES     16u          // who reads no more wants to know a file's kind
#define END_MARK_BYTES 1024         // two zero blocks

struct tar {
    char path[512];
    struct archive *archive;
    struct archive_entry *entry;
    int fd;                         // -1 for a tar inside something else
    uint64_t at, size;              // of the file
    uint8_t *block;                 // [BLOCK_BYTES]
    uint64_t member_at, member_end; // of a plain tar: what is left of the member in the file
    bool wanted;                    // this member's data
    bool reading;                   // this member's, or so far the last one's
    bool inside;                    // an entry's data may be left to skip
    locale_t locale;                // UTF-8, so that names do not depend on the person's settings
    // Of a tar inside something else.
    struct source_tar_input input;
    struct error input_error;
};

static void tar_close(void **state)
{
    struct tar *tar = *state;
    if (tar != NULL) {
        archive_entry_free(tar->entry);
        archive_read_free(tar->archive);
        if (tar->fd >= 0) {
            close(tar->fd);
        }
        if (tar->locale != (locale_t)0) {
            freelocale(tar->locale);
        }
        free(tar->block);
        free(tar);
        *state = NULL;
    }
}

static bool no_archive(const char *reason)
{
    return strcasestr(reason, "unrecognized archive format") != NULL;
}

static enum status failed(struct tar *tar, struct error *error)
{
    if (tar->input_error.status != STATUS_OK) {
        if (error != NULL) {
            *error = tar->input_error;
        }
        return tar->input_error.status;
    }
    const char *reason = archive_error_string(tar->archive);
    reason = reason ? reason : "no reason given";
    int errnum = archive_errno(tar->archive);
    int64_t at = archive_filter_bytes(tar->archive, 0);
    uint64_t offset = at < 0 ? NOWHERE : (uint64_t)at;
    if (no_archive(reason)) {
        return error_set(error, STATUS_CORRUPT, tar->path, NOWHERE, NOWHERE, "no tar any more");
    }
    enum status status = strcasestr(reason, "truncated") != NULL ? STATUS_TRUNCATED
                         : errnum == ENOMEM                      ? STATUS_NO_MEMORY
                         : errnum == EIO                         ? STATUS_IO
                                                                 : STATUS_CORRUPT;
    return error_set(error, status, tar->path, offset, NOWHERE,
                     "cannot read the tar (offset as unpacked): %s", reason);
}

static bool allow_formats(struct archive *archive)
{
    // ARCHIVE_WARN would mean: by an external program.
    return archive_read_support_format_tar(archive) == ARCHIVE_OK &&
           archive_read_support_filter_gzip(archive) == ARCHIVE_OK &&
           archive_read_support_filter_zstd(archive) == ARCHIVE_OK &&
           archive_read_support_filter_xz(archive) == ARCHIVE_OK &&
           archive_read_support_filter_bzip2(archive) == ARCHIVE_OK;
}

static enum status prepare(void **state, const char *path, struct error *error)
{
    struct tar *tar = calloc(1, sizeof *tar);
    *state = tar;
    if (tar != NULL) {
        tar->fd = -1;
    }
    if (tar == NULL || (tar->archive = archive_read_new()) == NULL ||
        (tar->entry = archive_entry_new()) == NULL) {
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory to read");
    }
    snprintf(tar->path, sizeof tar->path, "%s", path);
    tar->locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    if (!allow_formats(tar->archive)) {
        return error_set(error, STATUS_UNSUPPORTED, path, NOWHERE, NOWHERE,
                         "this system's libarchive lacks gzip, zstd, xz or bzip2");
    }
    return STATUS_OK;
}

// --- what libarchive calls ---------------------------------------------------------------------

static size_t wanted_bytes(const struct tar *tar)
{
    bool plain = archive_filter_count(tar->archive) <= 1;
    return plain && !tar->reading ? HEADER_BYTES : BLOCK_BYTES;
}

static la_ssize_t read_block(struct archive *archive, void *context, const void **block)
{
    struct tar *tar = context;
    ssize_t got;
    size_t want = wanted_bytes(tar);
    do {
        got = pread(tar->fd, tar->block, want, (off_t)tar->at);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        archive_set_error(archive, errno, "%s", strerror(errno));
        return ARCHIVE_FATAL;
    }
    tar->at += (uint64_t)got;
    *block = tar->block;
    return got;
}

// Never beyond the end, so that a file that was cut is noticed.
static la_int64_t skip_bytes(struct archive *archive, void *context, la_int64_t request)
{
    (void)archive;
    struct tar *tar = context;
    uint64_t rest = tar->size > tar->at ? tar->size - tar->at : 0;
    uint64_t step = request > 0 && (uint64_t)request < rest ? (uint64_t)request : rest;
    tar->at += request > 0 ? step : 0;
    return request > 0 ? (la_int64_t)step : 0;
}

static la_ssize_t read_input(struct archive *archive, void *context, const void **bytes)
{
    struct tar *tar = context;
    size_t got = 0;
    *bytes = tar->block;
    enum status status =
        tar->input.read(tar->input.context, tar->block, wanted_bytes(tar), &got, &tar->input_error);
    if (status != STATUS_OK) {
        tar->input_error.status = status;
        archive_set_error(archive, EIO, "cannot read what is around it");
        return ARCHIVE_FATAL;
    }
    return (la_ssize_t)got;
}

static la_int64_t skip_input(struct archive *archive, void *context, la_int64_t len)
{
    (void)archive;
    struct tar *tar = context;
    return len > 0 ? (la_int64_t)tar->input.skip(tar->input.context, (uint64_t)len) : 0;
}

// --- the source --------------------------------------------------------------------------------

static enum status open_archive(struct tar *tar, archive_read_callback *take,
                                archive_skip_callback *skip, struct error *error)
{
    tar->block = malloc(BLOCK_BYTES);
    if (tar->block == NULL) {
        return error_errno(error, ENOMEM, tar->path, NOWHERE, "allocate memory to read");
    }
    return archive_read_open2(tar->archive, tar, NULL, take, skip, NULL) == ARCHIVE_OK
               ? STATUS_OK
               : failed(tar, error);
}

static enum status tar_open(void **state, const char *path, struct error *error)
{
    enum status status = prepare(state, path, error);
    struct tar *tar = *state;
    if (tar == NULL || status != STATUS_OK) {
        return status;
    }
    tar->fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat about;
    if (tar->fd < 0 || fstat(tar->fd, &about) != 0) {
        return error_errno(error, errno, path, NOWHERE, "open");
    }
    tar->size = (uint64_t)about.st_size;
    return open_archive(tar, read_block, skip_bytes, error);
}

enum status source_tar_open_input(void **state, const char *path,
                                  const struct source_tar_input *input, struct error *error)
{
    enum status status = prepare(state, path, error);
    struct tar *tar = *state;
    if (tar == NULL || status != STATUS_OK) {
        return status;
    }
    tar->input = *input;
    return open_archive(tar, read_input, skip_input, error);
}

bool source_tar_place(void *state, uint64_t *offset)
{
    struct tar *tar = state;
    int64_t at = archive_filter_bytes(tar->archive, 0);
    *offset = at < 0 ? 0 : (uint64_t)at;
    return tar->fd >= 0 && archive_filter_count(tar->archive) == 1 && at >= 0;
}

// libarchive takes a missing end mark for a proper end; we do not, because then a tar that was cut
// between two members would pass for whole.
static enum status check_end(struct tar *tar, int64_t last_end, struct error *error)
{
    int64_t end = archive_filter_bytes(tar->archive, 0);
    if (end - last_end >= END_MARK_BYTES) {
        return STATUS_END;
    }
    return error_set(error, STATUS_TRUNCATED, tar->path, (uint64_t)last_end, NOWHERE,
                     "the tar has no end mark (offset as unpacked): it was cut short");
}

static bool is_plain_file(struct archive_entry *entry)
{
    return archive_entry_filetype(entry) == AE_IFREG && archive_entry_hardlink(entry) == NULL &&
           archive_entry_sparse_count(entry) == 0 && archive_entry_size_is_set(entry);
}

static void note_place(struct tar *tar, bool plain, uint64_t size)
{
    uint64_t at;
    bool placed = plain && source_tar_place(tar, &at) && size < UINT64_MAX / 2 - at;
    tar->member_at = placed ? at : 0;
    tar->member_end = placed ? at + size : 0;
}

static enum status next_entry(struct tar *tar, struct source_entry *entry, struct error *error)
{
    for (;;) {
        // Skipped by hand, so that the position is known where the next header should start.
        if (tar->inside && archive_read_data_skip(tar->archive) < ARCHIVE_WARN) {
            return failed(tar, error);
        }
        tar->inside = false;
        int64_t last_end = archive_filter_bytes(tar->archive, 0);
        int code = archive_read_next_header2(tar->archive, tar->entry);
        if (code == ARCHIVE_EOF) {
            return check_end(tar, last_end, error);
        }
        if (code == ARCHIVE_RETRY) {
            continue;
        }
        if (code < ARCHIVE_WARN) {
            return failed(tar, error);
        }
        tar->inside = true;
        if (archive_entry_filetype(tar->entry) == AE_IFDIR) {
            continue;
        }
        bool plain = is_plain_file(tar->entry);
        entry->name = archive_entry_pathname(tar->entry);
        entry->type = plain ? SOURCE_ENTRY_FILE : SOURCE_ENTRY_LINK;
        entry->size = plain ? (uint64_t)archive_entry_size(tar->entry) : 0;
        note_place(tar, plain, entry->size);
        return STATUS_OK;
    }
}

static enum status tar_next(void *state, struct source_entry *entry, struct error *error)
{
    struct tar *tar = state;
    tar->reading = tar->wanted;
    tar->wanted = false;
    locale_t before = tar->locale ? uselocale(tar->locale) : (locale_t)0;
    enum status status = next_entry(tar, entry, error);
    if (tar->locale) {
        uselocale(before);
    }
    return status;
}

// Whatever libarchive takes for a tar, or for the beginning of one. Files that it would have to
// call an empty tar are not.
static enum status tar_recognise(const char *path, bool *mine, struct error *error)
{
    *mine = false;
    struct stat about;
    if (stat(path, &about) != 0 || !S_ISREG(about.st_mode) || about.st_size == 0) {
        return STATUS_OK;
    }
    void *state = NULL;
    struct source_entry entry;
    enum status status = tar_open(&state, path, error);
    struct tar *tar = state;
    if (status == STATUS_OK) {
        status = tar_next(state, &entry, error);
    }
    const char *reason = tar && tar->archive ? archive_error_string(tar->archive) : NULL;
    *mine = status != STATUS_NO_MEMORY && (reason == NULL || !no_archive(reason));
    tar_close(&state);
    return status == STATUS_NO_MEMORY ? status : STATUS_OK; // the rest is said when it is read
}

// A member's bytes follow its header: of a plain tar they are read from the file to where they are
// wanted, past libarchive, which skips them then.
static enum status read_in_place(struct tar *tar, uint8_t *buf, size_t len, size_t *got,
                                 struct error *error)
{
    uint64_t rest = tar->member_end - tar->member_at;
    size_t want = len < rest ? len : (size_t)rest;
    while (*got < want) {
        ssize_t step = pread(tar->fd, buf + *got, want - *got, (off_t)tar->member_at);
        if (step < 0 && errno == EINTR) {
            continue;
        }
        if (step < 0) {
            return error_errno(error, errno, tar->path, tar->member_at, "read");
        }
        if (step == 0) {
            return error_set(error, STATUS_TRUNCATED, tar->path, tar->member_at, NOWHERE,
                             "the tar ends within a member");
        }
        *got += (size_t)step;
        tar->member_at += (uint64_t)step;
    }
    return STATUS_OK;
}

static enum status tar_read(void *state, void *buf, size_t len, size_t *got, struct error *error)
{
    struct tar *tar = state;
    *got = 0;
    if (tar->member_end > 0) {
        return read_in_place(tar, buf, len, got, error);
    }
    tar->wanted = tar->wanted || len > LOOK_BYTES;
    tar->reading = tar->wanted;
    while (*got < len) {
        la_ssize_t step = archive_read_data(tar->archive, (uint8_t *)buf + *got, len - *got);
        if (step == ARCHIVE_RETRY) {
            continue;
        }
        if (step < 0) {
            return failed(tar, error);
        }
        if (step == 0) {
            break;
        }
        *got += (size_t)step;
    }
    return STATUS_OK;
}

static const char *tar_describe(void *state)
{
    struct tar *tar = state;
    const char *filter = archive_filter_name(tar->archive, 0);
    return archive_filter_count(tar->archive) > 1 && filter != NULL ? filter : NULL;
}

const struct source_kind source_tar = {.name = "tar",
                                       .recognise = tar_recognise,
                                       .open = tar_open,
                                       .next = tar_next,
                                       .read = tar_read,
                                       .describe = tar_describe,
                                       .close = tar_close};
