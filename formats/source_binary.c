// The binary files of CIFAR-10, CIFAR-100 and STL-10 (formats/binary_layout.h): one such file, a
// folder of them, or the official archive (cifar-10-binary.tar.gz …). Images become PNG files,
// named by file and place: data_batch_1/00017.png.
#include "formats/binary_layout.h"
#include "formats/binary_side.h"
#include "formats/class_names.h"
#include "formats/dataset.h"
#include "formats/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct binary {
    char path[512];
    const struct source_kind *outer; // NULL: the path is one file of images
    void *members;
    int fd; // of the one file
    struct binary_sides sides;
    const struct binary_layout *first; // of the first file, and so of all
    struct class_list classes;

    // The current file and record.
    const struct binary_layout *layout; // NULL: between files
    const struct binary_side *labels;
    char file[256]; // its name without ".bin"
    uint64_t records, number;
    uint8_t record[BINARY_RECORD_MAX];
    char name[300];
    struct source_content content;
};

// --- opening -------------------------------------------------------------------------------------

static void binary_close(void **state)
{
    struct binary *binary = *state;
    if (binary != NULL) {
        if (binary->outer != NULL) {
            binary->outer->close(&binary->members);
        }
        if (binary->fd >= 0) {
            close(binary->fd);
        }
        binary_sides_free(&binary->sides);
        class_list_free(&binary->classes);
        source_content_free(&binary->content);
        free(binary);
        *state = NULL;
    }
}

