// Bytes of the index to values and back, little-endian on every machine.
#include "formats/index.h"

// The first byte is not ASCII and the last ones change when a transfer takes the file for text.
const uint8_t index_magic[8] = {0x89, 'B', 'Y', 'O', 'L', '\r', '\n', 0x1a};
const uint8_t index_trailer_magic[8] = {'B', 'Y', 'O', 'L', '-', 'E', 'N', 'D'};

uint32_t index_load32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

uint64_t index_load64(const uint8_t *at)
{
    return index_load32(at) | (uint64_t)index_load32(at + 4) << 32;
}

void index_store32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

void index_store64(uint8_t *at, uint64_t value)
{
    index_store32(at, (uint32_t)value);
    index_store32(at + 4, (uint32_t)(value >> 32));
}

struct dataset_record index_load_record(const uint8_t *at)
{
    return (struct dataset_record){
        .offset = index_load64(at),
        .file = index_load32(at + 8),
        .stored_length = index_load32(at + 12),
        .frame_length = index_load32(at + 16),
        .inner_offset = index_load32(at + 20),
        .length = index_load32(at + 24),
        .crc = index_load32(at + 28),
        .label = (int32_t)index_load32(at + 32),
        .width = index_load32(at + 36),
        .height = index_load32(at + 40),
        .coding = at[44],
        .kind = at[45],
    };
}

void index_store_record(uint8_t *at, const struct dataset_record *record)
{
    index_store64(at, record->offset);
    index_store32(at + 8, record->file);
    index_store32(at + 12, record->stored_length);
    index_store32(at + 16, record->frame_length);
    index_store32(at + 20, record->inner_offset);
    index_store32(at + 24, record->length);
    index_store32(at + 28, record->crc);
    index_store32(at + 32, (uint32_t)record->label);
    index_store32(at + 36, record->width);
    index_store32(at + 40, record->height);
    at[44] = (uint8_t)record->coding;
    at[45] = (uint8_t)record->kind;
    at[46] = 0;
    at[47] = 0;
}

bool index_share_frame(const struct dataset_record *last, const struct dataset_record *next)
{
    return last->coding == DATASET_CODING_ZSTD && next->coding == DATASET_CODING_ZSTD &&
           last->file == next->file && last->offset == next->offset &&
           last->stored_length == next->stored_length && last->frame_length == next->frame_length &&
           next->inner_offset >= last->inner_offset &&
           next->inner_offset - last->inner_offset >= last->length;
}

uint64_t index_hash(uint64_t hash, const uint8_t *bytes, size_t len)
{
    for (size_t at = 0; at + 8 <= len; at += 8) {
        hash = (hash ^ index_load64(bytes + at)) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 32;
    }
    return hash;
}
