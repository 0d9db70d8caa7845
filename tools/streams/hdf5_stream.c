// Reads an HDF5 file of images for `byol convert` and writes what formats/source_stream.h describes
// to stdout. A program of its own, because a hostile file can crash libhdf5: then this process ends
// and byol says so. It limits its memory and its time without a result, writes no files, follows
// hard links only (soft and external ones lead out of the file), reads no external or virtual
// storage and loads no plugins.
//
// Layouts: a 1-D dataset of bytes is an image file, named by its path, with its group as class
// (solo-learn, scripts/utils/convert_imgfolder_to_h5.py); a 1-D dataset of variable-length bytes is
// as many image files; a uint8 dataset [N, H, W, 3], [N, 3, H, W], [N, H, W, 1] or [N, H, W] is as
// many pictures. The last two take labels from an integer dataset of N elements in their group.
#include <hdf5.h>

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/time.h>

#define FRAME_FILE       1u
#define FRAME_RGB        2u
#define FRAME_GREY       3u
#define FRAME_LAYOUT     5u
#define FRAME_END        6u
#define FRAME_FAILURE    7u
#define FRAME_BAD        8u
#define NUMBERED         1u
#define LEFT_OUT         2u
#define LABEL_OF_NAME    (-2)
#define NO_LABEL         (-1)
#define CODE_CORRUPT     20
#define CODE_UNSUPPORTED 22
#define NAME_BYTES       4096u
#define DEPTH            16
#define MEMORY_BYTES     ((rlim_t)4 << 30)
#define IMAGE_BYTES      ((hsize_t)32 << 20)
#define PIXEL_BYTES      ((hsize_t)192 << 20)
#define LOOK_BYTES       ((hsize_t)8) // that tell an image
#define SIDE             65500u
#define IDLE_SECONDS     300
#define ELEMENTS         ((hsize_t)1 << 32)
#define BLOCK_BYTES      ((hsize_t)8 << 20) // of pixels read at a time
// Chunks up to this many bytes are unpacked once, not anew for each block in them.
#define CACHE_BYTES ((size_t)256 << 20)
#define CACHE_SLOTS 10007 // a prime

// --- what is written ---------------------------------------------------------------------------

static void put32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        to[i] = (uint8_t)(value >> 8 * i);
    }
}

static int names_only; // images' bytes are left out, and not read where that can be

struct frame {
    uint32_t what, flags;
    int32_t label;
    const char *name;
    uint32_t width, height;
    const void *payload;
    uint64_t len;
};

// Ends this process when it computes for minutes without writing anything.
static void watch(void)
{
    const struct itimerval patience = {.it_value = {.tv_sec = IDLE_SECONDS}};
    setitimer(ITIMER_PROF, &patience, NULL);
}

static void put(const struct frame *frame)
{
    uint8_t head[32];
    size_t name_len = frame->name ? strnlen(frame->name, NAME_BYTES) : 0;
    int left_out = names_only && frame->what <= FRAME_GREY;
    put32(head, frame->what);
    put32(head + 4, frame->flags | (left_out ? LEFT_OUT : 0));
    put32(head + 8, (uint32_t)frame->label);
    put32(head + 12, (uint32_t)name_len);
    put32(head + 16, frame->width);
    put32(head + 20, frame->height);
    put32(head + 24, (uint32_t)frame->len);
    put32(head + 28, (uint32_t)(frame->len >> 32));
    if (fwrite(head, sizeof head, 1, stdout) != 1 ||
        (name_len > 0 && fwrite(frame->name, name_len, 1, stdout) != 1) ||
        (frame->len > 0 && !left_out && fwrite(frame->payload, frame->len, 1, stdout) != 1)) {
        exit(1); // nobody listens
    }
    watch();
}

__attribute__((format(printf, 2, 3), noreturn)) static void refuse(int code, const char *format,
                                                                   ...)
{
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    put(&(struct frame){.what = FRAME_FAILURE, .label = code, .name = text});
    fflush(stdout);
    exit(1);
}

