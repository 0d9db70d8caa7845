#include "tests/support/damaged_dataset.h"

void damaged_make(struct damaged *damaged, uint64_t bad_image)
{
    *damaged = (struct damaged){0};
    sample_dataset_make(&damaged->sample, DAMAGED_RECORDS, bad_image);
    for (int store = 0; store < 2; store++) {
        damaged->dataset[store] = sample_dataset_open(&damaged->sample, (enum dataset_store)store);
    }
    if (bad_image != NOWHERE) {
        damaged->bad[bad_image] = true;
        damaged->bad_count++;
    }
}

void damaged_flip(struct damaged *damaged, uint64_t record)
{
    sample_dataset_flip(damaged->dataset[0], record);
    sample_dataset_flip(damaged->dataset[1], record);
    damaged->bad[record] = true;
    damaged->bad_count++;
}

void damaged_remove(struct damaged *damaged)
{
    dataset_close(&damaged->dataset[0]);
    dataset_close(&damaged->dataset[1]);
    sample_dataset_remove(&damaged->sample);
}
