// Folders and tars as sources: order, what is passed over, hostile names, cut and damaged archives.
#include "formats/dataset.h"
#include "formats/file.h"
#include "formats/limits.h"
#include "formats/source.h"
#include "tests/support/mutate.h"
#include "tests/support/program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct scratch scratch;
static char path[400];

static int setup(void **state)
{
    (void)state;
    scratch_make(&scratch);
    snprintf(path, sizeof path, "%s/in", scratch.path);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(&scratch);
    return 0;
}

// --- making ------------------------------------------------------------------------------------

// Without the syncs of file_write_durably, which thousands of files would feel.
static void write_bytes(const char *name, const void *bytes, size_t len)
{
    FILE *file = fopen(name, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static void put_file(const char *name, const char *text)
{
    char full[900];
    snprintf(full, sizeof full, "%s/%s", path, name);
    char *slash = strrchr(full, '/');
    *slash = '\0';
    assert_int_equal(file_make_directories(full, NULL), STATUS_OK);
    *slash = '/';
    write_bytes(full, text, strlen(text));
}

// A ustar member of any type; its data is `size` bytes that repeat `text`.
static void put_member(FILE *tar, const char *name, char type, const char *text, size_t size)
{
    char block[512] = {0};
    snprintf(block, 100, "%s", name);
    snprintf(block + 100, 8, "0000644");
    char digits[32];
    snprintf(digits, sizeof digits, "%011zo", size);
    memcpy(block + 124, digits, 11);
    block[156] = type;
    if (type == '1' || type == '2') {
        snprintf(block + 157, 100, "target.jpg");
    }
    snprintf(block + 257, 6, "ustar");
    block[263] = block[264] = '0';
    memset(block + 148, ' ', 8);
    unsigned sum = 0;
    for (int i = 0; i < 512; i++) {
        sum += (uint8_t)block[i];
    }
    snprintf(block + 148, 8, "%06o", sum);
    assert_int_equal(fwrite(block, 512, 1, tar), 1);
    for (size_t at = 0, next = 0; at < size; at++) {
        putc(text[next], tar);
        next = text[next + 1] == '\0' ? 0 : next + 1;
    }
    for (size_t at = size; at % 512 != 0; at++) {
        putc(0, tar);
    }
}

static void put_image(FILE *tar, const char *name)
{
    put_member(tar, name, '0', name, strlen(name));
}

static FILE *begin_tar(void)
{
    FILE *tar = fopen(path, "wb");
    assert_non_null(tar);
    return tar;
}

static void end_tar(FILE *tar)
{
    static const char zeros[1024];
    assert_int_equal(fwrite(zeros, sizeof zeros, 1, tar), 1);
    assert_int_equal(fclose(tar), 0);
}

// --- reading -----------------------------------------------------------------------------------

struct outcome {
    char names[8192]; // one per line; with " !" and the fault for bad ones
    struct source_counts counts;
    enum status status; // STATUS_END when it went well
    struct error error;
};

// Reads all of `source_name`; checks that the bytes are the name, as put_image wrote them, when
// `check` is set.
static void read_source(struct outcome *outcome, const char *source_name, bool check)
{
    struct source *source;
    struct source_member member;
    uint8_t *bytes = NULL;
    size_t len, capacity = 0;
    memset(outcome, 0, sizeof *outcome);
    outcome->status = source_open(&source, source_name, &outcome->error);
    while (outcome->status == STATUS_OK) {
        outcome->status = source_next(source, &member, &outcome->error);
        if (outcome->status != STATUS_OK) {
            break;
        }
        size_t used = strlen(outcome->names);
        snprintf(outcome->names + used, sizeof outcome->names - used, "%s%s%s\n", member.name,
                 member.fault ? " !" : "", member.fault ? member.fault : "");
        outcome->status = source_read(source, &bytes, &len, &capacity, &outcome->error);
        if (outcome->status == STATUS_OK && check) {
            assert_int_equal(len, member.size);
            assert_memory_equal(bytes, member.name, len);
        }
    }
    if (source != NULL) {
        outcome->counts = source_counts(source);
    }
    free(bytes);
    source_close(&source);
}

static void expect_names(const char *names, uint64_t others, uint64_t links)
{
    struct outcome outcome;
    read_source(&outcome, path, true);
    if (outcome.status != STATUS_END) {
        fail_msg("%s", outcome.error.reason);
    }
    assert_string_equal(outcome.names, names);
    assert_int_equal(outcome.counts.others, others);
    assert_int_equal(outcome.counts.links, links);
}

static void folders_are_walked_in_order_of_names(void **state)
{
    (void)state;
    static const char *const names[] = {"b/2.jpg",
                                        "b/10.jpg",
                                        "a/z/1.PNG",
                                        "a/b.jpeg",
                                        "B/1.jpe",
                                        "c.jfif",
                                        "\xc3\xa4/\xc3\xb6.jpg"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        put_file(names[i], names[i]);
    }
    put_file("README.txt", "text");
    put_file("a/.hidden.jpg", "text");
    put_file("empty", "");
    expect_names("B/1.jpe\na/b.jpeg\na/z/1.PNG\nb/10.jpg\nb/2.jpg\nc.jfif\n"
                 "\xc3\xa4/\xc3\xb6.jpg\n",
                 3, 0);
}

static void links_and_special_files_of_a_folder_are_not_followed(void **state)
{
    (void)state;
    char outside[450], link[450];
    put_file("a/1.jpg", "a/1.jpg");
    snprintf(outside, sizeof outside, "%s/outside", scratch.path);
    assert_int_equal(mkdir(outside, 0755), 0);
    snprintf(link, sizeof link, "%s/link", path);
    assert_int_equal(symlink(outside, link), 0);
    snprintf(link, sizeof link, "%s/a/2.jpg", path);
    assert_int_equal(symlink("1.jpg", link), 0);
    snprintf(link, sizeof link, "%s/a/3.jpg", path);
    assert_int_equal(mkfifo(link, 0644), 0);
    snprintf(link, sizeof link, "%s/a/loop", path);
    assert_int_equal(symlink("..", link), 0);
    expect_names("a/1.jpg\n", 0, 4);
    // The folder itself may be a link: that is what the person typed.
    snprintf(link, sizeof link, "%s/alias", scratch.path);
    assert_int_equal(symlink(path, link), 0);
    struct outcome outcome;
    read_source(&outcome, link, true);
    assert_int_equal(outcome.status, STATUS_END);
    assert_string_equal(outcome.names, "a/1.jpg\n");
}

static void images_are_known_by_their_first_bytes_too(void **state)
{
    (void)state;
    put_file("jpeg", "\xff\xd8\xff\xe0 and so on");
    put_file("png.data", "\x89PNG\r\n");
    put_file("short", "\xff\xd8");
    put_file("text", "\xff\xd8 no");
    struct outcome outcome;
    read_source(&outcome, path, false);
    assert_int_equal(outcome.status, STATUS_END);
    assert_string_equal(outcome.names, "jpeg\npng.data\n");
    assert_int_equal(outcome.counts.others, 2);
    struct source *source;
    struct source_member member;
    uint8_t *bytes = NULL;
    size_t len, capacity = 0;
    assert_int_equal(source_open(&source, path, NULL), STATUS_OK);
    assert_int_equal(source_next(source, &member, NULL), STATUS_OK);
    assert_int_equal(source_read(source, &bytes, &len, &capacity, NULL), STATUS_OK);
    assert_int_equal(len, 14);
    assert_memory_equal(bytes, "\xff\xd8\xff\xe0 and so on", len);
    free(bytes);
    source_close(&source);
}

static void tars_keep_their_order(void **state)
{
    (void)state;
    FILE *tar = begin_tar();
    put_member(tar, "./", '5', "", 0);
    put_image(tar, "b/2.jpg");
    put_member(tar, "notes.txt", '0', "hello", 5000);
    put_image(tar, "b/1.jpg");
    put_member(tar, "old.jpg", '\0', "old.jpg", 7);
    put_image(tar, "\xc3\xa4/1.jpg");
    end_tar(tar);
    expect_names("b/2.jpg\nb/1.jpg\nold.jpg\n\xc3\xa4/1.jpg\n", 1, 0);
}

static void links_devices_and_strange_members_are_counted(void **state)
{
    (void)state;
    FILE *tar = begin_tar();
    put_image(tar, "1.jpg");
    for (const char *type = "12346"; *type; type++) {
        put_member(tar, "strange.jpg", *type, "", 0);
    }
    put_image(tar, "2.jpg");
    end_tar(tar);
    expect_names("1.jpg\n2.jpg\n", 0, 5);
}

static void hostile_names_are_found_out(void **state)
{
    (void)state;
    FILE *tar = begin_tar();
    put_image(tar, "/etc/1.jpg");
    put_image(tar, "../2.jpg");
    put_image(tar, "a/../3.jpg");
    put_image(tar, "a//4.jpg");
    put_image(tar, "a\n5.jpg");
    put_image(tar, "\xff\xfe.jpg");
    end_tar(tar);
    struct outcome outcome;
    read_source(&outcome, path, false);
    assert_int_equal(outcome.status, STATUS_END);
    assert_int_equal(outcome.counts.images, 6);
    assert_non_null(strstr(outcome.names, "1.jpg !is an absolute path\n"));
    assert_non_null(strstr(outcome.names, "2.jpg !has a \"..\" component\n"));
    assert_non_null(strstr(outcome.names, "3.jpg !has a \"..\" component\n"));
    assert_non_null(strstr(outcome.names, "4.jpg !has an empty component\n"));
    assert_non_null(strstr(outcome.names, "5.jpg !holds a control character\n"));
    assert_non_null(strstr(outcome.names, "!is not valid UTF-8\n"));
}

static void write_sample_tar(void)
{
    FILE *tar = begin_tar();
    put_image(tar, "a/1.jpg");
    put_member(tar, "a/2.jpg", '0', "a/2.jpg", 3000);
    put_image(tar, "b/3.jpg");
    end_tar(tar);
}

static void compressed_tars_are_read(void **state)
{
    (void)state;
    static const char *const programs[] = {"gzip", "zstd", "xz", "bzip2"};
    unsigned tried = 0;
    write_sample_tar();
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        char command[1000];
        snprintf(command, sizeof command, "%s -c '%s' >'%s.z' 2>/dev/null", programs[i], path,
                 path);
        if (system(command) != 0) {
            continue;
        }
        tried++;
        struct outcome outcome;
        snprintf(command, sizeof command, "%s.z", path);
        read_source(&outcome, command, false);
        assert_int_equal(outcome.status, STATUS_END);
        assert_string_equal(outcome.names, "a/1.jpg\na/2.jpg\nb/3.jpg\n");
        // Cut short, it is an error, wherever the cut.
        uint8_t *bytes;
        size_t len;
        assert_int_equal(file_read_all(command, 1 << 20, &bytes, &len, NULL), STATUS_OK);
        for (size_t cut = 0; cut + 12 < len; cut++) { // a gzip's last bytes are its own checksum
            write_bytes(command, bytes, cut);
            read_source(&outcome, command, false);
            if (outcome.status == STATUS_END || outcome.status == STATUS_OK) {
                fail_msg("%s cut at %zu of %zu passes for whole", programs[i], cut, len);
            }
        }
        free(bytes);
    }
    if (tried == 0) {
        printf("skipped: none of gzip, zstd, xz and bzip2 is installed\n");
        skip();
    }
}

static void cut_tars_never_pass_for_whole(void **state)
{
    (void)state;
    write_sample_tar();
    uint8_t *bytes;
    size_t len;
    assert_int_equal(file_read_all(path, 1 << 20, &bytes, &len, NULL), STATUS_OK);
    for (size_t cut = 0; cut < len; cut += cut % 512 < 3 || cut % 512 > 508 ? 1 : 101) {
        write_bytes(path, bytes, cut);
        struct outcome outcome;
        read_source(&outcome, path, false);
        if (outcome.status == STATUS_END || outcome.status == STATUS_OK) {
            fail_msg("cut at %zu of %zu passes for whole", cut, len);
        }
        if (cut >= 512) {
            assert_int_equal(outcome.status, STATUS_TRUNCATED);
            assert_string_equal(outcome.error.path, path);
        }
    }
    free(bytes);
}

static void damaged_tars_do_no_harm(void **state)
{
    (void)state;
    write_sample_tar();
    uint8_t *bytes;
    size_t len;
    uint64_t random = 7;
    unsigned whole = 0;
    assert_int_equal(file_read_all(path, 1 << 20, &bytes, &len, NULL), STATUS_OK);
    for (unsigned i = 0; i < 1500; i++) {
        size_t mutant_len;
        uint8_t *mutant = mutate_copy(bytes, len, 0, &random, &mutant_len);
        write_bytes(path, mutant, mutant_len);
        free(mutant);
        struct outcome outcome;
        read_source(&outcome, path, false);
        assert_true(outcome.status != STATUS_OK && outcome.status != STATUS_NO_MEMORY);
        whole += outcome.status == STATUS_END;
    }
    free(bytes);
    assert_in_range(whole, 1, 1499); // damage of data alone is for the decoder to find
}

static void images_above_the_limit_are_refused_and_the_rest_read(void **state)
{
    (void)state;
    FILE *tar = begin_tar();
    put_member(tar, "big.jpg", '0', "x", LIMIT_IMAGE_BYTES + 1);
    put_image(tar, "1.jpg");
    end_tar(tar);
    struct source *source;
    struct source_member member;
    uint8_t *bytes = NULL;
    size_t len, capacity = 0;
    assert_int_equal(source_open(&source, path, NULL), STATUS_OK);
    assert_int_equal(source_next(source, &member, NULL), STATUS_OK);
    assert_int_equal(source_read(source, &bytes, &len, &capacity, NULL), STATUS_LIMIT);
    assert_int_equal(source_next(source, &member, NULL), STATUS_OK);
    assert_int_equal(source_read(source, &bytes, &len, &capacity, NULL), STATUS_OK);
    assert_memory_equal(bytes, "1.jpg", 5);
    assert_int_equal(source_next(source, &member, NULL), STATUS_END);
    free(bytes);
    source_close(&source);
}

static void what_is_no_tar_is_named(void **state)
{
    (void)state;
    static const char *const contents[] = {"", "just text", "\xff\xd8\xff\xe0 a picture"};
    static const char *const seen[] = {"an empty file", "a text file", "a single JPEG file"};
    struct outcome outcome;
    read_source(&outcome, path, false);
    assert_int_equal(outcome.status, STATUS_NOT_FOUND);
    assert_string_equal(outcome.error.path, path);
    for (size_t i = 0; i < 3; i++) {
        write_bytes(path, contents[i], strlen(contents[i]));
        read_source(&outcome, path, false);
        assert_int_equal(outcome.status, STATUS_UNSUPPORTED);
        assert_non_null(strstr(outcome.error.reason, seen[i]));
        assert_non_null(strstr(outcome.error.reason, "tar, folder of images"));
    }
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0644), 0);
    read_source(&outcome, path, false);
    assert_int_equal(outcome.status, STATUS_UNSUPPORTED);
}

