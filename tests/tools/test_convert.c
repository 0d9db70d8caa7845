// `byol convert` and `byol inspect` as a person uses them: every layout, bad images, full disks,
// kill -9, damage.
#include "formats/dataset.h"
#include "formats/file.h"
#include "tests/support/mutate.h"
#include "tests/support/program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define IMAGENET "../shared/data/imagenet-sample.tar"
#define CIFAR    "../shared/data/cifar10-test.tar.zst"

static struct scratch scratch;

static int setup(void **state)
{
    (void)state;
    scratch_make(&scratch);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(&scratch);
    return 0;
}

static void write_bytes(const char *path, const void *bytes, size_t len)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

// DIR/in/{cat,dog,eel}/NNN.jpg or .png, all different.
static void draw_images(unsigned count, uint32_t side)
{
    static const char *const classes[] = {"cat", "dog", "eel"};
    struct image image = {0};
    uint64_t random = 5;
    assert_int_equal(image_reserve(&image, side, side + 3, NULL), STATUS_OK);
    for (unsigned i = 0; i < count; i++) {
        for (size_t at = 0; at < (size_t)side * (side + 3) * 3; at++) {
            image.pixels[at] = (uint8_t)((at / 7 + i * 40) ^ (mutate_next(&random) & 15));
        }
        uint8_t *bytes;
        size_t len;
        char name[64];
        bool png = i % 5 == 4;
        enum status status = png ? image_encode_png(&image, &bytes, &len, NULL)
                                 : image_encode_jpeg(&image, 80, &bytes, &len, NULL);
        assert_int_equal(status, STATUS_OK);
        snprintf(name, sizeof name, "in/%s", classes[i % 3]);
        assert_int_equal(file_make_directories(scratch_path(&scratch, name), NULL), STATUS_OK);
        snprintf(name, sizeof name, "in/%s/%03u.%s", classes[i % 3], i, png ? "png" : "jpg");
        write_bytes(scratch_path(&scratch, name), bytes, len);
        free(bytes);
    }
    image_free(&image);
}

static bool present(const char *path)
{
    if (file_exists(path)) {
        return true;
    }
    printf("skipped: %s is not there\n", path);
    return false;
}

// --- layouts -----------------------------------------------------------------------------------

static void expect_same_bytes_as_files(const char *directory, unsigned count)
{
    struct dataset *dataset;
    assert_int_equal(dataset_open(&dataset, directory, NULL), STATUS_OK);
    assert_int_equal(dataset_count(dataset), count);
    for (uint64_t i = 0; i < count; i++) {
        char name[300];
        snprintf(name, sizeof name, "in/%s", dataset_record_name(dataset, i));
        uint8_t *want, *got;
        size_t want_len, got_len;
        assert_int_equal(
            file_read_all(scratch_path(&scratch, name), 1 << 24, &want, &want_len, NULL),
            STATUS_OK);
        assert_int_equal(dataset_read(dataset, i, &got, &got_len, NULL), STATUS_OK);
        assert_int_equal(want_len, got_len);
        assert_memory_equal(want, got, got_len);
        free(want);
        free(got);
        struct dataset_record record = dataset_record(dataset, i);
        const char *class = dataset_class_name(dataset, (uint32_t)record.label);
        assert_memory_equal(dataset_record_name(dataset, i), class, strlen(class));
        assert_int_equal(record.height, record.width + 3);
    }
    dataset_close(&dataset);
}

static void folders_convert_to_both_stores(void **state)
{
    (void)state;
    draw_images(31, 40);
    write_bytes(scratch_path(&scratch, "in/README"), "text", 4);
    program_expect(&scratch, 0, "31 images", "convert $DIR/in -o $DIR/lmdb");
    program_expect(&scratch, 0, "passed over: 1 files",
                   "convert $DIR/in -o $DIR/shards --store=shards");
    expect_same_bytes_as_files(scratch_path(&scratch, "lmdb"), 31);
    expect_same_bytes_as_files(scratch_path(&scratch, "shards"), 31);
    program_expect(&scratch, 0, "verified", "inspect $DIR/lmdb --verify");
    program_expect(&scratch, 0, "verified", "inspect $DIR/shards --verify");
    program_expect(&scratch, 0, "31 (25 JPEG, 6 PNG)", "inspect $DIR/shards");
    program_expect(&scratch, 0, "classes   3: cat, dog, eel", "inspect $DIR/lmdb");
    program_expect(&scratch, 0, "\tcat\tcat/000.jpg\n", "inspect $DIR/lmdb --records");
}

