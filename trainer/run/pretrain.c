// The training loop. A step is: wait for a batch, hand it to the method, take in what it measured,
// and, when it is time, write a line of the log or a checkpoint. Where the device works ahead, some
// steps are handed over before the first of them is taken in. With none in flight everything that a
// resume needs is (tensors, step, history); position and schedules follow from the step. So
// checkpoints are written then only.
#include "trainer/run/pretrain.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/optim/schedule.h"
#include "trainer/run/report.h"
#include "trainer/run/run.h"

#define SKIPS_NAMED 20   // skipped records that get a notice of their own
#define RATE_MEMORY 0.95 // of the smoothed time per step

// --- stepping --------------------------------------------------------------------------------

static void fill_progress(struct run *run, float learning_rate, float tau)
{
    double step_seconds = run->step_seconds > 0 ? run->step_seconds : 1e-9;
    run->progress = (struct pretrain_progress){
        .epoch = (uint32_t)((run->step - 1) / run->steps_per_epoch),
        .epochs = (uint32_t)run->config.epochs,
        .step = run->step,
        .steps = run->last,
        .loss = run->history.smooth_loss,
        .learning_rate = (double)learning_rate,
        .tau = (double)tau,
        .top1 = run->history.smooth_top1,
        .spread = run->history.smooth_spread,
        .healthy = run->healthy,
        .pairs_per_second = (double)run->config.batch / step_seconds,
        .data_wait = run->wait_seconds / step_seconds,
        .seconds_left = (double)(run->last - run->step) * step_seconds,
        .knn = run->probed.knn_top1,
    };
}

// The first step of a session warms caches up and would spoil the average: the second replaces it.
static void take_time(struct run *run, double waited, double spent)
{
    double keep = run->steps_here < 2 ? 0 : RATE_MEMORY;
    run->step_seconds = keep * run->step_seconds + (1 - keep) * spent;
    run->wait_seconds = keep * run->wait_seconds + (1 - keep) * waited;
    run->wait += waited;
    run->history.seconds += spent;
    run->steps_here++;
}

static void tell_event(struct run *run, enum history_event event)
{
    if (event == HISTORY_COLLAPSED) {
        run_notice(
            run,
            "COLLAPSE ALARM: at step %" PRIu64 " the spread of the projections is %.4f, healthy "
            "is near %.4f; if it does not recover, lower base_learning_rate or raise tau_base",
            run->step, run->history.smooth_spread, run->healthy);
    } else if (event == HISTORY_RECOVERED) {
        run_notice(run, "the spread of the projections has recovered at step %" PRIu64, run->step);
    }
}

static void tell_skips(struct run *run)
{
    struct loader_skip skips[SKIPS_NAMED];
    size_t count = loader_skips(run->loader, skips, SKIPS_NAMED);
    for (; run->skips_told < count && run->skips_told < SKIPS_NAMED; run->skips_told++) {
        run_notice_error(run, "skipped a damaged image", &skips[run->skips_told].error);
    }
}

static enum status check_loss(struct run *run, double loss, float learning_rate,
                              struct error *error)
{
    if (isfinite(loss)) {
        return STATUS_OK;
    }
    return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                     "the loss became %s in step %" PRIu64 " (learning rate %g): lower "
                     "base_learning_rate or lengthen warmup_epochs; %s%s",
                     isnan(loss) ? "NaN" : "infinite", run->step + 1, (double)learning_rate,
                     run->saved ? "the last good checkpoint is " : "there is no checkpoint yet",
                     run->saved ? run->checkpoint : "");
}

static void log_step(struct run *run, const struct method_metrics *metrics)
{
    if (!run->writes) {
        return;
    }
    struct metrics_line line = {
        .step = run->step,
        .epoch = run->progress.epoch,
        .learning_rate = run->progress.learning_rate,
        .tau = run->progress.tau,
        .seconds = run->history.seconds,
        .pairs_per_second = run->progress.pairs_per_second,
        .data_wait = run->progress.data_wait,
        .exchange_seconds = metrics->exchange_seconds,
        .optimiser_seconds = metrics->optimiser_seconds,
    };
    memcpy(line.op_seconds, metrics->seconds, sizeof line.op_seconds);
    history_take(&run->history, &line);
    struct error error;
    bool failed = metrics_write(run->metrics, &line, &error) != STATUS_OK;
    if (failed && !run->log_failed) {
        run_notice_error(run, "WARNING: the log cannot be written now, training goes on", &error);
    }
    run->log_failed = failed;
}

static struct run_flight *flight_of(struct run *run, uint64_t step)
{
    return &run->flights[step % (sizeof run->flights / sizeof run->flights[0])];
}

