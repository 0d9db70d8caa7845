// Help, completion and man pages: all of them from the same texts, so all of them know the same.
#include "tests/support/program.h"

#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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

// Asks the program itself which commands and subjects there are.
static void each_topic(void (*check)(const char *topic))
{
    struct program_result list;
    program_run(&list, &scratch,
                "manual -o \"$DIR/man\" && cd \"$DIR/man\" && for f in byol-*.1; do "
                "f=${f#byol-}; echo ${f%.1} | sed 's/^bench-/bench /'; done");
    assert_int_equal(list.code, 0);
    size_t count = 0;
    for (char *topic = strtok(list.out, "\n"); topic; topic = strtok(NULL, "\n"), count++) {
        check(topic);
    }
    assert_in_range(count, 14, 64);
    program_free(&list);
}

// --- help ----------------------------------------------------------------------------------------

static size_t columns(const char *line, size_t len)
{
    size_t count = 0;
    for (size_t i = 0; i < len; i++) {
        count += ((unsigned char)line[i] & 0xc0) != 0x80;
    }
    return count;
}

static size_t lines_of_80_columns(const char *text)
{
    size_t lines = 0;
    for (const char *at = text; *at; lines++) {
        size_t len = strcspn(at, "\n");
        if (columns(at, len) > 80) {
            fail_msg("longer than 80 columns: %.*s", (int)len, at);
        }
        at += len + (at[len] == '\n');
    }
    return lines;
}

// What completion and man pages rely on: after names and value two spaces, or the end of the line.
static void check_option_line(const char *topic, const char *line, size_t len)
{
    const char *end = line + len, *gap = memmem(line + 2, len - 2, "  ", 2);
    const char *words = gap ? gap : end;
    size_t spaces = 0;
    for (const char *c = line + 2; c < words; c++) {
        spaces += *c == ' ' && c[1] != '-'; // not the one behind a comma
    }
    if (spaces > 1) {
        fail_msg("byol %s: words too near: %.*s", topic, (int)len, line);
    }
}

static void check_lines(const char *topic, const char *text)
{
    for (const char *at = text; *at; at += strcspn(at, "\n"), at += *at == '\n') {
        size_t len = strcspn(at, "\n");
        if (strncmp(at, "  -", 3) == 0) {
            check_option_line(topic, at, len);
        }
        if (len > 0 && at[len - 1] == '\\' && memmem(at, len, " # ", 3)) {
            fail_msg("byol %s: a comment goes on below: %.*s", topic, (int)len, at);
        }
    }
}

static void check_help(const char *topic)
{
    char arguments[96];
    struct program_result help;
    snprintf(arguments, sizeof arguments, "%s --help", topic);
    program_run(&help, &scratch, arguments);
    assert_int_equal(help.code, 0);
    assert_string_equal(help.err, "");
    static const char *const texts[] = {"Usage: byol ", "\nExample", "\nExit codes: "};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (strstr(help.out, texts[i]) == NULL) {
            fail_msg("byol %s lacks '%s'", arguments, texts[i]);
        }
    }
    lines_of_80_columns(help.out);
    check_lines(topic, help.out);
    program_free(&help);
}

static void every_help_has_the_same_parts_on_80_columns(void **state)
{
    (void)state;
    each_topic(check_help);
}

static void the_first_screen_is_one_screen(void **state)
{
    (void)state;
    struct program_result help;
    program_run(&help, &scratch, "--help");
    assert_in_range(lines_of_80_columns(help.out), 15, 24);
    static const char *const first_run[] = {"byol example ", "byol convert ", "byol views ",
                                            "byol pretrain ", "byol eval "};
    for (size_t i = 0; i < sizeof first_run / sizeof first_run[0]; i++) {
        assert_non_null(strstr(help.out, first_run[i]));
    }
    program_free(&help);
}

// --- completion ----------------------------------------------------------------------------------

static struct program_result scripts[2]; // of both shells

// The part of a script that belongs to a topic: from its label to the end of its branch.
static void assert_completes(const struct program_result *script, const char *topic,
                             const char *option)
{
    char label[80], end[] = ";;\n";
    snprintf(label, sizeof label, "'%s')\n", topic);
    const char *begin = strstr(script->out, label);
    assert_non_null(begin);
    const char *stop = strstr(begin, end), *at = begin;
    size_t len = strlen(option);
    while ((at = strstr(at, option)) != NULL && at < stop && strchr("= '[+\\", at[len]) == NULL) {
        at += len;
    }
    if (at == NULL || at >= stop) {
        fail_msg("byol %s %s is not completed", topic, option);
    }
}

// What --help lists: lines that begin with an option, several of them with commas.
static void check_completion(const char *topic)
{
    char arguments[96];
    struct program_result help;
    snprintf(arguments, sizeof arguments, "%s --help", topic);
    program_run(&help, &scratch, arguments);
    for (const char *at = help.out; *at; at += strcspn(at, "\n"), at += *at == '\n') {
        while (strncmp(at, "  -", 3) == 0 || strncmp(at, ", -", 3) == 0) {
            char option[64];
            at += strspn(at, ", ");
            size_t len = strcspn(at, " ,\n");
            snprintf(option, sizeof option, "%.*s", (int)len, at);
            assert_completes(&scripts[0], topic, option);
            assert_completes(&scripts[1], topic, option);
            at += len;
        }
    }
    program_free(&help);
}

static void every_option_of_a_help_is_completed(void **state)
{
    (void)state;
    program_run(&scripts[0], &scratch, "completion bash");
    program_run(&scripts[1], &scratch, "completion zsh");
    each_topic(check_completion);
    program_free(&scripts[0]);
    program_free(&scripts[1]);
}

