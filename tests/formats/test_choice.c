// Choosing images by lists and rules, and names with braces.
#include "formats/braces.h"
#include "formats/file.h"
#include "formats/md5.h"
#include "formats/name_list.h"
#include "formats/split_rules.h"
#include "tests/support/program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void expect_names(const char *text, const char *want)
{
    struct braces operands = {0};
    struct error error;
    char got[2000] = "";
    assert_int_equal(braces_expand(&operands, text, &error), STATUS_OK);
    for (size_t i = 0; i < operands.count; i++) {
        size_t used = strlen(got);
        snprintf(got + used, sizeof got - used, "%s%s", i ? " " : "", operands.item[i]);
    }
    assert_string_equal(got, want);
    braces_free(&operands);
}

static void braces_are_expanded(void **state)
{
    (void)state;
    expect_names("plain.tar", "plain.tar");
    expect_names("s3-{000009..000011}.tar", "s3-000009.tar s3-000010.tar s3-000011.tar");
    expect_names("{8..10}", "8 9 10");
    expect_names("a{b,c,}d", "abd acd ad");
    expect_names("{x,y}/{0..1}.tar", "x/0.tar x/1.tar y/0.tar y/1.tar");
    expect_names("odd{name", "odd{name");
    expect_names("odd{name}", "odd{name}");
    expect_names("{1..x}", "{1..x}");
    struct braces operands = {0};
    struct error error;
    assert_int_equal(braces_expand(&operands, "{5..2}", &error), STATUS_INVALID);
    assert_int_equal(braces_expand(&operands, "{0..99999999}", &error), STATUS_INVALID);
    assert_int_equal(braces_expand(&operands, "{1..1000}{1..1000}{1..1000}", &error), STATUS_LIMIT);
    braces_free(&operands);
}

static void random_rules_do_not_depend_on_the_order(void **state)
{
    (void)state;
    uint64_t a = split_rule_key(RULE_RANDOM, "a/1.jpg", 0);
    assert_true(a == split_rule_key(RULE_RANDOM, "a/1.jpg", 0));
    assert_true(a != split_rule_key(RULE_RANDOM, "a/1.jpg", 1));
    assert_true(a != split_rule_key(RULE_RANDOM, "a/2.jpg", 0));
    enum { N = 1000 };
    static uint64_t keys[N];
    static uint8_t where[N];
    for (unsigned i = 0; i < N; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        keys[i] = split_rule_key(RULE_RANDOM, name, 3);
        where[i] = RULE_OPEN;
    }
    struct split_rule rules[3];
    size_t count;
    const struct split_keys all = {.random = keys};
    assert_int_equal(split_rules_parse(rules, 3, &count, "x=12.5%,y=random:100,z=87.5%", NULL),
                     STATUS_OK);
    assert_int_equal(split_rules_apply(rules, 2, &all, where, N, NULL), STATUS_OK);
    unsigned taken[3] = {0}, early = 0;
    for (unsigned i = 0; i < N; i++) {
        taken[where[i] < 2 ? where[i] : 2]++;
        early += where[i] == 0 && i < N / 2;
    }
    assert_int_equal(taken[0], 125);
    assert_int_equal(taken[1], 100);
    assert_in_range(early, 40, 85);
    assert_int_equal(split_rules_parse(rules, 2, &count, "x=1%,y=1%,z=1%", NULL), STATUS_LIMIT);
}

// The order of TensorFlow Datasets: MD5 of the split's name and the file's.
static void the_order_of_tfds_is_known(void **state)
{
    (void)state;
    uint8_t digest[MD5_BYTES];
    static const uint8_t want[MD5_BYTES] = {0x90, 0x01, 0x50, 0x98, 0x3c, 0xd2, 0x4f, 0xb0,
                                            0xd6, 0x96, 0x3f, 0x7d, 0x28, 0xe1, 0x7f, 0x72};
    md5("abc", 3, digest);
    assert_memory_equal(digest, want, MD5_BYTES);
    assert_true(split_rule_key(RULE_TFDS, "n01440764/n01440764_10026.JPEG", 0) ==
                UINT64_C(0x79e67b1504cd9c1e));
    assert_true(split_rule_key(RULE_TFDS, "n01440764_10026.JPEG", 9) ==
                UINT64_C(0x79e67b1504cd9c1e));
}

static void lists_are_read_with_and_without_values(void **state)
{
    (void)state;
    struct scratch scratch;
    scratch_make(&scratch);
    char path[400];
    snprintf(path, sizeof path, "%s/list", scratch.path);
    static const char text[] = "# names\r\n b/two words.jpg \t 7\r\n\na.jpg cat\nlast.jpg x";
    assert_int_equal(file_write_durably(path, text, strlen(text), NULL), STATUS_OK);
    struct name_list list = {0};
    assert_int_equal(name_list_read(&list, path, true, NULL), STATUS_OK);
    assert_int_equal(list.count, 3);
    assert_string_equal(list.lines[0].name, "b/two words.jpg");
    assert_string_equal(list.lines[0].value, "7");
    assert_int_equal(list.lines[0].number, 2);
    assert_int_equal(list.lines[1].number, 4);
    assert_int_equal(name_list_sort(&list, NULL), STATUS_OK);
    assert_string_equal(name_list_find(&list, "x/y/a.jpg")->value, "cat");
    assert_string_equal(name_list_find(&list, "x/b/two words.jpg")->value, "7");
    assert_null(name_list_find(&list, "words.jpg"));
    assert_null(name_list_find(&list, "xa.jpg"));
    name_list_find(&list, "a.jpg")->used = true;
    const struct name_line *first;
    assert_int_equal(name_list_unused(&list, &first), 2);
    assert_int_equal(first->number, 2);
    name_list_free(&list);
    assert_int_equal(name_list_read(&list, path, false, NULL), STATUS_OK);
    assert_string_equal(list.lines[1].name, "a.jpg cat");
    name_list_free(&list);
    struct error error;
    assert_int_equal(file_write_durably(path, "a\0b", 3, NULL), STATUS_OK);
    assert_int_equal(name_list_read(&list, path, false, &error), STATUS_INVALID);
    assert_int_equal(error.offset, 1);
    name_list_free(&list);
    scratch_remove(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(braces_are_expanded),
        cmocka_unit_test(random_rules_do_not_depend_on_the_order),
        cmocka_unit_test(the_order_of_tfds_is_known),
        cmocka_unit_test(lists_are_read_with_and_without_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
