// Opening a run: what may not start is refused, what stands on disk is taken up again.
#include "trainer/run/run.h"

#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "formats/file.h"
#include "formats/limits.h"
#include "trainer/run/initial.h"

#define WARNING_TEXT 2048

double run_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

void run_tell(struct run *run)
{
    if (run->options->progress) {
        run->options->progress(run->options->context, &run->progress);
    }
}

void run_notice(struct run *run, const char *format, ...)
{
    char text[WARNING_TEXT + 256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    run->progress.notice = text;
    run_tell(run);
    run->progress.notice = NULL;
}

void run_notice_error(struct run *run, const char *what, const struct error *error)
{
    char text[sizeof error->path + sizeof error->reason + 64];
    run_notice(run, "%s: %s", what, error_text(error, text, sizeof text));
}

static enum status check_ranks(const struct run *run, struct error *error)
{
    int64_t ranks = comm_ranks(run->comm), whole = run->config.batch;
    int64_t pieces = run->config.accumulate;
    if (whole / pieces % ranks != 0) {
        return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                         "%" PRId64 " ranks cannot share %s of %" PRId64 " pairs: set batch to a "
                         "multiple of %" PRId64 ", or start another number of processes",
                         ranks, pieces > 1 ? "micro-batches" : "a batch", whole / pieces,
                         ranks * pieces);
    }
    return STATUS_OK;
}

static enum status check_data(struct run *run, struct error *error)
{
    enum status status = check_ranks(run, error);
    if (status != STATUS_OK) {
        return status;
    }
    uint64_t count = dataset_count(run->dataset), batch = (uint64_t)run->config.batch;
    if (count < batch) {
        return error_set(error, STATUS_CONFIG, run->options->data, NOWHERE, NOWHERE,
                         "the dataset has %" PRIu64 " images, a batch needs %" PRIu64
                         ": set batch to at most %" PRIu64,
                         count, batch, count);
    }
    run->steps_per_epoch = count / batch;
    run->total = run->steps_per_epoch * (uint64_t)run->config.epochs;
    run->warmup = (uint64_t)(run->config.warmup_epochs * (double)count) / batch;
    uint64_t limit = (uint64_t)run->config.max_steps;
    run->last = limit > 0 && limit < run->total ? limit : run->total;
    run->config.model.size = run->config.recipe.size;
    run->config.model.classes = run->config.classifier ? dataset_class_count(run->dataset) : 0;
    run->healthy = 1 / sqrt((double)run->config.model.projector_output);
    return STATUS_OK;
}

