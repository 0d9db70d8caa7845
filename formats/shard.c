// Shards: shard-00000.tar.zst and on. Each is a tar in independent zstd frames with a seek table at
// the end (the zstd seekable format), so that `zstd -dc shard | tar t` and seekable readers both
// understand it. Layout: formats/README.md.
#include "formats/crc32c.h"
#include "formats/file.h"
#include "formats/limits.h"
#include "formats/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_SHARD_BYTES (UINT64_C(256) << 20)
// Content of frames that small images share. CIFAR-10 takes half the bytes that it takes with a
// frame for each image, and unpacking a frame for one of them costs little beside decoding that.
#define DEFAULT_FRAME_BYTES (8u << 10)
#define BUFFER_BYTES        (1u << 20)
#define DIRECT_BYTES        (32u << 10) // longer pieces are written from where they are
#define BEHIND_BYTES        (8u << 20)  // that the disk may lag behind
#define SEEK_ENTRY_BYTES    12u // compressed length, content length, checksum of the content
#define SEEK_FOOTER_BYTES   9u
#define SKIPPABLE_MAGIC     0x184d2a5eu
#define SEEKABLE_MAGIC      0x8f92eab1u
#define SEEK_HAS_CHECKSUMS  0x80u

struct shard_writer {
    char directory[512];
    char name[32], path[560]; // of the shard being written
    int fd;                   // -1 between shards
    uint32_t number;          // shards finished
    uint64_t length;          // bytes of this shard
    uint64_t started;         // of which so many are on their way to the disk
    uint32_t crc;             // of those bytes
    uint64_t frames;          // in this shard
    uint8_t *seek_table;
    size_t seek_capacity;
    uint64_t shard_bytes;
    uint8_t *buffer;
    size_t buffered;
    struct shard_framer *framer;
    struct dataset_packed end, frame; // the frame that ends a tar; the one that members share
    uint8_t *members;                 // contents that wait for their frame
    size_t members_len, frame_bytes;
    uint64_t waiting; // records whose members they are: the last so many of the builder's
    struct store_owner owner;
};

static void shard_close(void **state)
{
    struct shard_writer *shard = *state;
    if (shard != NULL) {
        file_close(&shard->fd, shard->path, NULL);
        shard_framer_close(&shard->framer);
        dataset_packed_free(&shard->end);
        dataset_packed_free(&shard->frame);
        free(shard->members);
        free(shard->seek_table);
        free(shard->buffer);
        free(shard);
        *state = NULL;
    }
}

static enum status shard_open(void **state, const char *directory,
                              const struct dataset_writer_config *config,
                              const struct store_owner *owner, struct error *error)
{
    struct shard_writer *shard = calloc(1, sizeof *shard);
    *state = shard;
    if (shard == NULL) {
        return error_set(error, STATUS_NO_MEMORY, directory, NOWHERE, NOWHERE,
                         "no memory to write shards");
    }
    shard->fd = -1;
    shard->owner = *owner;
    shard->shard_bytes = config->shard_bytes ? config->shard_bytes : DEFAULT_SHARD_BYTES;
    snprintf(shard->directory, sizeof shard->directory, "%s", directory);
    shard->frame_bytes = config->frame_bytes ? config->frame_bytes : DEFAULT_FRAME_BYTES;
    if (shard->frame_bytes > LIMIT_FRAME_SHARED) {
        shard->frame_bytes = LIMIT_FRAME_SHARED;
    }
    shard->buffer = malloc(BUFFER_BYTES);
    shard->members = malloc(LIMIT_FRAME_SHARED + SHARD_MEMBER_BYTES);
    if (shard->buffer == NULL || shard->members == NULL) {
        return error_set(error, STATUS_NO_MEMORY, directory, NOWHERE, NOWHERE,
                         "no memory to write shards");
    }
    return shard_framer_open(&shard->framer, error);
}

// --- bytes -------------------------------------------------------------------------------------

// Writes the buffer, and then `bytes`; the shard is `length` long by then.
static enum status flush_and_write(struct shard_writer *shard, const void *bytes, size_t len,
                                   struct error *error)
{
    size_t buffered = shard->buffered;
    shard->buffered = 0;
    enum status status =
        file_write_both(shard->fd, shard->path, shard->buffer, buffered, bytes, len, error);
    if (status == STATUS_OK && shard->length - shard->started >= BEHIND_BYTES) {
        file_start_sync(shard->fd, shard->started, shard->length - shard->started);
        shard->started = shard->length;
    }
    return status;
}

// Does not add to the shard's checksum: of frames it is known.
static enum status put(void *state, const void *bytes, size_t len, struct error *error)
{
    struct shard_writer *shard = state;
    shard->length += len;
    bool direct = len >= DIRECT_BYTES;
    if (direct || shard->buffered + len > BUFFER_BYTES) {
        enum status status = flush_and_write(shard, direct ? bytes : NULL, direct ? len : 0, error);
        if (direct || status != STATUS_OK) {
            return status;
        }
    }
    memcpy(shard->buffer + shard->buffered, bytes, len);
    shard->buffered += len;
    return STATUS_OK;
}

