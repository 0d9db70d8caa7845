// Where the runs stand: the table at the top of the page, and the same figures as JSON.
#include "tools/report_sections.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "tools/html.h"
#include "tools/json_text.h"
#include "tools/progress.h"
#include "tools/report_chart.h"

const char *report_end_text(const struct report_run *run, const char *key)
{
    return json_string_value(json_object_get(run->end, key));
}

double report_end_number(const struct report_run *run, const char *key)
{
    const json_t *value = json_object_get(run->end, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

// The report is of the session that the log ends with.
bool report_end_is_current(const struct report_run *run)
{
    return run->end != NULL && report_end_number(run, "step") >= (double)run->last_step;
}

const char *report_state(const struct report_run *run)
{
    const char *ended = report_end_is_current(run) ? report_end_text(run, "ended") : NULL;
    return ended ? ended : "running or killed";
}

// --- the table -----------------------------------------------------------------------------------

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

static void put_progress(FILE *out, const struct report_run *run)
{
    fprintf(out, "<td class=\"number\">%" PRIu64, run->last_step);
    double planned = report_end_number(run, "steps");
    if (isfinite(planned)) {
        fprintf(out, " of %.0f", planned);
    }
    fputs("</td>", out);
}

static void put_summary_row(FILE *out, const struct report_run *run, size_t number)
{
    char time[16] = "–";
    const char *state = report_state(run);
    double seconds = report_end_number(run, "seconds_in_all");
    bool bad = strcmp(state, "finished") != 0 && strcmp(state, "stopped") != 0;
    fputs("<tr><th scope=\"row\">", out);
    report_put_run(out, run, number);
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
    put_cell(out, "%.0f", report_end_number(run, "skipped_records"));
    fputs("</tr>\n", out);
}

void report_put_summary(FILE *out, const struct report_page *page)
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

// --- as JSON -------------------------------------------------------------------------------------

static void set_number(json_t *object, const char *key, double value)
{
    json_object_set_new(object, key, isfinite(value) ? json_real(value) : json_null());
}

json_t *report_figures_json(const struct report_run *run)
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
    json_object_set_new(object, "ended", json_text(report_state(run)));
    json_object_set_new(object, "step", json_integer((json_int_t)run->last_step));
    set_number(object, "steps", report_end_number(run, "steps"));
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        set_number(object, figures[i].key, figures[i].scale * report_last(run, figures[i].figure));
    }
    set_number(object, "pairs_per_second", report_median(run, REPORT_SPEED));
    set_number(object, "data_wait", report_median(run, REPORT_WAIT));
    set_number(object, "seconds", report_end_number(run, "seconds_in_all"));
    set_number(object, "skipped_records", report_end_number(run, "skipped_records"));
    json_object_set_new(object, "collapsed", json_boolean(run->collapsed > 0));
    json_object_set_new(object, "not_exact",
                        run->not_exact ? json_text(run->not_exact) : json_null());
    return object;
}