static void json_tells_the_same(void **state)
{
    (void)state;
    draw_images(10, 20);
    double images = program_number(&scratch, "images", "convert $DIR/in -o $DIR/set --json");
    assert_true(images == 10);
    assert_true(program_number(&scratch, "png", "inspect $DIR/set --json") == 2);
    assert_true(program_number(&scratch, "bad_records", "inspect $DIR/set --json --verify") == 0);
    char store[16];
    program_string(&scratch, "store", store, sizeof store, "inspect $DIR/set --json --records");
    assert_string_equal(store, "lmdb");
    assert_int_equal(scratch_shell(&scratch, "mv $DIR/in/cat $DIR/in/seal"), 0);
    program_expect(&scratch, 0, NULL, "convert $DIR/in -o $DIR/set2 --quiet");
    program_expect(&scratch, 0, "\"seal\"", "inspect $DIR/set2 --json");
}

// A folder, and tars of it in several wrappings, become the same bytes but for the name of the
// source, as long as the members come in the same order.
static void tars_and_folders_agree(void **state)
{
    (void)state;
    if (scratch_shell(&scratch, "command -v tar && command -v gzip") != 0) {
        printf("skipped: tar or gzip is not installed\n");
        skip();
    }
    draw_images(20, 20);
    assert_int_equal(scratch_shell(&scratch, "mkdir $DIR/1 $DIR/2 $DIR/3; cd $DIR/in && "
                                             "tar --sort=name -cf $DIR/1/in cat dog eel && "
                                             "tar --sort=name -czf $DIR/2/in . && cd .. && "
                                             "tar --sort=name -cf $DIR/3/in in"),
                     0);
    program_expect(&scratch, 0, NULL, "convert $DIR/in -o $DIR/set");
    program_expect(&scratch, 0, NULL, "convert $DIR/1/in -o $DIR/set1");
    program_expect(&scratch, 0, NULL, "convert $DIR/2/in -o $DIR/set2");
    program_expect(&scratch, 0, NULL, "convert $DIR/3/in -o $DIR/set3");
    assert_int_equal(scratch_shell(&scratch, "diff -r $DIR/set $DIR/set1"), 0);
    assert_int_equal(scratch_shell(&scratch, "diff -r $DIR/set $DIR/set2"), 0);
    assert_int_equal(scratch_shell(&scratch, "diff -r $DIR/set $DIR/set3"), 0);
}

static void flat_folders_have_no_labels(void **state)
{
    (void)state;
    draw_images(6, 20);
    program_expect(&scratch, 0, "4 images", "convert $DIR/in/cat $DIR/in/dog/ -o $DIR/flat");
    program_expect(&scratch, 0, "have no labels", "inspect $DIR/flat");
}

static void threads_do_not_change_the_bytes(void **state)
{
    (void)state;
    draw_images(60, 64);
    static const char *const stores[] = {"lmdb", "shards --shard-size 1"};
    for (int s = 0; s < 2; s++) {
        static const char *const threads[] = {"1", "2", "3", "7"};
        for (int t = 0; t < 4; t++) {
            char arguments[200];
            snprintf(arguments, sizeof arguments,
                     "convert $DIR/in -o $DIR/set%s --threads %s --store %s", threads[t],
                     threads[t], stores[s]);
            program_expect(&scratch, 0, NULL, arguments);
        }
        assert_int_equal(
            scratch_shell(&scratch, "diff -r $DIR/set1 $DIR/set2 && diff -r $DIR/set1 $DIR/set3 && "
                                    "diff -r $DIR/set1 $DIR/set7 && rm -r $DIR/set*"),
            0);
    }
}

// --- bad images --------------------------------------------------------------------------------

static void draw_with_bad_ones(void)
{
    draw_images(12, 120); // large enough to be cut behind their headers
    uint8_t *bytes;
    size_t len;
    assert_int_equal(
        file_read_all(scratch_path(&scratch, "in/cat/003.jpg"), 1 << 20, &bytes, &len, NULL),
        STATUS_OK);
    write_bytes(scratch_path(&scratch, "in/cat/short.jpg"), bytes, len / 2);
    write_bytes(scratch_path(&scratch, "in/dog/empty.jpg"), "", 0);
    write_bytes(scratch_path(&scratch, "in/dog/text.jpg"), "this is no picture", 18);
    write_bytes(scratch_path(&scratch, "in/eel/alias.jpg"), bytes, len); // a good one
    free(bytes);
}

