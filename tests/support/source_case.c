// Sources for tests.
#include "tests/support/source_case.h"
#include "formats/file.h"
#include "tests/support/mutate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BLOCK 512

FILE *source_case_create(const char *path)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    return file;
}

void source_case_write(const char *path, const void *bytes, size_t len)
{
    FILE *file = source_case_create(path);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

void source_case_member(FILE *tar, const char *name, char type, const void *bytes, size_t len)
{
    char block[BLOCK] = {0}, digits[32];
    snprintf(block, 100, "%s", name);
    snprintf(block + 100, 8, "0000644");
    snprintf(digits, sizeof digits, "%011zo", len);
    memcpy(block + 124, digits, 11);
    block[156] = type;
    if (type == '1' || type == '2') {
        snprintf(block + 157, 100, "target");
    }
    snprintf(block + 257, 6, "ustar");
    block[263] = block[264] = '0';
    memset(block + 148, ' ', 8);
    unsigned sum = 0;
    for (int i = 0; i < BLOCK; i++) {
        sum += (uint8_t)block[i];
    }
    snprintf(block + 148, 8, "%06o", sum);
    assert_int_equal(fwrite(block, BLOCK, 1, tar), 1);
    assert_int_equal(fwrite(bytes, 1, len, tar), len);
    for (; len % BLOCK != 0; len++) {
        putc(0, tar);
    }
}

void source_case_file(FILE *tar, const char *name, const char *text)
{
    source_case_member(tar, name, '0', text, strlen(text));
}

void source_case_end(FILE *tar)
{
    static const char zeros[2 * BLOCK];
    assert_int_equal(fwrite(zeros, sizeof zeros, 1, tar), 1);
    assert_int_equal(fclose(tar), 0);
}

static void add_line(struct source_case *result, const struct source_member *member,
                     enum status status, const struct error *bad, const uint8_t *bytes, size_t len)
{
    size_t used = strlen(result->lines), room = sizeof result->lines - used, text = 0;
    while (status == STATUS_OK && text < len && bytes[text] >= ' ' && bytes[text] < 0x7f) {
        text++;
    }
    if (member->fault != NULL) {
        snprintf(result->lines + used, room, "%s %d !its name %s\n", member->name, member->label,
                 member->fault);
    } else if (status != STATUS_OK) {
        snprintf(result->lines + used, room, "%s %d !%s\n", member->name, member->label,
                 bad->reason);
    } else {
        snprintf(result->lines + used, room, "%s %d %.*s\n", member->name, member->label, (int)text,
                 (const char *)bytes);
    }
}

void source_case_read(struct source_case *result, const char *path)
{
    struct source *source;
    struct source_member member;
    uint8_t *bytes = NULL;
    size_t len, capacity = 0;
    memset(result, 0, sizeof *result);
    result->status = source_open(&source, path, &result->error);
    while (result->status == STATUS_OK) {
        struct error bad = {0};
        result->status = source_next(source, &member, &result->error);
        if (result->status != STATUS_OK) {
            break;
        }
        enum status status = source_read(source, &bytes, &len, &capacity, &bad);
        add_line(result, &member, status, &bad, bytes, len);
        if (status != STATUS_OK && status != STATUS_LIMIT && status != STATUS_CORRUPT) {
            result->status = status;
            result->error = bad;
        }
    }
    if (source != NULL) {
        result->counts = source_counts(source);
        snprintf(result->kind, sizeof result->kind, "%s", source_kind_name(source));
        snprintf(result->layout, sizeof result->layout, "%s", source_describe(source));
    }
    free(bytes);
    source_close(&source);
}

void source_case_expect(const char *path, const char *kind, const char *lines)
{
    struct source_case result;
    source_case_read(&result, path);
    if (result.status != STATUS_END) {
        fail_msg("%s", result.error.reason);
    }
    assert_string_equal(result.kind, kind);
    assert_string_equal(result.lines, lines);
}

static uint8_t *whole_file(const char *path, size_t *len)
{
    uint8_t *bytes;
    assert_int_equal(file_read_all(path, UINT64_C(1) << 26, &bytes, len, NULL), STATUS_OK);
    return bytes;
}

static void check_failure(const struct source_case *result)
{
    assert_true(result->status != STATUS_OK && result->status != STATUS_NO_MEMORY);
    assert_true(result->status == STATUS_END || result->error.reason[0] != '\0');
}

void source_case_mutants(const char *path, unsigned count, size_t keep)
{
    size_t len;
    uint8_t *bytes = whole_file(path, &len);
    uint64_t random = 5;
    for (unsigned i = 0; i < count; i++) {
        size_t mutant_len;
        uint8_t *mutant = mutate_copy(bytes, len, keep, &random, &mutant_len);
        source_case_write(path, mutant, mutant_len);
        free(mutant);
        struct source_case result;
        source_case_read(&result, path);
        check_failure(&result);
    }
    source_case_write(path, bytes, len);
    free(bytes);
}

void source_case_cuts(const char *path, size_t step)
{
    size_t len;
    uint8_t *bytes = whole_file(path, &len);
    for (size_t cut = 0; cut < len; cut += step) {
        source_case_write(path, bytes, cut);
        struct source_case result;
        source_case_read(&result, path);
        check_failure(&result);
        if (result.status == STATUS_END) {
            fail_msg("cut at %zu of %zu passes for whole", cut, len);
        }
    }
    source_case_write(path, bytes, len);
    free(bytes);
}
