// FFCV's .beton files, version 2. Layout (libffcv/ffcv: ffcv/types.py, reader.py, writer.py,
// fields/rgb_image.py), little-endian:
//
//   0    header      u16 version, u16 fields, u32 page size, u64 samples, u64 where the allocation
//                    table lies
//   24   fields      1041 bytes each: u8 type, 16 bytes of name, 1024 of arguments
//   …    metadata    an entry for each sample: the fields' parts in order, 8-byte numbers at
//                    multiples of 8, the whole a multiple of 8 if it has any
//   …    data        images, where their metadata point to
//   …    allocations to the end of the file: u64 sample, u64 where, u64 bytes
//
// Types and their parts: 0 float f64; 1 int i64; 2 image u8 mode (0 JPEG, 1 raw RGB), u16 width,
// u16 height, u64 where (packed); 3 bytes and 5 JSON u64 where, u64 bytes (packed); 4 and 6 arrays
// u64 where; 255 a field of the writer's own. Lengths of JPEGs are in the allocation table only.
// The file has no magic: it is known by all numbers of its header making sense. A sample that leads
// nowhere is a bad image; what is wrong with the header or the tables ends the source.
#include "formats/dataset.h"
#include "formats/file.h"
#include "formats/limits.h"
#include "formats/source_content.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_BYTES     24u
#define FIELD_BYTES      1041u
#define FIELD_NAME_BYTES 16u
#define ALLOCATION_BYTES 24u
#define FIELDS_MAX       256u
#define PAGE_MIN         (1u << 21)
#define VERSION          2u
#define LOAD_COUNT       2048u // allocations at a time

#define MODE_JPEG 0u
#define MODE_RAW  1u

enum field_type { FIELD_FLOAT, FIELD_INT, FIELD_IMAGE, FIELD_BLOB, FIELD_ARRAY, FIELD_JSON };

struct field {
    uint8_t type;
    char name[FIELD_NAME_BYTES + 1];
    uint32_t at; // in a sample's metadata
};

struct header {
    uint32_t version, fields, page;
    uint64_t samples, allocations;
};

struct allocation {
    uint64_t where, bytes;
};

struct beton {
    char path[512];
    int fd;
    uint64_t size;
    struct header header;
    struct field fields[FIELDS_MAX];
    const struct field *image, *label;
    uint32_t stride; // of the metadata
    struct source_range metadata;
    struct allocation *allocations; // by `where`
    uint64_t allocation_count, next;
    struct source_content content;
    uint64_t modes[2]; // images of each
    char name[32], description[400];
};

// --- header and fields -------------------------------------------------------------------------

static struct header parse_header(const uint8_t *bytes)
{
    return (struct header){.version = (uint32_t)source_range_number(bytes, 2),
                           .fields = (uint32_t)source_range_number(bytes + 2, 2),
                           .page = (uint32_t)source_range_number(bytes + 4, 4),
                           .samples = source_range_number(bytes + 8, 8),
                           .allocations = source_range_number(bytes + 16, 8)};
}

static bool plausible_name(const uint8_t *name)
{
    size_t len = strnlen((const char *)name, FIELD_NAME_BYTES);
    for (size_t i = 0; i < FIELD_NAME_BYTES; i++) {
        if (i < len ? !isprint(name[i]) : name[i] != 0) {
            return false;
        }
    }
    return len > 0;
}

static enum status beton_recognise(const char *path, bool *mine, struct error *error)
{
    uint8_t bytes[HEADER_BYTES + 1 + FIELD_NAME_BYTES];
    *mine = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return error_errno(error, errno, path, NOWHERE, "open");
    }
    ssize_t got = pread(fd, bytes, sizeof bytes, 0);
    close(fd);
    if (got != (ssize_t)sizeof bytes) {
        return STATUS_OK;
    }
    struct header header = parse_header(bytes);
    uint8_t type = bytes[HEADER_BYTES];
    *mine = header.version >= 1 && header.version < 16 && header.fields >= 1 &&
            header.fields <= FIELDS_MAX && header.page >= PAGE_MIN &&
            (header.page & (header.page - 1)) == 0 && header.samples <= LIMIT_RECORDS &&
            (type <= 6 || type == 255) && plausible_name(bytes + HEADER_BYTES + 1);
    return STATUS_OK;
}

