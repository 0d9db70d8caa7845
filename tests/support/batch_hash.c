#include "tests/support/batch_hash.h"

static uint64_t mix(uint64_t hash, const void *bytes, size_t len)
{
    const uint8_t *byte = bytes;
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

uint64_t batch_hash_record(uint64_t hash, const struct batch *batch, uint32_t index)
{
    size_t values = (size_t)batch->size * batch->size * 3;
    for (int view = 0; view < RECIPE_MAX_VIEWS && batch->view[view]; view++) {
        hash = mix(hash, batch->view[view] + index * values, values * sizeof(float));
    }
    for (int view = 0; view < RECIPE_MAX_VIEWS && batch->bytes[view]; view++) {
        hash = mix(hash, batch->bytes[view] + index * values, values);
        hash = mix(hash, &batch->drawn[view][index], sizeof batch->drawn[view][index]);
    }
    hash = mix(hash, &batch->labels[index], sizeof batch->labels[index]);
    return mix(hash, &batch->records[index], sizeof batch->records[index]);
}

uint64_t batch_hash(uint64_t hash, const struct batch *batch)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        hash = batch_hash_record(hash, batch, i);
    }
    return hash;
}
