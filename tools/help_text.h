// Help texts as data. `byol --help`, the shells' completion and the man pages all come from them,
// so that none can say something else. What a help text looks like:
//   - "Usage: byol NAME ..." first; further usages below it, indented.
//   - "Name:" at the left margin begins a section, also "Name" over an indented list.
//   - A line that begins with two spaces and '-' begins an option: "-o, --output FILE  words"; at
//     least two spaces stand between its value and its words, or its words begin on the next line.
//     Lines that are indented further belong to it.
#ifndef TOOLS_HELP_TEXT_H
#define TOOLS_HELP_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define HELP_COLUMNS 80 // of a terminal
#define HELP_NAMES   4  // of an option, "--train, --test"

// Pieces of the text; nothing is copied.
struct help_piece {
    const char *at;
    size_t len;
};

struct help_option {
    struct help_piece name[HELP_NAMES]; // "--output" and "-o", as typed
    size_t names;
    struct help_piece value; // "FILE", "lmdb|shards"; empty: a switch
    struct help_piece words; // all of them, line ends and indentation included
};

// The line at `at`, without its end; the next one begins help_next_line. NULL after the last.
struct help_piece help_line(const char *at);
const char *help_next_line(const char *at);
size_t help_indent(struct help_piece line);
bool help_begins_option(struct help_piece line);

// The option whose line begins at `at`; returns where what follows it begins.
const char *help_option(const char *at, struct help_option *option);

// The next option of a text from *at on; false when there are no more.
bool help_next_option(const char **at, struct help_option *option);

// Words that may stand at a place of the usage, "linear|knn" of "byol eval linear|knn": calls
// `take` for each; those in capitals are no words.
void help_operands(const char *help, const char *name,
                   void (*take)(void *context, struct help_piece word), void *context);

// The next of the choices "lmdb|shards"; starts from {value.at, 0}; false when there are no more or
// the value is none of lower-case words.
bool help_is_choice(struct help_piece value);
bool help_next_choice(struct help_piece value, struct help_piece *choice);

bool help_piece_is(struct help_piece piece, const char *text);

// Prints a help text on at most `columns` columns: what is too much for a line begins the next one
// where that goes on with the same thought, else a line of its own; commands end in a backslash
// there, and a comment of theirs goes above them.
void help_print(const char *help, size_t columns, FILE *stream);

#endif
