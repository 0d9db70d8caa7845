// `byol manual`: man pages, made from the commands' help texts.
#include "formats/file.h"
#include "tools/command.h"
#include "tools/help_text.h"
#include "tools/version.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS 72 // of what is not filled: man indents it by 7

static const char help[] =
    "Usage: byol manual [COMMAND [SUBJECT]]\n"
    "       byol manual -o DIR\n"
    "\n"
    "Prints the man page of byol or of one of its commands, or writes all of them, as\n"
    "'make install' does: byol.1, byol-COMMAND.1.\n"
    "\n"
    "Options:\n"
    "  -o, --output DIR  write every page here; pages that are there are replaced\n"
    "\n"
    "Example:\n"
    "  byol manual convert | man -l -\n"
    "\n"
    "Exit codes: 0 success, 1 failure, 2 wrong usage.\n";

// --- roff ----------------------------------------------------------------------------------------

// A character that is not ASCII by its number, as roff wants it; returns its bytes.
static size_t put_character(const char *at, size_t len, FILE *page)
{
    unsigned char first = (unsigned char)*at;
    size_t bytes = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    unsigned code = first & (0x7fu >> bytes);
    bytes = bytes < len ? bytes : len;
    for (size_t i = 1; i < bytes; i++) {
        code = code << 6 | ((unsigned char)at[i] & 0x3f);
    }
    fprintf(page, "\\[u%04X]", code);
    return bytes;
}

static void put_text(struct help_piece text, FILE *page)
{
    if (text.len > 0 && (text.at[0] == '.' || text.at[0] == '\'')) {
        fputs("\\&", page);
    }
    for (size_t i = 0; i < text.len; i++) {
        char c = text.at[i];
        if ((unsigned char)c >= 0x80) {
            i += put_character(text.at + i, text.len - i, page) - 1;
        } else if (c == '\\' || c == '-') {
            fputs(c == '-' ? "\\-" : "\\e", page);
        } else {
            putc(c, page);
        }
    }
}

static void put_line(struct help_piece line, FILE *page)
{
    put_text(line, page);
    putc('\n', page);
}

static struct help_piece trimmed(struct help_piece line)
{
    size_t indent = help_indent(line);
    return (struct help_piece){line.at + indent, line.len - indent};
}

// Lines as they are, up to the first that is not indented.
static const char *put_literal(const char *at, FILE *page)
{
    fputs(".nf\n", page);
    while (*at == ' ' && !help_begins_option(help_line(at))) {
        put_line(help_line(at), page);
        at = help_next_line(at);
    }
    fputs(".fi\n", page);
    return at;
}

// An option's words are filled but where they are a list of their own: lines that are indented
// further than the ones before.
static void put_words(struct help_piece words, FILE *page)
{
    const char *end = words.at + words.len;
    size_t usual = 0;
    bool first = true;
    for (const char *at = words.at; at < end; at = help_next_line(at)) {
        struct help_piece line = help_line(at);
        line.len = at + line.len > end ? (size_t)(end - at) : line.len;
        size_t indent = help_indent(line);
        usual = !first && usual == 0 ? indent : usual;
        if (!first && indent > usual) {
            fputs(".br\n", page);
        }
        put_line(trimmed(line), page);
        first = false;
    }
}

static const char *put_option(const char *at, FILE *page)
{
    struct help_option option;
    const char *next = help_option(at, &option);
    fputs(".TP\n\\fB", page);
    for (size_t i = 0; i < option.names; i++) {
        fputs(i > 0 ? "\\fR, \\fB" : "", page);
        put_text(option.name[i], page);
    }
    fputs("\\fR", page);
    if (option.value.len > 0) {
        fputs(" \\fI", page);
        put_text(option.value, page);
        fputs("\\fR", page);
    }
    putc('\n', page);
    put_words(option.words, page);
    return next;
}

#define EXIT_CODES "Exit codes: "

