// Settings: types, nesting, exact complaints, all or nothing, and printing that reads back.
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "formats/limits.h"
#include "formats/settings.h"
#include "tests/support/mutate.h"

struct sample {
    bool fast;
    int64_t batch;
    double rate;
    char name[16];
    int policy;
    double probability;
    int64_t taps;
};

struct extra {
    int64_t size;
};

#define AT(type, member) offsetof(struct type, member)

static const struct settings_field sample_fields[] = {
    {.key = "fast", .type = SETTINGS_BOOL, .offset = AT(sample, fast), .help = "Run fast"},
    {"batch", SETTINGS_INT, AT(sample, batch), 1, 65536, 0, NULL, "Images a step"},
    {"rate", SETTINGS_FLOAT, AT(sample, rate), -DBL_MAX, DBL_MAX, 0, NULL, "Learning rate"},
    {"name", SETTINGS_STRING, AT(sample, name), 0, 0, 16, NULL, "Who"},
    {"policy", SETTINGS_CHOICE, AT(sample, policy), 0, 0, 0, "fatal|skip|none", "On bad records"},
    {"view.blur.probability", SETTINGS_FLOAT, AT(sample, probability), 0, 1, 0, NULL, "Share"},
    {"view.blur.taps", SETTINGS_INT, AT(sample, taps), -3, 99, 0, NULL, "Width"},
};
static const struct settings_field extra_fields[] = {
    {"size", SETTINGS_INT, AT(extra, size), 8, 1024, 0, NULL, "Pixels a side"},
};

struct both {
    struct sample sample;
    struct extra extra;
    struct settings_section sections[2];
};

static void both_init(struct both *both)
{
    memset(both, 0, sizeof *both);
    both->sample =
        (struct sample){.batch = 256, .rate = 0.5, .name = "old", .policy = 1, .taps = 3};
    both->extra.size = 224;
    size_t count = sizeof sample_fields / sizeof *sample_fields;
    both->sections[0] = (struct settings_section){"", sample_fields, count, &both->sample};
    both->sections[1] = (struct settings_section){"views.", extra_fields, 1, &both->extra};
}

static enum status load(struct both *both, const char *text, struct error *error)
{
    *error = (struct error){0};
    return settings_load_text("file.yaml", text, strlen(text), both->sections, 2, error);
}

static void test_every_type_is_read(void **state)
{
    (void)state;
    struct both both;
    struct error error;
    both_init(&both);
    assert_int_equal(load(&both,
                          "# a comment\n"
                          "fast: yes\n"
                          "batch: 4096\n"
                          "rate: 3.2e-1\n"
                          "name: 'a b: \"c\"'\n"
                          "policy: none\n"
                          "view:\n"
                          "  blur: {probability: 1, taps: -3}\n"
                          "views.size: 96\n",
                          &error),
                     STATUS_OK);
    assert_true(both.sample.fast);
    assert_int_equal(both.sample.batch, 4096);
    assert_true(both.sample.rate == 0.32);
    assert_string_equal(both.sample.name, "a b: \"c\"");
    assert_int_equal(both.sample.policy, 2);
    assert_true(both.sample.probability == 1);
    assert_int_equal(both.sample.taps, -3);
    assert_int_equal(both.extra.size, 96);
}

static void test_flat_and_nested_keys_mean_the_same(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "view.blur.probability: 0.25\nview.blur.taps: 7\nviews.size: 32\n",
        "view:\n  blur:\n    probability: 0.25\n    taps: 7\nviews:\n  size: 32\n",
        "view.blur:\n  probability: 0.25\nview.blur.taps: 7\nviews: {size: 32}\n",
        "view: {blur.taps: 7, blur: {probability: 0.25}}\nviews.size: 32\n",
        "{\"view\": {\"blur\": {\"taps\": 7, \"probability\": 0.25}}, \"views.size\": 32}",
    };
    struct both first;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct both both;
        struct error error;
        both_init(&both);
        assert_int_equal(load(&both, texts[i], &error), STATUS_OK);
        assert_true(both.sample.probability == 0.25);
        assert_int_equal(both.sample.taps, 7);
        assert_int_equal(both.extra.size, 32);
        if (i == 0) {
            first = both;
        }
        assert_memory_equal(&both.sample, &first.sample, sizeof both.sample);
    }
}

