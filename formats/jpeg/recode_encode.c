// From a JPEG file to its recoded form, in three passes over its coefficients: count symbols, write
// them, compare what was written. Nothing is kept between passes but one row of MCUs, so that
// memory does not grow with the image.
#include "formats/crc32c.h"
#include "formats/jpeg/huffman.h"
#include "formats/jpeg/recode_source.h"
#include "formats/limits.h"

#include <stdlib.h>
#include <string.h>

#define DC_LEAST (-1024) // what 8-bit samples give
#define DC_MOST  1023
#define AC_MOST  1023

struct token {
    uint8_t symbol;
    uint16_t amplitude; // the sign, then the bits below the highest
};

struct recode_encoder {
    struct jpeg_header header;
    struct jpeg_huffman huffman;
    struct recode_source check;
    struct recode_layout layout; // of what is written
    int16_t *rows[2];            // of MCUs, one after the other: as read, as decoded again
    size_t row_blocks;
    struct token *tokens; // of a component in a row
    uint8_t *streams;     // the same, coded
    uint8_t *payload;
    size_t payload_len, payload_capacity;

    uint64_t counts[RECODE_TABLES][RECODE_SYMBOLS];
    uint8_t lengths[RECODE_TABLES][RECODE_SYMBOLS];
    uint16_t codes[RECODE_TABLES][RECODE_SYMBOLS];
};

enum status recode_encoder_open(struct recode_encoder **out, struct error *error)
{
    *out = calloc(1, sizeof **out);
    return *out ? STATUS_OK
                : error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                            "no memory to recode images");
}

static void free_rows(struct recode_encoder *encoder)
{
    free(encoder->rows[0]);
    free(encoder->rows[1]);
    free(encoder->tokens);
    free(encoder->streams);
    encoder->rows[0] = encoder->rows[1] = NULL;
    encoder->tokens = NULL;
    encoder->streams = NULL;
    encoder->row_blocks = 0;
}

void recode_encoder_close(struct recode_encoder **encoder)
{
    if (*encoder != NULL) {
        free_rows(*encoder);
        free((*encoder)->payload);
        free(*encoder);
        *encoder = NULL;
    }
}

static enum status no_memory(struct error *error)
{
    return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                     "no memory to recode an image");
}

static uint32_t blocks_of(const struct jpeg_frame *frame, uint32_t c)
{
    return frame->mcus_wide * frame->component[c].h * frame->component[c].v;
}

static enum status reserve_rows(struct recode_encoder *encoder, struct error *error)
{
    const struct jpeg_frame *frame = &encoder->header.frame;
    size_t blocks = 0;
    for (uint32_t c = 0; c < frame->components; c++) {
        blocks += blocks_of(frame, c);
    }
    if (blocks <= encoder->row_blocks) {
        return STATUS_OK;
    }
    free_rows(encoder);
    for (int i = 0; i < 2; i++) {
        encoder->rows[i] = aligned_alloc(64, blocks * JPEG_BLOCK * sizeof(int16_t));
    }
    encoder->tokens = malloc(blocks * JPEG_BLOCK * sizeof *encoder->tokens);
    encoder->streams = malloc(blocks * JPEG_BLOCK * 3 + RECODE_STREAMS * sizeof(uint64_t));
    bool ready = encoder->rows[0] != NULL && encoder->rows[1] != NULL && encoder->tokens != NULL &&
                 encoder->streams != NULL;
    encoder->row_blocks = ready ? blocks : 0;
    return ready ? STATUS_OK : no_memory(error);
}

static enum status reserve_payload(struct recode_encoder *encoder, size_t more, struct error *error)
{
    size_t need = encoder->payload_len + more;
    if (need > encoder->payload_capacity) {
        size_t capacity = need + need / 2;
        uint8_t *payload = realloc(encoder->payload, capacity);
        if (payload == NULL) {
            return no_memory(error);
        }
        encoder->payload = payload;
        encoder->payload_capacity = capacity;
    }
    return STATUS_OK;
}

// --- symbols -----------------------------------------------------------------------------------

static unsigned bits_of(int value)
{
    unsigned magnitude = (unsigned)(value < 0 ? -value : value);
    return magnitude ? 32 - (unsigned)__builtin_clz(magnitude) : 0;
}

