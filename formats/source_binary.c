// The binary files of CIFAR-10, CIFAR-100 and STL-10: records of raw pixels without any header.
//
//     CIFAR-10    data_batch_1.bin … test_batch.bin      label, then 32 x 32 pixels: 3,073 bytes
//     CIFAR-100   train.bin test.bin                     coarse label, fine label, pixels: 3,074
//     STL-10      train_X.bin test_X.bin unlabeled_X.bin 96 x 96 pixels: 27,648 bytes; labels from
//                 train_y.bin test_y.bin                 1, a byte each, beside them
//
// Pixels are a plane of red, one of green, one of blue; CIFAR's row by row, STL-10's column by
// column (https://www.cs.toronto.edu/~kriz/cifar.html, https://cs.stanford.edu/~acoates/stl10). The
// names of the classes are in batches.meta.txt, fine_label_names.txt and class_names.txt beside
// them. CIFAR-100's fine labels are taken.
//
// A source is one such file, a folder of them, or the official archive (cifar-10-binary.tar.gz …).
// There is no mark to know them by: CIFAR is known by its size and by labels that are all in range,
// under any name when there are enough of them, else under its own; STL-10 by its size and name.
// Images become PNG files, named by file and place: data_batch_1/00017.png.
#include "formats/dataset.h"
#include "formats/file.h"
#include "formats/image.h"
#include "formats/source_tar.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_MAX     27648u
#define SIDE_BYTES     (1u << 20) // of a file beside the images
#define CLASSES_MAX    100
#define SNIFFED_FILES  8    // of an archive
#define SNIFFED_LABELS 256u // of a file
#define NAMELESS_MIN   50u  // records of a file that is known by its labels alone

enum { CIFAR10, CIFAR100, STL10, LAYOUTS };

static const struct layout {
    const char *name;
    uint32_t record, header; // bytes
    uint32_t label_at;       // in the header
    uint32_t classes, side;
    bool columns; // pixels go down columns first
    const char *class_names;
} layouts[LAYOUTS] = {
    [CIFAR10] = {"CIFAR-10", 3073, 1, 0, 10, 32, false, "batches.meta.txt"},
    [CIFAR100] = {"CIFAR-100", 3074, 2, 1, 100, 32, false, "fine_label_names.txt"},
    [STL10] = {"STL-10", 27648, 0, 0, 10, 96, true, "class_names.txt"},
};

// A file of images by its name. `labels`: the file beside it that has them.
static const struct known_file {
    const char *start, *end; // of the name
    int layout;
    const char *labels;
} known_files[] = {
    {"data_batch_", ".bin", CIFAR10, NULL},    {"test_batch.bin", "", CIFAR10, NULL},
    {"train.bin", "", CIFAR100, NULL},         {"test.bin", "", CIFAR100, NULL},
    {"train_X.bin", "", STL10, "train_y.bin"}, {"test_X.bin", "", STL10, "test_y.bin"},
    {"unlabeled_X.bin", "", STL10, NULL},
};
#define KNOWN_FILES (sizeof known_files / sizeof *known_files)

// What is read from beside the images.
static const char *const side_names[] = {"batches.meta.txt", "fine_label_names.txt",
                                         "class_names.txt", "train_y.bin", "test_y.bin"};
#define SIDES (sizeof side_names / sizeof *side_names)

struct side {
    uint8_t *bytes; // NULL: it is not there; else with a NUL behind
    size_t len;
};

struct binary {
    char path[512];
    const struct source_kind *outer; // NULL: the path is one file of images
    void *members;
    int fd; // of the one file
    struct side sides[SIDES];
    const struct layout *first; // of the first file
    const char *classes[CLASSES_MAX];

    // The current file and record.
    const struct layout *layout; // NULL: between files
    const struct side *labels;
    char file[256]; // its name without ".bin"
    uint64_t records, number;
    uint8_t record[RECORD_MAX];
    char name[300];
    char fault[100]; // why the record is bad, or ""
    uint8_t *png;
    size_t png_len, at;
};

