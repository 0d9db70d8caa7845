// A shard as a stream: the file's bytes, unpacked if they are zstd, cut into samples.
#include "formats/mds_shard.h"
#include "formats/digest.h"
#include "formats/file.h"
#include "formats/limits.h"
#include "formats/name.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#define IN_BYTES     ((size_t)128 << 10)
#define SAMPLE_BYTES (LIMIT_IMAGE_PIXELS * 3 + (UINT64_C(1) << 20)) // raw pixels and other columns

struct mds_shard {
    char path[1024];
    int fd;
    uint64_t file_size, file_at; // of the file, packed or not
    uint64_t raw_size, raw_at;   // unpacked
    uint8_t *in;
    size_t in_at, in_len;
    ZSTD_DStream *zstd;               // NULL: plain
    bool held_back;                   // it may have more output without more input
    bool names_only;                  // of a plain file: samples are where they lie, not read
    const char *wanted[DIGEST_KINDS]; // of the file, as the index has them; NULL for none
    struct digest digests[DIGEST_KINDS];
    uint32_t *offsets; // samples + 1; 0 for one that cannot be
    uint64_t samples, next;
    bool goes_on;
    uint8_t *sample;
    size_t sample_capacity;
};

// --- the file's bytes --------------------------------------------------------------------------

static enum status fill(struct mds_shard *shard, struct error *error)
{
    uint64_t rest = shard->file_size - shard->file_at;
    size_t load = rest < IN_BYTES ? (size_t)rest : IN_BYTES;
    if (load == 0) {
        return error_set(error, STATUS_TRUNCATED, shard->path, shard->file_at, NOWHERE,
                         "the shard ends after %" PRIu64 " of %" PRIu64 " bytes (unpacked)",
                         shard->raw_at, shard->raw_size);
    }
    enum status status =
        file_read_at(shard->fd, shard->path, shard->in, load, shard->file_at, error);
    if (status != STATUS_OK) {
        return status;
    }
    for (int kind = 0; kind < DIGEST_KINDS; kind++) {
        if (shard->wanted[kind] != NULL) {
            digest_add(&shard->digests[kind], shard->in, load);
        }
    }
    shard->file_at += load;
    shard->in_at = 0;
    shard->in_len = load;
    return STATUS_OK;
}

// At least one byte into `to`.
static enum status read_some(struct mds_shard *shard, void *to, size_t len, size_t *got,
                             struct error *error)
{
    ZSTD_outBuffer out = {.dst = to, .size = len};
    while (out.pos == 0) {
        bool empty = shard->in_at == shard->in_len && !shard->held_back;
        enum status status = empty ? fill(shard, error) : STATUS_OK;
        if (status != STATUS_OK) {
            return status;
        }
        if (shard->zstd == NULL) {
            size_t rest = shard->in_len - shard->in_at;
            out.pos = len < rest ? len : rest;
            memcpy(to, shard->in + shard->in_at, out.pos);
            shard->in_at += out.pos;
            continue;
        }
        ZSTD_inBuffer in = {.src = shard->in, .size = shard->in_len, .pos = shard->in_at};
        size_t code = ZSTD_decompressStream(shard->zstd, &out, &in);
        shard->in_at = in.pos;
        shard->held_back = out.pos == out.size;
        if (ZSTD_isError(code)) {
            return error_set(error, STATUS_CORRUPT, shard->path, shard->file_at, NOWHERE,
                             "damaged zstd data: %s", ZSTD_getErrorName(code));
        }
    }
    *got = out.pos;
    shard->raw_at += out.pos;
    return STATUS_OK;
}

static enum status read_exactly(struct mds_shard *shard, void *to, size_t len, struct error *error)
{
    uint8_t *at = to;
    if (len > shard->raw_size - shard->raw_at) {
        return error_set(error, STATUS_CORRUPT, shard->path, NOWHERE, NOWHERE,
                         "the shard needs more than the %" PRIu64 " bytes that the index gives it",
                         shard->raw_size);
    }
    while (len > 0) {
        size_t got = 0;
        enum status status = read_some(shard, at, len, &got, error);
        if (status != STATUS_OK) {
            return status;
        }
        at += got;
        len -= got;
    }
    return STATUS_OK;
}

static enum status pass_over(struct mds_shard *shard, uint64_t len, struct error *error)
{
    uint8_t ignored[4096];
    enum status status = STATUS_OK;
    while (len > 0 && status == STATUS_OK) {
        size_t some = len < sizeof ignored ? (size_t)len : sizeof ignored;
        status = read_exactly(shard, ignored, some, error);
        len -= some;
    }
    return status;
}

// --- opening -----------------------------------------------------------------------------------

static enum status bad_index(const struct mds_shard *shard, const char *what, struct error *error)
{
    return error_set(error, STATUS_CORRUPT, shard->path, NOWHERE, NOWHERE,
                     "the index.json says nothing usable about a shard's %s", what);
}

