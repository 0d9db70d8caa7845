// From a recoded JPEG back to the file: its head, its coefficients in its own Huffman codes, its
// tail.
#include "formats/crc32c.h"
#include "formats/jpeg/recode_source.h"

#include <stdlib.h>
#include <string.h>

#define RUN_MOST   15
#define ZERO_RUN   0xf0
#define BLOCK_END  0x00
#define RST0       0xd0
#define BLOCK_MOST (JPEG_BLOCK * 8) // bytes of a block: 32 bits each, every byte stuffed

struct code {
    uint16_t code[256];
    uint8_t bits[256]; // 0: no such symbol
};

struct restorer {
    struct recode_source source;
    struct code dc[3], ac[3];
    int16_t *row; // of MCUs, component after component
    int16_t *blocks[3];
    int last_dc[3];
    uint32_t since_restart, restarts;
    uint64_t buffer; // bits not written yet, the last one lowest
    unsigned bits;
    uint8_t *bytes; // of the file
    size_t len, capacity;
    bool lacks_code;
};

static void read_code(struct code *code, const struct jpeg_huffman_code *from)
{
    unsigned next = 0;
    const uint8_t *symbol = from->symbols;
    memset(code, 0, sizeof *code);
    for (unsigned bits = 1; bits <= 16; bits++, next *= 2) {
        for (unsigned i = 0; i < from->counts[bits - 1]; i++, symbol++) {
            code->code[*symbol] = (uint16_t)next++;
            code->bits[*symbol] = (uint8_t)bits;
        }
    }
}

static bool reserve(struct restorer *restorer, size_t more)
{
    if (restorer->capacity - restorer->len < more) {
        size_t capacity = (restorer->len + more) * 3 / 2;
        uint8_t *bytes = realloc(restorer->bytes, capacity);
        if (bytes == NULL) {
            return false;
        }
        restorer->bytes = bytes;
        restorer->capacity = capacity;
    }
    return true;
}

static void append(struct restorer *restorer, const uint8_t *bytes, size_t len)
{
    memcpy(restorer->bytes + restorer->len, bytes, len);
    restorer->len += len;
}

// --- the scan ----------------------------------------------------------------------------------

// At most 27 bits.
static void put_bits(struct restorer *restorer, unsigned value, unsigned bits)
{
    restorer->buffer = restorer->buffer << bits | value;
    restorer->bits += bits;
    while (restorer->bits >= 8) {
        restorer->bits -= 8;
        uint8_t byte = (uint8_t)(restorer->buffer >> restorer->bits);
        restorer->bytes[restorer->len++] = byte;
        if (byte == 0xff) {
            restorer->bytes[restorer->len++] = 0;
        }
    }
}

// A symbol whose low four bits say how many bits of `value` follow.
static void put_symbol(struct restorer *restorer, const struct code *code, unsigned symbol,
                       int value)
{
    unsigned size = symbol & 15;
    restorer->lacks_code = restorer->lacks_code || code->bits[symbol] == 0;
    put_bits(restorer, code->code[symbol], code->bits[symbol]);
    put_bits(restorer, (unsigned)(value < 0 ? value - 1 : value) & ((1u << size) - 1), size);
}

static unsigned size_of(int value)
{
    unsigned magnitude = (unsigned)(value < 0 ? -value : value);
    return magnitude ? 32 - (unsigned)__builtin_clz(magnitude) : 0;
}

static void put_block(struct restorer *restorer, uint32_t c, const int16_t *block)
{
    const struct code *ac = &restorer->ac[c];
    int difference = block[0] - restorer->last_dc[c];
    restorer->last_dc[c] = block[0];
    put_symbol(restorer, &restorer->dc[c], size_of(difference), difference);
    unsigned zeros = 0;
    for (unsigned k = 1; k < JPEG_BLOCK; k++) {
        int value = block[jpeg_natural_place[k]];
        if (value == 0) {
            zeros++;
            continue;
        }
        for (; zeros > RUN_MOST; zeros -= RUN_MOST + 1) {
            put_symbol(restorer, ac, ZERO_RUN, 0);
        }
        put_symbol(restorer, ac, zeros << 4 | size_of(value), value);
        zeros = 0;
    }
    if (zeros > 0) {
        put_symbol(restorer, ac, BLOCK_END, 0);
    }
}

static void pad_with_ones(struct restorer *restorer)
{
    unsigned bits = (8 - restorer->bits % 8) % 8;
    put_bits(restorer, (1u << bits) - 1, bits);
}