static enum status put_summed(struct shard_writer *shard, const void *bytes, size_t len,
                              struct error *error)
{
    shard->crc = crc32c(shard->crc, bytes, len);
    return put(shard, bytes, len, error);
}

static enum status put_frame(struct shard_writer *shard, const struct dataset_item *item,
                             const struct dataset_packed *packed, struct error *error)
{
    size_t at = shard->frames * SEEK_ENTRY_BYTES;
    if (at + SEEK_ENTRY_BYTES > shard->seek_capacity) {
        size_t capacity = 2 * at + 1024 * SEEK_ENTRY_BYTES;
        uint8_t *grown = realloc(shard->seek_table, capacity);
        if (grown == NULL) {
            return error_set(error, STATUS_NO_MEMORY, shard->path, NOWHERE, NOWHERE,
                             "no memory for the seek table");
        }
        shard->seek_table = grown;
        shard->seek_capacity = capacity;
    }
    // A frame's last four bytes are the checksum of its content, the one the seek table wants.
    uint32_t len = packed->record.stored_length;
    index_store32(shard->seek_table + at, len);
    index_store32(shard->seek_table + at + 4, packed->record.frame_length);
    memcpy(shard->seek_table + at + 8, packed->stored + packed->stored_len - 4, 4);
    shard->frames++;
    shard->crc = crc32c_join(shard->crc, packed->stored_crc, len);
    return shard_frame_pieces(item, packed, put, shard, error);
}

static enum status put_seek_table(struct shard_writer *shard, struct error *error)
{
    uint8_t head[8], footer[SEEK_FOOTER_BYTES];
    size_t len = shard->frames * SEEK_ENTRY_BYTES;
    index_store32(head, SKIPPABLE_MAGIC);
    index_store32(head + 4, (uint32_t)len + SEEK_FOOTER_BYTES);
    index_store32(footer, (uint32_t)shard->frames);
    footer[4] = SEEK_HAS_CHECKSUMS;
    index_store32(footer + 5, SEEKABLE_MAGIC);
    enum status status = put_summed(shard, head, sizeof head, error);
    if (status == STATUS_OK) {
        status = put_summed(shard, shard->seek_table, len, error);
    }
    return status ? status : put_summed(shard, footer, sizeof footer, error);
}

// --- shards ------------------------------------------------------------------------------------

static void set_names(struct shard_writer *shard, uint32_t number)
{
    snprintf(shard->name, sizeof shard->name, "shard-%05u.tar.zst", number);
    snprintf(shard->path, sizeof shard->path, "%s/%s", shard->directory, shard->name);
}

static enum status start_shard(struct shard_writer *shard, struct error *error)
{
    if (shard->number >= LIMIT_SHARDS) {
        return error_set(error, STATUS_LIMIT, shard->directory, NOWHERE, NOWHERE,
                         "more than %llu shards: choose larger ones",
                         (unsigned long long)LIMIT_SHARDS);
    }
    set_names(shard, shard->number);
    shard->length = shard->started = 0;
    shard->crc = 0;
    shard->frames = 0;
    shard->buffered = 0;
    return file_create(&shard->fd, shard->path, error);
}

static enum status finish_shard(struct shard_writer *shard, struct index_builder *builder,
                                struct error *error)
{
    enum status status = shard_framer_pack_end(shard->framer, &shard->end, error);
    if (status == STATUS_OK) {
        status = put_frame(shard, NULL, &shard->end, error);
    }
    if (status == STATUS_OK) {
        status = put_seek_table(shard, error);
    }
    if (status == STATUS_OK) {
        status = flush_and_write(shard, NULL, 0, error);
    }
    if (status == STATUS_OK) {
        status = file_sync(shard->fd, shard->path, error);
    }
    if (status == STATUS_OK) {
        status = file_close(&shard->fd, shard->path, error);
    }
    if (status == STATUS_OK) {
        struct index_file file = {.length = shard->length, .crc = shard->crc};
        status = index_builder_add_file(builder, shard->name, &file, error);
        shard->number++;
    }
    if (status == STATUS_OK) {
        uint64_t stored = builder->part[INDEX_RECORDS].count - shard->waiting;
        status = shard->owner.checkpoint(shard->owner.context, stored, shard->number, true, error);
    }
    return status;
}

