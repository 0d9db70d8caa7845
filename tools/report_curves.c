// The charts of the page: what each shows, and what is said below it.
#include "tools/report_sections.h"

#include "tools/report_chart.h"

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

void report_put_curves(FILE *out, struct report_page *page)
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
