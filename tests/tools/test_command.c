// The command line itself: help, versions, option parsing, hints, exit codes.
#include "tests/support/program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
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

static const char *const subcommands[] = {
    "example", "convert", "inspect",     "views", "pretrain", "eval",       "ablate",
    "report",  "export",  "export-data", "bench", "doctor",   "completion", "manual"};
enum { SUBCOMMANDS = sizeof subcommands / sizeof subcommands[0] };

static void help_names_every_command_and_fits_a_screen(void **state)
{
    (void)state;
    struct program_result result;
    program_run(&result, &scratch, "--help");
    assert_int_equal(result.code, 0);
    for (size_t i = 0; i < SUBCOMMANDS; i++) {
        assert_non_null(strstr(result.out, subcommands[i]));
    }
    size_t lines = 0;
    for (const char *c = result.out; *c; c++) {
        lines += *c == '\n';
    }
    assert_in_range(lines, 10, 24);
    program_free(&result);
}

static void every_command_explains_itself_with_an_example(void **state)
{
    (void)state;
    for (size_t i = 0; i < SUBCOMMANDS; i++) {
        char arguments[64];
        snprintf(arguments, sizeof arguments, "%s --help", subcommands[i]);
        struct program_result result;
        program_run(&result, &scratch, arguments);
        assert_int_equal(result.code, 0);
        assert_non_null(strstr(result.out, "Usage: byol "));
        assert_non_null(strstr(result.out, "xample"));
        assert_string_equal(result.err, "");
        program_free(&result);
    }
}

static void version_is_printed(void **state)
{
    (void)state;
    program_expect(&scratch, 0, "byol 0.", "--version");
}

static void no_command_is_wrong_usage_and_shows_the_help(void **state)
{
    (void)state;
    program_expect(&scratch, 2, "Usage: byol COMMAND", "");
}

static void misspelt_command_is_answered_with_the_nearest(void **state)
{
    (void)state;
    program_expect(&scratch, 2, "did you mean 'pretrain'?", "pertrain");
    program_expect(&scratch, 2, "unknown command 'xyzzyplugh'", "xyzzyplugh");
}

static void misspelt_option_is_answered_with_the_nearest(void **state)
{
    (void)state;
    program_expect(&scratch, 2, "did you mean '--count'?", "example \"$DIR/x\" --cuont 7");
    program_expect(&scratch, 2, "did you mean '--test-share'?", "example \"$DIR/x\" --testshare=7");
    program_expect(&scratch, 2, "unknown option '--zzzzzzzz'", "example \"$DIR/x\" --zzzzzzzz");
    program_expect(&scratch, 2, "unknown option '-Z'", "example \"$DIR/x\" -Z");
    program_expect(&scratch, 2, "Try 'byol example --help'", "example \"$DIR/x\" -Z");
}

static void values_are_checked(void **state)
{
    (void)state;
    program_expect(&scratch, 2, "--count wants a whole number, not 'abc'",
                   "example \"$DIR/x\" --count abc");
    program_expect(&scratch, 2, "--count wants a whole number, not '12x'",
                   "example \"$DIR/x\" --count=12x");
    program_expect(&scratch, 2, "--count wants a whole number, not ''",
                   "example \"$DIR/x\" --count=");
    program_expect(&scratch, 2, "--count wants a number from 1 to 1000000, not 0",
                   "example \"$DIR/x\" --count 0");
    program_expect(&scratch, 2, "--count wants a number from",
                   "example \"$DIR/x\" --count 99999999999999999999");
    program_expect(&scratch, 2, "--count wants a value", "example \"$DIR/x\" --count");
    program_expect(&scratch, 2, "--test-share wants a number from 0 to 1, not nan",
                   "example \"$DIR/x\" --test-share nan");
    program_expect(&scratch, 2, "--test-share wants a number, not 'half'",
                   "example \"$DIR/x\" --test-share half");
    program_expect(&scratch, 2, "--json takes no value", "example \"$DIR/x\" --json=1");
}

static void operands_are_counted(void **state)
{
    (void)state;
    program_expect(&scratch, 2, "wants one directory", "example");
    program_expect(&scratch, 2, "wants one directory", "example \"$DIR/a\" \"$DIR/b\"");
}

static void a_shell_may_name_a_thousand_sources(void **state)
{
    (void)state;
    program_expect(&scratch, 1, "cannot open", "convert $(seq -f /nowhere/%g 1300) -o \"$DIR/x\"");
}

static void options_stand_anywhere_and_end_at_two_dashes(void **state)
{
    (void)state;
    program_expect(&scratch, 0, "10 training and 0 test",
                   "example --count=10 \"$DIR/spread\" --size 16 -q --test-share 0");
    program_expect(&scratch, 2, "wants one directory",
                   "example --count 10 \"$DIR/other\" -- --size 16");
}

static void failures_are_also_json(void **state)
{
    (void)state;
    struct program_result result;
    program_run(&result, &scratch, "example /dev/null/x --count 10 --size 16 --json");
    assert_int_equal(result.code, 1);
    assert_non_null(strstr(result.out, "\"error\":"));
    assert_non_null(strstr(result.out, "\"status\":"));
    assert_non_null(strstr(result.err, "byol example: "));
    program_free(&result);
}

static void full_stdout_is_a_failure(void **state)
{
    (void)state;
    struct program_result result;
    program_run(&result, &scratch, "--help >/dev/full");
    assert_int_equal(result.code, 1);
    assert_non_null(strstr(result.err, "stdout"));
    program_free(&result);
}

static void a_signal_ends_it_with_word_of_what_is_left(void **state)
{
    (void)state;
    struct program_result result;
    program_run(&result, &scratch,
                "example \"$DIR/many\" --count 1000000 --size 1024 & pid=$!; "
                "until [ -d \"$DIR\"/many.partial-*/train ]; do sleep 0.05; done; "
                "kill -TERM $pid; wait $pid; exit $?");
    assert_int_equal(result.code, 128 + 15);
    assert_non_null(strstr(result.err, "byol example: interrupted: "));
    assert_non_null(strstr(result.err, "many.partial-"));
    assert_non_null(strstr(result.err, " is incomplete: remove it\n"));
    program_free(&result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_names_every_command_and_fits_a_screen),
        cmocka_unit_test(every_command_explains_itself_with_an_example),
        cmocka_unit_test(version_is_printed),
        cmocka_unit_test(no_command_is_wrong_usage_and_shows_the_help),
        cmocka_unit_test(misspelt_command_is_answered_with_the_nearest),
        cmocka_unit_test(misspelt_option_is_answered_with_the_nearest),
        cmocka_unit_test(values_are_checked),
        cmocka_unit_test(operands_are_counted),
        cmocka_unit_test(a_shell_may_name_a_thousand_sources),
        cmocka_unit_test(options_stand_anywhere_and_end_at_two_dashes),
        cmocka_unit_test(failures_are_also_json),
        cmocka_unit_test(a_signal_ends_it_with_word_of_what_is_left),
        cmocka_unit_test(full_stdout_is_a_failure),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