// Puts a frame into this shard, or into a new one when this is full; `record` learns where.
static enum status place_frame(struct shard_writer *shard, const struct dataset_item *item,
                               const struct dataset_packed *packed, struct index_builder *builder,
                               struct dataset_record *record, struct error *error)
{
    uint32_t len = packed->record.stored_length;
    bool full = shard->fd >= 0 && (shard->length + len > shard->shard_bytes ||
                                   shard->frames + 1 >= LIMIT_SHARD_RECORDS);
    enum status status = full ? finish_shard(shard, builder, error) : STATUS_OK;
    if (status == STATUS_OK && shard->fd < 0) {
        status = start_shard(shard, error);
    }
    record->file = shard->number;
    record->offset = shard->length;
    return status ? status : put_frame(shard, item, packed, error);
}

// Gives the members that wait their frame, and tells their records.
static enum status flush_members(struct shard_writer *shard, struct index_builder *builder,
                                 struct error *error)
{
    if (shard->waiting == 0) {
        return STATUS_OK;
    }
    struct dataset_record place = {0};
    enum status status = shard_framer_pack_members(shard->framer, shard->members,
                                                   shard->members_len, &shard->frame, error);
    if (status == STATUS_OK) {
        status = place_frame(shard, NULL, &shard->frame, builder, &place, error);
    }
    uint64_t count = builder->part[INDEX_RECORDS].count;
    for (uint64_t i = count - shard->waiting; status == STATUS_OK && i < count; i++) {
        struct dataset_record record = index_builder_record(builder, i);
        record.file = place.file;
        record.offset = place.offset;
        record.stored_length = shard->frame.record.stored_length;
        record.frame_length = shard->frame.record.frame_length;
        index_builder_set_record(builder, i, &record);
    }
    shard->waiting = 0;
    shard->members_len = 0;
    return status;
}

// A member joins those that wait; until they have a frame, its record says only where in it.
static enum status add_member(struct shard_writer *shard, const struct dataset_packed *packed,
                              struct index_builder *builder, struct dataset_record *record,
                              struct error *error)
{
    uint32_t len = packed->record.frame_length;
    enum status status = STATUS_OK;
    if (shard->members_len + len > shard->frame_bytes) {
        status = flush_members(shard, builder, error);
    }
    memcpy(shard->members + shard->members_len, packed->stored, len);
    record->inner_offset += (uint32_t)shard->members_len;
    shard->members_len += len;
    shard->waiting++;
    return status;
}

static enum status shard_add(void *state, const struct dataset_item *item,
                             const struct dataset_packed *packed, struct index_builder *builder,
                             struct dataset_record *record, struct error *error)
{
    struct shard_writer *shard = state;
    if (packed->member) {
        return add_member(shard, packed, builder, record, error);
    }
    enum status status = flush_members(shard, builder, error);
    return status ? status : place_frame(shard, item, packed, builder, record, error);
}

static enum status shard_finish(void *state, struct index_builder *builder, struct error *error)
{
    struct shard_writer *shard = state;
    enum status status = flush_members(shard, builder, error);
    if (status == STATUS_OK && shard->fd >= 0) {
        status = finish_shard(shard, builder, error);
    }
    return status;
}

// --- going on ----------------------------------------------------------------------------------

// A shard's mark is how many there are: they were synced before the journal said so.
static bool shard_has(void *state, uint64_t mark)
{
    struct shard_writer *shard = state;
    if (mark == 0 || mark > LIMIT_SHARDS) {
        return false;
    }
    set_names(shard, (uint32_t)mark - 1);
    return file_exists(shard->path);
}

// The shard that the killed writer had not finished is begun again, and any that a damaged journal
// does not tell of.
static enum status shard_resume(void *state, const struct index_builder *builder,
                                struct error *error)
{
    struct shard_writer *shard = state;
    shard->number = (uint32_t)builder->part[INDEX_FILES].count;
    const char *name = (const char *)builder->part[INDEX_FILE_NAMES].bytes;
    for (uint32_t i = 0; i < shard->number; i++, name += strlen(name) + 1) {
        uint64_t want = index_load64(builder->part[INDEX_FILES].bytes + i * INDEX_FILE_BYTES);
        struct stat about;
        set_names(shard, i);
        if (strcmp(name, shard->name) != 0 || stat(shard->path, &about) != 0 ||
            (uint64_t)about.st_size != want) {
            return error_set(error, STATUS_CORRUPT, shard->path, NOWHERE, NOWHERE,
                             "not as the journal says: remove %.200s and convert anew",
                             shard->directory);
        }
    }
    for (uint32_t i = shard->number;; i++) {
        set_names(shard, i);
        if (unlink(shard->path) != 0) {
            return errno == ENOENT ? STATUS_OK
                                   : error_errno(error, errno, shard->path, NOWHERE, "remove");
        }
    }
}

const struct store store_shards = {.open = shard_open,
                                   .has = shard_has,
                                   .resume = shard_resume,
                                   .add = shard_add,
                                   .finish = shard_finish,
                                   .close = shard_close};
