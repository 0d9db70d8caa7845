// A run in progress, as the files of the training loop share it: start.c opens and closes it,
// pretrain.c steps it, ranks.c compares those that share it. Private to trainer/run.
#ifndef TRAINER_RUN_RUN_H
#define TRAINER_RUN_RUN_H

#include "pipeline/loader.h"
#include "trainer/probe/online.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/directory.h"
#include "trainer/run/history.h"
#include "trainer/run/metrics.h"
#include "trainer/run/pretrain.h"

#define RUN_MOST_AHEAD 3u // steps that are queued while one is computed, whatever the device takes

// A step that was queued and not yet collected.
struct run_flight {
    struct method_step step;
    double waited, began; // for its batch; monotonic seconds, the wait included
};

struct run {
    const struct pretrain_options *options;
    struct comm *comm; // NULL alone
    bool writes;       // rank 0: only it has a lock and a log
    struct run_config config;
    char *config_text;
    int lock;
    struct dataset *dataset;
    struct safetensors *resumed; // the checkpoint we start from; NULL after it is restored
    struct device *device;
    struct method *method;
    struct loader *loader;
    struct metrics *metrics;
    struct online *probe; // NULL without, and on all ranks but the first

    uint64_t steps_per_epoch, warmup, total; // of the schedules
    uint64_t last;                           // step after which this run ends
    uint64_t step;                           // steps done: their metrics have been taken in
    uint64_t queued;                         // steps that the method was given; the same between
                                             // steps on devices that compute at once
    struct run_flight flights[RUN_MOST_AHEAD + 1]; // by their number modulo the length
    double collected;                              // monotonic seconds
    struct history history;
    double healthy;

    struct online_score probed; // the last probe; NaN before

    double began, checkpointed;              // monotonic seconds
    double wait, step_seconds, wait_seconds; // waited in all; smoothed per step
    uint64_t steps_here;                     // in this session
    uint64_t saved_step;                     // of the last good checkpoint
    bool saved;                              // there is one
    uint64_t skips_told;
    bool log_failed;
    char checkpoint[RUN_PATH];
    struct pretrain_progress progress;
};

// In order of cost: what can be refused quickly is refused first. After a failure run_close takes
// what was opened.
enum status run_open(struct run *run, const struct pretrain_options *options, struct error *error);
void run_close(struct run *run);

double run_now(void); // monotonic seconds

// Sends the progress as it is; with a line worth printing once; with an error as that line.
void run_tell(struct run *run);
void run_notice(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
// Every rank has the same dataset, settings and tensors, or all get an error.
enum status run_compare_ranks(struct run *run, struct error *error);

void run_notice_error(struct run *run, const char *what, const struct error *error);

#endif
