// One damaged dataset in both stores, for tests of what the loader does about bad records.
#ifndef TESTS_SUPPORT_DAMAGED_DATASET_H
#define TESTS_SUPPORT_DAMAGED_DATASET_H

#include "tests/support/sample_dataset.h"

#include <stdbool.h>

#define DAMAGED_RECORDS 41

struct damaged {
    struct sample_dataset sample;
    struct dataset *dataset[2]; // by enum dataset_store
    bool bad[DAMAGED_RECORDS];
    uint32_t bad_count;
};

// All good but `bad_image` (see sample_dataset_make; NOWHERE: none).
void damaged_make(struct damaged *damaged, uint64_t bad_image);
void damaged_flip(struct damaged *damaged, uint64_t record); // a good one, in both stores
void damaged_remove(struct damaged *damaged);

#endif
