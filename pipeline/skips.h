// Bad records: noted per batch while it is filled, in whatever order workers meet them; then added
// to the loader's list in the order of the stream when the batch is delivered. So the list, the
// count and the moment at which the cap is passed do not depend on timing.
#ifndef PIPELINE_SKIPS_H
#define PIPELINE_SKIPS_H

#include "pipeline/loader.h"

// Why a record was left out; smaller than a struct error, since the path follows from the record.
struct skip_note {
    uint64_t record, offset;
    enum status status;
    uint32_t index; // position in the batch
    char reason[232];
};

struct skips {
    struct skip_note *notes;
    size_t count, capacity;
};

enum status skips_open(struct skips *skips, size_t capacity, struct error *error);
void skips_close(struct skips *skips); // accepts a zeroed one

// Notes the record at `index` of the batch, sorted by index. Keeps the first `capacity` by index.
void skips_note(struct skips *skips, uint32_t index, const struct error *reason);

// Adds a note to the list of the whole stream, unless its record is there. False when it is full.
bool skips_add(struct skips *skips, const struct skip_note *note);

// The note as the error it was made from.
void skips_error(const struct skip_note *note, const struct dataset *dataset, struct error *error);

#endif
