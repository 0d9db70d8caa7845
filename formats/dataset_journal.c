// A header, then entries; each has a length and a checksum, so that the one that a kill cut short
// is known. A checkpoint repeats what the index has grown by.
#include "formats/dataset_journal.h"
#include "formats/crc32c.h"
#include "formats/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEADER_BYTES 32u // magic, version, store, boot, length and checksum of the key
#define ENTRY_HEAD   16u // kind, checksum, length of what follows
#define TRACE_BYTES  16u
#define KEY_LIMIT    (1u << 20)
#define FILE_LIMIT   ((uint64_t)1 << 36)

enum { ENTRY_CHECKPOINT = 0x54504b43, ENTRY_REMARK = 0x4b4d4552, ENTRY_PLACES = 0x43414c50 };

static const uint8_t magic[8] = {'B', 'Y', 'O', 'L', 'J', 'R', 'N', '\n'};
static const enum index_section sections[] = {INDEX_FILES, INDEX_FILE_NAMES, INDEX_RECORDS,
                                              INDEX_RECORD_NAMES};
#define SECTIONS (sizeof sections / sizeof *sections)

void journal_close(struct journal *journal)
{
    file_close(&journal->fd, journal->path, NULL);
    free(journal->traces);
    free(journal->bytes);
    free(journal->remarks);
    *journal = (struct journal){.fd = -1};
}

// LMDB's file is not synced before the end: after a power cut it is not to be trusted.
static uint32_t boot_of(enum dataset_store store)
{
    uint8_t *text;
    size_t len;
    if (store != DATASET_LMDB ||
        file_read_all("/proc/sys/kernel/random/boot_id", 4096, &text, &len, NULL) != STATUS_OK) {
        return 0;
    }
    uint32_t boot = crc32c(0, text, len);
    free(text);
    return boot;
}

static void fill_header(uint8_t header[HEADER_BYTES], enum dataset_store store, const char *key)
{
    memset(header, 0, HEADER_BYTES);
    memcpy(header, magic, 8);
    index_store32(header + 8, 1);
    index_store32(header + 12, (uint32_t)store);
    index_store32(header + 16, boot_of(store));
    index_store32(header + 20, (uint32_t)strlen(key));
    index_store32(header + 24, crc32c(0, key, strlen(key)));
    index_store32(header + 28, crc32c(0, header, 28));
}

void journal_in(struct journal *journal, const char *directory)
{
    snprintf(journal->path, sizeof journal->path, "%s/" JOURNAL_FILE_NAME, directory);
}

// --- entries -----------------------------------------------------------------------------------

struct entry {
    uint32_t kind;
    const uint8_t *body;
    size_t len;
};

// The entry at *at; false at the end and where the file stops making sense.
static bool next_entry(const struct journal *journal, size_t *at, struct entry *entry)
{
    size_t rest = journal->len - *at;
    if (rest < ENTRY_HEAD) {
        return false;
    }
    const uint8_t *head = journal->bytes + *at;
    uint64_t len = index_load64(head + 8);
    if (len > rest - ENTRY_HEAD || len < TRACE_BYTES) {
        return false;
    }
    *entry =
        (struct entry){.kind = index_load32(head), .body = head + ENTRY_HEAD, .len = (size_t)len};
    *at += ENTRY_HEAD + (size_t)len;
    return crc32c(0, entry->body, entry->len) == index_load32(head + 4);
}

static enum status write_entry(struct journal *journal, uint32_t kind, uint8_t *bytes, size_t len,
                               struct error *error)
{
    index_store32(bytes, kind);
    index_store32(bytes + 4, crc32c(0, bytes + ENTRY_HEAD, len - ENTRY_HEAD));
    index_store64(bytes + 8, len - ENTRY_HEAD);
    return file_write_all(journal->fd, journal->path, bytes, len, error);
}

// --- finding one -------------------------------------------------------------------------------