// --- which files ---------------------------------------------------------------------------------

static const char *base_of(const char *name)
{
    const char *slash = strrchr(name, '/');
    return slash ? slash + 1 : name;
}

static const struct known_file *known_file(const char *name)
{
    const char *base = base_of(name);
    size_t len = strlen(base);
    for (size_t i = 0; i < KNOWN_FILES; i++) {
        size_t start = strlen(known_files[i].start), end = strlen(known_files[i].end);
        if (len >= start + end && strncmp(base, known_files[i].start, start) == 0 &&
            (end > 0 ? strcmp(base + len - end, known_files[i].end) == 0 : len == start)) {
            return &known_files[i];
        }
    }
    return NULL;
}

static int side_of(const char *name)
{
    for (size_t i = 0; i < SIDES; i++) {
        if (strcmp(base_of(name), side_names[i]) == 0) {
            return (int)i;
        }
    }
    return -1;
}

// CIFAR's other form: data_batch_1 and its like in the folders of the Python version.
static bool is_pickle(const char *name)
{
    return strstr(name, "cifar-10-batches-py/") != NULL ||
           strstr(name, "cifar-100-python/") != NULL;
}

static bool fits(const struct layout *layout, uint64_t size)
{
    return size > 0 && size % layout->record == 0;
}

static bool labels_fit(const struct layout *layout, const uint8_t *record)
{
    bool coarse = layout->label_at == 0 || record[0] < 20;
    return layout->header == 0 || (coarse && record[layout->label_at] < layout->classes);
}

// Labels here and there in the file are in range; `varied`: and not all the same.
static bool labels_plausible(int fd, const struct layout *layout, uint64_t size, bool varied)
{
    uint64_t records = size / layout->record;
    uint64_t step = records / SNIFFED_LABELS + 1;
    uint8_t header[2] = {0}, first = 0;
    bool differ = false;
    for (uint64_t i = 0; i < records && layout->header > 0; i += step) {
        if (pread(fd, header, layout->header, (off_t)(i * layout->record)) !=
                (ssize_t)layout->header ||
            !labels_fit(layout, header)) {
            return false;
        }
        first = i == 0 ? header[layout->label_at] : first;
        differ = differ || header[layout->label_at] != first;
    }
    return differ || !varied;
}

