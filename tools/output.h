// Directories that a command fills and that appear when they are complete.
#ifndef TOOLS_OUTPUT_H
#define TOOLS_OUTPUT_H

#include "formats/status.h"

// STATUS_EXISTS when `directory`, or DIRECTORY.partial beside it, is there already: to be asked
// before the work that fills it.
enum status output_check(const char *directory, struct error *error);

// Checks, makes DIRECTORY.partial and names it in `partial` (malloc'ed, also after a failure or
// NULL); output_finish puts it in place.
enum status output_begin(const char *directory, char **partial, struct error *error);
enum status output_finish(const char *partial, const char *directory, struct error *error);

// Removes `directory` and all that is in it, as far as it goes.
void output_remove(const char *directory);

#endif
