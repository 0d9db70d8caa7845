// A run directory: config.yaml (resolved), metrics.jsonl, checkpoints/, report.json, and `lock`,
// which the one writer holds. Reading a run directory needs no lock.
#ifndef TRAINER_RUN_DIRECTORY_H
#define TRAINER_RUN_DIRECTORY_H

#include "formats/status.h"

#include <stdbool.h>

#define RUN_PATH 1024 // room for a path inside a run directory

// Makes RUN and RUN/checkpoints where missing, takes the lock (STATUS_DENIED names the process that
// has it), and removes temporaries that a killed writer left. `*lock` is a descriptor for
// run_directory_close. The lock goes with the process, however it ends.
enum status run_directory_open(const char *run_directory, int *lock, struct error *error);
void run_directory_close(int *lock);

// Holds a checkpoint, damaged or not, or a log: something to lose. A run that never took a step
// does not.
bool run_directory_used(const char *run_directory);

// RUN/NAME into `path` (RUN_PATH bytes); STATUS_LIMIT when it does not fit.
enum status run_directory_path(const char *run_directory, const char *name, char *path,
                               struct error *error);

#endif
