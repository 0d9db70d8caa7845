// Loaders of the public interface: options in, batches out, who holds which.
#include "pipeline/api/api.h"
#include "pipeline/loader.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static_assert(sizeof(struct byol_rest) == VIEW_RECORD_BYTES &&
                  offsetof(struct byol_rest, taps) == offsetof(struct view_record, taps) &&
                  offsetof(struct byol_rest, threshold) == offsetof(struct view_record, threshold),
              "what remains of a view is handed out as it is");

enum holding { FREE, OUT, LEAVING };

// A batch as the caller sees it, and the one it stands for.
struct lent {
    struct byol_batch batch;
    const struct batch *inner;
    _Atomic(enum holding) holding;
};

struct byol_loader {
    struct byol_dataset *dataset;
    struct loader *loader; // NULL when it could not be opened again: `broken`
    struct loader_config config;
    struct loader_position position; // of the next batch
    struct lent *lent;               // [config.slots]
    struct error broken;
};

// --- options -------------------------------------------------------------------------------------

static struct byol_loader_options defaults(void)
{
    return (struct byol_loader_options){.size = sizeof(struct byol_loader_options),
                                        .recipe = "byol",
                                        .batch = 64,
                                        .slots = 3,
                                        .shuffle = 1,
                                        .deviation = {1, 1, 1},
                                        .cache = UINT64_C(96) << 20,
                                        .depth = 64,
                                        .ranks = 1};
}

void byol_loader_options_init(struct byol_loader_options *options, size_t size)
{
    struct byol_loader_options known = defaults();
    memset(options, 0, size);
    memcpy(options, &known, size < sizeof known ? size : sizeof known);
    memcpy(options, &size, sizeof size); // the first member
}

// Options of an older caller end earlier; what a newer one has beyond ours must be unused.
static enum status take_options(const struct byol_loader_options *given,
                                struct byol_loader_options *options, struct error *error)
{
    *options = defaults();
    size_t size = given->size;
    bool known = size >= offsetof(struct byol_loader_options, seed) && size < 4096;
    for (size_t i = sizeof *options; known && i < size; i++) {
        known = ((const unsigned char *)given)[i] == 0;
    }
    if (!known) {
        return error_set(error, STATUS_VERSION, NULL, NOWHERE, NOWHERE,
                         "options of another version: byol_loader_options_init was not called, or "
                         "the program was compiled for a newer library than %s",
                         BYOL_VERSION);
    }
    memcpy(options, given, size < sizeof *options ? size : sizeof *options);
    return STATUS_OK;
}

static const char *complaint(const struct byol_loader_options *options)
{
    if (options->layout != BYOL_CHW && options->layout != BYOL_HWC) {
        return "the layout does not exist";
    }
    if (options->pixels != BYOL_FLOAT32 && options->pixels != BYOL_UINT8) {
        return "the kind of pixels does not exist";
    }
    for (int i = 0; i < 3; i++) {
        if (!(options->deviation[i] > 0) || !(options->mean[i] - options->mean[i] == 0)) {
            return "means must be finite, deviations above 0";
        }
    }
    return NULL;
}

static enum status make_config(const struct byol_loader_options *options,
                               struct loader_config *config, struct error *error)
{
    const char *reason = complaint(options);
    if (reason) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE, "%s", reason);
    }
    loader_config_init(config);
    config->output.layout = options->layout == BYOL_HWC ? VIEW_HWC : VIEW_CHW;
    memcpy(config->output.mean, options->mean, sizeof options->mean);
    memcpy(config->output.deviation, options->deviation, sizeof options->deviation);
    config->bytes = options->pixels == BYOL_UINT8;
    config->batch = options->batch;
    config->seed = options->seed;
    config->epochs = options->epochs;
    config->shuffle = options->shuffle != 0;
    config->keep_last = options->keep_last != 0;
    config->workers = options->threads;
    config->io = (enum loader_io)options->io;
    config->depth = options->depth;
    config->direct = options->direct != 0;
    config->cache = options->cache;
    config->slots = options->slots;
    config->policy = (enum loader_policy)options->policy;
    config->max_skips = options->max_skips;
    config->rank = options->rank;
    config->ranks = options->ranks;
    config->start = (struct loader_position){options->start.epoch, options->start.batch};
    return api_recipe(options->recipe, options->settings, &config->recipe, error);
}

