// Reading an index. The file is read into memory once, by pread, and every rule is checked on that
// copy before anything uses it: lengths by subtraction, never by adding to a pointer.
#include "formats/index.h"
#include "formats/crc32c.h"
#include "formats/file.h"
#include "formats/limits.h"
#include "formats/name.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const section_names[] = {
    [INDEX_FILES] = "files",
    [INDEX_FILE_NAMES] = "file names",
    [INDEX_RECORDS] = "records",
    [INDEX_RECORD_NAMES] = "record names",
    [INDEX_CLASS_NAMES] = "class names",
    [INDEX_PROVENANCE] = "provenance",
};

// Bytes of an entry; 0 for sections of strings.
static const uint64_t entry_bytes[] = {
    [INDEX_FILES] = INDEX_FILE_BYTES,
    [INDEX_RECORDS] = INDEX_RECORD_BYTES,
    [INDEX_PROVENANCE] = 0,
};

static enum status corrupt(struct error *error, const char *path, uint64_t offset, const char *what)
{
    return error_set(error, STATUS_CORRUPT, path, offset, NOWHERE,
                     "%s; the index is damaged: restore it, or convert again", what);
}

// --- header ------------------------------------------------------------------------------------

static enum status check_header(const uint8_t *header, uint64_t size, const char *path,
                                struct error *error)
{
    if (memcmp(header, index_magic, 8) != 0) {
        return error_set(error, STATUS_CORRUPT, path, 0, NOWHERE, "not the index of a dataset");
    }
    uint32_t version = index_load32(header + 8);
    if (version < INDEX_VERSION_FIRST || version > INDEX_VERSION) {
        return error_set(error, STATUS_VERSION, path, 8, NOWHERE,
                         "index version %" PRIu32
                         ", this program reads versions %u to %u: convert again",
                         version, INDEX_VERSION_FIRST, INDEX_VERSION);
    }
    if (index_load32(header + INDEX_HEADER_CRC_AT) != crc32c(0, header, INDEX_HEADER_CRC_AT)) {
        return corrupt(error, path, INDEX_HEADER_CRC_AT, "the header's checksum differs");
    }
    if (index_load32(header + 12) != INDEX_ENDIAN_MARK) {
        return error_set(error, STATUS_VERSION, path, 12, NOWHERE,
                         "written in another byte order: convert again");
    }
    uint64_t total = index_load64(header + 16);
    if (size < total) {
        return error_set(error, STATUS_TRUNCATED, path, size, NOWHERE,
                         "the file ends here, %" PRIu64 " bytes too early", total - size);
    }
    if (size > total) {
        return corrupt(error, path, total, "bytes follow the end");
    }
    return STATUS_OK;
}

// Sections lie one after the other, each padded to 8 bytes, from the header to the trailer.
static enum status check_sections(const uint8_t *header, uint64_t size, const char *path,
                                  struct error *error)
{
    uint64_t at = INDEX_HEADER_BYTES, end = size - INDEX_TRAILER_BYTES;
    for (unsigned i = 0; i < INDEX_SECTIONS; i++) {
        unsigned entry_at = INDEX_TABLE_AT + INDEX_TABLE_ENTRY * i;
        uint64_t offset = index_load64(header + entry_at);
        uint64_t length = index_load64(header + entry_at + 8);
        uint64_t count = index_load64(header + entry_at + 16);
        if (offset != at || length > end - at || ((length + 7) & ~UINT64_C(7)) > end - at) {
            return corrupt(error, path, entry_at, "a section lies outside its place");
        }
        bool fits = entry_bytes[i]
                        ? length % entry_bytes[i] == 0 && length / entry_bytes[i] == count
                        : count <= length;
        if (!fits) {
            return corrupt(error, path, entry_at, "a section's length does not fit its count");
        }
        at += (length + 7) & ~UINT64_C(7);
    }
    return at == end ? STATUS_OK : corrupt(error, path, at, "a hole before the trailer");
}

