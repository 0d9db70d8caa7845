// Reads a whole source as `byol convert --bad skip` does, and keeps what came.
#ifndef TESTS_SUPPORT_SOURCE_READING_H
#define TESTS_SUPPORT_SOURCE_READING_H

#include "formats/source.h"

// Starts from {0}; what one reading keeps, the next one frees.
struct source_reading {
    enum status status; // STATUS_END when it went well
    struct error error;
    struct error bad; // of the first bad image, or with STATUS_OK
    struct source_counts counts;
    char kind[64], description[600];
    // Each as far as there is room: "NAME LABEL\n", "NAME LABEL !\n" of a bad one; and "NAME LABEL
    // BYTES\n", "NAME LABEL !REASON\n", with bytes as text up to the first that is none.
    char members[16384], lines[1 << 16];
    char classes[256]; // "A,B"
    uint8_t *first;    // the first good image's bytes
    size_t first_len;
};

void source_reading_all(struct source_reading *reading, const char *path);
// The same, and fails the test unless it went well.
void source_reading_good(struct source_reading *reading, const char *path);
void source_reading_free(struct source_reading *reading);
// Fails the test unless all of `path` can be read as this kind, with these lines.
void source_reading_expect(const char *path, const char *kind, const char *lines);
// Fails the test unless source_describe says this.
void source_reading_described(const char *path, const char *description);
// Fails the test unless reading `path` ends with `status` and `text` in the reason.
void source_reading_refused(const char *path, enum status status, const char *text);
// Fails the test unless all of `path` can be read, and its first bad image comes with `status` and
// `text`.
void source_reading_bad(const char *path, enum status status, const char *text);

#endif
