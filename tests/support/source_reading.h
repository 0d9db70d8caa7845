// Reads a whole source as `byol convert` does, and keeps what came.
#ifndef TESTS_SUPPORT_SOURCE_READING_H
#define TESTS_SUPPORT_SOURCE_READING_H

#include "formats/source.h"

struct source_reading {
    enum status status; // STATUS_END when it went well
    struct error error;
    struct error bad; // of the first bad image, or with STATUS_OK
    struct source_counts counts;
    char kind[64], description[600];
    char members[16384]; // "NAME LABEL\n" each, "NAME LABEL !\n" of a bad one, as far as there is
                         // room
    char classes[256];   // "A,B"
    uint8_t *first;      // the first good image's bytes
    size_t first_len;
};

void source_reading_all(struct source_reading *reading, const char *path);
// The same, and fails the test unless it went well and the names alone say the same.
void source_reading_good(struct source_reading *reading, const char *path);
void source_reading_free(struct source_reading *reading);
// Fails the test unless reading `path` ends with `status` and `text` in the reason.
void source_reading_refused(const char *path, enum status status, const char *text);

// Fails the test unless all of `path` can be read, and its first bad image comes with `status` and
// `text`.
void source_reading_bad(const char *path, enum status status, const char *text);

void source_reading_write(const char *path, const void *bytes, size_t len);
// Damages `file` behind its first `keep` bytes in `rounds` ways, one after the other, and reads
// `path`: each time it must end, well or with a reason.
void source_reading_mutants(const char *path, const char *file, size_t keep, unsigned rounds);

#endif
