// Linear evaluation: a classifier trained on frozen features, by the reference's protocol or on
// features computed once.
#include "trainer/probe/classifier.h"
#include "trainer/probe/encoder.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/order.h"
#include "trainer/optim/schedule.h"

#define HELD_OUT_SEED UINT64_C(10009) // the same images whatever the evaluation's seed

void linear_config_init(struct linear_config *config)
{
    *config = (struct linear_config){
        .epochs = 80, .batch = 1024, .learning_rates = {0.2}, .rate_count = 1};
}

void linear_config_sweep(struct linear_config *config)
{
    static const double paper[] = {0.4, 0.3, 0.2, 0.1, 0.05};
    memcpy(config->learning_rates, paper, sizeof paper);
    config->rate_count = sizeof paper / sizeof paper[0];
}

// At random, so that the part has the classes of the whole.
uint64_t linear_hold_out(uint8_t *marks, uint64_t count)
{
    uint64_t tenth = count / 10, held_out = tenth < 10009 ? tenth : 10009;
    struct order order;
    order_init(&order, count, HELD_OUT_SEED, 0, true);
    for (uint64_t i = 0; marks && i < count; i++) {
        marks[order_at(&order, i)] = i < held_out;
    }
    return held_out;
}

// A classifier in the making.
struct trial {
    struct classifier classifier;
    double base_learning_rate;
    bool diverged;
    struct classifier_counts last_epoch;
};

// One evaluation in progress.
struct evaluation {
    struct encoder *encoder;
    const struct dataset *train;
    const struct linear_config *config;
    const struct probe_options *options;
    struct trial trials[LINEAR_MAX_RATES];
    uint32_t trial_count; // opened so far
    uint32_t batch;
    uint64_t steps_per_epoch, total;
    uint64_t step;
    uint64_t held_out;
    uint8_t *is_held_out;      // [images of train], NULL when none is
    struct features held_back; // the held-out images' features, once they are known
    float *embeddings;         // [batch][width]: the rows of a step
    int32_t *labels;           // [batch]
};

// --- steps -----------------------------------------------------------------------------------

static enum status diverged(uint64_t step, struct error *error)
{
    return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                     "the linear classifier diverged in step %llu: lower its learning rate",
                     (unsigned long long)step);
}

static enum status update_trial(struct evaluation *evaluation, struct trial *trial, uint32_t rows,
                                struct error *error)
{
    uint64_t step = evaluation->step;
    float rate = schedule_learning_rate(step, (float)trial->base_learning_rate, evaluation->batch,
                                        0, evaluation->total);
    bool last = step >= evaluation->total - evaluation->steps_per_epoch;
    float loss;
    enum status status =
        classifier_step(&trial->classifier, evaluation->embeddings, evaluation->labels, rows, rate,
                        &loss, last ? &trial->last_epoch : NULL, error);
    trial->diverged = status == STATUS_OK && !isfinite(loss);
    return status;
}

// Updates every classifier on the first `rows` of `embeddings` and `labels`. One that diverges is
// out; only when all are out there is no result.
static enum status take_step(struct evaluation *evaluation, uint32_t rows, struct error *error)
{
    enum status status = STATUS_OK;
    uint32_t alive = 0;
    for (uint32_t i = 0; status == STATUS_OK && i < evaluation->trial_count; i++) {
        struct trial *trial = &evaluation->trials[i];
        if (!trial->diverged && rows > 0) {
            status = update_trial(evaluation, trial, rows, error);
        }
        alive += !trial->diverged;
    }
    if (status == STATUS_OK && alive == 0) {
        return diverged(evaluation->step, error);
    }
    evaluation->step++;
    if (status == STATUS_OK && evaluation->options->progress) {
        evaluation->options->progress(evaluation->options->context, "linear", evaluation->step,
                                      evaluation->total);
    }
    return status;
}

static bool is_held_out(const struct evaluation *evaluation, uint64_t record)
{
    return evaluation->is_held_out && evaluation->is_held_out[record];
}