static enum status open_file(struct binary *binary, struct error *error)
{
    binary->fd = open(binary->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (binary->fd < 0) {
        return error_errno(error, errno, binary->path, NOWHERE, "open");
    }
    binary->first = binary_layout_of(binary->path);
    if (binary->first == NULL) {
        return error_set(error, STATUS_CORRUPT, binary->path, NOWHERE, NOWHERE,
                         "its size or its labels are not those of CIFAR or STL-10 any more");
    }
    return binary_sides_beside(&binary->sides, binary->path, error);
}

static enum status refuse_pickles(const struct binary *binary, struct error *error)
{
    return error_set(
        error, STATUS_UNSUPPORTED, binary->path, NOWHERE, NOWHERE,
        "the Python version of CIFAR, whose pickles are programs; take the binary "
        "version (cifar-10-binary.tar.gz, cifar-100-binary.tar.gz) from the same page");
}

// Whether nothing more can be wanted: STL-10's labels may stand behind the images.
static bool has_all_sides(struct binary *binary)
{
    const struct binary_layout *first = binary->first;
    return first != NULL && first->header > 0 &&
           binary_side_of(&binary->sides, first->class_names)->bytes != NULL;
}

// Reads an archive or a folder for what lies beside the images.
static enum status find_sides(struct binary *binary, struct error *error)
{
    enum status status = STATUS_OK;
    while (status == STATUS_OK && !has_all_sides(binary)) {
        struct source_entry entry = {0};
        status = binary->outer->next(binary->members, &entry, error);
        if (status != STATUS_OK || entry.type == SOURCE_ENTRY_LINK || entry.name == NULL) {
            continue;
        }
        if (binary_is_pickle(entry.name)) {
            return refuse_pickles(binary, error);
        }
        const struct binary_file *known = binary_file_named(entry.name);
        if (known != NULL && binary->first == NULL) {
            binary->first = known->layout;
        }
        struct binary_side *side = binary_side_of(&binary->sides, entry.name);
        if (side != NULL) {
            status =
                binary_side_take(side, binary->outer, binary->members, &entry, binary->path, error);
        }
    }
    return status == STATUS_END ? STATUS_OK : status;
}

static enum status open_members(struct binary *binary, struct error *error)
{
    enum status status = binary->outer->open(&binary->members, binary->path, error);
    if (status == STATUS_OK) {
        status = binary_has_pickles(binary->path) ? refuse_pickles(binary, error)
                                                  : find_sides(binary, error);
    }
    if (status == STATUS_OK) { // and from the front again
        binary->outer->close(&binary->members);
        status = binary->outer->open(&binary->members, binary->path, error);
    }
    return status;
}

// The names of the classes; none unless there are as many as classes.
static enum status take_classes(struct binary *binary, struct error *error)
{
    const struct binary_layout *first = binary->first;
    struct binary_side *side = first ? binary_side_of(&binary->sides, first->class_names) : NULL;
    if (side == NULL || side->bytes == NULL) {
        return STATUS_OK;
    }
    enum status status = class_list_split(&binary->classes, (char *)side->bytes, side->len, error);
    side->bytes = NULL;
    if (status == STATUS_OK && binary->classes.count != first->classes) {
        class_list_free(&binary->classes);
    }
    return status;
}

static enum status binary_open(void **state, const char *path, struct error *error)
{
    struct binary *binary = calloc(1, sizeof *binary);
    struct stat about;
    *state = binary;
    if (binary == NULL) {
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory to read");
    }
    binary->fd = -1;
    snprintf(binary->path, sizeof binary->path, "%s", path);
    if (stat(path, &about) != 0) {
        return error_errno(error, errno, path, NOWHERE, "open");
    }
    if (S_ISDIR(about.st_mode)) {
        binary->outer = &source_folder;
    } else if (binary_layout_of(path) == NULL) {
        binary->outer = &source_tar;
    }
    enum status status = binary->outer ? open_members(binary, error) : open_file(binary, error);
    return status ? status : take_classes(binary, error);
}

// --- files ---------------------------------------------------------------------------------------

static enum status find_labels(struct binary *binary, const struct binary_file *known,
                               struct error *error)
{
    binary->labels = NULL;
    if (known == NULL || known->labels == NULL) {
        return STATUS_OK;
    }
    const struct binary_side *side = binary_side_of(&binary->sides, known->labels);
    if (side->bytes != NULL && side->len != binary->records) {
        return error_set(error, STATUS_CORRUPT, binary->path, NOWHERE, NOWHERE,
                         "%s has %zu labels for %" PRIu64 " images", known->labels, side->len,
                         binary->records);
    }
    binary->labels = side->bytes != NULL ? side : NULL;
    return STATUS_OK;
}

static enum status begin_file(struct binary *binary, const struct binary_layout *layout,
                              const char *name, uint64_t size, struct error *error)
{
    const char *base = binary_base(name);
    size_t len = strlen(base);
    len -= len > 4 && strcmp(base + len - 4, ".bin") == 0 ? 4 : 0;
    snprintf(binary->file, sizeof binary->file, "%.*s", (int)len, base);
    binary->first = binary->first ? binary->first : layout;
    if (layout != binary->first) {
        return error_set(
            error, STATUS_UNSUPPORTED, binary->path, NOWHERE, NOWHERE,
            "%.200s is of another data set (%s) than the files before it (%s): convert "
            "them apart",
            base, layout->name, binary->first->name);
    }
    if (!binary_fits(layout, size)) {
        return error_set(error, STATUS_TRUNCATED, binary->path, NOWHERE, NOWHERE,
                         "%s.bin is %" PRIu64 " bytes long, not a multiple of %u", binary->file,
                         size, layout->record);
    }
    binary->layout = layout;
    binary->records = size / layout->record;
    binary->number = 0;
    return find_labels(binary, binary_file_named(name), error);
}

// The next file of images; what else there is, is given out to be counted (*other).
static enum status next_file(struct binary *binary, struct source_entry *entry, bool *other,
                             struct error *error)
{
    *other = false;
    if (binary->outer == NULL) {
        struct stat about;
        if (binary->file[0] != '\0') {
            return STATUS_END;
        }
        if (fstat(binary->fd, &about) != 0) {
            return error_errno(error, errno, binary->path, NOWHERE, "look at");
        }
        return begin_file(binary, binary->first, binary->path, (uint64_t)about.st_size, error);
    }
    enum status status = binary->outer->next(binary->members, entry, error);
    if (status != STATUS_OK) {
        return status;
    }
    const char *name = entry->name ? entry->name : "";
    const struct binary_file *known = binary_file_named(name);
    if (entry->type == SOURCE_ENTRY_FILE && known != NULL) {
        return begin_file(binary, known->layout, name, entry->size, error);
    }
    *other = true;
    entry->name = "."; // hidden: passed over and counted
    return STATUS_OK;
}

// --- records -------------------------------------------------------------------------------------

static enum status load_record(struct binary *binary, struct error *error)
{
    size_t size = binary->layout->record, got = 0;
    if (binary->outer == NULL) {
        return file_read_at(binary->fd, binary->path, binary->record, size, binary->number * size,
                            error);
    }
    enum status status = binary->outer->read(binary->members, binary->record, size, &got, error);
    if (status == STATUS_OK && got < size) {
        status = error_set(error, STATUS_TRUNCATED, binary->path, NOWHERE, binary->number,
                           "%s.bin ends early or changed while it was read", binary->file);
    }
    return status;
}

static enum status read_label(const struct binary *binary, int32_t *label, struct error *error)
{
    const struct binary_layout *layout = binary->layout;
    *label = DATASET_NO_LABEL;
    if (layout->header == 0 && binary->labels == NULL) {
        return STATUS_OK;
    }
    int number = layout->header > 0 ? binary->record[layout->label_at]
                                    : binary->labels->bytes[binary->number] - 1;
    if (number < 0 || number >= (int)layout->classes) {
        return error_set(error, STATUS_CORRUPT, binary->path, NOWHERE, binary->number,
                         "label %d; the classes are 0 to %u", number, layout->classes - 1);
    }
    *label = number;
    return STATUS_OK;
}

static enum status take_record(struct binary *binary, struct error *error)
{
    const struct binary_layout *layout = binary->layout;
    struct source_range pixels;
    enum status status = load_record(binary, error);
    if (status != STATUS_OK) {
        return status;
    }
    source_range_memory(&pixels, binary->record + layout->header, layout->record - layout->header,
                        binary->path);
    return source_content_pixels(&binary->content, &pixels, layout->pixels, layout->side,
                                 layout->side, error);
}

static enum status binary_next(void *state, struct source_entry *entry, struct error *error)
{
    struct binary *binary = state;
    while (binary->layout == NULL || binary->number == binary->records) {
        bool other;
        enum status status = next_file(binary, entry, &other, error);
        if (status != STATUS_OK || other) {
            return status;
        }
    }
    struct error why;
    enum status status = take_record(binary, error);
    if (status != STATUS_OK) {
        return status;
    }
    snprintf(binary->name, sizeof binary->name, "%s/%05" PRIu64 ".png", binary->file,
             binary->number);
    *entry = (struct source_entry){
        .name = binary->name, .type = SOURCE_ENTRY_IMAGE, .size = SOURCE_SIZE_UNKNOWN};
    status = read_label(binary, &entry->label, &why);
    binary->number++;
    return source_content_judge(&binary->content, status, &why, entry, error);
}

static enum status binary_read(void *state, void *buf, size_t len, size_t *got, struct error *error)
{
    return source_content_read(&((struct binary *)state)->content, buf, len, got, error);
}

// --- the kind ------------------------------------------------------------------------------------

static const char *const *binary_classes(void *state, uint32_t *count)
{
    const struct binary *binary = state;
    *count = binary->classes.count;
    return binary->classes.names;
}

static const char *binary_describe(void *state)
{
    const struct binary_layout *first = ((struct binary *)state)->first;
    return first != NULL ? first->name : NULL;
}

static enum status binary_recognise(const char *path, bool *mine, struct error *error)
{
    struct stat about;
    *mine = false;
    if (stat(path, &about) != 0) {
        return STATUS_OK;
    }
    if (S_ISDIR(about.st_mode)) {
        *mine = binary_in_folder(path) || binary_has_pickles(path);
        return STATUS_OK;
    }
    *mine = binary_layout_of(path) != NULL;
    return *mine ? STATUS_OK : binary_in_tar(path, mine, error);
}

const struct source_kind source_binary = {.name = "CIFAR and STL-10 binaries",
                                          .recognise = binary_recognise,
                                          .open = binary_open,
                                          .next = binary_next,
                                          .read = binary_read,
                                          .classes = binary_classes,
                                          .describe = binary_describe,
                                          .close = binary_close};
