// What a conversion will report, kept with the datasets until they are in place: strings with a
// zero byte each; of every output its totals, how many skips are listed, and those.
#include "tools/convert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOTALS = sizeof(struct convert_totals) / sizeof(uint64_t) };

static void print_number(FILE *stream, uint64_t number)
{
    fprintf(stream, "%" PRIu64 "%c", number, '\0');
}

static void print_output(FILE *stream, const struct convert_output *output)
{
    uint64_t totals[TOTALS], listed = 0;
    memcpy(totals, &output->totals, sizeof totals);
    for (size_t i = 0; i < TOTALS; i++) {
        print_number(stream, totals[i]);
    }
    while (output->skips != NULL && listed < SKIPS_LISTED && output->skips[listed].name != NULL) {
        listed++;
    }
    print_number(stream, listed);
    for (uint64_t i = 0; i < listed; i++) {
        const struct skip *skip = &output->skips[i];
        print_number(stream, skip->status);
        fprintf(stream, "%s%c%s%c", skip->name, '\0', skip->reason, '\0');
    }
}

char *convert_outcome(const struct convert *convert, size_t *len)
{
    char *text = NULL;
    FILE *stream = open_memstream(&text, len);
    for (size_t i = 0; stream != NULL && i < convert->output_count; i++) {
        print_output(stream, &convert->outputs[i]);
    }
    if (stream != NULL && fclose(stream) != 0) {
        free(text);
        text = NULL;
    }
    return text;
}

// --- reading -----------------------------------------------------------------------------------

struct rest {
    const char *at;
    size_t len;
};

// The next string; NULL at the end.
static const char *next_text(struct rest *rest)
{
    const char *text = rest->at, *end = memchr(text, '\0', rest->len);
    if (end == NULL) {
        return NULL;
    }
    rest->len -= (size_t)(end + 1 - text);
    rest->at = end + 1;
    return text;
}

static bool next_number(struct rest *rest, uint64_t *number)
{
    const char *text = next_text(rest);
    char *end = NULL;
    errno = 0;
    *number = text ? strtoull(text, &end, 10) : 0;
    return text != NULL && end != text && *end == '\0' && errno == 0;
}

static bool read_output(struct rest *rest, struct convert_output *output)
{
    uint64_t totals[TOTALS], listed = 0;
    bool good = true;
    for (size_t i = 0; i < TOTALS && good; i++) {
        good = next_number(rest, &totals[i]);
    }
    good = good && next_number(rest, &listed) && listed <= SKIPS_LISTED;
    for (uint64_t i = 0; i < listed && good; i++) {
        uint64_t status = 0;
        good = next_number(rest, &status);
        const char *name = next_text(rest), *reason = next_text(rest);
        good = good && name != NULL && reason != NULL &&
               convert_keep_skip(output, name, (enum status)status, reason, NULL) == STATUS_OK;
    }
    if (good) {
        memcpy(&output->totals, totals, sizeof totals);
        output->totals.resumed = output->totals.images;
    }
    return good;
}

enum status convert_outcome_read(struct convert *convert, struct error *error)
{
    struct rest rest = {.at = convert->places.about, .len = convert->places.len};
    bool good = true;
    for (size_t i = 0; i < convert->output_count && good; i++) {
        good = read_output(&rest, &convert->outputs[i]);
    }
    return good ? STATUS_OK
                : error_set(error, STATUS_CORRUPT, convert->options.output, NOWHERE, NOWHERE,
                            "the journal of its conversion is damaged: convert again with "
                            "--restart, and --force where it replaces");
}