// "Options:" over something indented; "Exit codes: 0 success", whose text goes on.
static bool is_heading(const char *at)
{
    struct help_piece line = help_line(at);
    return strncmp(at, EXIT_CODES, strlen(EXIT_CODES)) == 0 ||
           (*at != ' ' && line.len > 0 && line.at[line.len - 1] == ':' &&
            *help_next_line(at) == ' ');
}

static const char *put_heading(const char *at, FILE *page)
{
    struct help_piece line = help_line(at);
    if (strncmp(at, EXIT_CODES, strlen(EXIT_CODES)) == 0) {
        fputs(".SH \"EXIT STATUS\"\n", page);
        line.at += strlen(EXIT_CODES);
        line.len -= strlen(EXIT_CODES);
        put_line(line, page);
        return help_next_line(at);
    }
    fputs(".SH \"", page);
    for (size_t i = 0; i + 1 < line.len; i++) {
        putc(line.at[i] == '"' ? '\'' : toupper((unsigned char)line.at[i]), page);
    }
    fputs("\"\n", page);
    return help_next_line(at);
}

static const char *put_usage(const char *at, FILE *page)
{
    static const char usage[] = "Usage: ";
    fputs(".SH SYNOPSIS\n.nf\n", page);
    while (*at && *at != '\n') {
        struct help_piece line = help_line(at);
        size_t skip = strlen(usage) < line.len ? strlen(usage) : 0;
        line.at += skip;
        line.len -= skip;
        put_line(line, page);
        at = help_next_line(at);
    }
    fputs(".fi\n.SH DESCRIPTION\n", page);
    return at;
}

static const char *put_unindented(const char *at, FILE *page)
{
    put_line(help_line(at), page);
    return help_next_line(at);
}

// `text` is on lines of at most COLUMNS. Headings and options make their own space; other text is a
// paragraph after an empty line, or where it changes between filled and literal.
static void put_help(const char *text, FILE *page)
{
    const char *at = put_usage(text, page);
    bool after_heading = true, gap = false;
    while (*at) {
        if (*at == '\n') {
            gap = true;
            at++;
            continue;
        }
        bool heading = is_heading(at), option = help_begins_option(help_line(at));
        if (!heading && !option && !after_heading && (gap || *at == ' ')) {
            fputs(".PP\n", page);
        }
        at = heading      ? put_heading(at, page)
             : option     ? put_option(at, page)
             : *at == ' ' ? put_literal(at, page)
                          : put_unindented(at, page);
        after_heading = heading;
        gap = false;
    }
}

// --- pages ---------------------------------------------------------------------------------------

// "byol-bench-loader"
static void page_name(const struct command *command, char *name, size_t capacity)
{
    snprintf(name, capacity, "byol%s%s", command ? "-" : "", command ? command->name : "");
    for (char *c = name; *c; c++) {
        *c = *c == ' ' ? '-' : *c;
    }
}

static void put_title(const struct command *command, const char *summary, FILE *page)
{
    char name[64];
    page_name(command, name, sizeof name);
    fputs(".TH ", page);
    for (const char *c = name; *c; c++) {
        putc(toupper((unsigned char)*c), page);
    }
    fputs(" 1 " BYOL_DATE " \"byol " BYOL_VERSION "\" byol\n.SH NAME\n", page);
    put_text((struct help_piece){name, strlen(name)}, page);
    fputs(" \\- ", page);
    put_line((struct help_piece){summary, strlen(summary)}, page);
}

static void put_see_also(const struct command *except, FILE *page)
{
    bool first = true;
    fputs(".SH \"SEE ALSO\"\n", page);
    for (const struct command *const *command = command_table; *command; command++) {
        if (*command != except) {
            fprintf(page, "%s.BR byol\\-%s (1)", first ? "" : ",\n", (*command)->name);
            first = false;
        }
    }
    putc('\n', page);
}

