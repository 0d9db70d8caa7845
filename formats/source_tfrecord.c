// TFRecord files of tf.train.Examples (formats/tfrecord.h, formats/example.h). The keys are those
// of the first good record; what a record lacks or breaks makes that record bad, not the file.
#include "formats/dataset.h"
#include "formats/example.h"
#include "formats/limits.h"
#include "formats/source.h"
#include "formats/tfrecord.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SNIFFED_RECORDS 100 // damaged ones before the first good one

struct records {
    struct tfrecord_reader *reader;
    struct example_keys keys;
    char layout[300];
    char name[LIMIT_NAME_BYTES + 2];
    struct example example; // the current one
    size_t at;              // how far its image was read
    struct error bad;       // why it cannot be read, with STATUS_OK for nothing
};

static void records_close(void **state)
{
    struct records *records = *state;
    if (records != NULL) {
        tfrecord_close(&records->reader);
        free(records);
        *state = NULL;
    }
}

// A packed file is unpacked up to its first record: a packed tar ends at its first twelve bytes.
static enum status recognise_packed(const char *path, bool *mine, struct error *error)
{
    struct tfrecord_reader *reader;
    struct error why;
    const uint8_t *bytes;
    size_t len;
    enum status status = tfrecord_open(&reader, path, &why);
    if (status == STATUS_OK) {
        status = tfrecord_next(reader, &bytes, &len, &why);
        *mine = tfrecord_goes_on(reader);
    }
    tfrecord_close(&reader);
    if (status == STATUS_NO_MEMORY && error != NULL) {
        *error = why;
    }
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

static enum status find_keys(struct example_keys *keys, struct tfrecord_reader *reader,
                             const char *path, struct error *error)
{
    struct error why = {0};
    const uint8_t *bytes;
    size_t len;
    enum status status = STATUS_CORRUPT;
    for (int i = 0; i < SNIFFED_RECORDS && status == STATUS_CORRUPT; i++) {
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

static void write_layout(struct records *records)
{
    const struct example_keys *keys = &records->keys;
    const char *packed = tfrecord_compressed(records->reader) ? ", gzip" : "";
    char label[80] = "no labels", name[80] = "no names";
    if (keys->label != NULL) {
        snprintf(label, sizeof label, "%s from %" PRId64, keys->label, keys->first_label);
    }
    if (keys->name != NULL) {
        snprintf(name, sizeof name, "%s", keys->name);
    }
    snprintf(records->layout, sizeof records->layout, "%s, %s, %s%s", keys->image, label, name,
             packed);
}

static enum status records_open(void **state, const char *path, struct error *error)
{
    struct records *records = calloc(1, sizeof *records);
    *state = records;
    if (records == NULL) {
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory to read");
    }
    struct tfrecord_reader *first;
    enum status status = tfrecord_open(&first, path, error);
    if (status == STATUS_OK) {
        status = find_keys(&records->keys, first, path, error);
    }
    tfrecord_close(&first);
    if (status == STATUS_OK) {
        status = tfrecord_open(&records->reader, path, error);
    }
    if (status == STATUS_OK) {
        write_layout(records);
    }
    return status;
}

// --- records -------------------------------------------------------------------------------------

// The stored name, or the record's number where there is none that is text.
static void set_name(struct records *records, struct source_entry *entry)
{
    const struct example *example = &records->example;
    size_t len = example->name_len;
    entry->numbered = len == 0 || memchr(example->name, '\0', len) != NULL;
    if (entry->numbered) {
        bool png = example->image_len >= 4 && memcmp(example->image, "\x89PNG", 4) == 0;
        snprintf(records->name, sizeof records->name, "%09" PRIu64 "%s",
                 tfrecord_number(records->reader), png ? ".png" : ".jpg");
    } else {
        len = len < sizeof records->name - 1 ? len : sizeof records->name - 1;
        memcpy(records->name, example->name, len);
        records->name[len] = '\0';
    }
    entry->name = records->name;
}

static enum status records_next(void *state, struct source_entry *entry, struct error *error)
{
    struct records *records = state;
    const uint8_t *bytes;
    size_t len;
    records->at = 0;
    records->example = (struct example){.label = DATASET_NO_LABEL};
    records->bad = (struct error){.offset = NOWHERE, .record = NOWHERE};
    enum status status = tfrecord_next(records->reader, &bytes, &len, &records->bad);
    if (!tfrecord_goes_on(records->reader)) {
        if (status != STATUS_END && error != NULL) {
            *error = records->bad;
        }
        return status;
    }
    if (status == STATUS_OK) {
        status = example_parse(&records->example, &records->keys, bytes, len, &records->bad);
        records->bad.offset = tfrecord_offset(records->reader);
        records->bad.record = tfrecord_number(records->reader);
    }
    bool good = status == STATUS_OK;
    set_name(records, entry);
    entry->type = SOURCE_ENTRY_IMAGE;
    entry->size = good ? records->example.image_len : SOURCE_SIZE_UNKNOWN;
    entry->label = good ? (int32_t)records->example.label : DATASET_NO_LABEL;
    records->bad.status = status;
    return STATUS_OK;
}

static enum status records_read(void *state, void *buf, size_t len, size_t *got,
                                struct error *error)
{
    struct records *records = state;
    *got = 0;
    if (records->bad.status != STATUS_OK) {
        return error_set(error, STATUS_CORRUPT, records->bad.path, records->bad.offset,
                         records->bad.record, "%s", records->bad.reason);
    }
    size_t rest = records->example.image_len - records->at;
    *got = rest < len ? rest : len;
    memcpy(buf, records->example.image + records->at, *got);
    records->at += *got;
    return STATUS_OK;
}

static const char *records_describe(void *state)
{
    return ((struct records *)state)->layout;
}

const struct source_kind source_tfrecord = {.name = "TFRecord",
                                            .recognise = records_recognise,
                                            .open = records_open,
                                            .next = records_next,
                                            .read = records_read,
                                            .describe = records_describe,
                                            .close = records_close};
