// A record as a tar's member: a header (ustar, with a pax header before it when the name does not
// fit), the image's bytes, padding to 512; and one or several of them as one zstd frame.
//
// Small images share frames, which libzstd compresses (level 1). The frame of a larger one is made
// here: image files do not compress, so it consists of raw blocks, and of run-length blocks for the
// zeros around the image. Its bytes are the image's own; nothing is copied to make it.
#include "formats/crc32c.h"
#include "formats/digest.h"
#include "formats/store.h"
#include "formats/tar.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define FRAME_LEVEL 1

// Of the frames made here. The window is the smallest that allows blocks of this size.
#define FRAME_MAGIC        0xfd2fb528u
#define FRAME_DESCRIPTOR   0x84 // four bytes of content size, a checksum, no single segment
#define FRAME_WINDOW       0x38 // 128 KiB
#define FRAME_HEADER_BYTES 10u
#define BLOCK_BYTES        (128u << 10)
#define BLOCK_HEAD         3u
#define SHORTEST_RUN       8u // of zeros: two block headers take less
#define CHECKSUM_BYTES     4u
// A frame but for its image. Runs save more than their blocks' headers take.
#define AROUND_BYTES                                                                               \
    (FRAME_HEADER_BYTES + BLOCK_HEAD + TAR_HEAD_BYTES + BLOCK_HEAD + 1 + CHECKSUM_BYTES)

enum block_type { BLOCK_RAW, BLOCK_RUN };

struct shard_framer {
    ZSTD_CCtx *zstd;
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
        free(*framer);
        *framer = NULL;
    }
}

// --- frames that libzstd makes -----------------------------------------------------------------

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
    packed->record.stored_length = (uint32_t)len;
    packed->record.frame_length = (uint32_t)content_len;
    packed->stored_crc = crc32c(0, packed->stored, len);
    packed->stored_len = len;
    packed->head_len = 0;
    packed->member = false;
    return STATUS_OK;
}

enum status shard_framer_pack_end(struct shard_framer *framer, struct dataset_packed *packed,
                                  struct error *error)
{
    static const uint8_t zeros[TAR_END_BYTES];
    return shard_framer_pack_members(framer, zeros, sizeof zeros, packed, error);
}

// --- frames of raw blocks ----------------------------------------------------------------------

static uint8_t *put_block_head(uint8_t *to, enum block_type type, size_t len, bool last)
{
    uint32_t head = (uint32_t)len << 3 | (uint32_t)type << 1 | last;
    to[0] = (uint8_t)head;
    to[1] = (uint8_t)(head >> 8);
    to[2] = (uint8_t)(head >> 16);
    return to + BLOCK_HEAD;
}

static uint8_t *put_raw(uint8_t *to, const uint8_t *bytes, size_t len, bool last)
{
    to = put_block_head(to, BLOCK_RAW, len, last);
    memcpy(to, bytes, len);
    return to + len;
}

static uint8_t *put_zeros(uint8_t *to, size_t len, bool last)
{
    to = put_block_head(to, BLOCK_RUN, len, last);
    *to = 0;
    return to + 1;
}

static size_t count_zeros(const uint8_t *bytes, size_t len)
{
    size_t count = 0;
    while (count < len && bytes[count] == 0) {
        count++;
    }
    return count;
}

// The tar's header as blocks. It starts with a name: libzstd up to 1.4.3 wants no run first.
static uint8_t *put_head(uint8_t *to, const uint8_t *bytes, size_t len)
{
    size_t from = 0, at = 0;
    while (at < len) {
        size_t zeros = count_zeros(bytes + at, len - at);
        if (zeros < SHORTEST_RUN) {
            at += zeros + 1;
            continue;
        }
        if (at > from) {
            to = put_raw(to, bytes + from, at - from, false);
        }
        to = put_zeros(to, zeros, false);
        at += zeros;
        from = at;
    }
    return len > from ? put_raw(to, bytes + from, len - from, false) : to;
}

static uint32_t checksum(const uint8_t *head, size_t head_len, const struct dataset_item *item,
                         size_t padding)
{
    static const uint8_t zeros[TAR_BLOCK];
    struct digest digest;
    digest_begin(&digest, DIGEST_XXH64);
    digest_add(&digest, head, head_len);
    digest_add(&digest, item->bytes, item->len);
    digest_add(&digest, zeros, padding);
    return (uint32_t)digest_end_number(&digest);
}

