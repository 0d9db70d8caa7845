#include "tests/support/fuzz_store.h"
#include "formats/crc32c.h"
#include "formats/file.h"
#include "formats/index.h"
#include "tests/support/fuzz_index.h"
#include "tests/support/mutate.h"
#include "tests/support/picture.h"
#include "tests/support/program.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#define IMAGES       5
#define MOST_CONTENT 16384 // of a frame that the repair looks into
#define MOST_PIXELS  (1u << 20)

static struct scratch scratch;
static char directory[300], index_path[400], store_path[400];
static struct image_decoder *decoder;
static struct image pixels;

// An input taken apart.
struct bundle {
    uint8_t *index, *file;
    size_t index_len, file_len;
};

static bool take_apart(struct bundle *bundle, uint8_t *bytes, size_t len)
{
    if (len < 4 || index_load32(bytes) > len - 4 ||
        index_load32(bytes) < INDEX_HEADER_BYTES + INDEX_TRAILER_BYTES) {
        return false;
    }
    bundle->index = bytes + 4;
    bundle->index_len = index_load32(bytes);
    bundle->file = bundle->index + bundle->index_len;
    bundle->file_len = len - 4 - bundle->index_len;
    return true;
}

// --- seeds -------------------------------------------------------------------------------------

static void add_image(struct dataset_writer *writer, uint32_t number)
{
    static const struct picture_jpeg kinds[] = {{PICTURE_YCBCR, .h = 2, .v = 2},
                                                {PICTURE_GREY, .h = 1},
                                                {PICTURE_YCBCR, .h = 2, .v = 1, .restart = 2}};
    struct image image = {0};
    picture_fill(&image, 12 + 9 * number, 30 - 4 * number, number);
    size_t len;
    uint8_t *bytes = picture_jpeg(&image, &kinds[number % 3], &len);
    char name[32];
    snprintf(name, sizeof name, "c/%u.jpg", number);
    const struct dataset_item item = {
        .name = name,
        .bytes = bytes,
        .len = len,
        .info = {IMAGE_JPEG, image.width, image.height, number % 3 == 1 ? 1 : 3, false}};
    FUZZ_CHECK(dataset_writer_add(writer, &item, NULL) == STATUS_OK);
    free(bytes);
    image_free(&image);
}

// `frame_bytes` of shards: 1 gives each image a frame of its own, 0 lets them share one.
static void write_dataset(enum dataset_store store, uint32_t frame_bytes)
{
    static const char *const classes[] = {"c"};
    const struct dataset_writer_config config = {
        .store = store, .frame_bytes = frame_bytes, .replace = true};
    struct dataset_writer *writer;
    FUZZ_CHECK(dataset_writer_open(&writer, directory, &config, NULL) == STATUS_OK);
    for (uint32_t i = 0; i < IMAGES; i++) {
        add_image(writer, i);
    }
    FUZZ_CHECK(dataset_writer_commit(&writer, classes, 1, NULL) == STATUS_OK);
}

static void seed_of_dataset(void)
{
    uint8_t *index, *file;
    size_t index_len, file_len;
    FUZZ_CHECK(file_read_all(index_path, FUZZ_INPUT_BYTES, &index, &index_len, NULL) == STATUS_OK);
    FUZZ_CHECK(file_read_all(store_path, FUZZ_INPUT_BYTES, &file, &file_len, NULL) == STATUS_OK);
    size_t len = 4 + index_len + file_len;
    uint8_t *bytes = malloc(len);
    FUZZ_CHECK(bytes != NULL);
    index_store32(bytes, (uint32_t)index_len);
    memcpy(bytes + 4, index, index_len);
    memcpy(bytes + 4 + index_len, file, file_len);
    fuzz_seed(bytes, len, 4 + index_len);
    free(bytes);
    free(index);
    free(file);
}

void fuzz_store_open(enum dataset_store store)
{
    scratch_make(&scratch);
    snprintf(directory, sizeof directory, "%s/set", scratch.path);
    snprintf(index_path, sizeof index_path, "%s/" INDEX_FILE_NAME, directory);
    for (uint32_t frame_bytes = 0; frame_bytes < 2; frame_bytes++) {
        write_dataset(store, frame_bytes);
        struct dataset *dataset;
        FUZZ_CHECK(dataset_open(&dataset, directory, NULL) == STATUS_OK);
        FUZZ_CHECK(dataset_file_count(dataset) == 1);
        snprintf(store_path, sizeof store_path, "%s", dataset_file_path(dataset, 0));
        dataset_close(&dataset);
        seed_of_dataset();
    }
    FUZZ_CHECK(image_decoder_open(&decoder, NULL) == STATUS_OK);
}

