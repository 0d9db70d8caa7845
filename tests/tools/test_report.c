// `byol report` on small real runs: one well-formed page that needs nothing else, with data in
// every chart, and with everything escaped that comes from files.
//
// BYOL_BROWSER: the browser of the last test (chromium).
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "formats/file.h"
#include "tests/support/program.h"
#include "tests/support/sample_dataset.h"
#include "tests/support/tiny_run.h"

static struct sample_dataset sample, probe;
static struct scratch scratch;

// Names that a page must not take for its own.
#define HOSTILE "b <script>alert(1)</script> \"x\" &amp;"

// As tests/support/tiny_run.c, in words.
#define SETTINGS                                                                                   \
    "--set encoder=tiny --set width=2 --set stem=small --set views.base=small --set "              \
    "views.size=8 --set batch=8 --set epochs=3 --set warmup_epochs=1 --set "                       \
    "base_learning_rate=2 --set projector_hidden=8 --set projector_output=8 --set "                \
    "predictor_hidden=8 --set log_steps=1 --set precision=f32 --set threads=1 --set "              \
    "loader_threads=1"

static void train(const char *name, const char *more)
{
    char arguments[3000];
    snprintf(arguments, sizeof arguments,
             "pretrain --data '%s' --run \"$DIR\"/'%s' --quiet --set device=%s " SETTINGS " %s",
             sample.path[DATASET_SHARDS], name, tiny_device(), more);
    program_expect(&scratch, 0, "finished", arguments);
}

static char *read_file(const char *name)
{
    char path[600];
    uint8_t *bytes;
    size_t len;
    struct error error;
    snprintf(path, sizeof path, "%s/%s", scratch.path, name);
    assert_status(file_read_all(path, 1u << 26, &bytes, &len, &error), STATUS_OK, &error);
    assert_int_equal(strlen((char *)bytes), len);
    return (char *)bytes;
}

// --- well-formed -----------------------------------------------------------------------------

#define DEEPEST 64

// Each tag is closed in its order, attributes are quoted, and no '&' or '<' stands by itself. What
// is inside <script> and <style> has neither.
static void assert_well_formed(const char *page)
{
    char open[DEEPEST][32];
    size_t depth = 0;
    const char *at = strstr(page, "<html");
    assert_int_equal(strncmp(page, "<!DOCTYPE html>\n", 16), 0);
    for (; *at != 0; at++) {
        if (*at == '&') {
            assert_true(at[1] == '#' || strspn(at + 1, "abcdefghijklmnopqrstuvwxyz") > 1);
            assert_non_null(memchr(at, ';', 10));
        }
        if (*at != '<') {
            continue;
        }
        size_t name = strcspn(at + 1, " \n/>"), quotes = 0;
        const char *end = at;
        for (; *end != '>' || quotes % 2 == 1; end++) {
            assert_true(*end != 0 && (end == at || *end != '<'));
            quotes += *end == '"';
        }
        if (at[1] == '/') {
            assert_true(depth-- > 0);
            assert_int_equal(strncmp(at + 2, open[depth], strlen(open[depth])), 0);
            assert_int_equal(at + 2 + strlen(open[depth]) - end, 0);
        } else if (end[-1] != '/') {
            assert_true(depth < DEEPEST && name > 0 && name < sizeof open[0]);
            snprintf(open[depth++], sizeof open[0], "%.*s", (int)name, at + 1);
        }
        at = end;
    }
    assert_int_equal(depth, 0);
}

static void assert_needs_nothing(const char *page)
{
    static const char *const foreign[] = {"http:", "https:", "url(", "@import", "<link", "<iframe"};
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        assert_null(strstr(page, foreign[i]));
    }
    for (const char *at = page; (at = strstr(at, "src=\"")); at++) {
        assert_int_equal(strncmp(at, "src=\"data:image/jpeg;base64,", 28), 0);
    }
}

static size_t count(const char *text, const char *word)
{
    size_t found = 0;
    for (; (text = strstr(text, word)); text++) {
        found++;
    }
    return found;
}

