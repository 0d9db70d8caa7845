// What suites of sources share: a directory for each test, files written by hand, and damage done
// to them.
#ifndef TESTS_SUPPORT_SOURCE_CASE_H
#define TESTS_SUPPORT_SOURCE_CASE_H

#include "tests/support/program.h"
#include "tests/support/source_reading.h"

#include <stdio.h>

extern struct scratch scratch; // the running test's
int source_case_setup(void **state);
int source_case_teardown(void **state);
#define SOURCE_TEST(test)                                                                          \
    cmocka_unit_test_setup_teardown(test, source_case_setup, source_case_teardown)

FILE *source_case_create(const char *path);
void source_case_write(const char *path, const void *bytes, size_t len);
// A ustar member of any type; links point to "target".
void source_case_member(FILE *tar, const char *name, char type, const void *bytes, size_t len);
void source_case_file(FILE *tar, const char *name, const char *text); // a plain one
void source_case_end(FILE *tar); // the end mark; closes the file

// Damages `file` behind its first `keep` bytes in `rounds` ways, one after the other, and reads
// `path`: each time it must end, well or with a reason.
void source_case_mutants(const char *path, const char *file, size_t keep, unsigned rounds);
// Reads the file cut short at many places; it must never pass for whole.
void source_case_cuts(const char *path, size_t step);

#endif
