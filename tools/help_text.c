#include "tools/help_text.h"

#include <ctype.h>
#include <string.h>

bool help_piece_is(struct help_piece piece, const char *text)
{
    return strlen(text) == piece.len && memcmp(piece.at, text, piece.len) == 0;
}

struct help_piece help_line(const char *at)
{
    return (struct help_piece){at, strcspn(at, "\n")};
}

const char *help_next_line(const char *at)
{
    const char *end = at + strcspn(at, "\n");
    return *end ? end + 1 : end;
}

size_t help_indent(struct help_piece line)
{
    size_t indent = 0;
    while (indent < line.len && line.at[indent] == ' ') {
        indent++;
    }
    return indent;
}

bool help_begins_option(struct help_piece line)
{
    return line.len > 3 && memcmp(line.at, "  -", 3) == 0 && line.at[3] != ' ';
}

// --- options -------------------------------------------------------------------------------------

// What ends a name or a value.
static size_t word_length(const char *at, const char *end)
{
    size_t len = 0;
    while (at + len < end && at[len] != ' ' && at[len] != ',') {
        len++;
    }
    return len;
}

static const char *take_names(const char *at, const char *end, struct help_option *option)
{
    while (at < end && *at == '-' && option->names < HELP_NAMES) {
        size_t len = word_length(at, end);
        option->name[option->names++] = (struct help_piece){at, len};
        at += len;
        if (at + 2 < end && at[0] == ',' && at[1] == ' ' && at[2] == '-') {
            at += 2;
        } else {
            break;
        }
    }
    return at;
}

// A value follows after one space, words after two.
static const char *take_value(const char *at, const char *end, struct help_option *option)
{
    if (at + 1 < end && at[0] == ' ' && at[1] != ' ') {
        const char *value = ++at;
        while (at < end && *at != ' ') {
            at++;
        }
        option->value = (struct help_piece){value, (size_t)(at - value)};
    }
    return at;
}

const char *help_option(const char *at, struct help_option *option)
{
    struct help_piece line = help_line(at);
    const char *end = line.at + line.len;
    *option = (struct help_option){0};
    const char *words = take_value(take_names(at + help_indent(line), end, option), end, option);
    const char *next = help_next_line(at);
    while (*next) {
        line = help_line(next);
        if (help_indent(line) <= 2 || line.len == 0) {
            break;
        }
        end = line.at + line.len;
        next = help_next_line(next);
    }
    while (words < end && isspace((unsigned char)*words)) {
        words++;
    }
    option->words = (struct help_piece){words, (size_t)(end - words)};
    return next;
}

bool help_next_option(const char **at, struct help_option *option)
{
    while (**at && !help_begins_option(help_line(*at))) {
        *at = help_next_line(*at);
    }
    if (**at == 0) {
        return false;
    }
    *at = help_option(*at, option);
    return true;
}

// --- words ---------------------------------------------------------------------------------------

static bool is_word(struct help_piece piece)
{
    for (size_t i = 0; i < piece.len; i++) {
        if (!islower((unsigned char)piece.at[i]) && !isdigit((unsigned char)piece.at[i]) &&
            piece.at[i] != '-' && piece.at[i] != '|') {
            return false;
        }
    }
    return piece.len > 0 && piece.at[0] != '-';
}

bool help_is_choice(struct help_piece value)
{
    return is_word(value) && memchr(value.at, '|', value.len) != NULL;
}

bool help_next_choice(struct help_piece value, struct help_piece *choice)
{
    const char *end = value.at + value.len, *at = choice->at + choice->len;
    at += at < end && *at == '|' && choice->len > 0;
    if (at >= end) {
        return false;
    }
    const char *bar = memchr(at, '|', (size_t)(end - at));
    *choice = (struct help_piece){at, (size_t)((bar ? bar : end) - at)};
    return true;
}

void help_operands(const char *help, const char *name,
                   void (*take)(void *context, struct help_piece word), void *context)
{
    size_t len = strlen(name);
    for (const char *at = help; *at && *at != '\n'; at = help_next_line(at)) {
        struct help_piece line = help_line(at), choice;
        const char *found = memmem(line.at, line.len, name, len);
        const char *end = line.at + line.len;
        if (found == NULL || found + len >= end || found[len] != ' ') {
            continue;
        }
        const char *operand = found + len + 1;
        struct help_piece value = {operand, word_length(operand, end)};
        choice = (struct help_piece){value.at, 0};
        while (is_word(value) && help_next_choice(value, &choice)) {
            take(context, choice);
        }
    }
}

