// TFRecord files of tf.train.Examples: records behind checksums that hold, so that the damage meets
// what reads the messages.
#include "formats/tfrecord.h"
#include "formats/protobuf.h"
#include "tests/support/fuzz_source.h"

#include <string.h>

static size_t put_record(uint8_t *to, const struct protobuf_writer *writer)
{
    FUZZ_CHECK(protobuf_finish(writer, NULL) == STATUS_OK);
    tfrecord_head(to, writer->len);
    memcpy(to + TFRECORD_HEAD_BYTES, writer->bytes, writer->len);
    tfrecord_foot(to + TFRECORD_HEAD_BYTES + writer->len, writer->bytes, writer->len);
    return TFRECORD_HEAD_BYTES + writer->len + TFRECORD_FOOT_BYTES;
}

static void put_feature(struct protobuf_writer *writer, const char *key, const char *text,
                        int64_t number)
{
    size_t entry = protobuf_begin(writer, 1);
    protobuf_put_string(writer, 1, key);
    size_t value = protobuf_begin(writer, 2);
    size_t list = protobuf_begin(writer, text != NULL ? 1 : 3);
    if (text != NULL) {
        protobuf_put_string(writer, 1, text);
    } else {
        protobuf_put_packed_varints(writer, 1, &number, 1);
    }
    protobuf_end(writer, list);
    protobuf_end(writer, value);
    protobuf_end(writer, entry);
}

// Three records with these keys.
static void seed(const char *image, const char *label, const char *name)
{
    uint8_t bytes[1024];
    size_t len = 0;
    struct protobuf_writer writer = {0};
    for (int i = 1; i <= 3; i++) {
        writer.len = 0;
        size_t mark = protobuf_begin(&writer, 1);
        put_feature(&writer, image, "\xff\xd8\xff picture", 0);
        put_feature(&writer, label, NULL, i);
        put_feature(&writer, name, i == 1 ? "a/one.jpg" : i == 2 ? "two" : "three.png", 0);
        protobuf_end(&writer, mark);
        len += put_record(bytes + len, &writer);
    }
    protobuf_free(&writer);
    fuzz_seed(bytes, len, TFRECORD_HEAD_BYTES);
}

static void open_tfrecord(void)
{
    seed("image", "label", "file_name");
    seed("image/encoded", "image/class/label", "image/filename");
    seed("image/encoded", "image/class/label", "image/format");
}

static void close_tfrecord(void)
{
}

// Frames follow each other as far as their lengths can be believed.
static size_t repair_frames(uint8_t *bytes, size_t len, uint64_t *random)
{
    if (fuzz_below(random, 16) == 0) {
        return len;
    }
    for (size_t at = 0; len - at >= TFRECORD_HEAD_BYTES + TFRECORD_FOOT_BYTES;) {
        size_t room = len - at - TFRECORD_HEAD_BYTES - TFRECORD_FOOT_BYTES;
        size_t size = bytes[at] | (size_t)bytes[at + 1] << 8;
        if (size > room) {
            size = room;
        }
        tfrecord_head(bytes + at, size);
        tfrecord_foot(bytes + at + TFRECORD_HEAD_BYTES + size, bytes + at + TFRECORD_HEAD_BYTES,
                      size);
        at += TFRECORD_HEAD_BYTES + size + TFRECORD_FOOT_BYTES;
    }
    return len;
}

static const struct fuzz_target target = {.name = "tfrecord",
                                          .open = open_tfrecord,
                                          .close = close_tfrecord,
                                          .repair = repair_frames,
                                          .run = fuzz_source_run};

FUZZ_MAIN(target)
