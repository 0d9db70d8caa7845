// A record as a tar's member: a header (ustar, with a pax header before it when the name does not
// fit), the image's bytes, padding to 512; and one or several of them as one zstd frame. Level 1:
// image files do not compress, so zstd stores them as raw blocks and unpacking is a copy.
#include "formats/limits.h"
#include "formats/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define BLOCK       512u
#define FRAME_LEVEL 1

struct shard_framer {
    ZSTD_CCtx *zstd;
    uint8_t *content;
    size_t len, capacity;
};

enum status shard_framer_open(struct shard_framer **out, struct error *error)
{
    struct shard_framer *framer = calloc(1, sizeof *framer);
    *out = framer;
    if (framer == NULL || (framer->zstd = ZSTD_createCCtx()) == NULL) {
        shard_framer_close(out);
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a zstd compressor");
    }
    ZSTD_CCtx_setParameter(framer->zstd, ZSTD_c_compressionLevel, FRAME_LEVEL);
    ZSTD_CCtx_setParameter(framer->zstd, ZSTD_c_contentSizeFlag, 1);
    ZSTD_CCtx_setParameter(framer->zstd, ZSTD_c_checksumFlag, 1);
    return STATUS_OK;
}

void shard_framer_close(struct shard_framer **framer)
{
    if (*framer != NULL) {
        ZSTD_freeCCtx((*framer)->zstd);
        free((*framer)->content);
        free(*framer);
        *framer = NULL;
    }
}

// --- tar ---------------------------------------------------------------------------------------

// Digits and a final NUL or space fill `field`, as ustar wants them.
static void put_octal(uint8_t *field, size_t width, uint64_t value)
{
    for (size_t i = width - 1; i-- > 0; value >>= 3) {
        field[i] = (uint8_t)('0' + (value & 7));
    }
    field[width - 1] = '\0';
}

static const uint8_t ustar[8] = {'u', 's', 't', 'a', 'r', '\0', '0', '0'}; // magic, version

static void put_header(uint8_t *header, char type, uint64_t size)
{
    put_octal(header + 100, 8, 0644);
    put_octal(header + 108, 8, 0);
    put_octal(header + 116, 8, 0);
    put_octal(header + 124, 12, size);
    put_octal(header + 136, 12, 0);
    header[156] = (uint8_t)type;
    memcpy(header + 257, ustar, sizeof ustar);
    memset(header + 148, ' ', 8);
    unsigned sum = 0;
    for (unsigned i = 0; i < BLOCK; i++) {
        sum += header[i];
    }
    put_octal(header + 148, 7, sum);
}

// Puts `name` into the header's name and prefix fields; false when it does not fit.
static bool put_name(uint8_t *header, const char *name, size_t len)
{
    if (len <= 100) {
        memcpy(header, name, len);
        return true;
    }
    for (size_t cut = len - 101; cut <= 155 && cut < len - 1; cut++) {
        if (name[cut] == '/' && cut > 0) {
            memcpy(header + 345, name, cut);
            memcpy(header, name + cut + 1, len - cut - 1);
            return true;
        }
    }
    return false;
}

// "LENGTH path=NAME\n", where LENGTH counts its own digits.
static size_t pax_record(char *text, size_t capacity, const char *name, size_t name_len)
{
    size_t rest = strlen(" path=") + name_len + 1, total = rest, last;
    do {
        last = total;
        total = rest + (size_t)snprintf(NULL, 0, "%zu", last);
    } while (total != last);
    return (size_t)snprintf(text, capacity, "%zu path=%s\n", total, name);
}

static void put_pax(struct shard_framer *framer, const char *name, size_t name_len)
{
    char text[LIMIT_NAME_BYTES + 32];
    size_t len = pax_record(text, sizeof text, name, name_len);
    uint8_t *header = framer->content + framer->len;
    snprintf((char *)header, 100, "PaxHeaders/name");
    put_header(header, 'x', len);
    memcpy(header + BLOCK, text, len);
    framer->len += BLOCK + (len + BLOCK - 1) / BLOCK * BLOCK;
}