// Every chart has a title, words for it, and a curve of at least two points inside its box.
static size_t assert_charts(const char *page)
{
    size_t charts = 0;
    for (const char *at = page; (at = strstr(at, "<svg class=\"chart\"")); at++, charts++) {
        const char *end = strstr(at, "</svg>"), *curve = strstr(at, "<polyline");
        assert_non_null(end);
        assert_true(curve != NULL && curve < end);
        assert_true(strstr(at, "<title") < end && strstr(at, "<desc") < end);
        assert_null(memmem(at, (size_t)(end - at), "nan", 3));
        assert_null(memmem(at, (size_t)(end - at), "inf", 3));
        for (; curve != NULL && curve < end; curve = strstr(curve + 1, "<polyline")) {
            double x, y, next;
            const char *points = strstr(curve, " points=\"");
            assert_int_equal(sscanf(points, " points=\"%lf,%lf %lf,", &x, &y, &next), 3);
            assert_true(x >= 62 && x <= next && next <= 504.05 && y >= 13.9 && y <= 254.1);
        }
    }
    return charts;
}

// --- the page --------------------------------------------------------------------------------

static void two_runs_become_one_page(void **state)
{
    (void)state;
    char arguments[1200];
    program_expect(&scratch, 0, "2 runs, 10 charts, 1 contact sheet, neighbours of 1",
                   "report \"$DIR\"/a \"$DIR\"/'" HOSTILE "' -o \"$DIR\"/page.html --quiet");
    char *page = read_file("page.html");
    assert_well_formed(page);
    assert_needs_nothing(page);
    assert_int_equal(assert_charts(page), 10);
    assert_int_equal(count(page, "<script"), 1); // its own
    assert_non_null(
        strstr(page, "b &lt;script&gt;alert(1)&lt;/script&gt; &quot;x&quot; &amp;amp;"));
    assert_non_null(strstr(page, "prefers-color-scheme:dark"));
    assert_non_null(strstr(page, "name=\"viewport\""));
    assert_int_equal(count(page, "<img class=\"sheet\""), 1);
    assert_true(count(page, "class=\"thumb ") > 6 * 3 * 5);
    assert_int_equal(count(page, "<img"), count(page, " alt=\""));
    assert_non_null(strstr(page, ">base_learning_rate</th><td class=\"value\">2</td>"
                                 "<td class=\"value\">1</td>"));
    free(page);
    snprintf(arguments, sizeof arguments,
             "report \"$DIR\"/a -o \"$DIR\"/page.html --data '%s' --test '%s' --images 2 "
             "--checkpoints 1 --quiet",
             probe.path[DATASET_LMDB], sample.path[DATASET_LMDB]);
    program_expect(&scratch, 0, "1 run, 10 charts, 1 contact sheet, neighbours of 1", arguments);
    page = read_file("page.html");
    assert_well_formed(page);
    assert_int_equal(count(page, "class=\"thumb "), 2 * (1 + 5));
    free(page);
}

static void the_figures_come_as_json(void **state)
{
    (void)state;
    struct program_result result;
    program_run(&result, &scratch, "report \"$DIR\"/a \"$DIR\"/'" HOSTILE "' --json");
    assert_int_equal(result.code, 0);
    json_t *object = json_loads(result.out, 0, NULL), *runs = json_object_get(object, "runs");
    json_t *differing = json_object_get(object, "differences");
    assert_int_equal(json_array_size(runs), 2);
    json_t *run = json_array_get(runs, 0);
    assert_string_equal(json_string_value(json_object_get(run, "name")), "a");
    assert_string_equal(json_string_value(json_object_get(run, "ended")), "finished");
    assert_int_equal(json_integer_value(json_object_get(run, "step")), 12);
    assert_true(json_is_number(json_object_get(run, "knn_top1")));
    assert_true(json_is_number(json_object_get(run, "loss")));
    assert_true(json_is_null(json_object_get(json_array_get(runs, 1), "knn_top1")));
    assert_non_null(json_object_get(differing, "base_learning_rate"));
    assert_non_null(json_object_get(differing, "probe"));
    assert_null(json_object_get(differing, "epochs"));
    json_decref(object);
    program_free(&result);
}

