// MosaicML streaming datasets (MDS): a directory with an index.json of version 2 that lists shards,
// each with names, encodings and fixed sizes of its columns (formats/mds_shard.h has the shards).
//
// A sample (mosaicml/streaming: streaming/base/format/mds/encodings.py): u32 sizes of the columns
// without a fixed one, then the columns. The image is the first column of encoding jpeg, png or pil
// (u32 width, height, length of the mode's name; the mode; raw pixels), else the first of bytes;
// the label is a whole-number column by the name of one, or the only one. File names in the index
// must be plain ones, so that it leads nowhere else.
#include "formats/dataset.h"
#include "formats/file.h"
#include "formats/mds_shard.h"
#include "formats/source_content.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define INDEX_BYTES  (UINT64_C(256) << 20) // a million shards and more
#define COLUMNS_MAX  64u
#define COLUMN_BYTES (1 << 30)
#define VERSION      2
#define NO_COLUMN    UINT32_MAX

struct encoding {
    const char *name;
    unsigned bytes; // of a number; 0: none
    bool is_signed, is_text;
};

static const struct encoding numbers[] = {
    {"int", 8, true, false},     {"int64", 8, true, false},   {"int32", 4, true, false},
    {"int16", 2, true, false},   {"int8", 1, true, false},    {"uint64", 8, false, false},
    {"uint32", 4, false, false}, {"uint16", 2, false, false}, {"uint8", 1, false, false},
    {"str_int", 0, false, true},
};

struct column {
    const char *name, *encoding;
    uint64_t size; // 0: each sample says
    const struct encoding *number;
};

struct mds {
    char path[512], index_path[560];
    json_t *index, *shards;
    size_t shard_number;
    struct mds_shard *shard;
    bool names_only;
    struct column columns[COLUMNS_MAX];
    uint32_t column_count, image, label;
    uint64_t record;
    struct source_content content;
    char name[32], description[300];
};

// --- the index ---------------------------------------------------------------------------------

static json_t *load_index(const char *directory, char *path, size_t size, struct error *error,
                          enum status *status)
{
    uint8_t *bytes = NULL;
    size_t len = 0;
    struct stat about;
    snprintf(path, size, "%s/index.json", directory);
    *status = STATUS_OK;
    if (stat(path, &about) != 0) {
        return NULL;
    }
    *status = file_read_all(path, INDEX_BYTES, &bytes, &len, error);
    json_t *index = *status == STATUS_OK
                        ? json_loadb((const char *)bytes, len, JSON_REJECT_DUPLICATES, NULL)
                        : NULL;
    free(bytes);
    return index;
}

static enum status mds_recognise(const char *path, bool *mine, struct error *error)
{
    char file[560];
    enum status status;
    json_t *index = load_index(path, file, sizeof file, NULL, &status);
    (void)error; // an index.json that cannot be read is not one of ours
    *mine = json_is_array(json_object_get(index, "shards")) &&
            json_is_integer(json_object_get(index, "version"));
    json_decref(index);
    return STATUS_OK;
}

static void mds_close(void **state)
{
    struct mds *mds = *state;
    if (mds != NULL) {
        mds_shard_close(&mds->shard);
        source_content_free(&mds->content);
        json_decref(mds->index);
        free(mds);
        *state = NULL;
    }
}

static enum status mds_open(void **state, const char *path, struct error *error)
{
    struct mds *mds = calloc(1, sizeof *mds);
    *state = mds;
    if (mds == NULL) {
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory to read");
    }
    snprintf(mds->path, sizeof mds->path, "%s", path);
    mds->image = mds->label = NO_COLUMN;
    enum status status;
    mds->index = load_index(path, mds->index_path, sizeof mds->index_path, error, &status);
    mds->shards = json_object_get(mds->index, "shards");
    if (status == STATUS_OK && !json_is_array(mds->shards)) {
        status = error_set(error, STATUS_CORRUPT, mds->index_path, NOWHERE, NOWHERE,
                           "not a streaming dataset's index");
    }
    if (status == STATUS_OK &&
        json_integer_value(json_object_get(mds->index, "version")) != VERSION) {
        status = error_set(error, STATUS_VERSION, mds->index_path, NOWHERE, NOWHERE,
                           "an index of another version than 2");
    }
    return status;
}