// --- opening, going elsewhere, closing -----------------------------------------------------------

// Starts the stream at config.start.
static enum status start(struct byol_loader *loader, struct error *error)
{
    enum status status =
        loader_open(&loader->loader, loader->dataset->dataset, &loader->config, error);
    if (status == STATUS_OK) {
        loader->position = loader->config.start;
        if (loader->position.batch == loader_batches_per_epoch(loader->loader)) {
            loader->position = (struct loader_position){.epoch = loader->position.epoch + 1};
        }
    }
    return status;
}

static enum status build(struct byol_loader *loader, struct byol_dataset *dataset,
                         const struct byol_loader_options *given, struct error *error)
{
    struct byol_loader_options options;
    enum status status = api_prepare(error);
    if (status == STATUS_OK) {
        status = take_options(given, &options, error);
    }
    if (status == STATUS_OK) {
        status = make_config(&options, &loader->config, error);
    }
    if (status == STATUS_OK) {
        loader->dataset = api_dataset_share(dataset);
        status = start(loader, error); // checks the number of slots
    }
    if (status == STATUS_OK) {
        if (loader->config.slots > 0) {
            loader->lent = calloc(loader->config.slots, sizeof *loader->lent);
        }
        if (loader->lent == NULL) {
            status = error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                               "no memory for a loader");
        }
    }
    return status;
}

int byol_loader_open(struct byol_loader **out, struct byol_dataset *dataset,
                     const struct byol_loader_options *options, struct byol_error *public)
{
    struct error error;
    *out = calloc(1, sizeof **out);
    enum status status = *out ? build(*out, dataset, options, &error)
                              : error_set(&error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                                          "no memory for a loader");
    if (status != STATUS_OK) {
        byol_loader_close(out);
    }
    return api_status(status, &error, public);
}

void byol_loader_close(struct byol_loader **out)
{
    struct byol_loader *loader = *out;
    if (loader) {
        loader_close(&loader->loader);
        byol_dataset_close(&loader->dataset);
        free(loader->lent);
        free(loader);
    }
    *out = NULL;
}

static struct lent *find_free(struct byol_loader *loader)
{
    for (uint32_t i = 0; i < loader->config.slots; i++) {
        if (atomic_load(&loader->lent[i].holding) == FREE) {
            return &loader->lent[i];
        }
    }
    return NULL;
}

static uint32_t count_held(const struct byol_loader *loader)
{
    uint32_t held = 0;
    for (uint32_t i = 0; i < loader->config.slots; i++) {
        held += atomic_load(&loader->lent[i].holding) != FREE;
    }
    return held;
}

static enum status may_seek(const struct byol_loader *loader, struct byol_position position,
                            struct error *error)
{
    uint32_t held = count_held(loader);
    if (held > 0) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "%u batches are held; release them before going elsewhere", held);
    }
    uint64_t epoch = byol_loader_batches_per_epoch(loader);
    if (loader->loader && position.batch > epoch) {
        return error_set(error, STATUS_INVALID, dataset_directory(loader->dataset->dataset),
                         NOWHERE, NOWHERE, "there is no batch %llu in an epoch of %llu",
                         (unsigned long long)position.batch, (unsigned long long)epoch);
    }
    return STATUS_OK;
}

int byol_loader_seek(struct byol_loader *loader, struct byol_position position,
                     struct byol_error *public)
{
    struct error error = {0};
    enum status status = may_seek(loader, position, &error);
    if (status == STATUS_OK) {
        loader_close(&loader->loader);
        loader->config.start = (struct loader_position){position.epoch, position.batch};
        status = start(loader, &error);
        loader->broken = error; // read only where there is no loader
    }
    return api_status(status, &error, public);
}

// --- batches -------------------------------------------------------------------------------------

