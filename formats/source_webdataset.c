// WebDataset shards: tars whose files belong together by name up to the first dot of the last
// component, and follow each other (https://github.com/webdataset/webdataset):
//
//     train/0001.cls    "7"                       the label: a decimal number, or
//     train/0001.json   {"label": 7, …}           an integer under "label" or "cls"
//     train/0001.jpg    an image: .jpg .jpeg .png .webp
//     train/0002.jpg    the label may stand behind the image: then the image waits in memory
//     train/0002.cls
//
// A tar is one when a group among its first files has an image and a label; else it is the plain
// tar reader's. Names stay what the files are called: the key and its ending; or what a .json in
// front of the image says under "filename" where that is another spelling of the same (the key with
// its dots escaped as "%2E", and an ending), as `byol export-data` writes it. Other files of a
// group
// (.txt, .seg.png, …) are passed over.
#include "formats/dataset.h"
#include "formats/limits.h"
#include "formats/source_content.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SNIFFED_FILES 32                      // looked at before a tar is called none
#define LABEL_BYTES   (256u << 10)            // of a file that tells a label
#define WAITING       16                      // images of one group whose label is not yet known
#define WAITING_BYTES (2 * LIMIT_IMAGE_BYTES) // of all of them

enum part { PART_OTHER, PART_IMAGE, PART_CLS, PART_JSON };

struct image_file {
    char name[LIMIT_NAME_BYTES + 2];
    uint8_t *bytes;
    size_t len;
};

struct group {
    char key[LIMIT_NAME_BYTES + 2];
    int32_t label;
    bool labelled;
    bool given;                          // one of its images was given out
    char fault[200];                     // why its label cannot be read, or ""
    char filename[LIMIT_NAME_BYTES + 2]; // of its first image, as its .json says, or ""
    struct image_file images[WAITING];   // those waiting
    size_t count, next;                  // of them, and how many were given out
    size_t bytes;
};

struct webdataset {
    char path[512];
    void *tar;
    struct source_entry ahead; // an entry of the tar that was met but not used
    bool has_ahead, ended;
    struct group group;
    struct source_content content; // of the entry given out, when it had waited
    bool waited;
    char name[LIMIT_NAME_BYTES + 2]; // its, where the group told it
    char fault[200];                 // of the entry given out
    bool saw_cls, saw_json;
    char layout[60];
};

// --- names ---------------------------------------------------------------------------------------

// Length of the key; the ending stands behind it, with its dot.
static size_t key_length(const char *name)
{
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
    return (size_t)(base - name) + strcspn(base, ".");
}

static enum part part_of(const struct source_entry *entry)
{
    static const struct {
        const char *ending;
        enum part part;
    } parts[] = {{".jpg", PART_IMAGE},  {".jpeg", PART_IMAGE}, {".png", PART_IMAGE},
                 {".webp", PART_IMAGE}, {".cls", PART_CLS},    {".json", PART_JSON}};
    if (entry->type == SOURCE_ENTRY_LINK || entry->name == NULL) {
        return PART_OTHER;
    }
    size_t key = key_length(entry->name);
    if (key == 0 || entry->name[key - 1] == '/') { // hidden
        return PART_OTHER;
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (strcasecmp(entry->name + key, parts[i].ending) == 0) {
            return parts[i].part;
        }
    }
    return PART_OTHER;
}

static bool same_key(const char *key, const char *name)
{
    size_t len = key_length(name);
    return strlen(key) == len && memcmp(key, name, len) == 0;
}

// --- labels --------------------------------------------------------------------------------------

static void set_label(struct group *group, const char *where, int64_t label)
{
    if (label < DATASET_NO_LABEL || label >= (int64_t)LIMIT_CLASSES) {
        snprintf(group->fault, sizeof group->fault, "its %s file says %" PRId64 ", no label", where,
                 label);
        return;
    }
    group->label = (int32_t)label;
    group->labelled = true;
    group->fault[0] = '\0';
}

static void parse_cls(struct group *group, const char *text)
{
    char *end;
    errno = 0;
    long long label = strtoll(text, &end, 10);
    bool number = end != text && errno == 0 && end[strspn(end, " \t\r\n")] == '\0';
    if (number) {
        set_label(group, ".cls", label);
    } else {
        snprintf(group->fault, sizeof group->fault, "its .cls file is no decimal number: '%.40s'",
                 text);
    }
}

// Whether the name is the key with "%2E" for dots, and at most an ending behind it.
static bool spells_key(const char *name, const char *key)
{
    while (*key != '\0' && *name != '\0') {
        bool dot = *name == '.' && strncmp(key, "%2E", 3) == 0;
        if (!dot && *name != *key) {
            return false;
        }
        key += dot ? 3 : 1;
        name++;
    }
    return *key == '\0' && (*name == '\0' || (*name == '.' && strpbrk(name + 1, "./") == NULL));
}

