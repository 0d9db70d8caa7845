// What `byol inspect` says of something that is no dataset, but could become one.
#ifndef TOOLS_DESCRIBE_H
#define TOOLS_DESCRIBE_H

#include "formats/status.h"

#include <stdbool.h>

// Whether `path` is there and no directory with an index.
bool describe_wanted(const char *path);
// Prints its kind, its layout, how many images it has (as far as they are counted in two seconds)
// and the command that converts it.
enum status describe_source(const char *path, bool json, struct error *error);

#endif