static enum status mds_open_names(void **state, const char *path, struct error *error)
{
    enum status status = mds_open(state, path, error);
    if (*state != NULL) {
        ((struct mds *)*state)->names_only = true;
    }
    return status;
}

// --- columns -----------------------------------------------------------------------------------

static const struct encoding *find_number(const char *encoding)
{
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (strcmp(numbers[i].name, encoding) == 0) {
            return &numbers[i];
        }
    }
    return NULL;
}

static enum status read_columns(struct mds *mds, json_t *entry, struct error *error)
{
    json_t *names = json_object_get(entry, "column_names"),
           *encodings = json_object_get(entry, "column_encodings"),
           *sizes = json_object_get(entry, "column_sizes");
    size_t count = json_array_size(names);
    mds->column_count = (uint32_t)count;
    if (count == 0 || count > COLUMNS_MAX || json_array_size(encodings) != count ||
        json_array_size(sizes) != count) {
        return error_set(error, STATUS_CORRUPT, mds->index_path, NOWHERE, NOWHERE,
                         "shard %zu: its columns' names, encodings and sizes do not agree",
                         mds->shard_number);
    }
    for (size_t i = 0; i < count; i++) {
        struct column *column = &mds->columns[i];
        json_int_t size = json_integer_value(json_array_get(sizes, i));
        column->name = json_string_value(json_array_get(names, i));
        column->encoding = json_string_value(json_array_get(encodings, i));
        if (column->name == NULL || column->encoding == NULL || size < 0 || size > COLUMN_BYTES) {
            return error_set(error, STATUS_CORRUPT, mds->index_path, NOWHERE, NOWHERE,
                             "shard %zu: column %zu has no name, encoding or size",
                             mds->shard_number, i);
        }
        column->size = (uint64_t)size;
        column->number = find_number(column->encoding);
    }
    return STATUS_OK;
}

static bool encoded_as(const struct column *column, const char *const *encodings)
{
    for (; *encodings != NULL; encodings++) {
        if (strcmp(column->encoding, *encodings) == 0) {
            return true;
        }
    }
    return false;
}

static uint32_t find_image(const struct mds *mds)
{
    static const char *const images[] = {"jpeg", "png", "pil", NULL}, *const bytes[] = {"bytes",
                                                                                        NULL};
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < mds->column_count; i++) {
            if (encoded_as(&mds->columns[i], round == 0 ? images : bytes)) {
                return i;
            }
        }
    }
    return NO_COLUMN;
}

static uint32_t find_label(const struct mds *mds)
{
    static const char *const names[] = {"label", "labels", "class", "y", "target", "cls"};
    uint32_t only = NO_COLUMN, count = 0;
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        for (uint32_t i = 0; i < mds->column_count; i++) {
            if (mds->columns[i].number != NULL && strcasecmp(mds->columns[i].name, names[n]) == 0) {
                return i;
            }
        }
    }
    for (uint32_t i = 0; i < mds->column_count; i++) {
        if (mds->columns[i].number != NULL) {
            only = i;
            count++;
        }
    }
    return count == 1 ? only : NO_COLUMN;
}

static enum status choose_columns(struct mds *mds, struct error *error)
{
    mds->image = find_image(mds);
    mds->label = find_label(mds);
    if (mds->image != NO_COLUMN) {
        return STATUS_OK;
    }
    char seen[200] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < mds->column_count && used < sizeof seen; i++) {
        used += (size_t)snprintf(seen + used, sizeof seen - used, "%s%s (%s)", i ? ", " : "",
                                 mds->columns[i].name, mds->columns[i].encoding);
    }
    return error_set(error, STATUS_UNSUPPORTED, mds->index_path, NOWHERE, NOWHERE,
                     "no column of jpeg, png, pil or bytes: %s", seen);
}

