// The rules that reader and writer must agree on.
#include "formats/safetensors_layout.h"
#include "formats/crc32c.h"

#include <stdio.h>
#include <string.h>

const struct safetensors_type safetensors_types[SAFETENSORS_TYPES] = {
    [TENSOR_FLOAT32] = {"F32", 4},
    [TENSOR_INT64] = {"I64", 8},
    [TENSOR_UINT8] = {"U8", 1},
};

bool safetensors_name_valid(const char *name)
{
    size_t len = strnlen(name, SAFETENSORS_NAME_BYTES + 1);
    if (len == 0 || len > SAFETENSORS_NAME_BYTES || strcmp(name, SAFETENSORS_METADATA) == 0) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (name[i] < 0x20 || name[i] > 0x7e || name[i] == '"' || name[i] == '\\') {
            return false;
        }
    }
    return true;
}

bool safetensors_size(const struct tensor *tensor, uint64_t *bytes)
{
    *bytes = safetensors_types[tensor->type].size;
    for (unsigned i = 0; i < tensor->dims; i++) {
        if (tensor->shape[i] > INT64_MAX ||
            __builtin_mul_overflow(*bytes, tensor->shape[i], bytes)) {
            return false;
        }
    }
    return *bytes <= INT64_MAX;
}

const uint8_t *safetensors_crc_digits(const uint8_t *header, size_t len)
{
    // Inside a JSON string the quotes would be escaped, so this is found only where it is meant.
    static const char mark[] = "\"" SAFETENSORS_CRC "\":\"";
    const uint8_t *at = memmem(header, len, mark, sizeof mark - 1);
    if (at == NULL) {
        return NULL;
    }
    at += sizeof mark - 1;
    return (size_t)(header + len - at) > SAFETENSORS_CRC_DIGITS ? at : NULL;
}

uint32_t safetensors_header_crc(const uint8_t prefix[SAFETENSORS_PREFIX], const uint8_t *header,
                                size_t len, const uint8_t *digits)
{
    size_t before = (size_t)(digits - header);
    const uint8_t *after = digits + SAFETENSORS_CRC_DIGITS;
    uint32_t crc = crc32c(0, prefix, SAFETENSORS_PREFIX);
    crc = crc32c(crc, header, before);
    crc = crc32c(crc, "        ", SAFETENSORS_CRC_DIGITS);
    return crc32c(crc, after, len - before - SAFETENSORS_CRC_DIGITS);
}

void safetensors_format_crc(uint32_t crc, char text[SAFETENSORS_CRC_DIGITS + 1])
{
    snprintf(text, SAFETENSORS_CRC_DIGITS + 1, "%08x", crc);
}
