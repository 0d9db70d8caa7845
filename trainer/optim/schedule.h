// Learning rate and target decay per step, as the reference computes them
// (google-deepmind/deepmind-research byol/utils/schedules.py), in float32.
#ifndef TRAINER_OPTIM_SCHEDULE_H
#define TRAINER_OPTIM_SCHEDULE_H

#include <stdint.h>

// scaled = base * batch / 256; step < warmup: scaled * step / warmup; else the cosine from scaled
// to 0 at `total`.
float schedule_learning_rate(uint64_t step, float base, uint64_t batch, uint64_t warmup,
                             uint64_t total);

// 1 - (1 - base) * (cos(pi * min(step, total) / total) + 1) / 2
float schedule_tau(uint64_t step, float base, uint64_t total);

#endif
