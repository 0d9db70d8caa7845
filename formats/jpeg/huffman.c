// Everything around the decoding loop: tables, the window over the file's bytes, restarts, rows.
#include "formats/jpeg/huffman_kernel.h"

#include <string.h>

#define RST0 0xd0
#define EOI  0xd9

// --- tables --------------------------------------------------------------------------------------

static void fill(uint32_t *look, uint32_t count, uint32_t entry)
{
    for (uint32_t i = 0; i < count; i++) {
        look[i] = entry;
    }
}

// The entries of all looks that start with a code of `bits` bits for `symbol`.
static void fill_symbol(uint32_t *look, uint32_t look_bits, uint32_t bits, uint32_t symbol, bool dc)
{
    uint32_t count = 1u << (look_bits - bits), size = symbol & 15, zeros = symbol >> 4;
    uint32_t entry = (bits + size) | zeros << 8 | size << 12;
    bool is_end = !dc && symbol == 0, is_unused = !dc && size == 0 && zeros != 0 && zeros != 15;
    if (size == 0) {
        fill(look, count, is_unused ? LOOK_STOP : is_end ? entry | LOOK_STOP : entry);
    } else if (bits == look_bits || bits + size > LOOK_MOST) {
        fill(look, count, LOOK_STOP);
    } else {
        uint32_t negative = (uint32_t)(1 - (1 << size)) << 16;
        fill(look, count / 2, entry | negative);
        fill(look + count / 2, count / 2, entry);
    }
}

static void build_book(struct jpeg_huffman_book *book, uint32_t *look, uint32_t look_bits,
                       const struct jpeg_huffman_code *code, bool dc)
{
    uint32_t next = 0, index = 0; // code and number of the next symbol
    for (uint32_t bits = 1; bits <= 16; bits++) {
        next *= 2;
        book->offset[bits] = index - next;
        for (uint32_t i = 0; i < code->counts[bits - 1]; i++, index++, next++) {
            book->symbols[index] = code->symbols[index];
            if (bits <= look_bits) {
                fill_symbol(look + (next << (look_bits - bits)), look_bits, bits,
                            code->symbols[index], dc);
            }
        }
        book->limit[bits] = next << (16 - bits);
        if (bits == look_bits) {
            fill(look + next, (1u << look_bits) - next, LOOK_STOP);
        }
    }
}

// The table of a component, or the one of an earlier component that has the same code.
static const struct jpeg_huffman_dc *dc_of(struct jpeg_huffman *decoder,
                                           const struct jpeg_header *header, uint32_t component)
{
    for (uint32_t c = 0; c < component; c++) {
        if (header->dc[c].counts == header->dc[component].counts) {
            return &decoder->dc[c];
        }
    }
    struct jpeg_huffman_dc *table = &decoder->dc[component];
    build_book(&table->book, table->look, JPEG_DC_LOOK, &header->dc[component], true);
    return table;
}

static const struct jpeg_huffman_ac *ac_of(struct jpeg_huffman *decoder,
                                           const struct jpeg_header *header, uint32_t component)
{
    for (uint32_t c = 0; c < component; c++) {
        if (header->ac[c].counts == header->ac[component].counts) {
            return &decoder->ac[c];
        }
    }
    struct jpeg_huffman_ac *table = &decoder->ac[component];
    uint32_t singles[1 << JPEG_AC_LOOK];
    build_book(&table->book, singles, JPEG_AC_LOOK, &header->ac[component], false);
    ISA_SELECT(jpeg_huffman_kernel, isa_chosen())->pair(table, singles);
    memset(table->natural, JPEG_BLOCK - 1, sizeof table->natural);
    memcpy(table->natural, jpeg_natural_place, JPEG_BLOCK);
    return table;
}

// --- the window over the file's bytes ------------------------------------------------------------

// Copies bytes behind the window's end until the window is full or the segment ends.
static void unstuff(struct jpeg_huffman *decoder)
{
    uint8_t *to = decoder->window_end, *full = decoder->window + JPEG_WINDOW;
    const uint8_t *from = decoder->input, *end = decoder->input_end;
    while (to < full && !decoder->segment_ends) {
        size_t most = (size_t)(end - from), room = (size_t)(full - to);
        most = most < room ? most : room;
        const uint8_t *stop = memchr(from, 0xff, most);
        size_t plain = stop ? (size_t)(stop - from) : most;
        memcpy(to, from, plain);
        to += plain;
        from += plain;
        if (stop != NULL && end - from >= 2 && from[1] == 0) {
            *to++ = 0xff;
            from += 2;
        } else if (stop != NULL || from == end) {
            while (from < end && *from == 0xff) {
                from++;
            }
            decoder->segment_ends = true;
            decoder->marker = from < end ? *from++ : 0;
        }
    }
    decoder->input = from;
    decoder->window_end = to;
}

// More bytes, the unread ones first. False if there are none.
static bool supply(struct jpeg_huffman *decoder)
{
    if (decoder->segment_ends) {
        return false;
    }
    size_t left = (size_t)(decoder->window_end - decoder->bits.at);
    memmove(decoder->window, decoder->bits.at, left);
    decoder->bits.at = decoder->window;
    decoder->window_end = decoder->window + left;
    unstuff(decoder);
    if (decoder->segment_ends) {
        // Beyond the end the loop sees zeros, at most an MCU of them before it is asked.
        memset(decoder->window_end, 0, JPEG_MCU_BYTES + 16);
        decoder->limit = decoder->window_end + 8;
        decoder->invalid |= decoder->marker == 0; // libjpeg may warn some bytes before the end
    } else {
        decoder->limit = decoder->window_end - JPEG_MCU_BYTES - 8;
    }
    return true;
}

