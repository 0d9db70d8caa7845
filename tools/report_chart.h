// Line charts as SVG, drawn once for every screen: colours come from the page's style sheet.
#ifndef TOOLS_REPORT_CHART_H
#define TOOLS_REPORT_CHART_H

#include "tools/report_run.h"

#include <stdio.h>

#define CHART_COLOURS 8 // classes run0 to run7 of the style sheet; further runs begin again

struct chart_line {
    const struct report_run *run;
    size_t number; // of the run: its colour
    enum report_figure figure;
    bool dashed;
    const char *what; // said after the run's name, or ""
};

// A level that the curves are compared with.
struct chart_level {
    double value;
    const char *label;
};

struct chart {
    const char *id, *title;
    const char *caption; // what one sees and what is good
    enum report_figure figures[2];
    size_t figure_count;  // the second one is dashed
    const char *whats[2]; // what is said of each
    bool from_zero;
    double scale;                 // shown = value * scale: 100 for percent
    const char *unit;             // after a value: " %" or ""
    double most;                  // of the axis, shown; 0: as the values say
    double least_span;            // of the axis, shown: noise is not blown up to a curve
    struct chart_level levels[2]; // with a NULL label: none
    bool band;                    // shade what lies between the levels
};

// Steps of a run per unit of the horizontal axis.
struct chart_axis {
    bool epochs; // else steps
};

// A <figure> with a curve for each run that has one. False when none has: then nothing is written.
bool chart_draw(FILE *page, const struct chart *chart, const struct chart_axis *axis,
                const struct report_run *runs, size_t count);

#endif
