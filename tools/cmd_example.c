// `byol example DIR`: draws a small labelled image collection, so that everything can be tried
// without downloading anything.
//
// Pictures are independent of each other, so threads simply take the next one; checksums are summed
// up in picture order afterwards.
#include "formats/crc32c.h"
#include "formats/file.h"
#include "tools/command.h"
#include "tools/example_render.h"
#include "tools/interrupt.h"
#include "tools/json_text.h"
#include "tools/output.h"
#include "tools/progress.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CLASSES      EXAMPLE_SHAPE_COUNT
#define MOST_THREADS 256
#define QUALITY      90
#define PATH_SIZE    512

static const char help[] =
    "Usage: byol example DIR [options]\n"
    "\n"
    "Draws labelled JPEGs to try everything on: ten classes that differ in shape and texture,\n"
    "while colour, place, size, turn, light and background vary. The same options give the same\n"
    "bytes on every machine.\n"
    "\n"
    "  DIR/train/CLASS/NNNN.jpg   for pretraining and as the probes' training images\n"
    "  DIR/test/CLASS/NNNN.jpg    for testing\n"
    "\n"
    "DIR must not exist, or be empty. It appears under its name when it is complete.\n"
    "\n"
    "Options:\n"
    "  --count N        pictures in all, spread evenly over the classes (4000)\n"
    "  --size N         side in pixels, 16 to 1024 (96)\n"
    "  --seed N         another seed, other pictures (1)\n"
    "  --test-share X   share of each class that goes to DIR/test (0.125)\n"
    "  --threads N      0 = one per core (0); the bytes do not depend on it\n"
    "  --json           print the result as JSON\n"
    "  --quiet          no progress line\n"
    "\n"
    "Example:\n"
    "  byol example pictures && byol convert pictures/train -o train\n"
    "\n"
    "Exit codes: 0 success, 1 failure, 2 wrong usage.\n";

struct checksums {
    uint32_t pixels, file;
};

// What all threads share. `next` and `failed` are the only fields written while they run, besides
// each picture's own checksums; `error` is guarded by `lock`.
struct example {
    const char *directory;
    char building[PATH_SIZE]; // the directory's name until all is in it
    int64_t count, size, seed, threads;
    double test_share;
    bool json, quiet;
    struct checksums *checksums; // [count]
    struct progress progress;
    atomic_llong next, done;
    atomic_bool failed;
    pthread_mutex_t lock;
    struct error error;
};

// --- one picture -----------------------------------------------------------------------------

static int64_t class_count(const struct example *example, uint32_t label)
{
    return example->count / CLASSES + (label < example->count % CLASSES);
}

static int64_t class_test_count(const struct example *example, uint32_t label)
{
    return (int64_t)((double)class_count(example, label) * example->test_share + 0.5);
}

static enum status write_picture(const char *path, const void *bytes, size_t len,
                                 struct error *error)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) {
        return error_errno(error, errno, path, NOWHERE, "create");
    }
    enum status status = file_write_all(fd, path, bytes, len, error);
    if (close(fd) != 0 && status == STATUS_OK) {
        status = error_errno(error, errno, path, NOWHERE, "close");
    }
    return status;
}

static enum status draw_picture(struct example *example, int64_t picture, struct image *image,
                                struct error *error)
{
    uint32_t label = (uint32_t)(picture % CLASSES);
    int64_t number = picture / CLASSES;
    int64_t train = class_count(example, label) - class_test_count(example, label);
    struct example_scene scene;
    example_scene_draw(&scene, (uint64_t)example->seed, label, (uint32_t)number);
    enum status status = example_render(&scene, (uint32_t)example->size, image, error);
    if (status != STATUS_OK) {
        return status;
    }
    uint8_t *bytes = NULL;
    size_t len = 0;
    status = image_encode_jpeg(image, QUALITY, &bytes, &len, error);
    if (status != STATUS_OK) {
        return status;
    }
    char path[PATH_SIZE + 64];
    snprintf(path, sizeof path, "%s/%s/%s/%04" PRId64 ".jpg", example->building,
             number < train ? "train" : "test", example_shape_names[label], number);
    status = write_picture(path, bytes, len, error);
    example->checksums[picture] = (struct checksums){
        .pixels = crc32c(0, image->pixels, (size_t)image->width * image->height * 3),
        .file = crc32c(0, bytes, len),
    };
    free(bytes);
    return status;
}

// --- threads ---------------------------------------------------------------------------------

