// Reads a whole dataset: every file against its checksum, every record against its own, every image
// through the decoder.
#ifndef TOOLS_VERIFY_H
#define TOOLS_VERIFY_H

#include "formats/dataset.h"
#include "tools/progress.h"

#define VERIFY_LISTED 1000

struct verify_report {
    uint64_t bad_files, bad_records; // all of them
    struct error *errors;            // the first VERIFY_LISTED, files before records, in order
    size_t error_count;
};

// Damage is reported, not returned: a failure here means that the check itself could not run.
enum status verify_dataset(const struct dataset *dataset, unsigned threads,
                           struct progress *progress, struct verify_report *report,
                           struct error *error);
void verify_report_free(struct verify_report *report);

#endif