// Lays the tar member out in framer->content; returns where the image starts.
static size_t lay_out_member(struct shard_framer *framer, const struct dataset_item *item)
{
    size_t name_len = strlen(item->name);
    framer->len = 0;
    memset(framer->content, 0, LIMIT_FRAME_OVERHEAD / 2);
    uint8_t name_fields[BLOCK] = {0};
    if (!put_name(name_fields, item->name, name_len)) {
        put_pax(framer, item->name, name_len);
        snprintf((char *)name_fields, 100, "long-name");
    }
    uint8_t *header = framer->content + framer->len;
    memcpy(header, name_fields, sizeof name_fields);
    put_header(header, '0', item->len);
    size_t inner = framer->len + BLOCK;
    size_t padding = (BLOCK - item->len % BLOCK) % BLOCK;
    memcpy(framer->content + inner, item->bytes, item->len);
    memset(framer->content + inner + item->len, 0, padding);
    framer->len = inner + item->len + padding;
    return inner;
}

// --- zstd --------------------------------------------------------------------------------------

static bool grow(uint8_t **bytes, size_t *capacity, size_t need)
{
    if (need <= *capacity) {
        return true;
    }
    uint8_t *grown = malloc(need + need / 4);
    if (grown != NULL) {
        free(*bytes);
        *bytes = grown;
        *capacity = need + need / 4;
    }
    return grown != NULL;
}

static enum status no_room(size_t len, struct error *error)
{
    return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                     "no memory for a frame of %zu bytes", len);
}

enum status shard_framer_pack_members(struct shard_framer *framer, const uint8_t *content,
                                      size_t content_len, struct dataset_packed *packed,
                                      struct error *error)
{
    if (!grow(&packed->stored, &packed->stored_capacity, ZSTD_compressBound(content_len))) {
        return no_room(content_len, error);
    }
    size_t len =
        ZSTD_compress2(framer->zstd, packed->stored, packed->stored_capacity, content, content_len);
    if (ZSTD_isError(len)) {
        return error_set(error, STATUS_IO, NULL, NOWHERE, NOWHERE, "zstd cannot compress: %s",
                         ZSTD_getErrorName(len));
    }
    packed->record.coding = DATASET_CODING_ZSTD;
    packed->record.stored_length = (uint32_t)len;
    packed->record.frame_length = (uint32_t)content_len;
    packed->member = false;
    return STATUS_OK;
}

static enum status compress(struct shard_framer *framer, struct dataset_packed *packed,
                            struct error *error)
{
    return shard_framer_pack_members(framer, framer->content, framer->len, packed, error);
}

// Hands the content over as it is: the writer, which alone knows the neighbours, compresses.
static enum status keep_member(struct shard_framer *framer, struct dataset_packed *packed,
                               struct error *error)
{
    if (!grow(&packed->stored, &packed->stored_capacity, framer->len)) {
        return no_room(framer->len, error);
    }
    memcpy(packed->stored, framer->content, framer->len);
    packed->record.coding = DATASET_CODING_ZSTD;
    packed->record.frame_length = packed->record.stored_length = (uint32_t)framer->len;
    packed->member = true;
    return STATUS_OK;
}

enum status shard_framer_pack(struct shard_framer *framer, const struct dataset_item *item,
                              struct dataset_packed *packed, struct error *error)
{
    if (!grow(&framer->content, &framer->capacity, item->len + LIMIT_FRAME_OVERHEAD)) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for an image of %zu bytes", item->len);
    }
    packed->record.inner_offset = (uint32_t)lay_out_member(framer, item);
    return framer->len <= SHARD_MEMBER_BYTES ? keep_member(framer, packed, error)
                                             : compress(framer, packed, error);
}

enum status shard_framer_pack_end(struct shard_framer *framer, struct dataset_packed *packed,
                                  struct error *error)
{
    if (!grow(&framer->content, &framer->capacity, 2 * BLOCK)) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for the end of a shard");
    }
    memset(framer->content, 0, 2 * BLOCK);
    framer->len = 2 * BLOCK;
    return compress(framer, packed, error);
}