static void *reserve(hsize_t bytes)
{
    void *memory = malloc(bytes > 0 ? (size_t)bytes : 1);
    if (memory == NULL) {
        refuse(CODE_UNSUPPORTED, "no memory for %llu bytes", (unsigned long long)bytes);
    }
    return memory;
}

// --- what a dataset is -------------------------------------------------------------------------

struct shape {
    int dims;
    hsize_t sizes[8], elements;
    H5T_class_t class;
    size_t width; // bytes of an element
};

struct walk {
    char path[NAME_BYTES]; // of the current object, without a leading slash
    int depth;
    uint64_t files, arrays, passed; // datasets that are neither
};

// False for what is not read: other numbers of dimensions, storage outside the file.
static int look(hid_t dataset, struct shape *shape)
{
    hid_t space = H5Dget_space(dataset), type = H5Dget_type(dataset),
          list = H5Dget_create_plist(dataset);
    int good = space >= 0 && type >= 0 && list >= 0 && H5Pget_external_count(list) == 0 &&
               H5Pget_layout(list) != H5D_VIRTUAL && H5Sis_simple(space) > 0;
    shape->dims = good ? H5Sget_simple_extent_ndims(space) : -1;
    good = good && shape->dims >= 1 && shape->dims <= 8;
    if (good) {
        H5Sget_simple_extent_dims(space, shape->sizes, NULL);
        shape->class = H5Tget_class(type);
        shape->width = H5Tget_size(type);
        shape->elements = 1;
        for (int i = 0; i < shape->dims && good; i++) {
            good = shape->sizes[i] <= ELEMENTS &&
                   (shape->sizes[i] == 0 || shape->elements <= UINT64_MAX / 16 / shape->sizes[i]);
            shape->elements *= good ? shape->sizes[i] : 1;
        }
    }
    H5Pclose(list);
    H5Tclose(type);
    H5Sclose(space);
    return good;
}

static int is_bytes(const struct shape *shape)
{
    return shape->class == H5T_INTEGER && shape->width == 1;
}

// Whether its elements are byte strings of any length.
static int is_ragged(hid_t dataset, const struct shape *shape)
{
    if (shape->class != H5T_VLEN || shape->dims != 1) {
        return 0;
    }
    hid_t type = H5Dget_type(dataset), of = H5Tget_super(type);
    int yes = H5Tget_class(of) == H5T_INTEGER && H5Tget_size(of) == 1;
    H5Tclose(of);
    H5Tclose(type);
    return yes;
}

// Selects `count` entries from `first` on along the first dimension and reads them as `type`.
static void read_rows(hid_t dataset, const struct shape *shape, hsize_t first, hsize_t count,
                      hid_t type, void *to, const char *path)
{
    hsize_t start[8] = {first}, counts[8];
    memcpy(counts, shape->sizes, sizeof counts);
    counts[0] = count;
    hid_t file = H5Dget_space(dataset), memory = H5Screate_simple(shape->dims, counts, NULL);
    herr_t code = H5Sselect_hyperslab(file, H5S_SELECT_SET, start, NULL, counts, NULL);
    if (code >= 0) {
        code = H5Dread(dataset, type, memory, file, H5P_DEFAULT, to);
    }
    H5Sclose(memory);
    H5Sclose(file);
    if (code < 0) {
        refuse(CODE_CORRUPT,
               "libhdf5 cannot read entry %llu of %s: damaged, or of a compression "
               "that it does not know",
               (unsigned long long)first, path);
    }
}

// --- labels ------------------------------------------------------------------------------------

struct label_search {
    hsize_t count; // wanted
    char name[256];
    int found, named;
};

static int is_label_name(const char *name)
{
    static const char *const names[] = {"label", "labels",  "y",   "target",      "targets",
                                        "class", "classes", "cls", "fine_labels", "ans"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcasecmp(name, names[i]) == 0) {
            return 1;
        }
    }
    return 0;
}

