#include "pipeline/skips.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum status skips_open(struct skips *skips, size_t capacity, struct error *error)
{
    *skips = (struct skips){.capacity = capacity};
    if (capacity > 0) {
        skips->notes = calloc(capacity, sizeof *skips->notes);
        if (!skips->notes) {
            return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                             "no memory to list %zu skipped records", capacity);
        }
    }
    return STATUS_OK;
}

void skips_close(struct skips *skips)
{
    free(skips->notes);
    *skips = (struct skips){0};
}

void skips_note(struct skips *skips, uint32_t index, const struct error *reason)
{
    size_t at = skips->count;
    while (at > 0 && skips->notes[at - 1].index > index) {
        at--;
    }
    if (at == skips->capacity) {
        return; // earlier ones already pass the cap
    }
    size_t kept = skips->count < skips->capacity ? skips->count : skips->capacity - 1;
    memmove(skips->notes + at + 1, skips->notes + at, (kept - at) * sizeof *skips->notes);
    skips->count = kept + 1;
    struct skip_note *note = &skips->notes[at];
    *note = (struct skip_note){.record = reason->record,
                               .offset = reason->offset,
                               .status = reason->status,
                               .index = index};
    snprintf(note->reason, sizeof note->reason, "%.*s", (int)sizeof note->reason - 1,
             reason->reason);
}

bool skips_add(struct skips *skips, const struct skip_note *note)
{
    for (size_t i = 0; i < skips->count; i++) {
        if (skips->notes[i].record == note->record) {
            return true;
        }
    }
    if (skips->count == skips->capacity) {
        return false;
    }
    skips->notes[skips->count++] = *note;
    return true;
}

void skips_error(const struct skip_note *note, const struct dataset *dataset, struct error *error)
{
    struct dataset_record record = dataset_record(dataset, note->record);
    error_set(error, note->status, dataset_file_path(dataset, record.file), note->offset,
              note->record, "%s", note->reason);
}
