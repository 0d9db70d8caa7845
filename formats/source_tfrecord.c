// TFRecord files of tf.train.Examples (formats/tfrecord.h, formats/example.h). The keys are those
// of the first good record; what a record lacks or breaks makes that record bad, not the file.
//
// Classes are called as the records say (image/class/synset, image/class/text), or as the file that
// TensorFlow Datasets puts beside its own does: label.labels.txt, a name a line.
#include "formats/class_names.h"
#include "formats/dataset.h"
#include "formats/example.h"
#include "formats/file.h"
#include "formats/limits.h"
#include "formats/source_content.h"
#include "formats/tfrecord.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SNIFFED_RECORDS 100 // damaged ones before the first good one
#define CLASSES_BYTES   (LIMIT_CLASSES * 64)

struct records {
    char path[512];
    struct tfrecord_reader *reader;
    struct example_keys keys;
    struct class_list classes; // of the file beside it
    int32_t max_label;
    char layout[500];
    char name[LIMIT_NAME_BYTES + 2], class_name[LIMIT_NAME_BYTES + 2]; // of the current record
    struct source_content content;
};

static void records_close(void **state)
{
    struct records *records = *state;
    if (records != NULL) {
        tfrecord_close(&records->reader);
        class_list_free(&records->classes);
        source_content_free(&records->content);
        free(records);
        *state = NULL;
    }
}

// A packed file is unpacked up to its first record: a packed tar ends at its first twelve bytes.
static enum status recognise_packed(const char *path, bool *mine, struct error *error)
{
    struct tfrecord_reader *reader;
    const uint8_t *bytes;
    size_t len;
    enum status status = tfrecord_open(&reader, path, error);
    if (status == STATUS_OK) {
        status = tfrecord_next(reader, &bytes, &len, error);
        *mine = tfrecord_goes_on(reader);
    }
    tfrecord_close(&reader);
    return status == STATUS_NO_MEMORY ? status : STATUS_OK;
}

static enum status records_recognise(const char *path, bool *mine, struct error *error)
{
    *mine = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return STATUS_OK;
    }
    uint8_t head[TFRECORD_HEAD_BYTES];
    ssize_t got = read(fd, head, sizeof head);
    close(fd);
    *mine = got > 0 && tfrecord_starts(head, (size_t)got);
    bool packed = got > 2 && head[0] == 0x1f && head[1] == 0x8b;
    return *mine || !packed ? STATUS_OK : recognise_packed(path, mine, error);
}

// --- opening -------------------------------------------------------------------------------------

static bool passes(enum status status)
{
    return status == STATUS_CORRUPT || status == STATUS_LIMIT;
}

static enum status find_keys(struct example_keys *keys, struct tfrecord_reader *reader,
                             const char *path, struct error *error)
{
    struct error why = {0};
    const uint8_t *bytes;
    size_t len;
    enum status status = STATUS_CORRUPT;
    for (int i = 0; i < SNIFFED_RECORDS && passes(status); i++) {
        status = tfrecord_next(reader, &bytes, &len, &why);
        if (!tfrecord_goes_on(reader)) {
            break;
        }
        if (status == STATUS_OK) {
            status = example_keys_find(keys, bytes, len, &why);
        }
    }
    if (status == STATUS_END) {
        return error_set(error, STATUS_CORRUPT, path, NOWHERE, NOWHERE, "no record in it is whole");
    }
    return status == STATUS_OK ? status
                               : error_set(error, status, path, tfrecord_offset(reader),
                                           tfrecord_number(reader), "%s", why.reason);
}

// KEY.labels.txt beside the file, if there is one.
static enum status read_classes(struct records *records, struct error *error)
{
    const char *key = records->keys.label, *slash = strrchr(records->path, '/');
    char beside[sizeof records->path + 40];
    uint8_t *bytes;
    size_t len;
    if (key == NULL || strchr(key, '/') != NULL) {
        return STATUS_OK;
    }
    snprintf(beside, sizeof beside, "%.*s%s.labels.txt",
             slash ? (int)(slash + 1 - records->path) : 0, records->path, key);
    if (!file_exists(beside)) {
        return STATUS_OK;
    }
    enum status status = file_read_all(beside, CLASSES_BYTES, &bytes, &len, error);
    return status ? status : class_list_split(&records->classes, (char *)bytes, len, error);
}

static enum status records_open(void **state, const char *path, struct error *error)
{
    struct records *records = calloc(1, sizeof *records);
    *state = records;
    if (records == NULL) {
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory to read");
    }
    snprintf(records->path, sizeof records->path, "%s", path);
    struct tfrecord_reader *first;
    enum status status = tfrecord_open(&first, path, error);
    if (status == STATUS_OK) {
        status = find_keys(&records->keys, first, path, error);
    }
    tfrecord_close(&first);
    if (status == STATUS_OK) {
        status = read_classes(records, error);
    }
    return status ? status : tfrecord_open(&records->reader, path, error);
}