static herr_t consider_label(hid_t group, const char *name, const H5L_info_t *link, void *context)
{
    struct label_search *search = context;
    if (link->type != H5L_TYPE_HARD || strlen(name) >= sizeof search->name) {
        return 0;
    }
    hid_t object = H5Oopen(group, name, H5P_DEFAULT);
    struct shape shape;
    if (object >= 0 && H5Iget_type(object) == H5I_DATASET && look(object, &shape) &&
        shape.class == H5T_INTEGER && shape.elements == search->count &&
        shape.sizes[0] == search->count && (!search->named || is_label_name(name))) {
        search->found = search->named && is_label_name(name) ? 1 : search->found + 1;
        search->named = is_label_name(name);
        snprintf(search->name, sizeof search->name, "%s", name);
    }
    if (object >= 0) {
        H5Oclose(object);
    }
    return 0;
}

// The labels of `count` pictures, of the group's only fitting dataset or one called so; or NULL.
static int64_t *read_labels(hid_t group, hsize_t count, char *name, size_t size)
{
    struct label_search search = {.count = count};
    H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, NULL, consider_label, &search);
    if (search.found == 0 || (search.found > 1 && !search.named)) {
        return NULL;
    }
    struct shape shape;
    hid_t dataset = H5Dopen2(group, search.name, H5P_DEFAULT);
    int64_t *labels = reserve(count * sizeof *labels);
    if (dataset < 0 || !look(dataset, &shape) || shape.elements != count) {
        refuse(CODE_CORRUPT, "libhdf5 cannot open %s again", search.name);
    }
    read_rows(dataset, &shape, 0, shape.sizes[0], H5T_NATIVE_INT64, labels, search.name);
    H5Dclose(dataset);
    snprintf(name, size, "%s", search.name);
    return labels;
}

static int32_t label_of(const int64_t *labels, hsize_t i)
{
    if (labels == NULL || labels[i] < 0) {
        return NO_LABEL;
    }
    return labels[i] < INT32_MAX ? (int32_t)labels[i] : INT32_MAX; // which byol says is none
}

static void describe(const char *what, hsize_t count, const char *path, const int64_t *labels,
                     const char *label_name)
{
    char text[700];
    snprintf(text, sizeof text, "%llu %s in '%.300s', %s%s%s", (unsigned long long)count, what,
             path, labels ? "labels in '" : "no labels", labels ? label_name : "",
             labels ? "'" : "");
    put(&(struct frame){.what = FRAME_LAYOUT, .name = text});
}

// --- the three layouts -------------------------------------------------------------------------

static const char *ending_of(const uint8_t *bytes, size_t len)
{
    if (len >= 3 && memcmp(bytes, "\xff\xd8\xff", 3) == 0) {
        return ".jpg";
    }
    return len >= 8 && memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) == 0 ? ".png" : NULL;
}

static void name_number(char name[NAME_BYTES], const struct walk *walk, hsize_t number,
                        const char *ending)
{
    snprintf(name, NAME_BYTES, "%.3900s/%09llu%s", walk->path, (unsigned long long)number, ending);
}

// Returns 0 when the bytes are no image.
static int put_file(hid_t dataset, const struct shape *shape, struct walk *walk)
{
    if (shape->elements < LOOK_BYTES || shape->elements > IMAGE_BYTES) {
        return 0;
    }
    hsize_t count = names_only && shape->elements > LOOK_BYTES ? LOOK_BYTES : shape->elements;
    uint8_t *bytes = reserve(count);
    read_rows(dataset, shape, 0, count, H5T_NATIVE_UINT8, bytes, walk->path);
    int image = ending_of(bytes, (size_t)count) != NULL;
    if (image) {
        if (walk->files++ == 0 && walk->arrays == 0) {
            put(&(struct frame){.what = FRAME_LAYOUT,
                                .name = "a dataset an image, groups are classes"});
        }
        put(&(struct frame){.what = FRAME_FILE,
                            .label = LABEL_OF_NAME,
                            .name = walk->path,
                            .payload = bytes,
                            .len = shape->elements});
    }
    free(bytes);
    return image;
}

