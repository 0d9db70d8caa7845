// Reads the whole file; lines are pieces of it.
#include "formats/name_list.h"

#include "formats/file.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_LIMIT ((uint64_t)1 << 30)

void name_list_free(struct name_list *list)
{
    free(list->text);
    free(list->lines);
    *list = (struct name_list){0};
}

static char *trimmed(char *line)
{
    while (isspace((unsigned char)*line)) {
        line++;
    }
    for (size_t len = strlen(line); len > 0 && isspace((unsigned char)line[len - 1]); len--) {
        line[len - 1] = '\0';
    }
    return line;
}

static void take_line(struct name_list *list, char *line, uint64_t number, bool values)
{
    line = trimmed(line);
    if (line[0] == '\0' || line[0] == '#') {
        return;
    }
    struct name_line *out = &list->lines[list->count++];
    *out = (struct name_line){.name = line, .number = number};
    size_t at = strlen(line);
    while (values && at > 0 && !isspace((unsigned char)line[at - 1])) {
        at--;
    }
    if (values && at > 0) {
        out->value = line + at;
        line[at - 1] = '\0';
        out->name = trimmed(line);
    }
}

enum status name_list_read(struct name_list *list, const char *path, bool values,
                           struct error *error)
{
    size_t len, lines = 1;
    snprintf(list->path, sizeof list->path, "%s", path);
    enum status status = file_read_all(path, FILE_LIMIT, &list->text, &len, error);
    if (status != STATUS_OK) {
        return status;
    }
    const uint8_t *zero = memchr(list->text, 0, len);
    if (zero != NULL) {
        return error_set(error, STATUS_INVALID, path, (uint64_t)(zero - list->text), NOWHERE,
                         "a zero byte: not a text file");
    }
    for (size_t i = 0; i < len; i++) {
        lines += list->text[i] == '\n';
    }
    list->lines = calloc(lines, sizeof *list->lines);
    if (list->lines == NULL) {
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory for its lines");
    }
    uint64_t number = 1;
    for (char *at = (char *)list->text; at != NULL; number++) {
        char *end = strchr(at, '\n');
        if (end != NULL) {
            *end = '\0';
        }
        take_line(list, at, number, values);
        at = end ? end + 1 : NULL;
    }
    return list->count > 0 ? STATUS_OK
                           : error_set(error, STATUS_INVALID, path, NOWHERE, NOWHERE,
                                       "no line in it says anything");
}

static int compare_lines(const void *left, const void *right)
{
    return strcmp(((const struct name_line *)left)->name, ((const struct name_line *)right)->name);
}

enum status name_list_sort(struct name_list *list, struct error *error)
{
    qsort(list->lines, list->count, sizeof *list->lines, compare_lines);
    for (size_t i = 1; i < list->count; i++) {
        if (strcmp(list->lines[i - 1].name, list->lines[i].name) == 0) {
            return error_set(error, STATUS_INVALID, list->path, NOWHERE, NOWHERE,
                             "'%.200s' comes twice (lines %llu and %llu)", list->lines[i].name,
                             (unsigned long long)list->lines[i - 1].number,
                             (unsigned long long)list->lines[i].number);
        }
    }
    return STATUS_OK;
}

struct name_line *name_list_find(const struct name_list *list, const char *name)
{
    for (const char *at = name; at != NULL; at = strchr(at, '/')) {
        at += *at == '/';
        const struct name_line key = {.name = at};
        struct name_line *found =
            bsearch(&key, list->lines, list->count, sizeof *list->lines, compare_lines);
        if (found != NULL) {
            return found;
        }
    }
    return NULL;
}

uint64_t name_list_unused(const struct name_list *list, const struct name_line **first)
{
    uint64_t unused = 0;
    *first = NULL;
    for (size_t i = 0; i < list->count; i++) {
        if (!list->lines[i].used) {
            unused++;
            if (*first == NULL || list->lines[i].number < (*first)->number) {
                *first = &list->lines[i];
            }
        }
    }
    return unused;
}
