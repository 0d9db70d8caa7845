// What the targets of the two stores share. An input is a whole dataset of a few small images: u32
// length of the index, the index, the bytes of its one store file.
#ifndef TESTS_SUPPORT_FUZZ_STORE_H
#define TESTS_SUPPORT_FUZZ_STORE_H

#include "formats/dataset.h"
#include "tests/support/fuzz.h"

void fuzz_store_open(enum dataset_store store);
void fuzz_store_close(void);
// Damages a record where it counts (its bytes, its frame's content, its entry in the index), then
// makes lengths and checksums hold.
size_t fuzz_store_repair(uint8_t *bytes, size_t len, uint64_t *random);
// Opens the dataset, reads every record in both ways and decodes what was read.
enum fuzz_outcome fuzz_store_run(const uint8_t *bytes, size_t len);

#endif
