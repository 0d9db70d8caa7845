// `byol bench SUBJECT`: finds what to measure and runs it.
#include "formats/nearest.h"
#include "tools/bench.h"
#include "tools/command.h"
#include "tools/help_text.h"

#include <stdio.h>
#include <string.h>

static const struct command *const subjects[] = {
    &command_bench_device,
    &command_bench_loader,
    &command_bench_step,
    NULL,
};
enum { SUBJECT_COUNT = sizeof subjects / sizeof subjects[0] - 1 };

static int unknown_subject(const char *name)
{
    const char *names[SUBJECT_COUNT];
    for (size_t i = 0; i < SUBJECT_COUNT; i++) {
        names[i] = command_own_name(subjects[i]);
    }
    const char *nearest = nearest_name(name, names, SUBJECT_COUNT);
    if (nearest) {
        return command_misused(&command_bench, "cannot measure '%s'; did you mean '%s'?", name,
                               nearest);
    }
    return command_misused(&command_bench, "cannot measure '%s'", name);
}

static int run(int argc, char **argv)
{
    if (argc < 2) {
        return command_misused(&command_bench, "say what to measure");
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        help_print(command_bench.help, HELP_COLUMNS, stdout);
        return EXIT_OK;
    }
    for (size_t i = 0; i < SUBJECT_COUNT; i++) {
        if (strcmp(argv[1], command_own_name(subjects[i])) == 0) {
            return subjects[i]->run(argc - 1, argv + 1);
        }
    }
    return unknown_subject(argv[1]);
}

const struct command command_bench = {
    .name = "bench",
    .summary = "measure speed",
    .help = "Usage: byol bench SUBJECT [options]\n"
            "\n"
            "Subjects:\n"
            "  device   copies, products and single layers: the ceilings of a step\n"
            "  loader   batches of views from a dataset: speed, waits, memory, hash\n"
            "  step     training steps on made-up images: speed, where the time goes, memory\n"
            "\n"
            "byol bench SUBJECT --help explains each.\n"
            "\n"
            "Example:\n"
            "  byol bench loader train --epochs 2 --hash\n"
            "\n"
            "Exit codes: 0 success, 1 failure, 2 wrong usage.\n",
    .run = run,
    .subjects = subjects,
};