static void bad_images_stop_the_conversion_by_name(void **state)
{
    (void)state;
    draw_with_bad_ones();
    program_expect(&scratch, 1, "in/cat/short.jpg", "convert $DIR/in -o $DIR/set");
    assert_false(file_exists(scratch_path(&scratch, "set")));
    assert_false(file_exists(scratch_path(&scratch, "set.partial")));
    assert_int_equal(scratch_shell(&scratch, "rm $DIR/in/cat/short.jpg"), 0);
    program_expect(&scratch, 1, "in/dog/empty.jpg: an empty file",
                   "convert $DIR/in -o $DIR/set --threads 7");
    assert_int_equal(scratch_shell(&scratch, "rm $DIR/in/dog/empty.jpg"), 0);
    program_expect(&scratch, 1, "in/dog/text.jpg", "convert $DIR/in -o $DIR/set --no-verify");
    struct program_result result;
    program_run(&result, &scratch, "convert $DIR/in -o $DIR/set --json");
    assert_int_equal(result.code, 1);
    assert_non_null(strstr(result.out, "\"status\""));
    assert_non_null(strstr(result.out, "in/dog/text.jpg"));
    program_free(&result);
}

static void bad_images_are_skipped_counted_and_listed(void **state)
{
    (void)state;
    draw_with_bad_ones();
    struct program_result result;
    program_run(&result, &scratch, "convert $DIR/in -o $DIR/set --bad skip --json");
    assert_int_equal(result.code, 0);
    assert_non_null(strstr(result.out, "\"images\": 13"));
    assert_non_null(strstr(result.out, "\"skipped\": 3"));
    assert_non_null(strstr(result.out, "\"cat/short.jpg\""));
    assert_non_null(strstr(result.out, "\"dog/empty.jpg\""));
    assert_non_null(strstr(result.out, "\"dog/text.jpg\""));
    assert_non_null(strstr(result.err, "cat/short.jpg"));
    program_free(&result);
    program_expect(&scratch, 0, "verified", "inspect $DIR/set --verify");
    // Without decoding, the header of the short one is good: inspect finds it.
    program_expect(&scratch, 0, "left out: 2",
                   "convert $DIR/in -o $DIR/probed --bad skip --no-verify");
    program_expect(&scratch, 1, "1 of 14 images", "inspect $DIR/probed --verify");
    assert_int_equal(scratch_shell(&scratch, "rm -r $DIR/in/eel $DIR/in/cat $DIR/in/dog/0*"), 0);
    program_expect(&scratch, 1, "none of its 2 images is usable",
                   "convert $DIR/in -o $DIR/none --bad skip");
}

static void names_that_come_twice_are_refused(void **state)
{
    (void)state;
    draw_images(6, 20);
    program_expect(&scratch, 1, "names must be unique",
                   "convert $DIR/in $DIR/in -o $DIR/set --bad skip");
    assert_false(file_exists(scratch_path(&scratch, "set")));
    assert_false(file_exists(scratch_path(&scratch, "set.partial")));
}

static void cut_tars_are_errors_even_when_skipping(void **state)
{
    (void)state;
    draw_images(10, 20);
    if (scratch_shell(&scratch, "tar -cf $DIR/whole.tar -C $DIR in && "
                                "head -c 9000 $DIR/whole.tar >$DIR/cut.tar") != 0) {
        printf("skipped: tar is not installed\n");
        skip();
    }
    program_expect(&scratch, 1, "cut.tar", "convert $DIR/cut.tar -o $DIR/set --bad skip");
    assert_false(file_exists(scratch_path(&scratch, "set")));
}

// --- misuse ------------------------------------------------------------------------------------

