// What `byol bench` can measure: one command per subject, in command_bench.subjects.
#ifndef TOOLS_BENCH_H
#define TOOLS_BENCH_H

#include "tools/command.h"

extern const struct command command_bench_device, command_bench_loader, command_bench_step;

#endif