static bool begun(const char *path)
{
    uint8_t start[sizeof magic];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool ours = fd >= 0 && file_read_at(fd, path, start, sizeof start, 0, NULL) == STATUS_OK &&
                memcmp(start, magic, sizeof magic) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return ours;
}

// Reads the file; *whole is false where there is none, or not the beginning of one.
static enum status load(struct journal *journal, const char *directory, bool *whole,
                        struct error *error)
{
    *whole = false;
    journal_in(journal, directory);
    if (!begun(journal->path)) {
        return STATUS_OK;
    }
    enum status status =
        file_read_all(journal->path, FILE_LIMIT, &journal->bytes, &journal->len, error);
    if (status != STATUS_OK) {
        return status;
    }
    const uint8_t *header = journal->bytes;
    *whole = journal->len >= HEADER_BYTES && crc32c(0, header, 28) == index_load32(header + 28) &&
             index_load32(header + 8) == 1 && index_load32(header + 20) <= KEY_LIMIT &&
             index_load32(header + 20) <= journal->len - HEADER_BYTES;
    journal->key_end = *whole ? HEADER_BYTES + index_load32(header + 20) : 0;
    return STATUS_OK;
}

bool journal_key_is(const struct journal *journal, const char *key)
{
    size_t len = strlen(key);
    return journal->key_end == HEADER_BYTES + len &&
           memcmp(journal->bytes + HEADER_BYTES, key, len) == 0;
}

enum status journal_find(struct journal *journal, const char *directory, enum dataset_store store,
                         const char *key, bool *found, struct error *error)
{
    *found = false;
    bool whole;
    uint8_t want[HEADER_BYTES];
    fill_header(want, store, key);
    enum status status = load(journal, directory, &whole, error);
    if (status != STATUS_OK || !whole) {
        return status; // killed before it was begun: nothing to lose
    }
    size_t at = journal->key_end;
    struct entry entry;
    bool any = false;
    while (!any && next_entry(journal, &at, &entry)) {
        any = entry.kind == ENTRY_CHECKPOINT;
    }
    bool same = memcmp(journal->bytes + 8, want + 8, 8) == 0 && journal_key_is(journal, key);
    if (any && !same) {
        return error_set(error, STATUS_EXISTS, directory, NOWHERE, NOWHERE,
                         "an unfinished conversion with other options or by another version, or of "
                         "sources that have changed since");
    }
    *found = any && memcmp(journal->bytes, want, HEADER_BYTES) == 0;
    return STATUS_OK;
}

enum status journal_find_places(struct journal *journal, const char *directory,
                                struct journal_places *places, struct error *error)
{
    *places = (struct journal_places){0};
    bool whole;
    enum status status = load(journal, directory, &whole, error);
    size_t at = journal->key_end;
    struct entry entry;
    while (status == STATUS_OK && whole && next_entry(journal, &at, &entry)) {
        uint64_t count = index_load64(entry.body);
        if (entry.kind == ENTRY_PLACES && count <= (entry.len - 8) / 8) {
            *places = (struct journal_places){.count = (size_t)count,
                                              .ids = entry.body + 8,
                                              .about = entry.body + 8 + 8 * count,
                                              .about_len = entry.len - 8 - 8 * (size_t)count};
        } else { // work went on behind it
            *places = (struct journal_places){0};
        }
    }
    return status;
}

// --- replaying ---------------------------------------------------------------------------------

struct piece {
    uint64_t count;
    size_t len;
    const uint8_t *bytes;
};

struct checkpoint {
    uint64_t mark;
    struct piece piece[SECTIONS], traces;
};

static bool cut_piece(const struct entry *entry, size_t *at, struct piece *piece)
{
    if (entry->len - *at < 16) {
        return false;
    }
    piece->count = index_load64(entry->body + *at);
    uint64_t len = index_load64(entry->body + *at + 8);
    *at += 16;
    if (len > entry->len - *at) {
        return false;
    }
    piece->len = (size_t)len;
    piece->bytes = entry->body + *at;
    *at += piece->len;
    return true;
}