static void mistakes_are_explained(void **state)
{
    (void)state;
    draw_images(3, 20);
    program_expect(&scratch, 2, "at least one folder or tar", "convert -o $DIR/set");
    program_expect(&scratch, 2, "-o DATASET", "convert $DIR/in");
    program_expect(&scratch, 2, "'lmdb' or 'shards'", "convert $DIR/in -o $DIR/set --store tar");
    program_expect(&scratch, 2, "'fatal' or 'skip'", "convert $DIR/in -o $DIR/set --bad ignore");
    program_expect(&scratch, 1, "nowhere", "convert $DIR/nowhere -o $DIR/set");
    program_expect(&scratch, 1, "a single JPEG file, nothing that images are read from",
                   "convert $DIR/in/cat/000.jpg -o $DIR/set");
    assert_int_equal(mkdir(scratch_path(&scratch, "void"), 0755), 0);
    program_expect(&scratch, 1, "no JPEG or PNG", "convert $DIR/void -o $DIR/set");
    program_expect(&scratch, 1, "not a dataset", "inspect $DIR/in --verify");
    program_expect(&scratch, 0, "byol convert ", "inspect $DIR/in");
    program_expect(&scratch, 1, "no JPEG or PNG", "inspect $DIR/void");
    program_expect(&scratch, 1, "nowhere", "inspect $DIR/nowhere");
    program_expect(&scratch, 2, "one dataset", "inspect");
    assert_false(file_exists(scratch_path(&scratch, "set")));
    assert_false(file_exists(scratch_path(&scratch, "set.partial")));
}

static void datasets_are_replaced_only_by_force(void **state)
{
    (void)state;
    draw_images(3, 20);
    program_expect(&scratch, 0, "3 images", "convert $DIR/in -o $DIR/set");
    draw_images(4, 20);
    program_expect(&scratch, 1, "--force", "convert $DIR/in -o $DIR/set");
    program_expect(&scratch, 0, "images    3 ", "inspect $DIR/set");
    program_expect(&scratch, 0, "4 images", "convert $DIR/in -o $DIR/set --force");
    program_expect(&scratch, 0, "images    4 ", "inspect $DIR/set --verify");
    assert_false(file_exists(scratch_path(&scratch, "set.partial")));
    program_expect(&scratch, 1, "not a dataset", "convert $DIR/in -o $DIR/in --force");
    program_expect(&scratch, 0, "4 images", "convert $DIR/in -o $DIR/again");
}

// --- the world outside -------------------------------------------------------------------------

static void full_disks_are_named_and_nothing_is_left(void **state)
{
    (void)state;
    draw_images(150, 100);
    char disk[700];
    snprintf(disk, sizeof disk, "%s", scratch_path(&scratch, "disk"));
    assert_int_equal(mkdir(disk, 0755), 0);
    if (mount("tmpfs", disk, "tmpfs", 0, "size=400k") != 0) {
        printf("skipped: mounting a small tmpfs needs root (%s)\n", strerror(errno));
        skip();
    }
    static const char *const lines[] = {"convert $DIR/in -o $DIR/disk/set",
                                        "convert $DIR/in -o $DIR/disk/set --store shards"};
    struct program_result result[2];
    int left = 0;
    for (int i = 0; i < 2; i++) {
        program_run(&result[i], &scratch, lines[i]);
        left += scratch_shell(&scratch, "test -z \"$(ls -A $DIR/disk)\"") != 0;
    }
    umount2(disk, MNT_DETACH);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(result[i].code, 1);
        assert_non_null(strstr(result[i].err, "No space left on device"));
        program_free(&result[i]);
    }
    assert_int_equal(left, 0);
}

static void limits_on_file_sizes_are_named_and_nothing_is_left(void **state)
{
    (void)state;
    draw_images(150, 100);
    static const char *const stores[] = {"lmdb", "shards"};
    for (int i = 0; i < 2; i++) {
        char arguments[200];
        snprintf(arguments, sizeof arguments,
                 "--version; ulimit -f 200; $BYOL convert $DIR/in -o $DIR/set --store %s",
                 stores[i]);
        program_expect(&scratch, 1, "File too large", arguments);
        assert_false(file_exists(scratch_path(&scratch, "set")));
        assert_false(file_exists(scratch_path(&scratch, "set.partial")));
    }
}

static void convert_killed_after(const char *store, useconds_t delay)
{
    const char *program = getenv("BYOL_PROGRAM");
    char input[700], output[700];
    snprintf(input, sizeof input, "%s", scratch_path(&scratch, "in"));
    snprintf(output, sizeof output, "%s", scratch_path(&scratch, "set"));
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        execl(program ? program : "build/byol", "byol", "convert", input, "-o", output, "--store",
              store, "--shard-size", "1", (char *)NULL);
        _exit(127);
    }
    usleep(delay);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

