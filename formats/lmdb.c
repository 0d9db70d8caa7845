// The LMDB store: DATASET/data.mdb, key = record number as ten decimal digits, value = the image
// file's bytes. liblmdb only ever opens what this process has just written: reading goes through
// the index, because liblmdb trusts its file and dies on a damaged one.
//
// The bytes are the same on every run: records are appended in key order, committed in batches
// whose size depends on the records alone, and MDB_WRITEMAP and MDB_NOMEMINIT are off, so that
// liblmdb zeroes pages before it uses them. The environment is opened anew for each batch, so that
// nothing but the file decides which pages the next one takes: a writer that goes on from a killed
// one's last batch takes the same.
#include "formats/crc32c.h"
#include "formats/file.h"
#include "formats/limits.h"
#include "formats/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define DATA_NAME     "data.mdb"
#define FIRST_MAP     ((size_t)64 << 20)
#define BATCH_BYTES   ((size_t)16 << 20)                    // of dirty pages held in memory
#define RECORD_PAGES  2                                     // besides the value: leaf, rounding
#define BATCH_CEILING (BATCH_BYTES + 2 * LIMIT_IMAGE_BYTES) // with its last record and the tree
#define KEY_DIGITS    10
#define READ_BYTES    ((size_t)256 << 10) // stays in a core's cache

struct lmdb_writer {
    char directory[512], path[560];
    MDB_env *env;
    MDB_txn *txn; // NULL between batches
    MDB_dbi dbi;
    uint64_t count; // records
    size_t batch;   // bytes of the batch so far
    size_t page_size, map_size;
    struct store_owner owner;
};

// LMDB reports a write that was cut short as EIO. Says whether the disk, or the limit on a file's
// size, had no room for a batch.
static int explain_short_write(const struct lmdb_writer *lmdb)
{
    struct statvfs disk;
    if (statvfs(lmdb->directory, &disk) == 0 &&
        (uint64_t)disk.f_bavail * disk.f_frsize < lmdb->batch + 64 * lmdb->page_size) {
        return ENOSPC;
    }
    struct rlimit limit;
    struct stat about;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        stat(lmdb->path, &about) == 0 &&
        (uint64_t)about.st_size + lmdb->batch + 64 * lmdb->page_size > limit.rlim_cur) {
        return EFBIG;
    }
    return EIO;
}

static enum status failed(const struct lmdb_writer *lmdb, int code, const char *what,
                          struct error *error)
{
    if (code == EIO) {
        code = explain_short_write(lmdb);
    }
    if (code > 0) {
        return error_errno(error, code, lmdb->path, NOWHERE, what);
    }
    return error_set(error, STATUS_IO, lmdb->path, NOWHERE, NOWHERE, "cannot %s: %s", what,
                     mdb_strerror(code));
}

static void lmdb_close(void **state)
{
    struct lmdb_writer *lmdb = *state;
    if (lmdb != NULL) {
        mdb_txn_abort(lmdb->txn);
        if (lmdb->env != NULL) {
            mdb_env_close(lmdb->env);
        }
        free(lmdb);
        *state = NULL;
    }
}

static enum status open_environment(struct lmdb_writer *lmdb, unsigned flags, struct error *error)
{
    int code = mdb_env_create(&lmdb->env);
    if (code == 0) {
        code = mdb_env_set_mapsize(lmdb->env, lmdb->map_size);
    }
    if (code == 0) {
        code = mdb_env_open(lmdb->env, lmdb->directory, flags | MDB_NOLOCK, 0644);
    }
    return code ? failed(lmdb, code, "open the LMDB", error) : STATUS_OK;
}

static enum status lmdb_open(void **state, const char *directory,
                             const struct dataset_writer_config *config,
                             const struct store_owner *owner, struct error *error)
{
    (void)config;
    struct lmdb_writer *lmdb = calloc(1, sizeof *lmdb);
    *state = lmdb;
    if (lmdb == NULL) {
        return error_set(error, STATUS_NO_MEMORY, directory, NOWHERE, NOWHERE,
                         "no memory to write an LMDB");
    }
    snprintf(lmdb->directory, sizeof lmdb->directory, "%s", directory);
    snprintf(lmdb->path, sizeof lmdb->path, "%s/" DATA_NAME, directory);
    lmdb->owner = *owner;
    lmdb->map_size = FIRST_MAP;
    lmdb->page_size = 4096;
    // Synced once, at the end: until then nothing refers to this file.
    enum status status = open_environment(lmdb, MDB_NOSYNC, error);
    MDB_stat about;
    if (status == STATUS_OK && mdb_env_stat(lmdb->env, &about) == 0) {
        lmdb->page_size = about.ms_psize;
    }
    return status;
}

