// A record as a tar's member: a header (ustar, with a pax header before it when the name does not
// fit), the image's bytes, padding to 512; and one or several of them as one zstd frame. Level 1:
// image files do not compress, so zstd stores them as raw blocks and unpacking is a copy.
#include "formats/limits.h"
#include "formats/store.h"
#include "formats/tar.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

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

// Lays the tar member out in framer->content; returns where the image starts.
static size_t lay_out_member(struct shard_framer *framer, const struct dataset_item *item)
{
    size_t inner = tar_head(framer->content, item->name, item->len);
    size_t padding = tar_padding(item->len);
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
    if (!grow(&framer->content, &framer->capacity, TAR_END_BYTES)) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for the end of a shard");
    }
    memset(framer->content, 0, TAR_END_BYTES);
    framer->len = TAR_END_BYTES;
    return compress(framer, packed, error);
}
