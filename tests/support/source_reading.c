// Reading sources to their end.
#include "tests/support/source_reading.h"
#include "formats/file.h"
#include "tests/support/mutate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void note_member(struct source_reading *reading, const struct source_member *member,
                        bool good)
{
    size_t used = strlen(reading->members);
    snprintf(reading->members + used, sizeof reading->members - used, "%s %d%s\n", member->name,
             (int)member->label, good ? "" : " !");
}

static void note_classes(struct source_reading *reading, const struct source *source)
{
    uint32_t count = 0;
    const char *const *classes = source_classes(source, &count);
    for (uint32_t i = 0; classes != NULL && i < count; i++) {
        size_t used = strlen(reading->classes);
        snprintf(reading->classes + used, sizeof reading->classes - used, "%s%s", i ? "," : "",
                 classes[i]);
    }
}

// Whether the source goes on behind this image.
static bool read_member(struct source_reading *reading, struct source *source,
                        const struct source_member *member, uint8_t **bytes, size_t *capacity)
{
    struct error error;
    size_t len;
    enum status status = source_read(source, bytes, &len, capacity, &error);
    if (status != STATUS_OK && status != STATUS_LIMIT && status != STATUS_CORRUPT) {
        reading->status = status;
        reading->error = error;
        return false;
    }
    note_member(reading, member, status == STATUS_OK);
    if (status != STATUS_OK && reading->bad.status == STATUS_OK) {
        reading->bad = error;
    }
    if (status == STATUS_OK && reading->first == NULL) {
        reading->first = malloc(len + 1);
        assert_non_null(reading->first);
        memcpy(reading->first, *bytes, len);
        reading->first_len = len;
    }
    return true;
}

static void read_members(struct source_reading *reading, struct source *source)
{
    struct source_member member;
    uint8_t *bytes = NULL;
    size_t capacity = 0;
    do {
        reading->status = source_next(source, &member, &reading->error);
    } while (reading->status == STATUS_OK &&
             read_member(reading, source, &member, &bytes, &capacity));
    free(bytes);
}

void source_reading_all(struct source_reading *reading, const char *path)
{
    struct source *source;
    memset(reading, 0, sizeof *reading);
    reading->status = source_open(&source, path, &reading->error);
    if (reading->status != STATUS_OK) {
        return;
    }
    read_members(reading, source);
    reading->counts = source_counts(source);
    snprintf(reading->kind, sizeof reading->kind, "%s", source_kind_name(source));
    snprintf(reading->description, sizeof reading->description, "%s", source_describe(source));
    note_classes(reading, source);
    source_close(&source);
}

// Names and labels are the same where only they are wanted; what is wrong with an image need not be
// seen then.
static void check_names(const struct source_reading *reading, const char *path)
{
    struct source *source;
    struct source_member member;
    enum status status;
    const char *at = reading->members;
    assert_int_equal(source_open_names(&source, path, NULL), STATUS_OK);
    while ((status = source_next(source, &member, NULL)) == STATUS_OK && *at != '\0') {
        char line[2 * 4096 + 32];
        size_t len = strcspn(at, "\n");
        bool bad = len > 0 && at[len - 1] == '!';
        int want = bad ? snprintf(line, sizeof line, "%s ", member.name)
                       : snprintf(line, sizeof line, "%s %d\n", member.name, member.label);
        assert_memory_equal(at, line, (size_t)want);
        at += len + 1;
    }
    assert_int_equal(status, STATUS_END);
    assert_int_equal(source_counts(source).images, reading->counts.images);
    source_close(&source);
}

void source_reading_good(struct source_reading *reading, const char *path)
{
    source_reading_all(reading, path);
    if (reading->status != STATUS_END) {
        fail_msg("%s: %s", path, reading->error.reason);
    }
    check_names(reading, path);
}

void source_reading_free(struct source_reading *reading)
{
    free(reading->first);
    reading->first = NULL;
}

void source_reading_refused(const char *path, enum status status, const char *text)
{
    struct source_reading *reading = malloc(sizeof *reading);
    assert_non_null(reading);
    source_reading_all(reading, path);
    if (reading->status != status || strstr(reading->error.reason, text) == NULL) {
        fail_msg("%s: status %s, %s; expected: %s", path, status_name(reading->status),
                 reading->error.reason, text);
    }
    source_reading_free(reading);
    free(reading);
}

void source_reading_bad(const char *path, enum status status, const char *text)
{
    struct source_reading *reading = malloc(sizeof *reading);
    assert_non_null(reading);
    source_reading_good(reading, path);
    if (reading->bad.status != status || strstr(reading->bad.reason, text) == NULL) {
        fail_msg("%s: status %s, %s; expected: %s", path, status_name(reading->bad.status),
                 reading->bad.reason, text);
    }
    source_reading_free(reading);
    free(reading);
}

// Without the syncs of file_write_durably.
void source_reading_write(const char *path, const void *bytes, size_t len)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

void source_reading_mutants(const char *path, const char *file, size_t keep, unsigned rounds)
{
    struct source_reading *reading = malloc(sizeof *reading);
    uint8_t *whole = NULL;
    size_t len = 0;
    uint64_t state = 7;
    assert_non_null(reading);
    assert_int_equal(file_read_all(file, UINT64_C(1) << 30, &whole, &len, NULL), STATUS_OK);
    for (unsigned round = 0; round < rounds; round++) {
        size_t mutant_len;
        uint8_t *mutant = mutate_copy(whole, len, keep, &state, &mutant_len);
        source_reading_write(file, mutant, mutant_len);
        free(mutant);
        source_reading_all(reading, path);
        assert_true(reading->status == STATUS_END || reading->error.reason[0] != '\0');
        source_reading_free(reading);
    }
    source_reading_write(file, whole, len);
    free(whole);
    free(reading);
}
