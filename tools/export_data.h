// Writes a dataset out in a form that other tools read: class folders, WebDataset shards, TFRecord
// files. What is written lies in one directory that appears when it is complete
// (formats/source_export.h: the marks in it).
#ifndef TOOLS_EXPORT_DATA_H
#define TOOLS_EXPORT_DATA_H

#include "formats/dataset.h"
#include "tools/progress.h"

// An image of the dataset, as its file was before `byol convert`.
struct export_image {
    const char *name;       // the record's
    int32_t label;          // or DATASET_NO_LABEL
    const char *class_name; // NULL without a label
    bool is_png;
    uint32_t width, height;
    const uint8_t *bytes;
    size_t len;
};

// Where a form writes, and what it counts.
struct export_target {
    const struct dataset *dataset;
    const char *directory; // the partial one
    const char *name;      // of shards: the last part of the output's name
    uint64_t shard_bytes;
    uint64_t images, bytes, labelled;
    uint64_t inexact; // JPEGs with the same pixels, but not the original's bytes
    uint64_t renamed; // images whose name had to change
    uint32_t shards;
};

struct export_form {
    const char *name;
    enum status (*open)(void **state, struct export_target *target, struct error *error);
    enum status (*add)(void *state, const struct export_image *image, struct error *error);
    enum status (*finish)(void *state, struct error *error); // all files under their last names
    void (*close)(void **state);                             // accepts a pointer to NULL
};
extern const struct export_form export_folder, export_webdataset, export_tfrecord;

// `target` comes with dataset and shard_bytes. `force`: what an earlier export left at `output` or
// beside it gives way; nothing else does.
enum status export_data(struct export_target *target, const struct export_form *form,
                        const char *output, bool force, struct progress *progress,
                        struct error *error);

// The end of a name that tells an image (".jpg", with its dot), or "" where it has none.
const char *export_ending(const char *name);

// --- shards (export_data_shard.c) ----------------------------------------------------------------

// A sequence of files, the next one begun where the last would grow over target->shard_bytes.
#define EXPORT_PATH_BYTES 700
struct export_shards {
    struct export_target *target;
    const char *before, *after; // the number in "NAME-000017.tar"
    int digits;
    uint32_t end_bytes; // zeros that end a file
    int fd;
    char path[EXPORT_PATH_BYTES];
    uint64_t len; // of the current file
};
// Makes sure that `len` bytes, which are not to be parted, fit into the current file.
enum status export_shards_reserve(struct export_shards *shards, uint64_t len, struct error *error);
enum status export_shards_write(struct export_shards *shards, const void *bytes, size_t len,
                                struct error *error);
enum status export_shards_end(struct export_shards *shards, struct error *error); // the current one

#endif
