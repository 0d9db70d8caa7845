// What `byol bench` can measure: one function per subject, found by tools/cmd_bench.c.
#ifndef TOOLS_BENCH_H
#define TOOLS_BENCH_H

// `argv[0]` is the subject's name. Each prints its own help, results and errors and returns the
// exit code.
int bench_device(int argc, char **argv);
int bench_loader(int argc, char **argv);
int bench_step(int argc, char **argv);

#endif