// What `byol --help` prints, as it stands, from the left margin on.
static void put_overview(const char *text, FILE *page)
{
    put_title(NULL, "learn image features without labels", page);
    fputs(".SH SYNOPSIS\n.B byol\n.I COMMAND\n[options]\n.SH DESCRIPTION\n.nf\n.in 0\n", page);
    for (const char *at = text; *at; at = help_next_line(at)) {
        put_line(help_line(at), page);
    }
    fputs(".in\n.fi\n", page);
}

static enum status put_page(const struct command *command, FILE *page, struct error *error)
{
    char *text = NULL;
    size_t len;
    FILE *memory = open_memstream(&text, &len);
    if (memory == NULL) {
        return error_errno(error, errno, NULL, NOWHERE, "allocate");
    }
    if (command == NULL) {
        command_overview(memory);
    } else {
        help_print(command->help, COLUMNS, memory);
    }
    if (fclose(memory) != 0) {
        free(text);
        return error_errno(error, ENOMEM, NULL, NOWHERE, "allocate");
    }
    if (command == NULL) {
        put_overview(text, page);
    } else {
        put_title(command, command->summary, page);
        put_help(text, page);
    }
    free(text);
    put_see_also(command, page);
    return STATUS_OK;
}

static enum status write_page(const char *directory, const struct command *command,
                              struct error *error)
{
    char name[64], path[600];
    page_name(command, name, sizeof name);
    snprintf(path, sizeof path, "%s/%s.1", directory, name);
    FILE *page = fopen(path, "w");
    if (page == NULL) {
        return error_errno(error, errno, path, NOWHERE, "create");
    }
    enum status status = put_page(command, page, error);
    bool failed = ferror(page) != 0;
    if ((fclose(page) != 0 || failed) && status == STATUS_OK) {
        status = error_errno(error, errno, path, NOWHERE, "write");
    }
    return status;
}

// With those of their subjects.
static enum status write_table(const char *directory, const struct command *const *table,
                               struct error *error)
{
    enum status status = STATUS_OK;
    for (; table != NULL && *table != NULL && status == STATUS_OK; table++) {
        const struct command *command = *table;
        status = write_page(directory, command, error);
        if (status == STATUS_OK) {
            status = write_table(directory, command->subjects, error);
        }
    }
    return status;
}

static enum status write_pages(const char *directory, struct error *error)
{
    enum status status = file_make_directories(directory, error);
    if (status == STATUS_OK) {
        status = write_page(directory, NULL, error);
    }
    return status == STATUS_OK ? write_table(directory, command_table, error) : status;
}

// --- the command ---------------------------------------------------------------------------------

static const struct command *find(const struct command *const *table, const char *name)
{
    while (table && *table && strcmp(command_own_name(*table), name) != 0) {
        table++;
    }
    return table ? *table : NULL;
}

static int print_page(const struct option_list *names)
{
    struct error error;
    const struct command *command = NULL, *const *table = command_table;
    for (size_t i = 0; i < names->count; i++) {
        command = find(table, names->item[i]);
        if (command == NULL) {
            return command_misused(&command_manual, "no command '%s'", names->item[i]);
        }
        table = command->subjects;
    }
    return put_page(command, stdout, &error) == STATUS_OK
               ? EXIT_OK
               : command_failed(&command_manual, &error, false);
}

static int run(int argc, char **argv)
{
    const char *output = NULL;
    const struct option options[] = {{"output", 'o', OPTION_STRING, &output, 0, 0}};
    struct option_list operands;
    struct error error;
    bool done;
    int code = command_options(&command_manual, argc, argv, options, 1, &operands, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    if (output == NULL) {
        return print_page(&operands);
    }
    if (operands.count > 0) {
        return command_misused(&command_manual, "--output writes all pages");
    }
    return write_pages(output, &error) == STATUS_OK
               ? EXIT_OK
               : command_failed(&command_manual, &error, false);
}

const struct command command_manual = {
    .name = "manual",
    .summary = "man pages",
    .help = help,
    .run = run,
};