static void lend(struct lent *lent, const struct batch *batch)
{
    lent->inner = batch;
    lent->batch = (struct byol_batch){
        .position = {.epoch = batch->position.epoch, .batch = batch->position.batch},
        .count = batch->count,
        .size = batch->size,
        .labels = batch->labels,
        .records = batch->records};
    for (int view = 0; view < RECIPE_MAX_VIEWS; view++) {
        lent->batch.view[view] = batch->view[view];
        lent->batch.bytes[view] = batch->bytes[view];
        lent->batch.rest[view] = (const struct byol_rest *)(const void *)batch->drawn[view];
        lent->batch.views += batch->view[view] || batch->bytes[view];
    }
    atomic_store(&lent->holding, OUT);
}

int byol_loader_next(struct byol_loader *loader, const struct byol_batch **out,
                     struct byol_error *public)
{
    *out = NULL;
    if (!loader->loader) {
        return api_status(loader->broken.status, &loader->broken, public);
    }
    struct error error;
    struct lent *lent = find_free(loader);
    if (!lent) {
        return api_status(error_set(&error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                                    "all %u batch buffers are held: release one, or open the "
                                    "loader with more slots",
                                    loader->config.slots),
                          &error, public);
    }
    const struct batch *batch;
    enum status status = loader_next(loader->loader, &batch, &error);
    if (status == STATUS_OK) {
        lend(lent, batch);
        loader->position = batch->position;
        if (++loader->position.batch == loader_batches_per_epoch(loader->loader)) {
            loader->position = (struct loader_position){.epoch = batch->position.epoch + 1};
        }
        *out = &lent->batch;
    }
    return api_status(status, &error, public);
}

// The buffer is the loader's again before the place that stood for it is free.
void byol_batch_release(struct byol_loader *loader, const struct byol_batch *batch)
{
    for (uint32_t i = 0; i < loader->config.slots; i++) {
        struct lent *lent = &loader->lent[i];
        enum holding expected = OUT;
        if (&lent->batch == batch &&
            atomic_compare_exchange_strong(&lent->holding, &expected, LEAVING)) {
            loader_release(loader->loader, lent->inner);
            atomic_store(&lent->holding, FREE);
        }
    }
}

// --- what it says of itself ----------------------------------------------------------------------

struct byol_position byol_loader_position(const struct byol_loader *loader)
{
    return (struct byol_position){.epoch = loader->position.epoch, .batch = loader->position.batch};
}

uint64_t byol_loader_batches_per_epoch(const struct byol_loader *loader)
{
    return loader->loader ? loader_batches_per_epoch(loader->loader) : 0;
}

void byol_loader_statistics(const struct byol_loader *loader, struct byol_statistics *out,
                            size_t size)
{
    struct byol_statistics statistics = {.held = count_held(loader)};
    if (loader->loader) {
        struct loader_counters counters = loader_counters(loader->loader);
        statistics = (struct byol_statistics){.read_wait = counters.read_wait,
                                              .unpack = counters.unpack,
                                              .decode = counters.decode,
                                              .augment = counters.augment,
                                              .slot_wait = counters.slot_wait,
                                              .consumer_wait = counters.consumer_wait,
                                              .batches = counters.batches,
                                              .records = counters.records,
                                              .skips = counters.skips,
                                              .bytes = counters.bytes,
                                              .reads = counters.reads,
                                              .read_bytes = counters.read_bytes,
                                              .kept = counters.kept,
                                              .memory = loader_memory(loader->loader),
                                              .threads = loader_workers(loader->loader),
                                              .held = statistics.held};
    }
    memset(out, 0, size);
    memcpy(out, &statistics, size < sizeof statistics ? size : sizeof statistics);
}

size_t byol_loader_skips(const struct byol_loader *loader, struct byol_error *out, size_t capacity)
{
    if (!loader->loader) {
        return 0;
    }
    size_t count = loader_skips(loader->loader, NULL, 0);
    struct loader_skip *skips = calloc(capacity ? capacity : 1, sizeof *skips);
    if (!skips) {
        return count;
    }
    count = loader_skips(loader->loader, skips, capacity);
    for (size_t i = 0; i < count && i < capacity; i++) {
        api_status(skips[i].error.status, &skips[i].error, &out[i]);
    }
    free(skips);
    return count;
}
