// Settings of the runs side by side, those that differ first.
#include "tools/report_sections.h"

#include <string.h>

#include "tools/html.h"
#include "tools/json_text.h"

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
        report_put_run(out, &page->runs[i], i);
        fputs("</th>", out);
    }
    fputs("</tr></thead><tbody>\n", out);
    if (put_setting_rows(out, page, all) == 0) {
        fputs("<tr><th scope=\"row\">none</th></tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
}

void report_put_settings(FILE *out, const struct report_page *page)
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

json_t *report_differences(const struct report_page *page)
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
