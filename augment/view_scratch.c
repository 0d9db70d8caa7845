#include "augment/view_scratch.h"
#include "formats/limits.h"

#include <stdlib.h>

#define ALIGNMENT 64

static size_t round_up(size_t count, size_t multiple)
{
    return (count + multiple - 1) / multiple * multiple;
}

// Hands out pieces of a block from the front; with no block, counts what would be needed.
struct cutter {
    uint8_t *block;
    size_t used;
};

static void *cut(struct cutter *cutter, size_t bytes)
{
    size_t at = cutter->used;
    cutter->used += round_up(bytes, ALIGNMENT);
    return cutter->block == NULL ? NULL : cutter->block + at;
}

static float *cut_floats(struct cutter *cutter, size_t before, size_t count)
{
    float *from = cut(cutter, (before + count) * sizeof(float));
    return from == NULL ? NULL : from + before;
}

static void lay_out(struct view_scratch *scratch, struct cutter *cutter)
{
    size_t size = scratch->max_size, stride = round_up(size, ROW_LANES);
    size_t ring_rows = 1; // a power of two; few of them are touched where few taps matter
    while (ring_rows < size) {
        ring_rows *= 2;
    }
    scratch->stride = stride;
    scratch->table = cut(cutter, sizeof *scratch->table);
    scratch->rows = cut(cutter, size * sizeof *scratch->rows);
    scratch->columns.first = cut(cutter, stride * sizeof(int32_t));
    for (size_t tap = 0; tap < 4; tap++) {
        scratch->columns.weight[tap] = cut_floats(cutter, 0, stride);
    }
    for (size_t plane = 0; plane < 3; plane++) {
        scratch->line[plane] = cut_floats(cutter, ROW_LANES, LIMIT_IMAGE_SIDE + ROW_SLACK);
        scratch->padded[plane] = cut_floats(cutter, stride, 2 * stride + ROW_LANES);
        for (size_t i = 0; i < BLUR_ROWS; i++) {
            scratch->result[i][plane] = cut_floats(cutter, 0, stride);
        }
        scratch->image[plane] = cut_floats(cutter, 0, size * stride);
        scratch->ring[plane] = cut_floats(cutter, 0, ring_rows * stride);
    }
    scratch->zeros = cut_floats(cutter, 0, stride);
    scratch->weights = cut_floats(cutter, 0, 2 * size);
    scratch->window = cut(cutter, (2 * size + BLUR_ROWS) * sizeof *scratch->window);
}

size_t view_scratch_memory(uint32_t max_size)
{
    struct view_scratch scratch = {.max_size = max_size};
    struct cutter cutter = {0};
    lay_out(&scratch, &cutter);
    return sizeof scratch + cutter.used + ALIGNMENT;
}

enum status view_scratch_open(struct view_scratch **out, uint32_t max_size, struct error *error)
{
    *out = NULL;
    if (max_size < 1 || max_size > RECIPE_MAX_SIZE) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "view size %u is not within 1 to %d", max_size, RECIPE_MAX_SIZE);
    }
    struct view_scratch *scratch = calloc(1, sizeof *scratch);
    // Zeroed: what lies around rows is multiplied by 0, and must be numbers for that.
    void *memory = calloc(1, view_scratch_memory(max_size));
    if (scratch == NULL || memory == NULL) {
        free(scratch);
        free(memory);
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory to render views of %u pixels", max_size);
    }
    scratch->max_size = max_size;
    scratch->memory = memory;
    struct cutter cutter = {(uint8_t *)memory + (ALIGNMENT - (uintptr_t)memory % ALIGNMENT), 0};
    lay_out(scratch, &cutter);
    resize_table_fill(scratch->table);
    *out = scratch;
    return STATUS_OK;
}

void view_scratch_close(struct view_scratch **scratch)
{
    if (*scratch != NULL) {
        free((*scratch)->memory);
        free(*scratch);
        *scratch = NULL;
    }
}
