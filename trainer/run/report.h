// report.json: how the last session of a run ended, in one JSON object. Its list `sessions` has a
// short entry for each session that came to an end of its own, this one last.
#ifndef TRAINER_RUN_REPORT_H
#define TRAINER_RUN_REPORT_H

#include "pipeline/loader.h"
#include "trainer/run/pretrain.h"

struct report {
    enum status ended;
    const char *reason; // of a failure, else ""
    const char *device; // in words
    unsigned ranks;
    const struct dataset *dataset;
    const struct loader *loader;
    const struct pretrain_result *result;
    uint64_t from;  // step after which this session began
    uint64_t steps; // planned
    double seconds_in_all, healthy;
};

// Writes RUN/report.json durably.
enum status report_write(const char *run_directory, const struct report *report,
                         struct error *error);

#endif