// The first failure is the one reported.
static void report_failure(struct example *example, const struct error *error)
{
    pthread_mutex_lock(&example->lock);
    if (!atomic_load(&example->failed)) {
        example->error = *error;
        atomic_store(&example->failed, true);
    }
    pthread_mutex_unlock(&example->lock);
}

static void show_progress(struct example *example)
{
    int64_t done = atomic_fetch_add(&example->done, 1) + 1;
    if (pthread_mutex_trylock(&example->lock) == 0) { // another thread is drawing it: never wait
        progress_bar(&example->progress, "drawing", (uint64_t)done, (uint64_t)example->count,
                     "images");
        pthread_mutex_unlock(&example->lock);
    }
}

static void *draw_pictures(void *argument)
{
    struct example *example = argument;
    struct image image = {0};
    struct error error;
    while (!atomic_load(&example->failed)) {
        int64_t picture = atomic_fetch_add(&example->next, 1);
        if (picture >= example->count) {
            break;
        }
        if (draw_picture(example, picture, &image, &error) != STATUS_OK) {
            report_failure(example, &error);
            break;
        }
        show_progress(example);
    }
    image_free(&image);
    return NULL;
}

static int64_t thread_count(const struct example *example)
{
    int64_t cores = sysconf(_SC_NPROCESSORS_ONLN);
    int64_t count = example->threads > 0 ? example->threads : cores > 0 ? cores : 1;
    count = count < MOST_THREADS ? count : MOST_THREADS;
    return count < example->count ? count : example->count;
}

// The calling thread works too, so that a machine which starts no threads still draws.
static enum status draw_all(struct example *example, struct error *error)
{
    pthread_t threads[MOST_THREADS];
    int64_t wanted = thread_count(example), started = 0;
    while (started < wanted - 1 &&
           pthread_create(&threads[started], NULL, draw_pictures, example) == 0) {
        started++;
    }
    draw_pictures(example);
    for (int64_t i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
    }
    if (atomic_load(&example->failed)) {
        *error = example->error;
        return error->status;
    }
    return STATUS_OK;
}

// --- the directory ---------------------------------------------------------------------------

static enum status make_folders(struct example *example, struct error *error)
{
    static const char *const halves[] = {"train", "test"};
    for (uint32_t label = 0; label < CLASSES; label++) {
        int64_t test = class_test_count(example, label);
        int64_t counts[2] = {class_count(example, label) - test, test};
        for (int half = 0; half < 2; half++) {
            char path[PATH_SIZE + 64];
            snprintf(path, sizeof path, "%s/%s/%s", example->building, halves[half],
                     example_shape_names[label]);
            enum status status = counts[half] > 0 ? file_make_directories(path, error) : STATUS_OK;
            if (status != STATUS_OK) {
                return status;
            }
        }
    }
    return STATUS_OK;
}

// Nothing of that name, or an empty directory, which the finished one then replaces.
static bool is_free(const char *path)
{
    DIR *directory = opendir(path);
    if (directory == NULL) {
        return errno == ENOENT;
    }
    int entries = 0;
    while (readdir(directory) != NULL) {
        entries++;
    }
    closedir(directory);
    return entries <= 2; // "." and ".."
}

static enum status make_parent(const char *path, size_t len, struct error *error)
{
    while (len > 0 && path[len - 1] != '/') {
        len--;
    }
    if (len <= 1) {
        return STATUS_OK; // in the working directory or in the root
    }
    char parent[PATH_SIZE];
    snprintf(parent, sizeof parent, "%.*s", (int)len - 1, path);
    return file_make_directories(parent, error);
}

// Makes the directory to draw into, beside the one wanted.
static enum status begin_directory(struct example *example, struct error *error)
{
    const char *directory = example->directory;
    size_t len = strlen(directory);
    while (len > 1 && directory[len - 1] == '/') {
        len--;
    }
    if (len + 32 > PATH_SIZE) {
        return error_set(error, STATUS_INVALID, directory, NOWHERE, NOWHERE,
                         "the path is too long");
    }
    if (!is_free(directory)) {
        return error_set(error, STATUS_EXISTS, directory, NOWHERE, NOWHERE,
                         "exists already; remove it or choose another directory");
    }
    enum status status = make_parent(directory, len, error);
    if (status != STATUS_OK) {
        return status;
    }
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%.*s.partial-XXXXXX", (int)len, directory);
    if (mkdtemp(path) == NULL) {
        return error_errno(error, errno, directory, NOWHERE, "create");
    }
    memcpy(example->building, path, sizeof path);
    interrupt_leaves("%s is incomplete: remove it", path);
    return STATUS_OK;
}

