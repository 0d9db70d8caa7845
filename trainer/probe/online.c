// The same images, embedded by one checkpoint after the other.
#include "trainer/probe/online.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/probe/encoder.h"

#define DRAW_SEED 0x70726f6265u // which images; not the run's, so that runs can be compared

struct online {
    struct online_config config;
    struct dataset *data, *test; // `test` NULL: both from `data`
};

// --- opening ---------------------------------------------------------------------------------

static enum status refuse(const struct dataset *dataset, const char *why, struct error *error)
{
    return error_set(error, STATUS_CONFIG, dataset_directory(dataset), NOWHERE, NOWHERE,
                     "cannot be the probe: %s", why);
}

static enum status check_pair(const struct online *online, uint64_t training, struct error *error)
{
    uint64_t test = dataset_id(online->test);
    if (test == training) {
        return refuse(online->test, "its images are learnt from; give others as probe_test", error);
    }
    if (test == dataset_id(online->data)) {
        return refuse(online->test,
                      "probe and probe_test are the same images; leave probe_test out to have one "
                      "dataset divided",
                      error);
    }
    struct error mistake;
    return probe_check_classes(online->data, online->test, &mistake) == STATUS_OK
               ? STATUS_OK
               : error_set(error, STATUS_CONFIG, mistake.path, NOWHERE, NOWHERE, "%s",
                           mistake.reason);
}

static enum status check(const struct online *online, uint64_t training, struct error *error)
{
    if (dataset_class_count(online->data) == 0) {
        return refuse(online->data, "it has no labels", error);
    }
    if (online->test != NULL) {
        return check_pair(online, training, error);
    }
    if (dataset_id(online->data) == training) {
        return refuse(online->data,
                      "its images are learnt from; they may vote when others are given as "
                      "probe_test",
                      error);
    }
    return dataset_count(online->data) >= 2 ? STATUS_OK
                                            : refuse(online->data, "it has one image", error);
}

enum status online_open(struct online **out, const struct online_config *config, uint64_t training,
                        struct error *error)
{
    struct online *online = *out = calloc(1, sizeof *online);
    if (online == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for a probe");
    }
    online->config = *config;
    enum status status = dataset_open(&online->data, config->data, error);
    if (status == STATUS_OK && config->test != NULL) {
        status = dataset_open(&online->test, config->test, error);
    }
    if (status == STATUS_OK) {
        status = check(online, training, error);
    }
    if (status != STATUS_OK) {
        online_close(out);
    }
    return status;
}

void online_close(struct online **online)
{
    if (*online != NULL) {
        dataset_close(&(*online)->data);
        dataset_close(&(*online)->test);
        free(*online);
        *online = NULL;
    }
}

// --- measuring -------------------------------------------------------------------------------

// The test images of a dataset that has to give both.
static uint64_t share_of_images(const struct online *online)
{
    const struct online_config *config = &online->config;
    uint64_t count = dataset_count(online->data), wanted = config->bank + config->images;
    if (count >= wanted) {
        return config->images;
    }
    uint64_t share = (uint64_t)((double)count * (double)config->images / (double)wanted);
    return share < 1 ? 1 : share;
}

// Rows from `first` on, of memory that stays with `whole`.
static struct features rows_of(const struct features *whole, uint64_t first, uint64_t count)
{
    struct features rows = *whole;
    rows.count = count;
    rows.values += first * whole->width;
    rows.labels += first;
    rows.records += first;
    if (whole->projections != NULL) {
        rows.projections += first * whole->projection_width;
    }
    return rows;
}

static enum status measure_rank(const struct online *online, const struct features *bank,
                                struct online_score *out, struct error *error)
{
    out->rankme = out->rankme_projections = NAN;
    if (!online->config.rank) {
        return STATUS_OK;
    }
    out->width = bank->width;
    out->projection_width = bank->projection_width;
    enum status status = quality_rank(&out->rankme, bank->values, bank->count, bank->width, error);
    return status == STATUS_OK && bank->projections != NULL
               ? quality_rank(&out->rankme_projections, bank->projections, bank->count,
                              bank->projection_width, error)
               : status;
}

static enum status score(const struct online *online, const struct features *bank,
                         const struct features *images, struct online_score *out,
                         struct error *error)
{
    struct probe_score knn;
    enum status status = knn_score(bank, images, &knn_conventions[0].config, &knn, error);
    if (status != STATUS_OK) {
        return status;
    }
    *out = (struct online_score){.knn_top1 = knn.top1 / 100,
                                 .knn_top5 = knn.top5 / 100,
                                 .bank = bank->count,
                                 .images = knn.count};
    return measure_rank(online, bank, out, error);
}

static enum status measure_one(const struct online *online, struct encoder *encoder,
                               const struct probe_options *options, struct online_score *out,
                               struct error *error)
{
    struct features all;
    uint64_t images = share_of_images(online), most = images + online->config.bank;
    enum status status =
        features_sample(&all, 1, encoder, online->data, most, DRAW_SEED, options, error);
    if (status != STATUS_OK) {
        return status;
    }
    const struct features test = rows_of(&all, 0, images),
                          bank = rows_of(&all, images, all.count - images);
    status = score(online, &bank, &test, out, error);
    features_free(&all);
    return status;
}

static enum status measure_two(const struct online *online, struct encoder *encoder,
                               const struct probe_options *options, struct online_score *out,
                               struct error *error)
{
    struct features bank = {0}, test = {0};
    enum status status = features_sample(&bank, 1, encoder, online->data, online->config.bank,
                                         DRAW_SEED, options, error);
    if (status == STATUS_OK) {
        status = features_sample(&test, 1, encoder, online->test, online->config.images, DRAW_SEED,
                                 options, error);
    }
    if (status == STATUS_OK) {
        status = score(online, &bank, &test, out, error);
    }
    features_free(&bank);
    features_free(&test);
    return status;
}

enum status online_measure(struct online *online, const char *checkpoint, const char *device,
                           struct online_score *out, struct error *error)
{
    struct encoder *encoder;
    struct probe_options options;
    probe_options_init(&options);
    options.threads = online->config.threads;
    options.loader_threads = online->config.loader_threads;
    enum status status = encoder_open(&encoder, checkpoint, device, options.threads, false, error);
    if (status == STATUS_OK && online->config.rank && encoder_has_projector(encoder)) {
        status = encoder_with_projections(encoder, error);
    }
    if (status == STATUS_OK) {
        status = online->test ? measure_two(online, encoder, &options, out, error)
                              : measure_one(online, encoder, &options, out, error);
    }
    encoder_close(&encoder);
    return status;
}
