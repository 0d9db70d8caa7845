// Pictures of a report: what the network sees, and which images it finds alike.
#ifndef TOOLS_REPORT_PICTURES_H
#define TOOLS_REPORT_PICTURES_H

#include "formats/dataset.h"
#include "tools/report_run.h"

#include <stdio.h>

// A contact sheet by the run's recipe and seed, of a few images of a dataset.
enum status report_sheet(FILE *page, const struct report_run *run, const struct dataset *dataset,
                         struct error *error);

struct report_search {
    const struct dataset *data, *test; // searched; asked for. `test` NULL: both from `data`
    int64_t images;                    // asked for, REPORT_ASKED at most
    int64_t bank;                      // searched, at most
    int64_t checkpoints;               // REPORT_CHECKPOINTS at most: the first, the last, between
    const char *device;                // NULL: the run's, or the cpu in place of a GPU
    int threads;                       // 0 = one per core
    void (*progress)(void *context, const char *stage, uint64_t done, uint64_t total);
    void *context;
};
#define REPORT_ASKED       32
#define REPORT_CHECKPOINTS 8

// A table: a row for each image asked for, a column of nearest neighbours for each checkpoint.
// STATUS_NOT_FOUND when the run has no checkpoint.
enum status report_neighbours(FILE *page, const struct report_run *run,
                              const struct report_search *search, struct error *error);

#endif
