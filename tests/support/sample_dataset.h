// A small dataset of synthetic photographs in both stores, made in a temporary folder, and ways to
// damage it.
#ifndef TESTS_SUPPORT_SAMPLE_DATASET_H
#define TESTS_SUPPORT_SAMPLE_DATASET_H

#include "formats/dataset.h"
#include "tests/support/program.h"

#define SAMPLE_CLASSES 5

struct sample_dataset {
    struct scratch scratch; // holds both
    char path[2][300];      // by enum dataset_store; each image in a frame of its own
    char grouped[300];      // shards whose images share frames
    uint64_t bad_image;     // this record's JPEG is cut short though its checksum holds; or NOWHERE
};

// `count` images of different sizes; record i has label i % SAMPLE_CLASSES. Fails the test when it
// cannot.
void sample_dataset_make(struct sample_dataset *sample, uint32_t count, uint64_t bad_image);
void sample_dataset_remove(struct sample_dataset *sample);

struct dataset *sample_dataset_open(const struct sample_dataset *sample, enum dataset_store store);
struct dataset *sample_dataset_open_grouped(const struct sample_dataset *sample);

// Flips a bit in the middle of a record's stored bytes.
void sample_dataset_flip(const struct dataset *dataset, uint64_t record);
// Cuts the file of a record in the middle of its stored bytes.
void sample_dataset_cut(const struct dataset *dataset, uint64_t record);

#endif
