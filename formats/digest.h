// Checksums that other people's indexes and zstd's frames carry: SHA-1 (FIPS 180-4) and XXH64
// (xxHash specification, seed 0). They tell damage, not malice.
#ifndef FORMATS_DIGEST_H
#define FORMATS_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIGEST_TEXT 41 // of the longest as hexadecimal digits, with its NUL

enum digest_kind { DIGEST_SHA1, DIGEST_XXH64, DIGEST_KINDS };

struct digest {
    enum digest_kind kind;
    uint64_t len;      // so far
    uint8_t block[64]; // what is not worked in yet
    uint64_t state[5]; // XXH64: four lanes; SHA-1: five words
};

const char *digest_name(enum digest_kind kind); // "sha1", "xxh64"
void digest_begin(struct digest *digest, enum digest_kind kind);
void digest_add(struct digest *digest, const void *bytes, size_t len);
// Writes lower-case hexadecimal digits.
void digest_end(struct digest *digest, char text[DIGEST_TEXT]);
uint64_t digest_end_number(struct digest *digest); // of XXH64

#endif