static void put_ragged(hid_t group, hid_t dataset, const struct shape *shape, struct walk *walk)
{
    static const char no_image[] = "is neither a JPEG nor a PNG of at most 32 MiB";
    char label_name[256], name[NAME_BYTES];
    int64_t *labels = read_labels(group, shape->elements, label_name, sizeof label_name);
    hid_t type = H5Tvlen_create(H5T_NATIVE_UINT8);
    hsize_t one = 1;
    hid_t space = H5Screate_simple(1, &one, NULL);
    describe("image files", shape->elements, walk->path, labels, label_name);
    for (hsize_t i = 0; i < shape->elements; i++) {
        hvl_t value = {0};
        read_rows(dataset, shape, i, 1, type, &value, walk->path);
        const char *ending = ending_of(value.p, value.len);
        int good = ending != NULL && value.len <= IMAGE_BYTES;
        if (!good && i == 0) { // nor are the others
            refuse(CODE_UNSUPPORTED, "the first entry of %s %s", walk->path, no_image);
        }
        name_number(name, walk, i, good ? ending : "");
        put(&(struct frame){.what = good ? FRAME_FILE : FRAME_BAD,
                            .flags = NUMBERED,
                            .label = label_of(labels, i),
                            .name = name,
                            .payload = good ? value.p : no_image,
                            .len = good ? value.len : strlen(no_image)});
        H5Dvlen_reclaim(type, space, H5P_DEFAULT, &value);
    }
    H5Sclose(space);
    H5Tclose(type);
    free(labels);
    walk->arrays++;
}

struct picture {
    hsize_t width, height, channels, bytes;
    int planes;
};

static int is_pictures(const struct shape *shape, struct picture *picture)
{
    const hsize_t *s = shape->sizes;
    if (!is_bytes(shape) || (shape->dims != 3 && shape->dims != 4)) {
        return 0;
    }
    *picture = (struct picture){.height = s[1], .width = s[2], .channels = 1};
    if (shape->dims == 4 && (s[3] == 3 || s[3] == 1)) {
        picture->channels = s[3];
    } else if (shape->dims == 4 && (s[1] == 3 || s[1] == 1)) {
        *picture =
            (struct picture){.height = s[2], .width = s[3], .channels = s[1], .planes = s[1] == 3};
    } else if (shape->dims == 4) {
        return 0;
    }
    if (picture->width < 1 || picture->height < 1 || picture->width > SIDE ||
        picture->height > SIDE) {
        return 0;
    }
    picture->bytes = picture->width * picture->height * picture->channels;
    return picture->bytes <= PIXEL_BYTES;
}

static void interleave(const struct picture *picture, const uint8_t *from, uint8_t *to)
{
    size_t plane = (size_t)(picture->width * picture->height);
    for (size_t i = 0; i < plane; i++) {
        for (size_t channel = 0; channel < 3; channel++) {
            to[i * 3 + channel] = from[channel * plane + i];
        }
    }
}

static void put_pictures(hid_t group, hid_t dataset, const struct shape *shape,
                         const struct picture *picture, struct walk *walk)
{
    char label_name[256], name[NAME_BYTES];
    int64_t *labels = read_labels(group, shape->sizes[0], label_name, sizeof label_name);
    hsize_t block = BLOCK_BYTES / picture->bytes > 0 ? BLOCK_BYTES / picture->bytes : 1;
    uint8_t *pixels = reserve(block * picture->bytes), *turned = reserve(picture->bytes);
    describe("arrays of pixels", shape->sizes[0], walk->path, labels, label_name);
    for (hsize_t i = 0; i < shape->sizes[0]; i++) {
        if (i % block == 0 && !names_only) {
            hsize_t rest = shape->sizes[0] - i;
            read_rows(dataset, shape, i, rest < block ? rest : block, H5T_NATIVE_UINT8, pixels,
                      walk->path);
        }
        const uint8_t *one = pixels + i % block * picture->bytes;
        if (picture->planes && !names_only) {
            interleave(picture, one, turned);
        }
        name_number(name, walk, i, ".png");
        put(&(struct frame){.what = picture->channels == 3 ? FRAME_RGB : FRAME_GREY,
                            .flags = NUMBERED,
                            .label = label_of(labels, i),
                            .name = name,
                            .width = (uint32_t)picture->width,
                            .height = (uint32_t)picture->height,
                            .payload = picture->planes ? turned : one,
                            .len = picture->bytes});
    }
    free(turned);
    free(pixels);
    free(labels);
    walk->arrays++;
}

