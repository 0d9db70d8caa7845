// What all sources have in common: which kind they are, which files are images, which names are
// keys.
#include "formats/source.h"
#include "formats/dataset.h"
#include "formats/limits.h"
#include "formats/name.h"
#include "formats/source_export.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define HEAD_BYTES    4u
#define FIRST_BYTES   (64u << 10) // of the buffer for an image whose size is not known
#define NAME_CAPACITY (2 * LIMIT_NAME_BYTES)

// A new kind adds its line; the last two take what looks like nothing in particular.
const struct source_kind *const source_kinds[] = {
    &source_webdataset,
    &source_dataset,
    &source_lmdb,
    &source_beton,
    &source_mds,
    &source_hdf5,
    &source_parquet,
    &source_tfrecord,
    &source_binary,
    &source_ilsvrc,
    &source_tar,
    &source_folder,
    NULL,
};

struct source {
    char path[512];
    const struct source_kind *kind;
    void *state;
    struct source_counts counts;
    struct source_entry entry; // the current one
    uint8_t head[HEAD_BYTES];  // its first bytes, where they were looked at
    size_t head_len;
    char base[256];           // of the path
    char name[NAME_CAPACITY]; // of a numbered entry
    char description[512];
    struct source_export export;
};

// --- which kind --------------------------------------------------------------------------------

// "TFRecord, tar, folder"
static void list_kinds(char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; source_kinds[i] != NULL && used < size; i++) {
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "",
                                 source_kinds[i]->name);
    }
}

static enum status choose_kind(struct source *source, struct error *error)
{
    for (size_t i = 0; source_kinds[i] != NULL; i++) {
        bool mine = false;
        struct error why;
        enum status status = source_kinds[i]->recognise(source->path, &mine, &why);
        if (status != STATUS_OK) {
            if (error != NULL) {
                *error = why;
            }
            return status;
        }
        if (mine) {
            source->kind = source_kinds[i];
            return STATUS_OK;
        }
    }
    char known[300];
    list_kinds(known, sizeof known);
    return error_set(error, STATUS_UNSUPPORTED, source->path, NOWHERE, NOWHERE,
                     "%s, nothing that images are read from; known are: %s",
                     source_seen(source->path), known);
}

static void set_base(struct source *source)
{
    size_t end = strlen(source->path);
    while (end > 1 && source->path[end - 1] == '/') {
        end--;
    }
    const char *slash = memrchr(source->path, '/', end);
    const char *base = slash ? slash + 1 : source->path;
    snprintf(source->base, sizeof source->base, "%.*s", (int)(source->path + end - base), base);
}

static enum status open_source(struct source **out, const char *path, bool names,
                               struct error *error)
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
    if ((size_t)snprintf(source->path, sizeof source->path, "%s", path) >= sizeof source->path) {
        free(source);
        return error_set(error, STATUS_LIMIT, path, NOWHERE, NOWHERE, "the path is too long");
    }
    set_base(source);
    enum status status = source_export_read(&source->export, path, error);
    if (status == STATUS_OK) {
        status = choose_kind(source, error);
    }
    if (status == STATUS_OK) {
        const struct source_kind *kind = source->kind;
        status = names && kind->open_names != NULL ? kind->open_names(&source->state, path, error)
                                                   : kind->open(&source->state, path, error);
    }
    if (status != STATUS_OK) {
        source_close(&source);
    }
    *out = source;
    return status;
}

enum status source_open(struct source **out, const char *path, struct error *error)
{
    return open_source(out, path, false, error);
}

enum status source_open_names(struct source **out, const char *path, struct error *error)
{
    return open_source(out, path, true, error);
}

void source_close(struct source **source)
{
    if (*source != NULL) {
        if ((*source)->kind != NULL) {
            (*source)->kind->close(&(*source)->state);
        }
        source_export_free(&(*source)->export);
        free(*source);
        *source = NULL;
    }
}

const char *source_path(const struct source *source)
{
    return source->path;
}

bool source_exported(const struct source *source)
{
    return source->export.found;
}

struct source_counts source_counts(const struct source *source)
{
    return source->counts;
}

const char *source_kind_name(const struct source *source)
{
    return source->kind->name;
}

const char *source_describe(struct source *source)
{
    const char *layout = source->kind->describe ? source->kind->describe(source->state) : NULL;
    snprintf(source->description, sizeof source->description, "%s%s%s", source->kind->name,
             layout ? ": " : "", layout ? layout : "");
    for (char *at = source->description; *at != '\0'; at++) { // names out of the file, for people
        *at = iscntrl((unsigned char)*at) ? '?' : *at;
    }
    return source->description;
}

const char *const *source_classes(const struct source *source, uint32_t *count)
{
    if (source->export.count > 0) {
        *count = source->export.count;
        return source->export.classes;
    }
    *count = 0;
    return source->kind->classes ? source->kind->classes(source->state, count) : NULL;
}

// --- members -----------------------------------------------------------------------------------

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