enum status shard_frame_pieces(const struct dataset_item *item, const struct dataset_packed *packed,
                               shard_take *take, void *context, struct error *error)
{
    size_t head_len = packed->head_len;
    if (head_len == 0) {
        return take(context, packed->stored, packed->stored_len, error);
    }
    enum status status = take(context, packed->stored, head_len, error);
    const uint8_t *bytes = item->bytes;
    for (size_t at = 0; at < item->len && status == STATUS_OK; at += BLOCK_BYTES) {
        size_t len = item->len - at < BLOCK_BYTES ? item->len - at : BLOCK_BYTES;
        uint8_t head[BLOCK_HEAD];
        put_block_head(head, BLOCK_RAW, len, false);
        status = take(context, head, sizeof head, error);
        if (status == STATUS_OK) {
            status = take(context, bytes + at, len, error);
        }
    }
    return status ? status
                  : take(context, packed->stored + head_len, packed->stored_len - head_len, error);
}

struct summing {
    const struct dataset_item *item;
    struct dataset_packed *packed;
};

// Of an image that is one piece the checksum is known.
static enum status sum_piece(void *context, const void *bytes, size_t len, struct error *error)
{
    (void)error;
    const struct summing *summing = context;
    struct dataset_packed *packed = summing->packed;
    bool whole = bytes == summing->item->bytes && len == summing->item->len;
    packed->stored_crc = whole ? crc32c_join(packed->stored_crc, packed->record.crc, len)
                               : crc32c(packed->stored_crc, bytes, len);
    packed->record.stored_length += (uint32_t)len;
    return STATUS_OK;
}

static enum status pack_raw(const uint8_t *head, size_t head_len, const struct dataset_item *item,
                            struct dataset_packed *packed, struct error *error)
{
    if (!grow(&packed->stored, &packed->stored_capacity, AROUND_BYTES)) {
        return no_room(AROUND_BYTES, error);
    }
    size_t padding = tar_padding(item->len);
    uint8_t *at = packed->stored;
    index_store32(at, FRAME_MAGIC);
    at[4] = FRAME_DESCRIPTOR;
    at[5] = FRAME_WINDOW;
    index_store32(at + 6, packed->record.frame_length);
    at = put_head(at + FRAME_HEADER_BYTES, head, head_len);
    packed->head_len = (size_t)(at - packed->stored);
    at = padding > 0 ? put_zeros(at, padding, true) : put_block_head(at, BLOCK_RAW, 0, true);
    index_store32(at, checksum(head, head_len, item, padding));
    packed->stored_len = (size_t)(at + CHECKSUM_BYTES - packed->stored);
    packed->member = false;
    packed->stored_crc = 0;
    packed->record.stored_length = 0;
    struct summing summing = {.item = item, .packed = packed};
    return shard_frame_pieces(item, packed, sum_piece, &summing, error);
}

// --- records -----------------------------------------------------------------------------------

// Hands the content over as it is: the writer, which alone knows the neighbours, compresses.
static enum status keep_member(const uint8_t *head, size_t head_len,
                               const struct dataset_item *item, struct dataset_packed *packed,
                               struct error *error)
{
    size_t len = packed->record.frame_length;
    if (!grow(&packed->stored, &packed->stored_capacity, len)) {
        return no_room(len, error);
    }
    memcpy(packed->stored, head, head_len);
    memcpy(packed->stored + head_len, item->bytes, item->len);
    memset(packed->stored + head_len + item->len, 0, len - head_len - item->len);
    packed->record.stored_length = (uint32_t)len;
    packed->member = true;
    return STATUS_OK;
}

enum status shard_frame_pack(const struct dataset_item *item, struct dataset_packed *packed,
                             struct error *error)
{
    uint8_t head[TAR_HEAD_BYTES];
    size_t head_len = tar_head(head, item->name, item->len);
    packed->record.coding = DATASET_CODING_ZSTD;
    packed->record.inner_offset = (uint32_t)head_len;
    packed->record.frame_length = (uint32_t)(head_len + item->len + tar_padding(item->len));
    return packed->record.frame_length <= SHARD_MEMBER_BYTES
               ? keep_member(head, head_len, item, packed, error)
               : pack_raw(head, head_len, item, packed, error);
}
