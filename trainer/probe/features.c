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
    free(features->projections);
    free(features->labels);
    free(features->records);
    *features = (struct features){0};
}

static void keep_rows(void *values, size_t row, uint64_t count, const uint8_t *chosen)
{
    uint64_t kept = 0;
    for (uint64_t i = 0; values != NULL && i < count; i++) {
        if (chosen[i]) {
            memmove((char *)values + kept++ * row, (char *)values + i * row, row);
        }
    }
}

void features_keep(struct features *features, const uint8_t *chosen)
{
    uint64_t kept = 0;
    for (uint64_t i = 0; i < features->count; i++) {
        kept += chosen[i] != 0;
    }
    keep_rows(features->values, features->width * sizeof(float), features->count, chosen);
    keep_rows(features->projections, features->projection_width * sizeof(float), features->count,
              chosen);
    keep_rows(features->labels, sizeof(int32_t), features->count, chosen);
    keep_rows(features->records, sizeof(uint64_t), features->count, chosen);
    features->count = kept;
}

static enum status allocate(struct features *features, const struct encoder *encoder,
                            const struct dataset *dataset, uint64_t count, struct error *error)
{
    *features = (struct features){.count = count,
                                  .width = encoder->width,
                                  .projection_width = encoder->projection_width,
                                  .classes = dataset_class_count(dataset)};
    features->values = malloc(count * features->width * sizeof *features->values);
    features->labels = malloc(count * sizeof *features->labels);
    features->records = malloc(count * sizeof *features->records);
    if (features->projection_width > 0) {
        features->projections =
            malloc(count * features->projection_width * sizeof *features->projections);
    }
    if (features->values == NULL || features->labels == NULL || features->records == NULL ||
        (features->projection_width > 0 && features->projections == NULL)) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for %llu features of width %u", (unsigned long long)count,
                         features->width);
    }
    return STATUS_OK;
}

static enum status embed_rows(struct features *features, uint64_t at, struct encoder *encoder,
                              const float *images, uint32_t rows, struct error *error)
{
    enum status status =
        encoder_embed(encoder, features->values + at * features->width, images, rows, error);
    return status == STATUS_OK && features->projections
               ? encoder_project(encoder, features->projections + at * features->projection_width,
                                 rows, error)
               : status;
}

// --- streams of views ------------------------------------------------------------------------

// What is embedded: `count` records' views as the loader delivers them.
struct stream {
    struct encoder *encoder;
    const struct dataset *dataset;
    const struct probe_options *options;
    struct loader_config config;
    struct loader *loader;
    unsigned views;
    uint64_t count;
};

static void show(const struct stream *stream, uint64_t done)
{
    if (stream->options->progress) {
        stream->options->progress(stream->options->context, "embedding", done, stream->count);
    }
}

// The encoder is ready and the loader open; the recipe is in `config` already.
static enum status stream_open(struct stream *stream, struct error *error)
{
    uint64_t count = dataset_count(stream->dataset);
    stream->config.batch =
        count < stream->options->batch ? (uint32_t)count : stream->options->batch;
    stream->config.keep_last = true;
    stream->config.epochs = 1;
    enum status status = encoder_plan(stream->encoder, stream->config.batch, error);
    return status == STATUS_OK ? encoder_loader(&stream->loader, stream->encoder, stream->dataset,
                                                stream->options, &stream->config, error)
                               : status;
}

static enum status embed_batch(struct stream *stream, struct features *out, uint64_t done,
                               const struct batch *batch, uint32_t rows, struct error *error)
{
    enum status status = STATUS_OK;
    for (unsigned v = 0; status == STATUS_OK && v < stream->views; v++) {
        status = embed_rows(&out[v], done, stream->encoder, batch->view[v], rows, error);
        memcpy(out[v].labels + done, batch->labels, rows * sizeof(int32_t));
        memcpy(out[v].records + done, batch->records, rows * sizeof(uint64_t));
    }
    return status;
}

static enum status embed_all(struct stream *stream, struct features *out, struct error *error)
{
    enum status status = STATUS_OK;
    for (uint64_t done = 0; status == STATUS_OK && done < stream->count;) {
        const struct batch *batch;
        status = loader_next(stream->loader, &batch, error);
        if (status != STATUS_OK) {
            break;
        }
        uint64_t left = stream->count - done;
        uint32_t rows = batch->count < left ? batch->count : (uint32_t)left;
        status = embed_batch(stream, out, done, batch, rows, error);
        loader_release(stream->loader, batch);
        done += rows;
        show(stream, done);
    }
    return status;
}

