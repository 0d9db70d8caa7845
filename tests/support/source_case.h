// What suites of sources share: tars written by hand, and a source read to its end as one text.
#ifndef TESTS_SUPPORT_SOURCE_CASE_H
#define TESTS_SUPPORT_SOURCE_CASE_H

#include "formats/source.h"

#include <stdio.h>

// A ustar member of any type; links point to "target".
void source_case_member(FILE *tar, const char *name, char type, const void *bytes, size_t len);
void source_case_file(FILE *tar, const char *name, const char *text); // a plain one
void source_case_end(FILE *tar); // the end mark; closes the file
FILE *source_case_create(const char *path);
void source_case_write(const char *path, const void *bytes, size_t len);

struct source_case {
    char kind[64], layout[300];
    // "NAME LABEL BYTES\n" for each image; "NAME LABEL !REASON\n" for a bad one. Bytes as text up
    // to the first that is none.
    char lines[1 << 16];
    struct source_counts counts;
    enum status status; // STATUS_END when it went well
    struct error error;
};
void source_case_read(struct source_case *result, const char *path);
// Reads it and fails the test unless kind and lines are these and nothing is amiss.
void source_case_expect(const char *path, const char *kind, const char *lines);
// Reads mutants of the file, which must end in a message or in peace.
void source_case_mutants(const char *path, unsigned count, size_t keep);
// Reads the file cut short at many places; it must never pass for whole.
void source_case_cuts(const char *path, size_t step);

#endif
