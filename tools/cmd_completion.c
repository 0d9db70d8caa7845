// `byol completion bash|zsh`: a script for the shell, made from the commands' help texts.
#include "augment/recipe.h"
#include "tools/command.h"
#include "tools/help_text.h"
#include "trainer/run/config.h"

#include <stdio.h>
#include <string.h>

#define ABOUT 60u // characters of an option's words

static const char help[] =
    "Usage: byol completion bash|zsh\n"
    "\n"
    "Prints a script that makes Tab complete commands, options, their values, and settings\n"
    "with theirs (--set encoder=resnet18).\n"
    "'make install' puts both where the shells look for them.\n"
    "\n"
    "Examples:\n"
    "  . <(byol completion bash)                      # in ~/.bashrc\n"
    "  byol completion zsh > ~/.zsh/functions/_byol   # in a folder of $fpath\n"
    "\n"
    "Exit codes: 0 success, 1 failure, 2 wrong usage.\n";

// Calls for each command and each of its subjects.
static void each_topic(void (*tell)(const struct command *command))
{
    for (const struct command *const *command = command_table; *command; command++) {
        tell(*command);
        for (const struct command *const *subject = (*command)->subjects; subject && *subject;
             subject++) {
            tell(*subject);
        }
    }
}

static void print_word(void *context, struct help_piece word)
{
    (void)context;
    printf(" %.*s", (int)word.len, word.at);
}

static void print_names(const struct command *const *commands)
{
    for (; commands && *commands; commands++) {
        printf(" %s", command_own_name(*commands));
    }
}

// What may stand behind a command that is no option: the subjects, or the words of its usage;
// commands behind `manual`.
static void print_operands(const struct command *command)
{
    char name[64];
    print_names(command == &command_manual ? command_table : command->subjects);
    snprintf(name, sizeof name, "byol %s", command->name);
    help_operands(command->help, name, print_word, NULL);
}

static void note(void *context, struct help_piece word)
{
    (void)word;
    *(bool *)context = true;
}

// Those of the others are files.
static bool has_operands(const struct command *command)
{
    char name[64];
    bool has = command->subjects != NULL || command == &command_manual;
    snprintf(name, sizeof name, "byol %s", command->name);
    help_operands(command->help, name, note, &has);
    return has;
}

// Calls for each setting of a run.
static void each_setting(void (*tell)(const char *prefix, const struct settings_field *field))
{
    static struct run_config config;
    struct settings_section sections[2];
    run_config_init(&config);
    size_t count = run_config_sections(&config, sections);
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < sections[i].count; j++) {
            tell(sections[i].prefix, &sections[i].fields[j]);
        }
    }
}

// "host device" of "host|device"; a truth value's; nothing of numbers and texts.
static void print_choices(const struct settings_field *field)
{
    const char *choices = field->type == SETTINGS_CHOICE ? field->choices
                          : field->type == SETTINGS_BOOL ? "true|false"
                                                         : "";
    for (const char *c = choices; *c; c++) {
        putchar(*c == '|' ? ' ' : *c);
    }
}

static bool is_setting(const struct help_option *option)
{
    return option->names > 0 && help_piece_is(option->name[0], "--set");
}

static bool is_recipe(const struct help_option *option)
{
    return option->names > 0 && help_piece_is(option->name[0], "--recipe");
}

// The values that can be listed; false when there are none.
static bool print_values(const struct help_option *option)
{
    struct help_piece choice = {option->value.at, 0};
    if (is_recipe(option)) {
        for (const char *const *name = recipe_builtin_names; *name; name++) {
            printf(" %s", *name);
        }
        return true;
    }
    bool listed = help_is_choice(option->value);
    while (listed && help_next_choice(option->value, &choice)) {
        print_word(NULL, choice);
    }
    return listed;
}

// --- bash ----------------------------------------------------------------------------------------