static void test_words_for_true_and_false(void **state)
{
    (void)state;
    static const char *const words[] = {"false", "true", "no",    "yes",  "off", "on",
                                        "0",     "1",    "False", "TRUE", "No",  "Yes"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        struct both both;
        struct error error;
        char text[32];
        both_init(&both);
        both.sample.fast = i % 2 == 0;
        snprintf(text, sizeof text, "fast: %s\n", words[i]);
        assert_int_equal(load(&both, text, &error), STATUS_OK);
        assert_int_equal(both.sample.fast, i % 2 == 1);
    }
}

static void test_files_without_keys_change_nothing(void **state)
{
    (void)state;
    static const char *const texts[] = {"",      "\n\n", "# only a comment\n",
                                        "---\n", "{}\n", "views: {}\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct both both, before;
        struct error error;
        both_init(&both);
        before = both;
        assert_int_equal(load(&both, texts[i], &error), STATUS_OK);
        assert_memory_equal(&both, &before, sizeof both);
    }
}

struct complaint {
    const char *text;
    const char *sentence; // part of the reason
};

// Each begins with a good line, whose value must not reach the object.
static const struct complaint complaints[] = {
    {"batch: 8\nbach: 7\n", "line 2: unknown key 'bach'; did you mean 'batch'?"},
    {"batch: 8\nzzzzzzzz: 7\n", "line 2: unknown key 'zzzzzzzz'"},
    {"batch: 8\nviews: {sise: 96}\n",
     "line 2: unknown key 'views.sise'; did you mean 'views.size'?"},
    {"batch: 8\nview:\n  blur:\n    tap: 3\n",
     "line 4: unknown key 'view.blur.tap'; did you mean 'view.blur.taps'?"},
    {"batch: 8\nview:\n  blurr: {taps: 3}\n",
     "line 3: unknown key 'view.blurr'; did you mean 'view.blur'?"},
    {"batch: 8\nview: 3\n", "line 2: 'view' is a group of keys, such as 'view.blur.probability'"},
    {"batch: 8\nrate: {x: 1}\n", "line 2: rate: a mapping, where one value is expected"},
    {"batch: 8\nrate: [1, 2]\n", "line 2: rate: a list, where one value is expected"},
    {"batch: 8\n\nbatch: 9\n", "line 3: 'batch' was already set on line 1"},
    {"views.size: 8\nviews: {size: 9}\n", "line 2: 'views.size' was already set on line 1"},
    {"batch: 8\nviews: {}\nviews: {size: 9}\n", "line 3: the group 'views' appears twice"},
    {"rate: 1\nbatch: many\n", "line 2: batch: 'many' is not a whole number"},
    {"rate: 1\nbatch: 1.5\n", "line 2: batch: '1.5' is not a whole number"},
    {"rate: 1\nbatch: 0x10\n", "is not a whole number"},
    {"rate: 1\nbatch: 0\n", "line 2: batch: 0 is not between 1 and 65536"},
    {"rate: 1\nbatch: 65537\n", "line 2: batch: 65537 is not between 1 and 65536"},
    {"rate: 1\nbatch: 99999999999999999999\n", "is not between 1 and 65536"},
    {"batch: 8\nrate: fast\n", "line 2: rate: 'fast' is not a number"},
    {"batch: 8\nrate: nan\n", "is not a number"},
    {"batch: 8\nrate: .inf\n", "is not a number"},
    {"batch: 8\nrate: 1e999\n", "line 2: rate: 1e999 is not between"},
    {"batch: 8\nview.blur.probability: 1.0001\n",
     "line 2: view.blur.probability: 1.0001 is not between 0 and 1"},
    {"batch: 8\nview.blur.probability: -1e-9\n", "is not between 0 and 1"},
    {"batch: 8\nfast: maybe\n", "line 2: fast: 'maybe' is neither true nor false"},
    {"batch: 8\npolicy: skipp\n", "line 2: policy: 'skipp' is none of fatal|skip|none"},
    {"batch: 8\npolicy: fatal|skip\n", "is none of"},
    {"batch: 8\npolicy: \"\"\n", "policy: '' is none of"},
    {"batch: 8\nname: 0123456789abcdef\n", "line 2: name: longer than 15 bytes"},
    {"batch: 8\nname: \"a\\nb\"\n", "line 2: name: control characters"},
    {"batch: 8\nname: \"a\\0b\"\n", "line 2: name: a NUL byte"},
    {"batch: 8\nname:\n", "line 2: name: no value"},
    {"batch: 8\nname: ~\n", "line 2: name: no value"},
    {"batch: 8\nname: &x hi\n", "line 2: anchors and tags are not read"},
    {"batch: 8\nname: !!str hi\n", "line 2: anchors and tags are not read"},
    {"batch: 8\nviews: &v {size: 9}\n", "line 2: anchors and tags are not read"},
    {"batch: 8\nname: *x\n", "line 2: aliases are not read"},
    {"batch: 8\n<<: {rate: 3}\n", "line 2: unknown key '<<'"},
    {"batch: 8\n? {a: b}\n: 3\n", "line 2: a mapping cannot be a key"},
    {"batch: 8\n\"\": 3\n", "line 2: an empty key"},
    {"batch: 8\n---\nrate: 3\n", "line 2: a second document"},
    {"- batch\n", "line 1: a list, where one value is expected"},
    {"just words\n", "line 1: 'key: value' lines are expected"},
    {"batch: 8\n  rate: 3\n", "line 1: batch: '8 rate' is not a whole number"},
    {"batch: 8\nname: \"open\n", "not YAML:"},
    {"batch: 8\n name: 3: 4\n", "not a whole number"},
    {"batch: 8\n@rate: 3\n", "line 2: not YAML:"},
    {"batch: 8\nname: \xff\xfe\n", "not YAML text"},
    {"batch: 8\nname: $HOME/${HOME}/a-name-too-long\n", "longer than 15 bytes"},
};