static enum status open_shard(struct mds *mds, struct error *error)
{
    json_t *entry = json_array_get(mds->shards, mds->shard_number);
    const char *format = json_string_value(json_object_get(entry, "format"));
    if (format == NULL || strcmp(format, "mds") != 0) {
        return error_set(error, STATUS_UNSUPPORTED, mds->index_path, NOWHERE, NOWHERE,
                         "shard %zu is of the format '%s': only mds is read", mds->shard_number,
                         format ? format : "?");
    }
    enum status status = read_columns(mds, entry, error);
    if (status == STATUS_OK) {
        status = choose_columns(mds, error);
    }
    return status ? status : mds_shard_open(&mds->shard, mds->path, entry, mds->names_only, error);
}

// --- samples -----------------------------------------------------------------------------------

// Where column `wanted` lies in the sample, which the columns must fill.
static enum status find_column(const struct mds *mds, struct source_range *sample, uint32_t wanted,
                               struct source_range *part, struct error *error)
{
    uint64_t sizes_at = 0, total = 0, at = 0, size = 0;
    for (uint32_t i = 0; i < mds->column_count; i++) {
        uint64_t one = mds->columns[i].size;
        if (one == 0) {
            uint8_t bytes[4];
            enum status status = source_range_read(sample, sizes_at, bytes, sizeof bytes, error);
            if (status != STATUS_OK) {
                return status;
            }
            one = source_range_number(bytes, sizeof bytes);
            sizes_at += sizeof bytes;
        }
        at = i == wanted ? total : at;
        size = i == wanted ? one : size;
        total += one;
    }
    if (sizes_at + total != sample->len || !source_range_part(sample, sizes_at + at, size, part)) {
        return error_set(error, STATUS_CORRUPT, sample->path, NOWHERE, mds->record,
                         "its columns take %" PRIu64 " bytes, the sample has %" PRIu64,
                         sizes_at + total, sample->len);
    }
    return STATUS_OK;
}

static enum status set_pil(struct mds *mds, struct source_range *part, struct error *error)
{
    uint8_t head[12];
    char mode[8] = "";
    uint64_t words[3];
    struct source_range pixels;
    enum status status = source_range_read(part, 0, head, sizeof head, error);
    if (status != STATUS_OK) {
        return status;
    }
    for (size_t i = 0; i < 3; i++) {
        words[i] = source_range_number(head + 4 * i, 4);
    }
    if (words[2] >= sizeof mode) {
        return error_set(error, STATUS_UNSUPPORTED, part->path, NOWHERE, mds->record,
                         "a PIL image of another mode than RGB and L");
    }
    status = source_range_read(part, sizeof head, mode, (size_t)words[2], error);
    bool rgb = strcmp(mode, "RGB") == 0;
    if (status == STATUS_OK && !rgb && strcmp(mode, "L") != 0) {
        return error_set(error, STATUS_UNSUPPORTED, part->path, NOWHERE, mds->record,
                         "a PIL image of mode %s: RGB and L are read", mode);
    }
    if (status != STATUS_OK) {
        return status;
    }
    uint64_t start = sizeof head + words[2]; // inside: the mode was read
    source_range_part(part, start, part->len - start, &pixels);
    return source_content_pixels(&mds->content, &pixels,
                                 rgb ? SOURCE_PIXELS_RGB : SOURCE_PIXELS_GREY, words[0], words[1],
                                 error);
}

