// Files of about one size.
#include "formats/file.h"
#include "tools/export_data.h"

#include <stdio.h>

static const uint8_t zeros[1024];

enum status export_shards_end(struct export_shards *shards, struct error *error)
{
    if (shards->fd < 0) {
        return STATUS_OK;
    }
    enum status status = file_write_all(shards->fd, shards->path, zeros, shards->end_bytes, error);
    if (status == STATUS_OK) {
        status = file_sync(shards->fd, shards->path, error);
    }
    enum status closed = file_close(&shards->fd, shards->path, status ? NULL : error);
    return status ? status : closed;
}

enum status export_shards_reserve(struct export_shards *shards, uint64_t len, struct error *error)
{
    struct export_target *target = shards->target;
    uint64_t most = target->shard_bytes;
    if (shards->fd >= 0 && (shards->len < most && len <= most - shards->len)) {
        return STATUS_OK;
    }
    enum status status = export_shards_end(shards, error);
    if (status != STATUS_OK) {
        return status;
    }
    snprintf(shards->path, sizeof shards->path, "%s/%s%s-%0*u%s", target->directory, target->name,
             shards->before, shards->digits, target->shards, shards->after);
    shards->len = 0;
    target->shards++;
    return file_create(&shards->fd, shards->path, error);
}

enum status export_shards_write(struct export_shards *shards, const void *bytes, size_t len,
                                struct error *error)
{
    shards->len += len;
    return file_write_all(shards->fd, shards->path, bytes, len, error);
}