// --- plans -------------------------------------------------------------------------------------

static struct source_plan *plan_of(const char *const *names)
{
    FILE *tar = begin_tar();
    for (; *names != NULL; names++) {
        put_image(tar, *names);
    }
    end_tar(tar);
    struct source_plan *plan;
    struct source *source;
    assert_int_equal(source_plan_open(&plan, NULL), STATUS_OK);
    assert_int_equal(source_open(&source, path, NULL), STATUS_OK);
    assert_int_equal(source_plan_scan(plan, source, NULL, NULL, NULL), STATUS_OK);
    source_close(&source);
    assert_int_equal(source_plan_finish(plan, NULL), STATUS_OK);
    return plan;
}

static void expect_record(const struct source_plan *plan, const char *member, const char *name,
                          int32_t label)
{
    int32_t got = -3;
    const struct source_member read = {.name = member, .label = SOURCE_LABEL_OF_NAME};
    assert_string_equal(source_plan_name(plan, &read, &got), name);
    assert_int_equal(got, label);
}

static void first_folder_is_the_class(void **state)
{
    (void)state;
    struct source_plan *plan = plan_of((const char *const[]){"dog/1.jpg", "cat/1.jpg", "dog2/x.jpg",
                                                             "loose.jpg", "cat/deep/2.jpg", NULL});
    assert_int_equal(source_plan_images(plan), 5);
    assert_int_equal(source_plan_class_count(plan), 3);
    assert_string_equal(source_plan_classes(plan)[0], "cat");
    assert_string_equal(source_plan_classes(plan)[1], "dog");
    assert_string_equal(source_plan_classes(plan)[2], "dog2");
    expect_record(plan, "dog/1.jpg", "dog/1.jpg", 1);
    expect_record(plan, "dog2/x.jpg", "dog2/x.jpg", 2);
    expect_record(plan, "cat/deep/2.jpg", "cat/deep/2.jpg", 0);
    expect_record(plan, "loose.jpg", "loose.jpg", DATASET_NO_LABEL);
    source_plan_close(&plan);
}

