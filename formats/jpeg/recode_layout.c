// Reading of a payload's fields: each length is checked by subtraction before it is used.
#include "formats/jpeg/recode_layout.h"
#include "formats/limits.h"

#include <string.h>

#define MAGIC_BYTES  8u
#define AT_VERSION   8u
#define AT_FLAGS     9u
#define AT_COUNT     10u // of components
#define AT_WIDTH     12u
#define AT_HEIGHT    16u
#define AT_ORIGINAL  20u // length, CRC
#define AT_HEAD      28u // length
#define AT_TAIL      32u // length
#define AT_COMPONENT 36u // 4 bytes each

static const uint8_t magic[MAGIC_BYTES] = {0x89, 'B', 'Y', 'J', 0x0d, 0x0a, 0x1a, 0x0a};

uint32_t recode_load32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

void recode_store32(uint8_t *at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> 8 * i);
    }
}

bool recode_is(const void *bytes, size_t len)
{
    return len >= MAGIC_BYTES && memcmp(bytes, magic, MAGIC_BYTES) == 0;
}

static enum status corrupt(struct error *error, size_t offset, const char *what)
{
    return error_set(error, STATUS_CORRUPT, NULL, offset, NOWHERE, "recoded JPEG: %s", what);
}

static bool read_size(struct jpeg_frame *frame, const uint8_t *bytes)
{
    frame->width = recode_load32(bytes + AT_WIDTH);
    frame->height = recode_load32(bytes + AT_HEIGHT);
    frame->components = bytes[AT_COUNT];
    frame->rgb = bytes[AT_FLAGS] & RECODE_FLAG_RGB;
    return frame->width >= 1 && frame->height >= 1 && frame->width <= LIMIT_IMAGE_SIDE &&
           frame->height <= LIMIT_IMAGE_SIDE &&
           (uint64_t)frame->width * frame->height <= LIMIT_IMAGE_PIXELS &&
           (frame->components == 3 || (frame->components == 1 && !frame->rgb));
}

// Sampling as plain JPEG files have it (formats/jpeg/header.h).
static bool read_sampling(struct jpeg_frame *frame, const uint8_t *bytes)
{
    for (uint32_t c = 0; c < frame->components; c++) {
        struct jpeg_component *component = &frame->component[c];
        component->h = bytes[AT_COMPONENT + 4 * c];
        component->v = bytes[AT_COMPONENT + 4 * c + 1];
        uint32_t most = c == 0 && frame->components > 1 ? 2 : 1;
        if (component->h < 1 || component->h > most || component->v < 1 || component->v > most) {
            return false;
        }
    }
    frame->h_max = frame->component[0].h;
    frame->v_max = frame->component[0].v;
    frame->mcus_wide = (frame->width + 8 * frame->h_max - 1) / (8 * frame->h_max);
    frame->mcus_high = (frame->height + 8 * frame->v_max - 1) / (8 * frame->v_max);
    return true;
}

// Sets how many tables of quantisation there are.
static bool read_quant(struct jpeg_frame *frame, const uint8_t *bytes, size_t len, size_t *tables)
{
    *tables = 0;
    for (uint32_t c = 0; c < frame->components; c++) {
        size_t table = bytes[AT_COMPONENT + 4 * c + 2];
        if (table > *tables || (len - RECODE_FIXED_BYTES) / RECODE_QUANT_BYTES <= table) {
            return false;
        }
        *tables += table == *tables;
        const uint8_t *at = bytes + RECODE_FIXED_BYTES + table * RECODE_QUANT_BYTES;
        for (unsigned i = 0; i < JPEG_BLOCK; i++, at += 2) {
            frame->component[c].quant[i] = (uint16_t)(at[0] | at[1] << 8);
        }
    }
    return true;
}

// Each row ends at or after the one before, and the last one where the rows do.
static bool check_rows(const struct recode_layout *layout, uint32_t length)
{
    uint32_t last = 0;
    for (uint32_t i = 0; i < layout->frame.mcus_high; i++) {
        uint32_t end = recode_load32(layout->ends + 4 * (size_t)i);
        if (end < last) {
            return false;
        }
        last = end;
    }
    return last == length;
}

static enum status read_parts(struct recode_layout *layout, const uint8_t *bytes, size_t len,
                              size_t at, struct error *error)
{
    struct jpeg_frame *frame = &layout->frame;
    layout->tables = frame->components == 1 ? 1 : RECODE_TABLES;
    size_t codes = layout->tables * RECODE_LENGTH_BYTES, ends = 4 * (size_t)frame->mcus_high;
    if (len - at < codes || len - at - codes < ends) {
        return error_set(error, STATUS_TRUNCATED, NULL, len, NOWHERE,
                         "recoded JPEG: ends before its rows");
    }
    layout->codes = bytes + at;
    layout->ends = bytes + at + codes;
    layout->rows = at + codes + ends;
    layout->head_length = recode_load32(bytes + AT_HEAD);
    layout->tail_length = recode_load32(bytes + AT_TAIL);
    size_t rest = len - layout->rows;
    if (layout->head_length > rest || layout->tail_length > rest - layout->head_length ||
        rest - layout->head_length - layout->tail_length < RECODE_SLACK) {
        return corrupt(error, AT_HEAD, "the lengths of its parts contradict its own");
    }
    layout->tail = len - layout->tail_length;
    layout->head = layout->tail - layout->head_length;
    layout->rows_end = layout->head - RECODE_SLACK;
    if (!check_rows(layout, (uint32_t)(layout->rows_end - layout->rows))) {
        return corrupt(error, at + codes, "the index of rows is wrong");
    }
    return STATUS_OK;
}

