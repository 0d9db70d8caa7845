// WebDataset shards as sources: groups, labels before and behind, damage, and tars that are none.
#include "formats/limits.h"
#include "tests/support/source_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct source_reading reading;

static const char *shard(void)
{
    return scratch_path(&scratch, "x.tar");
}

// Pairs of name and content up to NULL.
static void write_tar(const char *const *files)
{
    FILE *tar = source_case_create(shard());
    for (; *files != NULL; files += 2) {
        source_case_file(tar, files[0], files[1]);
    }
    source_case_end(tar);
}
#define TAR(...) write_tar((const char *const[]){__VA_ARGS__, NULL})

static void labels_in_front(void **state)
{
    (void)state;
    TAR("0001.cls", "7", "0001.jpg", "AAA", "0002.cls", " 12\n", "0002.png", "BB");
    source_reading_expect(shard(), "WebDataset", "0001.jpg 7 AAA\n0002.png 12 BB\n");
    source_reading_described(shard(), "WebDataset: labels in .cls");
}

static void labels_behind(void **state)
{
    (void)state;
    TAR("./a/x.JPG", "AAA", "./a/x.txt", "about it", "./a/x.json", "{\"label\": 3, \"w\": 5}",
        "./b/x.jpeg", "BB", "./b/x.json", "{\"cls\": 4}");
    source_reading_expect(shard(), "WebDataset", "a/x.JPG 3 AAA\nb/x.jpeg 4 BB\n");
    source_reading_described(shard(), "WebDataset: labels in .json");
    source_reading_all(&reading, shard());
    assert_int_equal(reading.counts.others, 1);
}

static void several_images_share_their_groups_label(void **state)
{
    (void)state;
    TAR("1.jpg", "A", "1.png", "B", "1.cls", "5", "1.webp", "C", "1.seg.png", "no image", "2.jpg",
        "D", "2.cls", "6");
    source_reading_expect(shard(), "WebDataset", "1.jpg 5 A\n1.png 5 B\n1.webp 5 C\n2.jpg 6 D\n");
}

static void a_filename_that_spells_the_key_is_the_name(void **state)
{
    (void)state;
    TAR("c/1.cls", "5", "c/1.json", "{\"filename\": \"c/1.JPEG\"}", "c/1.jpg", "A", "c/1.png", "B",
        "a%2Eb.json", "{\"label\": 2, \"filename\": \"a.b\"}", "a%2Eb.jpg", "C", "2.json",
        "{\"label\": 3, \"filename\": \"3.jpg\"}", "2.jpg", "D", "3.json",
        "{\"label\": 3, \"filename\": \"3.jpg/../../x\"}", "3.jpg", "E", "4.jpg", "F", "4.json",
        "{\"label\": 3, \"filename\": \"4.JPEG\"}", "5.cls", "1", "5.json", "{\"filename\": 7}",
        "5.jpg", "G");
    source_reading_expect(shard(), "WebDataset",
                          "c/1.JPEG 5 A\nc/1.png 5 B\na.b 2 C\n2.jpg 3 D\n3.jpg 3 E\n4.jpg 3 F\n"
                          "5.jpg 1 G\n");
    source_reading_described(shard(), "WebDataset: labels in .cls and .json");
}

static void images_without_a_label_have_none(void **state)
{
    (void)state;
    TAR("1.cls", "5", "1.jpg", "A", "2.jpg", "B", "3.jpg", "C", "3.json", "{\"w\": 1}", "4.cls",
        "-1", "4.jpg", "D", "5.jpg", "E");
    source_reading_expect(shard(), "WebDataset",
                          "1.jpg 5 A\n2.jpg -1 B\n3.jpg -1 C\n4.jpg -1 D\n"
                          "5.jpg -1 E\n");
}

static void a_bad_label_makes_its_images_bad(void **state)
{
    (void)state;
    TAR("1.cls", "5", "1.jpg", "A", "2.cls", "cat", "2.jpg", "B", "3.jpg", "C", "3.cls", "",
        "4.cls", "99999999999999999999", "4.jpg", "D", "5.jpg", "E", "5.json",
        "{\"label\": ", "6.cls", "-2", "6.jpg", "F", "7.cls", "1", "7.json", "no JSON", "7.jpg",
        "G");
    source_reading_all(&reading, shard());
    assert_int_equal(reading.status, STATUS_END);
    assert_non_null(strstr(reading.lines, "1.jpg 5 A\n"));
    assert_non_null(strstr(reading.lines, "2.jpg -1 !its .cls file is no decimal number: 'cat'\n"));
    assert_non_null(strstr(reading.lines, "3.jpg -1 !its .cls file is no decimal number: ''\n"));
    assert_non_null(strstr(reading.lines, "4.jpg -1 !its .cls file is no decimal number"));
    assert_non_null(strstr(reading.lines, "5.jpg -1 !its .json file"));
    assert_non_null(strstr(reading.lines, "6.jpg -1 !its .cls file says -2, no label\n"));
    assert_non_null(strstr(reading.lines, "7.jpg 1 G\n"));
}