static bool strings_agree(const struct piece *piece)
{
    uint64_t ends = 0;
    for (size_t i = 0; i < piece->len; i++) {
        ends += piece->bytes[i] == '\0';
    }
    return ends == piece->count && (piece->len == 0 || piece->bytes[piece->len - 1] == '\0');
}

static bool read_checkpoint(const struct entry *entry, struct checkpoint *out)
{
    size_t at = 8;
    out->mark = index_load64(entry->body);
    bool good = entry->kind == ENTRY_CHECKPOINT;
    for (size_t i = 0; good && i < SECTIONS; i++) {
        good = cut_piece(entry, &at, &out->piece[i]);
    }
    good = good && cut_piece(entry, &at, &out->traces) && at == entry->len;
    return good && out->piece[0].count == out->piece[1].count &&
           out->piece[2].count == out->piece[3].count && out->piece[2].count == out->traces.count &&
           out->piece[0].len / INDEX_FILE_BYTES == out->piece[0].count &&
           out->piece[2].len / INDEX_RECORD_BYTES == out->piece[2].count &&
           out->traces.len / TRACE_BYTES == out->traces.count &&
           out->piece[0].len % INDEX_FILE_BYTES == 0 &&
           out->piece[2].len % INDEX_RECORD_BYTES == 0 && out->traces.len % TRACE_BYTES == 0 &&
           strings_agree(&out->piece[1]) && strings_agree(&out->piece[3]);
}

static struct dataset_trace load_trace(const uint8_t *at)
{
    return (struct dataset_trace){.position = index_load64(at), .about = index_load64(at + 8)};
}

static enum status take_checkpoint(struct journal *journal, const struct checkpoint *checkpoint,
                                   struct index_builder *builder, struct name_set *names,
                                   struct error *error)
{
    const struct piece *files = &checkpoint->piece[0], *file_names = &checkpoint->piece[1];
    const struct piece *records = &checkpoint->piece[2], *record_names = &checkpoint->piece[3];
    enum status status = STATUS_OK;
    const char *name = (const char *)file_names->bytes;
    for (uint64_t i = 0; i < files->count && status == STATUS_OK; i++, name += strlen(name) + 1) {
        const uint8_t *at = files->bytes + i * INDEX_FILE_BYTES;
        const struct index_file file = {.length = index_load64(at), .crc = index_load32(at + 8)};
        status = index_builder_add_file(builder, name, &file, error);
    }
    name = (const char *)record_names->bytes;
    for (uint64_t i = 0; i < records->count && status == STATUS_OK; i++, name += strlen(name) + 1) {
        const struct dataset_record record =
            index_load_record(records->bytes + i * INDEX_RECORD_BYTES);
        const struct dataset_trace trace = load_trace(checkpoint->traces.bytes + i * TRACE_BYTES);
        bool fresh;
        status = name_set_add(names, name, &fresh, error);
        status = status ? status : index_builder_add_record(builder, name, &record, error);
        status = status ? status : journal_trace(journal, &trace, error);
    }
    return status;
}

static enum status take_remark(struct journal *journal, const struct entry *entry,
                               struct error *error)
{
    struct journal_remark *grown =
        realloc(journal->remarks, (journal->remark_count + 1) * sizeof *grown);
    if (grown == NULL) {
        return error_errno(error, ENOMEM, journal->path, NOWHERE, "allocate memory to go on");
    }
    journal->remarks = grown;
    if (entry->len > TRACE_BYTES && entry->body[entry->len - 1] == '\0') {
        grown[journal->remark_count++] = (struct journal_remark){
            .trace = load_trace(entry->body), .text = (const char *)entry->body + TRACE_BYTES};
    }
    return STATUS_OK;
}

static void note_told(struct journal *journal, const struct index_builder *builder)
{
    for (size_t i = 0; i < SECTIONS; i++) {
        journal->told[sections[i]].len = builder->part[sections[i]].len;
        journal->told[sections[i]].count = builder->part[sections[i]].count;
    }
}