static enum status train_on_features(struct evaluation *evaluation, const struct features *features,
                                     struct error *error)
{
    enum status status = STATUS_OK;
    uint32_t width = features->width;
    while (status == STATUS_OK && evaluation->step < evaluation->total) {
        uint64_t epoch = evaluation->step / evaluation->steps_per_epoch;
        uint64_t first = evaluation->step % evaluation->steps_per_epoch * evaluation->batch;
        uint32_t rows = 0;
        struct order order;
        order_init(&order, features->count, evaluation->config->seed, (uint32_t)epoch, true);
        for (uint32_t i = 0; i < evaluation->batch; i++) {
            uint64_t record = order_at(&order, first + i);
            if (!is_held_out(evaluation, record)) {
                memcpy(evaluation->embeddings + (size_t)rows * width,
                       features->values + record * width, width * sizeof(float));
                evaluation->labels[rows++] = features->labels[record];
            }
        }
        status = take_step(evaluation, rows, error);
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
    }
    if (status == STATUS_OK && evaluation->is_held_out) {
        features_keep(&features, evaluation->is_held_out);
        evaluation->held_back = features;
    } else {
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

// Takes a chunk's rows that are not held out after the `rows` that are there.
static enum status take_chunk(struct evaluation *evaluation, const struct batch *batch,
                              uint32_t *rows, struct error *error)
{
    size_t width = evaluation->encoder->width;
    float *embeddings = evaluation->embeddings + *rows * width;
    uint32_t kept = 0;
    enum status status =
        encoder_embed(evaluation->encoder, embeddings, batch->view[0], batch->count, error);
    for (uint32_t i = 0; status == STATUS_OK && i < batch->count; i++) {
        if (!is_held_out(evaluation, batch->records[i])) {
            memmove(embeddings + kept * width, embeddings + i * width, width * sizeof(float));
            evaluation->labels[*rows + kept++] = batch->labels[i];
        }
    }
    *rows += kept;
    return status;
}

// Embeds the epoch's next views into `embeddings` until a step's images have passed. Chunks past
// the last whole step of an epoch are passed over.
static enum status gather_views(struct evaluation *evaluation, struct loader *loader,
                                uint32_t *rows, struct error *error)
{
    enum status status = STATUS_OK;
    *rows = 0;
    for (uint32_t passed = 0; status == STATUS_OK && passed < evaluation->batch;) {
        const struct batch *batch;
        status = loader_next(loader, &batch, error);
        if (status != STATUS_OK) {
            break;
        }
        uint64_t whole = evaluation->steps_per_epoch * evaluation->batch / batch->count;
        if (batch->position.batch < whole) {
            status = take_chunk(evaluation, batch, rows, error);
            passed += batch->count;
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
        uint32_t rows;
        status = gather_views(evaluation, loader, &rows, error);
        if (status == STATUS_OK) {
            status = take_step(evaluation, rows, error);
        }
    }
    loader_close(&loader);
    if (status == STATUS_OK && evaluation->is_held_out) {
        status =
            features_extract_some(&evaluation->held_back, evaluation->encoder, evaluation->train,
                                  evaluation->is_held_out, evaluation->options, error);
    }
    return status;
}

// --- a whole score ---------------------------------------------------------------------------

static enum status classify(struct evaluation *evaluation, struct trial *trial,
                            const struct features *features, struct classifier_counts *counts,
                            struct error *error)
{
    enum status status = STATUS_OK;
    *counts = (struct classifier_counts){0};
    for (uint64_t at = 0; status == STATUS_OK && at < features->count;) {
        uint64_t left = features->count - at;
        uint32_t rows = left < evaluation->batch ? (uint32_t)left : evaluation->batch;
        status = classifier_evaluate(&trial->classifier, features->values + at * features->width,
                                     features->labels + at, rows, counts, error);
        at += rows;
    }
    return status;
}

static double percent(uint64_t part, uint64_t whole)
{
    return 100 * (double)part / (double)whole;
}

static enum status score_trial(struct evaluation *evaluation, struct trial *trial,
                               const struct features *test, struct linear_trial *result,
                               uint64_t *count, struct error *error)
{
    struct classifier_counts held_out = {0}, counts = {0};
    *result = (struct linear_trial){.learning_rate = trial->base_learning_rate,
                                    .diverged = trial->diverged};
    if (trial->diverged) {
        return STATUS_OK;
    }
    enum status status = classify(evaluation, trial, &evaluation->held_back, &held_out, error);
    if (status == STATUS_OK) {
        status = classify(evaluation, trial, test, &counts, error);
    }
    *count = counts.rows;
    result->held_out_top1 = held_out.rows > 0 ? percent(held_out.top1, held_out.rows) : 0;
    result->train_top1 = percent(trial->last_epoch.top1, trial->last_epoch.rows);
    result->top1 = percent(counts.top1, counts.rows);
    result->top5 = percent(counts.top5, counts.rows);
    return status;
}

// The result is the trial that is best on the held-out images; among equals the first.
static void choose_best(struct probe_score *score)
{
    const struct linear_trial *best = NULL;
    for (uint32_t i = 0; i < score->trial_count; i++) {
        const struct linear_trial *trial = &score->trials[i];
        if (!trial->diverged && (best == NULL || trial->held_out_top1 > best->held_out_top1)) {
            best = trial;
        }
    }
    assert(best); // take_step goes on only while one is alive
    score->top1 = best->top1;
    score->top5 = best->top5;
    score->train_top1 = best->train_top1;
    score->learning_rate = best->learning_rate;
}

static enum status score_test(struct evaluation *evaluation, const struct dataset *test,
                              struct probe_score *score, struct error *error)
{
    struct features features;
    enum status status =
        features_extract(&features, evaluation->encoder, test, evaluation->options, error);
    if (status != STATUS_OK) {
        return status;
    }
    for (uint32_t i = 0; status == STATUS_OK && i < evaluation->trial_count; i++) {
        status = score_trial(evaluation, &evaluation->trials[i], &features, &score->trials[i],
                             &score->count, error);
    }
    features_free(&features);
    score->trial_count = evaluation->trial_count;
    score->held_out = evaluation->held_out;
    if (status == STATUS_OK) {
        choose_best(score);
    }
    return status;
}

static enum status check_rates(const struct linear_config *config, struct error *error)
{
    bool fits = config->rate_count >= 1 && config->rate_count <= LINEAR_MAX_RATES;
    for (uint32_t i = 0; fits && i < config->rate_count; i++) {
        fits = config->learning_rates[i] > 0;
    }
    return fits ? STATUS_OK
                : error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                            "wants 1 to %d learning rates, each above 0", LINEAR_MAX_RATES);
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
    if (config->epochs < 1 || config->batch < 1 || config->batch > 65536) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "epochs and batch (at most 65536) must be above 0");
    }
    if (config->rate_count > 1 && linear_hold_out(NULL, dataset_count(train)) == 0) {
        return error_set(error, STATUS_INVALID, dataset_directory(train), NOWHERE, NOWHERE,
                         "too few images to hold some out and choose a learning rate by them");
    }
    return check_rates(config, error);
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

static enum status hold_out(struct evaluation *evaluation, struct error *error)
{
    uint64_t count = dataset_count(evaluation->train);
    evaluation->is_held_out = malloc(count);
    if (evaluation->is_held_out == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a table of held-out images");
    }
    evaluation->held_out = linear_hold_out(evaluation->is_held_out, count);
    return STATUS_OK;
}

static enum status open_trials(struct evaluation *evaluation, struct error *error)
{
    enum status status = STATUS_OK;
    while (status == STATUS_OK && evaluation->trial_count < evaluation->config->rate_count) {
        struct trial *trial = &evaluation->trials[evaluation->trial_count];
        trial->base_learning_rate = evaluation->config->learning_rates[evaluation->trial_count];
        status = classifier_open(&trial->classifier, evaluation->encoder->device,
                                 evaluation->encoder->width, dataset_class_count(evaluation->train),
                                 evaluation->batch, error);
        evaluation->trial_count += status == STATUS_OK;
    }
    return status;
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
    enum status status =
        evaluation->config->rate_count > 1 ? hold_out(evaluation, error) : STATUS_OK;
    return status == STATUS_OK ? open_trials(evaluation, error) : status;
}

static void evaluation_close(struct evaluation *evaluation)
{
    for (uint32_t i = 0; i < evaluation->trial_count; i++) {
        classifier_close(&evaluation->trials[i].classifier);
    }
    features_free(&evaluation->held_back);
    free(evaluation->is_held_out);
    free(evaluation->embeddings);
    free(evaluation->labels);
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
        status = score_test(&evaluation, test, score, error);
    }
    evaluation_close(&evaluation);
    return status;
}