// A run that is going on, was killed, or has seen a bad disk is shown as far as it goes.
static void damaged_runs_are_shown_as_far_as_they_go(void **state)
{
    (void)state;
    program_expect(
        &scratch, 0, NULL,
        "--version; mkdir \"$DIR\"/c; cp \"$DIR\"/a/metrics.jsonl \"$DIR\"/c; "
        "printf '%s\\n' '{\"step\":13,\"epoch\":3,\"loss\":1e999}' '[[[' '{\"step\":\"x\"}' "
        "'{\"step\":-4}' >>\"$DIR\"/c/metrics.jsonl; "
        "printf 'epochs: {\"<b>\": 1' >\"$DIR\"/c/config.yaml; "
        "printf '{\"ended\": 3, \"skips\": {\"a\": 1}, \"sessions\": [7, {}], \"dataset\": "
        "[]}' >\"$DIR\"/c/report.json");
    program_expect(&scratch, 0, "1 run, ", "report \"$DIR\"/c -o \"$DIR\"/page.html --quiet");
    char *page = read_file("page.html");
    assert_well_formed(page);
    assert_non_null(strstr(page, "lines of the log could not be read"));
    assert_non_null(strstr(page, "The settings are not understood"));
    assert_non_null(strstr(page, "still running, or was killed"));
    assert_charts(page);
    free(page);
}

// A log in which a session begins again from a checkpoint, and whose last line is just being
// written.
static void what_was_logged_last_counts(void **state)
{
    (void)state;
    program_expect(&scratch, 0, NULL,
                   "--version; mkdir \"$DIR\"/e; cp \"$DIR\"/a/config.yaml \"$DIR\"/e; "
                   "for i in 1 2 3 4 5 6 3 4; do printf '{\"step\":%d,\"epoch\":0,\"loss\":%d,"
                   "\"tau\":%s}\\n' $i $((n += 1)) 0.9999999999999999; done "
                   ">\"$DIR\"/e/metrics.jsonl; printf '{\"step\":5,\"loss\":9,\"tau\":1}\\n"
                   "{\"step\":6,\"lo' >>\"$DIR\"/e/metrics.jsonl");
    program_expect(&scratch, 0, "\"step\":5,\"steps\":null,\"loss\":9.0,",
                   "report \"$DIR\"/e --json -o \"$DIR\"/page.html --quiet");
    char *page = read_file("page.html");
    assert_well_formed(page);
    assert_null(strstr(page, "could not be read"));
    free(page);
}

static void resized_datasets_are_told_everywhere(void **state)
{
    (void)state;
    static const char said[] = "larger images were resized";
    program_expect(&scratch, 0, "not exact",
                   "convert tests/data/images -o \"$DIR\"/small --resize short=16");
    program_expect(&scratch, 0, "\"not_exact\":\"larger images were resized",
                   "pretrain --data \"$DIR\"/small --run \"$DIR\"/f --quiet --json " SETTINGS
                   " 2>\"$DIR\"/err; grep 'WARNING: the dataset is not exact' \"$DIR\"/err >&2");
    program_expect(&scratch, 0, said, "report \"$DIR\"/a \"$DIR\"/f --json");
    // What an older program wrote does not say it, but the dataset does.
    for (int old = 0; old < 2; old++) {
        program_expect(&scratch, 0, "2 runs",
                       "report \"$DIR\"/a \"$DIR\"/f -o \"$DIR\"/page.html --quiet");
        char *page = read_file("page.html");
        assert_well_formed(page);
        assert_non_null(strstr(page, "<p class=\"bad\">f: its dataset is not exact: larger"));
        // Among what differs, and among all settings.
        assert_int_equal(count(page, "<th scope=\"row\">dataset not exact</th>"), 2);
        free(page);
        program_expect(&scratch, 0, NULL,
                       "--version; sed -i 's/\"not_exact\"/\"older\"/' \"$DIR\"/f/report.json");
    }
    program_expect(&scratch, 0, "\"not_exact\":{\"data\":\"larger images were resized",
                   "eval quality --run \"$DIR\"/f --data \"$DIR\"/small --json 2>\"$DIR\"/err; "
                   "grep 'byol eval: WARNING: the dataset is not exact' \"$DIR\"/err >&2");
    program_expect(&scratch, 0, "\"not_exact\": \"larger images were resized",
                   "bench loader \"$DIR\"/small --batch 4 --json 2>\"$DIR\"/err; "
                   "grep 'byol bench loader: WARNING' \"$DIR\"/err >&2");
}

static void more_runs_than_colours_are_numbered(void **state)
{
    (void)state;
    program_expect(&scratch, 0, "10 runs, 10 charts",
                   "report $(yes \"$DIR\"/a | head -n 10) -o \"$DIR\"/page.html --quiet "
                   "--checkpoints 0");
    char *page = read_file("page.html");
    assert_well_formed(page);
    assert_charts(page);
    assert_non_null(strstr(page, "<body class=\"many\">"));
    assert_int_equal(count(page, "<text class=\"end "), 10 * 10);
    free(page);
}

