// .safetensors files, which checkpoints are: the JSON header behind a length that holds. What is
// accepted has tensors that fill the file without hole or overlap.
#include "formats/safetensors.h"
#include "formats/file.h"
#include "tests/support/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LENGTH_BYTES 8
#define BODY_BYTES   35 // of the seeds without checksums

static const char *const headers[] = {
    "{\"abc\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
    "\"__metadata__\":{\"k\":\"v\"},"
    "\"def\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[24,27]},"
    "\"ghi\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[27,35]}}",
    "{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
    "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[4,4]},"
    "\"b\":{\"dtype\":\"U8\",\"shape\":[31],\"data_offsets\":[4,35]}}   ",
    "{\"x\":{\"data_offsets\":[0,35],\"shape\":[5,7,1],\"dtype\":\"U8\"},"
    "\"__metadata__\":{\"a\":\"\\u00e9\\n\",\"b\":\"\"}}",
};

static void store_length(uint8_t *at, uint64_t value)
{
    for (int i = 0; i < LENGTH_BYTES; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

static void seed_of_header(const char *header)
{
    size_t len = strlen(header);
    uint8_t *bytes = calloc(1, LENGTH_BYTES + len + BODY_BYTES);
    FUZZ_CHECK(bytes != NULL);
    store_length(bytes, len);
    memcpy(bytes + LENGTH_BYTES, header, len); // NOLINT(bugprone-not-null-terminated-result)
    fuzz_seed(bytes, LENGTH_BYTES + len + BODY_BYTES, LENGTH_BYTES + 1);
    free(bytes);
}

// With the checksums that our writer adds.
static void seed_of_writer(void)
{
    float weights[6] = {1, 2, 3};
    const struct tensor tensor = {"w", TENSOR_FLOAT32, 2, {2, 3}, sizeof weights, weights};
    char path[] = "/tmp/byol-fuzz-XXXXXX";
    int fd = mkstemp(path);
    FUZZ_CHECK(fd >= 0 && close(fd) == 0);
    uint8_t *bytes;
    size_t len;
    FUZZ_CHECK(safetensors_write(path, &tensor, 1, NULL, 0, NULL) == STATUS_OK);
    FUZZ_CHECK(file_read_all(path, FUZZ_INPUT_BYTES, &bytes, &len, NULL) == STATUS_OK);
    unlink(path);
    fuzz_seed(bytes, len, LENGTH_BYTES + 1);
    free(bytes);
}

static void open_safetensors(void)
{
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        seed_of_header(headers[i]);
    }
    seed_of_writer();
}

static void close_safetensors(void)
{
}

// The header ends at its last brace.
static size_t repair_length(uint8_t *bytes, size_t len, uint64_t *random)
{
    size_t end = len;
    while (end > LENGTH_BYTES && bytes[end - 1] != '}') {
        end--;
    }
    if (end > LENGTH_BYTES && fuzz_below(random, 16) > 0) {
        store_length(bytes, end - LENGTH_BYTES);
    }
    return len;
}

static void check_tensors(const struct safetensors *file)
{
    static const uint64_t widths[] = {[TENSOR_FLOAT32] = 4, [TENSOR_INT64] = 8, [TENSOR_UINT8] = 1};
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct tensor *tensor = safetensors_at(file, i);
        uint64_t bytes = widths[tensor->type];
        for (unsigned d = 0; d < tensor->dims; d++) {
            bytes *= tensor->shape[d];
        }
        FUZZ_CHECK(tensor->dims <= LIMIT_TENSOR_DIMS && tensor->bytes == bytes);
        FUZZ_CHECK(safetensors_find(file, tensor->name) == tensor);
        uint64_t sum = fuzz_random_of(tensor->data, tensor->bytes); // a sanitizer sees each byte
        FUZZ_CHECK(sum == fuzz_random_of(tensor->data, tensor->bytes));
    }
}

static enum fuzz_outcome run_safetensors(const uint8_t *bytes, size_t len)
{
    struct safetensors *file;
    struct error error = {0};
    enum status status = safetensors_open(&file, fuzz_file(bytes, len), &error);
    if (status == STATUS_OK) {
        check_tensors(file);
        safetensors_close(&file);
        return FUZZ_ACCEPTED;
    }
    FUZZ_CHECK(file == NULL);
    fuzz_check_error(status, &error);
    uint64_t header = 0;
    for (size_t i = 0; i < LENGTH_BYTES && len >= LENGTH_BYTES; i++) {
        header |= (uint64_t)bytes[i] << (8 * i);
    }
    return header > 0 && header <= len - LENGTH_BYTES ? FUZZ_ENTERED : FUZZ_REFUSED;
}

static const struct fuzz_target target = {.name = "safetensors",
                                          .open = open_safetensors,
                                          .close = close_safetensors,
                                          .repair = repair_length,
                                          .run = run_safetensors};

FUZZ_MAIN(target)