// `zero` is the symbol of the first amplitude's size, less one.
static struct token tokenize(unsigned zero, int value)
{
    unsigned size = bits_of(value);
    struct token token = {.symbol = (uint8_t)(zero + size)};
    if (size > 0) {
        unsigned below = value < 0 ? (unsigned)(value + (1 << size) - 1)
                                   : (unsigned)value & ((1u << (size - 1)) - 1);
        token.amplitude = (uint16_t)(below << 1 | (value < 0));
    }
    return token;
}

static struct token tokenize_dc(int difference)
{
    if (difference == DC_LEAST) {
        return (struct token){.symbol = RECODE_DC_LOW};
    }
    return tokenize(RECODE_END, difference);
}

static bool tokenize_ac(const int16_t *block, struct token *tokens, uint32_t *count)
{
    unsigned last = 0;
    for (unsigned k = 1; k < JPEG_BLOCK; k++) {
        int value = block[jpeg_natural_place[k]];
        if (value == 0) {
            continue;
        }
        if (value < -AC_MOST || value > AC_MOST) {
            return false;
        }
        for (; k - last > 16; last += 16) {
            tokens[(*count)++] = (struct token){.symbol = RECODE_ZEROS};
        }
        tokens[(*count)++] = tokenize((k - last - 1) * RECODE_SIZES - 1, value);
        last = k;
    }
    return true;
}

// The tokens of a component's blocks in a row. False when a value is beyond what symbols there are.
static bool tokenize_blocks(const int16_t *blocks, uint32_t block_count, struct token *tokens,
                            uint32_t *count)
{
    int last = 0;
    *count = 0;
    for (uint32_t i = 0; i < block_count; i++, blocks += JPEG_BLOCK) {
        int dc = blocks[0], difference = dc - last;
        if (dc < DC_LEAST || dc > DC_MOST) {
            return false;
        }
        difference -= difference > DC_MOST ? 2048 : 0; // modulo 2^11
        difference += difference < DC_LEAST ? 2048 : 0;
        tokens[(*count)++] = tokenize_dc(difference);
        last = dc;
        if (!tokenize_ac(blocks, tokens, count)) {
            return false;
        }
    }
    return true;
}

// --- rows --------------------------------------------------------------------------------------

static enum status read_row(struct recode_encoder *encoder, struct jpeg_source *source,
                            uint32_t row, int which, int16_t *blocks[3], struct error *error)
{
    const struct jpeg_frame *frame = &encoder->header.frame;
    int16_t *at = encoder->rows[which];
    for (uint32_t c = 0; c < frame->components; c++) {
        blocks[c] = at;
        at += (size_t)blocks_of(frame, c) * JPEG_BLOCK;
    }
    return source->row(source, row, 0, frame->mcus_wide, blocks, error);
}

// Sets `outcome` where the file is not to be recoded, and then there is no error.
typedef enum status (*row_work)(struct recode_encoder *encoder, uint32_t row, int16_t *blocks[3],
                                enum recode_outcome *outcome, struct error *error);

static enum status each_row(struct recode_encoder *encoder, const uint8_t *bytes, size_t len,
                            row_work work, enum recode_outcome *outcome, struct error *error)
{
    jpeg_huffman_start(&encoder->huffman, &encoder->header, bytes, len);
    enum status status = STATUS_OK;
    for (uint32_t row = 0;
         status == STATUS_OK && *outcome == RECODE_PIXELS && row < encoder->header.frame.mcus_high;
         row++) {
        int16_t *blocks[3];
        if (read_row(encoder, &encoder->huffman.source, row, 0, blocks, NULL) != STATUS_OK) {
            *outcome = RECODE_UNUSUAL; // damaged, or what only libjpeg understands
            break;
        }
        status = work(encoder, row, blocks, outcome, error);
    }
    return status;
}

static enum status count_row(struct recode_encoder *encoder, uint32_t row, int16_t *blocks[3],
                             enum recode_outcome *outcome, struct error *error)
{
    (void)row;
    (void)error;
    const struct jpeg_frame *frame = &encoder->header.frame;
    for (uint32_t c = 0; c < frame->components; c++) {
        uint32_t count;
        if (!tokenize_blocks(blocks[c], blocks_of(frame, c), encoder->tokens, &count)) {
            *outcome = RECODE_EXTREME;
            break;
        }
        for (uint32_t i = 0; i < count; i++) {
            encoder->counts[c > 0][encoder->tokens[i].symbol]++;
        }
    }
    return STATUS_OK;
}

