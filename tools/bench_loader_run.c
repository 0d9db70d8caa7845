// Streams and measures: either the passes that were asked for, as one window, or windows of a given
// time out of an endless stream.
#include "formats/file.h"
#include "tools/batch_hash.h"
#include "tools/bench.h"
#include "tools/bench_floor.h"
#include "tools/bench_loader.h"
#include "tools/measure.h"
#include "tools/not_exact.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

// Asks the kernel to forget the dataset's pages. It keeps those that are dirty or that some process
// has mapped.
static void drop_pages(const struct dataset *dataset)
{
    for (uint32_t file = 0; file < dataset_file_count(dataset); file++) {
        int fd = open(dataset_file_path(dataset, file), O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
            close(fd);
        }
    }
}

// --- batches -------------------------------------------------------------------------------------

static void advance(struct loader_bench *bench)
{
    if (++bench->position.batch == loader_batches_per_epoch(bench->loader)) {
        bench->position.batch = 0;
        bench->position.epoch++;
        if (bench->cold) {
            drop_pages(bench->dataset);
        }
    }
}

static enum status take_batch(struct loader_bench *bench, struct error *error)
{
    const struct batch *batch;
    enum status status = loader_next(bench->loader, &batch, error);
    if (status == STATUS_OK) {
        if (bench->hash) {
            bench->state = batch_hash(bench->state, batch);
        }
        loader_release(bench->loader, batch);
        advance(bench);
    }
    return status;
}

static enum status take_batches(struct loader_bench *bench, uint64_t count, struct error *error)
{
    enum status status = STATUS_OK;
    for (uint64_t i = 0; status == STATUS_OK && i < count; i++) {
        status = take_batch(bench, error);
    }
    return status;
}

static enum status take_seconds(struct loader_bench *bench, double seconds, struct error *error)
{
    double end = measure_seconds() + seconds;
    enum status status = STATUS_OK;
    while (status == STATUS_OK && measure_seconds() < end) {
        status = take_batch(bench, error);
    }
    return status;
}

// --- a window ------------------------------------------------------------------------------------

// Adds what happened since `before`.
static void add_counters(struct loader_counters *sum, const struct loader_counters *before,
                         const struct loader_counters *now)
{
    sum->read_wait += now->read_wait - before->read_wait;
    sum->unpack += now->unpack - before->unpack;
    sum->decode += now->decode - before->decode;
    sum->augment += now->augment - before->augment;
    sum->slot_wait += now->slot_wait - before->slot_wait;
    sum->consumer_wait += now->consumer_wait - before->consumer_wait;
    sum->batches += now->batches - before->batches;
    sum->records += now->records - before->records;
    sum->bytes += now->bytes - before->bytes;
    sum->skips += now->skips - before->skips;
    sum->reads += now->reads - before->reads;
    sum->read_bytes += now->read_bytes - before->read_bytes;
    sum->read_calls += now->read_calls - before->read_calls;
    sum->shared += now->shared - before->shared;
    sum->kept += now->kept - before->kept;
    sum->ahead = now->ahead;
}

struct window {
    struct loader_counters before;
    double start;
};

static struct window window_begin(const struct loader_bench *bench)
{
    return (struct window){loader_counters(bench->loader), measure_seconds()};
}

static void window_end(struct loader_bench *bench, const struct window *window)
{
    double seconds = measure_seconds() - window->start;
    struct loader_counters now = loader_counters(bench->loader);
    add_counters(&bench->counters, &window->before, &now);
    bench->seconds += seconds;
    if (bench->rates.count < BENCH_MAX_WINDOWS && seconds > 0) {
        bench->rates.value[bench->rates.count++] =
            (double)(now.records - window->before.records) / seconds;
    }
}

// --- the floor -----------------------------------------------------------------------------------

static void measure_floor(struct loader_bench *bench)
{
    double rate = bench_floor(bench->dataset, (uint64_t)bench->floor, bench->workers_used);
    if (rate > 0 && bench->floors.count < BENCH_MAX_WINDOWS) {
        bench->floors.value[bench->floors.count++] = rate;
    }
}

// Measures the floor between two windows. Taking every slot leaves the workers nothing to do
// meanwhile; afterwards the stream gets as many batches to come into its stride.
static enum status pause_for_floor(struct loader_bench *bench, struct error *error)
{
    const struct batch **taken = calloc(bench->config.slots, sizeof(const struct batch *));
    if (!taken) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory");
    }
    enum status status = STATUS_OK;
    uint32_t count = 0;
    while (status == STATUS_OK && count < bench->config.slots) {
        status = loader_next(bench->loader, &taken[count], error);
        count += status == STATUS_OK;
    }
    if (status == STATUS_OK) {
        measure_floor(bench);
    }
    for (uint32_t i = 0; i < count; i++) {
        loader_release(bench->loader, taken[i]);
        advance(bench);
    }
    free(taken);
    return status == STATUS_OK ? take_batches(bench, bench->config.slots + 1, error) : status;
}

