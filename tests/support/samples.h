// Records of every awkward size and name, and datasets made of them. Their bytes are noise, not
// images: nothing below the decoder looks into them.
#ifndef TESTS_SUPPORT_SAMPLES_H
#define TESTS_SUPPORT_SAMPLES_H

#include "formats/dataset.h"
#include "formats/limits.h"

struct sample {
    char name[LIMIT_NAME_BYTES + 1];
    uint8_t *bytes; // malloc'ed
    size_t len;
    int32_t label; // -1 to 2
};

extern const char *const sample_classes[3];

void sample_make(struct sample *sample, unsigned number);
struct dataset_item sample_item(const struct sample *sample, unsigned number);

// One config per store; small shards.
extern const struct dataset_writer_config sample_lmdb, sample_shards;
extern const struct dataset_writer_config *const sample_configs[2];

// A dataset of the first `count` samples.
enum status samples_write(const char *directory, const struct dataset_writer_config *config,
                          unsigned count, struct error *error);

// The same and dataset_open, failing the running test with the error's words.
void samples_write_good(const char *directory, const struct dataset_writer_config *config,
                        unsigned count);
struct dataset *samples_open_good(const char *directory);

#endif
