// Sections of a report's page, each in a file of its own, and what they share.
#ifndef TOOLS_REPORT_SECTIONS_H
#define TOOLS_REPORT_SECTIONS_H

#include "tools/report_page.h"

// What report.json says; NULL, NaN without.
const char *report_end_text(const struct report_run *run, const char *key);
double report_end_number(const struct report_run *run, const char *key);
// report.json is of the session that the log ends with.
bool report_end_is_current(const struct report_run *run);
const char *report_state(const struct report_run *run);

// A run's name beside its colour.
void report_put_run(FILE *out, const struct report_run *run, size_t number);

void report_put_summary(FILE *out, const struct report_page *page);
void report_put_curves(FILE *out, struct report_page *page);
void report_put_sessions(FILE *out, const struct report_page *page);
void report_put_sheets(FILE *out, struct report_page *page);
void report_put_neighbours(FILE *out, struct report_page *page);
void report_put_settings(FILE *out, const struct report_page *page);

json_t *report_figures_json(const struct report_run *run);
// Settings that the runs do not share: an array of values for each, by run.
json_t *report_differences(const struct report_page *page);

#endif