// --- records -------------------------------------------------------------------------------------

// Copies a text of the record; false, and nothing, where there is none or it is no text.
static bool copy_text(char to[LIMIT_NAME_BYTES + 2], const char *text, size_t len)
{
    if (len == 0 || memchr(text, '\0', len) != NULL) {
        return false;
    }
    len = len < LIMIT_NAME_BYTES + 1 ? len : LIMIT_NAME_BYTES + 1;
    memcpy(to, text, len);
    to[len] = '\0';
    return true;
}

// The stored name, or the record's number where there is none that is text.
static void set_name(struct records *records, const struct example *example,
                     struct source_entry *entry)
{
    entry->numbered = !copy_text(records->name, example->name, example->name_len);
    if (entry->numbered) {
        bool png = example->image_len >= 4 && memcmp(example->image, "\x89PNG", 4) == 0;
        snprintf(records->name, sizeof records->name, "%09" PRIu64 "%s",
                 tfrecord_number(records->reader), png ? ".png" : ".jpg");
    }
    entry->name = records->name;
}

static void set_label(struct records *records, const struct example *example,
                      struct source_entry *entry)
{
    entry->label = example->label;
    records->max_label = entry->label > records->max_label ? entry->label : records->max_label;
    if (copy_text(records->class_name, example->class_name, example->class_name_len)) {
        entry->class_name = records->class_name;
    }
}

static void set_content(struct records *records, const struct example *example,
                        struct source_entry *entry)
{
    struct source_range range;
    source_range_memory(&range, example->image, example->image_len, records->path);
    source_content_file(&records->content, &range);
    entry->type = SOURCE_ENTRY_IMAGE;
    entry->size = example->image_len;
}

static enum status records_next(void *state, struct source_entry *entry, struct error *error)
{
    struct records *records = state;
    struct example example = {.label = DATASET_NO_LABEL};
    struct error why;
    const uint8_t *bytes;
    size_t len;
    enum status status = tfrecord_next(records->reader, &bytes, &len, &why);
    if (!tfrecord_goes_on(records->reader)) {
        if (status != STATUS_END && error != NULL) {
            *error = why;
        }
        return status;
    }
    if (status == STATUS_OK) {
        status = example_parse(&example, &records->keys, bytes, len, &why);
    }
    set_name(records, &example, entry);
    set_content(records, &example, entry);
    if (status == STATUS_OK) {
        set_label(records, &example, entry);
        return STATUS_OK;
    }
    error_set(&why, status, records->path, tfrecord_offset(records->reader),
              tfrecord_number(records->reader), "%s", why.reason);
    return source_content_judge(&records->content, status, &why, entry, error);
}

static enum status records_read(void *state, void *buf, size_t len, size_t *got,
                                struct error *error)
{
    return source_content_read(&((struct records *)state)->content, buf, len, got, error);
}

// --- what was found ------------------------------------------------------------------------------

static bool classes_fit(const struct records *records)
{
    return records->max_label < (int32_t)records->classes.count &&
           records->classes.count <= LIMIT_CLASSES;
}

static const char *const *records_classes(void *state, uint32_t *count)
{
    const struct records *records = state;
    bool fit = records->classes.count > 0 && classes_fit(records);
    *count = fit ? records->classes.count : 0;
    return fit ? records->classes.names : NULL;
}

// "image/encoded, image/class/label from 1 named by image/class/synset, image/filename, gzip"
static const char *records_describe(void *state)
{
    struct records *records = state;
    const struct example_keys *keys = &records->keys;
    char label[80] = "no labels", called[120] = "";
    if (keys->label != NULL) {
        snprintf(label, sizeof label, "%s from %" PRId64, keys->label, keys->first_label);
    }
    if (records->classes.count > 0 && !classes_fit(records)) {
        snprintf(called, sizeof called,
                 " (%s.labels.txt names %" PRIu32 " classes, which do not fit label %" PRId32 ")",
                 keys->label, records->classes.count, records->max_label);
    } else if (records->classes.count > 0) {
        snprintf(called, sizeof called, " named by %s.labels.txt", keys->label);
    } else if (keys->class_name != NULL) {
        snprintf(called, sizeof called, " named by %s", keys->class_name);
    }
    snprintf(records->layout, sizeof records->layout, "%s, %s%s, %s%s", keys->image, label, called,
             keys->name ? keys->name : "no names",
             tfrecord_compressed(records->reader) ? ", gzip" : "");
    return records->layout;
}

const struct source_kind source_tfrecord = {.name = "TFRecord",
                                            .recognise = records_recognise,
                                            .open = records_open,
                                            .next = records_next,
                                            .read = records_read,
                                            .classes = records_classes,
                                            .describe = records_describe,
                                            .close = records_close};