// --- the walk ----------------------------------------------------------------------------------

static void read_dataset(hid_t group, hid_t dataset, struct walk *walk)
{
    struct shape shape;
    struct picture picture;
    if (!look(dataset, &shape)) {
        walk->passed++;
    } else if (is_ragged(dataset, &shape)) {
        put_ragged(group, dataset, &shape, walk);
    } else if (is_pictures(&shape, &picture)) {
        put_pictures(group, dataset, &shape, &picture, walk);
    } else if (shape.dims != 1 || !is_bytes(&shape) || !put_file(dataset, &shape, walk)) {
        walk->passed++;
    }
}

static herr_t visit(hid_t group, const char *name, const H5L_info_t *link, void *context)
{
    struct walk *walk = context;
    size_t before = strlen(walk->path);
    if (link->type != H5L_TYPE_HARD) {
        return 0;
    }
    if (walk->depth == DEPTH || before + strlen(name) + 2 > sizeof walk->path) {
        refuse(CODE_UNSUPPORTED, "groups deeper than %d, or names longer than %u bytes", DEPTH,
               NAME_BYTES);
    }
    hid_t object = H5Oopen(group, name, H5P_DEFAULT);
    if (object < 0) {
        refuse(CODE_CORRUPT, "libhdf5 cannot open %s of %s", name, walk->path);
    }
    snprintf(walk->path + before, sizeof walk->path - before, "%s%s", before ? "/" : "", name);
    walk->depth++;
    if (H5Iget_type(object) == H5I_DATASET) {
        read_dataset(group, object, walk);
    } else if (H5Iget_type(object) == H5I_GROUP &&
               H5Literate(object, H5_INDEX_NAME, H5_ITER_INC, NULL, visit, walk) < 0) {
        refuse(CODE_CORRUPT, "libhdf5 cannot list %s", walk->path);
    }
    H5Oclose(object);
    walk->depth--;
    walk->path[before] = '\0';
    return 0;
}

static void limit(int what, rlim_t most)
{
    struct rlimit now;
    if (getrlimit(what, &now) == 0 && (now.rlim_max == RLIM_INFINITY || now.rlim_max > most)) {
        setrlimit(what, &(struct rlimit){.rlim_cur = most, .rlim_max = most});
    }
}

int main(int argc, char **argv)
{
    names_only = argc == 3 && strcmp(argv[2], "--names") == 0;
    if (argc != 2 && !names_only) {
        fprintf(stderr, "Usage: byol-hdf5-stream FILE [--names]    (byol convert runs it)\n");
        return 2;
    }
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) // they map far more
    limit(RLIMIT_AS, MEMORY_BYTES);
#endif
    limit(RLIMIT_FSIZE, 0);
    limit(RLIMIT_CORE, 0);
    fwrite("BYOLIMG1", 8, 1, stdout);
    watch();
    H5dont_atexit(); // where it would trip over what a damaged file left
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5PLset_loading_state(0);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_cache(access, 0, CACHE_SLOTS, CACHE_BYTES, 1.0);
    hid_t file = H5Fopen(argv[1], H5F_ACC_RDONLY, access);
    if (file < 0) {
        refuse(CODE_CORRUPT, "libhdf5 cannot open it: damaged or cut short");
    }
    struct walk walk = {.depth = 0};
    if (H5Literate(file, H5_INDEX_NAME, H5_ITER_INC, NULL, visit, &walk) < 0) {
        refuse(CODE_CORRUPT, "libhdf5 cannot list what is in it");
    }
    if (walk.files + walk.arrays == 0) {
        refuse(CODE_UNSUPPORTED,
               "no images in it (JPEG or PNG bytes, or uint8 arrays of pictures): "
               "%llu datasets hold something else",
               (unsigned long long)walk.passed);
    }
    put(&(struct frame){.what = FRAME_END});
    return fflush(stdout) == 0 ? 0 : 1;
}