enum status recode_layout_read(struct recode_layout *layout, const uint8_t *bytes, size_t len,
                               struct error *error)
{
    size_t tables;
    if (len > LIMIT_IMAGE_BYTES) {
        return error_set(error, STATUS_LIMIT, NULL, NOWHERE, NOWHERE,
                         "a recoded JPEG of %zu bytes is above the limit of %llu", len,
                         (unsigned long long)LIMIT_IMAGE_BYTES);
    }
    if (!recode_is(bytes, len)) {
        return corrupt(error, 0, "it is none");
    }
    if (len < RECODE_FIXED_BYTES) {
        return error_set(error, STATUS_TRUNCATED, NULL, len, NOWHERE,
                         "recoded JPEG: ends within its header");
    }
    if (bytes[AT_VERSION] != RECODE_VERSION) {
        return error_set(error, STATUS_VERSION, NULL, AT_VERSION, NOWHERE,
                         "recoded JPEG: version %u, this program reads version %u",
                         bytes[AT_VERSION], RECODE_VERSION);
    }
    layout->exact = bytes[AT_FLAGS] & RECODE_FLAG_EXACT;
    layout->original_length = recode_load32(bytes + AT_ORIGINAL);
    layout->original_crc = recode_load32(bytes + AT_ORIGINAL + 4);
    if (bytes[AT_FLAGS] > (RECODE_FLAG_EXACT | RECODE_FLAG_RGB) ||
        layout->original_length > LIMIT_IMAGE_BYTES || !read_size(&layout->frame, bytes)) {
        return corrupt(error, AT_FLAGS, "its header is impossible");
    }
    if (!read_sampling(&layout->frame, bytes) || !read_quant(&layout->frame, bytes, len, &tables)) {
        return corrupt(error, AT_COMPONENT, "its components are impossible");
    }
    return read_parts(layout, bytes, len, RECODE_FIXED_BYTES + tables * RECODE_QUANT_BYTES, error);
}

// The other direction, for the encoder.
static uint32_t find_table(const struct jpeg_frame *frame, uint32_t c, const uint32_t *table)
{
    uint32_t fresh = 0;
    for (uint32_t other = 0; other < c; other++) {
        if (memcmp(frame->component[other].quant, frame->component[c].quant,
                   sizeof frame->component[c].quant) == 0) {
            return table[other];
        }
        fresh = table[other] + 1 > fresh ? table[other] + 1 : fresh;
    }
    return fresh;
}

size_t recode_layout_write(const struct recode_layout *layout, uint8_t *bytes)
{
    const struct jpeg_frame *frame = &layout->frame;
    memset(bytes, 0, RECODE_FIXED_BYTES);
    memcpy(bytes, magic, MAGIC_BYTES);
    bytes[AT_VERSION] = RECODE_VERSION;
    bytes[AT_FLAGS] =
        (uint8_t)((layout->exact ? RECODE_FLAG_EXACT : 0) | (frame->rgb ? RECODE_FLAG_RGB : 0));
    bytes[AT_COUNT] = (uint8_t)frame->components;
    recode_store32(bytes + AT_WIDTH, frame->width);
    recode_store32(bytes + AT_HEIGHT, frame->height);
    recode_store32(bytes + AT_ORIGINAL, layout->original_length);
    recode_store32(bytes + AT_ORIGINAL + 4, layout->original_crc);
    recode_store32(bytes + AT_HEAD, (uint32_t)layout->head_length);
    recode_store32(bytes + AT_TAIL, (uint32_t)layout->tail_length);
    uint32_t table[3], tables = 0;
    for (uint32_t c = 0; c < frame->components; c++) {
        uint8_t *of = bytes + AT_COMPONENT + 4 * c;
        table[c] = find_table(frame, c, table);
        of[0] = (uint8_t)frame->component[c].h;
        of[1] = (uint8_t)frame->component[c].v;
        of[2] = (uint8_t)table[c];
        uint8_t *at = bytes + RECODE_FIXED_BYTES + table[c] * RECODE_QUANT_BYTES;
        for (unsigned i = 0; i < JPEG_BLOCK; i++) {
            at[2 * i] = (uint8_t)frame->component[c].quant[i];
            at[2 * i + 1] = (uint8_t)(frame->component[c].quant[i] >> 8);
        }
        tables = table[c] + 1 > tables ? table[c] + 1 : tables;
    }
    return RECODE_FIXED_BYTES + (size_t)tables * RECODE_QUANT_BYTES;
}

bool recode_same_frame(const struct jpeg_frame *a, const struct jpeg_frame *b)
{
    bool same = a->width == b->width && a->height == b->height && a->components == b->components &&
                a->rgb == b->rgb && a->mcus_wide == b->mcus_wide && a->mcus_high == b->mcus_high;
    for (uint32_t c = 0; c < a->components && same; c++) {
        const struct jpeg_component *x = &a->component[c], *y = &b->component[c];
        same = x->h == y->h && x->v == y->v && memcmp(x->quant, y->quant, sizeof x->quant) == 0;
    }
    return same;
}