static enum status finish_directory(struct example *example, struct error *error)
{
    mode_t mask = umask(0);
    umask(mask);
    if (chmod(example->building, 0777 & ~mask) != 0 ||
        rename(example->building, example->directory) != 0) {
        return error_errno(error, errno, example->directory, NOWHERE, "rename into place");
    }
    example->building[0] = 0;
    interrupt_leaves_nothing();
    return STATUS_OK;
}

static void drop_directory(struct example *example)
{
    if (example->building[0] != 0) {
        output_remove(example->building, NULL);
    }
}

// --- the command -----------------------------------------------------------------------------

static enum status build(struct example *example, struct error *error)
{
    enum status status = begin_directory(example, error);
    if (status == STATUS_OK) {
        status = make_folders(example, error);
    }
    if (status == STATUS_OK) {
        progress_begin(&example->progress, example->quiet);
        status = draw_all(example, error);
        progress_end(&example->progress);
    }
    if (status == STATUS_OK) {
        status = finish_directory(example, error);
    }
    drop_directory(example);
    return status;
}

static void print_json(const struct example *example, int64_t test, uint32_t pixels, uint32_t files)
{
    char crc[2][16];
    snprintf(crc[0], sizeof crc[0], "%08" PRIx32, pixels);
    snprintf(crc[1], sizeof crc[1], "%08" PRIx32, files);
    json_t *result = json_pack(
        "{s:o, s:i, s:I, s:I, s:I, s:s, s:s}", "output", json_text(example->directory), "classes",
        CLASSES, "train", (json_int_t)(example->count - test), "test", (json_int_t)test, "size",
        (json_int_t)example->size, "pixels_crc32c", crc[0], "files_crc32c", crc[1]);
    json_dumpf(result, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(result);
}

static void print_result(const struct example *example)
{
    int64_t test = 0;
    uint32_t pixels = 0, files = 0;
    for (uint32_t label = 0; label < CLASSES; label++) {
        test += class_test_count(example, label);
    }
    for (int64_t i = 0; i < example->count; i++) {
        pixels = crc32c(pixels, &example->checksums[i].pixels, sizeof pixels);
        files = crc32c(files, &example->checksums[i].file, sizeof files);
    }
    if (example->json) {
        print_json(example, test, pixels, files);
    } else {
        printf("%s: %" PRId64 " training and %" PRId64 " test pictures of %d classes\n",
               example->directory, example->count - test, test, CLASSES);
    }
}

static int run(int argc, char **argv)
{
    struct example example = {.count = 4000, .size = 96, .seed = 1, .test_share = 0.125};
    const struct option options[] = {
        {"count", 0, OPTION_INT, &example.count, 1, 1e6},
        {"size", 0, OPTION_INT, &example.size, 16, 1024},
        {"seed", 0, OPTION_INT, &example.seed, 0, 9e15},
        {"test-share", 0, OPTION_FLOAT, &example.test_share, 0, 1},
        {"threads", 0, OPTION_INT, &example.threads, 0, MOST_THREADS},
        {"json", 0, OPTION_FLAG, &example.json, 0, 0},
        {"quiet", 'q', OPTION_FLAG, &example.quiet, 0, 0},
    };
    struct option_list operands;
    bool done;
    int code = command_options(&command_example, argc, argv, options,
                               sizeof options / sizeof options[0], &operands, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    if (operands.count != 1 || operands.item[0][0] == 0) {
        return command_misused(&command_example, "wants one directory to draw into");
    }
    example.directory = operands.item[0];
    struct error error;
    example.checksums = calloc((size_t)example.count, sizeof *example.checksums);
    pthread_mutex_init(&example.lock, NULL);
    enum status status = example.checksums == NULL ? error_set(&error, STATUS_NO_MEMORY, NULL,
                                                               NOWHERE, NOWHERE, "no memory")
                                                   : build(&example, &error);
    if (status == STATUS_OK) {
        print_result(&example);
    } else {
        code = command_failed(&command_example, &error, example.json);
    }
    pthread_mutex_destroy(&example.lock);
    free(example.checksums);
    return code;
}

const struct command command_example = {
    .name = "example",
    .summary = "draw pictures to try on",
    .help = help,
    .run = run,
};