static void test_complaints_are_exact_and_change_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof complaints / sizeof *complaints; i++) {
        struct both both, before;
        struct error error;
        both_init(&both);
        before = both;
        enum status status = load(&both, complaints[i].text, &error);
        if (status != STATUS_CONFIG || strstr(error.reason, complaints[i].sentence) == NULL) {
            fail_msg("%s\ngave status %d, '%s'\ninstead of '%s'", complaints[i].text, status,
                     error.reason, complaints[i].sentence);
        }
        assert_int_equal(error.status, STATUS_CONFIG);
        assert_string_equal(error.path, "file.yaml");
        assert_memory_equal(&both, &before, sizeof both);
    }
}

static void test_the_environment_is_not_expanded(void **state)
{
    (void)state;
    struct both both;
    struct error error;
    both_init(&both);
    assert_int_equal(load(&both, "name: $HOME ${HOME}\n", &error), STATUS_OK);
    assert_string_equal(both.sample.name, "$HOME ${HOME}");
}

static void test_deep_and_long_input_is_refused(void **state)
{
    (void)state;
    struct both both;
    struct error error;
    size_t len = LIMIT_SETTINGS_BYTES;
    char *text = malloc(len + 2);
    assert_non_null(text);
    static const char fills[] = "{[- \n:?a\"'&*";
    for (size_t i = 0; fills[i]; i++) {
        memset(text, fills[i], len + 1);
        text[len + 1] = '\0';
        both_init(&both);
        assert_int_equal(settings_load_text("big", text, len + 1, both.sections, 2, &error),
                         STATUS_LIMIT);
        enum status status = settings_load_text("big", text, len, both.sections, 2, &error);
        assert_int_equal(status, strchr(" \n", fills[i]) ? STATUS_OK : STATUS_CONFIG);
    }
    for (size_t i = 0; i + 7 < len; i += 7) { // a mapping in a mapping in a mapping …
        memcpy(text + i, "{view: ", 7);
    }
    assert_int_equal(settings_load_text("deep", text, len, both.sections, 2, &error),
                     STATUS_CONFIG);
    free(text);
}

