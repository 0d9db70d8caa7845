// The first group of braces is replaced by each of its parts, the rest expanded in turn.
#include "formats/braces.h"

#include "formats/file.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANGE_DIGITS 18
#define DEPTH        16

void braces_free(struct braces *names)
{
    for (size_t i = 0; i < names->count; i++) {
        free(names->item[i]);
    }
    free(names->item);
    *names = (struct braces){0};
}

static enum status add(struct braces *names, const char *text, struct error *error)
{
    if (names->count == BRACES_MAX) {
        return error_set(error, STATUS_LIMIT, text, NOWHERE, NOWHERE,
                         "stands for more than %u names", BRACES_MAX);
    }
    if (names->count == names->capacity) {
        size_t capacity = names->capacity ? 2 * names->capacity : 64;
        char **grown = realloc(names->item, capacity * sizeof *grown);
        if (grown == NULL) {
            return error_errno(error, ENOMEM, text, NOWHERE, "allocate memory for names");
        }
        names->item = grown;
        names->capacity = capacity;
    }
    names->item[names->count] = strdup(text);
    if (names->item[names->count] == NULL) {
        return error_errno(error, ENOMEM, text, NOWHERE, "allocate memory for names");
    }
    names->count++;
    return STATUS_OK;
}

static enum status expand(struct braces *names, const char *text, int depth, struct error *error);

// `head`, one part, and `tail` make a name to expand further.
static enum status expand_part(struct braces *names, const char *head, size_t head_len,
                               const char *part, size_t part_len, const char *tail, int depth,
                               struct error *error)
{
    char *name = NULL;
    if (asprintf(&name, "%.*s%.*s%s", (int)head_len, head, (int)part_len, part, tail) < 0) {
        return error_errno(error, ENOMEM, head, NOWHERE, "allocate memory for names");
    }
    enum status status = expand(names, name, depth + 1, error);
    free(name);
    return status;
}

// "000..127": where the number is all digits and the two dots follow.
static size_t digits(const char *text)
{
    return strspn(text, "0123456789");
}

static bool is_range(const char *group, size_t len)
{
    size_t first = digits(group);
    if (first == 0 || first + 2 >= len || strncmp(group + first, "..", 2) != 0) {
        return false;
    }
    size_t second = digits(group + first + 2);
    return second > 0 && first + 2 + second == len;
}

static enum status expand_range(struct braces *names, const char *text, const char *group,
                                size_t len, int depth, struct error *error)
{
    size_t first = digits(group), second = len - first - 2;
    if (first > RANGE_DIGITS || second > RANGE_DIGITS) {
        return error_set(error, STATUS_INVALID, text, NOWHERE, NOWHERE,
                         "the numbers of its range are too long");
    }
    unsigned long long from = strtoull(group, NULL, 10);
    unsigned long long to = strtoull(group + first + 2, NULL, 10);
    if (from > to || to - from >= BRACES_MAX) {
        return error_set(error, STATUS_INVALID, text, NOWHERE, NOWHERE,
                         "its range goes from %llu to %llu; at most %u names, counting up", from,
                         to, BRACES_MAX);
    }
    int width = group[0] == '0' ? (int)first : 1;
    enum status status = STATUS_OK;
    for (unsigned long long i = from; i <= to && status == STATUS_OK; i++) {
        char number[32];
        int number_len = snprintf(number, sizeof number, "%0*llu", width, i);
        status = expand_part(names, text, (size_t)(group - 1 - text), number, (size_t)number_len,
                             group + len + 1, depth, error);
    }
    return status;
}

static enum status expand_list(struct braces *names, const char *text, const char *group,
                               size_t len, int depth, struct error *error)
{
    enum status status = STATUS_OK;
    for (size_t at = 0; at <= len && status == STATUS_OK;) {
        size_t part = strcspn(group + at, ",}");
        status = expand_part(names, text, (size_t)(group - 1 - text), group + at, part,
                             group + len + 1, depth, error);
        at += part + 1;
    }
    return status;
}

static enum status expand(struct braces *names, const char *text, int depth, struct error *error)
{
    const char *open = strchr(text, '{'), *close = open ? strchr(open, '}') : NULL;
    if (close == NULL || depth == DEPTH) {
        return add(names, text, error);
    }
    const char *group = open + 1;
    size_t len = (size_t)(close - group);
    if (is_range(group, len)) {
        return expand_range(names, text, group, len, depth, error);
    }
    if (memchr(group, ',', len) != NULL) {
        return expand_list(names, text, group, len, depth, error);
    }
    return add(names, text, error);
}

enum status braces_expand(struct braces *names, const char *text, struct error *error)
{
    return file_exists(text) ? add(names, text, error) : expand(names, text, 0, error);
}
