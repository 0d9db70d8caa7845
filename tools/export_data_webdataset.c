// WebDataset shards: of each image KEY.cls (a number), KEY.json ("filename", "label", "class"), and
// KEY.jpg or KEY.png. A key ends at the first dot of its last part, so dots there become "%2E"; two
// images that would share a key (1.jpg, 1.png) are told apart by their endings (1, 1%2Epng).
#include "formats/file.h"
#include "formats/limits.h"
#include "formats/name_set.h"
#include "formats/tar.h"
#include "tools/export_data.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_BYTES (3 * LIMIT_NAME_BYTES + 16)

struct webdataset {
    struct export_shards shards;
    struct name_set keys;
};

static void webdataset_close(void **state)
{
    struct webdataset *data = *state;
    if (data != NULL) {
        file_close(&data->shards.fd, data->shards.path, NULL);
        name_set_free(&data->keys);
        free(data);
        *state = NULL;
    }
}

static enum status webdataset_open(void **state, struct export_target *target, struct error *error)
{
    struct webdataset *data = calloc(1, sizeof *data);
    *state = data;
    if (data == NULL) {
        return error_errno(error, ENOMEM, target->name, NOWHERE, "allocate memory to write");
    }
    data->shards = (struct export_shards){.target = target,
                                          .before = "",
                                          .after = ".tar",
                                          .digits = 6,
                                          .end_bytes = TAR_END_BYTES,
                                          .fd = -1};
    return STATUS_OK;
}

// --- keys ----------------------------------------------------------------------------------------

static void make_key(char key[KEY_BYTES], const char *name, size_t len)
{
    const char *slash = memrchr(name, '/', len);
    size_t base = slash ? (size_t)(slash + 1 - name) : 0, at = 0;
    for (size_t i = 0; i < len; i++) {
        if (i >= base && name[i] == '.') {
            at += (size_t)snprintf(key + at, KEY_BYTES - at, "%%2E");
        } else {
            key[at++] = name[i];
        }
    }
    key[at] = '\0';
}

static enum status choose_key(struct webdataset *data, char key[KEY_BYTES],
                              const struct export_image *image, struct error *error)
{
    size_t all = strlen(image->name), stem = (size_t)(export_ending(image->name) - image->name);
    bool fresh;
    make_key(key, image->name, stem);
    enum status status = name_set_add(&data->keys, key, &fresh, error);
    if (status == STATUS_OK && !fresh) {
        make_key(key, image->name, all);
        status = name_set_add(&data->keys, key, &fresh, error);
    }
    if (status == STATUS_OK && !fresh) {
        return error_set(error, STATUS_EXISTS, image->name, NOWHERE, NOWHERE,
                         "a second image with the key '%.200s'", key);
    }
    data->shards.target->renamed += strncmp(key, image->name, stem) != 0 || key[stem] != '\0';
    return status;
}

// --- members -------------------------------------------------------------------------------------

static enum status add_member(struct webdataset *data, const char *key, const char *ending,
                              const void *bytes, size_t len, struct error *error)
{
    static const uint8_t zeros[TAR_BLOCK];
    uint8_t head[TAR_HEAD_BYTES];
    char name[KEY_BYTES];
    if ((size_t)snprintf(name, sizeof name, "%s%s", key, ending) > LIMIT_NAME_BYTES) {
        return error_set(error, STATUS_LIMIT, key, NOWHERE, NOWHERE,
                         "the name is too long for a tar");
    }
    size_t head_len = tar_head(head, name, len);
    enum status status = export_shards_write(&data->shards, head, head_len, error);
    if (status == STATUS_OK) {
        status = export_shards_write(&data->shards, bytes, len, error);
    }
    return status ? status : export_shards_write(&data->shards, zeros, tar_padding(len), error);
}

static char *describe(const struct export_image *image)
{
    json_t *about = json_pack("{s:s, s:o, s:s*}", "filename", image->name, "label",
                              image->label >= 0 ? json_integer(image->label) : json_null(), "class",
                              image->class_name);
    char *text = about ? json_dumps(about, JSON_COMPACT) : NULL;
    json_decref(about);
    return text;
}

static enum status add_group(struct webdataset *data, const char *key, const char *about,
                             const struct export_image *image, struct error *error)
{
    char label[16];
    int len = snprintf(label, sizeof label, "%d", image->label);
    enum status status = export_shards_reserve(
        &data->shards, image->len + strlen(about) + 4 * TAR_HEAD_BYTES, error);
    if (status == STATUS_OK && image->label >= 0) {
        status = add_member(data, key, ".cls", label, (size_t)len, error);
    }
    if (status == STATUS_OK) {
        status = add_member(data, key, ".json", about, strlen(about), error);
    }
    const char *ending = image->is_png ? ".png" : ".jpg";
    return status ? status : add_member(data, key, ending, image->bytes, image->len, error);
}

static enum status webdataset_add(void *state, const struct export_image *image,
                                  struct error *error)
{
    struct webdataset *data = state;
    char key[KEY_BYTES];
    enum status status = choose_key(data, key, image, error);
    char *about = status == STATUS_OK ? describe(image) : NULL;
    if (status == STATUS_OK) {
        status = about ? add_group(data, key, about, image, error)
                       : error_errno(error, ENOMEM, image->name, NOWHERE, "describe the image");
    }
    free(about);
    return status;
}

static enum status webdataset_finish(void *state, struct error *error)
{
    return export_shards_end(&((struct webdataset *)state)->shards, error);
}

const struct export_form export_webdataset = {.name = "webdataset",
                                              .open = webdataset_open,
                                              .add = webdataset_add,
                                              .finish = webdataset_finish,
                                              .close = webdataset_close};
