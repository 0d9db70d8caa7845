#include "tests/support/watchdog.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SECONDS 120

static char doing[300];

// Only calls that are safe in a signal handler.
static void bark(int number)
{
    (void)number;
    static const char hang[] = "a hang; it was: ";
    ssize_t written = write(STDERR_FILENO, hang, sizeof hang - 1);
    written += write(STDERR_FILENO, doing, strlen(doing));
    written += write(STDERR_FILENO, "\n", 1);
    _exit(written > 0 ? 99 : 98);
}

void watchdog_set(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(doing, sizeof doing, format, arguments);
    va_end(arguments);
    signal(SIGALRM, bark);
    alarm(SECONDS);
}

void watchdog_off(void)
{
    alarm(0);
}
