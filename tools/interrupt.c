// The line is put together beforehand: a signal's handler may do little more than write it.
#include "tools/interrupt.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_SIZE 1200 // a path and the words around it

static char plain[LINE_SIZE], leaving[LINE_SIZE];
static volatile sig_atomic_t leaves; // `leaving` is whole

static void on_signal(int number)
{
    const char *line = leaves ? leaving : plain;
    ssize_t written = write(STDERR_FILENO, line, strlen(line));
    (void)written;
    raise(number); // its own handler is gone: it ends the program when this one returns
}

// Below the progress line, which stands on a terminal without its end.
static const char *line_end(void)
{
    return isatty(STDERR_FILENO) == 1 ? "\n" : "";
}

void interrupt_begin(const char *command)
{
    static const int taken[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND}, old;
    sigemptyset(&action.sa_mask);
    snprintf(plain, sizeof plain, "%sbyol %s: interrupted\n", line_end(), command);
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
        if (sigaction(taken[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL) {
            sigaction(taken[i], &action, NULL);
        }
    }
}

void interrupt_leaves(const char *format, ...)
{
    va_list arguments;
    interrupt_leaves_nothing();
    if (plain[0] == 0) {
        return; // signals are not waited for
    }
    size_t len = strlen(plain) - 1; // without its line end
    memcpy(leaving, plain, len);
    memcpy(leaving + len, ": ", 3);
    len += 2;
    va_start(arguments, format);
    vsnprintf(leaving + len, sizeof leaving - len - 1, format, arguments);
    va_end(arguments);
    strcat(leaving, "\n");
    leaves = 1;
}

void interrupt_leaves_nothing(void)
{
    leaves = 0;
}
