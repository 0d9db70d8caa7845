// What a person reads when a signal ends a command, Ctrl-C above all.
#ifndef TOOLS_INTERRUPT_H
#define TOOLS_INTERRUPT_H

// From here on SIGINT, SIGTERM and SIGHUP print a line on stderr, then end the program as they
// would have (128 + n for a shell); those that are ignored stay so. `command` must stay. `pretrain`
// and `ablate` put handlers of their own in the place of these.
void interrupt_begin(const char *command);

// What would be left behind from now on, in words: "DIR.partial is left; remove it".
void interrupt_leaves(const char *format, ...) __attribute__((format(printf, 1, 2)));
void interrupt_leaves_nothing(void);

#endif
