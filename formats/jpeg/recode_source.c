// Rows of a recoded JPEG: tables, the numbers in front of a group, and the loop's results.
#include "formats/jpeg/recode_source.h"
#include "formats/jpeg/recode_kernel.h"

#include <string.h>

static enum status corrupt(struct error *error, size_t offset, const char *what)
{
    return error_set(error, STATUS_CORRUPT, NULL, offset, NOWHERE, "recoded JPEG: %s", what);
}

// --- tables ------------------------------------------------------------------------------------

static void fill_symbol(struct recode_table *table, unsigned number, unsigned bits, unsigned code)
{
    struct recode_symbol symbol = recode_symbol(number);
    for (unsigned look = code; look < RECODE_LOOKS; look += 1u << bits) {
        unsigned skip = bits, more = 0;
        int base = symbol.value;
        if (symbol.size > 0) {
            bool negative = look >> bits & 1;
            skip++;
            more = symbol.size - 1;
            base = negative ? 1 - (1 << symbol.size) : 1 << more;
        }
        uint64_t align = symbol.end ? JPEG_BLOCK - 1 : 0;
        table->align[look] = align << RECODE_PLACE_SHIFT;
        table->move[look] = (uint64_t)symbol.advance << RECODE_PLACE_SHIFT | (skip + more);
        table->base[look] = base;
        table->skip[look] = (uint8_t)skip;
    }
}

static bool build_table(struct recode_table *table, const uint8_t lengths[RECODE_SYMBOLS])
{
    uint16_t codes[RECODE_SYMBOLS];
    if (!recode_codes(lengths, codes)) {
        return false;
    }
    for (unsigned i = 0; i < RECODE_SYMBOLS; i++) {
        if (lengths[i] > 0) {
            fill_symbol(table, i, lengths[i], codes[i]);
        }
    }
    return true;
}

// --- rows --------------------------------------------------------------------------------------

// A number of seven bits a byte, low ones first; the top bit says that more follow.
static bool read_number(const uint8_t **at, const uint8_t *end, uint32_t *number)
{
    *number = 0;
    for (unsigned shift = 0; *at < end && shift < 28; shift += 7) {
        uint8_t byte = *(*at)++;
        *number |= (uint32_t)(byte & 127) << shift;
        if (byte < 128) {
            return true;
        }
    }
    return false;
}

static bool read_group(struct recode_group *group, const uint8_t *bytes, size_t *at, size_t end,
                       uint32_t blocks)
{
    const uint8_t *next = bytes + *at;
    bool good = read_number(&next, bytes + end, &group->symbols);
    // All but the last stream are empty where there are too few symbols to share.
    bool alone = group->symbols < RECODE_ALONE;
    group->each = alone ? 0 : group->symbols / RECODE_STREAMS;
    for (unsigned i = 0; i < RECODE_STREAMS; i++) {
        group->place[i] = 0;
        good = good && (alone || i == 0 || read_number(&next, bytes + end, &group->place[i])) &&
               group->place[i] <= blocks * JPEG_BLOCK;
        group->place[i] += JPEG_BLOCK - 1;
    }
    uint32_t length[RECODE_STREAMS] = {0};
    for (unsigned i = alone ? RECODE_STREAMS - 1 : 0; good && i < RECODE_STREAMS; i++) {
        good = read_number(&next, bytes + end, &length[i]);
    }
    size_t start = (size_t)(next - bytes);
    group->start[0] = (uint32_t)start;
    for (unsigned i = 0; good && i < RECODE_STREAMS; i++) {
        good = length[i] <= end - start;
        start += length[i];
        group->start[i + 1] = (uint32_t)start;
    }
    *at = start;
    return good;
}

static enum status read_row(struct jpeg_source *base, uint32_t row, uint32_t first, uint32_t end,
                            int16_t *const blocks[3], struct error *error)
{
    struct recode_source *source = (struct recode_source *)base;
    const struct recode_layout *layout = &source->layout;
    const struct jpeg_frame *frame = &layout->frame;
    if (row < source->next_row || row >= frame->mcus_high || first > end ||
        end > frame->mcus_wide) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "recoded JPEG: MCUs %u to %u of row %u cannot be asked for", first, end,
                         row);
    }
    source->next_row = row + 1;
    if (first == end) {
        return STATUS_OK;
    }
    const uint8_t *ends = layout->ends + 4 * (size_t)row;
    size_t at = layout->rows + (row > 0 ? recode_load32(ends - 4) : 0);
    size_t row_end = layout->rows + recode_load32(ends);
    struct recode_kernel kernel = *ISA_SELECT(recode_kernel, isa_chosen());
    for (uint32_t c = 0; c < frame->components; c++) {
        const struct jpeg_component *component = &frame->component[c];
        uint32_t count = frame->mcus_wide * component->h * component->v;
        struct recode_group group;
        size_t group_at = at;
        memset(blocks[c], 0, (size_t)count * JPEG_BLOCK * sizeof(int16_t));
        if (!read_group(&group, source->bytes, &at, row_end, count) ||
            !kernel.decode(&source->table[c > 0], &group, source->bytes,
                           layout->rows_end + RECODE_SLACK, blocks[c], count)) {
            return corrupt(error, group_at, "the data are damaged");
        }
    }
    return at == row_end ? STATUS_OK : corrupt(error, at, "bytes follow a row");
}

enum status recode_source_start(struct recode_source *source, const uint8_t *bytes, size_t len,
                                struct error *error)
{
    source->source.row = read_row;
    source->bytes = bytes;
    source->next_row = 0;
    struct recode_layout *layout = &source->layout;
    enum status status = recode_layout_read(layout, bytes, len, error);
    for (uint32_t i = 0; status == STATUS_OK && i < layout->tables; i++) {
        if (!build_table(&source->table[i], layout->lengths[i])) {
            status = corrupt(error, RECODE_FIXED_BYTES, "the lengths make no code");
        }
    }
    return status;
}