static enum status check_counts(const struct index *index, const char *path, struct error *error)
{
    const uint64_t *count = index->count;
    if (index->store != DATASET_LMDB && index->store != DATASET_SHARDS) {
        return corrupt(error, path, INDEX_HEADER_CRC_AT - 4, "an unknown store");
    }
    if (count[INDEX_FILES] != count[INDEX_FILE_NAMES] ||
        count[INDEX_RECORDS] != count[INDEX_RECORD_NAMES] || count[INDEX_PROVENANCE] != 1) {
        return corrupt(error, path, INDEX_TABLE_AT, "the sections' counts do not agree");
    }
    if (count[INDEX_RECORDS] > LIMIT_RECORDS || count[INDEX_FILES] > LIMIT_SHARDS ||
        count[INDEX_CLASS_NAMES] > LIMIT_CLASSES ||
        index->section_length[INDEX_PROVENANCE] > LIMIT_PROVENANCE_BYTES) {
        return error_set(error, STATUS_LIMIT, path, INDEX_TABLE_AT, NOWHERE,
                         "more records, files, classes or text than are allowed");
    }
    return STATUS_OK;
}

// --- sections ----------------------------------------------------------------------------------

static enum status check_sums(struct index *index, const char *path, struct error *error)
{
    uint64_t end = index->len - INDEX_TRAILER_BYTES;
    for (unsigned i = 0; i < INDEX_SECTIONS; i++) {
        uint32_t want = index_load32(index->bytes + INDEX_TABLE_AT + INDEX_TABLE_ENTRY * i + 24);
        if (crc32c(0, index->section[i], index->section_length[i]) != want) {
            char what[64];
            snprintf(what, sizeof what, "the checksum of section '%s' differs", section_names[i]);
            return corrupt(error, path, (uint64_t)(index->section[i] - index->bytes), what);
        }
    }
    if (memcmp(index->bytes + end, index_trailer_magic, 8) != 0) {
        return corrupt(error, path, end, "the end mark is missing");
    }
    index->id = index_hash(0, index->bytes, end);
    if (index->id != index_load64(index->bytes + end + 8)) {
        return corrupt(error, path, end + 8, "the hash of the whole index differs");
    }
    return STATUS_OK;
}

static const char *string_fault(enum index_section section, const char *text, size_t len)
{
    switch (section) {
    case INDEX_FILE_NAMES:
        return name_file_fault(text, len);
    case INDEX_CLASS_NAMES:
        return name_class_fault(text, len);
    case INDEX_PROVENANCE:
        return name_text_fault(text, len);
    default:
        return name_fault(text, len);
    }
}

static enum status find_strings(struct index *index, enum index_section section, const char *path,
                                struct error *error)
{
    const char *text = (const char *)index->section[section];
    uint64_t length = index->section_length[section], at = 0, found = 0;
    uint64_t *offset = malloc((index->count[section] + 1) * sizeof *offset);
    index->string_offset[section] = offset;
    if (offset == NULL) {
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory for the names");
    }
    for (; at < length && found < index->count[section]; found++) {
        const char *end = memchr(text + at, '\0', length - at);
        if (end == NULL) {
            break;
        }
        size_t len = (size_t)(end - (text + at));
        const char *fault = string_fault(section, text + at, len);
        if (fault != NULL) {
            return error_set(error, STATUS_CORRUPT, path, NOWHERE, found, "a name in '%s' %s",
                             section_names[section], fault);
        }
        offset[found] = at;
        at += len + 1;
    }
    return at == length && found == index->count[section]
               ? STATUS_OK
               : corrupt(error, path, NOWHERE, "the names do not fill their section");
}

// --- records -----------------------------------------------------------------------------------

