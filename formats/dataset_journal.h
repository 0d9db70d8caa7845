// What a writer needs to go on after it was killed: the file DATASET.partial/journal, which grows
// by an entry at each of the store's safe points, and is removed last of all. The journal of the
// last of several datasets also says which ones are to be put in place. Byte tables:
// formats/README.md.
#ifndef FORMATS_DATASET_JOURNAL_H
#define FORMATS_DATASET_JOURNAL_H

#include "formats/index.h"
#include "formats/name_set.h"

#define JOURNAL_FILE_NAME "journal"

struct journal_remark {
    struct dataset_trace trace;
    const char *text;
};

// Datasets that were about to be put in place: bytes within the journal.
struct journal_places {
    size_t count;       // 0 = none
    const uint8_t *ids; // 8 bytes each
    const uint8_t *about;
    size_t about_len;
};

// Starts from {.fd = -1}.
struct journal {
    char path[560];
    int fd; // -1: none is kept
    // Of the builder, what entries have told already.
    struct {
        size_t len;
        uint64_t count;
    } told[INDEX_SECTIONS];
    struct dataset_trace *traces; // by record
    size_t trace_count, trace_capacity;
    uint64_t entries; // checkpoints in it
    // Of a journal that was found.
    uint8_t *bytes;
    size_t len, key_end;
    struct journal_remark *remarks;
    size_t remark_count;
};

// Looks for a journal in `directory`. *found is false when there is none that anything could be
// taken from. STATUS_EXISTS when it is of another conversion than `key`.
enum status journal_find(struct journal *journal, const char *directory, enum dataset_store store,
                         const char *key, bool *found, struct error *error);
// Looks for one in `directory` whose last word is about places, of whatever conversion.
enum status journal_find_places(struct journal *journal, const char *directory,
                                struct journal_places *places, struct error *error);
bool journal_key_is(const struct journal *journal, const char *key); // of one that was found
// Fills builder and names with all up to the last checkpoint whose mark `has` accepts, and goes on
// behind it. *resumed is false when there is none.
enum status journal_replay(struct journal *journal, bool (*has)(void *context, uint64_t mark),
                           void *context, struct index_builder *builder, struct name_set *names,
                           bool *resumed, struct error *error);
// Begins a new one.
enum status journal_begin(struct journal *journal, const char *directory, enum dataset_store store,
                          const char *key, struct error *error);
// A safe point: the first `records` of the builder and all its files are stored. `sync`: it shall
// survive a power cut.
enum status journal_checkpoint(struct journal *journal, const struct index_builder *builder,
                               uint64_t records, uint64_t mark, bool sync, struct error *error);
enum status journal_trace(struct journal *journal, const struct dataset_trace *trace,
                          struct error *error);
enum status journal_remark(struct journal *journal, const struct dataset_trace *trace,
                           const char *text, struct error *error);
// Datasets of these ids, which are complete, will be put in place; the entry is synced.
enum status journal_places(struct journal *journal, const uint64_t *ids, size_t count,
                           const void *about, size_t about_len, struct error *error);
void journal_in(struct journal *journal, const char *directory); // the file has moved there
// Closes the file and removes it: there is nothing left to go on from.
enum status journal_end(struct journal *journal, struct error *error);
void journal_close(struct journal *journal);

#endif