static void killed_conversions_never_open_and_rerun_to_the_same_bytes(void **state)
{
    (void)state;
    draw_images(150, 120);
    static const char *const stores[] = {"lmdb", "shards"};
    unsigned halves = 0;
    uint64_t random = 11;
    for (int s = 0; s < 2; s++) {
        char arguments[200], duration_line[200];
        snprintf(arguments, sizeof arguments,
                 "convert $DIR/in -o $DIR/whole --shard-size 1 --store %s", stores[s]);
        snprintf(duration_line, sizeof duration_line,
                 "convert $DIR/in -o $DIR/set --shard-size 1 --store %s", stores[s]);
        struct timespec before, after;
        clock_gettime(CLOCK_MONOTONIC, &before);
        program_expect(&scratch, 0, NULL, arguments);
        clock_gettime(CLOCK_MONOTONIC, &after);
        int64_t whole =
            (after.tv_sec - before.tv_sec) * 1000000 + (after.tv_nsec - before.tv_nsec) / 1000;
        for (int i = 0; i < 15; i++) {
            convert_killed_after(stores[s],
                                 (useconds_t)(mutate_next(&random) % (uint64_t)(whole + 1)));
            if (file_exists(scratch_path(&scratch, "set"))) { // it was faster than the kill
                if (file_exists(scratch_path(&scratch, "set/journal"))) { // by a hair
                    program_expect(&scratch, 0, NULL, duration_line);
                }
                assert_int_equal(
                    scratch_shell(&scratch, "diff -r $DIR/whole $DIR/set && rm -r $DIR/set"), 0);
                continue;
            }
            struct dataset *dataset;
            if (file_exists(scratch_path(&scratch, "set.partial/index.byol"))) {
                assert_int_equal(
                    scratch_shell(&scratch, "diff -r -x journal $DIR/whole $DIR/set.partial"), 0);
            } else {
                assert_int_not_equal(
                    dataset_open(&dataset, scratch_path(&scratch, "set.partial"), NULL), STATUS_OK);
                halves += file_exists(scratch_path(&scratch, "set.partial"));
            }
        }
        program_expect(&scratch, 0, NULL, duration_line);
        assert_int_equal(
            scratch_shell(&scratch, "diff -r $DIR/whole $DIR/set && test ! -e $DIR/set.partial && "
                                    "rm -r $DIR/whole $DIR/set"),
            0);
    }
    assert_in_range(halves, 1, 30);
}

// --- damage ------------------------------------------------------------------------------------

static void flip_bit(const char *path, uint64_t bit)
{
    int fd = open(path, O_RDWR);
    uint8_t byte;
    assert_int_equal(pread(fd, &byte, 1, (off_t)(bit / 8)), 1);
    byte ^= (uint8_t)(1 << bit % 8);
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)(bit / 8)), 1);
    close(fd);
}

static void any_flipped_bit_is_found_by_inspect(void **state)
{
    (void)state;
    draw_images(5, 24);
    program_expect(&scratch, 0, NULL, "convert $DIR/in -o $DIR/lmdb");
    program_expect(&scratch, 0, NULL, "convert $DIR/in -o $DIR/shards --store shards");
    static const char *const files[] = {"lmdb/data.mdb", "shards/shard-00000.tar.zst",
                                        "lmdb/index.byol", "shards/index.byol"};
    static const char *const lines[] = {
        "inspect $DIR/lmdb --verify --threads 1", "inspect $DIR/shards --verify --threads 1",
        "inspect $DIR/lmdb --verify --threads 1", "inspect $DIR/shards --verify --threads 1"};
    uint64_t random = 3;
    for (int f = 0; f < 4; f++) {
        struct stat about;
        const char *path = scratch_path(&scratch, files[f]);
        assert_int_equal(stat(path, &about), 0);
        for (int i = 0; i < 40; i++) {
            uint64_t bit = mutate_next(&random) % (8 * (uint64_t)about.st_size);
            flip_bit(path, bit);
            struct program_result result;
            program_run(&result, &scratch, lines[f]);
            if (result.code != 1 || strstr(result.err, files[f]) == NULL) {
                fail_msg("bit %llu of %s: %d, %s", (unsigned long long)bit, files[f], result.code,
                         result.err);
            }
            program_free(&result);
            flip_bit(path, bit);
        }
    }
    program_expect(&scratch, 0, "verified", lines[0]);
    program_expect(&scratch, 0, "verified", lines[1]);
}

