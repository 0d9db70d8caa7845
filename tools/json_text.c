// Text to JSON, whatever its bytes.
#include "tools/json_text.h"

#include <stdlib.h>
#include <string.h>

json_t *json_text(const char *text)
{
    json_t *string = json_string(text);
    char *copy = string ? NULL : strdup(text);
    if (copy != NULL) {
        for (char *c = copy; *c; c++) {
            *c = (unsigned char)*c < 0x80 ? *c : '?';
        }
        string = json_string(copy);
        free(copy);
    }
    return string;
}
