// The line is put together beforehand: a signal's handler may do little more than write it.
#include "tools/interrupt.h"

#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PLAIN_SIZE 128  // a command's name and the words around it
#define WHAT_SIZE  1100 // a path and the words around it

static char plain[PLAIN_SIZE], leaving[PLAIN_SIZE + WHAT_SIZE];
static volatile sig_atomic_t leaves; // `leaving` is whole
static bool on_terminal;

static void on_signal(int number)
{
    const char *line = leaves ? leaving : plain;
    ssize_t written = on_terminal ? write(STDERR_FILENO, "\n", 1) : 0; // below the progress line
    written += write(STDERR_FILENO, line, strlen(line));
    (void)written;
    raise(number); // its own handler is gone: it ends the program when this one returns
}

void interrupt_begin(const char *command)
{
    static const int taken[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND}, old;
    sigemptyset(&action.sa_mask);
    snprintf(plain, sizeof plain, "byol %s: interrupted\n", command);
    on_terminal = isatty(STDERR_FILENO) == 1;
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
        if (sigaction(taken[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL) {
            sigaction(taken[i], &action, NULL);
        }
    }
}

void interrupt_leaves(const char *format, ...)
{
    char what[WHAT_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    interrupt_leaves_nothing();
    snprintf(leaving, sizeof leaving, "%.*s: %s\n", (int)strcspn(plain, "\n"), plain, what);
    leaves = 1;
}

void interrupt_leaves_nothing(void)
{
    leaves = 0;
}