static enum status features_of(struct stream *stream, struct features *out, struct error *error)
{
    enum status status = stream_open(stream, error);
    for (unsigned v = 0; status == STATUS_OK && v < stream->views; v++) {
        status = allocate(&out[v], stream->encoder, stream->dataset, stream->count, error);
    }
    if (status == STATUS_OK) {
        status = embed_all(stream, out, error);
    }
    loader_close(&stream->loader);
    for (unsigned v = 0; status != STATUS_OK && v < stream->views; v++) {
        features_free(&out[v]);
    }
    return status;
}

static struct stream stream_of(struct encoder *encoder, const struct dataset *dataset,
                               const struct probe_options *options)
{
    struct stream stream = {.encoder = encoder,
                            .dataset = dataset,
                            .options = options,
                            .views = 1,
                            .count = dataset_count(dataset)};
    loader_config_init(&stream.config);
    stream.config.shuffle = false;
    return stream;
}

// Evaluation views in dataset order.
static enum status prepare(struct stream *stream, struct error *error)
{
    enum status status =
        encoder_fill_statistics(stream->encoder, stream->dataset, stream->options, error);
    return status == STATUS_OK
               ? encoder_recipe(stream->encoder, "eval", &stream->config.recipe, error)
               : status;
}

enum status features_extract(struct features *out, struct encoder *encoder,
                             const struct dataset *dataset, const struct probe_options *options,
                             struct error *error)
{
    *out = (struct features){0};
    struct stream stream = stream_of(encoder, dataset, options);
    enum status status = prepare(&stream, error);
    return status == STATUS_OK ? features_of(&stream, out, error) : status;
}

enum status features_sample(struct features *out, unsigned views, struct encoder *encoder,
                            const struct dataset *dataset, uint64_t limit, uint64_t seed,
                            const struct probe_options *options, struct error *error)
{
    memset(out, 0, views * sizeof *out);
    if (views > 1 && encoder->config.recipe.views < views) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "the run's recipe draws %lld view of an image, a pair is needed",
                         (long long)encoder->config.recipe.views);
    }
    struct stream stream = stream_of(encoder, dataset, options);
    enum status status = prepare(&stream, error);
    if (views > 1) {
        stream.config.recipe = encoder->config.recipe;
    }
    stream.config.shuffle = true;
    stream.config.seed = seed;
    stream.views = views;
    stream.count = stream.count < limit ? stream.count : limit;
    return status == STATUS_OK ? features_of(&stream, out, error) : status;
}

// --- chosen records --------------------------------------------------------------------------

// Collects the chosen images of many batches, so that the encoder runs on full ones.
static enum status embed_chosen(struct stream *stream, struct features *out, const uint8_t *chosen,
                                float *images, struct error *error)
{
    size_t image = (size_t)encoder_size(stream->encoder) * encoder_size(stream->encoder) * 3;
    uint64_t done = 0, passed = 0;
    uint32_t waiting = 0;
    enum status status = STATUS_OK;
    while (status == STATUS_OK && done + waiting < out->count) {
        const struct batch *batch;
        status = loader_next(stream->loader, &batch, error);
        if (status != STATUS_OK) {
            break;
        }
        for (uint32_t i = 0; status == STATUS_OK && i < batch->count; i++) {
            if (chosen[passed++]) {
                memcpy(images + waiting * image, batch->view[0] + i * image, image * sizeof(float));
                out->records[done + waiting] = batch->records[i];
                out->labels[done + waiting++] = batch->labels[i];
            }
            if (waiting == stream->config.batch || (waiting > 0 && done + waiting == out->count)) {
                status = embed_rows(out, done, stream->encoder, images, waiting, error);
                done += waiting;
                waiting = 0;
            }
        }
        loader_release(stream->loader, batch);
        show(stream, done);
    }
    return status;
}

enum status features_extract_some(struct features *out, struct encoder *encoder,
                                  const struct dataset *dataset, const uint8_t *chosen,
                                  const struct probe_options *options, struct error *error)
{
    *out = (struct features){0};
    struct stream stream = stream_of(encoder, dataset, options);
    uint64_t count = 0;
    for (uint64_t i = 0; i < stream.count; i++) {
        count += chosen[i] != 0;
    }
    if (count == 0) {
        return STATUS_OK;
    }
    stream.count = count;
    enum status status = prepare(&stream, error);
    if (status == STATUS_OK) {
        status = stream_open(&stream, error);
    }
    size_t image = (size_t)encoder_size(encoder) * encoder_size(encoder) * 3;
    float *images = malloc(stream.config.batch * image * sizeof *images);
    if (status == STATUS_OK && images == NULL) {
        status = error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                           "no memory for a batch of images");
    } else if (status == STATUS_OK) {
        status = allocate(out, encoder, dataset, count, error);
        if (status == STATUS_OK) {
            status = embed_chosen(&stream, out, chosen, images, error);
        }
    }
    free(images);
    loader_close(&stream.loader);
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
