// The training loop: batches from the loader, steps of the method, metrics, checkpoints, clean stop
// and exact resume.
#ifndef TRAINER_RUN_PRETRAIN_H
#define TRAINER_RUN_PRETRAIN_H

#include "trainer/comm/comm.h"
#include "trainer/run/config.h"

#include <signal.h>

// What a progress line shows; sent after every step.
struct pretrain_progress {
    uint32_t epoch, epochs;
    uint64_t step, steps;
    double loss, learning_rate, tau;
    double top1;             // online accuracy, NaN without labels
    double spread, healthy;  // of the normalised projections; healthy = 1/sqrt(d)
    double pairs_per_second; // over the last seconds
    double data_wait;        // share of the time spent waiting for a batch
    double seconds_left;
    double knn; // top-1 share of the last probe, NaN before
    const char
        *notice; // a line worth printing once ("resumed from …", "collapse alarm: …"), or NULL
};

struct pretrain_options {
    const char *data;          // dataset directory
    const char *run_directory; // created; refused when it holds a run and `resume` is false
    bool resume; // continue from the newest good checkpoint, or start when there is none
    struct run_config config; // resolved and valid; on resume it must equal the stored one but for
                              // the "how it runs" part
    volatile sig_atomic_t *stop; // becomes non-zero to finish the step, checkpoint and return
                                 // STATUS_STOPPED; may be NULL
    void (*progress)(void *context, const struct pretrain_progress *progress); // may be NULL
    void *context;
    struct comm *comm; // the ranks that share the work, NULL alone: each calls with the same
                       // options. Only rank 0 writes; the others read what it wrote
};

struct pretrain_result {
    uint64_t step;
    double loss, top1, spread, seconds, pairs_per_second, data_wait;
    double knn, rankme; // of the session's last probe: share of 1, of the features; NaN without
    uint64_t skipped_records, device_bytes, loader_bytes;
    char checkpoint[512]; // the last one written
    char not_exact[160];  // what was done to the dataset's images, or ""
};

// Returns STATUS_OK after the last step, STATUS_STOPPED after a requested stop (both with a final
// checkpoint on disk). In the run directory: config.yaml, metrics.jsonl (one object per logged
// step; on resume cut back to the checkpoint's step), TensorBoard's events beside it, checkpoints/,
// report.json at the end. One writer per directory: a lock is held.
//
// With ranks all return the same status, except when one fails by itself in the middle of a step:
// then comm_together is false there, and the caller is to end the job (comm_abort).
enum status pretrain_run(const struct pretrain_options *options, struct pretrain_result *result,
                         struct error *error);

#endif
