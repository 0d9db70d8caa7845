// Golden cases: directories of arrays with an index.tsv each, read row by row, so that a new set of
// cases needs no code.
//
// The directories are the one named by BYOL_GOLDEN (default: ../shared/golden when present) and
// always tests/data/golden.
#ifndef TESTS_SUPPORT_GOLDEN_H
#define TESTS_SUPPORT_GOLDEN_H

#include "formats/npy.h"

#include <stdbool.h>

// A tab-separated table whose first line names the columns.
struct table {
    char *text;
    size_t columns, rows;
    char **cells; // [rows + 1][columns]; row 0 of `cells` is the header
};

// Fails the running test when the file is missing or ragged.
void table_read(struct table *table, const char *path);
void table_free(struct table *table);
// The cell of a data row (from 0) in a named column; fails the test when there is no such column.
const char *table_cell(const struct table *table, size_t row, const char *column);
bool table_empty(const char *cell);  // "-"
float table_float(const char *cell); // strtof
long long table_int(const char *cell);

// The golden directories that hold `group` ("augment_ops"), as full paths of that group's folder;
// returns how many (at most 4).
size_t golden_folders(const char *group, char folders[4][512]);

// Reads FOLDER/FILE; fails the test when it cannot.
struct npy golden_array(const char *folder, const char *file);

// Runs `check` for every row of FOLDER/index.tsv of every golden directory that has the group;
// fails when there was none. Prints how many cases ran.
void golden_each(const char *group,
                 void (*check)(const char *folder, const struct table *index, size_t row));

// Largest |a - b|; and ||a - b|| / ||b||.
double max_difference(const float *a, const float *b, size_t count);
double relative_l2(const float *a, const float *b, size_t count);

// Repository root (where tests run from): tests/data/... paths are relative to it.

#endif