// The tables that options are parsed with, as they stand in the sources.
static void check_table(const char *path, const char *script)
{
    char line[512], name[64], option[80];
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        const char *at = strstr(line, "{\"");
        if (at && strstr(line, ", OPTION_") && sscanf(at, "{\"%63[a-z-]\"", name) == 1) {
            snprintf(option, sizeof option, " --%s", name);
            const char *found = strstr(script, option);
            while (found && strchr(" '", found[strlen(option)]) == NULL) {
                found = strstr(found + 1, option);
            }
            if (found == NULL) {
                fail_msg("%s takes%s, which no help text lists", path, option);
            }
        }
    }
    fclose(file);
}

static void every_option_that_is_taken_is_completed(void **state)
{
    (void)state;
    glob_t sources;
    struct program_result script;
    if (glob("tools/*.c", 0, NULL, &sources) != 0) {
        skip(); // not run from the repository
    }
    program_run(&script, &scratch, "completion bash");
    for (size_t i = 0; i < sources.gl_pathc; i++) {
        check_table(sources.gl_pathv[i], script.out);
    }
    program_free(&script);
    globfree(&sources);
}

// Lets bash complete the last of `words`, and compares what it offers.
static void expect_offer(const char *words, int last, const char *offer)
{
    char arguments[512];
    snprintf(arguments, sizeof arguments,
             "completion bash >\"$DIR/script\" && export DIR && bash -c '. \"$DIR/script\"; "
             "COMP_WORDS=(%s); "
             "COMP_CWORD=%d; _byol; echo \"<${COMPREPLY[*]}>\"'",
             words, last);
    program_expect(&scratch, 0, offer, arguments);
}

static void bash_completes(void **state)
{
    (void)state;
    if (system("command -v bash >/dev/null 2>&1") != 0) {
        skip();
    }
    expect_offer("byol pre", 1, "<pretrain>");
    expect_offer("byol convert --sto", 2, "<--store>");
    expect_offer("byol convert --store sh", 3, "<shards>");
    expect_offer("byol convert --store = lm", 4, "<lmdb>");
    expect_offer("byol convert --no", 2, "<--no-verify>");
    expect_offer("byol eval l", 2, "<linear>");
    expect_offer("byol bench st", 2, "<step>");
    expect_offer("byol bench step --steps 4 --acc", 5, "<--accumulate>");
    expect_offer("byol bench loader --io u", 4, "<uring>");
    expect_offer("byol export-data train --to w", 4, "<webdataset>");
    expect_offer("byol eval knn --convention d", 4, "<dinov2>");
    expect_offer("byol bench step --precision b", 4, "<bf16>");
    expect_offer("byol manual doc", 2, "<doctor>");
    expect_offer("byol pretrain --set enc", 3, "<encoder= encoder_rate=>");
    expect_offer("byol pretrain --set encoder = resnet3", 5, "<resnet34>");
    expect_offer("byol doctor --set views.si", 3, "<views.size=>");
    expect_offer("byol views --recipe sm", 3, "<small>");
    expect_offer("byol views -o sh", 3, "<>"); // a file: bash's own affair
}

static void zsh_reads_its_script(void **state)
{
    (void)state;
    if (system("command -v zsh >/dev/null 2>&1") != 0) {
        skip();
    }
    program_expect(&scratch, 0, NULL, "completion zsh >\"$DIR/_byol\" && zsh -f -n \"$DIR/_byol\"");
}

static void shells_that_are_not_known_are_refused(void **state)
{
    (void)state;
    program_expect(&scratch, 2, "bash and zsh, not 'fish'", "completion fish");
    program_expect(&scratch, 2, "name one shell", "completion");
}

// --- man pages -----------------------------------------------------------------------------------

static void man_pages_render_without_warnings(void **state)
{
    (void)state;
    struct program_result result;
    if (system("command -v groff >/dev/null 2>&1") != 0) {
        skip();
    }
    program_run(&result, &scratch,
                "manual -o \"$DIR/pages\" && for p in \"$DIR\"/pages/*.1; do "
                "groff -man -Tutf8 -ww \"$p\" || exit 1; done");
    assert_int_equal(result.code, 0);
    assert_string_equal(result.err, "");
    assert_non_null(strstr(result.out, "0 success"));
    program_free(&result);
}

static void man_pages_are_clean_for_mandoc(void **state)
{
    (void)state;
    if (system("command -v mandoc >/dev/null 2>&1") != 0) {
        skip();
    }
    program_expect(&scratch, 0, "",
                   "manual -o \"$DIR/lint\" && mandoc -T lint -W warning \"$DIR\"/lint/*.1 >&2");
}

static void a_man_page_is_printed_by_name(void **state)
{
    (void)state;
    program_expect(&scratch, 0, ".TH BYOL-BENCH-LOADER 1", "manual bench loader");
    program_expect(&scratch, 0, "\\fB\\-o\\fR, \\fB\\-\\-output\\fR \\fIDATASET\\fR",
                   "manual convert");
    program_expect(&scratch, 0, ".TH BYOL 1", "manual");
    program_expect(&scratch, 2, "no command 'nothing'", "manual nothing");
    program_expect(&scratch, 1, "/dev/null", "manual -o /dev/null/man");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_help_has_the_same_parts_on_80_columns),
        cmocka_unit_test(the_first_screen_is_one_screen),
        cmocka_unit_test(every_option_of_a_help_is_completed),
        cmocka_unit_test(every_option_that_is_taken_is_completed),
        cmocka_unit_test(bash_completes),
        cmocka_unit_test(zsh_reads_its_script),
        cmocka_unit_test(shells_that_are_not_known_are_refused),
        cmocka_unit_test(man_pages_render_without_warnings),
        cmocka_unit_test(man_pages_are_clean_for_mandoc),
        cmocka_unit_test(a_man_page_is_printed_by_name),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
