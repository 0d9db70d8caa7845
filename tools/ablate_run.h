// Runs what an ablation has left to do: children of this program, one or several at a time.
#ifndef TOOLS_ABLATE_RUN_H
#define TOOLS_ABLATE_RUN_H

#include "tools/ablate_store.h"
#include "tools/progress.h"

struct ablate_job {
    const struct ablate_row *row;
    int64_t seed;
    char directory[RUN_PATH];
    struct ablate_state state; // when planned; kept up to date
    double pairs, done_pairs;  // of the training

    // While it runs.
    int log;    // what its children print to stderr, and the lock of the run; -1: not ours
    bool told;  // that another process works on it
    int pid;    // 0 = none
    int stage;  // 0 trains, n measures plan->measures[n - 1]
    int output; // what the child prints
    unsigned ended_early; // how often a child ended by a signal
    double retry_at;      // monotonic; 0 = at once
    bool over;            // finished or given up
};

struct ablate_work {
    const struct ablate_plan *plan;
    const struct ablate_overrides *overrides;
    struct ablate_job *jobs;
    size_t count;
    int64_t slots;
    struct progress *progress;

    double began, pairs_before; // for the estimate
    int stopped_by;             // a signal, or 0
    int forwarded;
};

// Works until everything is done or has failed, or a signal came; then children were asked to stop
// and have ended. Failures of runs are kept beside them and in their states. A run that another
// process works on is left to it and looked at again when that one is through.
void ablate_work_run(struct ablate_work *work);

// The next stage of a job, -1 when nothing is left.
int ablate_next_stage(const struct ablate_plan *plan, const struct ablate_state *state);

#endif