static void skipped_records_are_listed(void **state)
{
    (void)state;
    program_expect(
        &scratch, 0, NULL,
        "--version; mkdir \"$DIR\"/d; cp \"$DIR\"/a/*.jsonl \"$DIR\"/a/config.yaml "
        "\"$DIR\"/d; printf '{\"ended\": \"corrupt\", \"step\": 12, \"reason\": \"<i>bad\", "
        "\"skips\": [{\"record\": 7, \"file\": \"<u>.jpg\", \"reason\": \"cut & short\"}]}' "
        ">\"$DIR\"/d/report.json");
    program_expect(&scratch, 0, "1 run", "report \"$DIR\"/d -o \"$DIR\"/page.html --quiet");
    char *page = read_file("page.html");
    assert_well_formed(page);
    assert_non_null(strstr(page, "record 7, &lt;u&gt;.jpg: cut &amp; short"));
    assert_non_null(strstr(page, "corrupt: &lt;i&gt;bad"));
    assert_non_null(strstr(page, "its dataset is not at hand"));
    free(page);
}

static void mistakes_are_explained(void **state)
{
    (void)state;
    program_expect(&scratch, 2, "one or more runs", "report -o \"$DIR\"/x.html");
    program_expect(&scratch, 2, "-o REPORT.html", "report \"$DIR\"/a");
    program_expect(&scratch, 2, "goes with --data", "report \"$DIR\"/a --json --test x");
    program_expect(&scratch, 1, "is no run", "report \"$DIR\" -o \"$DIR\"/x.html");
    program_expect(&scratch, 1, "", "report \"$DIR\"/a -o \"$DIR\"/x.html --data \"$DIR\"/none");
    program_expect(&scratch, 0, "nearest neighbours", "report --help");
}

// The script runs: each chart gets what shows values under the pointer.
static void a_browser_shows_it(void **state)
{
    (void)state;
    const char *browser = getenv("BYOL_BROWSER");
    char command[2048];
    browser = browser ? browser : "chromium";
    snprintf(command, sizeof command, "command -v '%s' >/dev/null 2>&1", browser);
    if (system(command) != 0) {
        print_message("skipped: no browser '%s' (BYOL_BROWSER names another)\n", browser);
        skip();
    }
    program_expect(&scratch, 0, "10 charts", "report \"$DIR\"/a -o \"$DIR\"/page.html --quiet");
    snprintf(
        command, sizeof command,
        "timeout 120 '%s' --headless=new --no-sandbox --disable-gpu --user-data-dir='%s/browser' "
        "--dump-dom 'file://%s/page.html' >'%s/dom.html' 2>/dev/null",
        browser, scratch.path, scratch.path, scratch.path);
    assert_int_equal(system(command), 0);
    char *dom = read_file("dom.html");
    assert_int_equal(count(dom, "class=\"tip hidden\""), 10);
    assert_int_equal(count(dom, "class=\"cursor hidden\""), 10);
    free(dom);
}

static int set_up(void **state)
{
    (void)state;
    char more[800];
    sample_dataset_make(&sample, 35, NOWHERE);
    sample_dataset_make(&probe, 30, NOWHERE);
    scratch_make(&scratch);
    snprintf(more, sizeof more, "--probe '%s' --set probe_bank=20 --set probe_images=8",
             probe.path[DATASET_SHARDS]);
    train("a", more);
    train(HOSTILE, "--set base_learning_rate=1");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sample_dataset_remove(&sample);
    sample_dataset_remove(&probe);
    scratch_remove(&scratch);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_runs_become_one_page),
        cmocka_unit_test(the_figures_come_as_json),
        cmocka_unit_test(damaged_runs_are_shown_as_far_as_they_go),
        cmocka_unit_test(what_was_logged_last_counts),
        cmocka_unit_test(resized_datasets_are_told_everywhere),
        cmocka_unit_test(more_runs_than_colours_are_numbered),
        cmocka_unit_test(skipped_records_are_listed),
        cmocka_unit_test(mistakes_are_explained),
        cmocka_unit_test(a_browser_shows_it),
    };
    return cmocka_run_group_tests_name("report", tests, set_up, tear_down);
}