void fuzz_store_close(void)
{
    image_decoder_close(&decoder);
    image_free(&pixels);
    scratch_remove(&scratch);
}

// --- repair ------------------------------------------------------------------------------------

static bool extent_inside(const struct bundle *bundle, const struct dataset_record *record)
{
    return record->offset <= bundle->file_len &&
           record->stored_length <= bundle->file_len - record->offset && record->stored_length > 0;
}

static void damage(uint8_t *bytes, size_t len, uint64_t *random)
{
    for (size_t changes = 1 + fuzz_below(random, 4); len > 0 && changes > 0; changes--) {
        size_t at = fuzz_below(random, len);
        uint8_t bit = (uint8_t)(1u << fuzz_below(random, 8));
        if (fuzz_below(random, 2)) {
            bytes[at] ^= bit;
        } else {
            bytes[at] = (uint8_t)mutate_next(random);
        }
    }
}

// Unpacks the frame, damages its content or its length, and packs it again where it fits.
static void damage_content(struct bundle *bundle, struct dataset_record *record, uint64_t *random)
{
    static uint8_t content[MOST_CONTENT], packed[MOST_CONTENT * 2];
    uint8_t *stored = bundle->file + record->offset;
    size_t len = ZSTD_decompress(content, sizeof content, stored, record->stored_length);
    if (ZSTD_isError(len) || len == 0) {
        return;
    }
    damage(content, len, random);
    if (fuzz_below(random, 4) == 0) {
        len = 1 + fuzz_below(random, len);
    }
    size_t packed_len = ZSTD_compress(packed, sizeof packed, content, len, 1);
    if (!ZSTD_isError(packed_len) && packed_len <= record->stored_length) {
        memcpy(stored, packed, packed_len);
        record->stored_length = (uint32_t)packed_len;
    }
}

// Makes what the index says of the record's bytes true.
static void tell_truth(const struct bundle *bundle, struct dataset_record *record)
{
    static uint8_t content[MOST_CONTENT];
    const uint8_t *image = bundle->file + record->offset;
    size_t len = record->stored_length;
    if (record->coding == DATASET_CODING_ZSTD) {
        len = ZSTD_decompress(content, sizeof content, image, len);
        image = content;
        if (ZSTD_isError(len)) {
            return;
        }
    } else {
        record->length = record->stored_length;
    }
    record->frame_length = (uint32_t)len;
    if (record->inner_offset < len) {
        size_t rest = len - record->inner_offset;
        record->length = record->length <= rest ? record->length : (uint32_t)rest;
        record->crc = crc32c(0, image + record->inner_offset, record->length);
    }
}

static void damage_record(struct bundle *bundle, uint8_t *entry, uint64_t *random)
{
    struct dataset_record record = index_load_record(entry);
    if (!extent_inside(bundle, &record)) {
        return;
    }
    switch (fuzz_below(random, 4)) {
    case 0:
        damage(bundle->file + record.offset, record.stored_length, random);
        break;
    case 1:
        if (record.coding == DATASET_CODING_ZSTD) {
            damage_content(bundle, &record, random);
            index_store_record(entry, &record);
        }
        break;
    case 2:
        damage(entry, INDEX_RECORD_BYTES, random);
        break;
    default:
        break;
    }
}

// `like`: the record that was damaged, whose frame this one may share.
static void repair_record(struct bundle *bundle, uint8_t *entry, const struct dataset_record *like)
{
    struct dataset_record record = index_load_record(entry);
    if (record.offset == like->offset && record.coding == DATASET_CODING_ZSTD) {
        record.stored_length = like->stored_length;
    }
    if (extent_inside(bundle, &record)) {
        tell_truth(bundle, &record);
        index_store_record(entry, &record);
    }
}

static void repair_records(struct bundle *bundle, uint8_t *entries, size_t count, uint64_t *random)
{
    size_t chosen = fuzz_below(random, count);
    damage_record(bundle, entries + chosen * INDEX_RECORD_BYTES, random);
    struct dataset_record like = index_load_record(entries + chosen * INDEX_RECORD_BYTES);
    for (size_t i = 0; i < count; i++) {
        if (fuzz_below(random, 32) > 0) {
            repair_record(bundle, entries + i * INDEX_RECORD_BYTES, &like);
        }
    }
}