// A .json file without a label is metadata; one that is no JSON is damage, unless the label is
// known.
static void parse_json(struct group *group, const char *text, size_t len)
{
    json_error_t why;
    json_t *root = json_loadb(text, len, 0, &why);
    if (root == NULL && !group->labelled) {
        snprintf(group->fault, sizeof group->fault, "its .json file: %.100s", why.text);
    }
    json_t *label = json_object_get(root, "label");
    label = json_is_integer(label) ? label : json_object_get(root, "cls");
    if (json_is_integer(label) && !group->labelled) {
        set_label(group, ".json", json_integer_value(label));
    }
    const char *name = json_string_value(json_object_get(root, "filename"));
    if (name != NULL && group->count == 0 && !group->given && spells_key(name, group->key)) {
        snprintf(group->filename, sizeof group->filename, "%s", name);
    }
    json_decref(root);
}

static enum status read_label(struct webdataset *data, const struct source_entry *entry,
                              enum part part, struct error *error)
{
    struct group *group = &data->group;
    if (group->labelled && part == PART_CLS) {
        return STATUS_OK;
    }
    if (entry->size > LABEL_BYTES) {
        if (group->labelled) {
            return STATUS_OK;
        }
        snprintf(group->fault, sizeof group->fault, "its %s file is %" PRIu64 " bytes long",
                 part == PART_CLS ? ".cls" : ".json", entry->size);
        return STATUS_OK;
    }
    size_t size = (size_t)entry->size, got = 0;
    char *text = malloc(size + 1);
    if (text == NULL) {
        return error_errno(error, ENOMEM, data->path, NOWHERE, "allocate memory for a label");
    }
    enum status status = source_tar.read(data->tar, text, size, &got, error);
    text[got] = '\0';
    bool before = group->labelled;
    if (status == STATUS_OK && part == PART_CLS) {
        parse_cls(group, text);
        data->saw_cls = true;
    } else if (status == STATUS_OK) {
        parse_json(group, text, got);
        data->saw_json |= group->labelled && !before;
    }
    free(text);
    return status;
}

// --- groups --------------------------------------------------------------------------------------

static void clear_group(struct group *group)
{
    for (size_t i = 0; i < group->count; i++) {
        free(group->images[i].bytes);
        group->images[i].bytes = NULL;
    }
    group->count = group->next = group->bytes = 0;
    group->labelled = group->given = false;
    group->label = DATASET_NO_LABEL;
    group->fault[0] = group->key[0] = group->filename[0] = '\0';
}

static void begin_group(struct group *group, const char *name)
{
    clear_group(group);
    size_t len = key_length(name);
    len = len < sizeof group->key - 1 ? len : sizeof group->key - 1;
    memcpy(group->key, name, len);
    group->key[len] = '\0';
}

// An image whose label may still come is kept.
static bool has_to_wait(const struct group *group, const struct source_entry *entry)
{
    return !group->labelled && entry->size <= LIMIT_IMAGE_BYTES;
}

static enum status let_wait(struct webdataset *data, const struct source_entry *entry,
                            struct error *error)
{
    struct group *group = &data->group;
    size_t size = (size_t)entry->size;
    if (group->count == WAITING || size > WAITING_BYTES - group->bytes) {
        return error_set(error, STATUS_LIMIT, data->path, NOWHERE, NOWHERE,
                         "%.200s: more than %d images, or %" PRIu64 " bytes, before their label",
                         group->key, WAITING, WAITING_BYTES);
    }
    struct image_file *image = &group->images[group->count];
    image->bytes = malloc(size + 1);
    if (image->bytes == NULL) {
        return error_errno(error, ENOMEM, data->path, NOWHERE, "allocate memory for an image");
    }
    group->count++;
    snprintf(image->name, sizeof image->name, "%s", entry->name);
    enum status status = source_tar.read(data->tar, image->bytes, size, &image->len, error);
    if (status == STATUS_OK && image->len != size) {
        status = error_set(error, STATUS_TRUNCATED, data->path, NOWHERE, NOWHERE,
                           "a file in it ends early or changed while it was read");
    }
    group->bytes += size;
    return status;
}

static enum status next_of_tar(struct webdataset *data, struct source_entry *entry,
                               struct error *error)
{
    if (data->has_ahead) {
        data->has_ahead = false;
        *entry = data->ahead;
        return STATUS_OK;
    }
    *entry = (struct source_entry){.label = SOURCE_LABEL_OF_NAME};
    enum status status = data->ended ? STATUS_END : source_tar.next(data->tar, entry, error);
    data->ended = status == STATUS_END;
    return status;
}

static void put_back(struct webdataset *data, const struct source_entry *entry)
{
    data->ahead = *entry;
    data->has_ahead = true;
}

// --- the kind ------------------------------------------------------------------------------------

static void webdataset_close(void **state)
{
    struct webdataset *data = *state;
    if (data != NULL) {
        clear_group(&data->group);
        source_content_free(&data->content);
        source_tar.close(&data->tar);
        free(data);
        *state = NULL;
    }
}

static enum status webdataset_open(void **state, const char *path, struct error *error)
{
    struct webdataset *data = calloc(1, sizeof *data);
    *state = data;
    if (data == NULL) {
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory to read");
    }
    snprintf(data->path, sizeof data->path, "%s", path);
    data->group.label = DATASET_NO_LABEL;
    return source_tar.open(&data->tar, path, error);
}

