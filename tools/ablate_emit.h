// What an ablation would run, shown or written down for something else to run.
#ifndef TOOLS_ABLATE_EMIT_H
#define TOOLS_ABLATE_EMIT_H

#include "tools/ablate_run.h"

// Every run with what is left of it and the commands that do it, to stdout.
enum status ablate_show_plan(const struct ablate_work *work, struct error *error);

// A line for a shell for each run that is left, to stdout.
enum status ablate_emit_commands(const struct ablate_work *work, const char *output,
                                 struct error *error);

// The same lines in OUTPUT/commands.txt, and OUTPUT/slurm.sh, a job array of them; neither when
// nothing is left.
enum status ablate_emit_slurm(const struct ablate_work *work, const char *output,
                              struct error *error);

#endif