static void test_assignments(void **state)
{
    (void)state;
    struct both both, before;
    struct error error;
    both_init(&both);
    assert_int_equal(settings_set("views.size=96", both.sections, 2, &error), STATUS_OK);
    assert_int_equal(settings_set("name=a=b", both.sections, 2, &error), STATUS_OK);
    assert_int_equal(settings_set("rate=-2.5", both.sections, 2, &error), STATUS_OK);
    assert_int_equal(both.extra.size, 96);
    assert_string_equal(both.sample.name, "a=b");
    assert_true(both.sample.rate == -2.5);
    assert_int_equal(settings_set("name=", both.sections, 2, &error), STATUS_OK);
    assert_string_equal(both.sample.name, "");
    before = both;
    static const struct complaint bad[] = {
        {"views.size", "not of the form key=value"},
        {"=3", "not of the form key=value"},
        {"", "not of the form key=value"},
        {"views.sice=9", "unknown key 'views.sice'; did you mean 'views.size'?"},
        {"views=9", "'views' is a group of keys, such as 'views.size'"},
        {"views.size=7", "views.size: 7 is not between 8 and 1024"},
        {"batch= 8", "not a whole number"},
        {"batch=", "not a whole number"},
        {"rate=", "not a number"},
        {"name=\x01", "control characters"},
        {"name=\xc3", "not UTF-8"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(settings_set(bad[i].text, both.sections, 2, &error), STATUS_CONFIG);
        if (strstr(error.reason, bad[i].sentence) == NULL) {
            fail_msg("%s: '%s' instead of '%s'", bad[i].text, error.reason, bad[i].sentence);
        }
    }
    assert_memory_equal(&both, &before, sizeof both);
}

static char *print(const struct both *both, int with_help)
{
    char *text = NULL;
    size_t len;
    FILE *stream = open_memstream(&text, &len);
    assert_non_null(stream);
    struct error error;
    assert_int_equal(settings_print(stream, both->sections, 2, with_help, &error), STATUS_OK);
    fclose(stream);
    return text;
}

static void test_printing_reads_back_to_the_same_values(void **state)
{
    (void)state;
    static const char *const names[] = {"byol",       "",      "null",   "~",  "a: b # c",
                                        "\"quoted\\", "-dash", "[1]",    "&x", "größe ☃",
                                        "yes",        " lead", "trail ", "%"};
    uint64_t seed = 7;
    for (size_t i = 0; i < 2000; i++) {
        struct both both, again;
        struct error error;
        both_init(&both);
        both.sample.fast = i % 2;
        both.sample.batch = (int64_t)(1 + mutate_next(&seed) % 65536);
        both.sample.policy = (int)(i % 3);
        uint64_t bits = mutate_next(&seed);
        memcpy(&both.sample.rate, &bits, sizeof bits); // any double there is
        if (!isfinite(both.sample.rate)) {
            both.sample.rate = (double)i / 3;
        }
        memset(both.sample.name, 0, sizeof both.sample.name);
        snprintf(both.sample.name, sizeof both.sample.name, "%s",
                 names[i % (sizeof names / sizeof *names)]);
        char *text = print(&both, i % 5 == 0);
        both_init(&again);
        if (load(&again, text, &error) != STATUS_OK) {
            fail_msg("%s\n%s", error.reason, text);
        }
        assert_memory_equal(&again.sample, &both.sample, sizeof both.sample);
        assert_memory_equal(&again.extra, &both.extra, sizeof both.extra);
        free(text);
    }
}

static void test_printing_is_for_people(void **state)
{
    (void)state;
    struct both both;
    both_init(&both);
    both.sample.rate = 0.1;
    char *text = print(&both, 1);
    assert_non_null(strstr(text, "# Learning rate\nrate: 0.1\n"));
    assert_non_null(strstr(text, "# On bad records (fatal|skip|none)\npolicy: skip\n"));
    assert_non_null(strstr(text, "# Pixels a side\nviews.size: 224\n"));
    free(text);
}

static void test_values_that_cannot_be_written(void **state)
{
    (void)state;
    FILE *stream = fopen("/dev/null", "w");
    assert_non_null(stream);
    for (int i = 0; i < 4; i++) {
        struct both both;
        struct error error;
        both_init(&both);
        both.sample.policy = i == 0 ? 3 : i == 1 ? -1 : 0;
        both.sample.rate = i == 2 ? NAN : 0;
        snprintf(both.sample.name, sizeof both.sample.name, "%s", i == 3 ? "\x1b[31m" : "fine");
        assert_int_equal(settings_print(stream, both.sections, 2, 0, &error), STATUS_INVALID);
    }
    fclose(stream);
}

static void test_a_full_disk_is_reported(void **state)
{
    (void)state;
    FILE *stream = fopen("/dev/full", "w");
    assert_non_null(stream);
    struct both both;
    struct error error;
    both_init(&both);
    assert_int_equal(settings_print(stream, both.sections, 2, 1, &error), STATUS_NO_SPACE);
    fclose(stream);
}

static void test_files(void **state)
{
    (void)state;
    char path[256];
    const char *parent = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/byol-settings-XXXXXX", parent ? parent : "/tmp");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "batch: 12\nbatsh: 1\n", 19), 19);
    close(fd);
    struct both both;
    struct error error;
    both_init(&both);
    assert_int_equal(settings_load(path, both.sections, 2, &error), STATUS_CONFIG);
    assert_string_equal(error.path, path);
    assert_int_equal(both.sample.batch, 256);
    assert_int_equal(truncate(path, 10), 0);
    assert_int_equal(settings_load(path, both.sections, 2, &error), STATUS_OK);
    assert_int_equal(both.sample.batch, 12);
    unlink(path);
    assert_int_equal(settings_load(path, both.sections, 2, &error), STATUS_NOT_FOUND);
}

static void test_mutants_are_read_or_refused_whole(void **state)
{
    (void)state;
    static const char text[] = "fast: true\nbatch: 12\nrate: 0.5 # why\nname: \"x y\"\n"
                               "policy: skip\nview: {blur: {taps: 3, probability: 0.5}}\n"
                               "views:\n  size: 64\n";
    uint64_t seed = 1;
    size_t accepted = 0;
    for (size_t i = 0; i < 20000; i++) {
        struct both both, before;
        struct error error;
        both_init(&both);
        before = both;
        size_t len;
        uint8_t *mutant = mutate_copy(text, sizeof text - 1, i % 3 ? 22 : 0, &seed, &len);
        enum status status =
            settings_load_text("mutant", (const char *)mutant, len, both.sections, 2, &error);
        free(mutant);
        if (status == STATUS_OK) {
            accepted++;
            free(print(&both, 0)); // whatever was accepted can be written
        } else {
            assert_int_equal(status, STATUS_CONFIG);
            assert_memory_equal(&both, &before, sizeof both);
        }
    }
    print_message("%zu of 20000 mutants were still settings\n", accepted);
    assert_in_range(accepted, 1, 19999);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type_is_read),
        cmocka_unit_test(test_flat_and_nested_keys_mean_the_same),
        cmocka_unit_test(test_words_for_true_and_false),
        cmocka_unit_test(test_files_without_keys_change_nothing),
        cmocka_unit_test(test_complaints_are_exact_and_change_nothing),
        cmocka_unit_test(test_the_environment_is_not_expanded),
        cmocka_unit_test(test_deep_and_long_input_is_refused),
        cmocka_unit_test(test_assignments),
        cmocka_unit_test(test_printing_reads_back_to_the_same_values),
        cmocka_unit_test(test_printing_is_for_people),
        cmocka_unit_test(test_values_that_cannot_be_written),
        cmocka_unit_test(test_a_full_disk_is_reported),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_mutants_are_read_or_refused_whole),
    };
    return cmocka_run_group_tests_name("formats/settings", tests, NULL, NULL);
}
