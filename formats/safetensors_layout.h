// What the reader and the writer of .safetensors files share; private to formats/safetensors*.c.
//
//     u64 header length, little-endian
//     header: JSON, padded with spaces
//     data: the tensors' bytes, in the order of their offsets, nothing between, before or after
//
// The header's checksum covers the length and the header, with its own 8 hex digits as spaces.
#ifndef FORMATS_SAFETENSORS_LAYOUT_H
#define FORMATS_SAFETENSORS_LAYOUT_H

#include "formats/safetensors.h"

#define SAFETENSORS_PREFIX     8              // bytes of the header's length
#define SAFETENSORS_NAME_BYTES 200            // longest tensor name
#define SAFETENSORS_METADATA   "__metadata__" // the one name that is no tensor
#define SAFETENSORS_CRC        "crc32c"       // metadata key of the header's checksum
#define SAFETENSORS_TENSOR_CRC "crc32c:"      // before a tensor's name
#define SAFETENSORS_CRC_DIGITS 8

struct safetensors_type {
    const char *name; // in the file
    uint64_t size;    // bytes of one element
};
extern const struct safetensors_type safetensors_types[]; // by enum tensor_type
#define SAFETENSORS_TYPES 3

bool safetensors_name_valid(const char *name);

// Shape x type; false when that does not fit 63 bits.
bool safetensors_size(const struct tensor *tensor, uint64_t *bytes);

// Where the digits of the header's checksum stand in the header; NULL when there is none.
const uint8_t *safetensors_crc_digits(const uint8_t *header, size_t len);

// The checksum over the length and the header around these digits.
uint32_t safetensors_header_crc(const uint8_t prefix[SAFETENSORS_PREFIX], const uint8_t *header,
                                size_t len, const uint8_t *digits);

// 8 lower-case hex digits, terminated.
void safetensors_format_crc(uint32_t crc, char text[SAFETENSORS_CRC_DIGITS + 1]);

#endif
