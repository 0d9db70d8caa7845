// Reading of golden cases: tables, arrays, directories.
#include "tests/support/golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "formats/file.h"

#define TABLE_LIMIT (64u << 20)

static size_t count_char(const char *text, char wanted)
{
    size_t count = 0;
    for (; *text; text++) {
        count += *text == wanted;
    }
    return count;
}

void table_read(struct table *table, const char *path)
{
    uint8_t *bytes;
    size_t len;
    struct error error;
    if (file_read_all(path, TABLE_LIMIT, &bytes, &len, &error) != STATUS_OK) {
        fail_msg("%s: %s", path, error.reason);
    }
    table->text = (char *)bytes;
    size_t lines = count_char(table->text, '\n') + (len && bytes[len - 1] != '\n');
    char *line_end = strchr(table->text, '\n');
    assert_non_null(line_end);
    *line_end = '\0';
    table->columns = count_char(table->text, '\t') + 1;
    *line_end = '\n';
    assert_true(lines > 0);
    table->rows = lines - 1;
    table->cells = calloc(lines * table->columns + 1, sizeof *table->cells);
    assert_non_null(table->cells);
    char *at = table->text;
    for (size_t cell = 0; cell < lines * table->columns; cell++) {
        table->cells[cell] = at;
        bool last = (cell + 1) % table->columns == 0;
        at += strcspn(at, last ? "\n" : "\t\n");
        if (*at != (last ? '\n' : '\t') && cell + 1 < lines * table->columns) {
            fail_msg("%s: line %zu has too few columns", path, cell / table->columns + 1);
        }
        if (*at) {
            *at++ = '\0';
        }
    }
}

void table_free(struct table *table)
{
    free(table->cells);
    free(table->text);
    *table = (struct table){0};
}

const char *table_cell(const struct table *table, size_t row, const char *column)
{
    for (size_t i = 0; i < table->columns; i++) {
        if (strcmp(table->cells[i], column) == 0) {
            return table->cells[(row + 1) * table->columns + i];
        }
    }
    fail_msg("the table has no column '%s'", column);
    return NULL;
}

bool table_empty(const char *cell)
{
    return strcmp(cell, "-") == 0;
}

float table_float(const char *cell)
{
    return strtof(cell, NULL);
}

long long table_int(const char *cell)
{
    return strtoll(cell, NULL, 10);
}

size_t golden_folders(const char *group, char folders[4][512])
{
    const char *named = getenv("BYOL_GOLDEN");
    const char *roots[] = {named && *named ? named : "../shared/golden", "tests/data/golden"};
    size_t count = 0;
    for (size_t i = 0; i < 2; i++) {
        char index[560];
        snprintf(folders[count], 512, "%s/%s", roots[i], group);
        snprintf(index, sizeof index, "%s/index.tsv", folders[count]);
        count += access(index, R_OK) == 0;
    }
    return count;
}

struct npy golden_array(const char *folder, const char *file)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    struct npy array;
    struct error error;
    if (npy_read(path, &array, &error) != STATUS_OK) {
        fail_msg("%s: %s", path, error.reason);
    }
    return array;
}

void golden_each(const char *group,
                 void (*check)(const char *folder, const struct table *index, size_t row))
{
    char folders[4][512];
    size_t count = golden_folders(group, folders);
    if (count == 0) {
        fail_msg("no golden directory has the group '%s' (BYOL_GOLDEN, tests/data/golden)", group);
    }
    for (size_t i = 0; i < count; i++) {
        char path[560];
        struct table index;
        snprintf(path, sizeof path, "%s/index.tsv", folders[i]);
        table_read(&index, path);
        for (size_t row = 0; row < index.rows; row++) {
            check(folders[i], &index, row);
        }
        print_message("golden: %s: %zu cases\n", folders[i], index.rows);
        table_free(&index);
    }
}

double max_difference(const float *a, const float *b, size_t count)
{
    double worst = 0;
    for (size_t i = 0; i < count; i++) {
        double difference = fabs((double)a[i] - (double)b[i]);
        if (!(difference <= worst)) { // NaN counts as worst
            worst = isnan(difference) ? INFINITY : difference;
        }
    }
    return worst;
}

double relative_l2(const float *a, const float *b, size_t count)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        double d = (double)a[i] - (double)b[i];
        difference += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    if (isnan(difference)) {
        return INFINITY;
    }
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}