// The name and size of a file of the shard. False when the index has none.
static bool get_file(json_t *entry, const char *key, const char **name, uint64_t *bytes)
{
    json_t *file = json_object_get(entry, key), *size = json_object_get(file, "bytes");
    *name = json_string_value(json_object_get(file, "basename"));
    *bytes = json_is_integer(size) && json_integer_value(size) >= 0
                 ? (uint64_t)json_integer_value(size)
                 : 0;
    return *name != NULL && *bytes > 0 && name_file_fault(*name, strlen(*name)) == NULL;
}

// Opens `name` in the directory, no link; false when there is no such file.
static bool open_file(struct mds_shard *shard, const char *directory, const char *name)
{
    snprintf(shard->path, sizeof shard->path, "%s/%s", directory, name);
    shard->fd = open(shard->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    return shard->fd >= 0;
}

static enum status start_zstd(struct mds_shard *shard, const char *compression, struct error *error)
{
    if (compression == NULL ||
        (strcmp(compression, "zstd") != 0 && strncmp(compression, "zstd:", 5) != 0)) {
        return error_set(error, STATUS_UNSUPPORTED, shard->path, NOWHERE, NOWHERE,
                         "a shard that is compressed with '%s': zstd and none are read",
                         compression ? compression : "?");
    }
    shard->zstd = ZSTD_createDStream();
    if (shard->zstd == NULL) {
        return error_errno(error, ENOMEM, shard->path, NOWHERE, "allocate memory to unpack");
    }
    ZSTD_DCtx_setParameter(shard->zstd, ZSTD_d_windowLogMax, 27); // what level 22 needs
    return STATUS_OK;
}

// The unpacked file where it is there, as streaming leaves it beside the other or instead of it.
static enum status open_either(struct mds_shard *shard, const char *directory, json_t *entry,
                               struct error *error)
{
    const char *raw, *zip, *key = "raw_data";
    uint64_t bytes;
    snprintf(shard->path, sizeof shard->path, "%s", directory);
    if (!get_file(entry, "raw_data", &raw, &bytes)) {
        return bad_index(shard, "raw_data (a plain file name and its bytes)", error);
    }
    shard->raw_size = bytes;
    enum status status = STATUS_OK;
    if (!open_file(shard, directory, raw)) {
        key = "zip_data";
        if (!get_file(entry, "zip_data", &zip, &bytes)) {
            return error_errno(error, errno ? errno : ENOENT, shard->path, NOWHERE, "open");
        }
        if (!open_file(shard, directory, zip)) {
            return error_errno(error, errno, shard->path, NOWHERE, "open");
        }
        status = start_zstd(shard, json_string_value(json_object_get(entry, "compression")), error);
    }
    struct stat about;
    if (status == STATUS_OK && fstat(shard->fd, &about) != 0) {
        return error_errno(error, errno, shard->path, NOWHERE, "look at");
    }
    if (status == STATUS_OK && (!S_ISREG(about.st_mode) || (uint64_t)about.st_size != bytes)) {
        return error_set(error, STATUS_TRUNCATED, shard->path, NOWHERE, NOWHERE,
                         "%lld bytes long; the index says %" PRIu64, (long long)about.st_size,
                         bytes);
    }
    shard->file_size = bytes;
    json_t *hashes = json_object_get(json_object_get(entry, key), "hashes");
    for (int kind = 0; kind < DIGEST_KINDS; kind++) {
        const char *name = digest_name((enum digest_kind)kind);
        shard->wanted[kind] = json_string_value(json_object_get(hashes, name));
        digest_begin(&shard->digests[kind], (enum digest_kind)kind);
    }
    return status;
}

static uint32_t get32(const void *from)
{
    return (uint32_t)source_range_number(from, 4);
}

// Strikes out the offsets that lie outside the shard, before one before them, or behind the one
// after them. The others never decrease.
static void check_offsets(struct mds_shard *shard)
{
    uint64_t least = 4 * (shard->samples + 2);
    for (uint64_t i = 0; i <= shard->samples; i++) {
        uint32_t offset = get32(&shard->offsets[i]);
        uint64_t after = i < shard->samples ? get32(&shard->offsets[i + 1]) : shard->raw_size;
        bool good =
            offset >= least && offset <= shard->raw_size && (offset <= after || after < least);
        shard->offsets[i] = good ? offset : 0;
        least = good ? offset : least;
    }
}

static enum status read_offsets(struct mds_shard *shard, json_t *entry, struct error *error)
{
    uint8_t count[4];
    json_int_t samples = json_integer_value(json_object_get(entry, "samples"));
    enum status status = read_exactly(shard, count, sizeof count, error);
    if (status != STATUS_OK) {
        return status;
    }
    shard->samples = get32(count);
    if (samples < 0 || (uint64_t)samples != shard->samples ||
        shard->samples > LIMIT_SHARD_RECORDS || 4 * (shard->samples + 2) > shard->raw_size) {
        return error_set(error, STATUS_CORRUPT, shard->path, 0, NOWHERE,
                         "%" PRIu64 " samples; the index says %lld", shard->samples,
                         (long long)samples);
    }
    size_t bytes = (size_t)(shard->samples + 1) * sizeof *shard->offsets;
    shard->offsets = malloc(bytes);
    if (shard->offsets == NULL) {
        return error_errno(error, ENOMEM, shard->path, NOWHERE, "allocate memory to read");
    }
    status = read_exactly(shard, shard->offsets, bytes, error);
    if (status == STATUS_OK) {
        check_offsets(shard);
    }
    return status;
}

enum status mds_shard_open(struct mds_shard **out, const char *directory, json_t *entry,
                           bool names_only, struct error *error)
{
    struct mds_shard *shard = calloc(1, sizeof *shard);
    *out = shard;
    if (shard != NULL) {
        shard->fd = -1;
    }
    if (shard == NULL || (shard->in = malloc(IN_BYTES)) == NULL) {
        return error_errno(error, ENOMEM, directory, NOWHERE, "allocate memory to read");
    }
    enum status status = open_either(shard, directory, entry, error);
    shard->names_only = names_only && shard->zstd == NULL;
    return status ? status : read_offsets(shard, entry, error);
}

void mds_shard_close(struct mds_shard **shard)
{
    if (*shard != NULL) {
        if ((*shard)->fd >= 0) {
            close((*shard)->fd);
        }
        ZSTD_freeDStream((*shard)->zstd);
        free((*shard)->in);
        free((*shard)->offsets);
        free((*shard)->sample);
        free(*shard);
        *shard = NULL;
    }
}

// --- samples -----------------------------------------------------------------------------------

static enum status check_end(struct mds_shard *shard, struct error *error)
{
    enum status status = pass_over(shard, shard->raw_size - shard->raw_at, error);
    uint8_t more;
    size_t got;
    if (status == STATUS_OK && read_some(shard, &more, 1, &got, NULL) == STATUS_OK) {
        return error_set(error, STATUS_CORRUPT, shard->path, NOWHERE, NOWHERE,
                         "the shard is longer than the index says");
    }
    for (int kind = 0; status == STATUS_OK && kind < DIGEST_KINDS; kind++) {
        const char *want = shard->wanted[kind];
        char text[DIGEST_TEXT];
        digest_end(&shard->digests[kind], text);
        if (want != NULL && strcmp(want, text) != 0) {
            status = error_set(error, STATUS_CORRUPT, shard->path, NOWHERE, NOWHERE,
                               "its %s is %s, the index says %.60s",
                               digest_name((enum digest_kind)kind), text, want);
        }
    }
    return status ? status : STATUS_END;
}

static enum status reserve(struct mds_shard *shard, size_t need, struct error *error)
{
    if (need <= shard->sample_capacity) {
        return STATUS_OK;
    }
    free(shard->sample);
    shard->sample_capacity = 0;
    shard->sample = malloc(need + need / 2);
    if (shard->sample == NULL) {
        return error_errno(error, ENOMEM, shard->path, NOWHERE, "allocate memory to read");
    }
    shard->sample_capacity = need + need / 2;
    return STATUS_OK;
}

// The sample that the shard's table places in [start, end).
static enum status read_sample(struct mds_shard *shard, uint64_t start, uint64_t end,
                               struct error *error)
{
    enum status status = pass_over(shard, start - shard->raw_at, error);
    if (status == STATUS_OK) {
        status = reserve(shard, (size_t)(end - start), error);
    }
    return status ? status : read_exactly(shard, shard->sample, (size_t)(end - start), error);
}

enum status mds_shard_next(struct mds_shard *shard, struct source_range *sample,
                           struct error *error)
{
    shard->goes_on = false;
    if (shard->next == shard->samples) {
        return shard->names_only ? STATUS_END : check_end(shard, error);
    }
    uint64_t number = shard->next++, start = shard->offsets[number],
             end = shard->offsets[number + 1];
    shard->goes_on = start == 0 || end == 0 || end - start > SAMPLE_BYTES;
    if (start == 0 || end == 0) {
        return error_set(error, STATUS_CORRUPT, shard->path, 4 * (number + 1), number,
                         "the sample lies outside the shard, or before the one before it");
    }
    if (end - start > SAMPLE_BYTES) {
        return error_set(error, STATUS_LIMIT, shard->path, start, number,
                         "a sample of %" PRIu64 " bytes", end - start);
    }
    if (shard->names_only) {
        source_range_file(sample, shard->fd, shard->path, start, end - start);
        return STATUS_OK;
    }
    enum status status = read_sample(shard, start, end, error);
    source_range_memory(sample, shard->sample, end - start, shard->path);
    return status;
}

bool mds_shard_goes_on(const struct mds_shard *shard)
{
    return shard != NULL && shard->goes_on;
}
