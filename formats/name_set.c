// Open addressing with linear probing, at most half full.
#include "formats/name_set.h"

#include <stdlib.h>
#include <string.h>

static uint64_t hash_name(const char *name)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325); // FNV-1a, then mixed for the low bits
    for (; *name; name++) {
        hash = (hash ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    }
    return hash ^ hash >> 29;
}

// The slot that holds `name`, or the free one where it belongs.
static uint64_t *find(const struct name_set *set, const char *name)
{
    size_t mask = set->slot_count - 1, at = (size_t)hash_name(name) & mask;
    while (set->slots[at] != 0 && strcmp(set->text + set->slots[at] - 1, name) != 0) {
        at = (at + 1) & mask;
    }
    return &set->slots[at];
}

static bool grow_slots(struct name_set *set)
{
    size_t slot_count = set->slot_count ? 2 * set->slot_count : 1024;
    uint64_t *slots = calloc(slot_count, sizeof *slots);
    if (slots == NULL) {
        return false;
    }
    free(set->slots);
    set->slots = slots;
    set->slot_count = slot_count;
    for (size_t at = 0; at < set->len; at += strlen(set->text + at) + 1) {
        *find(set, set->text + at) = at + 1;
    }
    return true;
}

static bool grow_text(struct name_set *set, size_t need)
{
    size_t capacity = need + need / 2 + 4096;
    char *text = realloc(set->text, capacity);
    if (text != NULL) {
        set->text = text;
        set->capacity = capacity;
    }
    return text != NULL;
}

enum status name_set_add(struct name_set *set, const char *name, bool *fresh, struct error *error)
{
    size_t len = strlen(name) + 1;
    bool room = (2 * (set->count + 1) <= set->slot_count || grow_slots(set)) &&
                (set->len + len <= set->capacity || grow_text(set, set->len + len));
    if (!room) {
        return error_set(error, STATUS_NO_MEMORY, name, NOWHERE, NOWHERE,
                         "no memory for the names of the records");
    }
    uint64_t *slot = find(set, name);
    *fresh = *slot == 0;
    if (*fresh) {
        *slot = set->len + 1;
        memcpy(set->text + set->len, name, len);
        set->len += len;
        set->count++;
    }
    return STATUS_OK;
}

void name_set_free(struct name_set *set)
{
    free(set->text);
    free(set->slots);
    *set = (struct name_set){0};
}