// --- the two ways of measuring -------------------------------------------------------------------

static enum status measure_windows(struct loader_bench *bench, struct error *error)
{
    enum status status = take_seconds(bench, bench->warm_up, error);
    for (int64_t i = 0; status == STATUS_OK && i < bench->windows; i++) {
        if (!bench->no_floor) {
            status = pause_for_floor(bench, error);
        }
        if (status == STATUS_OK) {
            struct window window = window_begin(bench);
            status = take_seconds(bench, bench->window_seconds, error);
            window_end(bench, &window);
        }
        progress_bar(&bench->progress, "measuring", (uint64_t)i + 1, (uint64_t)bench->windows,
                     "windows");
    }
    return status;
}

static uint64_t batches_to_come(const struct loader_bench *bench)
{
    uint64_t epoch = loader_batches_per_epoch(bench->loader);
    uint64_t all = epoch * bench->config.epochs;
    uint64_t past = epoch * bench->position.epoch + bench->position.batch;
    uint64_t rest = past < all ? all - past : 0, wanted = (uint64_t)bench->stop_after;
    return wanted > 0 && wanted < rest ? wanted : rest;
}

static enum status measure_passes(struct loader_bench *bench, struct error *error)
{
    uint64_t total = batches_to_come(bench);
    struct window window = {.start = measure_seconds()}; // counters from the loader's opening on
    enum status status = STATUS_OK;
    for (uint64_t done = 1; status == STATUS_OK && done <= total; done++) {
        status = take_batch(bench, error);
        progress_bar(&bench->progress, "loading", done * bench->config.batch,
                     total * bench->config.batch, "pairs");
    }
    window_end(bench, &window);
    return status;
}

// --- the run -------------------------------------------------------------------------------------

static enum status open_loader(struct loader_bench *bench, struct error *error)
{
    enum status status = dataset_open(&bench->dataset, bench->directory, error);
    if (status != STATUS_OK) {
        return status;
    }
    not_exact_warn(&command_bench_loader, "the dataset", bench->dataset);
    if (bench->cold) {
        drop_pages(bench->dataset);
    }
    status = loader_open(&bench->loader, bench->dataset, &bench->config, error);
    if (status != STATUS_OK) {
        return status;
    }
    bench->workers_used = loader_workers(bench->loader);
    bench->direct_used = loader_direct_used(bench->loader);
    bench->io_used = loader_io_used(bench->loader);
    bench->planned_memory = loader_memory(bench->loader);
    bench->position = bench->config.start;
    if (bench->position.batch == loader_batches_per_epoch(bench->loader)) {
        bench->position = (struct loader_position){.epoch = bench->position.epoch + 1};
    }
    return STATUS_OK;
}

static void keep_skips(struct loader_bench *bench)
{
    size_t count = loader_skips(bench->loader, NULL, 0);
    bench->skips = calloc(count ? count : 1, sizeof *bench->skips);
    if (bench->skips) {
        bench->skip_count = loader_skips(bench->loader, bench->skips, count);
    }
}

static enum status write_position(const struct loader_bench *bench, struct error *error)
{
    char text[128];
    int len =
        snprintf(text, sizeof text, "--start %" PRIu32 ":%" PRIu64 " --hash-from %016" PRIx64 "\n",
                 bench->position.epoch, bench->position.batch, bench->state);
    return file_write_durably(bench->position_out, text, (size_t)len, error);
}

enum status loader_bench_run(struct loader_bench *bench, struct error *error)
{
    enum status status = open_loader(bench, error);
    if (status != STATUS_OK) {
        return status;
    }
    progress_begin(&bench->progress, bench->quiet);
    status =
        bench->window_seconds > 0 ? measure_windows(bench, error) : measure_passes(bench, error);
    progress_end(&bench->progress);
    keep_skips(bench);
    bench->peak_memory = measure_peak_memory();
    bench->shared_memory = measure_shared_memory();
    loader_close(&bench->loader);
    if (status == STATUS_OK && !bench->no_floor) {
        measure_floor(bench);
    }
    return status == STATUS_OK && bench->position_out ? write_position(bench, error) : status;
}
