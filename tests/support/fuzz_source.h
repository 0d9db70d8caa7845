// What the targets of foreign containers share: an input is a file that `byol convert` is given.
#ifndef TESTS_SUPPORT_FUZZ_SOURCE_H
#define TESTS_SUPPORT_FUZZ_SOURCE_H

#include "tests/support/fuzz.h"

// Reads it twice, as a conversion does: names and labels, then images. Both must tell the same; a
// name without a fault must be a good one; labels must be labels; failures must say what and where.
// FUZZ_ACCEPTED when it was read to its end, FUZZ_REFUSED when no kind took it.
enum fuzz_outcome fuzz_source_run(const uint8_t *bytes, size_t len);

// The same for a path, a folder for example, that the target made of its input.
enum fuzz_outcome fuzz_source_run_path(const char *path);

// Makes the checksums of a tar's headers hold, and of tars inside it.
void fuzz_source_repair_tar(uint8_t *bytes, size_t len);

#endif