// A field's part in the metadata starts at a multiple of `align`.
static void measure(uint8_t type, uint32_t *bytes, uint32_t *align)
{
    *align = 1;
    switch (type) {
    case FIELD_IMAGE:
        *bytes = 13;
        break;
    case FIELD_BLOB:
    case FIELD_JSON:
        *bytes = 16;
        break;
    default:
        *bytes = 8;
        *align = 8;
    }
}

static enum status read_fields(struct beton *beton, struct error *error)
{
    uint32_t at = 0, widest = 1;
    for (uint32_t i = 0; i < beton->header.fields; i++) {
        uint8_t bytes[1 + FIELD_NAME_BYTES];
        uint64_t offset = HEADER_BYTES + (uint64_t)i * FIELD_BYTES;
        enum status status =
            file_read_at(beton->fd, beton->path, bytes, sizeof bytes, offset, error);
        if (status != STATUS_OK) {
            return status;
        }
        struct field *field = &beton->fields[i];
        field->type = bytes[0];
        memcpy(field->name, bytes + 1, FIELD_NAME_BYTES);
        if (field->type > 6) {
            return error_set(error, STATUS_UNSUPPORTED, beton->path, offset, NOWHERE,
                             "the field '%s' is of a type of its writer's own (%d)", field->name,
                             field->type);
        }
        uint32_t part, align;
        measure(field->type, &part, &align);
        widest = align > widest ? align : widest;
        field->at = (at + align - 1) / align * align;
        at = field->at + part;
        beton->image = beton->image == NULL && field->type == FIELD_IMAGE ? field : beton->image;
        beton->label = beton->label == NULL && field->type == FIELD_INT ? field : beton->label;
    }
    beton->stride = (at + widest - 1) / widest * widest;
    if (beton->image == NULL) {
        return error_set(error, STATUS_UNSUPPORTED, beton->path, HEADER_BYTES, NOWHERE,
                         "none of the %" PRIu32 " fields is an image", beton->header.fields);
    }
    return STATUS_OK;
}

// --- the table of allocations ------------------------------------------------------------------

static int compare_allocations(const void *left, const void *right)
{
    const struct allocation *a = left, *b = right;
    return a->where < b->where ? -1 : a->where > b->where;
}

static enum status load_allocations(struct beton *beton, uint64_t count, struct error *error)
{
    uint8_t bytes[LOAD_COUNT][ALLOCATION_BYTES];
    for (uint64_t done = 0; done < count;) {
        size_t some = count - done < LOAD_COUNT ? (size_t)(count - done) : LOAD_COUNT;
        enum status status =
            file_read_at(beton->fd, beton->path, bytes, some * ALLOCATION_BYTES,
                         beton->header.allocations + done * ALLOCATION_BYTES, error);
        if (status != STATUS_OK) {
            return status;
        }
        for (size_t i = 0; i < some; i++) {
            beton->allocations[done++] =
                (struct allocation){.where = source_range_number(bytes[i] + 8, 8),
                                    .bytes = source_range_number(bytes[i] + 16, 8)};
        }
    }
    beton->allocation_count = count;
    qsort(beton->allocations, (size_t)count, sizeof *beton->allocations, compare_allocations);
    return STATUS_OK;
}

