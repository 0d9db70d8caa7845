// Optimal string alignment distance, three rows of the table at a time.
#include "formats/nearest.h"

#include <string.h>

#define LONGEST 63 // longer names are compared by their first part: enough for a hint

static size_t smallest(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t distance(const char *a, const char *b)
{
    size_t a_len = strnlen(a, LONGEST), b_len = strnlen(b, LONGEST);
    size_t rows[3][LONGEST + 1];
    size_t *before = rows[0], *above = rows[1], *row = rows[2];
    for (size_t j = 0; j <= b_len; j++) {
        above[j] = j;
    }
    for (size_t i = 1; i <= a_len; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t replaced = above[j - 1] + (a[i - 1] != b[j - 1]);
            row[j] = smallest(replaced, smallest(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                row[j] = smallest(row[j], before[j - 2] + 1);
            }
        }
        size_t *oldest = before;
        before = above;
        above = row;
        row = oldest;
    }
    return above[b_len];
}

const char *nearest_name(const char *wanted, const char *const *names, size_t count)
{
    const char *best = NULL;
    size_t best_distance = strnlen(wanted, LONGEST) / 3 + 2;
    for (size_t i = 0; i < count; i++) {
        size_t edits = distance(wanted, names[i]);
        if (edits < best_distance) {
            best_distance = edits;
            best = names[i];
        }
    }
    return best;
}
