// What the parts of `byol convert` share: options, what came out, the run and its report.
#ifndef TOOLS_CONVERT_H
#define TOOLS_CONVERT_H

#include "formats/braces.h"
#include "tools/command.h"
#include "tools/convert_pool.h"
#include "tools/convert_select.h"
#include "tools/progress.h"
#include "trainer/comm/comm.h"

#define CONVERT_THREADS_MAX 256
#define SKIPS_LISTED        1000 // in the JSON; all are counted
#define SKIPS_PRINTED       20

struct convert_options {
    const char *output;
    enum dataset_store store;
    bool skip_bad, no_verify, recode, force, restart, json, quiet;
    int64_t threads, shard_mib;
    struct convert_resize resize;
    struct select_options select;
};

struct skip {
    char *name;
    enum status status;
    char *reason;
};

// What became of the images where recoding was asked for.
struct recode_counts {
    uint64_t outcomes[RECODE_OUTCOMES]; // of JPEGs
    uint64_t others;                    // PNG
    uint64_t before, after;             // bytes of those recoded
};

// What the images were, before anything was done to them.
struct kind_counts {
    uint64_t jpeg, png;
    uint64_t progressive, cmyk, grey; // of the JPEGs
    uint64_t misnamed;                // a PNG that is named like a JPEG, or the reverse
    uint64_t resized;                 // made smaller
};

// Numbers that add up over processes.
struct convert_totals {
    uint64_t images, bytes, resumed, skipped;
    struct recode_counts recoded;
    struct kind_counts kinds;
};

// One dataset that is being made.
struct convert_output {
    char path[512];
    struct dataset_writer *writer; // NULL where this process has none of its images
    uint64_t first, end;           // of its images, those that this process converts
    uint64_t seen;                 // of its images, so far in this pass
    uint64_t resume_at;            // images of the sources below this one are done
    struct convert_totals totals;
    struct skip *skips; // the first SKIPS_LISTED
};

struct convert {
    struct convert_options options;
    struct braces sources;
    struct comm *comm; // NULL alone

    struct progress progress;
    char **described; // by source: kind and layout
    struct source_plan *plan;
    struct select *select;
    struct convert_pool *pool;
    struct convert_output *outputs;
    size_t output_count;
    struct source_counts counts; // summed over sources
    uint64_t scanned_bytes;      // of images, as far as the sources tell sizes
    bool sizes_known;
    uint64_t fingerprint; // of all names and sizes
    uint64_t position;    // number of the next image in the second pass
    uint64_t done, done_bytes;
    uint64_t work; // images that this process converts
    double scan_seconds, convert_seconds, commit_seconds;
};

// Does it all; what is left to close, convert_close does.
enum status convert_run(struct convert *convert, struct error *error);
void convert_close_writers(
    struct convert *convert); // after a failure: what is kept then is settled
void convert_close(struct convert *convert);

void convert_print(const struct convert *convert);
int convert_print_json(const struct convert *convert); // returns the exit code

// Joins what the processes wrote: convert_join.c.
enum status convert_join(struct convert *convert, struct error *error);
// Where process `rank` puts its part of an output.
void convert_part_path(const struct convert_output *output, unsigned rank, char *path, size_t size);

// The text that the index keeps (convert_provenance.c); malloc'ed, NULL without memory.
char *convert_provenance(const struct convert *convert);
// All that decides about the bytes, for the journal.
char *convert_identity(const struct convert *convert, const struct convert_output *output);

#endif