static enum status step_batch(struct run *run, const struct batch *batch,
                              const struct method_step *step, struct error *error)
{
    const struct method_ops *ops = run->method->ops;
    const int32_t *labels = run->config.model.classes > 0 ? batch->labels : NULL;
    return run->config.augment == RUN_AUGMENT_DEVICE
               ? ops->step_bytes(run->method, (const uint8_t *const *)batch->bytes,
                                 (const struct view_record *const *)batch->drawn, labels, step,
                                 error)
               : ops->step(run->method, (const float *const *)batch->view, labels, step, error);
}

static float tau_of(const struct run *run)
{
    float base = (float)run->config.tau_base;
    return run->config.tau_schedule == RUN_TAU_CONSTANT
               ? base
               : schedule_tau(run->queued, base, run->total);
}

static enum status queue_step(struct run *run, const struct batch *batch, double waited,
                              struct error *error)
{
    const struct run_config *config = &run->config;
    struct run_flight *flight = flight_of(run, run->queued);
    flight->waited = waited;
    flight->began = run_now() - waited;
    flight->step =
        run_config_scaled(config,
                          schedule_learning_rate(run->queued, (float)config->base_learning_rate,
                                                 (uint64_t)config->batch, run->warmup, run->total),
                          tau_of(run));
    enum status status = step_batch(run, batch, &flight->step, error);
    loader_release(run->loader, batch);
    if (status != STATUS_OK) {
        comm_part(run->comm);
        return status;
    }
    run->queued++;
    return STATUS_OK;
}

// A step in flight has begun at the latest when the one before it was collected.
static void take_in(struct run *run, const struct method_metrics *metrics,
                    const struct run_flight *flight)
{
    double before = fmax(run->collected, flight->began);
    run->step++;
    run->collected = run_now();
    take_time(run, flight->waited, run->collected - before);
    enum history_event event = history_add(&run->history, metrics, run->healthy);
    fill_progress(run, flight->step.learning_rate, flight->step.tau);
    run_tell(run);
    tell_event(run, event);
    if (metrics->notice != NULL) {
        run_notice(run, "%s", metrics->notice);
    }
    if (run->step % (uint64_t)run->config.log_steps == 0 || run->step % run->steps_per_epoch == 0) {
        log_step(run, metrics);
        tell_skips(run);
    }
}

static enum status collect_step(struct run *run, struct error *error)
{
    const struct run_flight *flight = flight_of(run, run->step);
    struct method_metrics metrics;
    enum status status = run->method->ops->collect(run->method, &metrics, error);
    if (status != STATUS_OK) {
        comm_part(run->comm);
        return status;
    }
    status = check_loss(run, metrics.loss, flight->step.learning_rate, error);
    if (status == STATUS_OK) {
        take_in(run, &metrics, flight);
    }
    return status;
}

// Collects all but the newest `ahead` steps.
static enum status collect_steps(struct run *run, uint64_t ahead, struct error *error)
{
    enum status status = STATUS_OK;
    while (status == STATUS_OK && run->queued - run->step > ahead) {
        status = collect_step(run, error);
    }
    return status;
}

// --- saving ----------------------------------------------------------------------------------

static enum status write_checkpoint(struct run *run, char path[RUN_PATH], struct error *error)
{
    if (!run->writes) {
        return STATUS_OK;
    }
    char history[HISTORY_BYTES];
    history_print(&run->history, history);
    const struct checkpoint_state state = {
        .step = run->step,
        .position = {.epoch = (uint32_t)(run->step / run->steps_per_epoch),
                     .batch = run->step % run->steps_per_epoch},
        .dataset_id = dataset_id(run->dataset),
        .config = run->config_text,
        .history = history,
    };
    enum status status = metrics_flush(run->metrics, true, error);
    return status == STATUS_OK
               ? checkpoint_save(run->options->run_directory, run->device, run->method, &state,
                                 (unsigned)run->config.keep_checkpoints, path, error)
               : status;
}

// All ranks together: what rank 0 could not write, all know.
static enum status save(struct run *run, struct error *error)
{
    char path[RUN_PATH] = "";
    run->checkpointed = run_now();
    enum status status = write_checkpoint(run, path, error);
    status = comm_agree(run->comm, status, NULL, error);
    if (status == STATUS_OK) {
        snprintf(run->checkpoint, sizeof run->checkpoint, "%s", path);
        run->saved = true;
        run->saved_step = run->step;
    }
    return status;
}

