// The part of adding a record that depends on nothing but the record.
#include "formats/crc32c.h"
#include "formats/limits.h"
#include "formats/name.h"
#include "formats/store.h"

#include <stdlib.h>
#include <string.h>

struct dataset_packer {
    enum dataset_store store;
};

void dataset_packed_free(struct dataset_packed *packed)
{
    free(packed->stored);
    *packed = (struct dataset_packed){0};
}

enum status dataset_packer_open(struct dataset_packer **out, enum dataset_store store,
                                struct error *error)
{
    *out = calloc(1, sizeof **out);
    if (*out == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory to pack");
    }
    (*out)->store = store;
    return STATUS_OK;
}

void dataset_packer_close(struct dataset_packer **packer)
{
    free(*packer);
    *packer = NULL;
}

static enum status check_item(const struct dataset_item *item, struct error *error)
{
    const char *fault = name_fault(item->name, strlen(item->name));
    if (fault != NULL) {
        return error_set(error, STATUS_INVALID, item->name, NOWHERE, NOWHERE, "the name %s", fault);
    }
    if (item->len == 0 || item->len > LIMIT_IMAGE_BYTES) {
        return error_set(error, STATUS_LIMIT, item->name, NOWHERE, NOWHERE,
                         "%zu bytes long; images of 1 to %llu bytes can be stored", item->len,
                         (unsigned long long)LIMIT_IMAGE_BYTES);
    }
    const struct image_info *info = &item->info;
    bool possible =
        (info->kind == IMAGE_JPEG || info->kind == IMAGE_PNG || info->kind == IMAGE_RECODED) &&
        info->width > 0 && info->height > 0 && info->width <= LIMIT_IMAGE_SIDE &&
        info->height <= LIMIT_IMAGE_SIDE &&
        (uint64_t)info->width * info->height <= LIMIT_IMAGE_PIXELS;
    if (!possible || item->label < DATASET_NO_LABEL) {
        return error_set(error, STATUS_INVALID, item->name, NOWHERE, NOWHERE,
                         "kind, size in pixels or label is out of range");
    }
    return STATUS_OK;
}

enum status dataset_pack(struct dataset_packer *packer, const struct dataset_item *item,
                         struct dataset_packed *packed, struct error *error)
{
    enum status status = check_item(item, error);
    if (status != STATUS_OK) {
        return status;
    }
    uint32_t len = (uint32_t)item->len;
    packed->record = (struct dataset_record){
        .stored_length = len,
        .frame_length = len,
        .length = len,
        .crc = crc32c(0, item->bytes, item->len),
        .label = item->label,
        .width = item->info.width,
        .height = item->info.height,
        .coding = DATASET_CODING_RAW,
        .kind = item->info.kind,
    };
    return packer->store == DATASET_SHARDS ? shard_frame_pack(item, packed, error) : STATUS_OK;
}
