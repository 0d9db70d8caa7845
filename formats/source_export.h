// What `byol export-data` leaves beside the images it wrote, so that converting them again gives
// the same labels and names of classes:
//
//     export.json    {"byol_export": 1, "complete": true, "classes": N, …}
//     classes.txt    the N names in the order of their labels, one a line
//
// in the folder itself, or in the folder of the tars or TFRecord files.
#ifndef FORMATS_SOURCE_EXPORT_H
#define FORMATS_SOURCE_EXPORT_H

#include "formats/status.h"

#include <stdbool.h>

#define EXPORT_MARK_FILE    "export.json"
#define EXPORT_CLASSES_FILE "classes.txt"

// Starts from {0}, ends with source_export_free.
struct source_export {
    bool found; // `path` is an export, or lies in one
    char *text;
    const char **classes; // by label
    uint32_t count;       // 0: the images have no labels
    uint32_t last;        // the class found last
};

// STATUS_INVALID where the export was not finished.
enum status source_export_read(struct source_export *out, const char *path, struct error *error);
void source_export_free(struct source_export *export);
// Whether the directory is an export, finished or not.
bool source_export_is(const char *directory);

// The label of an image in a folder: by its first directory; DATASET_NO_LABEL where that is none of
// the classes.
int32_t source_export_label(struct source_export *export, const char *name);
// The directory of a class: its name; "%2Ename" for ".name", which would be hidden, and so that no
// two are alike "%252…" for "%2…". Returns the length that it has, as snprintf.
int source_export_directory(char *text, size_t size, const char *class_name);

#endif