// NULL when the record keeps the rules that need no other record.
static const char *record_fault(const struct index *index, const struct dataset_record *record)
{
    if (record->file >= index->count[INDEX_FILES]) {
        return "lies in a file that does not exist";
    }
    uint64_t file_length = index_file(index, record->file).length;
    if (record->offset > file_length || record->stored_length > file_length - record->offset) {
        return "lies outside its file";
    }
    if (record->stored_length == 0 || record->length == 0 || record->length > LIMIT_IMAGE_BYTES) {
        return "is empty or too long";
    }
    if (record->label < DATASET_NO_LABEL ||
        (record->label >= 0 && (uint64_t)record->label >= index->count[INDEX_CLASS_NAMES])) {
        return "has a label without a class";
    }
    if (record->width == 0 || record->height == 0 || record->width > LIMIT_IMAGE_SIDE ||
        record->height > LIMIT_IMAGE_SIDE ||
        (uint64_t)record->width * record->height > LIMIT_IMAGE_PIXELS) {
        return "has an impossible size in pixels";
    }
    bool plain_kind = record->kind == IMAGE_JPEG || record->kind == IMAGE_PNG;
    if (!plain_kind && (record->kind != IMAGE_RECODED || index->version < INDEX_VERSION)) {
        return "is of an unknown kind";
    }
    if (record->coding == DATASET_CODING_RAW) {
        bool plain = record->length == record->stored_length && record->inner_offset == 0 &&
                     record->frame_length == record->stored_length;
        return plain ? NULL : "has lengths that disagree";
    }
    if (record->coding != DATASET_CODING_ZSTD || index->store != DATASET_SHARDS) {
        return "is of a coding that the store does not have";
    }
    uint64_t frame = record->frame_length;
    if (record->inner_offset > frame || record->length > frame - record->inner_offset ||
        (frame - record->length > LIMIT_FRAME_OVERHEAD && frame > LIMIT_FRAME_SHARED)) {
        return "has lengths that disagree";
    }
    bool bomb = frame > (UINT64_C(1) << 20) && frame / record->stored_length > LIMIT_ZSTD_RATIO;
    return bomb ? "unpacks to an impossible length" : NULL;
}

struct extent {
    uint64_t offset;
    uint32_t file, length;
    uint32_t inner; // of the image in the extent's content
    uint64_t record;
};

static int compare_extents(const void *left, const void *right)
{
    const struct extent *a = left, *b = right;
    if (a->file != b->file) {
        return a->file < b->file ? -1 : 1;
    }
    if (a->offset != b->offset) {
        return a->offset < b->offset ? -1 : 1;
    }
    return a->inner < b->inner ? -1 : a->inner > b->inner;
}

static bool follows(const struct dataset_record *next, const struct dataset_record *last)
{
    return next->file > last->file || index_share_frame(last, next) ||
           (next->file == last->file && next->offset >= last->offset &&
            next->offset - last->offset >= last->stored_length);
}

// For stores whose records do not lie in order (small values of an LMDB page lie back to front).
static enum status check_overlaps(const struct index *index, const char *path, struct error *error)
{
    uint64_t count = index->count[INDEX_RECORDS];
    struct extent *extents = malloc(count * sizeof *extents);
    if (extents == NULL) {
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory to check the records");
    }
    for (uint64_t i = 0; i < count; i++) {
        struct dataset_record record = index_record(index, i);
        extents[i] = (struct extent){.offset = record.offset,
                                     .file = record.file,
                                     .length = record.stored_length,
                                     .inner = record.inner_offset,
                                     .record = i};
    }
    qsort(extents, count, sizeof *extents, compare_extents);
    enum status status = STATUS_OK;
    for (uint64_t i = 1; i < count && status == STATUS_OK; i++) {
        const struct extent *last = &extents[i - 1], *next = &extents[i];
        struct dataset_record one = index_record(index, last->record);
        struct dataset_record two = index_record(index, next->record);
        if (last->file == next->file && next->offset - last->offset < last->length &&
            !index_share_frame(&one, &two)) {
            status = error_set(error, STATUS_CORRUPT, path, NOWHERE, next->record,
                               "overlaps record %" PRIu64, last->record);
        }
    }
    free(extents);
    return status;
}

static enum status check_records(struct index *index, const char *path, struct error *error)
{
    bool in_order = true;
    uint64_t planes = 0;
    struct dataset_record last = {0};
    for (uint64_t i = 0; i < index->count[INDEX_RECORDS]; i++) {
        struct dataset_record record = index_record(index, i);
        const char *fault = record_fault(index, &record);
        if (fault != NULL) {
            return error_set(error, STATUS_CORRUPT, path,
                             (uint64_t)(index->section[INDEX_RECORDS] - index->bytes) +
                                 i * INDEX_RECORD_BYTES,
                             i, "the record %s", fault);
        }
        in_order = in_order && (i == 0 || follows(&record, &last));
        last = record;
        uint64_t pixels = (uint64_t)record.width * record.height;
        index->max_pixels = pixels > index->max_pixels ? pixels : index->max_pixels;
        index->max_width = record.width > index->max_width ? record.width : index->max_width;
        if (image_planes_bytes(record.width, record.height) > planes) {
            planes = image_planes_bytes(record.width, record.height);
            index->widest = i;
        }
        if (record.stored_length > index->max_stored_length) {
            index->max_stored_length = record.stored_length;
        }
        if (record.frame_length > index->max_frame_length) {
            index->max_frame_length = record.frame_length;
        }
    }
    return in_order ? STATUS_OK : check_overlaps(index, path, error);
}

