// .safetensors files, which checkpoints are: the JSON header behind a length that holds. What is
// accepted has tensors that fill the file without hole or overlap; taken for a network's weights,
// it is refused by the names of tensors, or it is the network's.
#include "formats/safetensors.h"
#include "formats/file.h"
#include "tests/support/fuzz.h"
#include "tests/support/fuzz_network.h"
#include "trainer/weights/file.h"

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

static struct weights network;

static void store_length(uint8_t *at, uint64_t value)
{
    for (int i = 0; i < LENGTH_BYTES; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

static void seed_of_header(const char *header, size_t body)
{
    size_t len = strlen(header);
    uint8_t *bytes = calloc(1, LENGTH_BYTES + len + body);
    FUZZ_CHECK(bytes != NULL);
    store_length(bytes, len);
    memcpy(bytes + LENGTH_BYTES, header, len); // NOLINT(bugprone-not-null-terminated-result)
    fuzz_seed(bytes, LENGTH_BYTES + len + body, LENGTH_BYTES + 1);
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

// Weights of our network as another program writes them, without checksums. Each `lie` but 0 is
// about one tensor of three: its type, the order of its axes, its name.
static void seed_of_network(enum weights_names names, size_t lie)
{
    static const char *const types[] = {"F32", "I64", "U8"};
    struct weights_entry *entries;
    size_t count, len = 0, end = 0;
    char *text = NULL;
    FUZZ_CHECK(weights_list(&entries, &count, network.graph, names, "online", NULL) == STATUS_OK);
    FILE *header = open_memstream(&text, &len);
    FUZZ_CHECK(header != NULL);
    for (size_t i = 0; i < count; i++) {
        bool lies = lie > 0 && i % 3 == 0, counts = entries[i].type == TENSOR_INT64;
        size_t bytes = entries[i].count * (counts ? 8 : 4), turned = lies && lie == 2;
        fprintf(header, "%c\"%s%s\":{\"dtype\":\"%s\",\"shape\":[", i ? ',' : '{', entries[i].name,
                lies && lie == 3 ? "x" : "", lies && lie == 1 ? "U8" : types[counts]);
        for (unsigned d = 0; d < entries[i].dims; d++) {
            unsigned from = turned ? entries[i].dims - 1 - d : d;
            fprintf(header, "%s%llu", d ? "," : "", (unsigned long long)entries[i].shape[from]);
        }
        fprintf(header, "],\"data_offsets\":[%zu,%zu]}", end, end + bytes);
        end += bytes;
    }
    fputs("}", header);
    FUZZ_CHECK(fclose(header) == 0);
    seed_of_header(text, end);
    free(text);
    free(entries);
}

static void open_safetensors(void)
{
    fuzz_network_open(&network);
    for (size_t lie = 0; lie < 4; lie++) {
        seed_of_network(WEIGHTS_TORCHVISION, lie);
        seed_of_network(WEIGHTS_BYOL, lie);
    }
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        seed_of_header(headers[i], BODY_BYTES);
    }
    seed_of_writer();
}

static void close_safetensors(void)
{
    weights_close(&network);
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

static void check_import(const struct safetensors *file, const char *path)
{
    char left_out[100];
    for (int rest = WEIGHTS_REST_REFUSED; rest <= WEIGHTS_REST_IGNORED; rest++) {
        struct error error = {0};
        enum status status =
            weights_read(&network, file, path, weights_names_of(file), "online",
                         (enum weights_rest)rest, left_out, sizeof left_out, &error);
        if (status != STATUS_OK) {
            fuzz_check_error(status, &error);
        }
    }
}

static enum fuzz_outcome run_safetensors(const uint8_t *bytes, size_t len)
{
    struct safetensors *file;
    struct error error = {0};
    const char *path = fuzz_file(bytes, len);
    enum status status = safetensors_open(&file, path, &error);
    if (status == STATUS_OK) {
        check_tensors(file);
        check_import(file, path);
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
