// The page of `byol report`: one HTML document that needs nothing else.
#ifndef TOOLS_REPORT_PAGE_H
#define TOOLS_REPORT_PAGE_H

#include "tools/report_pictures.h"

struct report_page {
    const struct report_run *runs;
    size_t count;
    const struct dataset *data, *test; // to look for neighbours in; NULL: each run's own probe
    struct report_search search;       // the rest of it
    // Filled while the page is written.
    size_t charts, sheets, neighbours;
};

// `*html` is malloc'ed. Pictures that cannot be made are explained in their place.
enum status report_page_write(struct report_page *page, char **html, size_t *len,
                              struct error *error);

// The figures of the page as JSON: what `--json` prints.
json_t *report_summary(const struct report_page *page);

#endif
