// Embeddings of a whole dataset.
#include "trainer/probe/encoder.h"

#include <stdlib.h>
#include <string.h>

void probe_options_init(struct probe_options *options)
{
    *options = (struct probe_options){.batch = 128};
}

void features_free(struct features *features)
{
    free(features->values);
    free(features->labels);
    *features = (struct features){0};
}

static enum status allocate(struct features *features, struct error *error)
{
    features->values = malloc(features->count * features->width * sizeof *features->values);
    features->labels = malloc(features->count * sizeof *features->labels);
    if (features->values == NULL || features->labels == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for %llu features of width %u",
                         (unsigned long long)features->count, features->width);
    }
    return STATUS_OK;
}

static enum status embed_all(struct features *features, struct encoder *encoder,
                             struct loader *loader, const struct probe_options *options,
                             struct error *error)
{
    uint64_t done = 0;
    while (done < features->count) {
        const struct batch *batch;
        enum status status = loader_next(loader, &batch, error);
        if (status != STATUS_OK) {
            return status;
        }
        status = encoder_embed(encoder, features->values + done * features->width, batch->view[0],
                               batch->count, error);
        for (uint32_t i = 0; i < batch->count; i++) {
            features->labels[done + i] = batch->labels[i];
        }
        done += batch->count;
        loader_release(loader, batch);
        if (status != STATUS_OK) {
            return status;
        }
        if (options->progress) {
            options->progress(options->context, "embedding", done, features->count);
        }
    }
    return STATUS_OK;
}

enum status features_extract(struct features *out, struct encoder *encoder,
                             const struct dataset *dataset, const struct probe_options *options,
                             struct error *error)
{
    *out = (struct features){.count = dataset_count(dataset),
                             .width = encoder->width,
                             .classes = dataset_class_count(dataset)};
    struct loader *loader = NULL;
    struct loader_config config;
    loader_config_init(&config);
    config.batch = out->count < options->batch ? (uint32_t)out->count : options->batch;
    config.shuffle = false;
    config.keep_last = true;
    config.epochs = 1;
    enum status status = encoder_fill_statistics(encoder, dataset, options, error);
    if (status == STATUS_OK) {
        status = encoder_recipe(encoder, "eval", &config.recipe, error);
    }
    if (status == STATUS_OK) {
        status = encoder_plan(encoder, config.batch, error);
    }
    if (status == STATUS_OK) {
        status = allocate(out, error);
    }
    if (status == STATUS_OK) {
        status = encoder_loader(&loader, encoder, dataset, options, &config, error);
    }
    if (status == STATUS_OK) {
        status = embed_all(out, encoder, loader, options, error);
    }
    loader_close(&loader);
    if (status != STATUS_OK) {
        features_free(out);
    }
    return status;
}

enum status probe_check_classes(const struct dataset *train, const struct dataset *test,
                                struct error *error)
{
    uint32_t count = dataset_class_count(train);
    if (dataset_class_count(test) != count) {
        return error_set(error, STATUS_INVALID, dataset_directory(test), NOWHERE, NOWHERE,
                         "has %u classes, the training set has %u", dataset_class_count(test),
                         count);
    }
    for (uint32_t i = 0; i < count; i++) {
        const char *wanted = dataset_class_name(train, i), *found = dataset_class_name(test, i);
        if (strcmp(wanted, found) != 0) {
            return error_set(error, STATUS_INVALID, dataset_directory(test), NOWHERE, NOWHERE,
                             "class %u is '%s', in the training set it is '%s': convert both from "
                             "folders with the same classes",
                             i, found, wanted);
        }
    }
    return STATUS_OK;
}
