// The writer of a dataset, for the parts of it that are not in dataset_writer.c.
#ifndef FORMATS_DATASET_INTERNAL_H
#define FORMATS_DATASET_INTERNAL_H

#include "formats/dataset_journal.h"
#include "formats/name_set.h"
#include "formats/store.h"

#define PATH_BYTES 480 // leaves room for a file's name in the 512 of an error

struct dataset_writer {
    char directory[PATH_BYTES], partial[PATH_BYTES + 16], parent[PATH_BYTES];
    int lock; // the partial directory, held open and locked
    bool replace;
    int32_t max_label;
    const struct store *store;
    void *state; // of the store
    struct dataset_packer *packer;
    struct dataset_packed packed; // of dataset_writer_add
    struct index_builder builder;
    struct name_set names;
    struct journal journal;
    bool journaled;
    bool keep;        // what is in the partial directory is another writer's, or complete
    bool finished;    // the partial directory holds a dataset
    bool placed;      // it stands under its name
    uint64_t resumed; // records of a killed writer
};

// Where the dataset will stand, and what stands there must give way.
enum status dataset_writer_name(struct dataset_writer *writer, const char *directory,
                                struct error *error);
// Locks the directory, which exists, until the writer is freed.
enum status dataset_writer_lock(struct dataset_writer *writer, const char *directory,
                                struct error *error);
// Writes the index; the store is complete.
enum status dataset_writer_seal(struct dataset_writer *writer, struct error *error);
void dataset_writer_free(struct dataset_writer **writer);

#endif
