// MATLAB's elements: type, length, bytes, zeros to a multiple of eight.
#include "tests/support/devkit_case.h"
#include "tests/support/source_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

enum { INT8 = 1, UINT16 = 4, INT32 = 5, UINT32 = 6, DOUBLE = 9, MATRIX = 14, COMPRESSED = 15 };
enum { CLASS_STRUCT = 2, CLASS_CHAR = 4, CLASS_DOUBLE = 6 };

struct out {
    uint8_t *bytes;
    size_t len;
};

static void put(struct out *out, const void *bytes, size_t len)
{
    out->bytes = realloc(out->bytes, out->len + len + 8);
    assert_non_null(out->bytes);
    memcpy(out->bytes + out->len, bytes, len);
    out->len += len;
}

static void put_tag(struct out *out, uint32_t type, uint32_t len)
{
    const uint32_t tag[2] = {type, len};
    put(out, tag, sizeof tag);
}

static void put_element(struct out *out, uint32_t type, const void *bytes, size_t len)
{
    put_tag(out, type, (uint32_t)len);
    put(out, bytes, len);
    put(out, "\0\0\0\0\0\0\0", (8 - len % 8) % 8);
}

// What stands before a variable's content; returns where its length is to be put.
static size_t begin_matrix(struct out *out, uint8_t class, const char *name, int32_t rows,
                           int32_t columns)
{
    const uint8_t flags[8] = {class};
    const int32_t dimensions[2] = {rows, columns};
    put_tag(out, MATRIX, 0);
    size_t mark = out->len;
    put_element(out, UINT32, flags, sizeof flags);
    put_element(out, INT32, dimensions, sizeof dimensions);
    put_element(out, INT8, name, strlen(name));
    return mark;
}

static void end_matrix(struct out *out, size_t mark)
{
    uint32_t len = (uint32_t)(out->len - mark);
    memcpy(out->bytes + mark - 4, &len, sizeof len);
}

// A number of class double is kept in as few bytes as it takes: two of them, in a small element.
static void put_number(struct out *out, uint16_t number)
{
    const uint16_t small[4] = {UINT16, 2, number, 0};
    size_t mark = begin_matrix(out, CLASS_DOUBLE, "", 1, 1);
    put(out, small, sizeof small);
    end_matrix(out, mark);
}

static void put_text(struct out *out, const char *text)
{
    uint16_t wide[64];
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++) {
        wide[i] = (uint8_t)text[i];
    }
    size_t mark = begin_matrix(out, CLASS_CHAR, "", 1, (int32_t)len);
    put_element(out, UINT16, wide, 2 * len);
    end_matrix(out, mark);
}

static void put_synsets(struct out *out, const char *const *wnids, size_t count)
{
    enum { WIDTH = 16 };
    static const char fields[3][WIDTH] = {"words", "WNID", "ILSVRC2012_ID"};
    const uint32_t width[2] = {INT32 | 4 << 16, WIDTH};
    size_t mark = begin_matrix(out, CLASS_STRUCT, "synsets", (int32_t)count, 1);
    put(out, width, sizeof width);
    put_element(out, INT8, fields, sizeof fields);
    for (size_t i = 0; i < count; i++) {
        put_tag(out, MATRIX, 0); // empty
        put_text(out, wnids[i]);
        put_number(out, (uint16_t)(i + 1));
    }
    end_matrix(out, mark);
}

uint8_t *devkit_case_meta(const char *const *wnids, size_t count, bool packed, size_t *len)
{
    char header[128] = "MATLAB 5.0 MAT-file";
    struct out plain = {NULL, 0}, out = {NULL, 0};
    memcpy(header + 124, "\0\1IM", 4);
    put(&out, header, sizeof header);
    put_number(&plain, 7); // another variable
    put_synsets(&plain, wnids, count);
    if (packed) {
        size_t first = 8 + ((const uint32_t *)(const void *)plain.bytes)[1];
        for (int i = 0; i < 2; i++) { // each variable by itself
            const uint8_t *from = plain.bytes + (i ? first : 0);
            size_t from_len = i ? plain.len - first : first;
            uLongf room = compressBound(from_len);
            uint8_t *to = malloc(room);
            assert_int_equal(compress(to, &room, from, from_len), Z_OK);
            put_tag(&out, COMPRESSED, (uint32_t)room);
            put(&out, to, room);
            free(to);
        }
    } else {
        put(&out, plain.bytes, plain.len);
    }
    free(plain.bytes);
    *len = out.len;
    return out.bytes;
}

void devkit_case_write(const char *path, const char *const *wnids, size_t count, const char *truth)
{
    size_t len;
    uint8_t *meta = devkit_case_meta(wnids, count, true, &len);
    FILE *tar = source_case_create(path);
    source_case_file(tar, "ILSVRC2012_devkit_t12/readme.txt", "about it");
    source_case_member(tar, "ILSVRC2012_devkit_t12/data/meta.mat", '0', meta, len);
    source_case_file(tar, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
                     truth);
    source_case_end(tar);
    free(meta);
}
