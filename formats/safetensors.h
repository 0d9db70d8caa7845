// .safetensors files: u64 little-endian header length, JSON header {name: {dtype, shape,
// data_offsets}, "__metadata__": {string: string}}, then the tensors' bytes. Readable by any
// safetensors library. Our writer adds, per tensor, metadata "crc32c:NAME" (8 hex digits over its
// bytes), and "crc32c" over the whole header with that value blanked; our reader verifies every
// checksum it finds and says in `verified` whether the file carried them.
//
// Rules enforced when reading: header at most LIMIT_TENSOR_HEADER_BYTES, unique names, shape x type
// = length with overflow checks, no holes, no overlap, nothing after the last tensor.
#ifndef FORMATS_SAFETENSORS_H
#define FORMATS_SAFETENSORS_H

#include "formats/limits.h"
#include "formats/status.h"

#include <stdbool.h>

enum tensor_type { TENSOR_FLOAT32, TENSOR_INT64, TENSOR_UINT8 };

struct tensor {
    const char *name; // unique, printable ASCII without quotes or backslashes, at most 200 bytes
    enum tensor_type type;
    unsigned dims;
    uint64_t shape[LIMIT_TENSOR_DIMS];
    uint64_t bytes; // shape x type
    void *data;     // row-major
};

struct tensor_metadata {
    const char *key, *value; // UTF-8 text, no control bytes other than newline and tab
};

// Writes durably under `path`, replacing nothing unless it commits, then reads the file back and
// verifies every checksum.
enum status safetensors_write(const char *path, const struct tensor *tensors, size_t tensor_count,
                              const struct tensor_metadata *metadata, size_t metadata_count,
                              struct error *error);

struct safetensors; // an open file, all of it in memory
enum status safetensors_open(struct safetensors **out, const char *path, struct error *error);
void safetensors_close(struct safetensors **file);
bool safetensors_verified(const struct safetensors *file);
size_t safetensors_count(const struct safetensors *file);
const struct tensor *safetensors_at(const struct safetensors *file, size_t index); // in file order
const struct tensor *safetensors_find(const struct safetensors *file,
                                      const char *name); // NULL when absent
const char *safetensors_metadata(const struct safetensors *file,
                                 const char *key); // NULL when absent

#endif
