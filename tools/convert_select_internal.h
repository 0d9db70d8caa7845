// What convert_select.c and convert_labels.c share.
#ifndef TOOLS_CONVERT_SELECT_INTERNAL_H
#define TOOLS_CONVERT_SELECT_INTERNAL_H

#include "formats/name_list.h"
#include "formats/split_rules.h"
#include "tools/convert_select.h"

#define NOTICES_MAX 4

// An array of one number an image, that grows.
struct column {
    void *items;
    size_t capacity;
};

struct select {
    struct select_options options;
    struct split_rule rules[SELECT_SPLITS_MAX];
    size_t rule_count; // 0 = no split
    struct name_list only, without, labels, class_names;
    bool labels_in_order; // the labels' file has no names of images
    bool numbers;         // its labels are numbers, not classes
    bool random, tfds;    // wanted by a rule
    uint64_t images;
    struct column where, label, name, random_key, tfds_key;
    uint64_t split_images[SELECT_SPLITS_MAX];
    const char **classes; // NULL: the plan's
    uint32_t class_count;
    char *class_text;
    int32_t *renumbering; // the plan's labels in the order of --classes; NULL = as planned
    struct select_counts counts;
    char notices[NOTICES_MAX][700];
    size_t notice_count;
};

enum status select_no_memory(struct error *error);

// --- convert_labels.c --------------------------------------------------------------------------

// Reads the file of --labels and finds out what its lines are.
enum status select_read_labels(struct select *select, struct error *error);
// Until all names are known an image's label is the number of its line. This makes it the label,
// and the classes.
enum status select_settle_labels(struct select *select, struct error *error);
// --classes without --labels: names for a source's numbers, or the order of folders' labels.
enum status select_settle_classes(struct select *select, const struct source_plan *plan,
                                  struct error *error);

#endif
