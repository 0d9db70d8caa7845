// What the cache of plans keeps, and what it makes of files that are damaged, missing or not to be
// written. It needs neither GPU nor CUDA.
#include "trainer/cuda/plan_cache.h"

#include "formats/file.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define LIBRARY "cudnn-9.19.0"
#define DEVICE  "NVIDIA H100 80GB HBM3"

static struct error error;
static char directory[64];

static int open_directory(void **state)
{
    (void)state;
    snprintf(directory, sizeof directory, "/tmp/byol-plans-XXXXXX");
    return mkdtemp(directory) != NULL && setenv("BYOL_CACHE", directory, 1) == 0 ? 0 : -1;
}

static int close_directory(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    file_fault = NULL;
    return system(command);
}

static struct plan_cache *open_cache(const char *device)
{
    struct plan_cache *cache = NULL;
    assert_int_equal(plan_cache_open(&cache, LIBRARY, device, &error), STATUS_OK);
    return cache;
}

static void add(const char *key, const char *plan)
{
    struct plan_cache *cache = open_cache(DEVICE);
    assert_int_equal(plan_cache_add(cache, key, plan, &error), STATUS_OK);
    assert_string_equal(plan_cache_find(cache, key), plan);
    plan_cache_close(&cache);
}

// What a newly opened cache says; NULL when it does not know.
static void expect(const char *key, const char *plan)
{
    struct plan_cache *cache = open_cache(DEVICE);
    const char *found = plan_cache_find(cache, key);
    if (plan != NULL) {
        assert_non_null(found);
        assert_string_equal(found, plan);
    } else {
        assert_null(found);
    }
    plan_cache_close(&cache);
}

static char *read_file(size_t *len)
{
    struct plan_cache *cache = open_cache(DEVICE);
    uint8_t *bytes = NULL;
    assert_int_equal(file_read_all(plan_cache_path(cache), 1 << 20, &bytes, len, &error),
                     STATUS_OK);
    plan_cache_close(&cache);
    return (char *)bytes;
}

static void write_file(const char *bytes, size_t len)
{
    struct plan_cache *cache = open_cache(DEVICE);
    assert_int_equal(file_write_durably(plan_cache_path(cache), bytes, len, &error), STATUS_OK);
    plan_cache_close(&cache);
}

// --- what is kept --------------------------------------------------------------------------------

static void test_kept(void **state)
{
    (void)state;
    expect("a", NULL);
    add("a", "62 2=4");
    add("b", "0");
    add("a", "67 2=5"); // in place of the first
    expect("a", "67 2=5");
    expect("b", "0");
    expect("c", NULL);
}

static void test_devices_apart(void **state)
{
    (void)state;
    add("a", "1");
    struct plan_cache *other = open_cache("NVIDIA A100/../x"), *same = open_cache(DEVICE);
    assert_null(plan_cache_find(other, "a"));
    assert_null(strstr(plan_cache_path(other) + strlen(directory), "/.."));
    assert_non_null(strstr(plan_cache_path(same), "/cudnn-9.19.0-NVIDIA_H100_80GB_HBM3.plans"));
    plan_cache_close(&other);
    plan_cache_close(&same);
}

// Two processes with one file: neither takes away what the other added.
static void test_two_processes(void **state)
{
    (void)state;
    struct plan_cache *first = open_cache(DEVICE), *second = open_cache(DEVICE);
    assert_int_equal(plan_cache_add(first, "a", "1", &error), STATUS_OK);
    assert_int_equal(plan_cache_add(second, "b", "2", &error), STATUS_OK);
    assert_int_equal(plan_cache_add(first, "c", "3", &error), STATUS_OK);
    assert_string_equal(plan_cache_find(first, "b"), "2");
    plan_cache_close(&first);
    plan_cache_close(&second);
    expect("a", "1");
    expect("b", "2");
    expect("c", "3");
}

static void test_many(void **state)
{
    (void)state;
    char key[16], plan[16];
    struct plan_cache *cache = open_cache(DEVICE);
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "key %d", i);
        snprintf(plan, sizeof plan, "%d 1=2", i);
        assert_int_equal(plan_cache_add(cache, key, plan, &error), STATUS_OK);
    }
    plan_cache_close(&cache);
    expect("key 0", "0 1=2");
    expect("key 199", "199 1=2");
}

// --- files that are not as they should be --------------------------------------------------------