// Looks into a file only when its name does not tell.
static enum status is_image(struct source *source, const char *name, bool *answer,
                            struct error *error)
{
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
    *answer = source->entry.type == SOURCE_ENTRY_IMAGE;
    if (*answer) {
        return STATUS_OK;
    }
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

// The current entry, found to be an image, as a member.
static enum status make_member(struct source *source, const char *name,
                               struct source_member *member, struct error *error)
{
    const struct source_entry *entry = &source->entry;
    if (entry->label < SOURCE_LABEL_OF_NAME || entry->label >= (int32_t)LIMIT_CLASSES) {
        return error_set(error, STATUS_LIMIT, source->path, NOWHERE, source->counts.images,
                         "label %d; labels are 0 to %llu, or -1 for none", entry->label,
                         (unsigned long long)LIMIT_CLASSES - 1);
    }
    member->label = entry->label;
    member->class_name = entry->label >= 0 && !source->export.found ? entry->class_name : NULL;
    if (source->export.found && member->label == SOURCE_LABEL_OF_NAME) {
        member->label = source_export_label(&source->export, name);
    }
    if (entry->numbered) {
        snprintf(source->name, sizeof source->name, "%s/%s", source->base, name);
        name = source->name;
        if (member->label == SOURCE_LABEL_OF_NAME) { // the folder is none of its own
            member->label = DATASET_NO_LABEL;
        }
    }
    source->counts.images++;
    member->name = name;
    member->fault = name_fault(name, strlen(name));
    member->size = entry->size;
    return STATUS_OK;
}

enum status source_next(struct source *source, struct source_member *member, struct error *error)
{
    for (;;) {
        source->head_len = 0;
        source->entry = (struct source_entry){.label = SOURCE_LABEL_OF_NAME};
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
            return make_member(source, name, member, error);
        }
        source->counts.others++;
    }
}

static enum status too_long(uint64_t size, struct error *error)
{
    char bytes[32] = "more";
    if (size != SOURCE_SIZE_UNKNOWN) {
        snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)size);
    }
    return error_set(error, STATUS_LIMIT, NULL, NOWHERE, NOWHERE,
                     "%s bytes long; the limit for an image is %llu", bytes,
                     (unsigned long long)LIMIT_IMAGE_BYTES);
}

// Makes room for `need` bytes; the first `used` stay.
static enum status grow(const struct source *source, uint8_t **bytes, size_t *capacity, size_t used,
                        size_t need, struct error *error)
{
    if (need <= *capacity) {
        return STATUS_OK;
    }
    uint8_t *grown = malloc(need);
    if (grown == NULL) {
        return error_errno(error, ENOMEM, source->path, NOWHERE, "allocate memory for an image");
    }
    if (used > 0) {
        memcpy(grown, *bytes, used);
    }
    free(*bytes);
    *bytes = grown;
    *capacity = need;
    return STATUS_OK;
}

static enum status read_all(struct source *source, uint8_t **bytes, size_t *len, size_t *capacity,
                            struct error *error)
{
    enum status status = grow(source, bytes, capacity, 0, FIRST_BYTES, error);
    memcpy(*bytes, source->head, status == STATUS_OK ? source->head_len : 0);
    *len = source->head_len;
    while (status == STATUS_OK) {
        size_t room = *capacity - *len, got = 0;
        status = source->kind->read(source->state, *bytes + *len, room, &got, error);
        *len += got;
        if (status != STATUS_OK || got < room) {
            break;
        }
        if (*len > LIMIT_IMAGE_BYTES) {
            return too_long(SOURCE_SIZE_UNKNOWN, error);
        }
        status = grow(source, bytes, capacity, *len, 2 * *capacity, error);
    }
    return status == STATUS_OK && *len > LIMIT_IMAGE_BYTES ? too_long(*len, error) : status;
}

enum status source_read(struct source *source, uint8_t **bytes, size_t *len, size_t *capacity,
                        struct error *error)
{
    *len = 0;
    uint64_t size = source->entry.size;
    if (size == SOURCE_SIZE_UNKNOWN) {
        return read_all(source, bytes, len, capacity, error);
    }
    if (size > LIMIT_IMAGE_BYTES) {
        return too_long(size, error);
    }
    size_t need = (size_t)size + HEAD_BYTES;
    if (need > *capacity) {
        enum status status = grow(source, bytes, capacity, 0, need + (size_t)size / 4, error);
        if (status != STATUS_OK) {
            return status;
        }
    }
    memcpy(*bytes, source->head, source->head_len);
    size_t rest = (size_t)size > source->head_len ? (size_t)size - source->head_len : 0, got = 0;
    enum status status =
        source->kind->read(source->state, *bytes + source->head_len, rest, &got, error);
    *len = source->head_len + got;
    if (status == STATUS_OK && *len != size) {
        status = error_set(error, STATUS_TRUNCATED, source->path, NOWHERE, NOWHERE,
                           "'%.200s' in it ends early or changed while it was read",
                           source->entry.name ? source->entry.name : "a file");
    }
    return status;
}
