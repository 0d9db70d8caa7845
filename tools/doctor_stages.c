// What each stage of a run could do by itself: the loader on the run's images, the step on noise,
// for about a second each.
#include "tools/doctor.h"

#include "tools/bench_loader.h"
#include "tools/bench_step.h"
#include "tools/example_render.h"
#include "tools/interrupt.h"
#include "tools/measure.h"
#include "tools/output.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOADER_BATCH   64u
#define LOADER_WINDOWS 3
#define LOADER_SECONDS 0.4 // of a window
#define WARM_UP        0.3
#define FIRST_BATCH    8u  // that the step is tried with
#define STEP_SECONDS   0.5 // that one may then take
#define STEPS          3
#define PICTURES       32u
#define PICTURE_SIDE   512 // pixels at most
#define QUALITY        90

const char *const doctor_stage_names[DOCTOR_STAGES] = {"disk", "decode", "augment", "step"};

// --- made-up images ------------------------------------------------------------------------------

static enum status add_picture(struct dataset_writer *writer, uint32_t number, uint32_t side,
                               struct error *error)
{
    char name[32];
    uint8_t *bytes = NULL;
    struct image image = {0};
    struct example_scene scene;
    struct dataset_item item = {.name = name, .label = DATASET_NO_LABEL};
    snprintf(name, sizeof name, "%04u.jpg", number);
    example_scene_draw(&scene, 1, number % EXAMPLE_SHAPE_COUNT, number);
    enum status status = example_render(&scene, side, &image, error);
    if (status == STATUS_OK) {
        status = image_encode_jpeg(&image, QUALITY, &bytes, &item.len, error);
    }
    if (status == STATUS_OK) {
        item.bytes = bytes;
        item.info =
            (struct image_info){.kind = IMAGE_JPEG, .width = side, .height = side, .components = 3};
        status = dataset_writer_add(writer, &item, error);
    }
    image_free(&image);
    free(bytes);
    return status;
}

// Pictures of twice the views' side, as photographs of such views have.
static enum status make_pictures(const char *directory, int64_t size, struct error *error)
{
    const struct dataset_writer_config config = {.store = DATASET_SHARDS};
    struct dataset_writer *writer = NULL;
    uint32_t side = (uint32_t)(2 * size < PICTURE_SIDE ? 2 * size : PICTURE_SIDE);
    enum status status = dataset_writer_open(&writer, directory, &config, error);
    for (uint32_t i = 0; i < PICTURES && status == STATUS_OK; i++) {
        status = add_picture(writer, i, side, error);
    }
    if (status == STATUS_OK) {
        status = dataset_writer_commit(&writer, NULL, 0, error);
    }
    dataset_writer_abort(&writer);
    return status;
}

// --- the loader ----------------------------------------------------------------------------------

static double per_second(double count, double seconds, uint32_t threads)
{
    return seconds > 0 ? count * threads / seconds : 0;
}

static void take_loader(struct doctor_run *run, struct loader_bench *bench)
{
    const struct loader_counters *spent = &bench->counters;
    double records = (double)spent->records;
    run->rate[DOCTOR_DECODE] =
        per_second(records, spent->unpack + spent->decode, bench->workers_used);
    run->rate[DOCTOR_AUGMENT] = per_second(records, spent->augment, bench->workers_used);
    run->loader = measure_median(bench->rates.value, bench->rates.count);
}

