// What the parts of `byol convert` share: options, what came out, the run and its report.
#ifndef TOOLS_CONVERT_H
#define TOOLS_CONVERT_H

#include "formats/braces.h"
#include "tools/command.h"
#include "tools/convert_pool.h"
#include "tools/convert_select.h"
#include "tools/progress.h"
#include "trainer/comm/comm.h"

#include <signal.h>

#define CONVERT_THREADS_MAX 256
#define SKIPS_LISTED        1000 // in the JSON; all are counted
#define SKIPS_PRINTED       20
#define PART_PATH_BYTES     560

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
    struct dataset_writer *joined; // of several processes, the first's: all parts
    uint64_t first, end;           // of its images, those that this process converts
    uint64_t seen;                 // of its images, so far in this pass
    uint64_t resume_at;            // images of the sources below this one are done
    struct convert_totals totals;
    struct skip *skips; // the first SKIPS_LISTED; NULL = none
};

struct convert {
    struct convert_options options;
    struct braces sources;
    struct comm *comm;                    // NULL alone
    const volatile sig_atomic_t *stopped; // whether the person wants it to end

    struct progress progress;
    char **described; // by source: kind and layout
    struct source_plan *plan;
    struct select *select;
    struct convert_pool *pool;
    struct convert_output *outputs;
    size_t output_count;
    struct dataset_places places; // in the first process: left by a killed conversion
    bool placing;                 // they are ours: all that is left to do
    struct source_counts counts;  // summed over sources
    uint64_t scanned_bytes;       // of images, as far as the sources tell sizes
    bool sizes_known;
    uint64_t fingerprint; // of all names and sizes
    uint64_t position;    // number of the next image in the second pass
    uint64_t done, done_bytes;
    uint64_t work; // images that this process converts
    double scan_seconds, convert_seconds, commit_seconds;
};

// Does it all; what is left to close, convert_close does.
enum status convert_run(struct convert *convert, struct error *error);
void convert_close(struct convert *convert);
// Some of the output's images must be usable.
enum status convert_check_images(const struct convert *convert, const struct convert_output *output,
                                 struct error *error);

void convert_print(const struct convert *convert);
int convert_print_json(const struct convert *convert); // returns the exit code

// --- outputs: convert_outputs.c ----------------------------------------------------------------

enum status convert_name_outputs(struct convert *convert, struct error *error);
// Before names are read: what stands under the outputs' names. One that is taken should be heard of
// at once, not after reading a terabyte.
enum status convert_look_for_remains(struct convert *convert, struct error *error);
// Afterwards, whether what was found is of this conversion.
enum status convert_judge_remains(struct convert *convert, struct error *error);
enum status convert_open_outputs(struct convert *convert, struct error *error);
enum status convert_keep_skip(struct convert_output *output, const char *name, enum status status,
                              const char *reason, struct error *error);
enum status convert_finish_outputs(struct convert *convert, struct error *error);
enum status convert_place_outputs(struct convert *convert, struct error *error);
// After a failure: what is kept then is settled.
void convert_close_writers(struct convert *convert);
// Where process `rank` begins in so many images.
uint64_t convert_share(uint64_t images, unsigned rank, unsigned ranks);

// --- several processes: convert_join.c ---------------------------------------------------------

// Where process `rank` puts its part of an output; the part stays under that name with .partial.
void convert_part_path(const struct convert_output *output, unsigned rank, unsigned ranks,
                       char *path, size_t size);
// STATUS_EXISTS where there are parts of another number of processes; with --restart removes them.
enum status convert_check_parts(const struct convert *convert, const struct convert_output *output,
                                struct error *error);
void convert_remove_parts(const struct convert *convert, const struct convert_output *output);
// Joins what the processes wrote.
enum status convert_join(struct convert *convert, struct error *error);

// --- what is kept ------------------------------------------------------------------------------

// The text that the index keeps (convert_provenance.c); malloc'ed, NULL without memory.
char *convert_provenance(const struct convert *convert);
// All that decides about the bytes of some images of an output, for the journal.
char *convert_identity(const struct convert *convert, size_t output, uint64_t first, uint64_t end);

// What the journal keeps of an image, and what it counts (convert_trace.c).
uint64_t convert_trace(const struct convert_job *job);
void convert_count(struct convert_totals *totals, uint64_t trace);

// The report's numbers, for the one who puts the datasets in place after a kill
// (convert_outcome.c); malloc'ed, NULL without memory. The other way: from convert->places.
char *convert_outcome(const struct convert *convert, size_t *len);
enum status convert_outcome_read(struct convert *convert, struct error *error);

#endif
