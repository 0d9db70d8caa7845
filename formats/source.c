// What folders and tars have in common: which files are images, which names are keys.
#include "formats/source.h"
#include "formats/limits.h"
#include "formats/name.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define HEAD_BYTES 4u

struct source {
    char path[512];
    const struct source_kind *kind;
    void *state;
    struct source_counts counts;
    struct source_entry entry; // the current one
    uint8_t head[HEAD_BYTES];  // its first bytes, where they were looked at
    size_t head_len;
};

enum status source_open(struct source **out, const char *path, struct error *error)
{
    *out = NULL;
    struct stat about;
    if (stat(path, &about) != 0) {
        return error_errno(error, errno, path, NOWHERE, "open");
    }
    if (!S_ISDIR(about.st_mode) && !S_ISREG(about.st_mode)) {
        return error_set(error, STATUS_UNSUPPORTED, path, NOWHERE, NOWHERE,
                         "neither a folder nor a file (it has to be read twice)");
    }
    struct source *source = calloc(1, sizeof *source);
    if (source == NULL) {
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory to read");
    }
    snprintf(source->path, sizeof source->path, "%s", path);
    source->kind = S_ISDIR(about.st_mode) ? &source_folder : &source_tar;
    enum status status = source->kind->open(&source->state, path, error);
    if (status != STATUS_OK) {
        source_close(&source);
    }
    *out = source;
    return status;
}

void source_close(struct source **source)
{
    if (*source != NULL) {
        (*source)->kind->close(&(*source)->state);
        free(*source);
        *source = NULL;
    }
}

const char *source_path(const struct source *source)
{
    return source->path;
}

struct source_counts source_counts(const struct source *source)
{
    return source->counts;
}

static bool named_like_an_image(const char *base)
{
    static const char *const endings[] = {".jpg", ".jpeg", ".jpe", ".jfif", ".png"};
    const char *dot = strrchr(base, '.');
    for (size_t i = 0; dot != NULL && i < sizeof endings / sizeof *endings; i++) {
        if (strcasecmp(dot, endings[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool starts_like_an_image(const uint8_t *head, size_t len)
{
    return (len >= 3 && memcmp(head, "\xff\xd8\xff", 3) == 0) ||
           (len >= 4 && memcmp(head, "\x89PNG", 4) == 0);
}

// Looks into the file only when its name does not tell.
static enum status is_image(struct source *source, const char *name, bool *answer,
                            struct error *error)
{
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
    *answer = false;
    if (base[0] == '.') {
        return STATUS_OK;
    }
    *answer = named_like_an_image(base);
    if (*answer) {
        return STATUS_OK;
    }
    enum status status =
        source->kind->read(source->state, source->head, HEAD_BYTES, &source->head_len, error);
    *answer = status == STATUS_OK && starts_like_an_image(source->head, source->head_len);
    return status;
}

enum status source_next(struct source *source, struct source_member *member, struct error *error)
{
    for (;;) {
        source->head_len = 0;
        enum status status = source->kind->next(source->state, &source->entry, error);
        if (status != STATUS_OK) {
            return status;
        }
        if (source->entry.type == SOURCE_ENTRY_LINK) {
            source->counts.links++;
            continue;
        }
        const char *name = source->entry.name ? source->entry.name : "";
        while (strncmp(name, "./", 2) == 0) {
            name += 2;
        }
        bool image;
        status = is_image(source, name, &image, error);
        if (status != STATUS_OK) {
            return status;
        }
        if (image) {
            source->counts.images++;
            member->name = name;
            member->fault = name_fault(name, strlen(name));
            member->size = source->entry.size;
            return STATUS_OK;
        }
        source->counts.others++;
    }
}

enum status source_read(struct source *source, uint8_t **bytes, size_t *len, size_t *capacity,
                        struct error *error)
{
    *len = 0;
    uint64_t size = source->entry.size;
    if (size > LIMIT_IMAGE_BYTES) {
        return error_set(error, STATUS_LIMIT, NULL, NOWHERE, NOWHERE,
                         "%llu bytes long; the limit for an image is %llu",
                         (unsigned long long)size, (unsigned long long)LIMIT_IMAGE_BYTES);
    }
    if (size + HEAD_BYTES > *capacity) {
        size_t need = (size_t)size + HEAD_BYTES + (size_t)size / 4;
        uint8_t *grown = malloc(need);
        if (grown == NULL) {
            return error_errno(error, ENOMEM, source->path, NOWHERE,
                               "allocate memory for an image");
        }
        free(*bytes);
        *bytes = grown;
        *capacity = need;
    }
    memcpy(*bytes, source->head, source->head_len);
    size_t rest = (size_t)size > source->head_len ? (size_t)size - source->head_len : 0, got = 0;
    enum status status =
        source->kind->read(source->state, *bytes + source->head_len, rest, &got, error);
    *len = source->head_len + got;
    if (status == STATUS_OK && *len != size) {
        status = error_set(error, STATUS_TRUNCATED, source->path, NOWHERE, NOWHERE,
                           "a file in it ends early or changed while it was read");
    }
    return status;
}
