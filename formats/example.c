// tf.train.Example, read without its schema.
#include "formats/example.h"
#include "formats/limits.h"
#include "formats/protobuf.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { EXAMPLE_FEATURES = 1, FEATURES_ENTRY = 1, ENTRY_KEY = 1, ENTRY_FEATURE = 2 };
enum { FEATURE_BYTES = 1, FEATURE_FLOATS = 2, FEATURE_INTEGERS = 3, LIST_VALUE = 1 };

struct feature {
    const char *key; // not terminated
    size_t key_len;
    uint32_t kind; // FEATURE_BYTES …, 0: empty
    const uint8_t *bytes;
    size_t len;     // of the first of a list of bytes
    int64_t number; // the first of a list of numbers
    size_t count;   // of the list
};

static const char no_example[] = "it is no tf.train.Example";

struct walk {
    struct protobuf_reader features;
    const char *fault;
};

// --- one feature ---------------------------------------------------------------------------------

// Numbers are packed, or each is a field of its own: readers must take both.
static void read_numbers(struct feature *feature, struct protobuf_reader *list, const char **fault)
{
    struct protobuf_field field;
    uint64_t value;
    while (protobuf_next(list, &field)) {
        if (field.number != LIST_VALUE) {
            continue;
        }
        if (field.wire == PROTOBUF_VARINT) {
            feature->number = feature->count++ == 0 ? (int64_t)field.value : feature->number;
            continue;
        }
        struct protobuf_reader packed = protobuf_enter(&field);
        while (protobuf_next_varint(&packed, &value)) {
            feature->number = feature->count++ == 0 ? (int64_t)value : feature->number;
        }
        *fault = packed.fault ? packed.fault : *fault;
    }
}

static void read_bytes(struct feature *feature, struct protobuf_reader *list)
{
    struct protobuf_field field;
    while (protobuf_next(list, &field)) {
        if (field.number == LIST_VALUE && field.wire == PROTOBUF_LENGTH && feature->count++ == 0) {
            feature->bytes = field.bytes;
            feature->len = field.len;
        }
    }
}

static void read_feature(struct feature *feature, const struct protobuf_field *value,
                         const char **fault)
{
    struct protobuf_reader message = protobuf_enter(value);
    struct protobuf_field field;
    while (protobuf_next(&message, &field)) {
        struct protobuf_reader list = protobuf_enter(&field);
        feature->kind = field.number;
        feature->count = 0;
        if (field.number == FEATURE_BYTES) {
            read_bytes(feature, &list);
        } else if (field.number == FEATURE_INTEGERS) {
            read_numbers(feature, &list, fault);
        }
        *fault = list.fault ? list.fault : *fault;
    }
    *fault = message.fault ? message.fault : *fault;
}

// --- all features --------------------------------------------------------------------------------

static void walk_begin(struct walk *walk, const void *bytes, size_t len)
{
    struct protobuf_reader example = protobuf_read(bytes, len);
    struct protobuf_field field;
    *walk = (struct walk){.features = protobuf_read(NULL, 0)};
    while (protobuf_next(&example, &field)) {
        if (field.number != EXAMPLE_FEATURES || field.wire != PROTOBUF_LENGTH) {
            walk->fault = no_example;
            return;
        }
        walk->features = protobuf_enter(&field);
    }
    walk->fault = example.fault;
}

// False at the end and at damage: then the fault is set.
static bool walk_next(struct walk *walk, struct feature *feature)
{
    struct protobuf_field entry, part;
    *feature = (struct feature){0};
    if (walk->fault != NULL || !protobuf_next(&walk->features, &entry)) {
        walk->fault = walk->fault ? walk->fault : walk->features.fault;
        return false;
    }
    struct protobuf_reader parts = protobuf_enter(&entry);
    while (protobuf_next(&parts, &part)) {
        if (part.number == ENTRY_KEY) {
            feature->key = (const char *)part.bytes;
            feature->key_len = part.len;
        } else if (part.number == ENTRY_FEATURE) {
            read_feature(feature, &part, &walk->fault);
        }
    }
    walk->fault = parts.fault ? parts.fault : walk->fault;
    return walk->fault == NULL;
}

static bool is_key(const struct feature *feature, const char *key)
{
    return key != NULL && strlen(key) == feature->key_len &&
           memcmp(key, feature->key, feature->key_len) == 0;
}

static enum status faulty(const char *fault, struct error *error)
{
    return error_set(error, STATUS_CORRUPT, NULL, NOWHERE, NOWHERE, "a damaged record: %s", fault);
}

// --- which keys ----------------------------------------------------------------------------------