static void shared_folders_are_dropped(void **state)
{
    (void)state;
    struct source_plan *plan = plan_of((const char *const[]){
        "./data/train/cat/1.jpg", "./data/train/car/1.jpg", "../bad.jpg", NULL});
    assert_int_equal(source_plan_class_count(plan), 2);
    expect_record(plan, "data/train/cat/1.jpg", "cat/1.jpg", 1);
    expect_record(plan, "data/train/car/1.jpg", "car/1.jpg", 0);
    source_plan_close(&plan);

    plan = plan_of((const char *const[]){"train/a/1.jpg", "trail/a/1.jpg", NULL});
    assert_int_equal(source_plan_class_count(plan), 2);
    expect_record(plan, "train/a/1.jpg", "train/a/1.jpg", 1);
    source_plan_close(&plan);
}

static void flat_collections_have_no_classes(void **state)
{
    (void)state;
    struct source_plan *plan = plan_of((const char *const[]){"1.jpg", "2.jpg", NULL});
    assert_int_equal(source_plan_class_count(plan), 0);
    expect_record(plan, "2.jpg", "2.jpg", DATASET_NO_LABEL);
    source_plan_close(&plan);
    plan = plan_of((const char *const[]){"all/of/1.jpg", "all/of/2.jpg", NULL});
    assert_int_equal(source_plan_class_count(plan), 0);
    expect_record(plan, "all/of/2.jpg", "2.jpg", DATASET_NO_LABEL);
    source_plan_close(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(folders_are_walked_in_order_of_names, setup, teardown),
        cmocka_unit_test_setup_teardown(links_and_special_files_of_a_folder_are_not_followed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(images_are_known_by_their_first_bytes_too, setup, teardown),
        cmocka_unit_test_setup_teardown(tars_keep_their_order, setup, teardown),
        cmocka_unit_test_setup_teardown(links_devices_and_strange_members_are_counted, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(hostile_names_are_found_out, setup, teardown),
        cmocka_unit_test_setup_teardown(compressed_tars_are_read, setup, teardown),
        cmocka_unit_test_setup_teardown(cut_tars_never_pass_for_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_tars_do_no_harm, setup, teardown),
        cmocka_unit_test_setup_teardown(images_above_the_limit_are_refused_and_the_rest_read, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_is_no_tar_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(first_folder_is_the_class, setup, teardown),
        cmocka_unit_test_setup_teardown(shared_folders_are_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(flat_collections_have_no_classes, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
