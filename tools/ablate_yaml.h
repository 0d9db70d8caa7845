// Reading the YAML of an ablation's file node by node; every mistake is told with its line.
#ifndef TOOLS_ABLATE_YAML_H
#define TOOLS_ABLATE_YAML_H

#include "tools/ablate.h"

#include <yaml.h>

#define PLAN_KEY_BYTES 256u

struct plan_reader {
    yaml_document_t document;
    bool *seen; // by node: an alias would come to it a second time
    struct ablate_plan *plan;
    struct error *error;
};

enum status plan_refuse(const struct plan_reader *reader, size_t line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
// The same around what a lower function said; `row` NULL: of no row.
enum status plan_refuse_because(const struct plan_reader *reader, size_t line, const char *row);
enum status plan_no_memory(struct error *error);

// --- values: `index` is a node's, `what` names it in errors --------------------------------------

size_t plan_line(const yaml_node_t *node);
// Refuses a node that was taken before.
enum status plan_take_node(struct plan_reader *reader, int index, yaml_node_t **node);
// `*text` lives as long as the document.
enum status plan_take_text(struct plan_reader *reader, int index, const char *what,
                           const char **text, size_t *line);
// Without control characters, which would reach terminals and tables.
enum status plan_take_string(struct plan_reader *reader, int index, const char *what, char *out,
                             size_t capacity);
enum status plan_take_number(struct plan_reader *reader, int index, const char *what, double *out);
// Into ABLATE_PATH bytes; a path in the file is relative to the file.
enum status plan_take_path(struct plan_reader *reader, int index, const char *what, char *out);

// --- mappings ------------------------------------------------------------------------------------

typedef enum status (*plan_take_member)(struct plan_reader *reader, const char *key, size_t line,
                                        int value, void *context);

enum status plan_each_member(struct plan_reader *reader, const yaml_node_t *mapping,
                             plan_take_member take, void *context);
enum status plan_members(struct plan_reader *reader, int index, plan_take_member take,
                         void *context);
enum status plan_unknown_key(const struct plan_reader *reader, const char *key, size_t line,
                             const char *const *known, size_t count);
// Where `key` stands among the known ones; `count` when it does not.
size_t plan_key_index(const char *key, const char *const *known, size_t count);

// --- parts of the file ---------------------------------------------------------------------------

// Appends to `set`; without `check`, keys may be such as the program does not know.
enum status plan_take_settings(struct plan_reader *reader, int index, struct ablate_settings *set,
                               bool check);
enum status plan_take_rows(struct plan_reader *reader, int index);
// Crosses the rows that are there with every value of every axis.
enum status plan_take_axes(struct plan_reader *reader, int index);
void plan_row_free(struct ablate_row *row);

enum status plan_take_measures(struct plan_reader *reader, int index);

#endif
