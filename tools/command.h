// What every subcommand shares: its entry in the dispatch table, option parsing, messages, and the
// exit codes.
#ifndef TOOLS_COMMAND_H
#define TOOLS_COMMAND_H

#include "formats/status.h"

#include <stdbool.h>
#include <stdio.h>

// A subcommand of `byol`. One per tools/cmd_NAME.c, listed in tools/byol.c.
struct command {
    const char *name;
    const char *summary; // for `byol --help`, where 25 columns have room
    const char *help;    // the whole --help text: usage, options, an example, exit codes
    int (*run)(int argc, char **argv); // argv[0] is the subcommand's name; returns the exit code
    const struct command *const *subjects; // "bench loader" of "bench", NULL-terminated; NULL: none
};

extern const struct command
    *const command_table[]; // in the order of `byol --help`, NULL-terminated
const char *command_own_name(const struct command *command); // "loader" of "bench loader"
void command_overview(FILE *stream);                         // what `byol --help` prints

extern const struct command command_convert, command_inspect, command_views, command_example,
    command_pretrain, command_eval, command_ablate, command_report, command_export,
    command_export_data, command_bench, command_doctor, command_completion, command_manual;

// Exit codes of the program: 0 success, 1 failure (message on stderr), 2 wrong usage. With --json
// the failure is also an object on stdout: {"error": …, "status": …}.
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

// --- options -------------------------------------------------------------------------------------

enum option_type { OPTION_FLAG, OPTION_STRING, OPTION_INT, OPTION_FLOAT, OPTION_LIST };

#define OPTION_LIST_MAX 4096 // the shards of a data set, as the shell names them

struct option_list {
    const char *item[OPTION_LIST_MAX];
    size_t count;
};

// `--name VALUE` or `--name=VALUE`; `letter` is the one-letter form or 0. `target` points to bool,
// const char *, int64_t, double or struct option_list. Numbers are checked against [min, max].
struct option {
    const char *name;
    char letter;
    enum option_type type;
    void *target;
    double min, max;
};

// Parses options anywhere on the line; what is left is collected into `operands`. `--help` prints
// command->help and sets *done. On wrong usage prints the message, the nearest option when one was
// misspelt, and a hint to --help, and returns EXIT_USAGE; else EXIT_OK.
int command_options(const struct command *command, int argc, char **argv,
                    const struct option *options, size_t count, struct option_list *operands,
                    bool *done);

// Index of `value` among "a|b|c", or -1 after saying what --option may be.
int command_choice(const struct command *command, const char *option, const char *value,
                   const char *choices);

// Prints "byol NAME: MESSAGE" to stderr (and the JSON object to stdout when `json`), returns
// EXIT_FAILED.
int command_failed(const struct command *command, const struct error *error, bool json);

// Prints a usage mistake and the hint to --help; returns EXIT_USAGE.
int command_misused(const struct command *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
