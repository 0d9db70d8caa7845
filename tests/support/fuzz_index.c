#include "tests/support/fuzz_index.h"
#include "formats/crc32c.h"
#include "tests/support/fuzz.h"

#include <string.h>

static uint8_t *section_entry(uint8_t *bytes, unsigned section)
{
    return bytes + INDEX_TABLE_AT + INDEX_TABLE_ENTRY * section;
}

static uint64_t count_strings(const uint8_t *bytes, uint64_t len)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < len; i++) {
        count += bytes[i] == 0;
    }
    return count;
}

static uint64_t count_entries(enum index_section section, const uint8_t *bytes, uint64_t len)
{
    switch (section) {
    case INDEX_FILES:
        return len / INDEX_FILE_BYTES;
    case INDEX_RECORDS:
        return len / INDEX_RECORD_BYTES;
    default:
        return count_strings(bytes, len);
    }
}

// Sections follow each other; the last takes what is left.
static void lay_out(uint8_t *bytes, size_t len, bool recount)
{
    uint64_t at = INDEX_HEADER_BYTES, end = (len - INDEX_TRAILER_BYTES) & ~UINT64_C(7);
    for (unsigned i = 0; i < INDEX_SECTIONS; i++) {
        uint8_t *entry = section_entry(bytes, i);
        uint64_t length = index_load64(entry + 8);
        if (length > end - at || i == INDEX_SECTIONS - 1) {
            bool close = end - at < length + 8 && length <= end - at;
            length = close ? length : end - at;
        }
        index_store64(entry, at);
        index_store64(entry + 8, length);
        if (recount) {
            index_store64(entry + 16, count_entries(i, bytes + at, length));
        }
        at += (length + 7) & ~UINT64_C(7);
    }
}

void fuzz_index_sign(uint8_t *bytes, size_t len)
{
    if (len < INDEX_HEADER_BYTES + INDEX_TRAILER_BYTES) {
        return;
    }
    memcpy(bytes, index_magic, 8);
    if (index_load32(bytes + 8) != INDEX_VERSION_FIRST) {
        index_store32(bytes + 8, INDEX_VERSION);
    }
    index_store32(bytes + 12, INDEX_ENDIAN_MARK);
    index_store64(bytes + 16, len);
    for (unsigned i = 0; i < INDEX_SECTIONS; i++) {
        uint8_t *entry = section_entry(bytes, i);
        uint64_t offset = index_load64(entry), length = index_load64(entry + 8);
        if (offset <= len && length <= len - offset) {
            index_store32(entry + 24, crc32c(0, bytes + offset, length));
        }
    }
    index_store32(bytes + INDEX_HEADER_CRC_AT, crc32c(0, bytes, INDEX_HEADER_CRC_AT));
    uint8_t *trailer = bytes + len - INDEX_TRAILER_BYTES;
    memcpy(trailer, index_trailer_magic, 8);
    index_store64(trailer + 8, index_hash(0, bytes, len - INDEX_TRAILER_BYTES));
}

void fuzz_index_repair(uint8_t *bytes, size_t len, uint64_t *random)
{
    if (len < INDEX_HEADER_BYTES + INDEX_TRAILER_BYTES) {
        return;
    }
    if (fuzz_below(random, 8) > 0) {
        lay_out(bytes, len, fuzz_below(random, 4) > 0);
    }
    fuzz_index_sign(bytes, len);
}