// Where the last checkpoint ends that the store still has; 0 = none.
static size_t find_end(const struct journal *journal, bool (*has)(void *context, uint64_t mark),
                       void *context)
{
    size_t at = journal->key_end, end = 0;
    struct entry entry;
    struct checkpoint checkpoint;
    while (next_entry(journal, &at, &entry)) {
        if (entry.kind == ENTRY_CHECKPOINT && read_checkpoint(&entry, &checkpoint) &&
            has(context, checkpoint.mark)) {
            end = at;
        }
    }
    return end;
}

enum status journal_replay(struct journal *journal, bool (*has)(void *context, uint64_t mark),
                           void *context, struct index_builder *builder, struct name_set *names,
                           bool *resumed, struct error *error)
{
    size_t end = find_end(journal, has, context), at = journal->key_end;
    *resumed = end > 0;
    enum status status = STATUS_OK;
    struct entry entry;
    while (status == STATUS_OK && at < end && next_entry(journal, &at, &entry)) {
        struct checkpoint checkpoint;
        if (entry.kind == ENTRY_REMARK) {
            status = take_remark(journal, &entry, error);
        } else if (read_checkpoint(&entry, &checkpoint)) {
            status = take_checkpoint(journal, &checkpoint, builder, names, error);
            journal->entries++;
        }
    }
    if (status != STATUS_OK || !*resumed) {
        return status;
    }
    note_told(journal, builder);
    journal->fd = open(journal->path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (journal->fd < 0 || ftruncate(journal->fd, (off_t)end) != 0 ||
        lseek(journal->fd, 0, SEEK_END) < 0) {
        return error_errno(error, errno, journal->path, NOWHERE, "open");
    }
    return STATUS_OK;
}

// --- writing -----------------------------------------------------------------------------------

enum status journal_begin(struct journal *journal, const char *directory, enum dataset_store store,
                          const char *key, struct error *error)
{
    journal_in(journal, directory);
    uint8_t header[HEADER_BYTES];
    fill_header(header, store, key);
    enum status status = file_create(&journal->fd, journal->path, error);
    if (status == STATUS_OK) {
        status = file_write_all(journal->fd, journal->path, header, sizeof header, error);
    }
    return status ? status : file_write_all(journal->fd, journal->path, key, strlen(key), error);
}

enum status journal_trace(struct journal *journal, const struct dataset_trace *trace,
                          struct error *error)
{
    if (journal->trace_count == journal->trace_capacity) {
        size_t capacity = journal->trace_capacity ? 2 * journal->trace_capacity : 4096;
        struct dataset_trace *grown = realloc(journal->traces, capacity * sizeof *grown);
        if (grown == NULL) {
            return error_errno(error, ENOMEM, journal->path, NOWHERE,
                               "allocate memory for the journal");
        }
        journal->traces = grown;
        journal->trace_capacity = capacity;
    }
    journal->traces[journal->trace_count++] = *trace;
    return STATUS_OK;
}

static uint8_t *put_piece(uint8_t *at, uint64_t count, const void *bytes, size_t len)
{
    index_store64(at, count);
    index_store64(at + 8, len);
    if (len > 0) {
        memcpy(at + 16, bytes, len);
    }
    return at + 16 + len;
}

// Bytes of the record names up to `records`.
static size_t names_end(const struct journal *journal, const struct index_builder *builder,
                        uint64_t records)
{
    const char *names = (const char *)builder->part[INDEX_RECORD_NAMES].bytes;
    size_t at = journal->told[INDEX_RECORD_NAMES].len;
    for (uint64_t i = journal->told[INDEX_RECORDS].count; i < records; i++) {
        at += strlen(names + at) + 1;
    }
    return at;
}

enum status journal_checkpoint(struct journal *journal, const struct index_builder *builder,
                               uint64_t records, uint64_t mark, bool sync, struct error *error)
{
    if (journal->fd < 0) {
        return STATUS_OK;
    }
    uint64_t first = journal->told[INDEX_RECORDS].count, fresh = records - first;
    size_t ends[SECTIONS] = {builder->part[INDEX_FILES].len, builder->part[INDEX_FILE_NAMES].len,
                             (size_t)records * INDEX_RECORD_BYTES,
                             names_end(journal, builder, records)};
    uint64_t counts[SECTIONS] = {builder->part[INDEX_FILES].count,
                                 builder->part[INDEX_FILE_NAMES].count, records, records};
    size_t len = ENTRY_HEAD + 8 + 16 * (SECTIONS + 1) + (size_t)fresh * TRACE_BYTES;
    for (size_t i = 0; i < SECTIONS; i++) {
        len += ends[i] - journal->told[sections[i]].len;
    }
    uint8_t *bytes = malloc(len);
    if (bytes == NULL) {
        return error_errno(error, ENOMEM, journal->path, NOWHERE, "allocate memory to write");
    }
    uint8_t *at = bytes + ENTRY_HEAD + 8;
    index_store64(at - 8, mark);
    for (size_t i = 0; i < SECTIONS; i++) {
        size_t from = journal->told[sections[i]].len;
        at = put_piece(at, counts[i] - journal->told[sections[i]].count,
                       ends[i] > from ? builder->part[sections[i]].bytes + from : NULL,
                       ends[i] - from);
        journal->told[sections[i]].len = ends[i];
        journal->told[sections[i]].count = counts[i];
    }
    at = put_piece(at, fresh, NULL, 0);
    index_store64(at - 8, fresh * TRACE_BYTES);
    for (uint64_t i = first; i < records; i++, at += TRACE_BYTES) {
        index_store64(at, journal->traces[i].position);
        index_store64(at + 8, journal->traces[i].about);
    }
    enum status status = write_entry(journal, ENTRY_CHECKPOINT, bytes, len, error);
    free(bytes);
    journal->entries++;
    return status == STATUS_OK && sync ? file_sync(journal->fd, journal->path, error) : status;
}

enum status journal_remark(struct journal *journal, const struct dataset_trace *trace,
                           const char *text, struct error *error)
{
    if (journal->fd < 0) {
        return STATUS_OK;
    }
    size_t text_len = strlen(text) + 1, len = ENTRY_HEAD + TRACE_BYTES + text_len;
    uint8_t *bytes = malloc(len);
    if (bytes == NULL) {
        return error_errno(error, ENOMEM, journal->path, NOWHERE, "allocate memory to write");
    }
    index_store64(bytes + ENTRY_HEAD, trace->position);
    index_store64(bytes + ENTRY_HEAD + 8, trace->about);
    memcpy(bytes + ENTRY_HEAD + TRACE_BYTES, text, text_len);
    enum status status = write_entry(journal, ENTRY_REMARK, bytes, len, error);
    free(bytes);
    return status;
}

enum status journal_places(struct journal *journal, const uint64_t *ids, size_t count,
                           const void *about, size_t about_len, struct error *error)
{
    if (journal->fd < 0) {
        return STATUS_OK;
    }
    size_t len = ENTRY_HEAD + 8 + 8 * count + about_len;
    uint8_t *bytes = malloc(len);
    if (bytes == NULL) {
        return error_errno(error, ENOMEM, journal->path, NOWHERE, "allocate memory to write");
    }
    uint8_t *at = bytes + ENTRY_HEAD;
    index_store64(at, count);
    for (size_t i = 0; i < count; i++) {
        index_store64(at + 8 + 8 * i, ids[i]);
    }
    if (about_len > 0) {
        memcpy(at + 8 + 8 * count, about, about_len);
    }
    enum status status = write_entry(journal, ENTRY_PLACES, bytes, len, error);
    free(bytes);
    return status ? status : file_sync(journal->fd, journal->path, error);
}

enum status journal_end(struct journal *journal, struct error *error)
{
    enum status status = file_close(&journal->fd, journal->path, error);
    if (status == STATUS_OK && journal->path[0] != '\0' && unlink(journal->path) != 0 &&
        errno != ENOENT) {
        status = error_errno(error, errno, journal->path, NOWHERE, "remove");
    }
    return status;
}
