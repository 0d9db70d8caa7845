// The table of an ablation: mean and standard deviation over seeds, and the difference to the first
// row, with the paper's figures beside them.
#ifndef TOOLS_ABLATE_TABLE_H
#define TOOLS_ABLATE_TABLE_H

#include "tools/ablate_store.h"

struct ablate_cell {
    size_t count;                // seeds that are measured
    double values[ABLATE_SEEDS]; // percent, NaN where not measured; by seed
    double mean, sd;             // NaN without; sd of the sample, from two seeds on
    double difference;           // to the first row's mean; NaN without
};

struct ablate_line {
    const struct ablate_row *row;
    struct ablate_cell cells[ABLATE_MEASURES];
    double paper_difference; // to the first row's figure of the paper
    size_t trained;
    char failure[300]; // of the first seed that has one
};

struct ablate_table {
    const struct ablate_plan *plan;
    struct ablate_line *lines; // [plan->row_count]
};

enum status ablate_table_read(struct ablate_table *table, const struct ablate_plan *plan,
                              const char *output, struct error *error);
void ablate_table_free(struct ablate_table *table);

// malloc'ed; NULL when there is no memory.
char *ablate_table_text(const struct ablate_table *table);
char *ablate_table_json(const struct ablate_table *table);

// OUTPUT/table.txt, .csv, .json and .png.
enum status ablate_table_write(const struct ablate_table *table, const char *output,
                               struct error *error);

#endif