static size_t write_stream(const struct recode_encoder *encoder, uint32_t table,
                           const struct token *tokens, uint32_t count, uint8_t *to)
{
    uint64_t buffer = 0;
    unsigned bits = 0;
    size_t len = 0;
    for (uint32_t i = 0; i < count; i++) {
        unsigned symbol = tokens[i].symbol, size = recode_symbol(symbol).size;
        buffer |= (uint64_t)encoder->codes[table][symbol] << bits;
        bits += encoder->lengths[table][symbol];
        buffer |= (uint64_t)tokens[i].amplitude << bits;
        bits += size;
        for (; bits >= 8; bits -= 8, buffer >>= 8) {
            to[len++] = (uint8_t)buffer;
        }
    }
    if (bits > 0) {
        to[len++] = (uint8_t)buffer;
    }
    return len;
}

static uint32_t place_after(const struct token *tokens, uint32_t count, uint32_t place)
{
    for (uint32_t i = 0; i < count; i++) {
        struct recode_symbol symbol = recode_symbol(tokens[i].symbol);
        place = (symbol.end ? place | (JPEG_BLOCK - 1) : place) + symbol.advance;
    }
    return place;
}

static void put_number(struct recode_encoder *encoder, uint32_t number)
{
    for (; number > 127; number >>= 7) {
        encoder->payload[encoder->payload_len++] = (uint8_t)(number | 128);
    }
    encoder->payload[encoder->payload_len++] = (uint8_t)number;
}

static enum status write_group(struct recode_encoder *encoder, uint32_t table, uint32_t count,
                               struct error *error)
{
    bool alone = count < RECODE_ALONE;
    uint32_t each = alone ? 0 : count / RECODE_STREAMS, place = JPEG_BLOCK - 1;
    uint32_t places[RECODE_STREAMS];
    size_t lengths[RECODE_STREAMS], total = 0;
    for (uint32_t i = 0; i < RECODE_STREAMS; i++) {
        const struct token *tokens = encoder->tokens + (size_t)i * each;
        uint32_t own = i + 1 < RECODE_STREAMS ? each : count - i * each;
        places[i] = place - (JPEG_BLOCK - 1);
        lengths[i] = write_stream(encoder, table, tokens, own, encoder->streams + total);
        place = place_after(tokens, own, place);
        total += lengths[i];
    }
    enum status status =
        reserve_payload(encoder, total + RECODE_GROUP_VALUES * RECODE_VALUE_BYTES, error);
    if (status != STATUS_OK) {
        return status;
    }
    put_number(encoder, count);
    for (uint32_t i = 1; i < RECODE_STREAMS && !alone; i++) {
        put_number(encoder, places[i]);
    }
    for (uint32_t i = alone ? RECODE_STREAMS - 1 : 0; i < RECODE_STREAMS; i++) {
        put_number(encoder, (uint32_t)lengths[i]);
    }
    memcpy(encoder->payload + encoder->payload_len, encoder->streams, total);
    encoder->payload_len += total;
    return STATUS_OK;
}

static bool is_large(const struct recode_encoder *encoder)
{
    const struct recode_layout *layout = &encoder->layout;
    size_t len = layout->rows_end + RECODE_SLACK + layout->head_length + layout->tail_length;
    return len > LIMIT_IMAGE_BYTES ||
           len * 100 > (size_t)layout->original_length * RECODE_MOST_OF_100;
}

static enum status write_row(struct recode_encoder *encoder, uint32_t row, int16_t *blocks[3],
                             enum recode_outcome *outcome, struct error *error)
{
    const struct jpeg_frame *frame = &encoder->header.frame;
    enum status status = STATUS_OK;
    for (uint32_t c = 0; c < frame->components && status == STATUS_OK; c++) {
        uint32_t count;
        tokenize_blocks(blocks[c], blocks_of(frame, c), encoder->tokens, &count);
        status = write_group(encoder, c > 0, count, error);
    }
    uint8_t *ends = encoder->payload + encoder->layout.rows - 4 * (size_t)frame->mcus_high;
    recode_store32(ends + 4 * (size_t)row, (uint32_t)(encoder->payload_len - encoder->layout.rows));
    encoder->layout.rows_end = encoder->payload_len;
    *outcome = is_large(encoder) ? RECODE_LARGE : *outcome;
    return status;
}

