// FFCV's betons: header, fields, samples and the table of allocations.
#include "tests/support/fuzz_source.h"

#include <string.h>

#define HEADER     24u
#define FIELD      1041u
#define ALLOCATION 24u
#define SAMPLES    4u
#define PIXELS     6u // bytes of an image: a line of two

static void put(uint8_t *at, uint64_t value, unsigned width)
{
    for (unsigned i = 0; i < width; i++) {
        at[i] = (uint8_t)(value >> 8 * i);
    }
}

static void put_field(uint8_t *bytes, unsigned number, uint8_t type, const char *name)
{
    bytes[HEADER + number * FIELD] = type;
    memcpy(bytes + HEADER + number * FIELD + 1, name, strlen(name));
}

// Samples of the fields image and label, and of a third if `type` is one; `mode` of the images.
static void seed(uint8_t mode, uint8_t type)
{
    uint8_t bytes[8192] = {2};
    unsigned fields = type != UINT8_MAX ? 3 : 2, stride = fields == 3 ? 40 : 24;
    size_t metadata = HEADER + fields * FIELD, data = metadata + SAMPLES * stride,
           table = data + SAMPLES * PIXELS;
    put(bytes + 2, fields, 2);
    put(bytes + 4, 1 << 21, 4);
    put(bytes + 8, SAMPLES, 8);
    put(bytes + 16, table, 8);
    put_field(bytes, 0, 2, "image");
    put_field(bytes, 1, 1, "label");
    if (fields == 3) {
        put_field(bytes, 2, type, "other");
    }
    for (size_t i = 0; i < SAMPLES; i++) {
        uint8_t *sample = bytes + metadata + i * stride,
                *allocation = bytes + table + i * ALLOCATION;
        sample[0] = mode;
        put(sample + 1, 2, 2);
        put(sample + 3, 1, 2);
        put(sample + 5, data + i * PIXELS, 8);
        put(sample + 16, i, 8);
        put(allocation, i, 8);
        put(allocation + 8, data + i * PIXELS, 8);
        put(allocation + 16, PIXELS, 8);
        memcpy(bytes + data + i * PIXELS, "\xff\xd8\xff pi", PIXELS);
    }
    fuzz_seed(bytes, table + (size_t)SAMPLES * ALLOCATION, HEADER + 1 + 16);
}

static void open_beton(void)
{
    seed(0, UINT8_MAX);
    seed(1, UINT8_MAX);
    seed(0, 3);
    seed(1, 5);
}

static void close_beton(void)
{
}

// The allocation table reaches from where the header says to the end, or has a place to be.
static size_t repair_beton(uint8_t *bytes, size_t len, uint64_t *random)
{
    if (len < HEADER + FIELD) {
        return len;
    }
    uint64_t at = 0;
    for (unsigned i = 8; i-- > 0;) {
        at = at << 8 | bytes[16 + i];
    }
    if (at > len || fuzz_below(random, 4) == 0) {
        at = len - (len - HEADER) / ALLOCATION % SAMPLES * ALLOCATION;
        put(bytes + 16, at, 8);
    }
    return len - (len - (size_t)at) % ALLOCATION;
}

static const struct fuzz_target target = {.name = "beton",
                                          .open = open_beton,
                                          .close = close_beton,
                                          .repair = repair_beton,
                                          .run = fuzz_source_run};

FUZZ_MAIN(target)