size_t fuzz_store_repair(uint8_t *bytes, size_t len, uint64_t *random)
{
    struct bundle bundle;
    if (!take_apart(&bundle, bytes, len)) {
        return len;
    }
    const uint8_t *table = bundle.index + INDEX_TABLE_AT;
    uint64_t files = index_load64(table + INDEX_TABLE_ENTRY * INDEX_FILES);
    uint64_t records = index_load64(table + INDEX_TABLE_ENTRY * INDEX_RECORDS);
    uint64_t records_len = index_load64(table + INDEX_TABLE_ENTRY * INDEX_RECORDS + 8);
    if (files < bundle.index_len - INDEX_FILE_BYTES) {
        index_store64(bundle.index + files, bundle.file_len);
    }
    if (records <= bundle.index_len && records_len <= bundle.index_len - records) {
        size_t count = (size_t)(records_len / INDEX_RECORD_BYTES);
        if (count > 0) {
            repair_records(&bundle, bundle.index + records, count, random);
        }
    }
    fuzz_index_sign(bundle.index, bundle.index_len);
    return len;
}

// --- promises ----------------------------------------------------------------------------------

static void write_file(const char *path, const uint8_t *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FUZZ_CHECK(fd >= 0 && write(fd, bytes, len) == (ssize_t)len);
    close(fd);
}

static bool decodes(const uint8_t *bytes, size_t len)
{
    struct image_info info;
    struct error error = {0};
    enum status status = image_probe(decoder, bytes, len, &info, &error);
    if (status == STATUS_OK && (uint64_t)info.width * info.height > MOST_PIXELS) {
        return false;
    }
    if (status == STATUS_OK) {
        status = image_decode(decoder, bytes, len, NULL, &pixels, &error);
    }
    if (status != STATUS_OK) {
        fuzz_check_error(status, &error);
    }
    return status == STATUS_OK;
}

// Unpacks the extent as the pipeline does: the same result as dataset_read gave.
static void check_unpack(const struct dataset *dataset, struct dataset_unpacker *unpacker,
                         uint64_t number, const uint8_t *want, size_t want_len)
{
    struct dataset_record record = dataset_record(dataset, number);
    uint8_t *stored = malloc(record.stored_length);
    int fd = open(dataset_file_path(dataset, record.file), O_RDONLY | O_CLOEXEC);
    FUZZ_CHECK(stored != NULL && fd >= 0);
    FUZZ_CHECK(pread(fd, stored, record.stored_length, (off_t)record.offset) ==
               (ssize_t)record.stored_length);
    close(fd);
    const uint8_t *bytes;
    size_t len;
    struct error error = {0};
    enum status status = dataset_unpack(unpacker, number, stored, &bytes, &len, &error);
    FUZZ_CHECK((status == STATUS_OK) == (want != NULL));
    if (status == STATUS_OK) {
        FUZZ_CHECK(len == want_len && memcmp(bytes, want, len) == 0);
        FUZZ_CHECK(crc32c(0, bytes, len) == record.crc);
    }
    free(stored);
}

static bool check_record(const struct dataset *dataset, struct dataset_unpacker *unpacker,
                         uint64_t number)
{
    uint8_t *bytes;
    size_t len;
    struct error error = {0};
    enum status status = dataset_read(dataset, number, &bytes, &len, &error);
    FUZZ_CHECK((status == STATUS_OK) == (bytes != NULL));
    if (status != STATUS_OK) {
        fuzz_check_error(status, &error);
        FUZZ_CHECK(error.record == number && error.offset != NOWHERE);
        FUZZ_CHECK(strcmp(error.path, dataset_file_path(dataset, 0)) == 0);
    }
    check_unpack(dataset, unpacker, number, bytes, len);
    bool good = status == STATUS_OK && decodes(bytes, len);
    free(bytes);
    return good;
}

enum fuzz_outcome fuzz_store_run(const uint8_t *input, size_t len)
{
    struct bundle bundle;
    if (!take_apart(&bundle, (uint8_t *)(uintptr_t)input, len)) {
        return FUZZ_REFUSED;
    }
    write_file(index_path, bundle.index, bundle.index_len);
    write_file(store_path, bundle.file, bundle.file_len);
    struct dataset *dataset;
    struct error error = {0};
    enum status status = dataset_open(&dataset, directory, &error);
    if (status != STATUS_OK) {
        FUZZ_CHECK(dataset == NULL);
        if (status != STATUS_NOT_FOUND) { // the index may name another file
            fuzz_check_error(status, &error);
        }
        return FUZZ_REFUSED;
    }
    bool good = true;
    struct dataset_unpacker *unpacker;
    FUZZ_CHECK(dataset_unpacker_open(&unpacker, dataset, NULL) == STATUS_OK);
    for (uint64_t i = 0; i < dataset_count(dataset); i++) {
        good = check_record(dataset, unpacker, i) && good;
    }
    dataset_unpacker_close(&unpacker);
    dataset_close(&dataset);
    return good ? FUZZ_ACCEPTED : FUZZ_ENTERED;
}
