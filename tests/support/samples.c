// Samples differ from each other in every byte and come in sizes around each edge of both stores.
#include "tests/support/samples.h"
#include "tests/support/mutate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LONGEST 150000

const char *const sample_classes[3] = {"apple", "b\xc3\xa4r", "c"};

// Sizes on both sides of every edge: of a tar block, of LMDB's inline values, of a page.
static size_t sample_length(unsigned number)
{
    static const size_t edges[] = {1, 2, 511, 512, 513, 2000, 2020, 2040, 2100, 4079, 4080, 4081};
    size_t edge_count = sizeof edges / sizeof *edges;
    return number < edge_count ? edges[number] : 1 + number * 2503 % LONGEST;
}

void sample_make(struct sample *sample, unsigned number)
{
    uint64_t random = number + 1;
    sample->len = sample_length(number);
    sample->bytes = malloc(sample->len);
    for (size_t i = 0; i < sample->len; i++) {
        sample->bytes[i] = (uint8_t)mutate_next(&random);
    }
    sample->label = (int32_t)(number % 4) - 1;
    const char *folder = sample->label < 0 ? "unlabelled" : sample_classes[sample->label];
    snprintf(sample->name, sizeof sample->name, "%s/%04u.jpg", folder, number);
    if (number % 10 == 3) { // needs a pax header
        memset(sample->name, 'n', 250);
        snprintf(sample->name + 250, 100, "/%04u.jpg", number);
    }
    if (number % 10 == 7) { // needs ustar's second field
        memset(sample->name, 'n', 140);
        snprintf(sample->name + 140, 100, "/p/%080u.jpg", number);
    }
}

struct dataset_item sample_item(const struct sample *sample, unsigned number)
{
    return (struct dataset_item){
        .name = sample->name,
        .bytes = sample->bytes,
        .len = sample->len,
        .label = sample->label,
        .info = {.kind = IMAGE_JPEG, .width = 10 + number, .height = 5, .components = 3}};
}

enum status samples_write(const char *directory, const struct dataset_writer_config *config,
                          unsigned count, struct error *error)
{
    struct dataset_writer *writer;
    enum status status = dataset_writer_open(&writer, directory, config, error);
    for (unsigned i = 0; i < count && status == STATUS_OK; i++) {
        struct sample sample;
        sample_make(&sample, i);
        struct dataset_item item = sample_item(&sample, i);
        status = dataset_writer_add(writer, &item, error);
        free(sample.bytes);
    }
    if (status == STATUS_OK) {
        status = dataset_writer_commit(&writer, sample_classes, 3, error);
    }
    dataset_writer_abort(&writer);
    return status;
}

const struct dataset_writer_config sample_lmdb = {.store = DATASET_LMDB,
                                                  .provenance = "made by a test\n"};
const struct dataset_writer_config sample_shards = {
    .store = DATASET_SHARDS, .shard_bytes = 1000000, .provenance = "made by a test\n"};
const struct dataset_writer_config *const sample_configs[2] = {&sample_lmdb, &sample_shards};

void samples_write_good(const char *directory, const struct dataset_writer_config *config,
                        unsigned count)
{
    struct error error;
    if (samples_write(directory, config, count, &error) != STATUS_OK) {
        char text[1200];
        fail_msg("%s", error_text(&error, text, sizeof text));
    }
}

struct dataset *samples_open_good(const char *directory)
{
    struct dataset *dataset;
    struct error error;
    if (dataset_open(&dataset, directory, &error) != STATUS_OK) {
        char text[1200];
        fail_msg("%s", error_text(&error, text, sizeof text));
    }
    return dataset;
}
