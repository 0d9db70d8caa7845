// Foreign containers under a fuzzer.
#include "tests/support/fuzz_source.h"
#include "formats/dataset.h"
#include "formats/limits.h"
#include "formats/name.h"
#include "formats/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK       512u
#define MEMBERS_MAX 100000u // an input of 64 KiB has fewer, unless a reader does not get on

struct pass {
    uint64_t images, names; // names: a sum over them and the labels
    enum status status;
};

static void check_member(const struct source_member *member)
{
    FUZZ_CHECK((member->fault == NULL) == (name_fault(member->name, strlen(member->name)) == NULL));
    FUZZ_CHECK(member->label >= SOURCE_LABEL_OF_NAME && member->label < (int32_t)LIMIT_CLASSES);
}

static void read_member(struct source *source, const struct source_member *member, uint8_t **bytes,
                        size_t *capacity)
{
    size_t len = 0;
    struct error error = {0};
    enum status status = source_read(source, bytes, &len, capacity, &error);
    if (status != STATUS_OK) {
        fuzz_check_error(status, &error);
        return;
    }
    FUZZ_CHECK(len <= LIMIT_IMAGE_BYTES);
    FUZZ_CHECK(member->size == SOURCE_SIZE_UNKNOWN || member->size == len);
    FUZZ_CHECK(fuzz_random_of(*bytes, len) == fuzz_random_of(*bytes, len)); // touches each byte
}

static struct pass read_pass(const char *path, bool images)
{
    struct source *source;
    struct source_member member;
    struct error error = {0};
    struct pass pass = {0};
    uint8_t *bytes = NULL;
    size_t capacity = 0;
    pass.status =
        images ? source_open(&source, path, &error) : source_open_names(&source, path, &error);
    bool opened = pass.status == STATUS_OK;
    while (pass.status == STATUS_OK) {
        pass.status = source_next(source, &member, &error);
        if (pass.status == STATUS_OK) {
            check_member(&member);
            FUZZ_CHECK(++pass.images < MEMBERS_MAX);
            pass.names += fuzz_random_of((const uint8_t *)member.name, strlen(member.name)) +
                          (uint64_t)(uint32_t)member.label * pass.images;
            if (images) {
                read_member(source, &member, &bytes, &capacity);
            }
        }
    }
    if (opened) {
        uint32_t count;
        const char *const *classes = source_classes(source, &count);
        FUZZ_CHECK((classes != NULL) == (count > 0) && strlen(source_describe(source)) > 0);
    }
    if (pass.status != STATUS_END && pass.status != STATUS_NOT_FOUND) { // _NOT_FOUND: a shard
        fuzz_check_error(pass.status, &error);
    }
    free(bytes);
    source_close(&source);
    return pass;
}

enum fuzz_outcome fuzz_source_run_path(const char *path)
{
    struct pass names = read_pass(path, false), images = read_pass(path, true);
    // Damage of data alone is met by the second.
    if (names.status == STATUS_END && images.status == STATUS_END) {
        FUZZ_CHECK(names.images == images.images && names.names == images.names);
        return FUZZ_ACCEPTED;
    }
    return names.status == STATUS_UNSUPPORTED && names.images == 0 ? FUZZ_REFUSED : FUZZ_ENTERED;
}

enum fuzz_outcome fuzz_source_run(const uint8_t *bytes, size_t len)
{
    return fuzz_source_run_path(fuzz_file(bytes, len));
}

static size_t octal(const uint8_t *digits, size_t count)
{
    size_t value = 0;
    for (size_t i = 0; i < count && digits[i] >= '0' && digits[i] <= '7'; i++) {
        value = value * 8 + (size_t)(digits[i] - '0');
    }
    return value;
}

void fuzz_source_repair_tar(uint8_t *bytes, size_t len)
{
    for (size_t at = 0; len >= BLOCK && at <= len - BLOCK;) {
        uint8_t *block = bytes + at;
        unsigned sum = 0;
        char text[8];
        if (block[0] == 0) {
            return;
        }
        memset(block + 148, ' ', 8);
        for (size_t i = 0; i < BLOCK; i++) {
            sum += block[i];
        }
        snprintf(text, sizeof text, "%06o", sum);
        memcpy(block + 148, text, 7);
        at += BLOCK;
        size_t size = octal(block + 124, 11), rest = len - at, part = size < rest ? size : rest;
        if (part > BLOCK && memcmp(bytes + at + 257, "ustar", 5) == 0) {
            fuzz_source_repair_tar(bytes + at, part);
        }
        size_t padded = (part + BLOCK - 1) / BLOCK * BLOCK;
        at += padded < rest ? padded : rest;
    }
}
