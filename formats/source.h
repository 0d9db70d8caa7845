// What `byol convert` reads: a folder, a tar (plain, or compressed with gzip, zstd, xz or bzip2),
// or another container of images that one of the kinds below knows. All are streams of image files
// with names; nothing is ever extracted, no link is followed, and names are keys, not paths.
//
// Passed over and counted: files that are neither named like an image (.jpg .jpeg .jpe .jfif .png)
// nor start like one, hidden files, and links, devices and sparse members.
#ifndef FORMATS_SOURCE_H
#define FORMATS_SOURCE_H

#include "formats/status.h"

#include <stdbool.h>

struct source_counts {
    uint64_t images;
    uint64_t others; // files that are no images
    uint64_t links;  // links, devices, sparse members
};

#define SOURCE_LABEL_OF_NAME (-2) // the folder in its name is its class: the plan's rule
#define SOURCE_SIZE_UNKNOWN  UINT64_MAX

// An image file of the source. Valid until the next call on the source.
struct source_member {
    const char *name;  // without leading "./"; relative to a folder's root
    const char *fault; // NULL, or why the name cannot be a record's name ("is an absolute path")
    uint64_t size;     // bytes, as the source tells, or SOURCE_SIZE_UNKNOWN
    int32_t label;     // the source's own number, DATASET_NO_LABEL, or SOURCE_LABEL_OF_NAME
    const char *class_name; // of the source's own number, where it is told image by image, or NULL
};

// One thread uses a source at a time. Which kind a source is, the kinds find out by its content;
// STATUS_UNSUPPORTED says what was seen where none knows it.
struct source;
enum status source_open(struct source **out, const char *path, struct error *error);
// The same for the first of two readings, of which names and labels are wanted: source_read must
// not be called, and kinds that can leave the images' bytes unread.
enum status source_open_names(struct source **out, const char *path, struct error *error);
void source_close(struct source **source);
const char *source_path(const struct source *source);
const char *source_kind_name(const struct source *source); // "TFRecord"
bool source_exported(const struct source *source);         // written by `byol export-data`
// One line, once the first member was asked for: the kind, and the layout that was found.
// "TFRecord: image/encoded, image/class/label from 1". Valid until the source is closed.
const char *source_describe(struct source *source);
// The names of the source's own labels, once all members were seen; NULL where it has none.
const char *const *source_classes(const struct source *source, uint32_t *count);
// The next image, in the source's order; a folder's in byte order of names, depth first. STATUS_END
// after the last. A tar without its end mark is STATUS_TRUNCATED. Errors other than STATUS_END are
// final.
enum status source_next(struct source *source, struct source_member *member, struct error *error);
// The member's bytes, into a malloc'ed buffer that grows. STATUS_LIMIT above LIMIT_IMAGE_BYTES and
// STATUS_CORRUPT for a damaged member: then the caller can go on with the next, unless source_next
// says that more than the member is damaged.
enum status source_read(struct source *source, uint8_t **bytes, size_t *len, size_t *capacity,
                        struct error *error);
struct source_counts source_counts(const struct source *source); // so far

// --- what names mean ---------------------------------------------------------------------------

// How the images of one or more sources become records. Directories that all images share are
// dropped from the names; what then is the first directory is the image's class; an image in none
// has no label. Labels number the classes in byte order of their names.
//
// Sources that number their images themselves keep their numbers; classes then are the source's
// names, or the numbers as text where it has none. All sources must agree: some that number and
// some whose folders are classes, or different lists of names, are STATUS_INVALID. Names that come
// image by image are taken when each label has one of its own; a label that no image has keeps its
// number.
//
// What `byol export-data` wrote keeps its directories.
struct source_plan;
enum status source_plan_open(struct source_plan **out, struct error *error);
void source_plan_close(struct source_plan **plan);
// Reads the names of a whole source. `seen` (may be NULL) is called for each image; what it returns
// but STATUS_OK ends the scan.
enum status source_plan_scan(struct source_plan *plan, struct source *source,
                             enum status (*seen)(void *context, const struct source_member *member,
                                                 struct error *error),
                             void *context, struct error *error);
// The labels of --labels stand in for the sources' own and the folders': any mixture is fine then.
void source_plan_ignore_labels(struct source_plan *plan);
// After the last source.
enum status source_plan_finish(struct source_plan *plan, struct error *error);
uint64_t source_plan_images(const struct source_plan *plan);
uint32_t source_plan_class_count(const struct source_plan *plan);
const char *const *source_plan_classes(const struct source_plan *plan);
bool source_plan_by_number(const struct source_plan *plan); // labels are the sources' own
// Why names that came image by image do not stand for the labels, or NULL. Once finished.
const char *source_plan_remark(const struct source_plan *plan);
// The record's name for a member that was scanned, and its label.
const char *source_plan_name(const struct source_plan *plan, const struct source_member *member,
                             int32_t *label);

// --- the kinds ---------------------------------------------------------------------------------

enum source_entry_type {
    SOURCE_ENTRY_FILE,  // an image if its name or its first bytes say so
    SOURCE_ENTRY_IMAGE, // is one
    SOURCE_ENTRY_LINK
};

struct source_entry {
    const char *name; // as stored; NULL when it cannot be told
    enum source_entry_type type;
    // The name is only the entry's place ("000000017.png"): it is put into a folder that is called
    // like the source, so that the names of several sources differ.
    bool numbered;
    uint64_t size; // bytes that `read` gives, or SOURCE_SIZE_UNKNOWN: encoded when it is read
    int32_t label; // SOURCE_LABEL_OF_NAME, DATASET_NO_LABEL, or the source's own number
    const char *class_name; // of its own number, where this entry tells it; else NULL
};

// One way to store images. A source is opened and read twice: names and labels, then images.
struct source_kind {
    const char *name; // as a person reads it: "TFRecord"
    // Whether the path is of this kind: by its content, never by its name alone, and cheaply. What
    // keeps it from being read is no failure but for STATUS_NO_MEMORY; `error` may be written to
    // all the same, and counts with a failure only.
    enum status (*recognise)(const char *path, bool *mine, struct error *error);
    enum status (*open)(void **state, const char *path, struct error *error);
    // For source_open_names: entries are SOURCE_ENTRY_IMAGE, sizes may be unknown, damage of the
    // images' bytes may go unseen. May be NULL: `open`.
    enum status (*open_names)(void **state, const char *path, struct error *error);
    // The next entry that is not a directory. `entry` comes as {0} with SOURCE_LABEL_OF_NAME.
    enum status (*next)(void *state, struct source_entry *entry, struct error *error);
    // At most `len` bytes of the entry; *got < len only at its end.
    enum status (*read)(void *state, void *buf, size_t len, size_t *got, struct error *error);
    // Names by label, once all entries were seen; may be NULL, and may answer NULL.
    const char *const *(*classes)(void *state, uint32_t *count);
    // One line about the layout that was found; may be NULL, and may answer NULL.
    const char *(*describe)(void *state);
    void (*close)(void **state); // accepts a pointer to NULL
};
extern const struct source_kind source_folder, source_tar;
extern const struct source_kind source_tfrecord, source_webdataset, source_ilsvrc, source_binary;
extern const struct source_kind source_dataset, source_lmdb, source_beton, source_mds, source_hdf5,
    source_parquet;
extern const struct source_kind
    *const source_kinds[]; // in the order they are asked; ends with NULL

// What a path that no kind knows looks like: "a JPEG file", "an empty file" (source_seen.c).
const char *source_seen(const char *path);

#endif
