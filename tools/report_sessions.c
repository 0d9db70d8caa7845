// How the runs' sessions ended, and what they passed over.
#include "tools/report_sections.h"

#include <inttypes.h>

#include "tools/html.h"
#include "tools/progress.h"

#define SKIPS_SHOWN 20

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
    const char *checkpoint = report_end_text(run, "checkpoint");
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
    report_put_run(out, run, number);
    fputs("</h3>\n<ul>\n", out);
    json_array_foreach(sessions, index, session)
    {
        put_session(out, session);
    }
    if (run->end != NULL && !json_is_array(sessions)) {
        put_session(out, run->end); // an older program kept the last one only
    }
    if (!report_end_is_current(run)) {
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

void report_put_sessions(FILE *out, const struct report_page *page)
{
    fputs("<h2>How sessions ended</h2>\n<div class=\"charts\">\n", out);
    for (size_t i = 0; i < page->count; i++) {
        put_end(out, &page->runs[i], i);
    }
    fputs("</div>\n", out);
}