static void put_mcu(struct restorer *restorer, uint32_t x)
{
    const struct jpeg_frame *frame = &restorer->source.layout.frame;
    uint32_t interval = restorer->source.layout.header.restart_interval;
    if (interval > 0 && restorer->since_restart == interval) {
        const uint8_t marker[2] = {0xff, (uint8_t)(RST0 + restorer->restarts++ % 8)};
        pad_with_ones(restorer);
        append(restorer, marker, sizeof marker);
        memset(restorer->last_dc, 0, sizeof restorer->last_dc);
        restorer->since_restart = 0;
    }
    restorer->since_restart++;
    for (uint32_t c = 0; c < frame->components; c++) {
        uint32_t h = frame->component[c].h, v = frame->component[c].v;
        for (uint32_t i = 0; i < h * v; i++) {
            size_t block = (size_t)(i / h) * frame->mcus_wide * h + x * h + i % h;
            put_block(restorer, c, restorer->blocks[c] + block * JPEG_BLOCK);
        }
    }
}

static enum status put_scan(struct restorer *restorer, struct error *error)
{
    const struct jpeg_frame *frame = &restorer->source.layout.frame;
    for (uint32_t row = 0; row < frame->mcus_high; row++) {
        struct jpeg_source *source = &restorer->source.source;
        enum status status = source->row(source, row, 0, frame->mcus_wide, restorer->blocks, error);
        for (uint32_t x = 0; x < frame->mcus_wide && status == STATUS_OK; x++) {
            if (!reserve(restorer, 3 * 4 * BLOCK_MOST + 8)) {
                status = error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                                   "no memory to write a JPEG");
            } else {
                put_mcu(restorer, x);
            }
        }
        if (status != STATUS_OK) {
            return status;
        }
    }
    pad_with_ones(restorer);
    return STATUS_OK;
}

// --- the whole ---------------------------------------------------------------------------------

static enum status open_restorer(struct restorer *restorer, const uint8_t *bytes, size_t len,
                                 struct error *error)
{
    enum status status = recode_source_start(&restorer->source, bytes, len, error);
    if (status != STATUS_OK) {
        return status;
    }
    const struct recode_layout *layout = &restorer->source.layout;
    const struct jpeg_header *header = &layout->header;
    size_t size = 0, offset[3];
    for (uint32_t c = 0; c < header->frame.components; c++) {
        const struct jpeg_component *component = &header->frame.component[c];
        read_code(&restorer->dc[c], &header->dc[c]);
        read_code(&restorer->ac[c], &header->ac[c]);
        offset[c] = size;
        size += (size_t)header->frame.mcus_wide * component->h * component->v * JPEG_BLOCK;
    }
    restorer->row = aligned_alloc(64, size * sizeof(int16_t));
    if (restorer->row == NULL || !reserve(restorer, layout->original_length + 4096)) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory to write a JPEG");
    }
    for (uint32_t c = 0; c < header->frame.components; c++) {
        restorer->blocks[c] = restorer->row + offset[c];
    }
    return STATUS_OK;
}

static enum status restore(struct restorer *restorer, const uint8_t *bytes, struct error *error)
{
    const struct recode_layout *layout = &restorer->source.layout;
    size_t around = layout->head_length + layout->tail_length;
    if (!reserve(restorer, around)) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory to write a JPEG");
    }
    append(restorer, bytes + layout->head, layout->head_length);
    enum status status = put_scan(restorer, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (restorer->lacks_code) {
        return error_set(error, STATUS_CORRUPT, NULL, layout->head, NOWHERE,
                         "recoded JPEG: a symbol has no code in the original file");
    }
    if (!reserve(restorer, layout->tail_length)) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory to write a JPEG");
    }
    append(restorer, bytes + layout->tail, layout->tail_length);
    if (layout->exact && (restorer->len != layout->original_length ||
                          crc32c(0, restorer->bytes, restorer->len) != layout->original_crc)) {
        return error_set(error, STATUS_CORRUPT, NULL, NOWHERE, NOWHERE,
                         "recoded JPEG: the original file does not come back");
    }
    return STATUS_OK;
}

enum status recode_restore(const uint8_t *bytes, size_t len, bool *exact, uint8_t **jpeg,
                           size_t *jpeg_len, struct error *error)
{
    *exact = false;
    *jpeg = NULL;
    *jpeg_len = 0;
    struct restorer *restorer = calloc(1, sizeof *restorer);
    if (restorer == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory to write a JPEG");
    }
    enum status status = open_restorer(restorer, bytes, len, error);
    if (status == STATUS_OK) {
        status = restore(restorer, bytes, error);
    }
    if (status == STATUS_OK) {
        *exact = restorer->source.layout.exact;
        *jpeg = restorer->bytes;
        *jpeg_len = restorer->len;
        restorer->bytes = NULL;
    }
    free(restorer->bytes);
    free(restorer->row);
    free(restorer);
    return status;
}
