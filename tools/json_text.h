// File names are bytes, JSON wants UTF-8.
#ifndef TOOLS_JSON_TEXT_H
#define TOOLS_JSON_TEXT_H

#include <jansson.h>

// A JSON string; bytes that are not ASCII become '?' when the text is not UTF-8. NULL when there is
// no memory.
json_t *json_text(const char *text);

#endif