static enum status time_loader(struct doctor_run *run, const char *directory, struct error *error)
{
    struct loader_bench *bench = calloc(1, sizeof *bench);
    if (bench == NULL) {
        return error_errno(error, ENOMEM, NULL, NOWHERE, "allocate");
    }
    const struct run_config *config = &run->config;
    uint64_t batch =
        (uint64_t)config->batch < LOADER_BATCH ? (uint64_t)config->batch : LOADER_BATCH;
    bench->directory = directory;
    bench->window_seconds = LOADER_SECONDS;
    bench->warm_up = WARM_UP;
    bench->windows = LOADER_WINDOWS;
    bench->no_floor = bench->quiet = true;
    loader_config_init(&bench->config);
    bench->config.recipe = config->recipe;
    bench->config.bytes = config->augment == RUN_AUGMENT_DEVICE;
    bench->config.batch = (uint32_t)(batch < run->images ? batch : run->images);
    bench->config.seed = (uint64_t)config->seed;
    bench->config.workers = (uint32_t)config->loader_threads;
    bench->config.policy = (enum loader_policy)config->bad_records;
    enum status status = loader_bench_run(bench, error);
    if (status == STATUS_OK) {
        take_loader(run, bench);
    }
    free(bench->skips);
    loader_close(&bench->loader);
    dataset_close(&bench->dataset);
    free(bench);
    return status;
}

// --- the step ------------------------------------------------------------------------------------

// What the whole batch needs, from what a smaller one does.
static uint64_t memory_for(const struct step_bench *bench, const struct run_config *config)
{
    struct method_plan plan;
    bench->method->ops->plan(bench->method, &plan);
    double whole = (double)config->batch / (double)config->accumulate;
    double each =
        (double)(plan.online_arena_bytes + plan.target_arena_bytes) / (double)bench->config.batch;
    double batch = (double)plan.batch_bytes / (double)bench->config.batch;
    return plan.parameter_bytes + (uint64_t)(each * whole + batch * (double)config->batch);
}

// Of the whole batch: the optimiser takes as long for it as for this one.
static double whole_rate(const struct step_bench *bench, const struct run_config *config)
{
    double optimiser = bench->profiled > 0 ? bench->optimiser / (double)bench->profiled : 0;
    double median = bench->seconds[bench->steps / 2];
    double each = (median - optimiser) / (double)bench->batch;
    double seconds = optimiser + each * (double)config->batch;
    return seconds > 0 ? (double)config->batch / seconds : 0;
}

static enum status time_step(struct doctor_run *run, uint32_t batch, int64_t steps, double *seconds,
                             struct error *error)
{
    const struct run_config *config = &run->config;
    struct step_bench *bench = calloc(1, sizeof *bench);
    if (bench == NULL) {
        return error_errno(error, ENOMEM, NULL, NOWHERE, "allocate");
    }
    bench->device_name = config->device;
    bench->precision = config->precision;
    bench->threads = config->threads;
    bench->steps = steps;
    bench->batch = batch;
    bench->json = bench->quiet = true;
    bench->config = run_config_method(config);
    bench->config.bytes = false;
    bench->config.batch = batch;
    bench->config.accumulate = 1;
    enum status status = step_bench_run(bench, error);
    if (status == STATUS_OK) {
        *seconds = bench->seconds[0]; // the fastest
        run->step_batch = batch;
        run->rate[DOCTOR_STEP] = whole_rate(bench, config);
        run->step_memory = memory_for(bench, config);
        run->shared = bench->device->ops->steps_ahead == 0;
    }
    step_bench_close(bench);
    free(bench);
    return status;
}

// A small batch says how long the whole one would take; one that keeps the cores busy says it
// better. How far to go is judged by the fastest of some steps: other work makes single ones slow.
static enum status time_steps(struct doctor_run *run, struct error *error)
{
    uint32_t whole = (uint32_t)(run->config.batch / run->config.accumulate);
    uint32_t batch = whole < FIRST_BATCH ? whole : FIRST_BATCH;
    double seconds = 0;
    enum status status = time_step(run, batch, 1, &seconds, error);
    if (status == STATUS_OK && seconds <= 2 * STEP_SECONDS) {
        status = time_step(run, batch, STEPS, &seconds, error);
    }
    uint32_t tried = batch;
    while (batch * 2 <= whole && seconds * 2 <= STEP_SECONDS) {
        batch *= 2;
        seconds *= 2;
    }
    return status == STATUS_OK && batch > tried ? time_step(run, batch, STEPS, &seconds, error)
                                                : status;
}