// --- the whole ---------------------------------------------------------------------------------

// Looks at the header before the whole is read, so that a huge file of something else costs
// nothing.
static enum status check_start(const char *path, struct error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return error_errno(error, errno, path, NOWHERE, "open");
    }
    uint8_t header[INDEX_HEADER_BYTES];
    struct stat about;
    enum status status = STATUS_OK;
    if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) {
        status = error_set(error, STATUS_INVALID, path, NOWHERE, NOWHERE, "not a regular file");
    } else if (about.st_size < (off_t)(INDEX_HEADER_BYTES + INDEX_TRAILER_BYTES)) {
        status = error_set(error, STATUS_TRUNCATED, path, (uint64_t)about.st_size, NOWHERE,
                           "too short for the index of a dataset");
    } else {
        status = file_read_at(fd, path, header, sizeof header, 0, error);
    }
    if (status == STATUS_OK) {
        status = check_header(header, (uint64_t)about.st_size, path, error);
    }
    close(fd);
    return status;
}

static enum status check_whole(struct index *index, const char *path, struct error *error)
{
    enum status status = index->len < INDEX_HEADER_BYTES + INDEX_TRAILER_BYTES
                             ? corrupt(error, path, NOWHERE, "the file changed while being read")
                             : check_header(index->bytes, index->len, path, error);
    if (status == STATUS_OK) {
        status = check_sections(index->bytes, index->len, path, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    index->version = index_load32(index->bytes + 8);
    index->store = index_load32(index->bytes + INDEX_HEADER_CRC_AT - 4);
    for (unsigned i = 0; i < INDEX_SECTIONS; i++) {
        const uint8_t *entry = index->bytes + INDEX_TABLE_AT + INDEX_TABLE_ENTRY * i;
        index->section[i] = index->bytes + index_load64(entry);
        index->section_length[i] = index_load64(entry + 8);
        index->count[i] = index_load64(entry + 16);
    }
    status = check_counts(index, path, error);
    if (status == STATUS_OK) {
        status = check_sums(index, path, error);
    }
    for (unsigned i = 0; i < INDEX_SECTIONS && status == STATUS_OK; i++) {
        status = entry_bytes[i] ? STATUS_OK : find_strings(index, i, path, error);
    }
    return status ? status : check_records(index, path, error);
}

enum status index_read(struct index *out, const char *path, struct error *error)
{
    *out = (struct index){0};
    enum status status = check_start(path, error);
    if (status == STATUS_OK) {
        status = file_read_all(path, LIMIT_INDEX_BYTES, &out->bytes, &out->len, error);
    }
    if (status == STATUS_OK) {
        status = check_whole(out, path, error);
    }
    if (status != STATUS_OK) {
        index_free(out);
    }
    return status;
}

void index_free(struct index *index)
{
    for (int i = 0; i < INDEX_SECTIONS; i++) {
        free(index->string_offset[i]);
    }
    free(index->bytes);
    *index = (struct index){0};
}

struct index_file index_file(const struct index *index, uint64_t file)
{
    const uint8_t *at = index->section[INDEX_FILES] + file * INDEX_FILE_BYTES;
    return (struct index_file){.length = index_load64(at), .crc = index_load32(at + 8)};
}

struct dataset_record index_record(const struct index *index, uint64_t record)
{
    return index_load_record(index->section[INDEX_RECORDS] + record * INDEX_RECORD_BYTES);
}

const char *index_string(const struct index *index, enum index_section section, uint64_t number)
{
    return (const char *)index->section[section] + index->string_offset[section][number];
}
