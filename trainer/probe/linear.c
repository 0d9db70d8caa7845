// Linear evaluation: a classifier trained on frozen features, by the reference's protocol or on
// features computed once.
#include "trainer/probe/classifier.h"
#include "trainer/probe/encoder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/order.h"
#include "trainer/optim/schedule.h"

void linear_config_init(struct linear_config *config)
{
    *config = (struct linear_config){.epochs = 80, .batch = 1024, .base_learning_rate = 0.2};
}

// One evaluation in progress.
struct evaluation {
    struct encoder *encoder;
    const struct dataset *train;
    const struct linear_config *config;
    const struct probe_options *options;
    struct classifier classifier;
    uint32_t batch;
    uint64_t steps_per_epoch, total;
    uint64_t step;
    struct classifier_counts last_epoch;
    float *embeddings; // [batch][width]: the rows of a step
    int32_t *labels;   // [batch]
};

// --- steps -----------------------------------------------------------------------------------

// An update on the rows in `embeddings` and `labels`.
static enum status take_step(struct evaluation *evaluation, struct error *error)
{
    uint64_t step = evaluation->step;
    float rate = schedule_learning_rate(step, (float)evaluation->config->base_learning_rate,
                                        evaluation->batch, 0, evaluation->total);
    bool last = step >= evaluation->total - evaluation->steps_per_epoch;
    float loss;
    enum status status = classifier_step(&evaluation->classifier, evaluation->embeddings,
                                         evaluation->labels, evaluation->batch, rate, &loss,
                                         last ? &evaluation->last_epoch : NULL, error);
    if (status == STATUS_OK && !isfinite(loss)) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "the linear classifier diverged in step %llu: lower its learning rate",
                         (unsigned long long)step);
    }
    evaluation->step++;
    if (status == STATUS_OK && evaluation->options->progress) {
        evaluation->options->progress(evaluation->options->context, "linear", evaluation->step,
                                      evaluation->total);
    }
    return status;
}

static enum status train_on_features(struct evaluation *evaluation, const struct features *features,
                                     struct error *error)
{
    enum status status = STATUS_OK;
    uint32_t width = features->width;
    while (status == STATUS_OK && evaluation->step < evaluation->total) {
        uint64_t epoch = evaluation->step / evaluation->steps_per_epoch;
        uint64_t first = evaluation->step % evaluation->steps_per_epoch * evaluation->batch;
        struct order order;
        order_init(&order, features->count, evaluation->config->seed, (uint32_t)epoch, true);
        for (uint32_t i = 0; i < evaluation->batch; i++) {
            uint64_t record = order_at(&order, first + i);
            memcpy(evaluation->embeddings + (size_t)i * width, features->values + record * width,
                   width * sizeof(float));
            evaluation->labels[i] = features->labels[record];
        }
        status = take_step(evaluation, error);
    }
    return status;
}

static enum status train_cached(struct evaluation *evaluation, struct error *error)
{
    struct features features;
    enum status status = features_extract(&features, evaluation->encoder, evaluation->train,
                                          evaluation->options, error);
    if (status == STATUS_OK) {
        status = train_on_features(evaluation, &features, error);
        features_free(&features);
    }
    return status;
}

// The largest part of a step, of at most `limit` rows, that divides it: what the loader delivers at
// a time.
static uint32_t chunk_of(uint32_t batch, uint32_t limit)
{
    uint32_t chunk = batch < limit ? batch : limit;
    while (batch % chunk != 0) {
        chunk--;
    }
    return chunk;
}

// Embeds the epoch's next views into `embeddings` until a step's rows are complete. Chunks past the
// last whole step of an epoch are passed over.
static enum status gather_views(struct evaluation *evaluation, struct loader *loader,
                                struct error *error)
{
    enum status status = STATUS_OK;
    uint32_t filled = 0;
    while (status == STATUS_OK && filled < evaluation->batch) {
        const struct batch *batch;
        status = loader_next(loader, &batch, error);
        if (status != STATUS_OK) {
            break;
        }
        uint64_t whole = evaluation->steps_per_epoch * evaluation->batch / batch->count;
        if (batch->position.batch < whole) {
            status = encoder_embed(evaluation->encoder,
                                   evaluation->embeddings +
                                       (size_t)filled * evaluation->classifier.width,
                                   batch->view[0], batch->count, error);
            memcpy(evaluation->labels + filled, batch->labels, batch->count * sizeof(int32_t));
            filled += batch->count;
        }
        loader_release(loader, batch);
    }
    return status;
}