// How many records lie in the frames of these: damage to a frame harms them all.
static int sharing_frames(const struct dataset *dataset, const uint64_t *records, int count)
{
    int sharing = 0;
    for (uint64_t i = 0; i < dataset_count(dataset); i++) {
        bool shares = false;
        for (int k = 0; k < count; k++) {
            shares |=
                dataset_record(dataset, i).offset == dataset_record(dataset, records[k]).offset;
        }
        sharing += shares;
    }
    return sharing;
}

static void damage_is_listed_with_file_offset_and_record(void **state)
{
    (void)state;
    draw_images(40, 40);
    program_expect(&scratch, 0, NULL, "convert $DIR/in -o $DIR/set --store shards");
    struct dataset *dataset;
    assert_int_equal(dataset_open(&dataset, scratch_path(&scratch, "set"), NULL), STATUS_OK);
    static const uint64_t records[] = {30, 3, 17};
    for (int i = 0; i < 3; i++) {
        struct dataset_record record = dataset_record(dataset, records[i]);
        flip_bit(dataset_file_path(dataset, record.file),
                 8 * (record.offset + record.stored_length / 2));
        char place[64];
        snprintf(place, sizeof place, "byte %llu, record %llu: ", (unsigned long long)record.offset,
                 (unsigned long long)records[i]);
        program_expect(&scratch, 1, place, "inspect $DIR/set --verify");
    }
    char found[64], listed[64];
    int bad = sharing_frames(dataset, records, 3);
    snprintf(found, sizeof found, "1 of 1 files, %d of 40 images", bad);
    snprintf(listed, sizeof listed, "\"bad_records\": %d", bad);
    dataset_close(&dataset);
    program_expect(&scratch, 1, found, "inspect $DIR/set --verify");
    program_expect(&scratch, 0, listed, "inspect $DIR/set --verify --json 2>/dev/null; true");
    program_expect(&scratch, 0, "40", "inspect $DIR/set"); // a look at the index alone
}

static void files_cut_short_are_noticed_at_once(void **state)
{
    (void)state;
    draw_images(5, 24);
    program_expect(&scratch, 0, NULL, "convert $DIR/in -o $DIR/set");
    assert_int_equal(scratch_shell(&scratch, "truncate -s -1 $DIR/set/data.mdb"), 0);
    program_expect(&scratch, 1, "the index says", "inspect $DIR/set");
    assert_int_equal(scratch_shell(&scratch, "rm $DIR/set/data.mdb"), 0);
    program_expect(&scratch, 1, "data.mdb", "inspect $DIR/set");
}

// --- recoded images ----------------------------------------------------------------------------

static void recoded_images_are_told_and_come_back(void **state)
{
    (void)state;
    draw_images(11, 150);
    program_expect(&scratch, 0, "recoded: 9 JPEGs to ", "convert $DIR/in -o $DIR/set --recode");
    program_expect(&scratch, 0, "left as they were: 2 PNG",
                   "convert $DIR/in -o $DIR/shards --store shards --recode --threads 3");
    assert_true(program_number(&scratch, "recoded", "inspect $DIR/set --json") == 9);
    program_expect(&scratch, 0, "11 (9 JPEG of which 9 recoded, 2 PNG)", "inspect $DIR/shards");
    program_expect(&scratch, 0, "JPEGs recoded", "inspect $DIR/set");
    program_expect(&scratch, 0, "verified", "inspect $DIR/set --verify");
    program_expect(&scratch, 0, "\"differs\": 0",
                   "convert $DIR/in -o $DIR/again --recode --threads 1 --no-verify --json");
    assert_int_equal(scratch_shell(&scratch, "cmp $DIR/set/data.mdb $DIR/again/data.mdb"), 0);
    program_expect(&scratch, 0, "extracted 11 images", "inspect $DIR/set --extract $DIR/out");
    assert_int_equal(scratch_shell(&scratch, "diff -r $DIR/in $DIR/out"), 0);
    program_expect(&scratch, 0, "\"inexact\": 0", "inspect $DIR/shards --json --extract $DIR/two");
    assert_int_equal(scratch_shell(&scratch, "diff -r $DIR/in $DIR/two"), 0);
    program_expect(&scratch, 1, "exists already", "inspect $DIR/set --extract $DIR/out");
    program_expect(&scratch, 0, NULL, "views $DIR/set --count 2 -o $DIR/sheet.png --seed 3");
}

