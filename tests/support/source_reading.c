// Reading sources to their end.
#include "tests/support/source_reading.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void append(char *text, size_t size, const char *format, ...)
{
    size_t used = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + used, size - used, format, arguments);
    va_end(arguments);
}

// `why`: NULL for a good one.
static void note_member(struct source_reading *reading, const struct source_member *member,
                        const struct error *why, const uint8_t *bytes, size_t len)
{
    size_t text = 0;
    while (why == NULL && text < len && bytes[text] >= ' ' && bytes[text] < 0x7f) {
        text++;
    }
    append(reading->members, sizeof reading->members, "%s %d%s\n", member->name, member->label,
           why ? " !" : "");
    append(reading->lines, sizeof reading->lines, "%s %d ", member->name, member->label);
    if (member->fault != NULL) {
        append(reading->lines, sizeof reading->lines, "!its name %s\n", member->fault);
    } else if (why != NULL) {
        append(reading->lines, sizeof reading->lines, "!%s\n", why->reason);
    } else {
        append(reading->lines, sizeof reading->lines, "%.*s\n", (int)text, (const char *)bytes);
    }
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
    note_member(reading, member, status != STATUS_OK ? &error : NULL, *bytes, len);
    if (status != STATUS_OK && status != STATUS_LIMIT && status != STATUS_CORRUPT) {
        reading->status = status;
        reading->error = error;
        return false;
    }
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
    source_reading_free(reading);
    memset(reading, 0, sizeof *reading);
    reading->status = source_open(&source, path, &reading->error);
    if (reading->status != STATUS_OK) {
        return;
    }
    assert_string_equal(reading->error.reason, ""); // success leaves it alone
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
        char text[2 * 4096 + 32]; // a bad name may have line ends of its own
        int want = snprintf(text, sizeof text, "%s ", member.name);
        assert_memory_equal(at, text, (size_t)want);
        at += want;
        size_t len = strcspn(at, "\n");
        if (len == 0 || at[len - 1] != '!') {
            want = snprintf(text, sizeof text, "%d\n", member.label);
            assert_memory_equal(at, text, (size_t)want);
        }
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

static struct source_reading *good_reading(const char *path)
{
    struct source_reading *reading = calloc(1, sizeof *reading);
    assert_non_null(reading);
    source_reading_good(reading, path);
    return reading;
}

static void end_reading(struct source_reading *reading)
{
    source_reading_free(reading);
    free(reading);
}

void source_reading_expect(const char *path, const char *kind, const char *lines)
{
    struct source_reading *reading = good_reading(path);
    assert_string_equal(reading->kind, kind);
    assert_string_equal(reading->lines, lines);
    end_reading(reading);
}

void source_reading_described(const char *path, const char *description)
{
    struct source_reading *reading = good_reading(path);
    assert_string_equal(reading->description, description);
    end_reading(reading);
}

static void expect_error(const char *path, const struct error *found, enum status status,
                         const char *text)
{
    if (found->status != status || strstr(found->reason, text) == NULL) {
        fail_msg("%s: status %s, %s; expected: %s", path, status_name(found->status), found->reason,
                 text);
    }
}

void source_reading_refused(const char *path, enum status status, const char *text)
{
    struct source_reading *reading = calloc(1, sizeof *reading);
    assert_non_null(reading);
    source_reading_all(reading, path);
    expect_error(path, &reading->error, status, text);
    assert_int_equal(reading->status, status);
    end_reading(reading);
}

void source_reading_bad(const char *path, enum status status, const char *text)
{
    struct source_reading *reading = good_reading(path);
    expect_error(path, &reading->bad, status, text);
    end_reading(reading);
}