static enum status check_resumed(struct run *run, const struct checkpoint_state *state,
                                 struct error *error)
{
    struct run_config stored;
    enum status status = run_config_parse(&stored, run->checkpoint, state->config, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (run->config.precision == DEVICE_AUTO) {
        run->config.precision = stored.precision; // what it began with
    }
    status = run_config_compare(&stored, &run->config, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (state->dataset_id != dataset_id(run->dataset)) {
        return error_set(error, STATUS_CONFIG, run->options->data, NOWHERE, NOWHERE,
                         "another dataset (id %016" PRIx64 ") than the run was started on "
                         "(%016" PRIx64 "): give the same --data, or start a new run",
                         dataset_id(run->dataset), state->dataset_id);
    }
    if (state->position.epoch != state->step / run->steps_per_epoch ||
        state->position.batch != state->step % run->steps_per_epoch) {
        return error_set(error, STATUS_CORRUPT, run->checkpoint, NOWHERE, NOWHERE,
                         "step %" PRIu64 " does not fit epoch %" PRIu32 ", batch %" PRIu64,
                         state->step, state->position.epoch, state->position.batch);
    }
    run->step = run->queued = state->step;
    return history_parse(&run->history, state->history, error);
}

// Opens the newest good checkpoint into `run->resumed`; leaves it NULL when the run never had one.
static enum status find_checkpoint(struct run *run, struct error *error)
{
    if (!run->options->resume || !run->writes) {
        return STATUS_OK;
    }
    char warning[WARNING_TEXT];
    struct checkpoint_state state;
    enum status status = checkpoint_latest(run->options->run_directory, run->checkpoint,
                                           sizeof run->checkpoint, warning, sizeof warning, error);
    if (status == STATUS_NOT_FOUND) {
        run->checkpoint[0] = '\0';
        run_notice(run, "no checkpoint to resume from: starting from step 0");
        return STATUS_OK;
    }
    if (status == STATUS_OK) {
        status = checkpoint_open(&run->resumed, run->checkpoint, &state, error);
    }
    if (status == STATUS_OK) {
        status = check_resumed(run, &state, error);
    }
    if (status == STATUS_OK && warning[0]) {
        run_notice(run, "WARNING: passed over damaged checkpoints: %s", warning);
        status = checkpoint_set_aside(run->options->run_directory, state.step, error);
    }
    if (status == STATUS_OK) {
        run->saved = true;
        run->saved_step = state.step;
        run_notice(run, "resumed from %s: step %" PRIu64 " of %" PRIu64, run->checkpoint,
                   state.step, run->last);
    }
    return status;
}

// The checkpoint that rank 0 has chosen, on the other ranks.
static enum status follow_checkpoint(struct run *run, struct error *error)
{
    struct checkpoint_state state;
    enum status status = comm_share(run->comm, run->checkpoint, sizeof run->checkpoint, error);
    if (status != STATUS_OK || run->writes || run->checkpoint[0] == '\0') {
        return status;
    }
    status = checkpoint_open(&run->resumed, run->checkpoint, &state, error);
    if (status == STATUS_OK) {
        status = check_resumed(run, &state, error);
    }
    run->saved = true;
    run->saved_step = run->step;
    return status;
}

static enum status open_directory(struct run *run, struct error *error)
{
    if (!run->writes) {
        return STATUS_OK;
    }
    const char *directory = run->options->run_directory;
    enum status status = run_directory_open(directory, &run->lock, error);
    if (status == STATUS_OK && !run->options->resume && run_directory_used(directory)) {
        status = error_set(error, STATUS_EXISTS, directory, NOWHERE, NOWHERE,
                           "holds a run already: add --resume to continue it, or choose another "
                           "directory");
    }
    return status;
}

// 0 = one per core, unless other ranks have the same cores.
static int64_t threads_of(const struct run *run, int64_t wanted)
{
    int64_t sharing = comm_sharing(run->comm), cores = omp_get_num_procs();
    if (wanted > 0 || sharing == 1) {
        return wanted;
    }
    return cores > sharing ? cores / sharing : 1;
}

static enum status start_device(struct run *run, struct error *error)
{
    const struct run_config *config = &run->config;
    enum status status =
        device_open(&run->device, config->device, (int)threads_of(run, config->threads),
                    (enum device_precision)config->precision, error);
    if (status == STATUS_OK) {
        run->config.precision = (int)run->device->precision; // from `auto`
        run->device->peers = comm_peers(run->comm);
    }
    return status;
}

static enum status begin_from_weights(struct run *run, struct error *error)
{
    char told[RUN_INITIAL_TEXT];
    enum status status = run_initialise(&run->config, run->device, run->method, told, error);
    if (status == STATUS_OK) {
        run_notice(run, "begins from %s: %s", run->config.init, told);
    }
    return status;
}

static enum status open_method(struct run *run, struct error *error)
{
    const struct run_config *config = &run->config;
    const struct method_config method = run_config_method(config);
    enum status status = method_open(&run->method, config->method, run->device, &method, error);
    if (status == STATUS_OK && run->resumed) {
        status = checkpoint_restore(run->resumed, run->device, run->method, error);
    } else if (status == STATUS_OK && config->init[0] != '\0') {
        status = begin_from_weights(run, error);
    }
    safetensors_close(&run->resumed);
    return status;
}

// A device that tries out how to compute does so on rank 0 while the others wait, and they follow:
// of two ways that are as fast one rank might take this and another one that, each time anew.
static enum status lead_method(struct run *run, struct error *error)
{
    bool now = comm_rank(run->comm) == 0 || run->device->ops->tell_choices == NULL;
    return now ? open_method(run, error) : STATUS_OK;
}

// `taken` on the other ranks: those of rank 0 are theirs now.
static enum status exchange_choices(struct run *run, char **text, bool *taken, struct error *error)
{
    const struct device_ops *ops = run->device->ops;
    bool first = comm_rank(run->comm) == 0;
    enum status status = STATUS_OK;
    if (first && ops->tell_choices != NULL) {
        status = ops->tell_choices(run->device, text, error);
    }
    status = comm_agree(run->comm, status, NULL, error);
    if (status == STATUS_OK) {
        status = comm_share_text(run->comm, text, error);
    }
    return status == STATUS_OK && !first && *text != NULL && ops->take_choices != NULL
               ? ops->take_choices(run->device, *text, taken, error)
               : status;
}

static enum status share_choices(struct run *run, struct error *error)
{
    char *text = NULL;
    bool taken = true;
    if (run->comm == NULL) {
        return STATUS_OK;
    }
    enum status status = exchange_choices(run, &text, &taken, error);
    unsigned differs = taken ? 0 : 1;
    free(text);
    status = comm_agree(run->comm, status, &differs, error);
    if (status == STATUS_OK && differs) {
        run_notice(run, "WARNING: ranks compute with different hardware or libraries: each chooses "
                        "by itself how, and they round differently");
    }
    return status;
}

static enum status follow_method(struct run *run, struct error *error)
{
    return run->method == NULL ? open_method(run, error) : STATUS_OK;
}

static void *allocate_slot(void *context, size_t bytes)
{
    struct device *device = context;
    void *memory = NULL;
    return device->ops->host_allocate(device, &memory, bytes, NULL) == STATUS_OK ? memory : NULL;
}

static void release_slot(void *context, void *memory, size_t bytes)
{
    struct device *device = context;
    (void)bytes;
    device->ops->host_release(device, memory);
}

// Batches are rendered into memory that the device reads by itself, one more than where it takes
// them at once: while a batch is sent another one can be waiting and a third be rendered.
static void feed_ahead(struct loader_config *loader, struct device *device)
{
    if (device->ops->steps_ahead > 0) {
        loader->allocator = (struct loader_allocator){allocate_slot, release_slot, device};
        loader->slots += 1;
    }
}

static enum status open_loader(struct run *run, struct error *error)
{
    const struct run_config *config = &run->config;
    struct loader_config loader;
    loader_config_init(&loader);
    loader.recipe = config->recipe;
    loader.bytes = config->augment == RUN_AUGMENT_DEVICE;
    loader.rank = comm_rank(run->comm);
    loader.ranks = comm_ranks(run->comm);
    loader.pieces = (uint32_t)config->accumulate;
    loader.batch = (uint32_t)config->batch / loader.ranks;
    loader.seed = (uint64_t)config->seed;
    loader.epochs = (uint32_t)config->epochs;
    loader.workers = (uint32_t)threads_of(run, config->loader_threads);
    loader.policy = (enum loader_policy)config->bad_records;
    loader.start.epoch = (uint32_t)(run->step / run->steps_per_epoch);
    loader.start.batch = run->step % run->steps_per_epoch;
    feed_ahead(&loader, run->device);
    return loader_open(&run->loader, run->dataset, &loader, error);
}

// config.yaml as it is now; left alone when nothing changed.
static enum status write_config(struct run *run, struct error *error)
{
    char path[RUN_PATH];
    uint8_t *old = NULL;
    size_t len = 0;
    enum status status =
        run_directory_path(run->options->run_directory, "config.yaml", path, error);
    if (status == STATUS_OK) {
        status = run_config_print(&run->config, false, &run->config_text, error);
    }
    if (status != STATUS_OK || !run->writes) {
        return status;
    }
    bool same = file_read_all(path, LIMIT_SETTINGS_BYTES, &old, &len, NULL) == STATUS_OK &&
                len == strlen(run->config_text) && memcmp(old, run->config_text, len) == 0;
    free(old);
    return same ? STATUS_OK
                : file_write_durably(path, run->config_text, strlen(run->config_text), error);
}

static enum status open_log(struct run *run, struct error *error)
{
    if (!run->writes) {
        return STATUS_OK;
    }
    char path[RUN_PATH];
    enum status status =
        run_directory_path(run->options->run_directory, "metrics.jsonl", path, error);
    return status == STATUS_OK ? metrics_open(&run->metrics, path, run->step, error) : status;
}

static void tell_plan(struct run *run)
{
    const struct run_config *config = &run->config;
    char device[128], pieces[96] = "", ranks[48] = "";
    run->device->ops->describe(run->device, device, sizeof device);
    if (config->accumulate > 1) {
        snprintf(pieces, sizeof pieces, "; %lld micro-batches of %lld images a step",
                 (long long)config->accumulate, (long long)(config->batch / config->accumulate));
    }
    if (run->comm != NULL) {
        snprintf(ranks, sizeof ranks, "; each of %u ranks", comm_ranks(run->comm));
    }
    run_notice(run,
               "%" PRIu64 " images, %u classes; steps: %" PRIu64 " an epoch, %" PRIu64
               " in all%s%s; %s; memory: device %.0f MiB%s, loader %.0f MiB",
               dataset_count(run->dataset), dataset_class_count(run->dataset), run->steps_per_epoch,
               run->total, pieces, ranks, device,
               (double)run->method->ops->memory(run->method) / 1048576,
               config->recompute ? " (blocks recomputed)" : "",
               (double)loader_memory(run->loader) / 1048576);
}

// A run on resized images is not one on the originals: whoever reads its log should know.
static void say_not_exact(struct run *run, const char *what, const struct dataset *dataset)
{
    char *inexact = dataset_not_exact(dataset);
    if (inexact != NULL) {
        run_notice(run, "WARNING: %s is not exact: %s", what, inexact);
    }
    free(inexact);
}

static enum status open_data(struct run *run, struct error *error)
{
    enum status status = dataset_open(&run->dataset, run->options->data, error);
    if (status == STATUS_OK) {
        say_not_exact(run, "the dataset", run->dataset);
    }
    return status == STATUS_OK ? check_data(run, error) : status;
}

// What the probe measures on resized images is not what others measure.
static void say_probe_not_exact(struct run *run, const char *path)
{
    struct dataset *dataset = NULL;
    if (path[0] && dataset_open(&dataset, path, NULL) == STATUS_OK) {
        say_not_exact(run, "the probe's dataset", dataset);
    }
    dataset_close(&dataset);
}

static enum status open_probe(struct run *run, struct error *error)
{
    const struct run_config *config = &run->config;
    if (!run->writes || config->probe[0] == '\0') {
        return STATUS_OK;
    }
    say_probe_not_exact(run, config->probe);
    say_probe_not_exact(run, config->probe_test);
    const struct online_config probe = {
        .data = config->probe,
        .test = config->probe_test[0] ? config->probe_test : NULL,
        .bank = (uint64_t)config->probe_bank,
        .images = (uint64_t)config->probe_images,
        .rank = config->probe_rank,
        .threads = (int)threads_of(run, config->threads),
        .loader_threads = (int)threads_of(run, config->loader_threads),
    };
    return online_open(&run->probe, &probe, dataset_id(run->dataset), error);
}

enum status run_open(struct run *run, const struct pretrain_options *options, struct error *error)
{
    static enum status (*const stages[])(struct run *, struct error *) = {
        open_data,         open_probe,   open_directory, find_checkpoint,
        follow_checkpoint, start_device, lead_method,    share_choices,
        follow_method,     write_config, open_log,       open_loader,
    };
    *run = (struct run){.options = options,
                        .comm = options->comm,
                        .writes = comm_rank(options->comm) == 0,
                        .config = options->config,
                        .lock = -1,
                        .probed = {.knn_top1 = NAN, .rankme = NAN}};
    enum status status = STATUS_OK;
    for (size_t i = 0; i < sizeof stages / sizeof stages[0] && status == STATUS_OK; i++) {
        status = stages[i](run, error);
        status = comm_agree(run->comm, status, NULL, error);
    }
    if (status == STATUS_OK) {
        status = run_compare_ranks(run, error);
    }
    if (status == STATUS_OK) {
        tell_plan(run);
    }
    return status;
}

void run_close(struct run *run)
{
    loader_close(&run->loader);
    metrics_close(&run->metrics);
    online_close(&run->probe);
    safetensors_close(&run->resumed);
    method_close(&run->method);
    device_close(&run->device);
    dataset_close(&run->dataset);
    run_directory_close(&run->lock);
    free(run->config_text);
}