static const char bash_begin[] =
    "# bash completion for byol, printed by 'byol completion bash'\n"
    "_byol()\n"
    "{\n"
    "    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n"
    "    local topic=${COMP_WORDS[1]} operands= options= values= settings=\n"
    "    COMPREPLY=()\n"
    "    [[ $before == = ]] && before=${COMP_WORDS[COMP_CWORD-2]}\n"
    "    [[ $current == = ]] && current=\n";

static const char bash_end[] =
    "    if [[ -n $values ]]; then\n"
    "        [[ $values == files ]] || COMPREPLY=($(compgen -W \"$values\" -- \"$current\"))\n"
    "        [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null\n"
    "    elif [[ $current == -* ]]; then\n"
    "        COMPREPLY=($(compgen -W \"$options\" -- \"$current\"))\n"
    "    elif ((COMP_CWORD == 2)); then\n"
    "        COMPREPLY=($(compgen -W \"$operands\" -- \"$current\"))\n"
    "    fi\n"
    "}\n"
    "complete -o default -F _byol byol\n";

static void print_bash_topic(const struct command *command)
{
    const char *at = command->help;
    struct help_option option;
    printf("    '%s')\n        operands='", command->name);
    print_operands(command);
    printf("'\n        options='--help");
    while (help_next_option(&at, &option)) {
        for (size_t i = 0; i < option.names; i++) {
            print_word(NULL, option.name[i]);
        }
    }
    printf("' ;;\n");
}

static void print_bash_values(const struct command *command)
{
    const char *at = command->help;
    struct help_option option;
    while (help_next_option(&at, &option)) {
        for (size_t i = 0; i < option.names && option.value.len > 0; i++) {
            printf("    '%s %.*s') values=", command->name, (int)option.name[i].len,
                   option.name[i].at);
            if (is_setting(&option)) {
                printf("$settings ;;\n");
                continue;
            }
            putchar('\'');
            printf(print_values(&option) ? "' ;;\n" : "files' ;;\n");
        }
    }
}

static void print_bash_key(const char *prefix, const struct settings_field *field)
{
    printf(" %s%s=", prefix, field->key);
}

// What stands behind "--set KEY=", which bash takes for three words.
static void print_bash_choices(const char *prefix, const struct settings_field *field)
{
    if (field->type == SETTINGS_CHOICE || field->type == SETTINGS_BOOL) {
        printf("    *' %s%s') values='", prefix, field->key);
        print_choices(field);
        printf("' ;;\n");
    }
}

static void print_bash(void)
{
    fputs(bash_begin, stdout);
    printf("    if ((COMP_CWORD == 1)); then\n        COMPREPLY=($(compgen -W '--help --version");
    print_names(command_table);
    printf("' -- \"$current\"))\n        return\n    fi\n    case $topic in\n");
    for (const struct command *const *command = command_table; *command; command++) {
        if ((*command)->subjects) {
            printf("    %s) ((COMP_CWORD > 2)) && topic+=\" ${COMP_WORDS[2]}\" ;;\n",
                   (*command)->name);
        }
    }
    printf("    esac\n    case $topic in\n");
    each_topic(print_bash_topic);
    printf("    esac\n    settings='");
    each_setting(print_bash_key);
    printf("'\n    case \"$topic $before\" in\n");
    each_topic(print_bash_values);
    each_setting(print_bash_choices);
    printf("    esac\n");
    fputs(bash_end, stdout);
}

// --- zsh -----------------------------------------------------------------------------------------

// The beginning of an option's words on one line, inside '...[...]...'.
static void print_about(struct help_piece words)
{
    size_t len = words.len;
    if (len > ABOUT) {
        len = ABOUT;
        while (len > 0 && words.at[len] != ' ' && words.at[len] != '\n') {
            len--;
        }
    }
    for (size_t i = 0; i < len; i++) {
        char c = words.at[i];
        bool space = c == ' ' || c == '\n';
        if (space && i > 0 && (words.at[i - 1] == ' ' || words.at[i - 1] == '\n')) {
            continue;
        }
        if (c == '\'') {
            fputs("'\\''", stdout);
        } else if (c == '[' || c == ']' || c == '\\' || c == ':') {
            printf("\\%c", c);
        } else {
            putchar(space ? ' ' : c);
        }
    }
}