// A state that is not finite cannot go on; any other failure leaves the older checkpoint and
// training continues.
static enum status save_in_between(struct run *run, struct error *error)
{
    struct error failure;
    enum status status = run_compare_ranks(run, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = save(run, &failure);
    if (status == STATUS_INVALID) {
        return error_set(error, status, NULL, NOWHERE, NOWHERE,
                         "after step %" PRIu64 " %s: lower base_learning_rate or lengthen "
                         "warmup_epochs",
                         run->step, failure.reason);
    }
    if (status != STATUS_OK) {
        run_notice_error(run, "WARNING: no checkpoint could be written, training goes on",
                         &failure);
    }
    return STATUS_OK;
}

// --- probing ---------------------------------------------------------------------------------

// At the end of an epoch, once, and only of a state that stands on disk: a resumed run knows by its
// log what is done, and makes up what a kill came before.
static bool probe_due(const struct run *run)
{
    uint64_t epochs = run->step / run->steps_per_epoch;
    bool ended = run->step > 0 && run->step % run->steps_per_epoch == 0;
    bool wanted = epochs % (uint64_t)run->config.probe_every == 0 || run->step == run->total;
    return run->probe != NULL && run->queued == run->step && ended && wanted && run->saved &&
           run->saved_step == run->step && metrics_probed(run->metrics) < run->step;
}

static void tell_probe(struct run *run, double seconds)
{
    const struct online_score *score = &run->probed;
    char rank[64] = "";
    if (isfinite(score->rankme)) {
        snprintf(rank, sizeof rank, "; RankMe %.1f of %" PRIu32, score->rankme, score->width);
    }
    run_notice(run,
               "epoch %" PRIu64 ": kNN top-1 %.1f%% of %" PRIu64 " images by %" PRIu64
               " others%s; %.1f s",
               run->step / run->steps_per_epoch, 100 * score->knn_top1, score->images, score->bank,
               rank, seconds);
}

// Reads the checkpoint that has just been written; nothing of this run's device or loader. A probe
// that fails costs its figures, never the run.
static void probe(struct run *run)
{
    struct error failure;
    double began = run_now();
    if (online_measure(run->probe, run->checkpoint, run->config.device, &run->probed, &failure) !=
        STATUS_OK) {
        run_notice_error(run, "WARNING: the probe failed, training goes on", &failure);
        return;
    }
    double seconds = run_now() - began;
    const struct metrics_probe line = {
        .step = run->step,
        .epoch = (uint32_t)((run->step - 1) / run->steps_per_epoch),
        .images = run->probed.images,
        .bank = run->probed.bank,
        .knn = run->probed.knn_top1,
        .knn_top5 = run->probed.knn_top5,
        .rankme = run->probed.rankme,
        .rankme_projections = run->probed.rankme_projections,
        .seconds = seconds,
    };
    tell_probe(run, seconds);
    if (metrics_write_probe(run->metrics, &line, &failure) != STATUS_OK) {
        run_notice_error(run, "WARNING: the log cannot be written now, training goes on", &failure);
    }
}

// Before the next step, of which those in flight are a part.
static bool checkpoint_due(const struct run *run)
{
    int64_t seconds = run->config.checkpoint_seconds;
    bool stepped = run->steps_here > 0 || run->queued > run->step;
    return stepped && (run->queued % run->steps_per_epoch == 0 ||
                       (seconds > 0 && run_now() - run->checkpointed >= (double)seconds));
}

static bool stop_requested(const struct run *run)
{
    return run->options->stop && *run->options->stop;
}

// What comes before a step: a batch, unless a rank wants to stop or has failed; and a checkpoint
// when rank 0 finds that one is due. STATUS_STOPPED: there is no step.
static enum status prepare_step(struct run *run, const struct batch **batch, double *waited,
                                struct error *error)
{
    enum { STOP = 1, SAVE = 2 };
    unsigned wishes = stop_requested(run) ? STOP : 0;
    wishes |= run->writes && checkpoint_due(run) ? SAVE : 0;
    double start = run_now();
    enum status status = STATUS_OK;
    if (!(wishes & STOP)) {
        status = loader_next(run->loader, batch, error);
    }
    status = comm_agree(run->comm, status, &wishes, error);
    *waited = run_now() - start;
    if (status == STATUS_OK && wishes & SAVE) {
        status = collect_steps(run, 0, error);
        if (status == STATUS_OK) {
            status = save_in_between(run, error);
        }
    }
    bool stop = wishes & STOP || *batch == NULL;
    if (status == STATUS_OK && !stop && probe_due(run)) {
        probe(run);
    }
    return status == STATUS_OK && stop ? STATUS_STOPPED : status;
}

// After the end, a stop or a failure of the data the state is good; after a bad loss or a failed
// device it is not.
static bool is_good(const struct run *run, enum status ended)
{
    return comm_together(run->comm) && ended != STATUS_INVALID && ended != STATUS_DEVICE;
}

// STATUS_STOPPED, or a failure of the data: steps in flight are good, and belong to the state.
static enum status collect_last(struct run *run, enum status ended, struct error *error)
{
    struct error failure;
    enum status status = collect_steps(run, 0, &failure);
    if (status == STATUS_OK) {
        return ended;
    }
    *error = failure;
    return status;
}

static enum status run_steps(struct run *run, struct error *error)
{
    unsigned takes = run->device->ops->steps_ahead;
    uint64_t ahead = takes < RUN_MOST_AHEAD ? takes : RUN_MOST_AHEAD;
    while (run->queued < run->last) {
        const struct batch *batch = NULL;
        double waited = 0;
        enum status status = prepare_step(run, &batch, &waited, error);
        if (status != STATUS_OK) {
            return is_good(run, status) ? collect_last(run, status, error) : status;
        }
        status = queue_step(run, batch, waited, error);
        if (status == STATUS_OK) {
            status = collect_steps(run, ahead, error);
        }
        if (status != STATUS_OK) {
            return status;
        }
    }
    return collect_steps(run, 0, error);
}

// A good state is worth keeping.
static enum status save_at_end(struct run *run, enum status ended, struct error *error)
{
    bool in_flight = run->queued > run->step; // after a failure that nobody has a name for
    if (!is_good(run, ended) || in_flight || (run->saved && run->saved_step == run->step) ||
        run->step == 0) {
        return ended;
    }
    struct error failure;
    enum status status = run_compare_ranks(run, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = save(run, &failure);
    if (status == STATUS_OK) {
        return ended;
    }
    run_notice_error(run, "WARNING: the last checkpoint could not be written", &failure);
    return error_set(error, status, failure.path, NOWHERE, NOWHERE,
                     "the checkpoint of step %" PRIu64 " could not be written (%s); the newest "
                     "good one is of step %" PRIu64,
                     run->step, failure.reason, run->saved_step);
}

// Over all ranks, where they are together; else those of this one.
static uint64_t count_skips(struct run *run)
{
    const struct device_peers *peers = comm_together(run->comm) ? comm_peers(run->comm) : NULL;
    double skips = (double)loader_counters(run->loader).skips;
    if (peers != NULL && peers->sum(peers->context, &skips, 1) != STATUS_OK) {
        comm_part(run->comm);
    }
    return (uint64_t)skips;
}

static void fill_result(struct run *run, struct pretrain_result *result)
{
    double seconds = run_now() - run->began;
    *result = (struct pretrain_result){
        .step = run->step,
        .loss = run->history.smooth_loss,
        .top1 = run->history.smooth_top1,
        .spread = run->history.smooth_spread,
        .knn = run->probed.knn_top1,
        .rankme = run->probed.rankme,
        .seconds = seconds,
        .pairs_per_second = (double)run->steps_here * (double)run->config.batch / seconds,
        .data_wait = run->wait / seconds,
        .skipped_records = count_skips(run),
        .device_bytes = run->method->ops->memory(run->method),
        .loader_bytes = loader_memory(run->loader),
    };
    snprintf(result->checkpoint, sizeof result->checkpoint, "%.*s",
             (int)sizeof result->checkpoint - 1, run->saved ? run->checkpoint : "");
    char *inexact = dataset_not_exact(run->dataset);
    snprintf(result->not_exact, sizeof result->not_exact, "%s", inexact ? inexact : "");
    free(inexact);
}

static enum status write_report(const struct run *run, enum status ended,
                                const struct pretrain_result *result, struct error *error)
{
    if (!run->writes) {
        return ended;
    }
    char device[128];
    run->device->ops->describe(run->device, device, sizeof device);
    const struct report report = {
        .ended = ended,
        .reason = ended == STATUS_OK || ended == STATUS_STOPPED || !error ? "" : error->reason,
        .device = device,
        .ranks = comm_ranks(run->comm),
        .dataset = run->dataset,
        .loader = run->loader,
        .result = result,
        .from = run->step - run->steps_here,
        .steps = run->last,
        .seconds_in_all = run->history.seconds,
        .healthy = run->healthy,
    };
    struct error failure;
    enum status status = report_write(run->options->run_directory, &report, &failure);
    if (status == STATUS_OK || (ended != STATUS_OK && ended != STATUS_STOPPED)) {
        return ended;
    }
    return error_set(error, status, failure.path, NOWHERE, NOWHERE, "%s", failure.reason);
}

enum status pretrain_run(const struct pretrain_options *options, struct pretrain_result *result,
                         struct error *error)
{
    struct run run;
    struct error own = {0};
    error = error ? error : &own;
    *result = (struct pretrain_result){
        .loss = NAN, .top1 = NAN, .spread = NAN, .knn = NAN, .rankme = NAN};
    enum status status = run_open(&run, options, error);
    if (status == STATUS_OK) {
        run.began = run.checkpointed = run_now();
        status = run_steps(&run, error);
        status = save_at_end(&run, status, error);
        if (status == STATUS_OK && probe_due(&run)) {
            probe(&run);
        }
        tell_skips(&run);
        fill_result(&run, result);
        status = write_report(&run, status, result, error);
    }
    run_close(&run);
    return status;
}
