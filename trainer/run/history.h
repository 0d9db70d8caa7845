// What a run remembers from step to step beside the method's tensors: sums for the next line of the
// log, smoothed figures for the eye, and the collapse alarm. It is saved in every checkpoint, so
// that the log of a resumed run equals that of an undisturbed one.
#ifndef TRAINER_RUN_HISTORY_H
#define TRAINER_RUN_HISTORY_H

#include "trainer/method/method.h"
#include "trainer/run/metrics.h"

#define HISTORY_BYTES 1024 // room for its text

struct history {
    // Sums over the steps since the last line of the log.
    uint64_t window_steps;
    double loss, representation, classification, top1, top5, spread;
    double positive_cosine, negative_cosine;
    // Exponential averages (0.95) over all steps; the first step starts them.
    uint64_t steps;
    double smooth_loss, smooth_top1, smooth_spread;
    // Collapse alarm.
    uint64_t low_steps; // in a row with a spread under a fifth of the healthy one
    bool collapsed;
    double seconds; // in training, all sessions together
};

enum history_event { HISTORY_QUIET, HISTORY_COLLAPSED, HISTORY_RECOVERED };

// Takes in a step. `healthy` is the spread of projections that use all directions. The alarm rises
// after 50 low steps in a row and falls when the spread is back at two fifths.
enum history_event history_add(struct history *history, const struct method_metrics *metrics,
                               double healthy);

// Means since the last line into `line`, and starts the next window.
void history_take(struct history *history, struct metrics_line *line);

// As JSON text and back.
void history_print(const struct history *history, char text[HISTORY_BYTES]);
enum status history_parse(struct history *history, const char *text, struct error *error);

#endif