// An image that waited, or (NULL) the tar's current file.
static void give_out(struct webdataset *data, const struct image_file *image,
                     struct source_entry *entry)
{
    struct group *group = &data->group;
    data->waited = image != NULL;
    snprintf(data->fault, sizeof data->fault, "%s", group->fault);
    if (image != NULL) {
        struct source_range range;
        source_range_memory(&range, image->bytes, image->len, data->path);
        source_content_file(&data->content, &range);
        entry->name = image->name;
        entry->size = image->len;
    }
    if (group->filename[0] != '\0') {
        snprintf(data->name, sizeof data->name, "%s", group->filename);
        group->filename[0] = '\0';
        entry->name = data->name;
    }
    group->given = true;
    entry->type = SOURCE_ENTRY_IMAGE;
    entry->label = group->label;
}

// Those that waited are ready once the label is known, or when no more can come.
static bool give_waiting(struct webdataset *data, struct source_entry *entry, bool no_more)
{
    struct group *group = &data->group;
    if (group->next == group->count || !(group->labelled || no_more)) {
        return false;
    }
    *entry = (struct source_entry){0};
    give_out(data, &group->images[group->next++], entry);
    return true;
}

// One file of the tar: taken into the group, or given out (*given).
static enum status take_file(struct webdataset *data, struct source_entry *entry, bool *given,
                             struct error *error)
{
    enum part part = part_of(entry);
    if (part == PART_CLS || part == PART_JSON) {
        return read_label(data, entry, part, error);
    }
    if (part == PART_IMAGE && has_to_wait(&data->group, entry)) {
        return let_wait(data, entry, error);
    }
    *given = true;
    if (part == PART_IMAGE) {
        give_out(data, NULL, entry);
    } else {
        data->waited = false;
        data->fault[0] = '\0';
        entry->name = "."; // hidden: passed over and counted
    }
    return STATUS_OK;
}

static enum status webdataset_next(void *state, struct source_entry *entry, struct error *error)
{
    struct webdataset *data = state;
    bool given = give_waiting(data, entry, false);
    while (!given) {
        enum status status = next_of_tar(data, entry, error);
        if (status == STATUS_END && give_waiting(data, entry, true)) {
            return STATUS_OK;
        }
        if (status != STATUS_OK) {
            return status;
        }
        const char *name = entry->name ? entry->name : "";
        bool strange = entry->type == SOURCE_ENTRY_LINK;
        if (!strange && !same_key(data->group.key, name)) {
            struct source_entry other = *entry;
            if (give_waiting(data, entry, true)) {
                put_back(data, &other);
                return STATUS_OK;
            }
            begin_group(&data->group, name);
        }
        status = take_file(data, entry, &given, error);
        given = given || (status == STATUS_OK && give_waiting(data, entry, false));
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

static enum status webdataset_read(void *state, void *buf, size_t len, size_t *got,
                                   struct error *error)
{
    struct webdataset *data = state;
    *got = 0;
    if (data->fault[0] != '\0') {
        return error_set(error, STATUS_CORRUPT, data->path, NOWHERE, NOWHERE, "%s", data->fault);
    }
    return data->waited ? source_content_read(&data->content, buf, len, got, error)
                        : source_tar.read(data->tar, buf, len, got, error);
}

static const char *webdataset_describe(void *state)
{
    struct webdataset *data = state;
    snprintf(data->layout, sizeof data->layout, "labels in %s%s%s", data->saw_cls ? ".cls" : "",
             data->saw_cls && data->saw_json ? " and " : "", data->saw_json ? ".json" : "");
    return data->saw_cls || data->saw_json ? data->layout : NULL;
}

// Looks for a group with an image and a label. What cannot be read is the tar reader's to tell.
static bool has_labelled_group(struct webdataset *data)
{
    bool image = false;
    for (int i = 0; i < SNIFFED_FILES; i++) {
        struct source_entry entry = {0};
        if (source_tar.next(data->tar, &entry, NULL) != STATUS_OK) {
            return false;
        }
        const char *name = entry.name ? entry.name : "";
        if (!same_key(data->group.key, name)) {
            begin_group(&data->group, name);
            image = false;
        }
        enum part part = part_of(&entry);
        image = image || part == PART_IMAGE;
        if ((part == PART_CLS || part == PART_JSON) &&
            read_label(data, &entry, part, NULL) != STATUS_OK) {
            return false;
        }
        if (image && data->group.labelled) {
            return true;
        }
    }
    return false;
}

static enum status webdataset_recognise(const char *path, bool *mine, struct error *error)
{
    void *state;
    enum status status = webdataset_open(&state, path, error);
    *mine = status == STATUS_OK && has_labelled_group(state);
    webdataset_close(&state);
    return status == STATUS_NO_MEMORY ? status : STATUS_OK;
}

const struct source_kind source_webdataset = {.name = "WebDataset",
                                              .recognise = webdataset_recognise,
                                              .open = webdataset_open,
                                              .next = webdataset_next,
                                              .read = webdataset_read,
                                              .describe = webdataset_describe,
                                              .close = webdataset_close};
