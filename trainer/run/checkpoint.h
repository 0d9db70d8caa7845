// Checkpoints: one .safetensors file each (names: trainer/README.md) whose metadata carries config,
// position and CRCs. A checkpoint holds everything resume needs. Files get new names
// ("checkpoint-000000001234.safetensors" by step), are written durably and verified, and older ones
// are removed only after a newer one verified.
#ifndef TRAINER_RUN_CHECKPOINT_H
#define TRAINER_RUN_CHECKPOINT_H

#include "formats/safetensors.h"
#include "pipeline/loader.h"
#include "trainer/method/method.h"

#define CHECKPOINT_FORMAT "byol-checkpoint" // metadata "format"

struct checkpoint_state {
    uint64_t step;                   // optimiser steps done
    struct loader_position position; // next batch
    uint64_t dataset_id;
    const char *config;  // resolved YAML text
    const char *history; // what the log needs to go on (JSON text), or ""
};

// Writes RUN/checkpoints/checkpoint-STEP.safetensors and removes all but the newest `keep` up to
// that step. `path` gets its name (RUN_PATH bytes). STATUS_INVALID when a tensor is not finite: a
// state that cannot go on never becomes a checkpoint.
enum status checkpoint_save(const char *run_directory, struct device *device, struct method *method,
                            const struct checkpoint_state *state, unsigned keep, char *path,
                            struct error *error);

// The newest checkpoint that verifies. Damaged ones are passed over and described in `warning` (""
// when none). STATUS_NOT_FOUND when there is none at all; STATUS_CORRUPT when all are damaged:
// never a silent start from step 0.
enum status checkpoint_latest(const char *run_directory, char *path, size_t capacity, char *warning,
                              size_t warning_capacity, struct error *error);

// Renames the checkpoints after `step`, which checkpoint_latest found damaged, to NAME.damaged, so
// that they neither count as kept nor stand in the way of new ones.
enum status checkpoint_set_aside(const char *run_directory, uint64_t step, struct error *error);

// Opens a checkpoint that verifies and reads its state (strings point into `*out`). STATUS_VERSION
// for a newer format.
enum status checkpoint_open(struct safetensors **out, const char *path,
                            struct checkpoint_state *state, struct error *error);

// The tensors into the method: all of them, exact shapes.
enum status checkpoint_restore(const struct safetensors *file, struct device *device,
                               struct method *method, struct error *error);

#endif