// --- printing ------------------------------------------------------------------------------------

#define LINE_ROOM 1024u
#define COMMAND   "  byol "
#define USAGE     "Usage: "

// Columns of UTF-8 text: bytes that begin a character.
static size_t width(const char *text, size_t len)
{
    size_t columns = 0;
    for (size_t i = 0; i < len; i++) {
        columns += ((unsigned char)text[i] & 0xc0) != 0x80;
    }
    return columns;
}

// Where the words of a line begin, so that more of them go below: past the first gap of two spaces,
// else at its indentation.
static size_t hang_of(struct help_piece line)
{
    size_t indent = help_indent(line);
    for (size_t i = indent; indent > 0 && i + 2 < line.len; i++) {
        if (line.at[i] == ' ' && line.at[i + 1] == ' ') {
            while (i < line.len && line.at[i] == ' ') {
                i++;
            }
            return i;
        }
    }
    return indent;
}

// The words of an option go on where its next line has them.
static size_t hang_below(struct help_piece line, struct help_piece next)
{
    size_t indent = help_indent(next);
    bool goes_on = help_begins_option(line) && next.len > 0 && indent > help_indent(line);
    return goes_on ? indent : hang_of(line);
}

// How much of a line fits, up to a space past `from`, of a command one before an option; all of it
// where there is none.
static size_t fitting(const char *text, size_t len, size_t from, bool command, size_t columns)
{
    size_t end = 0, option = 0;
    for (size_t i = from + 1; i < len && width(text, i) <= columns; i++) {
        end = text[i] == ' ' ? i : end;
        option = text[i] == ' ' && text[i + 1] == '-' ? i : option;
    }
    end = command && option > 0 ? option : end;
    return end > 0 ? end : len;
}

// Prints what fits of `line`, and leaves in it the rest, indented by `hang`; false: nothing is
// left.
static bool print_fitting(char *line, size_t hang, bool command, size_t columns, FILE *stream)
{
    size_t len = strlen(line);
    if (width(line, len) <= columns) {
        fprintf(stream, "%s\n", line);
        return false;
    }
    size_t from = hang_of((struct help_piece){line, len});
    size_t end = fitting(line, len, from, command, columns - (command ? 2 : 0));
    fprintf(stream, "%.*s%s\n", (int)end, line, command && end < len ? " \\" : "");
    if (end == len) {
        return false;
    }
    const char *rest = line + end + strspn(line + end, " "); // further right than `hang`
    memmove(line + hang, rest, strlen(rest) + 1);
    memset(line, ' ', hang);
    return true;
}

// A command with a comment that is too long with it: the comment goes above it.
static void print_comment(char *line, size_t columns, FILE *stream)
{
    char *comment = strstr(line, "  # ");
    if (comment != NULL && width(line, strlen(line)) > columns) {
        fprintf(stream, "  %s\n", comment + 2);
        while (comment > line && comment[-1] == ' ') {
            comment--;
        }
        *comment = 0;
    }
}

void help_print(const char *help, size_t columns, FILE *stream)
{
    char line[LINE_ROOM];
    bool usage = true;
    for (const char *at = help; *at;) {
        struct help_piece piece = help_line(at);
        at = help_next_line(at);
        snprintf(line, sizeof line, "%.*s", (int)piece.len, piece.at);
        bool command = strncmp(line, COMMAND, strlen(COMMAND)) == 0;
        if (command) {
            print_comment(line, columns, stream);
        }
        usage = usage && piece.len > 0;
        size_t hang = usage     ? strlen(USAGE) + 4
                      : command ? help_indent(piece) + 4
                                : hang_below(piece, help_line(at));
        while (print_fitting(line, hang, command, columns, stream)) {
            struct help_piece next = help_line(at);
            if (!command && !usage && next.len > 0 && help_indent(next) == hang &&
                hang_of(next) == hang && !help_begins_option(next)) {
                size_t len = strlen(line);
                snprintf(line + len, sizeof line - len, " %.*s", (int)(next.len - hang),
                         next.at + hang);
                at = help_next_line(at);
            }
        }
    }
}
