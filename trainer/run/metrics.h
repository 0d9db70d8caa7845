// metrics.jsonl: one JSON object per line, in the order of the steps. Everything outside the
// object's "timing" member is the same in an interrupted and an undisturbed run.
//
// Lines that cannot be written (a full disk) wait in memory, some 350 of them, and metrics_flush
// writes them later. A checkpoint is only taken after it succeeded, so that a resumed log has no
// hole.
#ifndef TRAINER_RUN_METRICS_H
#define TRAINER_RUN_METRICS_H

#include "formats/status.h"
#include "trainer/device/device.h"

#include <stdbool.h>

struct metrics_line {
    uint64_t step;
    uint32_t epoch; // from 0
    // Means over the steps since the last line; NaN is written as null.
    double loss, representation, classification, top1, top5, spread;
    double positive_cosine, negative_cosine;
    double learning_rate, tau; // of this step
    bool collapsed;            // the collapse alarm stands
    // Timing.
    double seconds; // in training, all sessions together
    double pairs_per_second, data_wait;
    double op_seconds[OP_KINDS], exchange_seconds, optimiser_seconds; // per step
};

// A probe of the features: a line of its own, after that of its step. NaN is written as null.
struct metrics_probe {
    uint64_t step;
    uint32_t epoch;        // from 0: the one that ended
    uint64_t images, bank; // classified, and voting
    double knn, knn_top5, rankme, rankme_projections;
    double seconds; // timing
};

struct metrics;

// Opens for appending after cutting back to lines of at most `step`; 0 empties the log. A line cut
// short by a kill goes too. TensorBoard's events (events.h) stand beside it.
enum status metrics_open(struct metrics **out, const char *path, uint64_t step,
                         struct error *error);
// Without a flush: lines still waiting are lost.
void metrics_close(struct metrics **metrics);

enum status metrics_write(struct metrics *metrics, const struct metrics_line *line,
                          struct error *error);

enum status metrics_write_probe(struct metrics *metrics, const struct metrics_probe *probe,
                                struct error *error);

uint64_t metrics_probed(const struct metrics *metrics); // step of the last probe, 0 without one

// Writes what waits, and with `sync` also to the disk. Events that cannot be written are no failure
// then: they are made up from the log later.
enum status metrics_flush(struct metrics *metrics, bool sync, struct error *error);

#endif
