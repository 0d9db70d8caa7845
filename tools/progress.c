// One line, redrawn in place on a terminal; in a log only notices and a line now and then.
#include "tools/progress.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define TERMINAL_SECONDS 0.1
#define LOG_SECONDS      30.0
#define BAR_CELLS        24u
#define LINE_SIZE        256

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

void progress_begin(struct progress *progress, bool quiet)
{
    *progress = (struct progress){.terminal = isatty(STDERR_FILENO) == 1, .quiet = quiet};
    progress->started = now();
    // A terminal shows the first line at once; a log waits, so that short work leaves no lines.
    progress->drawn = progress->terminal ? 0 : progress->started;
}

static bool too_young(const struct progress *progress, double time)
{
    return time - progress->drawn < (progress->terminal ? TERMINAL_SECONDS : LOG_SECONDS);
}

// A line that went on below could not be redrawn.
static unsigned columns(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1u : 79;
}

static void draw(struct progress *progress, double time, const char *text)
{
    unsigned width = (unsigned)strlen(text);
    if (progress->terminal) {
        unsigned room = columns();
        width = width < room ? width : room;
        unsigned stale = progress->width > width ? progress->width - width : 0;
        fprintf(stderr, "\r%.*s%*s", (int)width, text, (int)stale, "");
        progress->width = width;
    } else {
        fprintf(stderr, "%s\n", text);
    }
    fflush(stderr);
    progress->drawn = time;
}

void progress_line(struct progress *progress, bool force, const char *format, ...)
{
    double time = now();
    if (progress->quiet || (!force && too_young(progress, time))) {
        return;
    }
    char text[LINE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    draw(progress, time, text);
}

char *progress_duration(double seconds, char *text)
{
    // Also for NaN and for what would not fit: a guess that far away says nothing.
    if (!(seconds >= 0 && seconds < 360000000)) {
        snprintf(text, 16, "?");
        return text;
    }
    unsigned long whole = (unsigned long)(seconds + 0.5);
    unsigned long hours = whole / 3600 % 100000, minutes = whole / 60 % 60, rest = whole % 60;
    if (hours > 0) {
        snprintf(text, 16, "%lu:%02lu:%02lu", hours, minutes, rest);
    } else if (minutes > 0) {
        snprintf(text, 16, "%lu:%02lu", minutes, rest);
    } else {
        snprintf(text, 16, "%lus", rest);
    }
    return text;
}

void progress_bar(struct progress *progress, const char *stage, uint64_t done, uint64_t total,
                  const char *unit)
{
    progress_bar_bytes(progress, stage, done, total, unit, 0);
}

void progress_start_at(struct progress *progress, uint64_t done)
{
    progress->before = done;
}

void progress_bar_bytes(struct progress *progress, const char *stage, uint64_t done, uint64_t total,
                        const char *unit, uint64_t bytes)
{
    double time = now(), elapsed = time - progress->started;
    // The end of a stage is always shown on a terminal, so that no bar stays short of it.
    bool last = progress->terminal && done == total;
    if (progress->quiet || (!last && too_young(progress, time))) {
        return;
    }
    double share = total > 0 ? (double)done / (double)total : 1;
    double rate = elapsed > 0 ? (double)(done - progress->before) / elapsed : 0;
    double left = rate > 0 ? (double)(total - done) / rate : -1;
    char bar[BAR_CELLS + 1], duration[16], text[LINE_SIZE], megabytes[32] = "";
    if (bytes > 0 && elapsed > 0) {
        snprintf(megabytes, sizeof megabytes, "  %.1f MB/s", (double)bytes / 1e6 / elapsed);
    }
    memset(bar, ' ', BAR_CELLS);
    memset(bar, '#', (size_t)((share < 1 ? share : 1) * BAR_CELLS));
    bar[BAR_CELLS] = 0;
    snprintf(text, sizeof text, "%s [%s] %" PRIu64 "/%" PRIu64 "  %.*f %s/s%s  ETA %s", stage, bar,
             done, total, rate < 10 ? 1 : 0, rate, unit, megabytes,
             progress_duration(left, duration));
    draw(progress, time, text);
}

void progress_notice(struct progress *progress, const char *format, ...)
{
    if (progress->quiet) {
        return;
    }
    if (progress->terminal && progress->width > 0) {
        fprintf(stderr, "\r%*s\r", (int)progress->width, "");
        progress->width = 0;
        progress->drawn = 0; // draw the line again soon
    }
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    fflush(stderr);
}

void progress_end(struct progress *progress)
{
    if (progress->terminal && progress->width > 0) {
        fputc('\n', stderr);
        fflush(stderr);
        progress->width = 0;
    }
}