// The layout of a file of images, or NULL.
static const struct layout *layout_of_file(const char *path)
{
    struct stat about;
    const struct known_file *known = known_file(path);
    const struct layout *found = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0 && fstat(fd, &about) == 0 && S_ISREG(about.st_mode)) {
        uint64_t size = (uint64_t)about.st_size;
        for (int i = 0; i < LAYOUTS && found == NULL; i++) {
            const struct layout *layout = &layouts[i];
            bool named = known != NULL && known->layout == i;
            bool known_by_labels = layout->header > 0 && size / layout->record >= NAMELESS_MIN;
            if (fits(layout, size) && (named || known_by_labels) &&
                labels_plausible(fd, layout, size, !named)) {
                found = layout;
            }
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return found;
}

// --- files beside the images ---------------------------------------------------------------------

static enum status keep_side(struct binary *binary, int side, uint64_t size, struct error *error)
{
    struct side *to = &binary->sides[side];
    if (size > SIDE_BYTES) {
        return error_set(error, STATUS_LIMIT, binary->path, NOWHERE, NOWHERE,
                         "%s is longer than %u bytes", side_names[side], SIDE_BYTES);
    }
    if (to->bytes != NULL) {
        return error_set(error, STATUS_CORRUPT, binary->path, NOWHERE, NOWHERE, "%s is there twice",
                         side_names[side]);
    }
    to->bytes = malloc((size_t)size + 1);
    if (to->bytes == NULL) {
        return error_errno(error, ENOMEM, binary->path, NOWHERE, "allocate memory to read");
    }
    enum status status =
        binary->outer->read(binary->members, to->bytes, (size_t)size, &to->len, error);
    to->bytes[to->len] = 0;
    return status;
}

static enum status refuse_pickles(const struct binary *binary, struct error *error)
{
    return error_set(
        error, STATUS_UNSUPPORTED, binary->path, NOWHERE, NOWHERE,
        "the Python version of CIFAR, whose pickles are programs; take the binary "
        "version (cifar-10-binary.tar.gz, cifar-100-binary.tar.gz) from the same page");
}

// Reads an archive or a folder for them until all that its layout has are there: labels may stand
// behind the images.
static enum status find_sides(struct binary *binary, struct error *error)
{
    enum status status = STATUS_OK;
    while (status == STATUS_OK) {
        struct source_entry entry = {0};
        status = binary->outer->next(binary->members, &entry, error);
        if (status != STATUS_OK || entry.type == SOURCE_ENTRY_LINK || entry.name == NULL) {
            continue;
        }
        if (is_pickle(entry.name)) {
            return refuse_pickles(binary, error);
        }
        const struct known_file *known = known_file(entry.name);
        if (known != NULL && binary->first == NULL) {
            binary->first = &layouts[known->layout];
        }
        int side = side_of(entry.name);
        if (side >= 0) {
            status = keep_side(binary, side, entry.size, error);
        }
        const struct layout *first = binary->first;
        if (first != NULL && first->header > 0 &&
            binary->sides[side_of(first->class_names)].bytes != NULL) {
            break;
        }
    }
    return status == STATUS_END ? STATUS_OK : status;
}

static enum status read_sides_beside(struct binary *binary, struct error *error)
{
    size_t folder = (size_t)(base_of(binary->path) - binary->path);
    for (size_t i = 0; i < SIDES; i++) {
        char path[sizeof binary->path + 32];
        struct side *side = &binary->sides[i];
        snprintf(path, sizeof path, "%.*s%s", (int)folder, binary->path, side_names[i]);
        enum status status = STATUS_OK;
        if (file_exists(path)) {
            status = file_read_all(path, SIDE_BYTES, &side->bytes, &side->len, error);
        }
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

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
        for (size_t i = 0; i < SIDES; i++) {
            free(binary->sides[i].bytes);
        }
        free(binary->png);
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
    binary->first = layout_of_file(binary->path);
    if (binary->first == NULL) {
        return error_set(error, STATUS_CORRUPT, binary->path, NOWHERE, NOWHERE,
                         "its size or its labels are not those of CIFAR or STL-10 any more");
    }
    return read_sides_beside(binary, error);
}

static bool folder_has_pickles(const char *path)
{
    char meta[600];
    snprintf(meta, sizeof meta, "%s/batches.meta", path);
    return file_exists(meta);
}

static enum status open_members(struct binary *binary, struct error *error)
{
    enum status status = binary->outer->open(&binary->members, binary->path, error);
    if (status == STATUS_OK) {
        status = folder_has_pickles(binary->path) ? refuse_pickles(binary, error)
                                                  : find_sides(binary, error);
    }
    if (status == STATUS_OK) { // and from the front again
        binary->outer->close(&binary->members);
        status = binary->outer->open(&binary->members, binary->path, error);
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
    } else if (layout_of_file(path) == NULL) {
        binary->outer = &source_tar;
    }
    return binary->outer ? open_members(binary, error) : open_file(binary, error);
}

// --- records -------------------------------------------------------------------------------------

static enum status begin_file(struct binary *binary, const struct layout *layout, const char *name,
                              uint64_t size, struct error *error)
{
    const struct known_file *known = known_file(name);
    const char *base = base_of(name);
    size_t len = strlen(base);
    len -= len > 4 && strcmp(base + len - 4, ".bin") == 0 ? 4 : 0;
    snprintf(binary->file, sizeof binary->file, "%.*s", (int)len, base);
    if (!fits(layout, size)) {
        return error_set(error, STATUS_TRUNCATED, binary->path, NOWHERE, NOWHERE,
                         "%s.bin is %" PRIu64 " bytes long, not a multiple of %u", binary->file,
                         size, layout->record);
    }
    binary->layout = layout;
    binary->records = size / layout->record;
    binary->number = 0;
    binary->labels = NULL;
    if (known != NULL && known->labels != NULL) {
        const struct side *side = &binary->sides[side_of(known->labels)];
        binary->labels = side->bytes != NULL ? side : NULL;
        if (side->bytes != NULL && side->len != binary->records) {
            return error_set(error, STATUS_CORRUPT, binary->path, NOWHERE, NOWHERE,
                             "%s has %zu labels for %" PRIu64 " images", known->labels, side->len,
                             binary->records);
        }
    }
    return STATUS_OK;
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
    const struct known_file *known = known_file(name);
    if (entry->type == SOURCE_ENTRY_FILE && known != NULL) {
        return begin_file(binary, &layouts[known->layout], name, entry->size, error);
    }
    *other = true;
    entry->name = "."; // hidden: passed over and counted
    return STATUS_OK;
}

static enum status read_record(struct binary *binary, struct error *error)
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

static int32_t label_of(struct binary *binary)
{
    const struct layout *layout = binary->layout;
    int label = DATASET_NO_LABEL;
    binary->fault[0] = '\0';
    if (layout->header > 0) {
        label = binary->record[layout->label_at];
    } else if (binary->labels != NULL) {
        label = binary->labels->bytes[binary->number] - 1;
    } else {
        return DATASET_NO_LABEL;
    }
    if (label < 0 || label >= (int)layout->classes) {
        snprintf(binary->fault, sizeof binary->fault, "label %d, but %s has classes 0 to %u", label,
                 layout->name, layout->classes - 1);
        return DATASET_NO_LABEL;
    }
    return label;
}

static enum status binary_next(void *state, struct source_entry *entry, struct error *error)
{
    struct binary *binary = state;
    free(binary->png);
    binary->png = NULL;
    while (binary->layout == NULL || binary->number == binary->records) {
        bool other;
        enum status status = next_file(binary, entry, &other, error);
        if (status != STATUS_OK || other) {
            return status;
        }
    }
    enum status status = read_record(binary, error);
    if (status != STATUS_OK) {
        return status;
    }
    snprintf(binary->name, sizeof binary->name, "%s/%05" PRIu64 ".png", binary->file,
             binary->number);
    *entry = (struct source_entry){.name = binary->name,
                                   .type = SOURCE_ENTRY_IMAGE,
                                   .size = SOURCE_SIZE_UNKNOWN,
                                   .label = label_of(binary)};
    binary->number++;
    return STATUS_OK;
}

// --- pixels --------------------------------------------------------------------------------------

static void arrange(const struct layout *layout, const uint8_t *planes, uint8_t *rgb)
{
    size_t side = layout->side;
    for (size_t y = 0; y < side; y++) {
        for (size_t x = 0; x < side; x++) {
            size_t at = layout->columns ? x * side + y : y * side + x;
            for (size_t channel = 0; channel < 3; channel++) {
                *rgb++ = planes[channel * side * side + at];
            }
        }
    }
}

static enum status encode(struct binary *binary, struct error *error)
{
    const struct layout *layout = binary->layout;
    struct image image = {0};
    enum status status = image_reserve(&image, layout->side, layout->side, error);
    if (status == STATUS_OK) {
        arrange(layout, binary->record + layout->header, image.pixels);
        status = image_encode_png(&image, &binary->png, &binary->png_len, error);
    }
    image_free(&image);
    binary->at = 0;
    return status;
}

static enum status binary_read(void *state, void *buf, size_t len, size_t *got, struct error *error)
{
    struct binary *binary = state;
    *got = 0;
    if (binary->fault[0] != '\0') {
        return error_set(error, STATUS_CORRUPT, binary->path, NOWHERE, NOWHERE, "%s",
                         binary->fault);
    }
    enum status status = binary->png == NULL ? encode(binary, error) : STATUS_OK;
    if (status != STATUS_OK) {
        return status;
    }
    size_t rest = binary->png_len - binary->at;
    *got = rest < len ? rest : len;
    memcpy(buf, binary->png + binary->at, *got);
    binary->at += *got;
    return STATUS_OK;
}

// --- classes -------------------------------------------------------------------------------------

// One name a line; NULL unless there are as many as classes.
static const char *const *binary_classes(void *state, uint32_t *count)
{
    struct binary *binary = state;
    const struct layout *layout = binary->first;
    struct side *side = layout ? &binary->sides[side_of(layout->class_names)] : NULL;
    *count = 0;
    if (side == NULL || side->bytes == NULL) {
        return NULL;
    }
    if (binary->classes[0] == NULL) {
        char *rest = NULL, *text = (char *)side->bytes;
        for (char *line = strtok_r(text, "\r\n", &rest); line != NULL && *count < CLASSES_MAX;
             line = strtok_r(NULL, "\r\n", &rest)) {
            binary->classes[(*count)++] = line;
        }
        if (*count != layout->classes) {
            binary->classes[0] = NULL;
            free(side->bytes);
            side->bytes = NULL;
            *count = 0;
            return NULL;
        }
    }
    *count = layout->classes;
    return binary->classes;
}

static const char *binary_describe(void *state)
{
    const struct layout *layout = ((struct binary *)state)->first;
    return layout == &layouts[CIFAR100] ? "CIFAR-100, fine labels" : layout ? layout->name : NULL;
}

// --- recognising ---------------------------------------------------------------------------------

static bool folder_has_files(const char *path)
{
    static const char *const names[] = {"data_batch_1.bin", "test_batch.bin", "train.bin",
                                        "test.bin",         "train_X.bin",    "test_X.bin",
                                        "unlabeled_X.bin"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char file[600];
        snprintf(file, sizeof file, "%s/%s", path, names[i]);
        if (layout_of_file(file) != NULL) {
            return true;
        }
    }
    return false;
}

// Whether one of a tar's first files is known by its name, its size and its first label.
static bool tar_has_files(void *tar)
{
    for (int i = 0; i < SNIFFED_FILES; i++) {
        struct source_entry entry = {0};
        if (source_tar.next(tar, &entry, NULL) != STATUS_OK) {
            return false;
        }
        if (entry.name != NULL && is_pickle(entry.name)) {
            return true;
        }
        const struct known_file *known = entry.name ? known_file(entry.name) : NULL;
        if (known == NULL || entry.type != SOURCE_ENTRY_FILE ||
            !fits(&layouts[known->layout], entry.size)) {
            continue;
        }
        uint8_t header[2] = {0};
        size_t got, want = layouts[known->layout].header;
        return source_tar.read(tar, header, want, &got, NULL) == STATUS_OK && got == want &&
               labels_fit(&layouts[known->layout], header);
    }
    return false;
}

static enum status recognise_tar(const char *path, bool *mine, struct error *error)
{
    enum status status = source_tar.recognise(path, mine, error);
    if (status != STATUS_OK || !*mine) {
        return status;
    }
    void *tar;
    *mine = source_tar.open(&tar, path, NULL) == STATUS_OK && tar_has_files(tar);
    source_tar.close(&tar);
    return STATUS_OK;
}

static enum status binary_recognise(const char *path, bool *mine, struct error *error)
{
    struct stat about;
    *mine = false;
    if (stat(path, &about) != 0) {
        return STATUS_OK;
    }
    if (S_ISDIR(about.st_mode)) {
        *mine = folder_has_files(path) || folder_has_pickles(path);
        return STATUS_OK;
    }
    *mine = layout_of_file(path) != NULL;
    return *mine ? STATUS_OK : recognise_tar(path, mine, error);
}

const struct source_kind source_binary = {.name = "CIFAR and STL-10 binaries",
                                          .recognise = binary_recognise,
                                          .open = binary_open,
                                          .next = binary_next,
                                          .read = binary_read,
                                          .classes = binary_classes,
                                          .describe = binary_describe,
                                          .close = binary_close};
