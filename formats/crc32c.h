// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78), the checksum of every record, index and
// tensor.
#ifndef FORMATS_CRC32C_H
#define FORMATS_CRC32C_H

#include <stddef.h>
#include <stdint.h>

// Extends `crc` (0 to start) over `len` bytes. Uses the CPU's instruction where there is one; the
// same value everywhere. crc32c(0, "123456789", 9) == 0xe3069283.
uint32_t crc32c(uint32_t crc, const void *bytes, size_t len);

// The checksum of two pieces, one behind the other, from those of each (a third of a microsecond).
uint32_t crc32c_join(uint32_t first, uint32_t second, uint64_t second_len);

// As crc32c, but without the CPU's instruction: the oracle of the other in tests.
uint32_t crc32c_portable(uint32_t crc, const void *bytes, size_t len);

#endif
