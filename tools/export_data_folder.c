// Class folders: CLASS/NAME. A name that begins with its class stays what it is. A record's name
// keeps the rules of formats/name.h, so none leads out; parts that would be hidden lose their dot
// ("%2E"), an image whose name does not tell what it is gets an ending, and one without a label
// that would lie in a class lies beside the classes instead ("cat%2F1.jpg").
#include "formats/file.h"
#include "formats/limits.h"
#include "formats/source_export.h"
#include "tools/export_data.h"
#include "tools/extract.h"

#include <stdio.h>
#include <string.h>

#define ROOM (4 * LIMIT_NAME_BYTES)

static enum status folder_open(void **state, struct export_target *target, struct error *error)
{
    (void)error;
    *state = target;
    return STATUS_OK;
}

// Whether a class's folder is called like the first part of the name.
static bool looks_labelled(const struct dataset *dataset, const char *name)
{
    const char *slash = strchr(name, '/');
    for (uint32_t i = 0; slash != NULL && i < dataset_class_count(dataset); i++) {
        char directory[LIMIT_NAME_BYTES + 4];
        int len =
            source_export_directory(directory, sizeof directory, dataset_class_name(dataset, i));
        if (len == slash - name && strncmp(name, directory, (size_t)len) == 0) {
            return true;
        }
    }
    return false;
}

static size_t put(char *text, size_t at, const char *piece)
{
    return at + (size_t)snprintf(text + at, ROOM - at, "%s", piece);
}

// The name with no part hidden; `flat`: and with no part but one.
static void put_safe(char *text, size_t at, const char *name, bool flat)
{
    for (const char *from = name; *from != '\0'; from++) {
        bool first = from == name || from[-1] == '/';
        char one[2] = {*from, '\0'};
        at = put(text, at, first && *from == '.' ? "%2E" : flat && *from == '/' ? "%2F" : one);
    }
}

static void name_file(char *text, const struct dataset *dataset, const struct export_image *image)
{
    const char *rest = image->name;
    size_t at = 0;
    bool flat = false;
    text[0] = '\0';
    if (image->class_name != NULL) {
        size_t len = strlen(image->class_name);
        bool inside = strncmp(rest, image->class_name, len) == 0 && rest[len] == '/';
        rest += inside ? len + 1 : 0;
        at = (size_t)source_export_directory(text, ROOM, image->class_name);
        at = put(text, at, "/");
    } else {
        flat = looks_labelled(dataset, rest);
    }
    put_safe(text, at, rest, flat);
    if (*export_ending(image->name) == '\0') {
        put(text, strlen(text), image->is_png ? ".png" : ".jpg");
    }
}

static enum status folder_add(void *state, const struct export_image *image, struct error *error)
{
    struct export_target *target = state;
    char text[ROOM];
    name_file(text, target->dataset, image);
    const char *at = strstr(text, image->name);
    target->renamed += at == NULL || strlen(at) != strlen(image->name);
    enum status status = extract_write(target->directory, text, image->bytes, image->len, error);
    return status != STATUS_EXISTS
               ? status
               : error_set(error, status, target->directory, NOWHERE, target->images,
                           "%.200s exists: a second image for that file; --to webdataset and "
                           "tfrecord keep both",
                           text);
}

static enum status folder_finish(void *state, struct error *error)
{
    return file_sync_all(((struct export_target *)state)->directory, error);
}

static void folder_close(void **state)
{
    *state = NULL;
}

const struct export_form export_folder = {.name = "folder",
                                          .open = folder_open,
                                          .add = folder_add,
                                          .finish = folder_finish,
                                          .close = folder_close};
