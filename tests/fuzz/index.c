// The index of a dataset: whatever its bytes say, an index that was accepted keeps the rules that
// formats/index.h promises to everybody behind it.
#include "formats/index.h"
#include "formats/crc32c.h"
#include "formats/file.h"
#include "formats/limits.h"
#include "tests/support/fuzz.h"
#include "tests/support/fuzz_index.h"
#include "tests/support/program.h"
#include "tests/support/samples.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void seed_of(const struct scratch *scratch, const struct dataset_writer_config *config,
                    unsigned records)
{
    char directory[300], path[400];
    snprintf(directory, sizeof directory, "%s/%d-%u", scratch->path, (int)config->store, records);
    snprintf(path, sizeof path, "%s/" INDEX_FILE_NAME, directory);
    FUZZ_CHECK(samples_write(directory, config, records, NULL) == STATUS_OK);
    uint8_t *bytes;
    size_t len;
    FUZZ_CHECK(file_read_all(path, FUZZ_INPUT_BYTES, &bytes, &len, NULL) == STATUS_OK);
    fuzz_seed(bytes, len, INDEX_HEADER_BYTES);
    free(bytes);
}

static void open_index(void)
{
    const struct dataset_writer_config many = {.store = DATASET_SHARDS, .shard_bytes = 4096};
    struct scratch scratch = {0};
    scratch_make(&scratch);
    seed_of(&scratch, &sample_lmdb, 1);
    seed_of(&scratch, &sample_lmdb, 12);
    seed_of(&scratch, &sample_shards, 4);
    seed_of(&scratch, &many, 14);
    scratch_remove(&scratch);
}

static void close_index(void)
{
}

static size_t repair_index(uint8_t *bytes, size_t len, uint64_t *random)
{
    len &= ~(size_t)7;
    fuzz_index_repair(bytes, len, random);
    return len;
}

// --- promises ----------------------------------------------------------------------------------

static void check_strings(const struct index *index, enum index_section section)
{
    const uint8_t *end = index->section[section] + index->section_length[section];
    for (uint64_t i = 0; i < index->count[section]; i++) {
        const char *text = index_string(index, section, i);
        FUZZ_CHECK((const uint8_t *)text < end);
        size_t room = (size_t)(end - (const uint8_t *)text);
        size_t len = strnlen(text, room);
        FUZZ_CHECK(len < room);
        bool is_text = section == INDEX_PROVENANCE;
        FUZZ_CHECK(is_text || (len > 0 && len <= LIMIT_NAME_BYTES && text[0] != '/'));
        FUZZ_CHECK(is_text || (strstr(text, "/../") == NULL && strchr(text, '\n') == NULL));
        FUZZ_CHECK(section != INDEX_FILE_NAMES || (strchr(text, '/') == NULL && text[0] != '.'));
    }
}

static void check_record(const struct index *index, const struct dataset_record *record)
{
    FUZZ_CHECK(record->file < index->count[INDEX_FILES]);
    uint64_t length = index_file(index, record->file).length;
    FUZZ_CHECK(record->stored_length > 0 && record->stored_length <= length);
    FUZZ_CHECK(record->offset <= length - record->stored_length);
    FUZZ_CHECK(record->stored_length <= index->max_stored_length);
    FUZZ_CHECK(record->frame_length <= index->max_frame_length);
    FUZZ_CHECK(record->length <= record->frame_length);
    FUZZ_CHECK(record->inner_offset <= record->frame_length - record->length);
    FUZZ_CHECK(record->length <= LIMIT_IMAGE_BYTES);
    FUZZ_CHECK(record->label >= DATASET_NO_LABEL);
    FUZZ_CHECK(record->label < 0 || (uint64_t)record->label < index->count[INDEX_CLASS_NAMES]);
    uint64_t pixels = (uint64_t)record->width * record->height;
    FUZZ_CHECK(pixels > 0 && pixels <= index->max_pixels && pixels <= LIMIT_IMAGE_PIXELS);
}

// Two records share nothing, or a frame in which they lie apart.
static void check_apart(const struct dataset_record *a, const struct dataset_record *b)
{
    bool apart = a->file != b->file || a->offset + a->stored_length <= b->offset ||
                 b->offset + b->stored_length <= a->offset;
    if (!apart) {
        FUZZ_CHECK(a->offset == b->offset && a->stored_length == b->stored_length);
        FUZZ_CHECK(a->coding == DATASET_CODING_ZSTD && b->coding == DATASET_CODING_ZSTD);
        FUZZ_CHECK(a->inner_offset + a->length <= b->inner_offset ||
                   b->inner_offset + b->length <= a->inner_offset);
    }
}

static void check_records(const struct index *index)
{
    for (uint64_t i = 0; i < index->count[INDEX_RECORDS]; i++) {
        struct dataset_record record = index_record(index, i);
        check_record(index, &record);
        for (uint64_t j = 0; j < i; j++) {
            struct dataset_record other = index_record(index, j);
            check_apart(&record, &other);
        }
    }
}

static bool header_holds(const uint8_t *bytes, size_t len)
{
    return len >= INDEX_HEADER_BYTES + INDEX_TRAILER_BYTES && memcmp(bytes, index_magic, 8) == 0 &&
           index_load64(bytes + 16) == len &&
           index_load32(bytes + INDEX_HEADER_CRC_AT) == crc32c(0, bytes, INDEX_HEADER_CRC_AT);
}

static enum fuzz_outcome run_index(const uint8_t *bytes, size_t len)
{
    struct index index;
    struct error error = {0};
    enum status status = index_read(&index, fuzz_file(bytes, len), &error);
    if (status != STATUS_OK) {
        fuzz_check_error(status, &error);
        FUZZ_CHECK(index.bytes == NULL && error.path[0] != '\0');
        return header_holds(bytes, len) ? FUZZ_ENTERED : FUZZ_REFUSED;
    }
    FUZZ_CHECK(header_holds(bytes, len));
    check_strings(&index, INDEX_FILE_NAMES);
    check_strings(&index, INDEX_RECORD_NAMES);
    check_strings(&index, INDEX_CLASS_NAMES);
    check_strings(&index, INDEX_PROVENANCE);
    check_records(&index);
    index_free(&index);
    return FUZZ_ACCEPTED;
}

static const struct fuzz_target target = {.name = "index",
                                          .open = open_index,
                                          .close = close_index,
                                          .repair = repair_index,
                                          .run = run_index};

FUZZ_MAIN(target)
