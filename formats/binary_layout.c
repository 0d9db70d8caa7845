// Knowing CIFAR's and STL-10's files by name, size and labels.
#include "formats/binary_layout.h"
#include "formats/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SNIFFED_FILES  8    // of an archive
#define SNIFFED_LABELS 256u // of a file
#define NAMELESS_MIN   50u  // records of a file that is known by its labels alone

static const struct binary_layout cifar_10 = {
    "CIFAR-10", 3073, 1, 0, 10, 32, SOURCE_PIXELS_RGB_PLANES, "batches.meta.txt"};
static const struct binary_layout cifar_100 = {
    "CIFAR-100, fine labels", 3074, 2, 1, 100, 32, SOURCE_PIXELS_RGB_PLANES,
    "fine_label_names.txt"};
static const struct binary_layout stl_10 = {
    "STL-10", 27648, 0, 0, 10, 96, SOURCE_PIXELS_RGB_COLUMNS, "class_names.txt"};
static const struct binary_layout *const layouts[] = {&cifar_10, &cifar_100, &stl_10};
#define LAYOUTS (sizeof layouts / sizeof *layouts)

static const struct binary_file files[] = {
    {"data_batch_", ".bin", &cifar_10, NULL},    {"test_batch.bin", "", &cifar_10, NULL},
    {"train.bin", "", &cifar_100, NULL},         {"test.bin", "", &cifar_100, NULL},
    {"train_X.bin", "", &stl_10, "train_y.bin"}, {"test_X.bin", "", &stl_10, "test_y.bin"},
    {"unlabeled_X.bin", "", &stl_10, NULL},
};
#define FILES (sizeof files / sizeof *files)

// --- names and sizes -----------------------------------------------------------------------------

const char *binary_base(const char *name)
{
    const char *slash = strrchr(name, '/');
    return slash ? slash + 1 : name;
}

const struct binary_file *binary_file_named(const char *name)
{
    const char *base = binary_base(name);
    size_t len = strlen(base);
    for (size_t i = 0; i < FILES; i++) {
        size_t start = strlen(files[i].start), end = strlen(files[i].end);
        if (len >= start + end && strncmp(base, files[i].start, start) == 0 &&
            (end > 0 ? strcmp(base + len - end, files[i].end) == 0 : len == start)) {
            return &files[i];
        }
    }
    return NULL;
}

bool binary_fits(const struct binary_layout *layout, uint64_t size)
{
    return size > 0 && size % layout->record == 0;
}

bool binary_is_pickle(const char *name)
{
    return strstr(name, "cifar-10-batches-py/") != NULL ||
           strstr(name, "cifar-100-python/") != NULL;
}

bool binary_has_pickles(const char *path)
{
    char meta[600];
    snprintf(meta, sizeof meta, "%s/batches.meta", path);
    return file_exists(meta);
}

// --- labels --------------------------------------------------------------------------------------

static bool labels_fit(const struct binary_layout *layout, const uint8_t *header)
{
    bool coarse = layout->label_at == 0 || header[0] < 20;
    return layout->header == 0 || (coarse && header[layout->label_at] < layout->classes);
}

// Labels here and there in the file are in range; `varied`: and not all the same.
static bool labels_plausible(int fd, const struct binary_layout *layout, uint64_t size, bool varied)
{
    uint64_t records = size / layout->record;
    uint64_t step = records / SNIFFED_LABELS + 1;
    uint8_t header[BINARY_HEADER_MAX] = {0}, first = 0;
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

const struct binary_layout *binary_layout_of(const char *path)
{
    struct stat about;
    const struct binary_file *known = binary_file_named(path);
    const struct binary_layout *found = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0 && fstat(fd, &about) == 0 && S_ISREG(about.st_mode)) {
        uint64_t size = (uint64_t)about.st_size;
        for (size_t i = 0; i < LAYOUTS && found == NULL; i++) {
            const struct binary_layout *layout = layouts[i];
            bool named = known != NULL && known->layout == layout;
            bool known_by_labels = layout->header > 0 && size / layout->record >= NAMELESS_MIN;
            if (binary_fits(layout, size) && (named || known_by_labels) &&
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

// --- folders and archives ------------------------------------------------------------------------

bool binary_in_folder(const char *path)
{
    static const char *const names[] = {"data_batch_1.bin", "test_batch.bin", "train.bin",
                                        "test.bin",         "train_X.bin",    "test_X.bin",
                                        "unlabeled_X.bin"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char file[600];
        snprintf(file, sizeof file, "%s/%s", path, names[i]);
        if (binary_layout_of(file) != NULL) {
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
        if (entry.name != NULL && binary_is_pickle(entry.name)) {
            return true;
        }
        const struct binary_file *known = entry.name ? binary_file_named(entry.name) : NULL;
        if (known == NULL || entry.type != SOURCE_ENTRY_FILE ||
            !binary_fits(known->layout, entry.size)) {
            continue;
        }
        uint8_t header[BINARY_HEADER_MAX] = {0};
        size_t got, want = known->layout->header;
        return source_tar.read(tar, header, want, &got, NULL) == STATUS_OK && got == want &&
               labels_fit(known->layout, header);
    }
    return false;
}

enum status binary_in_tar(const char *path, bool *found, struct error *error)
{
    void *tar;
    enum status status = source_tar.open(&tar, path, error);
    *found = status == STATUS_OK && tar_has_files(tar);
    source_tar.close(&tar);
    return status == STATUS_NO_MEMORY ? status : STATUS_OK;
}
