// Sections of the page, from the summary to the settings.
#include "tools/report_page.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/html.h"
#include "tools/json_text.h"
#include "tools/progress.h"
#include "tools/report_chart.h"
#include "tools/report_style.h"

#define SKIPS_SHOWN 20

// --- figures -----------------------------------------------------------------------------------

static const char *end_text(const struct report_run *run, const char *key)
{
    return json_string_value(json_object_get(run->end, key));
}

static double end_number(const struct report_run *run, const char *key)
{
    const json_t *value = json_object_get(run->end, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

// The report is of the session that the log ends with.
static bool end_is_current(const struct report_run *run)
{
    return run->end != NULL && end_number(run, "step") >= (double)run->last_step;
}

static const char *state_of(const struct report_run *run)
{
    const char *ended = end_is_current(run) ? end_text(run, "ended") : NULL;
    return ended ? ended : "running or killed";
}

// --- small pieces --------------------------------------------------------------------------------

static void put_run(FILE *out, const struct report_run *run, size_t number)
{
    fprintf(out, "<span class=\"run%zu\"><span class=\"swatch\"></span></span>",
            number % CHART_COLOURS);
    html_text(out, run->name);
}

static void put_cell(FILE *out, const char *format, double value)
{
    fputs("<td class=\"number\">", out);
    if (isfinite(value)) {
        html_format(out, format, value);
    } else {
        fputs("–", out);
    }
    fputs("</td>", out);
}

static void put_heads(FILE *out, const char *const *heads, size_t count)
{
    fputs("<thead><tr>", out);
    for (size_t i = 0; i < count; i++) {
        fprintf(out, "<th scope=\"col\"%s>%s</th>", i > 1 ? " class=\"number\"" : "", heads[i]);
    }
    fputs("</tr></thead>\n", out);
}

// --- head and summary ----------------------------------------------------------------------------

static void put_head(FILE *out, const struct report_page *page)
{
    char when[64];
    time_t now = time(NULL);
    struct tm local;
    strftime(when, sizeof when, "%Y-%m-%d %H:%M %Z", localtime_r(&now, &local));
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
          "<meta name=\"color-scheme\" content=\"light dark\"/>\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
          "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\"/>\n<title>",
          out);
    html_format(out, "byol report: %s%s", page->runs[0].name, page->count > 1 ? " and others" : "");
    fprintf(out, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<header>\n<h1>", report_style);
    html_format(out, "%s%s", page->runs[0].name, page->count > 1 ? " and others" : "");
    fputs("</h1>\n<p class=\"pale\">", out);
    html_format(out, "%zu run%s, drawn by byol report on %s", page->count,
                page->count > 1 ? "s" : "", when);
    fputs("</p>\n</header>\n<ul class=\"runs\" aria-label=\"runs shown\">\n", out);
    for (size_t i = 0; i < page->count; i++) {
        fprintf(out, "<li><label class=\"run%zu\">", i % CHART_COLOURS);
        fprintf(out,
                "<input type=\"checkbox\" hidden=\"hidden\" checked=\"checked\" value=\"r%zu\"/>",
                i);
        fputs("<span class=\"swatch\"></span></label>", out);
        html_text(out, page->runs[i].name);
        fputs("</li>\n", out);
    }
    fputs("</ul>\n<main>\n", out);
}

static void put_progress(FILE *out, const struct report_run *run)
{
    fprintf(out, "<td class=\"number\">%" PRIu64, run->last_step);
    double planned = end_number(run, "steps");
    if (isfinite(planned)) {
        fprintf(out, " of %.0f", planned);
    }
    fputs("</td>", out);
}

static void put_summary_row(FILE *out, const struct report_run *run, size_t number)
{
    char time[16] = "–";
    const char *state = state_of(run);
    double seconds = end_number(run, "seconds_in_all");
    bool bad = strcmp(state, "finished") != 0 && strcmp(state, "stopped") != 0;
    fputs("<tr><th scope=\"row\">", out);
    put_run(out, run, number);
    fprintf(out, "</th><td%s>", bad ? " class=\"bad\"" : "");
    html_text(out, state);
    fputs("</td>", out);
    put_progress(out, run);
    put_cell(out, "%.4f", report_last(run, REPORT_LOSS));
    put_cell(out, "%.1f %%", 100 * report_last(run, REPORT_KNN));
    put_cell(out, "%.1f %%", 100 * report_last(run, REPORT_TOP1));
    put_cell(out, "%.2f", report_last(run, REPORT_SPREAD));
    put_cell(out, "%.1f", report_last(run, REPORT_RANKME));
    put_cell(out, "%.2f", report_last(run, REPORT_POSITIVE));
    put_cell(out, "%.2f", report_last(run, REPORT_NEGATIVE));
    put_cell(out, "%.0f", report_median(run, REPORT_SPEED));
    put_cell(out, "%.1f %%", 100 * report_median(run, REPORT_WAIT));
    if (isfinite(seconds)) {
        progress_duration(seconds, time);
    }
    fprintf(out, "<td class=\"number\">%s</td>", time);
    put_cell(out, "%.0f", end_number(run, "skipped_records"));
    fputs("</tr>\n", out);
}

static void put_summary(FILE *out, const struct report_page *page)
{
    static const char *const heads[] = {
        "run",    "state",    "step",     "loss",    "kNN top-1", "online top-1", "spread",
        "RankMe", "positive", "negative", "pairs/s", "data wait", "training",     "skipped"};
    fputs("<h2>Where they stand</h2>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" "
          "aria-label=\"final values\"><table>",
          out);
    put_heads(out, heads, sizeof heads / sizeof heads[0]);
    fputs("<tbody>\n", out);
    for (size_t i = 0; i < page->count; i++) {
        put_summary_row(out, &page->runs[i], i);
    }
    fputs("</tbody></table></div>\n<p class=\"pale\">Last values of the log; pairs per second and "
          "data wait are medians over it. Spread: share of what it is with all directions in use. "
          "Positive, negative: cosines between projections of one image's views and of different "
          "images.</p>\n",
          out);
    for (size_t i = 0; i < page->count; i++) {
        const struct report_run *run = &page->runs[i];
        if (run->collapsed > 0) {
            fputs("<p class=\"bad\">", out);
            html_format(out, "%s: the collapse alarm rose by step %" PRIu64, run->name,
                        run->collapsed);
            fputs("</p>\n", out);
        }
        if (run->note[0]) {
            fputs("<p>", out);
            html_format(out, "%s: %s", run->name, run->note);
            fputs("</p>\n", out);
        }
    }
}

// --- charts --------------------------------------------------------------------------------------

// Healthy and collapsed cosines are those that the blog of untitled-ai's implementation reports.
static const struct chart charts[] = {
    {.id = "loss",
     .title = "Loss",
     .caption =
         "2 - 2 cosine, both directions added up, without the classifier's: near 4 views are "
         "strangers to each other, at 0 they are alike (which collapse reaches too).",
     .figures = {REPORT_REPRESENTATION},
     .figure_count = 1,
     .whats = {""},
     .scale = 1,
     .unit = ""},
    {.id = "knn",
     .title = "Nearest neighbours on the probe",
     .caption = "Top-1 of labelled images that training has not seen, by the votes of their "
                "neighbours' labels (k 200, temperature 0.1).",
     .figures = {REPORT_KNN},
     .figure_count = 1,
     .whats = {""},
     .from_zero = true,
     .scale = 100,
     .unit = " %",
     .most = 100,
     .least_span = 5},
    {.id = "online",
     .title = "Online accuracy",
     .caption = "Top-1 on the training images' views, of the linear classifier that is trained "
                "beside and never moves the features.",
     .figures = {REPORT_TOP1},
     .figure_count = 1,
     .whats = {""},
     .from_zero = true,
     .scale = 100,
     .unit = " %",
     .most = 100,
     .least_span = 5},
    {.id = "cosines",
     .title = "Positive and negative cosine",
     .caption = "Projections of an image's two views (solid) and of different images (dashed). In "
                "published healthy runs they end near the edges of the shaded band; both near 1 is "
                "collapse.",
     .figures = {REPORT_POSITIVE, REPORT_NEGATIVE},
     .figure_count = 2,
     .whats = {"positive", "negative"},
     .from_zero = true,
     .scale = 1,
     .unit = "",
     .most = 1,
     .least_span = 1,
     .levels = {{0.88, "healthy: positive 0.88"}, {0.27, "healthy: negative 0.27"}},
     .band = true},
    {.id = "spread",
     .title = "Spread of the projections",
     .caption =
         "Deviation of the normalised projections' dimensions, as a share of what it is with "
         "all directions in use. 50 steps under a fifth raise the collapse alarm.",
     .figures = {REPORT_SPREAD},
     .figure_count = 1,
     .whats = {""},
     .from_zero = true,
     .scale = 1,
     .unit = "",
     .levels = {{1, "all directions in use"}, {0.2, "alarm"}}},
    {.id = "rankme",
     .title = "RankMe",
     .caption =
         "Directions in use: of the features (solid) and of the projections (dashed), on the "
         "probe's voting images.",
     .figures = {REPORT_RANKME, REPORT_RANKME_PROJECTIONS},
     .figure_count = 2,
     .whats = {"features", "projections"},
     .from_zero = true,
     .scale = 1,
     .unit = "",
     .least_span = 5},
    {.id = "rate",
     .title = "Learning rate",
     .caption = "Of the step itself: linear warm-up, then cosine.",
     .figures = {REPORT_LEARNING_RATE},
     .figure_count = 1,
     .whats = {""},
     .from_zero = true,
     .scale = 1,
     .unit = ""},
    {.id = "tau",
     .title = "Tau",
     .caption = "Decay of the target network's moving average; rises to 1.",
     .figures = {REPORT_TAU},
     .figure_count = 1,
     .whats = {""},
     .scale = 1,
     .unit = "",
     .most = 1},
    {.id = "speed",
     .title = "Pairs per second",
     .caption = "Smoothed over some 20 steps.",
     .figures = {REPORT_SPEED},
     .figure_count = 1,
     .whats = {""},
     .from_zero = true,
     .scale = 1,
     .unit = ""},
    {.id = "wait",
     .title = "Data wait",
     .caption = "Share of a step spent waiting for its batch: above a few percent the loader is "
                "what limits the run.",
     .figures = {REPORT_WAIT},
     .figure_count = 1,
     .whats = {""},
     .from_zero = true,
     .scale = 100,
     .unit = " %",
     .most = 100,
     .least_span = 5},
};

static const char *const why_empty[] = {
    [REPORT_KNN] = "nearest neighbours and RankMe (pretrain with --probe)",
    [REPORT_TOP1] = "online accuracy (training data without labels, or classifier: false)",
};

static void put_charts(FILE *out, struct report_page *page)
{
    struct chart_axis axis = {.epochs = true};
    bool lacks[REPORT_FIGURES] = {false};
    for (size_t i = 0; i < page->count; i++) {
        axis.epochs &= page->runs[i].steps_per_epoch > 0;
    }
    fputs("<h2>Curves</h2>\n<div class=\"charts\">\n", out);
    for (size_t i = 0; i < sizeof charts / sizeof charts[0]; i++) {
        bool drawn = chart_draw(out, &charts[i], &axis, page->runs, page->count);
        page->charts += drawn;
        lacks[charts[i].figures[0]] = !drawn;
    }
    fputs("</div>\n", out);
    for (size_t i = 0; i < sizeof why_empty / sizeof why_empty[0]; i++) {
        if (lacks[i] && why_empty[i] != NULL) {
            fprintf(out, "<p class=\"pale\">Not in these logs: %s.</p>\n", why_empty[i]);
        }
    }
}

// --- ends ----------------------------------------------------------------------------------------

static void put_session(FILE *out, const json_t *session)
{
    char time[16] = "–";
    const json_t *seconds = json_object_get(session, "seconds");
    const char *ended = json_string_value(json_object_get(session, "ended"));
    const char *reason = json_string_value(json_object_get(session, "reason"));
    const char *device = json_string_value(json_object_get(session, "device"));
    if (json_is_number(seconds)) {
        progress_duration(json_number_value(seconds), time);
    }
    fputs("<li>", out);
    html_format(out, "step %lld to %lld in %s: %s%s%s; %s; %lld records skipped",
                (long long)json_integer_value(json_object_get(session, "from")),
                (long long)json_integer_value(json_object_get(session, "step")), time,
                ended ? ended : "unknown", reason && reason[0] ? ": " : "", reason ? reason : "",
                device ? device : "device unknown",
                (long long)json_integer_value(json_object_get(session, "skipped_records")));
    fputs("</li>\n", out);
}

static void put_skips(FILE *out, const struct report_run *run)
{
    const json_t *skips = json_object_get(run->end, "skips"), *skip;
    size_t index;
    if (json_array_size(skips) == 0) {
        return;
    }
    html_format(out, "Skipped records (%zu listed):", json_array_size(skips));
    fputs("<ul>\n", out);
    json_array_foreach(skips, index, skip)
    {
        if (index == SKIPS_SHOWN) {
            fputs("<li>… the rest is in report.json</li>\n", out);
            break;
        }
        const char *file = json_string_value(json_object_get(skip, "file"));
        const char *reason = json_string_value(json_object_get(skip, "reason"));
        fputs("<li><code>", out);
        html_format(out, "record %lld, %s: %s",
                    (long long)json_integer_value(json_object_get(skip, "record")),
                    file ? file : "?", reason ? reason : "?");
        fputs("</code></li>\n", out);
    }
    fputs("</ul>\n", out);
}

static void put_facts(FILE *out, const struct report_run *run)
{
    const json_t *dataset = json_object_get(run->end, "dataset");
    const char *directory = json_string_value(json_object_get(dataset, "directory"));
    const char *checkpoint = end_text(run, "checkpoint");
    if (directory != NULL) {
        fputs("<p>Learnt from <code>", out);
        html_text(out, directory);
        fputs("</code>", out);
        html_format(out, ", %lld images",
                    (long long)json_integer_value(json_object_get(dataset, "images")));
        fputs("</p>\n", out);
    }
    if (checkpoint != NULL && checkpoint[0]) {
        fputs("<p>Last checkpoint: <code>", out);
        html_text(out, checkpoint);
        fputs("</code></p>\n", out);
    }
}

static void put_end(FILE *out, const struct report_run *run, size_t number)
{
    const json_t *sessions = json_object_get(run->end, "sessions"), *session;
    size_t index;
    fputs("<figure>\n<h3>", out);
    put_run(out, run, number);
    fputs("</h3>\n<ul>\n", out);
    json_array_foreach(sessions, index, session)
    {
        put_session(out, session);
    }
    if (run->end != NULL && !json_is_array(sessions)) {
        put_session(out, run->end); // an older program kept the last one only
    }
    if (!end_is_current(run)) {
        fputs("<li>", out);
        html_format(out,
                    "the log goes on to step %" PRIu64
                    ": its last session is still running, or was killed",
                    run->last_step);
        fputs("</li>\n", out);
    }
    fputs("</ul>\n", out);
    put_facts(out, run);
    put_skips(out, run);
    fputs("</figure>\n", out);
}

static void put_ends(FILE *out, const struct report_page *page)
{
    fputs("<h2>How sessions ended</h2>\n<div class=\"charts\">\n", out);
    for (size_t i = 0; i < page->count; i++) {
        put_end(out, &page->runs[i], i);
    }
    fputs("</div>\n", out);
}

// --- pictures ------------------------------------------------------------------------------------

// What goes to a page of its own first: nothing half of it when making it fails.
struct piece {
    FILE *out;
    char *text;
    size_t len;
};

static enum status piece_open(struct piece *piece, struct error *error)
{
    *piece = (struct piece){0};
    piece->out = open_memstream(&piece->text, &piece->len);
    return piece->out ? STATUS_OK
                      : error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                                  "no memory for the page");
}

static void piece_close(struct piece *piece, FILE *out, enum status status,
                        const struct error *error)
{
    char text[1200];
    if (piece->out != NULL && fclose(piece->out) == 0 && status == STATUS_OK) {
        fwrite(piece->text, 1, piece->len, out);
    } else {
        fputs("<p class=\"bad\">", out);
        html_text(out, error_text(error, text, sizeof text));
        fputs("</p>\n", out);
    }
    free(piece->text);
}

// But for the seed, which one sheet stands for.
static bool same_views(const struct report_run *left, const struct report_run *right)
{
    const json_t *a = json_object_get(json_object_get(left->end, "dataset"), "id");
    const json_t *b = json_object_get(json_object_get(right->end, "dataset"), "id");
    return left->has_config && right->has_config && a != NULL && json_equal(a, b) &&
           memcmp(&left->config.recipe, &right->config.recipe, sizeof left->config.recipe) == 0;
}

static bool was_shown(const struct report_page *page, size_t number)
{
    for (size_t i = 0; i < number; i++) {
        if (same_views(&page->runs[i], &page->runs[number])) {
            return true;
        }
    }
    return false;
}

// Names all runs whose views are these.
static void put_sheet_names(FILE *out, const struct report_page *page, size_t number)
{
    fputs("<h3>", out);
    put_run(out, &page->runs[number], number);
    for (size_t i = number + 1; i < page->count; i++) {
        if (same_views(&page->runs[number], &page->runs[i])) {
            fputs(", ", out);
            put_run(out, &page->runs[i], i);
        }
    }
    html_format(out, ": recipe %s", page->runs[number].config.recipe.name);
    fputs("</h3>\n", out);
}

static void put_sheet(FILE *out, struct report_page *page, size_t number,
                      const struct dataset *dataset)
{
    struct piece piece;
    struct error error;
    enum status status = piece_open(&piece, &error);
    if (status == STATUS_OK) {
        fputs("<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"contact sheet\">",
              piece.out);
        status = report_sheet(piece.out, &page->runs[number], dataset, &error);
        fputs("</div>\n", piece.out);
    }
    page->sheets += status == STATUS_OK;
    put_sheet_names(out, page, number);
    piece_close(&piece, out, status, &error);
}

static void put_sheets(FILE *out, struct report_page *page)
{
    fputs("<h2>What the network sees</h2>\n", out);
    for (size_t i = 0; i < page->count; i++) {
        if (!page->runs[i].has_config || was_shown(page, i)) {
            continue;
        }
        struct dataset *own = report_dataset(&page->runs[i]);
        if (own != NULL || page->data != NULL) {
            put_sheet(out, page, i, own ? own : page->data);
        } else {
            fputs("<p class=\"pale\">", out);
            html_format(out,
                        "%s: its dataset is not at hand (--data DATASET shows another's views)",
                        page->runs[i].name);
            fputs("</p>\n", out);
        }
        dataset_close(&own);
    }
}

// The run's own probe, where it is at hand. Both are NULL when it is not.
static void open_probe(const struct report_run *run, struct dataset **data, struct dataset **test)
{
    *data = *test = NULL;
    if (!run->has_config || run->config.probe[0] == '\0' ||
        dataset_open(data, run->config.probe, NULL) != STATUS_OK) {
        return;
    }
    if (run->config.probe_test[0] &&
        dataset_open(test, run->config.probe_test, NULL) != STATUS_OK) {
        dataset_close(data);
    }
}

static void put_neighbours_of(FILE *out, struct report_page *page, size_t number)
{
    const struct report_run *run = &page->runs[number];
    struct report_search search = page->search;
    struct dataset *data = NULL, *test = NULL;
    struct piece piece;
    struct error error;
    if (page->data == NULL) {
        open_probe(run, &data, &test);
    }
    search.data = page->data ? page->data : data;
    search.test = page->data ? page->test : test;
    if (search.data != NULL && run->has_config && search.checkpoints > 0) {
        enum status status = piece_open(&piece, &error);
        if (status == STATUS_OK) {
            status = report_neighbours(piece.out, run, &search, &error);
        }
        page->neighbours += status == STATUS_OK;
        fputs("<h3>", out);
        put_run(out, run, number);
        fputs("</h3>\n", out);
        piece_close(&piece, out, status, &error);
    }
    dataset_close(&data);
    dataset_close(&test);
}

static void put_neighbours(FILE *out, struct report_page *page)
{
    struct piece piece;
    struct error error;
    if (piece_open(&piece, &error) != STATUS_OK) {
        piece_close(&piece, out, STATUS_NO_MEMORY, &error);
        return;
    }
    for (size_t i = 0; i < page->count; i++) {
        put_neighbours_of(piece.out, page, i);
    }
    fflush(piece.out);
    fputs("<h2>Nearest neighbours</h2>\n", out);
    fputs(piece.len == 0
              ? "<p class=\"pale\">Not shown: --data DATASET (and --test) says where to look, or a "
                "run's own probe.</p>\n"
              : "<p class=\"pale\">Images that a checkpoint's features find most alike, with their "
                "cosine. ✓ is the same class, ✗ another one.</p>\n",
          out);
    piece_close(&piece, out, STATUS_OK, &error);
}

// --- settings ------------------------------------------------------------------------------------

static bool differs(const struct report_page *page, const char *key)
{
    const char *first = report_setting_of(&page->runs[0], key);
    for (size_t i = 1; i < page->count; i++) {
        const char *other = report_setting_of(&page->runs[i], key);
        if ((first == NULL) != (other == NULL) || (first && strcmp(first, other) != 0)) {
            return true;
        }
    }
    return false;
}

// A row for each key that any run has: of those that differ, or of all.
static size_t put_setting_rows(FILE *out, const struct report_page *page, bool all)
{
    size_t rows = 0;
    for (size_t r = 0; r < page->count; r++) {
        for (size_t i = 0; i < page->runs[r].setting_count; i++) {
            const char *key = page->runs[r].settings[i].key;
            bool had = false;
            for (size_t before = 0; before < r && !had; before++) {
                had = report_setting_of(&page->runs[before], key) != NULL;
            }
            bool different = !had && differs(page, key);
            if (had || (!all && !different)) {
                continue;
            }
            fprintf(out, "<tr%s><th scope=\"row\">", all && different ? " class=\"differs\"" : "");
            html_text(out, key);
            fputs("</th>", out);
            for (size_t c = 0; c < page->count; c++) {
                const char *value = report_setting_of(&page->runs[c], key);
                fputs("<td class=\"value\">", out);
                html_text(out, value ? value : "–");
                fputs("</td>", out);
            }
            fputs("</tr>\n", out);
            rows++;
        }
    }
    return rows;
}

static void put_setting_table(FILE *out, const struct report_page *page, bool all)
{
    fprintf(out,
            "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"%s\"><table><thead>"
            "<tr><th scope=\"col\">setting</th>",
            all ? "all settings" : "settings that differ");
    for (size_t i = 0; i < page->count; i++) {
        fputs("<th scope=\"col\">", out);
        put_run(out, &page->runs[i], i);
        fputs("</th>", out);
    }
    fputs("</tr></thead><tbody>\n", out);
    if (put_setting_rows(out, page, all) == 0) {
        fputs("<tr><th scope=\"row\">none</th></tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
}

static void put_settings(FILE *out, const struct report_page *page)
{
    fputs("<h2>Settings</h2>\n", out);
    if (page->count > 1) {
        fputs("<p>What differs between the runs:</p>\n", out);
        put_setting_table(out, page, false);
    }
    fputs("<details><summary>All settings</summary>\n", out);
    put_setting_table(out, page, true);
    fputs("</details>\n", out);
}

// --- the page ------------------------------------------------------------------------------------

enum status report_page_write(struct report_page *page, char **html, size_t *len,
                              struct error *error)
{
    *html = NULL;
    FILE *out = open_memstream(html, len);
    if (out != NULL) {
        put_head(out, page);
        put_summary(out, page);
        put_charts(out, page);
        put_ends(out, page);
        put_sheets(out, page);
        put_neighbours(out, page);
        put_settings(out, page);
        fprintf(out, "</main>\n<script>\n%s</script>\n</body>\n</html>\n", report_script);
    }
    return out != NULL && fclose(out) == 0 ? STATUS_OK
                                           : error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE,
                                                       NOWHERE, "no memory for the page");
}

// --- as JSON -------------------------------------------------------------------------------------

static void set_number(json_t *object, const char *key, double value)
{
    json_object_set_new(object, key, isfinite(value) ? json_real(value) : json_null());
}

static json_t *summary_of(const struct report_run *run)
{
    static const struct {
        const char *key;
        enum report_figure figure;
        double scale;
    } figures[] = {
        {"loss", REPORT_LOSS, 1},
        {"knn_top1", REPORT_KNN, 100},
        {"online_top1", REPORT_TOP1, 100},
        {"learning_rate", REPORT_LEARNING_RATE, 1},
        {"tau", REPORT_TAU, 1},
        {"spread_share", REPORT_SPREAD, 1},
        {"rankme", REPORT_RANKME, 1},
        {"rankme_projections", REPORT_RANKME_PROJECTIONS, 1},
        {"positive_cosine", REPORT_POSITIVE, 1},
        {"negative_cosine", REPORT_NEGATIVE, 1},
    };
    json_t *object = json_object();
    json_object_set_new(object, "name", json_text(run->name));
    json_object_set_new(object, "directory", json_text(run->directory));
    json_object_set_new(object, "ended", json_text(state_of(run)));
    json_object_set_new(object, "step", json_integer((json_int_t)run->last_step));
    set_number(object, "steps", end_number(run, "steps"));
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        set_number(object, figures[i].key, figures[i].scale * report_last(run, figures[i].figure));
    }
    set_number(object, "pairs_per_second", report_median(run, REPORT_SPEED));
    set_number(object, "data_wait", report_median(run, REPORT_WAIT));
    set_number(object, "seconds", end_number(run, "seconds_in_all"));
    set_number(object, "skipped_records", end_number(run, "skipped_records"));
    json_object_set_new(object, "collapsed", json_boolean(run->collapsed > 0));
    return object;
}

static json_t *differences(const struct report_page *page)
{
    json_t *object = json_object();
    for (size_t r = 0; r < page->count; r++) {
        for (size_t i = 0; i < page->runs[r].setting_count; i++) {
            const char *key = page->runs[r].settings[i].key;
            if (!differs(page, key) || json_object_get(object, key) != NULL) {
                continue;
            }
            json_t *values = json_array();
            for (size_t c = 0; c < page->count; c++) {
                const char *value = report_setting_of(&page->runs[c], key);
                json_array_append_new(values, value ? json_text(value) : json_null());
            }
            json_object_set_new(object, key, values);
        }
    }
    return object;
}

json_t *report_summary(const struct report_page *page)
{
    json_t *object = json_object(), *runs = json_array();
    for (size_t i = 0; i < page->count; i++) {
        json_array_append_new(runs, summary_of(&page->runs[i]));
    }
    json_object_set_new(object, "runs", runs);
    json_object_set_new(object, "differences", differences(page));
    json_object_set_new(object, "charts", json_integer((json_int_t)page->charts));
    json_object_set_new(object, "sheets", json_integer((json_int_t)page->sheets));
    json_object_set_new(object, "neighbours", json_integer((json_int_t)page->neighbours));
    return object;
}
