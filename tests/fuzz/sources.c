// Containers of images that others wrote (tests/data/stores), read as `byol convert` does: names,
// then images. Kinds that a program of their own reads (HDF5, Parquet) are not among them.
#include "formats/file.h"
#include "formats/limits.h"
#include "formats/source.h"
#include "formats/tfrecord.h"
#include "tests/support/fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEEDS       "tests/data/stores"
#define HEAD_BYTES  16
#define MOST_IMAGES 4096 // of 64 kB

static void open_sources(void)
{
    struct dirent **entries;
    int count = scandir(SEEDS, &entries, NULL, alphasort);
    FUZZ_CHECK(count > 0);
    for (int i = 0; i < count; i++) {
        char path[600];
        uint8_t *bytes;
        size_t len;
        snprintf(path, sizeof path, SEEDS "/%s", entries[i]->d_name);
        if (entries[i]->d_name[0] != '.') {
            FUZZ_CHECK(file_read_all(path, FUZZ_INPUT_BYTES, &bytes, &len, NULL) == STATUS_OK);
            fuzz_seed(bytes, len, HEAD_BYTES);
            free(bytes);
        }
        free(entries[i]);
    }
    free(entries);
}

static void close_sources(void)
{
}

// TFRecords: checksums that hold, as far as the lengths lead.
static size_t repair_sources(uint8_t *bytes, size_t len, uint64_t *random)
{
    if (!tfrecord_starts(bytes, len) && fuzz_below(random, 2)) {
        return len;
    }
    for (size_t at = 0; len - at >= TFRECORD_HEAD_BYTES + TFRECORD_FOOT_BYTES && at < len;) {
        uint64_t record;
        memcpy(&record, bytes + at, sizeof record);
        if (record > len - at - TFRECORD_HEAD_BYTES - TFRECORD_FOOT_BYTES) {
            break;
        }
        if (at == 0 && !tfrecord_starts(bytes, len)) {
            break;
        }
        uint8_t *payload = bytes + at + TFRECORD_HEAD_BYTES;
        tfrecord_head(bytes + at, (size_t)record);
        tfrecord_foot(payload + record, payload, (size_t)record);
        at += TFRECORD_HEAD_BYTES + (size_t)record + TFRECORD_FOOT_BYTES;
    }
    return len;
}

static void check_member(const struct source_member *member)
{
    FUZZ_CHECK(member->name != NULL && strlen(member->name) <= 2 * LIMIT_NAME_BYTES);
    FUZZ_CHECK(member->label >= SOURCE_LABEL_OF_NAME && member->label < (int32_t)LIMIT_CLASSES);
}

// Reads all images; false where the source or one of them is damaged.
static bool read_images(struct source *source)
{
    struct source_member member;
    struct error error = {0};
    uint8_t *bytes = NULL;
    size_t len, capacity = 0, images = 0;
    bool good = true;
    enum status status;
    while ((status = source_next(source, &member, &error)) == STATUS_OK) {
        FUZZ_CHECK(images++ < MOST_IMAGES);
        check_member(&member);
        enum status read = source_read(source, &bytes, &len, &capacity, &error);
        if (read != STATUS_OK) {
            fuzz_check_error(read, &error);
            good = false;
            if (read != STATUS_LIMIT && read != STATUS_CORRUPT) {
                break;
            }
        }
        FUZZ_CHECK(len <= capacity && capacity <= 4 * LIMIT_IMAGE_BYTES);
    }
    if (status != STATUS_OK && status != STATUS_END) {
        fuzz_check_error(status, &error);
        good = false;
    }
    free(bytes);
    return good && images > 0;
}

static enum status read_names(const char *path, struct error *error)
{
    struct source *source;
    struct source_plan *plan;
    FUZZ_CHECK(source_plan_open(&plan, NULL) == STATUS_OK);
    enum status status = source_open(&source, path, error);
    if (status == STATUS_OK) {
        status = source_plan_scan(plan, source, NULL, NULL, error);
    }
    if (status == STATUS_OK) {
        status = source_plan_finish(plan, error);
    }
    source_close(&source);
    source_plan_close(&plan);
    return status;
}

static enum fuzz_outcome run_sources(const uint8_t *bytes, size_t len)
{
    const char *path = fuzz_file(bytes, len);
    struct error error = {0};
    struct source *source;
    enum status names = read_names(path, &error);
    if (names != STATUS_OK) {
        fuzz_check_error(names, &error);
    }
    enum status status = source_open(&source, path, &error);
    FUZZ_CHECK((status == STATUS_OK) == (source != NULL));
    if (status != STATUS_OK) {
        fuzz_check_error(status, &error);
        return FUZZ_REFUSED;
    }
    bool good = read_images(source);
    FUZZ_CHECK(source_describe(source) != NULL);
    source_close(&source);
    return good && names == STATUS_OK ? FUZZ_ACCEPTED : FUZZ_ENTERED;
}

static const struct fuzz_target target = {.name = "sources",
                                          .open = open_sources,
                                          .close = close_sources,
                                          .repair = repair_sources,
                                          .run = run_sources};

FUZZ_MAIN(target)
