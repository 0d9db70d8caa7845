// The style sheet and the script of a report's page.
#ifndef TOOLS_REPORT_STYLE_H
#define TOOLS_REPORT_STYLE_H

extern const char report_style[]; // CSS: light and dark, wide and narrow
extern const char
    report_script[]; // curves are read off under the pointer, runs are hidden and shown

#endif