// Any byte changed: that line is unknown, or the key is; what is known is what was written.
static void test_damage(void **state)
{
    (void)state;
    add("first key", "62 2=4");
    add("second key", "67 2=5");
    size_t len = 0;
    char *bytes = read_file(&len);
    for (size_t i = 0; i < len; i++) {
        bytes[i] = (char)(bytes[i] ^ 1);
        write_file(bytes, len);
        bytes[i] = (char)(bytes[i] ^ 1);
        struct plan_cache *cache = open_cache(DEVICE);
        const char *first = plan_cache_find(cache, "first key"),
                   *second = plan_cache_find(cache, "second key");
        assert_true(first == NULL || strcmp(first, "62 2=4") == 0);
        assert_true(second == NULL || strcmp(second, "67 2=5") == 0);
        assert_true(first != NULL || second != NULL || bytes[i] == '\n');
        plan_cache_close(&cache);
    }
    free(bytes);
}

static void test_cut_short(void **state)
{
    (void)state;
    add("first key", "62 2=4");
    add("second key", "67 2=5");
    size_t len = 0;
    char *bytes = read_file(&len);
    for (size_t i = 0; i < len; i++) {
        write_file(bytes, i);
        struct plan_cache *cache = open_cache(DEVICE);
        const char *second = plan_cache_find(cache, "second key");
        assert_true(second == NULL || strcmp(second, "67 2=5") == 0);
        plan_cache_close(&cache);
    }
    write_file(bytes, len / 4);
    add("third key", "1"); // the rest is gone, and writing goes on
    expect("first key", NULL);
    expect("third key", "1");
    free(bytes);
}

static void test_other_contents(void **state)
{
    (void)state;
    static const char zeros[100], *const texts[] = {
                                      "",         "\n\n",     "x",         "00000000\t\t",
                                      "\t\t\t\n", "00000000", "00000000\t"};
    write_file(zeros, sizeof zeros);
    expect("a", NULL);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        write_file(texts[i], strlen(texts[i]));
        expect("a", NULL);
    }
    add("a", "1");
    expect("a", "1");
}

// --- places that are not to be had ---------------------------------------------------------------

static int no_space(const char *call, const char *path)
{
    (void)path;
    return strcmp(call, "write") == 0 ? ENOSPC : 0;
}

static void test_no_space(void **state)
{
    (void)state;
    add("a", "1");
    file_fault = no_space;
    add("b", "2"); // known here, though not on disk
    file_fault = NULL;
    expect("a", "1");
    expect("b", NULL);
}

static void test_no_directory(void **state)
{
    (void)state;
    char file[96];
    snprintf(file, sizeof file, "%s/file", directory);
    assert_int_equal(file_write_durably(file, "x", 1, &error), STATUS_OK);
    setenv("BYOL_CACHE", file, 1);
    add("a", "1");
    expect("a", NULL);
    setenv("BYOL_CACHE", directory, 1);
}

static void expect_path(const char *own, const char *base, const char *home, const char *start)
{
    setenv("BYOL_CACHE", own, 1);
    setenv("XDG_CACHE_HOME", base, 1);
    setenv("HOME", home, 1);
    struct plan_cache *cache = open_cache("x");
    char wanted[96] = "";
    if (start[0] != '\0') {
        snprintf(wanted, sizeof wanted, "%s/cudnn-9.19.0-x.plans", start);
    }
    assert_string_equal(plan_cache_path(cache), wanted);
    plan_cache_close(&cache);
}

static void test_places(void **state)
{
    (void)state;
    expect_path("/own", "/base", "/home/me", "/own");
    expect_path("", "/base", "/home/me", "/base/byol");
    expect_path("", "relative", "/home/me", "/home/me/.cache/byol");
    expect_path("", "", "/home/me", "/home/me/.cache/byol");
    expect_path("", "", "", "");
    add("a", "1"); // nowhere to write
    char too_long[700];
    memset(too_long, 'a', sizeof too_long - 1);
    too_long[0] = '/', too_long[sizeof too_long - 1] = '\0';
    expect_path(too_long, "", "", "");
    setenv("BYOL_CACHE", directory, 1);
}

#define each(test) cmocka_unit_test_setup_teardown(test, open_directory, close_directory)

int main(void)
{
    const struct CMUnitTest tests[] = {
        each(test_kept),           each(test_devices_apart), each(test_two_processes),
        each(test_many),           each(test_damage),        each(test_cut_short),
        each(test_other_contents), each(test_no_space),      each(test_no_directory),
        each(test_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
