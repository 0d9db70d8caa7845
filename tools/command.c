// Option parsing and messages that every subcommand shares.
#include "tools/command.h"

#include "formats/nearest.h"
#include "tools/help_text.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_SIZE     1200 // a path and a reason of struct error, and the words around them
#define MOST_SUGGESTIONS 64   // options of one command

const char *command_own_name(const struct command *command)
{
    const char *space = strrchr(command->name, ' ');
    return space ? space + 1 : command->name;
}

static void print_hint(const struct command *command)
{
    fprintf(stderr, "Try 'byol %s --help'.\n", command->name);
}

int command_misused(const struct command *command, const char *format, ...)
{
    char message[MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    fprintf(stderr, "byol %s: %s\n", command->name, message);
    print_hint(command);
    return EXIT_USAGE;
}

static json_t *json_failure(const struct error *error, const char *message)
{
    return json_pack("{s:s, s:s}", "error", message, "status", status_name(error->status));
}

static void print_json_failure(const struct error *error, char *message)
{
    json_t *object = json_failure(error, message);
    if (object == NULL) { // a file name that is not UTF-8
        for (char *c = message; *c; c++) {
            *c = (unsigned char)*c < 0x80 ? *c : '?';
        }
        object = json_failure(error, message);
    }
    if (object != NULL) {
        json_dumpf(object, stdout, JSON_COMPACT);
        putchar('\n');
        fflush(stdout);
    }
    json_decref(object);
}

int command_failed(const struct command *command, const struct error *error, bool json)
{
    char message[MESSAGE_SIZE];
    error_text(error, message, sizeof message);
    fprintf(stderr, "byol %s: %s\n", command->name, message);
    if (json) {
        print_json_failure(error, message);
    }
    return EXIT_FAILED;
}

// --- options -------------------------------------------------------------------------------------

// What one pass over the line carries along.
struct parse {
    const struct command *command;
    const struct option *options;
    size_t count;
    int argc, next; // `next`: index of the argument to look at
    char **argv;
};

static const struct option *find_long(const struct parse *parse, const char *name, size_t len)
{
    for (size_t i = 0; i < parse->count; i++) {
        const char *known = parse->options[i].name;
        if (strlen(known) == len && memcmp(known, name, len) == 0) {
            return &parse->options[i];
        }
    }
    return NULL;
}

static const struct option *find_letter(const struct parse *parse, char letter)
{
    for (size_t i = 0; i < parse->count; i++) {
        if (letter != 0 && parse->options[i].letter == letter) {
            return &parse->options[i];
        }
    }
    return NULL;
}

static int unknown_option(const struct parse *parse, const char *argument)
{
    const char *names[MOST_SUGGESTIONS + 1] = {"help"};
    size_t count = 1;
    for (size_t i = 0; i < parse->count && count <= MOST_SUGGESTIONS; i++) {
        names[count++] = parse->options[i].name;
    }
    char wanted[64];
    snprintf(wanted, sizeof wanted, "%.*s", (int)strcspn(argument + 2, "="), argument + 2);
    const char *nearest = argument[1] == '-' ? nearest_name(wanted, names, count) : NULL;
    if (nearest != NULL) {
        return command_misused(parse->command, "unknown option '--%s'; did you mean '--%s'?",
                               wanted, nearest);
    }
    return command_misused(parse->command, "unknown option '%s'", argument);
}

static int store_integer(const struct parse *parse, const struct option *option, const char *text)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != 0) {
        return command_misused(parse->command, "--%s wants a whole number, not '%s'", option->name,
                               text);
    }
    if (errno == ERANGE || (double)value < option->min || (double)value > option->max) {
        return command_misused(parse->command, "--%s wants a number from %.15g to %.15g, not %s",
                               option->name, option->min, option->max, text);
    }
    *(int64_t *)option->target = value;
    return EXIT_OK;
}

static int store_float(const struct parse *parse, const struct option *option, const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != 0) {
        return command_misused(parse->command, "--%s wants a number, not '%s'", option->name, text);
    }
    // Written so that NaN is refused too.
    if (!(value >= option->min && value <= option->max)) {
        return command_misused(parse->command, "--%s wants a number from %.15g to %.15g, not %s",
                               option->name, option->min, option->max, text);
    }
    *(double *)option->target = value;
    return EXIT_OK;
}

static int append(const struct command *command, struct option_list *list, const char *text)
{
    if (list->count == OPTION_LIST_MAX) {
        return command_misused(command, "more than %d arguments of one kind", OPTION_LIST_MAX);
    }
    list->item[list->count++] = text;
    return EXIT_OK;
}

static int store_value(const struct parse *parse, const struct option *option, const char *text)
{
    switch (option->type) {
    case OPTION_FLAG:
        *(bool *)option->target = true;
        return EXIT_OK;
    case OPTION_STRING:
        *(const char **)option->target = text;
        return EXIT_OK;
    case OPTION_INT:
        return store_integer(parse, option, text);
    case OPTION_FLOAT:
        return store_float(parse, option, text);
    case OPTION_LIST:
        return append(parse->command, option->target, text);
    }
    return EXIT_OK;
}

// `inline_value` is what follows the '=' of a long option, or the letter of a short one; or NULL.
static int take_option(struct parse *parse, const struct option *option, const char *inline_value)
{
    if (option->type == OPTION_FLAG) {
        if (inline_value != NULL) {
            return command_misused(parse->command, "--%s takes no value", option->name);
        }
        return store_value(parse, option, NULL);
    }
    if (inline_value == NULL) {
        if (parse->next == parse->argc) {
            return command_misused(parse->command, "--%s wants a value", option->name);
        }
        inline_value = parse->argv[parse->next++];
    }
    return store_value(parse, option, inline_value);
}

static int take_dashed(struct parse *parse, const char *argument)
{
    if (argument[1] == '-') {
        const char *name = argument + 2, *equals = strchr(name, '=');
        size_t len = equals ? (size_t)(equals - name) : strlen(name);
        const struct option *option = find_long(parse, name, len);
        return option ? take_option(parse, option, equals ? equals + 1 : NULL)
                      : unknown_option(parse, argument);
    }
    const struct option *option = find_letter(parse, argument[1]);
    return option ? take_option(parse, option, argument[2] ? argument + 2 : NULL)
                  : unknown_option(parse, argument);
}

int command_options(const struct command *command, int argc, char **argv,
                    const struct option *options, size_t count, struct option_list *operands,
                    bool *done)
{
    struct parse parse = {command, options, count, argc, 1, argv};
    bool only_operands = false;
    *done = false;
    operands->count = 0;
    while (parse.next < argc) {
        const char *argument = argv[parse.next++];
        int code = EXIT_OK;
        if (only_operands || argument[0] != '-' || argument[1] == 0) {
            code = append(command, operands, argument);
        } else if (strcmp(argument, "--") == 0) {
            only_operands = true;
        } else if (strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0) {
            help_print(command->help, HELP_COLUMNS, stdout);
            *done = true;
            return EXIT_OK;
        } else {
            code = take_dashed(&parse, argument);
        }
        if (code != EXIT_OK) {
            return code;
        }
    }
    return EXIT_OK;
}

int command_choice(const struct command *command, const char *option, const char *value,
                   const char *choices)
{
    int index = 0;
    size_t len = strlen(value);
    for (const char *at = choices; *at; index++) {
        size_t choice = strcspn(at, "|");
        if (choice == len && strncmp(at, value, len) == 0) {
            return index;
        }
        at += choice + (at[choice] == '|');
    }
    command_misused(command, "--%s is one of %s, not '%s'", option, choices, value);
    return -1;
}