static enum status compare_row(struct recode_encoder *encoder, uint32_t row, int16_t *blocks[3],
                               enum recode_outcome *outcome, struct error *error)
{
    (void)error;
    const struct jpeg_frame *frame = &encoder->header.frame;
    int16_t *again[3];
    bool same = read_row(encoder, &encoder->check.source, row, 1, again, NULL) == STATUS_OK;
    for (uint32_t c = 0; c < frame->components && same; c++) {
        size_t size = (size_t)blocks_of(frame, c) * JPEG_BLOCK * sizeof(int16_t);
        same = memcmp(blocks[c], again[c], size) == 0;
    }
    *outcome = same ? *outcome : RECODE_DIFFERS;
    return STATUS_OK;
}

// --- the whole ---------------------------------------------------------------------------------

static void make_codes(struct recode_encoder *encoder)
{
    for (uint32_t i = 0; i < encoder->layout.tables; i++) {
        encoder->counts[i][RECODE_ZEROS]++; // a code needs two symbols
        encoder->counts[i][RECODE_END]++;
        recode_lengths(encoder->counts[i], encoder->lengths[i]);
        recode_codes(encoder->lengths[i], encoder->codes[i]);
    }
}

static enum status begin_payload(struct recode_encoder *encoder, struct error *error)
{
    struct recode_layout *layout = &encoder->layout;
    size_t ends = 4 * (size_t)encoder->header.frame.mcus_high;
    encoder->payload_len = 0;
    enum status status = reserve_payload(
        encoder, RECODE_FIXED_BYTES + RECODE_TABLES * RECODE_LENGTHS_MOST + ends, error);
    if (status != STATUS_OK) {
        return status;
    }
    size_t len = RECODE_FIXED_BYTES;
    for (uint32_t i = 0; i < layout->tables; i++) {
        len += recode_lengths_write(encoder->lengths[i], encoder->payload + len);
    }
    layout->rows = encoder->payload_len = len + ends;
    return STATUS_OK;
}

// Writes what lies behind the rows, and the header again, which tells of it.
static enum status end_payload(struct recode_encoder *encoder, const uint8_t *head,
                               const uint8_t *tail, struct error *error)
{
    const struct recode_layout *layout = &encoder->layout;
    encoder->payload_len = layout->rows_end;
    size_t more = RECODE_SLACK + layout->head_length + layout->tail_length;
    enum status status = reserve_payload(encoder, more, error);
    if (status == STATUS_OK) {
        uint8_t *to = encoder->payload + encoder->payload_len;
        memset(to, 0, RECODE_SLACK);
        memcpy(to + RECODE_SLACK, head, layout->head_length);
        memcpy(to + RECODE_SLACK + layout->head_length, tail, layout->tail_length);
        encoder->payload_len += more;
        recode_layout_write(layout, encoder->payload);
    }
    return status;
}

// Compares a JPEG file with what the payload decodes to.
static enum status compare_all(struct recode_encoder *encoder, const uint8_t *bytes, size_t len,
                               enum recode_outcome *outcome, struct error *error)
{
    bool same = jpeg_header_read(&encoder->header, bytes, len) &&
                recode_source_start(&encoder->check, encoder->payload, encoder->payload_len,
                                    NULL) == STATUS_OK;
    if (!same) {
        *outcome = RECODE_DIFFERS;
        return STATUS_OK;
    }
    return each_row(encoder, bytes, len, compare_row, outcome, error);
}

