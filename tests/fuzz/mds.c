// MosaicML's streaming datasets. An input is the length of an index (two bytes), the index.json,
// and the bytes of its one shard, plain or zstd.
#include "tests/support/fuzz_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#define LENGTH_WIDTH 6 // places for the shard's length in an index
#define SAMPLES      3u

static char folder[] = "/tmp/fuzz-mds-XXXXXX";
static char plain_path[64], packed_path[64], index_path[64];
static bool made;

struct text {
    uint8_t bytes[4096];
    size_t len;
};

static void put32(uint8_t *at, size_t value)
{
    for (unsigned i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> 8 * i);
    }
}

static void append(struct text *text, const void *bytes, size_t len)
{
    memcpy(text->bytes + text->len, bytes, len);
    text->len += len;
}

// Samples of an image of any size and a label of eight bytes.
static void make_shard(struct text *shard, const char *image, size_t image_len)
{
    shard->len = 4 * (SAMPLES + 2);
    append(shard, "{}", 2);
    put32(shard->bytes, SAMPLES);
    for (uint8_t i = 0; i < SAMPLES; i++) {
        put32(shard->bytes + 4 * (i + 1), shard->len);
        put32(shard->bytes + shard->len, image_len);
        shard->len += 4;
        append(shard, image, image_len);
        append(shard, (uint8_t[8]){(uint8_t)('1' + i), ' '}, 8);
    }
    put32(shard->bytes + 4 * (SAMPLES + 1), shard->len);
}

static void seed(const char *encoding, const char *label, const char *image, size_t image_len,
                 bool packed)
{
    char index[1000];
    struct text shard, input;
    uint8_t zip[4096];
    make_shard(&shard, image, image_len);
    size_t zip_len = ZSTD_compress(zip, sizeof zip, shard.bytes, shard.len, 1);
    int len = snprintf(
        index, sizeof index,
        "{\"shards\": [{\"column_encodings\": [\"%s\", \"%s\"], \"column_names\": "
        "[\"x\", \"y\"], \"column_sizes\": [null, 8], \"compression\": \"zstd:1\", "
        "\"format\": \"mds\", \"raw_data\": {\"basename\": \"s\", \"bytes\": %-*zu, "
        "\"hashes\": {}}, \"samples\": %u, \"version\": 2%s%-*zu%s}], \"version\": 2}",
        encoding, label, LENGTH_WIDTH, shard.len, SAMPLES,
        packed ? ", \"zip_data\": {\"basename\": \"s.zstd\", \"bytes\": " : ", \"unused\": [",
        LENGTH_WIDTH, zip_len, packed ? "}" : "]");
    input.bytes[0] = (uint8_t)len;
    input.bytes[1] = (uint8_t)(len >> 8);
    input.len = 2;
    append(&input, index, (size_t)len);
    append(&input, packed ? zip : shard.bytes, packed ? zip_len : shard.len);
    fuzz_seed(input.bytes, input.len, 2);
}

static void open_mds(void)
{
    if (!made) {
        FUZZ_CHECK(mkdtemp(folder) != NULL);
        snprintf(plain_path, sizeof plain_path, "%s/s", folder);
        snprintf(packed_path, sizeof packed_path, "%s/s.zstd", folder);
        snprintf(index_path, sizeof index_path, "%s/index.json", folder);
        made = true;
    }
    seed("jpeg", "int", "\xff\xd8\xff picture", 11, false);
    seed("bytes", "str_int", "\x89PNG\r\n\x1a\n", 8, false);
    seed("pil", "uint64", "\2\0\0\0\1\0\0\0\3\0\0\0RGB\1\2\3\4\5\6", 21, false);
    seed("jpeg", "int64", "\xff\xd8\xff picture", 11, true);
    seed("pil", "int", "\2\0\0\0\1\0\0\0\1\0\0\0L\1\2", 15, true);
}

static void close_mds(void)
{
    unlink(plain_path);
    unlink(packed_path);
    unlink(index_path);
    rmdir(folder);
    made = false;
    memcpy(folder + sizeof folder - 7, "XXXXXX", 6);
}

static size_t index_length(const uint8_t *bytes, size_t len)
{
    size_t wanted = len < 2 ? 0 : bytes[0] | (size_t)bytes[1] << 8, rest = len < 2 ? 0 : len - 2;
    return wanted < rest ? wanted : rest;
}

static bool is_packed(const uint8_t *shard, size_t len)
{
    return len >= 4 && memcmp(shard, "\x28\xb5\x2f\xfd", 4) == 0;
}

// The index tells the file's length: the first that it tells is the unpacked one's, the second the
// packed one's.
static size_t repair_mds(uint8_t *bytes, size_t len, uint64_t *random)
{
    static const char key[] = "\"bytes\": ";
    size_t index_len = index_length(bytes, len);
    if (index_len == 0 || fuzz_below(random, 16) == 0) {
        return len;
    }
    uint8_t *end = bytes + 2 + index_len, *at = memmem(bytes + 2, index_len, key, sizeof key - 1);
    if (at != NULL && is_packed(end, len - 2 - index_len)) {
        at = memmem(at + 1, (size_t)(end - at) - 1, key, sizeof key - 1);
    }
    if (at != NULL && (size_t)(end - at) >= sizeof key - 1 + LENGTH_WIDTH) {
        char text[24];
        snprintf(text, sizeof text, "%-*zu", LENGTH_WIDTH, len - 2 - index_len);
        memcpy(at + sizeof key - 1, text, LENGTH_WIDTH);
    }
    return len;
}

// A new file: one that is cut to nothing first is flushed to disk by some file systems.
static void write_file(const char *path, const uint8_t *bytes, size_t len)
{
    unlink(path);
    FILE *file = fopen(path, "wb");
    FUZZ_CHECK(file != NULL && fwrite(bytes, 1, len, file) == len && fclose(file) == 0);
}

static enum fuzz_outcome run_mds(const uint8_t *bytes, size_t len)
{
    if (len < 2) {
        return FUZZ_REFUSED;
    }
    size_t index_len = index_length(bytes, len);
    const uint8_t *shard = bytes + 2 + index_len;
    bool packed = is_packed(shard, len - 2 - index_len);
    unlink(packed ? plain_path : packed_path);
    write_file(index_path, bytes + 2, index_len);
    write_file(packed ? packed_path : plain_path, shard, len - 2 - index_len);
    return fuzz_source_run_path(folder);
}

static const struct fuzz_target target = {
    .name = "mds", .open = open_mds, .close = close_mds, .repair = repair_mds, .run = run_mds};

FUZZ_MAIN(target)
