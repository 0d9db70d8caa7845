// What `byol convert` reads: a folder, or a tar (plain, or compressed with gzip, zstd, xz or
// bzip2). Both are streams of image files with names; nothing is ever extracted, no link is
// followed, and names are keys, not paths.
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

// An image file of the source. Valid until the next call on the source.
struct source_member {
    const char *name;  // without leading "./"; relative to a folder's root
    const char *fault; // NULL, or why the name cannot be a record's name ("is an absolute path")
    uint64_t size;     // bytes, as the source tells
};

// One thread uses a source at a time.
struct source;
enum status source_open(struct source **out, const char *path, struct error *error);
void source_close(struct source **source);
const char *source_path(const struct source *source);
// The next image, in the tar's order; a folder's in byte order of names, depth first. STATUS_END
// after the last. A tar without its end mark is STATUS_TRUNCATED. Errors other than STATUS_END are
// final.
enum status source_next(struct source *source, struct source_member *member, struct error *error);
// The member's bytes, into a malloc'ed buffer that grows. STATUS_LIMIT above LIMIT_IMAGE_BYTES:
// then the source can go on with the next.
enum status source_read(struct source *source, uint8_t **bytes, size_t *len, size_t *capacity,
                        struct error *error);
struct source_counts source_counts(const struct source *source); // so far

// --- what names mean ---------------------------------------------------------------------------

// How the images of one or more sources become records. Directories that all images share are
// dropped from the names; what then is the first directory is the image's class; an image in none
// has no label. Labels number the classes in byte order of their names.
struct source_plan;
enum status source_plan_open(struct source_plan **out, struct error *error);
void source_plan_close(struct source_plan **plan);
// Reads the names of a whole source. `tick` (may be NULL) is called now and then with the images
// seen so far.
enum status source_plan_scan(struct source_plan *plan, struct source *source,
                             void (*tick)(void *context, uint64_t images), void *context,
                             struct error *error);
// After the last source.
enum status source_plan_finish(struct source_plan *plan, struct error *error);
uint64_t source_plan_images(const struct source_plan *plan);
uint32_t source_plan_class_count(const struct source_plan *plan);
const char *const *source_plan_classes(const struct source_plan *plan);
// The record's name for a member's name that was scanned, and its label.
const char *source_plan_name(const struct source_plan *plan, const char *name, int32_t *label);

// --- the two kinds (source_folder.c, source_tar.c) ---------------------------------------------

enum source_entry_type { SOURCE_ENTRY_FILE, SOURCE_ENTRY_LINK };

struct source_entry {
    const char *name; // as stored; NULL when it cannot be told
    enum source_entry_type type;
    uint64_t size;
};

struct source_kind {
    enum status (*open)(void **state, const char *path, struct error *error);
    // The next entry that is not a directory.
    enum status (*next)(void *state, struct source_entry *entry, struct error *error);
    // At most `len` bytes of the entry; *got < len only at its end.
    enum status (*read)(void *state, void *buf, size_t len, size_t *got, struct error *error);
    void (*close)(void **state); // accepts a pointer to NULL
};
extern const struct source_kind source_folder, source_tar;

#endif
