// NumPy .npy files, version 1.0, little-endian, C order: float32, uint8, int32, int64. Other
// dtypes: STATUS_UNSUPPORTED.
#ifndef FORMATS_NPY_H
#define FORMATS_NPY_H

#include "formats/status.h"

enum npy_type { NPY_FLOAT32, NPY_UINT8, NPY_INT32, NPY_INT64 };

#define NPY_MAX_DIMS 8

struct npy {
    enum npy_type type;
    unsigned dims;
    uint64_t shape[NPY_MAX_DIMS];
    uint64_t count; // elements: product of shape
    void *data;     // malloc'ed; cast by `type`
};

// Reads a whole file; `npy_free` releases it. Length and shape are checked against the file's size
// before allocating.
enum status npy_read(const char *path, struct npy *out, struct error *error);
void npy_free(struct npy *array);

// Writes durably (file_replace), replacing `path`. Only type, dims, shape and data of `array` are
// read.
enum status npy_write(const char *path, const struct npy *array, struct error *error);

size_t npy_type_size(enum npy_type type);

#endif
