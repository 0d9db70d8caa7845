// LMDBs of others: Caffe's, torch-style ones, plain image files by key. Each value is sniffed by
// itself (formats/source_value.h); one that is nothing known is a bad image, a damaged tree ends
// the source. Keys such as `__len__` and `__keys__` are the writers' notes and count as files that
// are no images.
#include "formats/dataset.h"
#include "formats/limits.h"
#include "formats/lmdb_walk.h"
#include "formats/name.h"
#include "formats/source_value.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lmdb_source {
    struct lmdb_walk *walk;
    struct source_content content;
    char path[600], name[LMDB_KEY_BYTES + 8], description[200];
    uint64_t record;
    enum source_value_form form; // of the first one
    bool labelled, mixed;
};

static enum status lmdb_recognise(const char *path, bool *mine, struct error *error)
{
    char file[600];
    lmdb_walk_file(path, file, sizeof file);
    return lmdb_walk_recognise(file, mine, error);
}

static void lmdb_source_close(void **state)
{
    struct lmdb_source *source = *state;
    if (source != NULL) {
        lmdb_walk_close(&source->walk);
        source_content_free(&source->content);
        free(source);
        *state = NULL;
    }
}

static enum status lmdb_source_open(void **state, const char *path, struct error *error)
{
    struct lmdb_source *source = calloc(1, sizeof *source);
    *state = source;
    if (source == NULL) {
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory to read");
    }
    source->form = SOURCE_VALUE_FORMS;
    lmdb_walk_file(path, source->path, sizeof source->path);
    return lmdb_walk_open(&source->walk, source->path, error);
}

static bool is_note(const uint8_t *key, size_t len)
{
    return len > 4 && memcmp(key, "__", 2) == 0 && memcmp(key + len - 2, "__", 2) == 0;
}

// The key where it is a good name; with the image's ending where it has none.
static void name_entry(struct lmdb_source *source, const uint8_t *key, size_t len,
                       const char *ending, struct source_entry *entry)
{
    entry->numbered = name_fault((const char *)key, len) != NULL;
    if (entry->numbered) {
        snprintf(source->name, sizeof source->name, "%09" PRIu64 "%s", source->record, ending);
    } else {
        const uint8_t *slash = memrchr(key, '/', len), *base = slash ? slash + 1 : key;
        bool has_one = memchr(base, '.', (size_t)(key + len - base)) != NULL;
        snprintf(source->name, sizeof source->name, "%.*s%s", (int)len, (const char *)key,
                 has_one ? "" : ending);
    }
    entry->name = source->name;
}

static enum status take_value(struct lmdb_source *source, const struct source_value *value,
                              struct source_entry *entry, struct error *error)
{
    enum status status = STATUS_OK;
    if (value->pixels == SOURCE_PIXELS_NONE) {
        source_content_file(&source->content, &value->image);
    } else {
        status = source_content_pixels(&source->content, &value->image, value->pixels, value->width,
                                       value->height, error);
    }
    if (value->form != SOURCE_VALUE_IMAGE) {
        entry->label = DATASET_NO_LABEL;
    }
    if (status == STATUS_OK && value->labelled) {
        status = source_label_of(value->label, source->path, source->record, &entry->label, error);
    }
    entry->type = SOURCE_ENTRY_IMAGE;
    entry->size = source_content_size(&source->content);
    source->mixed |= source->form != SOURCE_VALUE_FORMS && source->form != value->form;
    source->form = source->form == SOURCE_VALUE_FORMS ? value->form : source->form;
    source->labelled |= value->labelled;
    return status;
}

static enum status lmdb_source_next(void *state, struct source_entry *entry, struct error *error)
{
    struct lmdb_source *source = state;
    struct source_range range;
    struct source_value value = {.ending = NULL};
    struct error why = {.status = STATUS_OK};
    const uint8_t *key;
    size_t key_len;
    enum status status = lmdb_walk_next(source->walk, &key, &key_len, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = lmdb_walk_value(source->walk, &range, &why);
    if (status == STATUS_OK && is_note(key, key_len)) {
        name_entry(source, key, key_len, "", entry);
        entry->type = SOURCE_ENTRY_FILE;
        entry->size = range.len;
        source_content_file(&source->content, &range);
        return STATUS_OK;
    }
    if (status == STATUS_OK) {
        status = source_value_sniff(&value, &range, &why);
    }
    name_entry(source, key, key_len, value.ending ? value.ending : "", entry);
    if (status == STATUS_OK) {
        status = take_value(source, &value, entry, &why);
    }
    why.record = source->record++;
    return source_content_judge(&source->content, status, &why, entry, error);
}

static enum status lmdb_source_read(void *state, void *buf, size_t len, size_t *got,
                                    struct error *error)
{
    struct lmdb_source *source = state;
    return source_content_read(&source->content, buf, len, got, error);
}

static const char *lmdb_source_describe(void *state)
{
    struct lmdb_source *source = state;
    if (source->form == SOURCE_VALUE_FORMS) {
        return NULL;
    }
    snprintf(source->description, sizeof source->description, "%s%s, %s, %" PRIu64 " entries",
             source_value_form_name(source->form), source->mixed ? " and other forms" : "",
             source->labelled ? "labels in the values" : "no labels in the values",
             lmdb_walk_entries(source->walk));
    return source->description;
}

const struct source_kind source_lmdb = {.name = "LMDB",
                                        .recognise = lmdb_recognise,
                                        .open = lmdb_source_open,
                                        .next = lmdb_source_next,
                                        .read = lmdb_source_read,
                                        .describe = lmdb_source_describe,
                                        .close = lmdb_source_close};