static enum status train_on_views(struct evaluation *evaluation, struct error *error)
{
    struct loader *loader = NULL;
    struct loader_config config;
    loader_config_init(&config);
    config.batch = chunk_of(evaluation->batch, evaluation->options->batch);
    config.seed = evaluation->config->seed;
    enum status status = encoder_recipe(evaluation->encoder, "linear-train", &config.recipe, error);
    if (status == STATUS_OK) {
        status = encoder_fill_statistics(evaluation->encoder, evaluation->train,
                                         evaluation->options, error);
    }
    if (status == STATUS_OK) {
        status = encoder_plan(evaluation->encoder, config.batch, error);
    }
    if (status == STATUS_OK) {
        status = encoder_loader(&loader, evaluation->encoder, evaluation->train,
                                evaluation->options, &config, error);
    }
    while (status == STATUS_OK && evaluation->step < evaluation->total) {
        status = gather_views(evaluation, loader, error);
        if (status == STATUS_OK) {
            status = take_step(evaluation, error);
        }
    }
    loader_close(&loader);
    return status;
}

// --- a whole score ---------------------------------------------------------------------------

static enum status classify_test(struct evaluation *evaluation, const struct dataset *test,
                                 struct probe_score *score, struct error *error)
{
    struct features features;
    struct classifier_counts counts = {0};
    enum status status =
        features_extract(&features, evaluation->encoder, test, evaluation->options, error);
    if (status != STATUS_OK) {
        return status;
    }
    for (uint64_t at = 0; status == STATUS_OK && at < features.count;) {
        uint64_t left = features.count - at;
        uint32_t rows = left < evaluation->batch ? (uint32_t)left : evaluation->batch;
        status = classifier_evaluate(&evaluation->classifier, features.values + at * features.width,
                                     features.labels + at, rows, &counts, error);
        at += rows;
    }
    features_free(&features);
    score->count = counts.rows;
    score->top1 = 100 * (double)counts.top1 / (double)counts.rows;
    score->top5 = 100 * (double)counts.top5 / (double)counts.rows;
    score->train_top1 =
        100 * (double)evaluation->last_epoch.top1 / (double)evaluation->last_epoch.rows;
    score->learning_rate = evaluation->config->base_learning_rate;
    return status;
}

static enum status check(const struct dataset *train, const struct dataset *test,
                         const struct linear_config *config, struct error *error)
{
    if (dataset_class_count(train) == 0 || dataset_count(test) == 0) {
        return error_set(error, STATUS_INVALID, dataset_directory(train), NOWHERE, NOWHERE,
                         "linear evaluation needs labelled images for training and testing");
    }
    enum status status = probe_check_classes(train, test, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (config->epochs < 1 || config->batch < 1 || config->batch > 65536 ||
        !(config->base_learning_rate > 0)) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "epochs, batch (at most 65536) and learning rate must be above 0");
    }
    return STATUS_OK;
}

// A small dataset makes the batch smaller; where it can it stays a multiple of `chunk`, which
// chunk_of then finds.
static uint32_t batch_that_fits(uint32_t batch, uint64_t count, uint32_t chunk)
{
    if (batch <= count) {
        return batch;
    }
    return (uint32_t)(count >= chunk ? count - count % chunk : count);
}

static enum status evaluation_open(struct evaluation *evaluation, struct error *error)
{
    uint64_t count = dataset_count(evaluation->train);
    evaluation->batch =
        batch_that_fits((uint32_t)evaluation->config->batch, count, evaluation->options->batch);
    evaluation->steps_per_epoch = count / evaluation->batch;
    evaluation->total = evaluation->steps_per_epoch * (uint64_t)evaluation->config->epochs;
    evaluation->labels = malloc(evaluation->batch * sizeof *evaluation->labels);
    evaluation->embeddings =
        malloc((size_t)evaluation->batch * evaluation->encoder->width * sizeof(float));
    if (evaluation->labels == NULL || evaluation->embeddings == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a batch of %u embeddings", evaluation->batch);
    }
    return classifier_open(&evaluation->classifier, evaluation->encoder->device,
                           evaluation->encoder->width, dataset_class_count(evaluation->train),
                           evaluation->batch, error);
}

enum status linear_score(struct encoder *encoder, const struct dataset *train,
                         const struct dataset *test, const struct linear_config *config,
                         const struct probe_options *options, struct probe_score *score,
                         struct error *error)
{
    *score = (struct probe_score){0};
    enum status status = check(train, test, config, error);
    if (status != STATUS_OK) {
        return status;
    }
    struct evaluation evaluation = {
        .encoder = encoder, .train = train, .config = config, .options = options};
    status = evaluation_open(&evaluation, error);
    if (status == STATUS_OK) {
        status =
            config->cached ? train_cached(&evaluation, error) : train_on_views(&evaluation, error);
    }
    if (status == STATUS_OK) {
        status = classify_test(&evaluation, test, score, error);
    }
    classifier_close(&evaluation.classifier);
    free(evaluation.embeddings);
    free(evaluation.labels);
    return status;
}