// --- writing -----------------------------------------------------------------------------------

// The map must hold the whole batch before it starts; it grows by doubling.
static int make_room(struct lmdb_writer *lmdb)
{
    MDB_envinfo info;
    int code = mdb_env_info(lmdb->env, &info);
    if (code != 0) {
        return code;
    }
    size_t used = (info.me_last_pgno + 1) * lmdb->page_size, map_size = lmdb->map_size;
    while (map_size < used || map_size - used < BATCH_CEILING) {
        map_size *= 2;
        if (map_size > SIZE_MAX / 4) {
            return ENOMEM;
        }
    }
    if (map_size != lmdb->map_size) {
        code = mdb_env_set_mapsize(lmdb->env, map_size);
        lmdb->map_size = map_size;
    }
    return code;
}

static enum status begin_batch(struct lmdb_writer *lmdb, struct error *error)
{
    int code = make_room(lmdb);
    if (code == 0) {
        code = mdb_txn_begin(lmdb->env, NULL, 0, &lmdb->txn);
    }
    if (code == 0) {
        code = mdb_dbi_open(lmdb->txn, NULL, 0, &lmdb->dbi);
    }
    lmdb->batch = 0;
    return code ? failed(lmdb, code, "begin a transaction", error) : STATUS_OK;
}

// The journal is told before the commit: a transaction that it tells of and that LMDB lacks is
// known by its number, but one that it did not tell of would be lost.
static enum status end_batch(struct lmdb_writer *lmdb, struct error *error)
{
    if (lmdb->txn == NULL) {
        return STATUS_OK;
    }
    MDB_txn *txn = lmdb->txn;
    enum status status =
        lmdb->owner.checkpoint(lmdb->owner.context, lmdb->count, mdb_txn_id(txn), false, error);
    lmdb->txn = NULL;
    if (status != STATUS_OK) {
        mdb_txn_abort(txn);
        return status;
    }
    int code = file_fault ? file_fault("write", lmdb->path) : 0;
    if (code != 0) {
        mdb_txn_abort(txn);
    } else {
        code = mdb_txn_commit(txn);
    }
    if (code != 0) {
        return failed(lmdb, code, "write", error);
    }
    mdb_filehandle_t fd;
    if (mdb_env_get_fd(lmdb->env, &fd) == 0) {
        file_start_sync(fd, 0, 0);
    }
    mdb_env_close(lmdb->env);
    lmdb->env = NULL;
    return open_environment(lmdb, MDB_NOSYNC, error);
}

