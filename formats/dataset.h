// A dataset: a directory with a checksummed index over an LMDB or over zstd shards (layout and byte
// tables: formats/README.md).
//
// Knowing where is not reading: a dataset answers where record i lies; the pipeline reads the
// bytes; dataset_unpack turns stored bytes into the image file's bytes and verifies them. Nothing
// here walks a B-tree or maps a file.
//
// Threads: an open dataset is immutable; any number of threads may use it. A dataset_unpacker
// belongs to one thread.
#ifndef FORMATS_DATASET_H
#define FORMATS_DATASET_H

#include "formats/image.h"
#include "formats/status.h"

#include <stdbool.h>

#define DATASET_NO_LABEL (-1)

enum dataset_store { DATASET_LMDB, DATASET_SHARDS };

enum dataset_coding {
    DATASET_CODING_RAW = 0,  // the extent is the image file's bytes
    DATASET_CODING_ZSTD = 1, // the extent is one zstd frame; the image lies at `inner_offset` of
                             // its content, in which others may lie too
};

// Where a record's bytes lie and what they are. 48 bytes on disk.
struct dataset_record {
    uint32_t file;          // index for dataset_file_path
    uint32_t stored_length; // bytes of the extent in that file
    uint64_t offset;        // of the extent
    uint32_t frame_length;  // bytes the extent unpacks to (coding zstd), else stored_length
    uint32_t inner_offset;  // where the image starts in the unpacked extent
    uint32_t length;        // bytes of the image file
    uint32_t crc;           // CRC-32C of the image file's bytes
    int32_t label;          // class, or DATASET_NO_LABEL
    uint32_t width, height; // pixels
    enum dataset_coding coding;
    enum image_kind kind;
};

struct dataset;
enum status dataset_open(struct dataset **out, const char *directory, struct error *error);
void dataset_close(struct dataset **dataset);

const char *dataset_directory(const struct dataset *dataset);
enum dataset_store dataset_store(const struct dataset *dataset);
uint64_t dataset_count(const struct dataset *dataset);
uint64_t
dataset_id(const struct dataset *dataset); // hash of the index: changes when any byte of it does
struct dataset_record dataset_record(const struct dataset *dataset, uint64_t record);
void dataset_expect(const struct dataset *dataset, uint64_t record); // it will be asked for soon
const char *dataset_record_name(const struct dataset *dataset,
                                uint64_t record);            // the source's member name
uint32_t dataset_class_count(const struct dataset *dataset); // 0 when there are no labels
const char *dataset_class_name(const struct dataset *dataset, uint32_t label);
uint32_t dataset_file_count(const struct dataset *dataset);
const char *dataset_file_path(const struct dataset *dataset,
                              uint32_t file); // full path, for open()
uint64_t dataset_file_length(const struct dataset *dataset, uint32_t file);
uint32_t dataset_file_crc(const struct dataset *dataset, uint32_t file); // CRC-32C of all of it
const char *dataset_provenance(const struct dataset *dataset); // text: sources, converter version
// What was done to the images that they are not those of the source ("larger images were resized
// …"), one line, malloc'ed; NULL for a dataset that is exact.
char *dataset_not_exact(const struct dataset *dataset);
uint32_t
dataset_max_stored_length(const struct dataset *dataset); // the largest extent: sizes read buffers
uint32_t dataset_max_frame_length(const struct dataset *dataset);
uint64_t dataset_max_pixels(const struct dataset *dataset); // of one image
uint32_t dataset_max_width(const struct dataset *dataset);
// The record whose image needs the largest planes: sizes decode buffers.
uint64_t dataset_widest(const struct dataset *dataset);

// Unpacks extents; keeps its zstd context and the frame that it unpacked last, so that records of
// one frame which follow each other cost one unpacking. One per thread.
struct dataset_unpacker;
enum status dataset_unpacker_open(struct dataset_unpacker **out, const struct dataset *dataset,
                                  struct error *error);
void dataset_unpacker_close(struct dataset_unpacker **unpacker);
size_t dataset_unpacker_bytes(const struct dataset_unpacker *unpacker); // allocated, for good
// From the `stored` bytes of `record`'s extent to the image file's bytes, which point into `stored`
// or into the unpacker and stay valid until the next call. Verifies length and CRC: STATUS_CORRUPT
// names file, offset and record.
enum status dataset_unpack(struct dataset_unpacker *unpacker, uint64_t record, const void *stored,
                           const uint8_t **bytes, size_t *len, struct error *error);

// Reads one record by itself with pread (tools and tests; training reads go through pipeline/).
// `*bytes` is malloc'ed.
enum status dataset_read(const struct dataset *dataset, uint64_t record, uint8_t **bytes,
                         size_t *len, struct error *error);

// --- writing -----------------------------------------------------------------------------------

// A line of the provenance that starts so tells why the images are not those of the source.
#define DATASET_NOT_EXACT "not exact: "

struct dataset_writer_config {
    enum dataset_store store;
    uint64_t shard_bytes; // start a new shard at about this size; 0 = 256 MiB
    // Small images of a shard share frames of about this much content; 0 = 8 KiB, at most 64 KiB;
    // 1 = none do.
    uint32_t frame_bytes;
    const char *provenance; // text stored in the index, copied; NULL = none
    bool replace;           // a dataset already at `directory` gives way at the commit
    // What is converted, and how: its sources and all that decides about bytes. A killed writer's
    // work goes on where its text is the same; where it is another, opening is STATUS_EXISTS. NULL:
    // no work can be taken up, and what an earlier writer left is removed.
    const char *journal;
    bool restart; // remove what an earlier writer left, whatever it was
};

