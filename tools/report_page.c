// The page of `byol report` as a whole: its head, and its sections in their order.
#include "tools/report_page.h"

#include <stdlib.h>
#include <time.h>

#include "tools/html.h"
#include "tools/report_chart.h"
#include "tools/report_sections.h"
#include "tools/report_style.h"

void report_put_run(FILE *out, const struct report_run *run, size_t number)
{
    fprintf(out, "<span class=\"run%zu\"><span class=\"swatch\"><b>%zu</b></span></span>",
            number % CHART_COLOURS, number + 1);
    html_text(out, run->name);
}

// Figures of resized images are not those of the originals: that is said first.
static void put_not_exact(FILE *out, const struct report_page *page)
{
    for (size_t i = 0; i < page->count; i++) {
        if (page->runs[i].not_exact != NULL) {
            fputs("<p class=\"bad\">", out);
            html_format(out, "%s: its dataset is not exact: ", page->runs[i].name);
            html_text(out, page->runs[i].not_exact);
            fputs("</p>\n", out);
        }
    }
}

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
    fprintf(out, "</title>\n<style>\n%s</style>\n</head>\n<body%s>\n<header>\n<h1>", report_style,
            page->count > CHART_COLOURS ? " class=\"many\"" : "");
    html_format(out, "%s%s", page->runs[0].name, page->count > 1 ? " and others" : "");
    fputs("</h1>\n<p class=\"pale\">", out);
    html_format(out, "%zu run%s, drawn by byol report on %s", page->count,
                page->count > 1 ? "s" : "", when);
    fputs("</p>\n", out);
    put_not_exact(out, page);
    fputs("</header>\n<ul class=\"runs\" aria-label=\"runs shown\">\n", out);
    for (size_t i = 0; i < page->count; i++) {
        fprintf(out,
                "<li><label><input class=\"run%zu\" type=\"checkbox\" hidden=\"hidden\" "
                "checked=\"checked\" value=\"r%zu\"/>",
                i % CHART_COLOURS, i);
        report_put_run(out, &page->runs[i], i);
        fputs("</label></li>\n", out);
    }
    fputs("</ul>\n<main>\n", out);
}

enum status report_page_write(struct report_page *page, char **html, size_t *len,
                              struct error *error)
{
    *html = NULL;
    FILE *out = open_memstream(html, len);
    if (out != NULL) {
        put_head(out, page);
        report_put_summary(out, page);
        report_put_curves(out, page);
        report_put_sessions(out, page);
        report_put_sheets(out, page);
        report_put_neighbours(out, page);
        report_put_settings(out, page);
        fprintf(out, "</main>\n<script>\n%s</script>\n</body>\n</html>\n", report_script);
    }
    return out != NULL && fclose(out) == 0 ? STATUS_OK
                                           : error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE,
                                                       NOWHERE, "no memory for the page");
}

json_t *report_summary(const struct report_page *page)
{
    json_t *object = json_object(), *runs = json_array();
    for (size_t i = 0; i < page->count; i++) {
        json_array_append_new(runs, report_figures_json(&page->runs[i]));
    }
    json_object_set_new(object, "runs", runs);
    json_object_set_new(object, "differences", report_differences(page));
    json_object_set_new(object, "charts", json_integer((json_int_t)page->charts));
    json_object_set_new(object, "sheets", json_integer((json_int_t)page->sheets));
    json_object_set_new(object, "neighbours", json_integer((json_int_t)page->neighbours));
    return object;
}