static void other_tars_are_plain(void **state)
{
    (void)state;
    TAR("1.jpg", "A", "1.txt", "5", "2.jpg", "B");
    source_reading_expect(shard(), "tar", "1.jpg -2 A\n2.jpg -2 B\n");
    TAR("a/1.jpg", "A", "a/1.json", "{\"width\": 5}", "b/2.jpg", "B");
    source_reading_expect(shard(), "tar", "a/1.jpg -2 A\nb/2.jpg -2 B\n");
    TAR("1.jpg", "A", "2.cls", "5", "3.jpg", "B"); // no group has both
    source_reading_expect(shard(), "tar", "1.jpg -2 A\n3.jpg -2 B\n");
}

static void links_and_hostile_names(void **state)
{
    (void)state;
    FILE *tar = source_case_create(shard());
    source_case_file(tar, "1.cls", "5");
    source_case_member(tar, "1.jpg", '2', "", 0);
    source_case_member(tar, "1.jpeg", '1', "", 0);
    source_case_file(tar, "1.png", "A");
    source_case_file(tar, "../2.cls", "6");
    source_case_file(tar, "../2.jpg", "B");
    source_case_file(tar, "/3.jpg", "C");
    source_case_file(tar, "/3.cls", "7");
    source_case_file(tar, ".4.jpg", "D");
    source_case_end(tar);
    source_reading_expect(shard(), "WebDataset",
                          "1.png 5 A\n../2.jpg 6 !its name has a \"..\" component\n"
                          "/3.jpg 7 !its name is an absolute path\n");
    source_reading_all(&reading, shard());
    assert_int_equal(reading.counts.links, 2);
    assert_int_equal(reading.counts.others, 1);
}

static void endless_groups_are_refused(void **state)
{
    (void)state;
    FILE *tar = source_case_create(shard());
    source_case_file(tar, "0.cls", "5");
    source_case_file(tar, "0.jpg", "A");
    for (int i = 0; i < 40; i++) {
        source_case_file(tar, "1.jpg", "A");
    }
    source_case_file(tar, "1.cls", "5");
    source_case_end(tar);
    source_reading_all(&reading, shard());
    assert_int_equal(reading.status, STATUS_LIMIT);
    assert_non_null(strstr(reading.error.reason, "before their label"));
}

static void images_above_the_limit_are_refused_and_the_rest_read(void **state)
{
    (void)state;
    char *large = calloc(1, LIMIT_IMAGE_BYTES + 1);
    assert_non_null(large);
    FILE *tar = source_case_create(shard());
    source_case_file(tar, "1.cls", "5");
    source_case_file(tar, "1.jpg", "A");
    source_case_member(tar, "2.jpg", '0', large, LIMIT_IMAGE_BYTES + 1);
    source_case_file(tar, "2.json", "{}");
    source_case_file(tar, "3.jpg", "C");
    source_case_file(tar, "3.cls", "7");
    source_case_end(tar);
    free(large);
    source_reading_all(&reading, shard());
    assert_int_equal(reading.status, STATUS_END);
    assert_non_null(strstr(reading.lines, "2.jpg -1 !33554433 bytes long"));
    assert_non_null(strstr(reading.lines, "3.jpg 7 C\n"));
}

static void damage_does_no_harm(void **state)
{
    (void)state;
    TAR("0001.cls", "7", "0001.jpg", "AAA", "0002.jpg", "BB", "0002.json", "{\"label\": 3}");
    source_case_cuts(shard(), 371);
    source_case_mutants(shard(), shard(), 0, 300);
}

static void compressed_shards_are_read(void **state)
{
    (void)state;
    static const char *const programs[] = {"gzip", "zstd"};
    unsigned tried = 0;
    TAR("1.cls", "7", "1.jpg", "A", "2.jpg", "B", "2.cls", "8");
    for (size_t i = 0; i < 2; i++) {
        char command[1000], packed[450];
        snprintf(packed, sizeof packed, "%s.z", shard());
        snprintf(command, sizeof command, "%s -c '%s' >'%s' 2>/dev/null", programs[i], shard(),
                 packed);
        if (system(command) == 0) {
            tried++;
            source_reading_expect(packed, "WebDataset", "1.jpg 7 A\n2.jpg 8 B\n");
        }
    }
    if (tried == 0) {
        printf("skipped: neither gzip nor zstd is installed\n");
        skip();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SOURCE_TEST(labels_in_front),
        SOURCE_TEST(labels_behind),
        SOURCE_TEST(several_images_share_their_groups_label),
        SOURCE_TEST(a_filename_that_spells_the_key_is_the_name),
        SOURCE_TEST(images_without_a_label_have_none),
        SOURCE_TEST(a_bad_label_makes_its_images_bad),
        SOURCE_TEST(other_tars_are_plain),
        SOURCE_TEST(links_and_hostile_names),
        SOURCE_TEST(endless_groups_are_refused),
        SOURCE_TEST(images_above_the_limit_are_refused_and_the_rest_read),
        SOURCE_TEST(damage_does_no_harm),
        SOURCE_TEST(compressed_shards_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