static void print_zsh_option(const struct help_option *option)
{
    for (size_t i = 0; i < option->names; i++) {
        bool is_long = option->name[i].len > 2;
        const char *join = option->value.len == 0 ? "" : is_long ? "=" : "+";
        printf(" \\\n            '*%.*s%s[", (int)option->name[i].len, option->name[i].at, join);
        print_about(option->words);
        putchar(']');
        if (is_setting(option)) {
            printf(":setting:_byol_settings");
        } else if (option->value.len > 0) {
            printf(":value:");
            bool listed = is_recipe(option) || help_is_choice(option->value);
            fputs(listed ? "(" : "_files", stdout);
            print_values(option);
            fputs(listed ? ")" : "", stdout);
        }
        putchar('\'');
    }
}

static void print_zsh_topic(const struct command *command)
{
    const char *at = command->help;
    struct help_option option;
    printf("    ('%s')\n        _arguments '*--help[explain it]'", command->name);
    while (help_next_option(&at, &option)) {
        print_zsh_option(&option);
    }
    if (has_operands(command)) {
        printf(" \\\n            '1:what:(");
        print_operands(command);
        printf(")'");
    }
    printf(" \\\n            '*:file:_files' ;;\n");
}

static void print_zsh_setting(const char *prefix, const struct settings_field *field)
{
    printf(" \\\n        '%s%s:value:(", prefix, field->key);
    print_choices(field);
    printf(")'");
}

static void print_zsh(void)
{
    printf("#compdef byol\n# zsh completion for byol, printed by 'byol completion zsh'\n"
           "_byol_settings()\n{\n    _values setting");
    each_setting(print_zsh_setting);
    printf("\n}\n"
           "_byol()\n{\n    local topic\n    local -a commands\n    commands=(\n");
    for (const struct command *const *command = command_table; *command; command++) {
        printf("        '%s:%s'\n", (*command)->name, (*command)->summary);
    }
    printf("    )\n"
           "    if ((CURRENT == 2)); then\n        _describe command commands\n        return\n"
           "    fi\n    shift words\n    ((CURRENT--))\n    topic=$words[1]\n    case $topic in\n");
    for (const struct command *const *command = command_table; *command; command++) {
        if ((*command)->subjects) {
            printf("    (%s)\n        if ((CURRENT > 2)); then\n"
                   "            topic+=\" $words[2]\"\n            shift words\n"
                   "            ((CURRENT--))\n        fi ;;\n",
                   (*command)->name);
        }
    }
    printf("    esac\n    case $topic in\n");
    each_topic(print_zsh_topic);
    printf("    esac\n}\n"
           "if [[ $funcstack[1] == _byol ]]; then\n    _byol \"$@\"\nelse\n"
           "    compdef _byol byol\nfi\n");
}

static int run(int argc, char **argv)
{
    struct option_list operands;
    bool done;
    int code = command_options(&command_completion, argc, argv, NULL, 0, &operands, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    if (operands.count != 1) {
        return command_misused(&command_completion, "name one shell: bash or zsh");
    }
    if (strcmp(operands.item[0], "bash") == 0) {
        print_bash();
    } else if (strcmp(operands.item[0], "zsh") == 0) {
        print_zsh();
    } else {
        return command_misused(&command_completion, "knows bash and zsh, not '%s'",
                               operands.item[0]);
    }
    return EXIT_OK;
}

const struct command command_completion = {
    .name = "completion",
    .summary = "Tab for bash and zsh",
    .help = help,
    .run = run,
};
