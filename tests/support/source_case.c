// Files of sources, whole and damaged.
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

struct scratch scratch;

int source_case_setup(void **state)
{
    (void)state;
    scratch_make(&scratch);
    return 0;
}

int source_case_teardown(void **state)
{
    (void)state;
    scratch_remove(&scratch);
    return 0;
}

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

static uint8_t *whole_file(const char *path, size_t *len)
{
    uint8_t *bytes;
    assert_int_equal(file_read_all(path, UINT64_C(1) << 26, &bytes, len, NULL), STATUS_OK);
    return bytes;
}

// Reads what was damaged; returns how that ended.
static enum status read_damaged(struct source_reading *reading, const char *path)
{
    source_reading_all(reading, path);
    assert_true(reading->status != STATUS_OK && reading->status != STATUS_NO_MEMORY);
    assert_true(reading->status == STATUS_END || reading->error.reason[0] != '\0');
    return reading->status;
}

void source_case_mutants(const char *path, const char *file, size_t keep, unsigned rounds)
{
    static struct source_reading reading;
    size_t len;
    uint8_t *bytes = whole_file(file, &len);
    uint64_t random = 5;
    for (unsigned i = 0; i < rounds; i++) {
        size_t mutant_len;
        uint8_t *mutant = mutate_copy(bytes, len, keep, &random, &mutant_len);
        source_case_write(file, mutant, mutant_len);
        free(mutant);
        read_damaged(&reading, path);
    }
    source_case_write(file, bytes, len);
    free(bytes);
}

void source_case_cuts(const char *path, size_t step)
{
    static struct source_reading reading;
    size_t len;
    uint8_t *bytes = whole_file(path, &len);
    for (size_t cut = 0; cut < len; cut += step) {
        source_case_write(path, bytes, cut);
        if (read_damaged(&reading, path) == STATUS_END) {
            fail_msg("cut at %zu of %zu passes for whole", cut, len);
        }
    }
    source_case_write(path, bytes, len);
    free(bytes);
}
