// Reading of a payload's fields: each length is checked by subtraction before it is used.
#include "formats/jpeg/recode_layout.h"
#include "formats/limits.h"

#include <string.h>

#define MAGIC_BYTES 8u
#define AT_VERSION  8u
#define AT_FLAGS    9u
#define AT_ORIGINAL 12u // length, CRC
#define AT_HEAD     20u // length
#define AT_TAIL     24u // length

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

// The head and the tail, which lie at the end.
static enum status read_original(struct recode_layout *layout, const uint8_t *bytes, size_t len,
                                 struct error *error)
{
    layout->exact = bytes[AT_FLAGS] & RECODE_FLAG_EXACT;
    layout->original_length = recode_load32(bytes + AT_ORIGINAL);
    layout->original_crc = recode_load32(bytes + AT_ORIGINAL + 4);
    layout->head_length = recode_load32(bytes + AT_HEAD);
    layout->tail_length = recode_load32(bytes + AT_TAIL);
    size_t rest = len - RECODE_FIXED_BYTES;
    if (bytes[AT_FLAGS] > RECODE_FLAG_EXACT || layout->original_length > LIMIT_IMAGE_BYTES ||
        layout->head_length > rest || layout->tail_length > rest - layout->head_length ||
        rest - layout->head_length - layout->tail_length < RECODE_SLACK) {
        return corrupt(error, AT_FLAGS, "its header is impossible");
    }
    layout->tail = len - layout->tail_length;
    layout->head = layout->tail - layout->head_length;
    if (!jpeg_header_read(&layout->header, bytes + layout->head, layout->head_length) ||
        layout->header.scan != layout->head_length) {
        return corrupt(error, layout->head, "the head of the original file is damaged");
    }
    layout->frame = layout->header.frame;
    return STATUS_OK;
}

// The codes and the index of rows.
static enum status read_tables(struct recode_layout *layout, const uint8_t *bytes,
                               struct error *error)
{
    const struct jpeg_frame *frame = &layout->frame;
    const uint8_t *at = bytes + RECODE_FIXED_BYTES, *end = bytes + layout->head - RECODE_SLACK;
    layout->tables = frame->components == 1 ? 1 : RECODE_TABLES;
    for (uint32_t i = 0; i < layout->tables; i++) {
        at = recode_lengths_read(at, end, layout->lengths[i]);
        if (at == NULL) {
            return corrupt(error, RECODE_FIXED_BYTES, "the lengths of its codes are damaged");
        }
    }
    size_t ends = 4 * (size_t)frame->mcus_high;
    if ((size_t)(end - at) < ends) {
        return corrupt(error, (size_t)(at - bytes), "it ends before its rows");
    }
    layout->ends = at;
    layout->rows = (size_t)(at - bytes) + ends;
    layout->rows_end = layout->head - RECODE_SLACK;
    if (!check_rows(layout, (uint32_t)(layout->rows_end - layout->rows))) {
        return corrupt(error, (size_t)(at - bytes), "the index of rows is wrong");
    }
    return STATUS_OK;
}

enum status recode_layout_read(struct recode_layout *layout, const uint8_t *bytes, size_t len,
                               struct error *error)
{
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
    enum status status = read_original(layout, bytes, len, error);
    return status ? status : read_tables(layout, bytes, error);
}

void recode_layout_write(const struct recode_layout *layout, uint8_t bytes[RECODE_FIXED_BYTES])
{
    memset(bytes, 0, RECODE_FIXED_BYTES);
    memcpy(bytes, magic, MAGIC_BYTES);
    bytes[AT_VERSION] = RECODE_VERSION;
    bytes[AT_FLAGS] = layout->exact ? RECODE_FLAG_EXACT : 0;
    recode_store32(bytes + AT_ORIGINAL, layout->original_length);
    recode_store32(bytes + AT_ORIGINAL + 4, layout->original_crc);
    recode_store32(bytes + AT_HEAD, (uint32_t)layout->head_length);
    recode_store32(bytes + AT_TAIL, (uint32_t)layout->tail_length);
}

// --- lengths of codes --------------------------------------------------------------------------

// Half bytes, the low one first: a length; or 0, and then how many more symbols are without a code.

const uint8_t *recode_lengths_read(const uint8_t *at, const uint8_t *end,
                                   uint8_t lengths[RECODE_SYMBOLS])
{
    size_t nibble = 0, nibbles = 2 * (size_t)(end - at);
    memset(lengths, 0, RECODE_SYMBOLS);
    for (unsigned symbol = 0; symbol < RECODE_SYMBOLS; symbol++, nibble++) {
        if (nibble == nibbles) {
            return NULL;
        }
        lengths[symbol] = at[nibble / 2] >> 4 * (nibble % 2) & 15;
        if (lengths[symbol] == 0) {
            if (++nibble == nibbles) {
                return NULL;
            }
            unsigned more = at[nibble / 2] >> 4 * (nibble % 2) & 15;
            if (more >= RECODE_SYMBOLS - symbol) {
                return NULL;
            }
            symbol += more;
        }
    }
    return at + (nibble + 1) / 2;
}

static void put_nibble(uint8_t *to, size_t *nibble, unsigned value)
{
    uint8_t *byte = to + *nibble / 2;
    *byte = (uint8_t)(*nibble % 2 ? *byte | value << 4 : value);
    ++*nibble;
}

size_t recode_lengths_write(const uint8_t lengths[RECODE_SYMBOLS], uint8_t *to)
{
    size_t nibble = 0;
    for (unsigned symbol = 0; symbol < RECODE_SYMBOLS; symbol++) {
        put_nibble(to, &nibble, lengths[symbol]);
        if (lengths[symbol] == 0) {
            unsigned more = 0;
            while (more < 15 && symbol + 1 < RECODE_SYMBOLS && lengths[symbol + 1] == 0) {
                more++;
                symbol++;
            }
            put_nibble(to, &nibble, more);
        }
    }
    return (nibble + 1) / 2;
}
