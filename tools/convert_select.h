// Which images a conversion takes, into which dataset each goes, and which label it gets: decided
// once all names are known, kept as a byte (and, for labels of a file, four more) an image.
#ifndef TOOLS_CONVERT_SELECT_H
#define TOOLS_CONVERT_SELECT_H

#include "formats/source.h"

#include <stddef.h>

#define SELECT_SPLITS_MAX 64
#define SELECT_NOWHERE    UINT8_MAX // an image that is left out

struct select_options {
    // File: labels in order of names, or names with labels; or ILSVRC2012's development kit. NULL =
    // none.
    const char *labels;
    int64_t labels_from;        // the number of the first class in it
    const char *classes;        // file: names of the classes, in label order; NULL = none
    const char *only, *without; // files of names; NULL = none
    const char *split;          // "NAME=RULE,…"; NULL = one dataset
    int64_t seed;               // of random rules
    int64_t limit;              // at most so many images; 0 = all
};

// What of the whole was left out, and why.
struct select_counts {
    uint64_t images;     // of the sources
    uint64_t filtered;   // by only and without
    uint64_t limited;    // beyond the limit
    uint64_t unassigned; // by no rule of the split
};

struct select;
// Reads the files and the rules: mistakes in them should be heard of before anything else.
enum status select_open(struct select **out, const struct select_options *options,
                        struct error *error);
void select_close(struct select **select); // accepts a pointer to NULL
// Every image of the sources, in order.
enum status select_note(struct select *select, const char *name, struct error *error);
// After the last. `plan` is finished.
enum status select_finish(struct select *select, const struct source_plan *plan,
                          struct error *error);

size_t select_split_count(const struct select *select);                   // 1 without a split
const char *select_split_name(const struct select *select, size_t split); // NULL without
// Where image number `image` goes, or SELECT_NOWHERE.
uint8_t select_split(const struct select *select, uint64_t image);
uint64_t select_split_images(const struct select *select, size_t split);
// Its label; `planned` is what the plan says.
int32_t select_label(const struct select *select, uint64_t image, int32_t planned);
uint32_t select_class_count(const struct select *select);
const char *const *select_classes(const struct select *select);
struct select_counts select_counts(const struct select *select);
// Changes when any image goes elsewhere or gets another label.
uint64_t select_fingerprint(const struct select *select);
// Notices for the person: names of lists that were not found. NULL after the last.
const char *select_notice(const struct select *select, size_t number);

#endif