static void plain_datasets_are_extracted_too(void **state)
{
    (void)state;
    draw_images(6, 30);
    program_expect(&scratch, 0, "\"recoded\": null", "convert $DIR/in -o $DIR/set --json");
    program_expect(&scratch, 0, "extracted 6 images", "inspect $DIR/set --extract $DIR/new/out");
    assert_int_equal(scratch_shell(&scratch, "diff -r $DIR/in $DIR/new/out"), 0);
}

// --- real images -------------------------------------------------------------------------------

static void imagenet_sample_converts(void **state)
{
    (void)state;
    if (!present(IMAGENET)) {
        skip();
    }
    program_expect(&scratch, 0, "300 images", "convert " IMAGENET " -o $DIR/lmdb");
    program_expect(&scratch, 0, "300 classes",
                   "convert " IMAGENET " -o $DIR/one --store shards --threads 1 --shard-size 8");
    program_expect(&scratch, 0, "300 classes",
                   "convert " IMAGENET " -o $DIR/five --store shards --threads 5 --shard-size 8");
    assert_int_equal(scratch_shell(&scratch, "diff -r $DIR/one $DIR/five"), 0);
    program_expect(&scratch, 0, "verified", "inspect $DIR/lmdb --verify");
    program_expect(&scratch, 0, "5 zstd shards", "inspect $DIR/one --verify");
    // What tar lists of the shards is what it lists of the source.
    if (scratch_shell(&scratch, "command -v tar && command -v zstd") == 0) {
        assert_int_equal(
            scratch_shell(&scratch, "tar tf " IMAGENET " >$DIR/want; for s in $DIR/one/*.zst; do "
                                    "zstd -dcq $s | tar tf - >>$DIR/got || exit 1; done; "
                                    "diff $DIR/want $DIR/got"),
            0);
    }
}

static void cifar_converts(void **state)
{
    (void)state;
    if (!present(CIFAR)) {
        skip();
    }
    program_expect(&scratch, 0, "10000 images", "convert " CIFAR " -o $DIR/lmdb");
    program_expect(&scratch, 0, "10 classes", "convert " CIFAR " -o $DIR/shards --store shards");
    program_expect(&scratch, 0, "verified", "inspect $DIR/lmdb --verify");
    program_expect(&scratch, 0, "airplane, automobile", "inspect $DIR/shards --verify");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(folders_convert_to_both_stores, setup, teardown),
        cmocka_unit_test_setup_teardown(json_tells_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(tars_and_folders_agree, setup, teardown),
        cmocka_unit_test_setup_teardown(flat_folders_have_no_labels, setup, teardown),
        cmocka_unit_test_setup_teardown(threads_do_not_change_the_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_images_stop_the_conversion_by_name, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_images_are_skipped_counted_and_listed, setup, teardown),
        cmocka_unit_test_setup_teardown(names_that_come_twice_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(cut_tars_are_errors_even_when_skipping, setup, teardown),
        cmocka_unit_test_setup_teardown(mistakes_are_explained, setup, teardown),
        cmocka_unit_test_setup_teardown(datasets_are_replaced_only_by_force, setup, teardown),
        cmocka_unit_test_setup_teardown(full_disks_are_named_and_nothing_is_left, setup, teardown),
        cmocka_unit_test_setup_teardown(limits_on_file_sizes_are_named_and_nothing_is_left, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(killed_conversions_never_open_and_rerun_to_the_same_bytes,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(any_flipped_bit_is_found_by_inspect, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_is_listed_with_file_offset_and_record, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(files_cut_short_are_noticed_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(recoded_images_are_told_and_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(plain_datasets_are_extracted_too, setup, teardown),
        cmocka_unit_test_setup_teardown(imagenet_sample_converts, setup, teardown),
        cmocka_unit_test_setup_teardown(cifar_converts, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