static enum status read_allocations(struct beton *beton, struct error *error)
{
    uint64_t at = beton->header.allocations, rest = beton->size - at;
    uint64_t count = rest / ALLOCATION_BYTES;
    if (rest % ALLOCATION_BYTES != 0 || count > beton->header.samples * beton->header.fields) {
        return error_set(error, STATUS_CORRUPT, beton->path, at, NOWHERE,
                         "the allocation table has %" PRIu64 " bytes, which does not fit %" PRIu64
                         " samples",
                         rest, beton->header.samples);
    }
    beton->allocations = malloc(count > 0 ? (size_t)count * sizeof *beton->allocations : 1);
    if (beton->allocations == NULL) {
        return error_errno(error, ENOMEM, beton->path, NOWHERE, "allocate memory for its table");
    }
    return load_allocations(beton, count, error);
}

static const struct allocation *find_allocation(const struct beton *beton, uint64_t where)
{
    const struct allocation key = {.where = where};
    return bsearch(&key, beton->allocations, (size_t)beton->allocation_count,
                   sizeof *beton->allocations, compare_allocations);
}

// --- the source --------------------------------------------------------------------------------

static void beton_close(void **state)
{
    struct beton *beton = *state;
    if (beton != NULL) {
        if (beton->fd >= 0) {
            close(beton->fd);
        }
        free(beton->allocations);
        source_content_free(&beton->content);
        free(beton);
        *state = NULL;
    }
}

static enum status check_header(struct beton *beton, struct error *error)
{
    const struct header *header = &beton->header;
    if (header->version != VERSION) {
        return error_set(error, STATUS_VERSION, beton->path, 0, NOWHERE,
                         "a beton of version %" PRIu32 "; version 2 is read", header->version);
    }
    if (header->fields < 1 || header->fields > FIELDS_MAX || header->samples > LIMIT_RECORDS) {
        return error_set(error, STATUS_LIMIT, beton->path, 0, NOWHERE,
                         "%" PRIu32 " fields, %" PRIu64 " samples", header->fields,
                         header->samples);
    }
    if (header->allocations == 0) {
        return error_set(error, STATUS_TRUNCATED, beton->path, 16, NOWHERE,
                         "the beton has no allocation table: writing it was never finished");
    }
    if (header->allocations > beton->size) {
        return error_set(error, STATUS_TRUNCATED, beton->path, beton->size, NOWHERE,
                         "the allocation table should lie at %" PRIu64 ": the file was cut short",
                         header->allocations);
    }
    return STATUS_OK;
}