// What a journal keeps of each record for the one who writes it.
struct dataset_trace {
    uint64_t position; // in the source; grows from record to record
    uint64_t about;    // anything
};

// One image to add. `name` is the key: unique, valid UTF-8, no control bytes, not absolute, no
// "..".
struct dataset_item {
    const char *name;
    const void *bytes;
    size_t len;
    int32_t label;
    struct image_info info;
    struct dataset_trace trace; // where a journal is kept
};

// An item turned into what the store will hold. Filled by a packer, reused freely, ended with
// dataset_packed_free; starts from {0}.
struct dataset_packed {
    struct dataset_record record; // without file and offset
    // Of a shard; LMDB stores the item's bytes.
    uint8_t *stored; // a frame
    size_t stored_len, stored_capacity;
    size_t head_len;     // not 0: `stored` lacks the image, whose blocks stand behind so many bytes
    uint32_t stored_crc; // of the whole frame
    bool member;         // `stored` is not a frame but the content that a small image adds to one
};
void dataset_packed_free(struct dataset_packed *packed);

// Does the work of adding an item that can be done in any order: checksums and compression (but for
// small images of shards, whose frames the writer makes). One packer, one thread; the bytes depend
// on the item alone.
struct dataset_packer;
enum status dataset_packer_open(struct dataset_packer **out, enum dataset_store store,
                                struct error *error);
void dataset_packer_close(struct dataset_packer **packer);
enum status dataset_pack(struct dataset_packer *packer, const struct dataset_item *item,
                         struct dataset_packed *packed, struct error *error);

// Writes DIRECTORY.partial beside the target and renames it into place when all of it is on disk,
// so a half-written dataset never opens. `directory` must not exist (or see `replace`); what a
// killed writer left in DIRECTORY.partial is removed first. Records keep the order they were added
// in; the same items give the same bytes. After a failure the writer can only be aborted.
//
// With a journal, a killed writer (or one that failed) leaves what it had stored at its last safe
// point: a whole shard, or a committed batch of LMDB. The next one has these records already and is
// given the rest, in the same order; the bytes are those of a writer that was never killed.
struct dataset_writer;
// Whether `directory` could be made: what dataset_writer_open would say of the name alone.
enum status dataset_writer_check(const char *directory, bool replace, struct error *error);
enum status dataset_writer_open(struct dataset_writer **out, const char *directory,
                                const struct dataset_writer_config *config, struct error *error);
enum status dataset_writer_add(struct dataset_writer *writer, const struct dataset_item *item,
                               struct error *error);
// The second half of dataset_writer_add, for items that another thread has packed.
enum status dataset_writer_add_packed(struct dataset_writer *writer,
                                      const struct dataset_item *item,
                                      const struct dataset_packed *packed, struct error *error);
// Records of a killed writer that this one goes on from.
uint64_t dataset_writer_resumed(const struct dataset_writer *writer);
struct dataset_trace dataset_writer_trace(const struct dataset_writer *writer, uint64_t record);
// Keeps a line about something that became no record; dataset_writer_remark_at gives those of the
// killed writer, in order; false after the last.
enum status dataset_writer_remark(struct dataset_writer *writer, const struct dataset_trace *trace,
                                  const char *text, struct error *error);
bool dataset_writer_remark_at(const struct dataset_writer *writer, size_t number,
                              struct dataset_trace *trace, const char **text);
// Completes the dataset where it is: nothing is missing but its place. `class_names` in label
// order, copied.
enum status dataset_writer_finish(struct dataset_writer *writer, const char *const *class_names,
                                  uint32_t class_count, struct error *error);
// The same of datasets of shards that other writers, opened alike, have finished in the directories
// `parts` (with .partial): all their records, in order. Their shards get second names, so the parts
// remain as they are; where a file system has no second names, the shards move.
enum status dataset_writer_join(struct dataset_writer *writer, const char (*parts)[560],
                                size_t count, struct error *error);
// All three steps for one dataset. Nulls *writer on success.
enum status dataset_writer_commit(struct dataset_writer **writer, const char *const *class_names,
                                  uint32_t class_count, struct error *error);

// Puts finished datasets in place, in this order. With journals, a kill in between is nothing that
// could not be gone on from: the last one's journal knows all of them, and keeps `about` for the
// one who goes on.
enum status dataset_place(struct dataset_writer **writers, size_t count, const void *about,
                          size_t len, struct error *error);
// All is done: removes the last journal and what was replaced. Nulls the writers on success.
enum status dataset_settle(struct dataset_writer **writers, size_t count, struct error *error);

// What a killed dataset_place left.
struct dataset_places {
    bool found;        // the journal and all datasets, of the ids that it names, in place or not
    bool begun;        // one of them is in place
    const void *about; // as dataset_place was given; belongs to the writers
    size_t len;
};
// On success and when something is found, `writers` are as before dataset_place, which will do what
// is left. STATUS_EXISTS where something else has taken a place. They are of the conversion that
// dataset_places_are is true for.
enum status dataset_place_find(struct dataset_writer **writers, const char *const *directories,
                               size_t count, bool replace, struct dataset_places *found,
                               struct error *error);
bool dataset_places_are(struct dataset_writer *const *writers, size_t count, const char *journal);

// Removes a directory that holds nothing but a dataset's files; leaves any other.
void dataset_remove(const char *path);

// Removes what was written, unless a later writer can go on from it. Accepts a pointer to NULL.
void dataset_writer_abort(struct dataset_writer **writer);

#endif
