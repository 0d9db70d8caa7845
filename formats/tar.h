// A tar's members as we write them: ustar headers, with a pax header before one when its name does
// not fit. Mode 0644, no owner, no time: the same members give the same bytes.
#ifndef FORMATS_TAR_H
#define FORMATS_TAR_H

#include <stddef.h>
#include <stdint.h>

#define TAR_BLOCK      512u
#define TAR_HEAD_BYTES 8192u            // what tar_head needs at most
#define TAR_END_BYTES  (2u * TAR_BLOCK) // zeros that end a tar

// Writes what stands before a member's bytes; returns its length, whole blocks. `name` is at most
// LIMIT_NAME_BYTES long.
size_t tar_head(uint8_t head[TAR_HEAD_BYTES], const char *name, uint64_t size);
size_t tar_padding(uint64_t size); // zeros behind a member's bytes

#endif
