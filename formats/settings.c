// Assignments from the command line, and the printing of resolved settings.
#include "formats/name.h"
#include "formats/settings_draft.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum status settings_set(const char *assignment, const struct settings_section *sections,
                         size_t count, struct error *error)
{
    struct settings_place nowhere = {0};
    const char *equals = strchr(assignment, '=');
    size_t len = equals ? (size_t)(equals - assignment) : 0;
    if (len == 0 || len >= SETTINGS_KEY_BYTES) {
        return settings_refuse(nowhere, error, "'%s' is not of the form key=value", assignment);
    }
    char key[SETTINGS_KEY_BYTES];
    memcpy(key, assignment, len);
    key[len] = '\0';
    struct settings_draft draft;
    enum status status = settings_draft_open(&draft, sections, count, error);
    if (status == STATUS_OK) {
        status = settings_draft_put(&draft, key, equals + 1, nowhere, error);
    }
    if (status == STATUS_OK) {
        settings_draft_apply(&draft);
    }
    settings_draft_close(&draft);
    return status;
}

// --- printing ------------------------------------------------------------------------------------

bool settings_printable(const char *text)
{
    // Line and paragraph separator, byte order mark, and the two last code points of the plane.
    static const char *const altered[] = {
        "\n", "\t", "\xe2\x80\xa8", "\xe2\x80\xa9", "\xef\xbb\xbf", "\xef\xbf\xbe", "\xef\xbf\xbf"};
    for (size_t i = 0; i < sizeof altered / sizeof *altered; i++) {
        if (strstr(text, altered[i]) != NULL) {
            return false;
        }
    }
    return name_text_fault(text, strlen(text)) == NULL;
}

// The fewest digits that read back to the same value.
static bool print_number(FILE *stream, double number)
{
    char text[64];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number) {
            break;
        }
    }
    fputs(text, stream);
    return isfinite(number);
}

static bool print_text(FILE *stream, const char *text)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
    if (*text != '\0' && *text != '-' && text[strspn(text, plain)] == '\0' &&
        strcmp(text, "null") != 0) {
        fputs(text, stream);
        return true;
    }
    fputc('"', stream);
    for (const char *at = text; *at; at++) {
        if (*at == '"' || *at == '\\') {
            fputc('\\', stream);
        }
        fputc(*at, stream);
    }
    fputc('"', stream);
    return settings_printable(text);
}

static bool print_choice(FILE *stream, const char *choices, int choice)
{
    const char *name = choices;
    for (int i = 0; i < choice; i++) {
        name += strcspn(name, "|");
        if (*name++ == '\0') {
            return false;
        }
    }
    fprintf(stream, "%.*s", (int)strcspn(name, "|"), name);
    return choice >= 0;
}

// False when the object holds something that settings_load would not read back.
static bool print_value(FILE *stream, const struct settings_field *field, const void *from)
{
    bool truth;
    int64_t integer;
    double number;
    int choice;
    switch (field->type) {
    case SETTINGS_BOOL:
        memcpy(&truth, from, sizeof truth);
        fputs(truth ? "true" : "false", stream);
        return true;
    case SETTINGS_INT:
        memcpy(&integer, from, sizeof integer);
        fprintf(stream, "%" PRId64, integer);
        return true;
    case SETTINGS_FLOAT:
        memcpy(&number, from, sizeof number);
        return print_number(stream, number);
    case SETTINGS_STRING:
        return print_text(stream, from);
    case SETTINGS_CHOICE:
        break;
    }
    memcpy(&choice, from, sizeof choice);
    return print_choice(stream, field->choices, choice);
}

static void print_help(FILE *stream, const struct settings_field *field)
{
    fprintf(stream, "# %s", field->help ? field->help : "");
    if (field->type == SETTINGS_CHOICE) {
        fprintf(stream, " (%s)", field->choices);
    }
    fputc('\n', stream);
}

static enum status print_section(FILE *stream, const struct settings_section *section,
                                 int with_help, struct error *error)
{
    for (size_t i = 0; i < section->count; i++) {
        const struct settings_field *field = &section->fields[i];
        if (with_help) {
            print_help(stream, field);
        }
        fprintf(stream, "%s%s: ", section->prefix, field->key);
        bool readable = print_value(stream, field, (const char *)section->object + field->offset);
        fputc('\n', stream);
        if (!readable) {
            return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                             "%s%s has a value that cannot be written", section->prefix,
                             field->key);
        }
    }
    return STATUS_OK;
}

enum status settings_print(FILE *stream, const struct settings_section *sections, size_t count,
                           int with_help, struct error *error)
{
    errno = 0;
    for (size_t i = 0; i < count; i++) {
        enum status status = print_section(stream, &sections[i], with_help, error);
        if (status != STATUS_OK) {
            return status;
        }
    }
    if (fflush(stream) != 0 || ferror(stream)) {
        return error_errno(error, errno ? errno : EIO, NULL, NOWHERE, "write the settings");
    }
    return STATUS_OK;
}