// --- the run -------------------------------------------------------------------------------------

static void describe_dataset(struct doctor_run *run, const struct dataset *dataset)
{
    uint64_t recoded = 0;
    run->images = dataset_count(dataset);
    for (uint64_t i = 0; i < run->images; i++) {
        struct dataset_record record = dataset_record(dataset, i);
        run->stored_bytes += record.stored_length;
        recoded += record.kind == IMAGE_RECODED;
    }
    run->recoded = run->images > 0 ? (double)recoded / (double)run->images : 0;
    run->config.model.classes = run->config.classifier ? dataset_class_count(dataset) : 0;
}

static void judge(struct doctor_run *run)
{
    double first = run->cached ? INFINITY : run->rate[DOCTOR_DISK];
    double loader = first > 0 && first < run->loader ? first : run->loader;
    double step = run->rate[DOCTOR_STEP];
    run->limit = DOCTOR_STEP;
    for (int stage = run->cached ? DOCTOR_DECODE : DOCTOR_DISK; stage < DOCTOR_STAGES; stage++) {
        if (run->rate[stage] > 0 && run->rate[stage] < run->rate[run->limit]) {
            run->limit = (enum doctor_stage)stage;
        }
    }
    if (loader > 0 && step > 0) {
        run->together = run->shared ? 1 / (1 / loader + 1 / step) : fmin(loader, step);
    }
}

static enum status measure_dataset(struct doctor_run *run, struct doctor_disk *disk,
                                   const struct doctor_machine *machine, const char *directory,
                                   struct error *error)
{
    struct dataset *dataset = NULL;
    enum status status = dataset_open(&dataset, directory, error);
    if (status != STATUS_OK) {
        return status;
    }
    describe_dataset(run, dataset);
    // Made-up images lie where temporary files do, a run's will not.
    doctor_disk(disk, run->made_up ? NULL : dataset);
    dataset_close(&dataset);
    if (run->stored_bytes > 0) {
        run->rate[DOCTOR_DISK] =
            disk->bytes_per_second * (double)run->images / (double)run->stored_bytes;
    }
    run->cached = !run->made_up && run->stored_bytes < machine->memory_free / 2;
    status = time_loader(run, directory, error);
    if (status == STATUS_OK) {
        status = time_steps(run, error);
    }
    if (status == STATUS_OK) {
        judge(run);
    }
    return status;
}

static enum status measure_made_up(struct doctor_run *run, struct doctor_disk *disk,
                                   const struct doctor_machine *machine, struct error *error)
{
    char *room = NULL, *directory = NULL;
    const char *base = getenv("TMPDIR");
    enum status status = STATUS_OK;
    if (asprintf(&room, "%s/byol-doctor-XXXXXX", base && *base ? base : "/tmp") < 0 ||
        mkdtemp(room) == NULL) {
        status = error_errno(error, errno, room, NOWHERE,
                             "make a directory for pictures (TMPDIR says where, or give --data)");
        free(room);
        return status;
    }
    if (asprintf(&directory, "%s/pictures", room) < 0) {
        directory = NULL;
        status = error_errno(error, ENOMEM, NULL, NOWHERE, "allocate");
    }
    run->made_up = true;
    interrupt_leaves("%s is left: remove it", room);
    if (status == STATUS_OK) {
        status = make_pictures(directory, run->config.recipe.size, error);
    }
    if (status == STATUS_OK) {
        status = measure_dataset(run, disk, machine, directory, error);
    }
    output_remove(room, NULL);
    free(directory);
    free(room);
    return status;
}

enum status doctor_measure(struct doctor_run *run, struct doctor_disk *disk,
                           const struct doctor_machine *machine, const char *directory,
                           struct error *error)
{
    return directory ? measure_dataset(run, disk, machine, directory, error)
                     : measure_made_up(run, disk, machine, error);
}