static enum status lmdb_add(void *state, const struct dataset_item *item,
                            const struct dataset_packed *packed, struct index_builder *builder,
                            struct dataset_record *record, struct error *error)
{
    (void)packed;
    (void)builder;
    struct lmdb_writer *lmdb = state;
    enum status status = STATUS_OK;
    if (lmdb->batch >= BATCH_BYTES) {
        status = end_batch(lmdb, error);
    }
    if (status == STATUS_OK && lmdb->txn == NULL) {
        status = begin_batch(lmdb, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    char digits[24];
    snprintf(digits, sizeof digits, "%0*" PRIu64, KEY_DIGITS, lmdb->count);
    MDB_val key = {.mv_size = KEY_DIGITS, .mv_data = digits};
    MDB_val value = {.mv_size = item->len, .mv_data = (void *)item->bytes};
    int code = mdb_put(lmdb->txn, lmdb->dbi, &key, &value, MDB_APPEND);
    if (code != 0) {
        return failed(lmdb, code, "store a record", error);
    }
    record->file = 0;
    lmdb->count++;
    lmdb->batch += item->len + RECORD_PAGES * lmdb->page_size;
    return STATUS_OK;
}

// --- going on ----------------------------------------------------------------------------------

// Its mark is the number of the last transaction that is committed.
static bool lmdb_has(void *state, uint64_t mark)
{
    struct lmdb_writer *lmdb = state;
    MDB_envinfo info;
    return mdb_env_info(lmdb->env, &info) == 0 && info.me_last_txnid == mark;
}

static enum status lmdb_resume(void *state, const struct index_builder *builder,
                               struct error *error)
{
    struct lmdb_writer *lmdb = state;
    lmdb->count = builder->part[INDEX_RECORDS].count;
    MDB_stat about;
    int code = mdb_env_stat(lmdb->env, &about);
    if (code == 0 && about.ms_entries != lmdb->count) {
        return error_set(error, STATUS_CORRUPT, lmdb->path, NOWHERE, NOWHERE,
                         "holds %zu records where the journal says %" PRIu64
                         ": remove %.200s and convert anew",
                         about.ms_entries, lmdb->count, lmdb->directory);
    }
    return code ? failed(lmdb, code, "look at", error) : STATUS_OK;
}

// --- locating ----------------------------------------------------------------------------------

// A value's page starts with its own number, so the file offset follows from the address alone.
static uint64_t value_offset(const struct lmdb_writer *lmdb, const MDB_val *value)
{
    uintptr_t address = (uintptr_t)value->mv_data, page = address & ~(lmdb->page_size - 1);
    size_t number;
    memcpy(&number, (const void *)page, sizeof number);
    return (uint64_t)number * lmdb->page_size + (address - page);
}

static enum status locate_all(struct lmdb_writer *lmdb, struct index_builder *builder,
                              struct error *error)
{
    MDB_cursor *cursor = NULL;
    MDB_val key, value;
    uint64_t found = 0;
    int code = mdb_txn_begin(lmdb->env, NULL, MDB_RDONLY, &lmdb->txn);
    if (code == 0) {
        code = mdb_dbi_open(lmdb->txn, NULL, 0, &lmdb->dbi);
    }
    if (code == 0) {
        code = mdb_cursor_open(lmdb->txn, lmdb->dbi, &cursor);
    }
    while (code == 0 && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0 &&
           found < lmdb->count) {
        struct dataset_record record = index_builder_record(builder, found);
        record.offset = value_offset(lmdb, &value);
        index_builder_set_record(builder, found++, &record);
    }
    if (cursor != NULL) {
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(lmdb->txn);
    lmdb->txn = NULL;
    if (code != MDB_NOTFOUND || found != lmdb->count) {
        return failed(lmdb, code == 0 ? MDB_CORRUPTED : code, "find the records again", error);
    }
    return STATUS_OK;
}

// --- reading back ------------------------------------------------------------------------------

// The file is read once, from its start: records and what lies between them, each with a checksum
// of its own. Together they are the file's.
struct read_back {
    const struct lmdb_writer *lmdb;
    const struct index_builder *builder;
    int fd;
    uint64_t next;      // record
    uint64_t at, end;   // of the piece that is being read
    uint32_t piece_crc; // of it so far
    bool is_record;     // number `next` - 1
    struct index_file file;
};

static enum status compare_record(const struct read_back *back, uint64_t number, uint32_t crc,
                                  struct error *error)
{
    struct dataset_record record = index_builder_record(back->builder, number);
    return crc == record.crc
               ? STATUS_OK
               : error_set(error, STATUS_CORRUPT, back->lmdb->path, record.offset, number,
                           "the record read back differs from what was written");
}

// A small record may lie on a page that was free again, before its predecessor.
static enum status read_earlier(const struct read_back *back, uint64_t number,
                                const struct dataset_record *record, struct error *error)
{
    uint8_t *bytes = malloc(record->length);
    if (bytes == NULL) {
        return error_errno(error, ENOMEM, back->lmdb->path, NOWHERE, "allocate memory to verify");
    }
    enum status status =
        file_read_at(back->fd, back->lmdb->path, bytes, record->length, record->offset, error);
    if (status == STATUS_OK) {
        status = compare_record(back, number, crc32c(0, bytes, record->length), error);
    }
    free(bytes);
    return status;
}

// The piece that starts at back->at: the next record, or what is before it, or the file's rest.
static enum status next_piece(struct read_back *back, struct error *error)
{
    back->end = back->file.length;
    back->is_record = false;
    back->piece_crc = 0;
    while (back->next < back->lmdb->count) {
        struct dataset_record record = index_builder_record(back->builder, back->next);
        if (record.offset > back->at) {
            back->end = record.offset < back->end ? record.offset : back->end;
            return STATUS_OK;
        }
        back->next++;
        if (record.offset == back->at && record.length <= back->end - back->at) {
            back->end = back->at + record.length;
            back->is_record = true;
            return STATUS_OK;
        }
        enum status status = read_earlier(back, back->next - 1, &record, error);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

// The next bytes of the file; `piece_start` moves to where the next piece starts.
static enum status add_bytes(struct read_back *back, uint64_t *piece_start, const uint8_t *bytes,
                             size_t len, struct error *error)
{
    while (len > 0) {
        uint64_t rest = back->end - back->at;
        size_t step = len < rest ? len : (size_t)rest;
        back->piece_crc = crc32c(back->piece_crc, bytes, step);
        back->at += step;
        bytes += step;
        len -= step;
        if (back->at < back->end) {
            return STATUS_OK;
        }
        back->file.crc = crc32c_join(back->file.crc, back->piece_crc, back->at - *piece_start);
        *piece_start = back->at;
        enum status status = back->is_record
                                 ? compare_record(back, back->next - 1, back->piece_crc, error)
                                 : STATUS_OK;
        status = status ? status : next_piece(back, error);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

static enum status read_all_back(struct read_back *back, struct error *error)
{
    const char *path = back->lmdb->path;
    uint8_t *bytes = malloc(READ_BYTES);
    if (bytes == NULL) {
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory to verify");
    }
    uint64_t piece_start = 0;
    enum status status = next_piece(back, error);
    for (uint64_t at = 0; at < back->file.length && status == STATUS_OK; at += READ_BYTES) {
        uint64_t rest = back->file.length - at;
        size_t len = rest < READ_BYTES ? (size_t)rest : READ_BYTES;
        status = file_read_at(back->fd, path, bytes, len, at, error);
        status = status ? status : add_bytes(back, &piece_start, bytes, len, error);
    }
    free(bytes);
    if (status == STATUS_OK && back->next < back->lmdb->count) {
        status = error_set(error, STATUS_CORRUPT, path, back->file.length, back->next,
                           "the file ends before this record");
    }
    return status;
}

// What the disk has still to take, it takes meanwhile.
static enum status verify_and_sync(const struct lmdb_writer *lmdb, struct index_builder *builder,
                                   struct error *error)
{
    int fd = open(lmdb->path, O_RDWR | O_CLOEXEC);
    struct stat about;
    if (fd < 0 || fstat(fd, &about) != 0) {
        enum status status = error_errno(error, errno, lmdb->path, NOWHERE, "open");
        if (fd >= 0) {
            close(fd);
        }
        return status;
    }
    file_start_sync(fd, 0, 0);
    struct read_back back = {
        .lmdb = lmdb, .builder = builder, .fd = fd, .file.length = (uint64_t)about.st_size};
    enum status status = read_all_back(&back, error);
    if (status == STATUS_OK) {
        status = file_sync(fd, lmdb->path, error);
    }
    close(fd);
    return status ? status : index_builder_add_file(builder, DATA_NAME, &back.file, error);
}

static enum status lmdb_finish(void *state, struct index_builder *builder, struct error *error)
{
    struct lmdb_writer *lmdb = state;
    enum status status = end_batch(lmdb, error);
    if (status != STATUS_OK) {
        return status;
    }
    mdb_env_close(lmdb->env);
    lmdb->env = NULL;
    status = open_environment(lmdb, MDB_RDONLY, error);
    if (status == STATUS_OK) {
        status = locate_all(lmdb, builder, error);
    }
    return status ? status : verify_and_sync(lmdb, builder, error);
}

const struct store store_lmdb = {.open = lmdb_open,
                                 .has = lmdb_has,
                                 .resume = lmdb_resume,
                                 .add = lmdb_add,
                                 .finish = lmdb_finish,
                                 .close = lmdb_close};
