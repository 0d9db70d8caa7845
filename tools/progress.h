// One progress line on a terminal, redrawn at most ten times a second; plain lines every few
// seconds when stderr is not a terminal is too chatty for logs, so there it prints only notices and
// a line each 30 seconds.
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool terminal, quiet;
    double started, drawn; // monotonic seconds
    unsigned width;        // of the last line drawn
    uint64_t before;       // done before it began
};

void progress_begin(struct progress *progress, bool quiet);

// Replaces the line by `text`; drops it when the last one is too young, unless `force`.
void progress_line(struct progress *progress, bool force, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// "stage [####    ] done/total  rate unit/s  ETA 1:23"
void progress_bar(struct progress *progress, const char *stage, uint64_t done, uint64_t total,
                  const char *unit);

// The same with "12.3 MB/s" of `bytes` done since the beginning.
void progress_bar_bytes(struct progress *progress, const char *stage, uint64_t done, uint64_t total,
                        const char *unit, uint64_t bytes);
// So many were done before this began: rates and the time left are those of the rest.
void progress_start_at(struct progress *progress, uint64_t done);

// Prints a line of its own above the progress line.
void progress_notice(struct progress *progress, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// Ends the line.
void progress_end(struct progress *progress);

// Seconds as "42s", "3:07", "1:02:03". `text` needs 16 bytes; returned.
char *progress_duration(double seconds, char *text);

#endif