static void start_segment(struct jpeg_huffman *decoder)
{
    decoder->bits = (struct jpeg_bits){.at = decoder->window};
    decoder->window_end = decoder->window;
    decoder->segment_ends = false;
    memset(decoder->predictor, 0, sizeof decoder->predictor);
    decoder->before_restart = decoder->restart_interval;
    supply(decoder);
}

// Bits of the segment that are left in the window, negative if more than all were used.
static int64_t bits_left(const struct jpeg_huffman *decoder)
{
    return (decoder->window_end - decoder->bits.at) * 8 + (int64_t)(decoder->bits.count & 63);
}

// Whether the segment ends here, but for bits that fill its last byte, and `marker` follows.
static bool ends_with(struct jpeg_huffman *decoder, uint8_t marker)
{
    supply(decoder);
    return decoder->segment_ends && bits_left(decoder) < 8 && decoder->marker == marker;
}

// --- rows ----------------------------------------------------------------------------------------

typedef uint32_t kernel_run(struct jpeg_huffman *decoder, uint32_t mcus);

// Runs over `mcus` MCUs without a restart between them.
static bool run_segment(struct jpeg_huffman *decoder, kernel_run *run, uint32_t mcus)
{
    uint32_t done = run(decoder, mcus);
    while (done < mcus) {
        if (!supply(decoder)) {
            return false;
        }
        done += run(decoder, mcus - done);
    }
    return !decoder->invalid && (!decoder->segment_ends || bits_left(decoder) >= 0);
}

static bool run_mcus(struct jpeg_huffman *decoder, kernel_run *run, uint64_t mcus)
{
    while (mcus > 0) {
        if (decoder->restart_interval > 0 && decoder->before_restart == 0) {
            if (!ends_with(decoder, (uint8_t)(RST0 + (decoder->restarts++ & 7)))) {
                return false;
            }
            start_segment(decoder);
        }
        uint64_t most = decoder->restart_interval > 0 ? decoder->before_restart : UINT32_MAX;
        uint32_t count = (uint32_t)(mcus < most ? mcus : most);
        if (!run_segment(decoder, run, count)) {
            return false;
        }
        mcus -= count;
        decoder->before_restart -= decoder->restart_interval > 0 ? count : 0;
    }
    return true;
}

static void aim(struct jpeg_huffman *decoder, uint32_t first, int16_t *const blocks[3])
{
    for (uint32_t b = 0; b < decoder->blocks; b++) {
        struct jpeg_huffman_block *block = &decoder->block[b];
        size_t h = decoder->h[block->component], line = decoder->mcus_wide * h;
        block->to =
            blocks[block->component] + (block->y * line + first * h + block->x) * JPEG_BLOCK;
    }
}

static bool run_row(struct jpeg_huffman *decoder, uint32_t row, uint32_t first, uint32_t end,
                    int16_t *const blocks[3])
{
    const struct jpeg_huffman_kernel *kernel = ISA_SELECT(jpeg_huffman_kernel, isa_chosen());
    uint64_t before = (uint64_t)(row - decoder->next_row) * decoder->mcus_wide + first;
    if (!run_mcus(decoder, kernel->skip, before)) {
        return false;
    }
    if (first < end) {
        aim(decoder, first, blocks);
    }
    return run_mcus(decoder, kernel->decode, end - first) &&
           run_mcus(decoder, kernel->skip, decoder->mcus_wide - end) &&
           (row + 1 < decoder->mcus_high || ends_with(decoder, EOI));
}

static enum status read_row(struct jpeg_source *source, uint32_t row, uint32_t first, uint32_t end,
                            int16_t *const blocks[3], struct error *error)
{
    struct jpeg_huffman *decoder = (struct jpeg_huffman *)source;
    if (row < decoder->next_row || row >= decoder->mcus_high || first > end ||
        end > decoder->mcus_wide) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "JPEG: MCUs %u to %u of row %u cannot be asked for", first, end, row);
    }
    decoder->broken = decoder->broken || !run_row(decoder, row, first, end, blocks);
    if (decoder->broken) {
        return error_set(error, STATUS_CORRUPT, NULL, NOWHERE, NOWHERE,
                         "JPEG: no plain entropy-coded data up to row %u of MCUs", row);
    }
    decoder->next_row = row + 1;
    return STATUS_OK;
}

static void lay_out_mcu(struct jpeg_huffman *decoder, const struct jpeg_header *header)
{
    decoder->blocks = 0;
    for (uint32_t c = 0; c < header->frame.components; c++) {
        const struct jpeg_component *component = &header->frame.component[c];
        const struct jpeg_huffman_dc *dc = dc_of(decoder, header, c);
        const struct jpeg_huffman_ac *ac = ac_of(decoder, header, c);
        decoder->h[c] = component->h;
        for (uint32_t i = 0; i < component->h * component->v; i++) {
            decoder->block[decoder->blocks++] = (struct jpeg_huffman_block){
                .component = c,
                .x = i % component->h,
                .y = i / component->h,
                .dc = dc,
                .ac = ac,
                .step = component->h * JPEG_BLOCK,
            };
        }
    }
}

void jpeg_huffman_start(struct jpeg_huffman *decoder, const struct jpeg_header *header,
                        const uint8_t *bytes, size_t len)
{
    decoder->source.row = read_row;
    decoder->mcus_wide = header->frame.mcus_wide;
    decoder->mcus_high = header->frame.mcus_high;
    decoder->restart_interval = header->restart_interval;
    decoder->restarts = 0;
    decoder->next_row = 0;
    decoder->broken = decoder->invalid = false;
    decoder->input = bytes + header->scan;
    decoder->input_end = bytes + len;
    lay_out_mcu(decoder, header);
    start_segment(decoder);
}