// Adds what makes the file complete. A scan that comes back as it was leaves the rest of the file
// for the tail.
static enum status add_tail(struct recode_encoder *encoder, const uint8_t *bytes, size_t len,
                            enum recode_outcome *outcome, struct error *error)
{
    static const uint8_t end_of_image[2] = {0xff, 0xd9};
    struct recode_layout *layout = &encoder->layout;
    uint8_t *jpeg;
    size_t jpeg_len;
    bool exact;
    enum status status =
        recode_restore(encoder->payload, encoder->payload_len, &exact, &jpeg, &jpeg_len, error);
    if (status != STATUS_OK) {
        *outcome = RECODE_UNUSUAL; // symbols that the file's codes do not have
        return status == STATUS_NO_MEMORY ? status : STATUS_OK;
    }
    layout->exact = jpeg_len <= len && memcmp(jpeg, bytes, jpeg_len) == 0;
    layout->tail_length = layout->exact ? len - jpeg_len : sizeof end_of_image;
    free(jpeg);
    return end_payload(encoder, bytes,
                       layout->exact ? bytes + len - layout->tail_length : end_of_image, error);
}

// Writes the file again and compares it: as a whole, or its coefficients.
static enum status prove_return(struct recode_encoder *encoder, const uint8_t *bytes, size_t len,
                                enum recode_outcome *outcome, struct error *error)
{
    uint8_t *jpeg;
    size_t jpeg_len;
    bool exact;
    enum status status =
        recode_restore(encoder->payload, encoder->payload_len, &exact, &jpeg, &jpeg_len, error);
    if (status != STATUS_OK) {
        *outcome = RECODE_DIFFERS;
        return status == STATUS_NO_MEMORY ? status : STATUS_OK;
    }
    if (exact) {
        *outcome = jpeg_len == len && memcmp(jpeg, bytes, len) == 0 ? RECODE_EXACT : RECODE_DIFFERS;
    } else {
        status = compare_all(encoder, jpeg, jpeg_len, outcome, error);
    }
    free(jpeg);
    return status;
}

static enum status write_payload(struct recode_encoder *encoder, const uint8_t *bytes, size_t len,
                                 enum recode_outcome *outcome, struct error *error)
{
    make_codes(encoder);
    enum status status = begin_payload(encoder, error);
    if (status == STATUS_OK) {
        status = each_row(encoder, bytes, len, write_row, outcome, error);
    }
    if (status == STATUS_OK && *outcome == RECODE_PIXELS) {
        status = end_payload(encoder, bytes, bytes, error);
    }
    if (status == STATUS_OK && *outcome == RECODE_PIXELS) {
        status = add_tail(encoder, bytes, len, outcome, error);
    }
    if (status == STATUS_OK && *outcome == RECODE_PIXELS && is_large(encoder)) {
        *outcome = RECODE_LARGE;
    }
    return status;
}

enum status recode_encode(struct recode_encoder *encoder, const uint8_t *bytes, size_t len,
                          enum recode_outcome *outcome, const uint8_t **payload,
                          size_t *payload_len, struct error *error)
{
    *payload = NULL;
    *payload_len = 0;
    *outcome = RECODE_UNUSUAL;
    if (len > LIMIT_IMAGE_BYTES || !jpeg_header_read(&encoder->header, bytes, len)) {
        return STATUS_OK;
    }
    encoder->layout = (struct recode_layout){
        .tables = encoder->header.frame.components == 1 ? 1 : RECODE_TABLES,
        .original_length = (uint32_t)len,
        .original_crc = crc32c(0, bytes, len),
        .head_length = encoder->header.scan,
    };
    memset(encoder->counts, 0, sizeof encoder->counts);
    *outcome = RECODE_PIXELS;
    enum status status = reserve_rows(encoder, error);
    if (status == STATUS_OK) {
        status = each_row(encoder, bytes, len, count_row, outcome, error);
    }
    if (status == STATUS_OK && *outcome == RECODE_PIXELS) {
        status = write_payload(encoder, bytes, len, outcome, error);
    }
    if (status == STATUS_OK && *outcome == RECODE_PIXELS) {
        status = compare_all(encoder, bytes, len, outcome, error);
    }
    if (status == STATUS_OK && *outcome == RECODE_PIXELS) {
        status = prove_return(encoder, bytes, len, outcome, error);
    }
    if (status == STATUS_OK && (*outcome == RECODE_EXACT || *outcome == RECODE_PIXELS)) {
        *payload = encoder->payload;
        *payload_len = encoder->payload_len;
    }
    return status;
}
