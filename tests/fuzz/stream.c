// What a program that reads HDF5 or Parquet says to the one that started it (source_stream.h).
#include "formats/limits.h"
#include "formats/source_stream.h"
#include "tests/support/fuzz.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define MAGIC      "BYOLIMG1"
#define START      9u // with the magic
#define HEAD       32u
#define FRAME_LAST 8u

struct text {
    uint8_t bytes[2048];
    size_t len;
};

static void put32(uint8_t *at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> 8 * i);
    }
}

// An image's bytes are left out of a listing of names.
static void put(struct text *text, uint32_t what, const char *name, uint32_t label,
                const char *payload, bool names_only)
{
    uint8_t *head = text->bytes + text->len;
    size_t len = strlen(payload);
    put32(head, what);
    bool left_out = names_only && what <= 3;
    put32(head + 4, (what == 1 || what == 8 ? 1u : 0u) | (left_out ? 2u : 0u));
    put32(head + 8, label);
    put32(head + 12, (uint32_t)strlen(name));
    put32(head + 16, (uint32_t)len / 3);
    put32(head + 20, 1);
    put32(head + 24, (uint32_t)len);
    memcpy(head + HEAD, name, strlen(name));
    len = left_out ? 0 : len;
    memcpy(head + HEAD + strlen(name), payload, len);
    text->len += HEAD + strlen(name) + len;
}

// The first byte of an input says whether it is a listing of names.
static void seed(bool names_only)
{
    struct text text = {.bytes = {names_only}, .len = START};
    memcpy(text.bytes + 1, MAGIC, strlen(MAGIC));
    put(&text, 5, "a layout", 0, "", names_only);
    put(&text, 4, "cat", 0, "", names_only);
    put(&text, 4, "dog", 0, "", names_only);
    put(&text, 1, "000000000.jpg", 1, "JPEG", names_only);
    put(&text, 2, "two/pixels", UINT32_MAX, "RGBrgb", names_only);
    put(&text, 3, "grey.png", UINT32_MAX - 1, "123", names_only);
    size_t before = text.len;
    put(&text, 8, "000000003", 0, "it holds nothing", names_only);
    put(&text, 6, "", 0, "", names_only);
    fuzz_seed(text.bytes, text.len, START);
    text.len = before;
    put(&text, 7, "no more of it", 22, "", names_only);
    fuzz_seed(text.bytes, text.len, START);
}

static void open_stream(void)
{
    seed(false);
    seed(true);
}

static void close_stream(void)
{
}

// Frames follow each other: lengths are made to fit where they are larger than what is left, and
// kinds are those that there are.
static size_t repair_stream(uint8_t *bytes, size_t len, uint64_t *random)
{
    if (len < START) {
        return len;
    }
    memcpy(bytes + 1, MAGIC, strlen(MAGIC));
    for (size_t at = START; at < len && len - at >= HEAD;) {
        uint8_t *head = bytes + at;
        uint32_t sizes[2] = {head[12] | (uint32_t)head[13] << 8,
                             head[24] | (uint32_t)head[25] << 8};
        at += HEAD;
        bool left_out = bytes[0] % 2 != 0 && (head[4] & 2) != 0;
        for (int i = 0; i < (left_out ? 1 : 2); i++) {
            sizes[i] = sizes[i] < len - at ? sizes[i] : (uint32_t)(len - at);
            at += sizes[i];
        }
        if (fuzz_below(random, 16) == 0) {
            continue;
        }
        put32(head, head[0] % (FRAME_LAST + 1));
        put32(head + 12, sizes[0]);
        put32(head + 24, sizes[1]);
        put32(head + 28, 0);
    }
    return len;
}

static void read_entry(struct source_stream *stream, const struct source_entry *entry)
{
    uint8_t piece[512];
    uint64_t total = 0;
    size_t got = 0;
    struct error error = {0};
    enum status status;
    do {
        status = source_stream_read(stream, piece, sizeof piece, &got, &error);
        total += got;
    } while (status == STATUS_OK && got == sizeof piece);
    if (status != STATUS_OK) {
        FUZZ_CHECK(entry->size == SOURCE_SIZE_UNKNOWN);
        fuzz_check_error(status, &error);
    }
    FUZZ_CHECK(entry->size == SOURCE_SIZE_UNKNOWN || total == entry->size);
}

static enum fuzz_outcome run_stream(const uint8_t *bytes, size_t len)
{
    struct source_stream *stream;
    struct source_entry entry;
    struct error error = {0};
    uint32_t count;
    size_t images = 0;
    bool names_only = len > 0 && bytes[0] % 2 != 0;
    int fd = open(fuzz_file(bytes + (len > 0), len - (len > 0)), O_RDONLY | O_CLOEXEC);
    enum status status = source_stream_from(&stream, "file", fd, "program", names_only, &error);
    FUZZ_CHECK(fd >= 0 && status == STATUS_OK);
    while ((status = source_stream_next(stream, &entry, &error)) == STATUS_OK) {
        FUZZ_CHECK(entry.type == SOURCE_ENTRY_IMAGE && strlen(entry.name) <= LIMIT_NAME_BYTES);
        if (!names_only) {
            read_entry(stream, &entry);
        }
        images++;
    }
    if (status != STATUS_END && status != STATUS_IO) { // _IO: no end mark, no reason
        fuzz_check_error(status, &error);
    }
    const char *const *classes = source_stream_classes(stream, &count);
    FUZZ_CHECK((classes != NULL) == (count > 0));
    const char *layout = source_stream_describe(stream);
    FUZZ_CHECK(layout == NULL || strlen(layout) > 0);
    void *state = stream;
    source_stream_close(&state);
    FUZZ_CHECK(state == NULL);
    return status == STATUS_END ? FUZZ_ACCEPTED : images > 0 ? FUZZ_ENTERED : FUZZ_REFUSED;
}

static const struct fuzz_target target = {.name = "stream",
                                          .open = open_stream,
                                          .close = close_stream,
                                          .repair = repair_stream,
                                          .run = run_stream};

FUZZ_MAIN(target)
