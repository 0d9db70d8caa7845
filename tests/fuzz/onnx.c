// ONNX models, read back as networks: what is accepted has the weights that the file holds, in
// memory that its length bounds.
#include "trainer/weights/onnx.h"
#include "formats/file.h"
#include "tests/support/fuzz.h"
#include "tests/support/fuzz_network.h"
#include "trainer/weights/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WIRE_LENGTH 2
#define DEEPEST     4

static void open_onnx(void)
{
    char path[] = "/tmp/byol-fuzz-XXXXXX";
    struct weights weights;
    uint8_t *bytes;
    size_t len;
    int fd = mkstemp(path);
    FUZZ_CHECK(fd >= 0 && close(fd) == 0);
    fuzz_network_open(&weights);
    FUZZ_CHECK(onnx_write(path, &weights, NULL, 0, NULL) == STATUS_OK);
    FUZZ_CHECK(file_read_all(path, FUZZ_INPUT_BYTES, &bytes, &len, NULL) == STATUS_OK);
    unlink(path);
    fuzz_seed(bytes, len, 1);
    free(bytes);
    weights_close(&weights);
}

static void close_onnx(void)
{
}

// Bytes of the varint at `at`; 0 when it does not end before `len`.
static size_t varint(const uint8_t *bytes, size_t at, size_t len, uint64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < 9 && i < len - at; i++) {
        *value |= (uint64_t)(bytes[at + i] & 0x7f) << (7 * i);
        if (bytes[at + i] < 0x80) {
            return i + 1;
        }
    }
    return 0;
}

// As wide as the one that was there, as far as it goes.
static void store_varint(uint8_t *at, size_t width, uint64_t value)
{
    for (size_t i = 0; i < width; i++) {
        at[i] = (uint8_t)((value >> (7 * i) & 0x7f) | (i + 1 < width ? 0x80 : 0));
    }
}

// Fields that would end behind their message end with it.
static void clip(uint8_t *bytes, size_t at, size_t end, int depth)
{
    while (at < end) {
        uint64_t tag, value;
        size_t tag_width = varint(bytes, at, end, &tag);
        size_t width = tag_width > 0 ? varint(bytes, at + tag_width, end, &value) : 0;
        at += tag_width + width;
        if (width == 0 || ((tag & 7) != WIRE_LENGTH && (tag & 7) != 0)) {
            return;
        }
        if ((tag & 7) == WIRE_LENGTH) {
            value = value < end - at ? value : end - at;
            store_varint(bytes + at - width, width, value);
            if (depth < DEEPEST) {
                clip(bytes, at, at + (size_t)value, depth + 1);
            }
            at += (size_t)value;
        }
    }
}

static size_t repair_lengths(uint8_t *bytes, size_t len, uint64_t *random)
{
    if (fuzz_below(random, 8) > 0) {
        clip(bytes, 0, len, 0);
    }
    return len;
}

// A sanitizer sees each float of the blocks.
static void check_weights(const struct weights *weights, size_t len)
{
    uint64_t params = graph_param_floats(weights->graph);
    uint64_t state = graph_state_floats(weights->graph);
    FUZZ_CHECK(params * sizeof(float) <= len &&
               state <= 2 * params + graph_state_count(weights->graph));
    size_t bytes = params * sizeof(float);
    uint64_t sum = fuzz_random_of((const uint8_t *)weights->params, bytes);
    FUZZ_CHECK(sum == fuzz_random_of((const uint8_t *)weights->params, bytes));
    struct weights_entry *entries;
    size_t count;
    FUZZ_CHECK(weights_list(&entries, &count, weights->graph, WEIGHTS_BYOL, "online", NULL) ==
               STATUS_OK);
    free(entries);
}

static enum fuzz_outcome run_onnx(const uint8_t *bytes, size_t len)
{
    struct weights weights;
    struct error error = {0};
    enum status status = onnx_read(&weights, fuzz_file(bytes, len), &error);
    if (status == STATUS_OK) {
        check_weights(&weights, len);
        weights_close(&weights);
        return FUZZ_ACCEPTED;
    }
    FUZZ_CHECK(weights.graph == NULL && weights.params == NULL && weights.state == NULL);
    fuzz_check_error(status, &error);
    FUZZ_CHECK(error.path[0] != '\0');
    return strstr(error.reason, "not an ONNX model") == NULL ? FUZZ_ENTERED : FUZZ_REFUSED;
}

static const struct fuzz_target target = {.name = "onnx",
                                          .open = open_onnx,
                                          .close = close_onnx,
                                          .repair = repair_lengths,
                                          .run = run_onnx};

FUZZ_MAIN(target)
