// TFRecord files of tf.train.Examples with the keys of ImageNet's classic scripts: image/encoded,
// image/format, image/filename, image/height, image/width, and of datasets with labels
// image/class/label (from 1, as there; -1: none) and image/class/text. The number of files is known
// at the end, and then stands in their names.
#include "formats/file.h"
#include "formats/protobuf.h"
#include "formats/tfrecord.h"
#include "tools/export_data.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXAMPLE_FEATURES = 1, FEATURES_ENTRY = 1, ENTRY_KEY = 1, ENTRY_FEATURE = 2 };
enum { FEATURE_BYTES = 1, FEATURE_INTEGERS = 3, LIST_VALUE = 1 };

struct tfrecord {
    struct export_shards shards;
    struct protobuf_writer example;
};

static void tfrecord_form_close(void **state)
{
    struct tfrecord *records = *state;
    if (records != NULL) {
        file_close(&records->shards.fd, records->shards.path, NULL);
        protobuf_free(&records->example);
        free(records);
        *state = NULL;
    }
}

static enum status tfrecord_form_open(void **state, struct export_target *target,
                                      struct error *error)
{
    struct tfrecord *records = calloc(1, sizeof *records);
    *state = records;
    if (records == NULL) {
        return error_errno(error, ENOMEM, target->name, NOWHERE, "allocate memory to write");
    }
    records->shards = (struct export_shards){
        .target = target, .before = ".tfrecord", .after = "", .digits = 5, .fd = -1};
    return STATUS_OK;
}

// --- examples ------------------------------------------------------------------------------------

static void put_bytes(struct protobuf_writer *writer, const char *key, const void *bytes,
                      size_t len)
{
    size_t entry = protobuf_begin(writer, FEATURES_ENTRY);
    protobuf_put_string(writer, ENTRY_KEY, key);
    size_t feature = protobuf_begin(writer, ENTRY_FEATURE);
    size_t list = protobuf_begin(writer, FEATURE_BYTES);
    protobuf_put_bytes(writer, LIST_VALUE, bytes, len);
    protobuf_end(writer, list);
    protobuf_end(writer, feature);
    protobuf_end(writer, entry);
}

static void put_text(struct protobuf_writer *writer, const char *key, const char *text)
{
    put_bytes(writer, key, text, strlen(text));
}

static void put_integer(struct protobuf_writer *writer, const char *key, int64_t value)
{
    size_t entry = protobuf_begin(writer, FEATURES_ENTRY);
    protobuf_put_string(writer, ENTRY_KEY, key);
    size_t feature = protobuf_begin(writer, ENTRY_FEATURE);
    size_t list = protobuf_begin(writer, FEATURE_INTEGERS);
    protobuf_put_packed_varints(writer, LIST_VALUE, &value, 1);
    protobuf_end(writer, list);
    protobuf_end(writer, feature);
    protobuf_end(writer, entry);
}

static enum status make_example(struct protobuf_writer *writer, const struct export_image *image,
                                bool labels, struct error *error)
{
    writer->len = 0;
    size_t features = protobuf_begin(writer, EXAMPLE_FEATURES);
    put_bytes(writer, "image/encoded", image->bytes, image->len);
    put_text(writer, "image/format", image->is_png ? "PNG" : "JPEG");
    put_text(writer, "image/filename", image->name);
    put_integer(writer, "image/height", image->height);
    put_integer(writer, "image/width", image->width);
    if (labels) {
        put_integer(writer, "image/class/label", image->label >= 0 ? image->label + 1 : -1);
        put_text(writer, "image/class/text", image->class_name ? image->class_name : "");
    }
    protobuf_end(writer, features);
    return protobuf_finish(writer, error);
}

static enum status tfrecord_form_add(void *state, const struct export_image *image,
                                     struct error *error)
{
    struct tfrecord *records = state;
    struct export_shards *shards = &records->shards;
    bool labels = dataset_class_count(shards->target->dataset) > 0;
    enum status status = make_example(&records->example, image, labels, error);
    const uint8_t *bytes = records->example.bytes;
    size_t len = records->example.len;
    if (status == STATUS_OK) {
        status =
            export_shards_reserve(shards, len + TFRECORD_HEAD_BYTES + TFRECORD_FOOT_BYTES, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    uint8_t head[TFRECORD_HEAD_BYTES], foot[TFRECORD_FOOT_BYTES];
    tfrecord_head(head, len);
    tfrecord_foot(foot, bytes, len);
    status = export_shards_write(shards, head, sizeof head, error);
    if (status == STATUS_OK) {
        status = export_shards_write(shards, bytes, len, error);
    }
    return status ? status : export_shards_write(shards, foot, sizeof foot, error);
}

static enum status tfrecord_form_finish(void *state, struct error *error)
{
    struct export_shards *shards = &((struct tfrecord *)state)->shards;
    const struct export_target *target = shards->target;
    enum status status = export_shards_end(shards, error);
    for (uint32_t i = 0; i < target->shards && status == STATUS_OK; i++) {
        char from[EXPORT_PATH_BYTES], to[EXPORT_PATH_BYTES + 16];
        snprintf(from, sizeof from, "%s/%s.tfrecord-%05u", target->directory, target->name, i);
        snprintf(to, sizeof to, "%s-of-%05u", from, target->shards);
        status = file_rename(from, to, error);
    }
    return status;
}

const struct export_form export_tfrecord = {.name = "tfrecord",
                                            .open = tfrecord_form_open,
                                            .add = tfrecord_form_add,
                                            .finish = tfrecord_form_finish,
                                            .close = tfrecord_form_close};