static enum status read_tables(struct beton *beton, struct error *error)
{
    enum status status = check_header(beton, error);
    if (status == STATUS_OK) {
        status = read_fields(beton, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    uint64_t start = HEADER_BYTES + (uint64_t)beton->header.fields * FIELD_BYTES;
    uint64_t bytes = beton->header.samples * beton->stride;
    if (start > beton->header.allocations || bytes > beton->header.allocations - start) {
        return error_set(error, STATUS_CORRUPT, beton->path, 8, NOWHERE,
                         "the file is too small for its %" PRIu64 " samples",
                         beton->header.samples);
    }
    source_range_file(&beton->metadata, beton->fd, beton->path, start, bytes);
    return read_allocations(beton, error);
}

static enum status beton_open(void **state, const char *path, struct error *error)
{
    struct beton *beton = calloc(1, sizeof *beton);
    *state = beton;
    if (beton == NULL) {
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory to read");
    }
    snprintf(beton->path, sizeof beton->path, "%s", path);
    beton->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat about;
    if (beton->fd < 0 || fstat(beton->fd, &about) != 0) {
        return error_errno(error, errno, path, NOWHERE, "open");
    }
    beton->size = (uint64_t)about.st_size;
    uint8_t bytes[HEADER_BYTES];
    enum status status = file_read_at(beton->fd, beton->path, bytes, sizeof bytes, 0, error);
    if (status != STATUS_OK) {
        return status;
    }
    beton->header = parse_header(bytes);
    return read_tables(beton, error);
}

static enum status set_image(struct beton *beton, const uint8_t *part, struct error *error)
{
    uint8_t mode = part[0];
    uint64_t width = source_range_number(part + 1, 2), height = source_range_number(part + 3, 2),
             where = source_range_number(part + 5, 8);
    const struct allocation *allocation = find_allocation(beton, where);
    if (allocation == NULL || mode > MODE_RAW || where > beton->size ||
        allocation->bytes > beton->size - where) {
        return error_set(error, STATUS_CORRUPT, beton->path,
                         beton->metadata.start + beton->next * beton->stride, beton->next,
                         "the sample's image (mode %d, at %" PRIu64
                         ") is not in the file's allocations",
                         mode, where);
    }
    struct source_range range;
    source_range_file(&range, beton->fd, beton->path, where, allocation->bytes);
    beton->modes[mode]++;
    if (mode == MODE_JPEG) {
        source_content_file(&beton->content, &range);
        return STATUS_OK;
    }
    return source_content_pixels(&beton->content, &range, SOURCE_PIXELS_RGB, width, height, error);
}

static enum status beton_next(void *state, struct source_entry *entry, struct error *error)
{
    struct beton *beton = state;
    uint8_t image[13], label[8];
    struct error why = {.status = STATUS_OK};
    if (beton->next == beton->header.samples) {
        return STATUS_END;
    }
    uint64_t at = beton->next * beton->stride;
    enum status status =
        source_range_read(&beton->metadata, at + beton->image->at, image, sizeof image, error);
    if (status == STATUS_OK && beton->label != NULL) {
        status =
            source_range_read(&beton->metadata, at + beton->label->at, label, sizeof label, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    snprintf(beton->name, sizeof beton->name, "%09" PRIu64 "%s", beton->next,
             image[0] == MODE_JPEG ? ".jpg" : ".png");
    entry->name = beton->name;
    entry->numbered = true;
    entry->type = SOURCE_ENTRY_IMAGE;
    entry->label = DATASET_NO_LABEL;
    status = set_image(beton, image, &why);
    entry->size = source_content_size(&beton->content);
    if (status == STATUS_OK && beton->label != NULL) {
        status = source_label_of((int64_t)source_range_number(label, sizeof label), beton->path,
                                 beton->next, &entry->label, &why);
    }
    why.record = beton->next++;
    return source_content_judge(&beton->content, status, &why, entry, error);
}

static enum status beton_read(void *state, void *buf, size_t len, size_t *got, struct error *error)
{
    struct beton *beton = state;
    return source_content_read(&beton->content, buf, len, got, error);
}

static const char *beton_describe(void *state)
{
    static const char *const types[] = {"float", "int",  "image", "bytes",
                                        "array", "JSON", "tensor"};
    struct beton *beton = state;
    int used = snprintf(beton->description, sizeof beton->description,
                        "%" PRIu64 " samples, images from '%s'%s%s%s%s%s", beton->header.samples,
                        beton->image->name, beton->modes[MODE_JPEG] > 0 ? ", JPEG" : "",
                        beton->modes[MODE_RAW] > 0 ? ", raw" : "",
                        beton->label ? ", labels from '" : ", no labels",
                        beton->label ? beton->label->name : "", beton->label ? "'" : "");
    const char *head = "; not used: ";
    for (uint32_t i = 0; i < beton->header.fields; i++) {
        const struct field *field = &beton->fields[i];
        if (field == beton->image || field == beton->label ||
            (size_t)used >= sizeof beton->description) {
            continue;
        }
        used += snprintf(beton->description + used, sizeof beton->description - (size_t)used,
                         "%s'%s' (%s)", head, field->name, types[field->type]);
        head = ", ";
    }
    return beton->description;
}

const struct source_kind source_beton = {.name = "FFCV beton",
                                         .recognise = beton_recognise,
                                         .open = beton_open,
                                         .next = beton_next,
                                         .read = beton_read,
                                         .describe = beton_describe,
                                         .close = beton_close};