enum role { IMAGE, LABEL, CLASS, NAME, FORMAT, CLASSIC };
static const struct known_key {
    const char *key;
    enum role role;
    uint32_t kind;
    int rank; // of several for one role the highest counts
} known_keys[] = {
    {"image/encoded", IMAGE, FEATURE_BYTES, 2},
    {"image", IMAGE, FEATURE_BYTES, 1},
    {"image/class/label", LABEL, FEATURE_INTEGERS, 2},
    {"label", LABEL, FEATURE_INTEGERS, 1},
    {"image/class/synset", CLASS, FEATURE_BYTES, 2},
    {"image/class/text", CLASS, FEATURE_BYTES, 1},
    {"image/filename", NAME, FEATURE_BYTES, 3},
    {"file_name", NAME, FEATURE_BYTES, 2},
    {"id", NAME, FEATURE_BYTES, 1},
    {"image/format", FORMAT, FEATURE_BYTES, 1},
    {"image/filename", CLASSIC, FEATURE_BYTES, 1},
    {"image/class/text", CLASSIC, FEATURE_BYTES, 1},
    {"image/class/synset", CLASSIC, FEATURE_BYTES, 1},
    {"image/colorspace", CLASSIC, FEATURE_BYTES, 1},
    {"image/channels", CLASSIC, FEATURE_INTEGERS, 1},
};
#define KNOWN_KEYS (sizeof known_keys / sizeof *known_keys)

static void note_key(const struct known_key *best[CLASSIC + 1], const struct feature *feature)
{
    for (size_t i = 0; i < KNOWN_KEYS; i++) {
        const struct known_key *key = &known_keys[i];
        if (is_key(feature, key->key) && feature->kind == key->kind &&
            (best[key->role] == NULL || best[key->role]->rank < key->rank)) {
            best[key->role] = key;
        }
    }
}

// "image_raw (bytes), height (integers)", as much as fits.
static void list_key(char *text, size_t size, const struct feature *feature)
{
    static const char *const kinds[] = {"nothing", "bytes", "floats", "integers"};
    size_t used = strlen(text);
    int shown = feature->key_len < 80 ? (int)feature->key_len : 80;
    snprintf(text + used, size - used, "%s%.*s (%s)", used ? ", " : "", shown,
             feature->key ? feature->key : "", kinds[feature->kind <= 3 ? feature->kind : 0]);
}

enum status example_keys_find(struct example_keys *keys, const void *bytes, size_t len,
                              struct error *error)
{
    const struct known_key *best[CLASSIC + 1] = {NULL};
    char found[400] = "";
    struct walk walk;
    struct feature feature;
    walk_begin(&walk, bytes, len);
    while (walk_next(&walk, &feature)) {
        list_key(found, sizeof found, &feature);
        note_key(best, &feature);
    }
    if (walk.fault == no_example) {
        return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                         "TFRecords of something else than tf.train.Example");
    }
    if (walk.fault != NULL) {
        return faulty(walk.fault, error);
    }
    if (best[IMAGE] == NULL) {
        return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                         "images are read from the keys image/encoded and image; it has %s",
                         found[0] ? found : "none at all");
    }
    bool classic = best[LABEL] != NULL && best[LABEL]->rank == 2;
    bool slim = best[FORMAT] != NULL && best[CLASSIC] == NULL;
    *keys = (struct example_keys){
        .image = best[IMAGE]->key,
        .label = best[LABEL] ? best[LABEL]->key : NULL,
        .class_name = classic && best[CLASS] ? best[CLASS]->key : NULL,
        .name = best[NAME] ? best[NAME]->key : NULL,
        .first_label = classic && !slim,
    };
    return STATUS_OK;
}

// --- a record ------------------------------------------------------------------------------------

static enum status take_label(struct example *example, const struct example_keys *keys,
                              const struct feature *feature, struct error *error)
{
    if (feature->count == 0) {
        return STATUS_OK;
    }
    if (feature->kind != FEATURE_INTEGERS || feature->count > 1) {
        return error_set(error, STATUS_CORRUPT, NULL, NOWHERE, NOWHERE, "%s is not one integer",
                         keys->label);
    }
    if (feature->number == -1) { // a test set's
        return STATUS_OK;
    }
    if (feature->number < keys->first_label ||
        feature->number - keys->first_label >= (int64_t)LIMIT_CLASSES) {
        return error_set(error, STATUS_CORRUPT, NULL, NOWHERE, NOWHERE,
                         "%s is %" PRId64 ", but counts from %" PRId64 " to %" PRIu64, keys->label,
                         feature->number, keys->first_label,
                         LIMIT_CLASSES - 1 + (uint64_t)keys->first_label);
    }
    example->label = (int32_t)(feature->number - keys->first_label);
    return STATUS_OK;
}

enum status example_parse(struct example *example, const struct example_keys *keys,
                          const void *bytes, size_t len, struct error *error)
{
    struct walk walk;
    struct feature feature;
    enum status status = STATUS_OK;
    *example = (struct example){.label = -1};
    walk_begin(&walk, bytes, len);
    while (walk_next(&walk, &feature)) { // to the end even so: the name helps to find the record
        if (is_key(&feature, keys->image)) {
            example->image = feature.bytes;
            example->image_len = feature.len;
        } else if (is_key(&feature, keys->name)) {
            example->name = (const char *)feature.bytes;
            example->name_len = feature.len;
        } else if (is_key(&feature, keys->class_name)) {
            example->class_name = (const char *)feature.bytes;
            example->class_name_len = feature.len;
        } else if (is_key(&feature, keys->label) && status == STATUS_OK) {
            status = take_label(example, keys, &feature, error);
        }
    }
    if (status == STATUS_OK && walk.fault != NULL) {
        return faulty(walk.fault, error);
    }
    if (status == STATUS_OK && example->image_len == 0) {
        return error_set(error, STATUS_CORRUPT, NULL, NOWHERE, NOWHERE, "no image under %s",
                         keys->image);
    }
    return status;
}
