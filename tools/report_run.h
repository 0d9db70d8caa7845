// What a run directory says, as `byol report` needs it: curves, settings, how its sessions ended.
// Read while the run is going on or after it; nothing in the directory is changed or locked.
#ifndef TOOLS_REPORT_RUN_H
#define TOOLS_REPORT_RUN_H

#include "formats/dataset.h"
#include "trainer/run/config.h"

#include <jansson.h>

enum report_figure {
    REPORT_LOSS,
    REPORT_REPRESENTATION, // the loss without the classifier's
    REPORT_KNN,
    REPORT_TOP1,
    REPORT_LEARNING_RATE,
    REPORT_TAU,
    REPORT_SPEED,
    REPORT_WAIT,
    REPORT_SPREAD, // share of the healthy spread
    REPORT_RANKME,
    REPORT_RANKME_PROJECTIONS,
    REPORT_POSITIVE,
    REPORT_NEGATIVE,
    REPORT_FIGURES,
};

// Figures that exist, by step.
struct report_series {
    double *step, *value;
    size_t count, capacity;
};

struct report_setting {
    char *key, *value;
};

struct report_run {
    const char *directory; // as given, borrowed
    char name[256];        // short, unlike the others'
    struct report_series series[REPORT_FIGURES];
    uint64_t last_step;        // of the log, 0 when it is empty
    uint64_t steps_per_epoch;  // 0: unknown
    uint64_t collapsed;        // the first step with the collapse alarm, 0: never
    uint64_t lines, bad_lines; // of the log; bad ones are passed over
    struct run_config config;  // when `has_config`
    bool has_config;
    struct report_setting *settings;
    size_t setting_count;
    json_t *end;     // report.json, or NULL
    char *not_exact; // what was done to the images that the run learns from, or NULL
    char note[640];  // what could not be read, or ""
};

// STATUS_NOT_FOUND when it is no run: neither a log nor settings. A directory that lacks one of its
// files, or has a damaged one, is read as far as it goes, and `note` says so.
enum status report_run_open(struct report_run *run, const char *directory, struct error *error);
void report_run_close(struct report_run *run);

// The run's training data, where report.json says that it lies; NULL when it is not there any more,
// or another dataset is.
struct dataset *report_dataset(const struct report_run *run);

// Names that tell the runs apart: the last part of the path where that is enough.
void report_run_name(struct report_run *runs, size_t count);

// The last value; NaN when there is none.
double report_last(const struct report_run *run, enum report_figure figure);
double report_median(const struct report_run *run, enum report_figure figure);

const char *report_setting_of(const struct report_run *run, const char *key); // NULL when missing

#endif
