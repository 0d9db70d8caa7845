// The program `byol`: finds the subcommand and runs it.
#include "formats/isa.h"
#include "formats/nearest.h"
#include "tools/command.h"
#include "tools/version.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct command *const commands[] = {
    &command_convert, &command_inspect, &command_views,  &command_example, &command_pretrain,
    &command_eval,    &command_report,  &command_export, &command_bench,   &command_doctor,
};
enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static const char introduction[] =
    "byol learns image features without labels (BYOL: Bootstrap Your Own Latent).\n"
    "\n"
    "Usage: byol COMMAND [options]        byol COMMAND --help explains each, with an example\n"
    "\n"
    "Commands, in the order you will want them:\n";

static const char lesson[] =
    "\n"
    "From nothing to a number, all offline:\n"
    "  byol example pictures                               # draw 4,000 labelled JPEGs\n"
    "  byol convert pictures/train -o train                # a folder or a tar, in any layout\n"
    "  byol convert pictures/test  -o test\n"
    "  byol views train -o sheet.png                       # what the network will see\n"
    "  byol pretrain --data train --run run                # Ctrl-C any time; --resume goes on\n"
    "  byol eval knn --run run --train train --test test   # how good are the features?\n"
    "  byol report run -o report.html                      # curves, views, settings: one page\n"
    "\n"
    "A dataset is a folder that 'inspect' can describe and verify. A run is a folder too: its\n"
    "config.yaml, metrics.jsonl, and checkpoints that any safetensors reader opens.\n"
    "Results go to stdout (as JSON with --json), messages to stderr. Exit codes: 0 success,\n"
    "1 failure, 2 wrong usage. BYOL_ISA=v2|v3|v4 (neon on ARM) forces the vector instructions; "
    "the\n"
    "widest are the default, and all give the same bytes.\n";

static void print_help(FILE *stream)
{
    fputs(introduction, stream);
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        fprintf(stream, "  %-9s %s\n", commands[i]->name, commands[i]->summary);
    }
    fputs(lesson, stream);
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            return commands[i];
        }
    }
    return NULL;
}

static int unknown_command(const char *name)
{
    const char *names[COMMAND_COUNT];
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        names[i] = commands[i]->name;
    }
    const char *nearest = nearest_name(name, names, COMMAND_COUNT);
    fprintf(stderr, "byol: unknown command '%s'", name);
    if (nearest != NULL) {
        fprintf(stderr, "; did you mean '%s'?", nearest);
    }
    fputs("\nTry 'byol --help'.\n", stderr);
    return EXIT_USAGE;
}

static bool is_any(const char *text, const char *a, const char *b, const char *c)
{
    return strcmp(text, a) == 0 || strcmp(text, b) == 0 || strcmp(text, c) == 0;
}

// What a full disk swallowed must not look like success to a script.
static int flushed(int code)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("byol: write to stdout");
        return code == EXIT_OK ? EXIT_FAILED : code;
    }
    return code;
}

// OpenMP's threads spin while they wait for one another. As soon as anything else wants a core, the
// loader's own workers for a start, a spinning thread keeps it from the very thread it waits for,
// and a training step takes several times as long. libgomp reads its environment before main, so
// the program starts itself anew with the setting; where it cannot, it goes on as it is.
static void wait_without_spinning(char **argv)
{
    if (getenv("OMP_WAIT_POLICY") == NULL && setenv("OMP_WAIT_POLICY", "passive", 1) == 0) {
        execv("/proc/self/exe", argv);
    }
}

int main(int argc, char **argv)
{
    wait_without_spinning(argv);
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (is_any(name, "--version", "-V", "version")) {
        puts("byol " BYOL_VERSION);
        return flushed(EXIT_OK);
    }
    if (is_any(name, "--help", "-h", "help")) {
        const struct command *topic = argc > 2 ? find_command(argv[2]) : NULL;
        if (topic != NULL) {
            fputs(topic->help, stdout);
        } else {
            print_help(stdout);
        }
        return flushed(EXIT_OK);
    }
    struct error error;
    if (isa_init(&error) != STATUS_OK) {
        fprintf(stderr, "byol: %s\n", error.reason);
        return EXIT_USAGE;
    }
    const struct command *command = find_command(name);
    return command ? flushed(command->run(argc - 1, argv + 1)) : unknown_command(name);
}
