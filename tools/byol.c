// The program `byol`: finds the subcommand and runs it.
#include "pipeline/api/byol.h"
#include "formats/isa.h"
#include "formats/nearest.h"
#include "tools/command.h"
#include "tools/help_text.h"
#include "tools/interrupt.h"
#include "tools/version.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct command *const command_table[] = {
    &command_example, &command_convert, &command_inspect,    &command_views,  &command_pretrain,
    &command_eval,    &command_ablate,  &command_report,     &command_export, &command_export_data,
    &command_bench,   &command_doctor,  &command_completion, &command_manual, NULL,
};
enum { COMMAND_COUNT = sizeof command_table / sizeof command_table[0] - 1 };

// With up to 16 commands it all fits a screen of 24 lines.
static const char introduction[] =
    "byol learns image features without labels (BYOL: Bootstrap Your Own Latent).\n"
    "\n"
    "Usage: byol COMMAND [options]    byol COMMAND --help explains each, by example\n"
    "\n"
    "A first run, from nothing to a number, all offline:\n"
    "  byol example pictures                   # draw 4,000 labelled JPEGs\n"
    "  byol convert pictures/train -o train    # any folder or tar; test too\n"
    "  byol views train -o sheet.png           # what the network will see\n"
    "  byol pretrain --data train --run run    # Ctrl-C any time; --resume goes on\n"
    "  byol eval knn --run run --train train --test test\n"
    "\n"
    "Commands:\n";

static const char lesson[] =
    "\n"
    "To read on: byol COMMAND --help, or man byol-COMMAND. Results go to stdout (as\n"
    "JSON with --json), messages to stderr. Exit codes: 0 success, 1 failure, 2 wrong\n"
    "usage. BYOL_ISA=v2|v3|v4 forces vector instructions; all give the same bytes.\n";

#define COLUMN  39 // of the second of two commands on a line
#define SUMMARY 25 // columns of one that leaves room for another

// Two commands a line; one where words are longer.
void command_overview(FILE *stream)
{
    int used = 0;
    fputs(introduction, stream);
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        const struct command *command = command_table[i];
        bool wide = strlen(command->summary) > SUMMARY;
        if (used > 0) {
            fprintf(stream, "%*s", wide ? 0 : COLUMN - used, wide ? "\n" : "");
            used = wide ? 0 : COLUMN;
        }
        bool second = used > 0;
        used += fprintf(stream, "  %-11s %s", command->name, command->summary);
        if (second || wide || i + 1 == COMMAND_COUNT) {
            fputc('\n', stream);
            used = 0;
        }
    }
    fputs(lesson, stream);
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(command_table[i]->name, name) == 0) {
            return command_table[i];
        }
    }
    return NULL;
}

static int unknown_command(const char *name)
{
    const char *names[COMMAND_COUNT];
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        names[i] = command_table[i]->name;
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
        command_overview(stderr);
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
            help_print(topic->help, HELP_COLUMNS, stdout);
        } else {
            command_overview(stdout);
        }
        return flushed(EXIT_OK);
    }
    struct error error;
    if (isa_init(&error) != STATUS_OK) {
        fprintf(stderr, "byol: %s\n", error.reason);
        return EXIT_USAGE;
    }
    const struct command *command = find_command(name);
    if (command == NULL) {
        return unknown_command(name);
    }
    interrupt_begin(command->name);
    return flushed(command->run(argc - 1, argv + 1));
}