static enum status set_image(struct mds *mds, struct source_range *sample, const char **ending,
                             struct error *error)
{
    struct source_range part;
    enum status status = find_column(mds, sample, mds->image, &part, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (strcmp(mds->columns[mds->image].encoding, "pil") == 0) {
        *ending = ".png";
        return set_pil(mds, &part, error);
    }
    source_content_file(&mds->content, &part);
    status = source_range_ending(&part, ending, error);
    if (status == STATUS_OK && *ending == NULL) {
        status = error_set(error, STATUS_UNSUPPORTED, sample->path, NOWHERE, mds->record,
                           "the column '%s' holds neither a JPEG nor a PNG",
                           mds->columns[mds->image].name);
    }
    return status;
}

static enum status take_number(const struct mds *mds, const struct encoding *number,
                               struct source_range *part, int64_t *value, struct error *error)
{
    uint8_t bytes[24] = {0};
    if (part->len >= sizeof bytes || (!number->is_text && part->len != number->bytes)) {
        return error_set(error, STATUS_CORRUPT, part->path, NOWHERE, mds->record,
                         "a label of %" PRIu64 " bytes", part->len);
    }
    enum status status = source_range_read(part, 0, bytes, (size_t)part->len, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (number->is_text) {
        char *end;
        errno = 0;
        *value = strtoll((const char *)bytes, &end, 10);
        return end != (char *)bytes && (uint64_t)(end - (char *)bytes) == part->len && errno == 0
                   ? STATUS_OK
                   : error_set(error, STATUS_CORRUPT, part->path, NOWHERE, mds->record,
                               "a label that is no number: '%s'", (const char *)bytes);
    }
    uint64_t bits = source_range_number(bytes, number->bytes);
    *value =
        number->is_signed ? source_range_signed(bits, number->bytes) : source_range_unsigned(bits);
    return STATUS_OK;
}

static enum status set_label(struct mds *mds, struct source_range *sample, int32_t *label,
                             struct error *error)
{
    struct source_range part = {.len = 0};
    int64_t value = DATASET_NO_LABEL;
    enum status status = STATUS_OK;
    if (mds->label != NO_COLUMN) {
        status = find_column(mds, sample, mds->label, &part, error);
        if (status == STATUS_OK) {
            status = take_number(mds, mds->columns[mds->label].number, &part, &value, error);
        }
    }
    return status ? status : source_label_of(value, sample->path, mds->record, label, error);
}

// The next sample of this shard or of one after it.
static enum status next_sample(struct mds *mds, struct source_range *sample, struct error *error)
{
    for (;;) {
        enum status status = STATUS_OK;
        if (mds->shard == NULL) {
            if (mds->shard_number == json_array_size(mds->shards)) {
                return STATUS_END;
            }
            status = open_shard(mds, error);
        }
        if (status == STATUS_OK) {
            status = mds_shard_next(mds->shard, sample, error);
        }
        if (status != STATUS_END) {
            return status;
        }
        mds_shard_close(&mds->shard);
        mds->shard_number++;
    }
}

static enum status set_sample(struct mds *mds, struct source_range *sample,
                              struct source_entry *entry, const char **ending, struct error *error)
{
    enum status status = set_image(mds, sample, ending, error);
    entry->size = source_content_size(&mds->content);
    return status ? status : set_label(mds, sample, &entry->label, error);
}

static enum status mds_next(void *state, struct source_entry *entry, struct error *error)
{
    struct mds *mds = state;
    struct source_range sample;
    const char *ending = NULL;
    struct error why = {.status = STATUS_OK};
    enum status status = next_sample(mds, &sample, &why);
    if (status == STATUS_END) {
        return status;
    }
    if (status != STATUS_OK && !mds_shard_goes_on(mds->shard)) {
        if (error != NULL) {
            *error = why;
        }
        return status;
    }
    if (status == STATUS_OK) {
        status = set_sample(mds, &sample, entry, &ending, &why);
    }
    snprintf(mds->name, sizeof mds->name, "%09" PRIu64 "%s", mds->record, ending ? ending : "");
    entry->name = mds->name;
    entry->numbered = true;
    entry->type = SOURCE_ENTRY_IMAGE;
    why.record = mds->record++;
    return source_content_judge(&mds->content, status, &why, entry, error);
}

static enum status mds_read(void *state, void *buf, size_t len, size_t *got, struct error *error)
{
    struct mds *mds = state;
    return source_content_read(&mds->content, buf, len, got, error);
}

static const char *mds_describe(void *state)
{
    struct mds *mds = state;
    if (mds->image == NO_COLUMN) {
        return NULL;
    }
    const struct column *image = &mds->columns[mds->image];
    bool labelled = mds->label != NO_COLUMN;
    snprintf(mds->description, sizeof mds->description, "%zu shards, images from '%s' (%s), %s%s%s",
             json_array_size(mds->shards), image->name, image->encoding,
             labelled ? "labels from '" : "no labels",
             labelled ? mds->columns[mds->label].name : "", labelled ? "'" : "");
    return mds->description;
}

const struct source_kind source_mds = {.name = "MosaicML MDS",
                                       .recognise = mds_recognise,
                                       .open = mds_open,
                                       .open_names = mds_open_names,
                                       .next = mds_next,
                                       .read = mds_read,
                                       .describe = mds_describe,
                                       .close = mds_close};
