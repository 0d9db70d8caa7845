// The shell does the work: it finds words, redirects output and waits.
#include "tests/support/program.h"

#include "formats/file.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

void scratch_make(struct scratch *scratch)
{
    *scratch = (struct scratch){0};
    const char *parent = getenv("TMPDIR");
    snprintf(scratch->path, sizeof scratch->path, "%s/byol-test-XXXXXX", parent ? parent : "/tmp");
    assert_non_null(mkdtemp(scratch->path));
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status, (void)type, (void)where;
    return remove(path);
}

void scratch_remove(struct scratch *scratch)
{
    nftw(scratch->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

const char *scratch_path(const struct scratch *scratch, const char *name)
{
    static char paths[4][700];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", scratch->path, name);
    return path;
}

int scratch_shell(const struct scratch *scratch, const char *line)
{
    char command[4000];
    const char *program = getenv("BYOL_PROGRAM");
    int len = snprintf(command, sizeof command, "DIR='%s'; BYOL='%s'; { %s ; } >/dev/null 2>&1",
                       scratch->path, program ? program : "build/byol", line);
    assert_true(len > 0 && (size_t)len < sizeof command);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static char *read_output(const struct scratch *scratch, const char *name)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", scratch->path, name);
    uint8_t *bytes = NULL;
    size_t len;
    assert_int_equal(file_read_all(path, 1u << 26, &bytes, &len, NULL), STATUS_OK);
    return (char *)bytes;
}

void program_run(struct program_result *result, const struct scratch *scratch,
                 const char *arguments)
{
    program_run_under(result, scratch, "", arguments);
}

void program_run_under(struct program_result *result, const struct scratch *scratch,
                       const char *launcher, const char *arguments)
{
    const char *program = getenv("BYOL_PROGRAM");
    char command[8192];
    int len =
        snprintf(command, sizeof command,
                 "DIR='%s' BYOL='%s'; { %s \"$BYOL\" %s ; } >\"$DIR/.stdout\" 2>\"$DIR/.stderr\"",
                 scratch->path, program ? program : "build/byol", launcher, arguments);
    assert_true(len > 0 && (size_t)len < sizeof command);
    int status = system(command);
    assert_true(status != -1);
    result->code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    result->out = read_output(scratch, ".stdout");
    result->err = read_output(scratch, ".stderr");
}

void program_free(struct program_result *result)
{
    free(result->out);
    free(result->err);
}

void program_expect(const struct scratch *scratch, int code, const char *text,
                    const char *arguments)
{
    struct program_result result;
    program_run(&result, scratch, arguments);
    const char *where = code == 0 ? result.out : result.err;
    if (result.code != code || (text != NULL && strstr(where, text) == NULL)) {
        print_error("byol %s\nexit code %d, expected %d with \"%s\"\nstdout: %s\nstderr: %s\n",
                    arguments, result.code, code, text ? text : "", result.out, result.err);
        fail();
    }
    program_free(&result);
}

static json_t *run_for_json(const struct scratch *scratch, const char *arguments)
{
    struct program_result result;
    program_run(&result, scratch, arguments);
    json_error_t problem;
    json_t *object = result.code == 0 ? json_loads(result.out, 0, &problem) : NULL;
    if (object == NULL) {
        print_error("byol %s\nexit code %d\nstdout: %s\nstderr: %s\n", arguments, result.code,
                    result.out, result.err);
        fail();
    }
    program_free(&result);
    return object;
}

double program_number(const struct scratch *scratch, const char *key, const char *arguments)
{
    json_t *object = run_for_json(scratch, arguments);
    json_t *value = json_object_get(object, key);
    assert_true(json_is_number(value));
    double number = json_number_value(value);
    json_decref(object);
    return number;
}

void program_string(const struct scratch *scratch, const char *key, char *text, unsigned capacity,
                    const char *arguments)
{
    json_t *object = run_for_json(scratch, arguments);
    json_t *value = json_object_get(object, key);
    assert_true(json_is_string(value));
    snprintf(text, capacity, "%s", json_string_value(value));
    json_decref(object);
}
