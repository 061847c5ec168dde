/* SPDX-License-Identifier: Apache-2.0 */
/*
 * help.c - everything that is made from the two tables of flags: the help,
 * the option parts of the manual pages, the completion script.
 */
#ifdef HAVE_CONFIG_H
#    include "config.h"
#endif
#include "cli.h"

#include <string.h>
#include <unistd.h>

#ifndef PACKAGE_VERSION
#    define PACKAGE_VERSION "0"
#endif
#ifndef MOE_BUILD_FLAGS
#    define MOE_BUILD_FLAGS "unknown"
#endif

/* "N" for --threads and the like; "": a switch. */
static const char *
metavar(const struct moe_option *row)
{
    size_t n = strlen(row->key);

    if (strcmp(row->type, "bool") == 0)
        return "";
    if (strcmp(row->type, "int") == 0)
        return "N";
    if (strcmp(row->type, "float") == 0)
        return "X";
    if (strcmp(row->type, "size") == 0)
        return "SIZE";
    if (n > 5 && strcmp(row->key + n - 5, ".path") == 0)
        return "PATH";
    if (strcmp(row->key, "plugin.load") == 0
        || strcmp(row->key, "text.template_helper") == 0)
        return "FILE";
    if (strcmp(row->type, "list") == 0)
        return "TEXT";
    return strchr(row->type, '|') != NULL ? "WORD" : "NAME";
}

/* Length of the documented spellings: a short one and the first long one. */
static size_t
documented(const char *flags)
{
    const char *p = strstr(flags, "--");

    return p != NULL ? (size_t) (p - flags) + strcspn(p, " ") : strlen(flags);
}

/* ----------------------------------------------------------------- help -- */

#define HELP_COLUMN 30

static void
help_line(const char *names, size_t len, const char *arg, const char *text)
{
    int    at = 2;
    size_t i;

    out_text("  ");
    for (i = 0; i < len; i++) {
        if (names[i] == ' ')
            at += printf(", ");
        else
            at += printf("%c", names[i]);
    }
    if (arg != NULL && arg[0] != '\0')
        at += printf(" %s", arg);
    if (at + 2 > HELP_COLUMN) {
        printf("\n");
        at = 0;
    }
    printf("%*s", HELP_COLUMN - at, "");
    print_wrapped(stdout, text, HELP_COLUMN, HELP_COLUMN,
                  terminal_width(STDOUT_FILENO));
}

static void
heading(const char *text)
{
    int color = use_color(STDOUT_FILENO);

    out_format("\n%s%s%s\n", color ? "\033[1m" : "", text,
               color ? "\033[0m" : "");
}

static void
help_flags(const struct flag *f)
{
    for (; f->names != NULL; f++)
        help_line(f->names, strlen(f->names), f->arg, f->help);
}

/* The spellings of a row without a short one that is the command's own. */
static const char *
free_flags(const struct command *k, const char *flags)
{
    const struct flag *f;
    char               name[32];
    size_t             n = strcspn(flags, " ");

    snprintf(name, sizeof(name), "%.*s", (int) n, flags);
    for (f = k->flags; f->names != NULL; f++)
        if (flags[n] == ' ' && word_in(f->names, name))
            return flags + n + 1;
    return flags;
}

static void
help_rows(const struct cli *c, const struct command *k)
{
    struct moe_option row = { .struct_size = sizeof(row) };
    char              text[512];
    const char       *aliases;
    size_t            i, n;

    for (i = 0; moe_options_at(c->o, i, &row) == MOE_OK; i++) {
        if (row.flags[0] == '\0' || !command_reads(k, row.key))
            continue;
        row.flags = free_flags(k, row.flags);
        n = documented(row.flags);
        aliases = row.flags + n;
        snprintf(text, sizeof(text), "%s%s%s%s%s%s%s%s", row.help,
                 strchr(row.type, '|') != NULL ? "; one of " : "",
                 strchr(row.type, '|') != NULL ? row.type : "",
                 aliases[0] != '\0' ? "; also" : "", aliases,
                 row.fallback[0] != '\0' ? " [" : "", row.fallback,
                 row.fallback[0] != '\0' ? "]" : "");
        help_line(row.flags, n, metavar(&row), text);
    }
}

void
print_help(const struct cli *c, const struct command *command)
{
    const struct command *k;

    if (command == NULL) {
        out_text("Usage: moe-run [COMMAND] [FLAG...]\n\n"
                 "Runs mixture-of-experts language models within a memory "
                 "budget.\n");
        heading("Commands");
        for (k = commands; k->name != NULL; k++) {
            char name[64];

            snprintf(name, sizeof(name), "%s%s%s", k->name,
                     k->operands[0] != '\0' ? " " : "", k->operands);
            out_format("  %-20s  %s\n", name, k->summary);
        }
        out_text("\n'moe-run COMMAND --help' lists the flags of a command.  "
                 "Those of generate:\n");
        command = &commands[0];
    } else {
        out_format("Usage: moe-run %s%s%s [FLAG...]\n\n%s.\n", command->name,
                   command->operands[0] != '\0' ? " " : "",
                   command->operands, command->summary);
    }
    if (command->flags[0].names != NULL) {
        heading("Flags of the command");
        help_flags(command->flags);
    }
    heading("Flags of every command");
    help_flags(common_flags);
    if (command->reads[0] != '\0') {
        heading("Options (also in moe.ini and the environment)");
        help_rows(c, command);
    }
    out_text("\nExit status: 0 done, 1 failed, 2 usage, 3 over the memory "
             "budget, 4 unsupported\nmodel or format, 5 damaged file, 6 "
             "plugin missing or refused.  See moe-run(1).\n");
}

int
run_help(struct cli *c)
{
    const struct command *k = NULL;

    if (c->n_operands > 0) {
        k = command_find(c->operands[0]);
        if (k == NULL) {
            say("there is no command '%s'; 'moe-run --help' lists them",
                c->operands[0]);
            return EXIT_USAGE;
        }
    }
    print_help(c, k);
    return EXIT_OK;
}

void
print_version(void)
{
    uint32_t abi = moe_plugin_abi();

    out_format("moe-run %s\n", PACKAGE_VERSION);
    out_format("libmoerun %s, plugin ABI %u.%u\n", moe_version(), abi >> 16,
               abi & 0xffffu);
    out_format("Built by %s"
#ifdef __VERSION__
               " " __VERSION__
#endif
               ", flags %s, line editing %s.\n",
#ifdef __clang__
               "clang",
#else
               "gcc",
#endif
               MOE_BUILD_FLAGS,
#ifdef HAVE_LIBEDIT
               "by libedit"
#else
               "plain"
#endif
    );
    out_text("Licence Apache-2.0.  There is no warranty, to the extent "
             "permitted by law.\n");
}

/* --------------------------------------------------------- manual pages -- */

/* Text for scdoc: what it would take as markup is escaped. */
static void
scdoc(const char *text)
{
    for (; *text != '\0'; text++) {
        if (strchr("\\*_[]#<>~", *text) != NULL)
            out_text("\\");
        out_format("%c", *text);
    }
}

static void
scdoc_flags(const char *names, size_t len, const char *arg)
{
    size_t i = 0, n;

    while (i < len) {
        n = strcspn(names + i, " ");
        out_format("%s*%.*s*", i > 0 ? ", " : "", (int) n, names + i);
        i += n + 1;
    }
    if (arg != NULL && arg[0] != '\0')
        out_format(" _%s_", arg);
    out_text("\n");
}

static void
man_own(const struct flag *f)
{
    for (; f->names != NULL; f++) {
        scdoc_flags(f->names, strlen(f->names), f->arg);
        out_text("\t");
        scdoc(f->help);
        out_text(".\n\n");
    }
}

/* A built-in path belongs to this installation. */
static void
man_default(const struct moe_option *row)
{
    out_text(" Default: ");
    if (row->fallback[0] == '\0')
        out_text("none");
    else if (row->fallback[0] == '/')
        out_text("the installed one");
    else {
        out_text("*");
        scdoc(row->fallback);
        out_text("*");
    }
    out_text(".");
}

static void
man_type(const struct moe_option *row)
{
    if (strchr(row->type, '|') != NULL) {
        out_text(" One of *");
        scdoc(row->type);
        out_text("*.");
    } else if (row->range[0] != '\0') {
        size_t n = strlen(row->range);

        if (n > 2 && strcmp(row->range + n - 2, "..") == 0) {
            out_format(" Allowed: %.*s and more.", (int) n - 2, row->range);
            return;
        }
        out_text(" Allowed: ");
        scdoc(row->range);
        out_text(".");
    }
}

void
print_man_options(const struct cli *c)
{
    struct moe_option     row = { .struct_size = sizeof(row) };
    const struct command *k;
    char                  section[32] = "";
    size_t                i, n;

    out_text("# COMMANDS\n\n");
    for (k = commands; k->name != NULL; k++) {
        out_format("*%s*", k->name);
        if (k->operands[0] != '\0') {
            out_text(" ");
            scdoc(k->operands);
        }
        out_text("\n\t");
        scdoc(k->summary);
        out_text(".");
        if (k->aliases[0] != '\0') {
            out_text(" Also: ");
            scdoc(k->aliases);
            out_text(".");
        }
        out_text("\n\n");
    }
    out_text("# FLAGS OF EVERY COMMAND\n\n");
    man_own(common_flags);
    for (k = commands; k->name != NULL; k++) {
        if (k->flags[0].names == NULL)
            continue;
        out_format("# FLAGS OF %s\n\n", k->name);
        man_own(k->flags);
    }
    out_text("# OPTIONS\n\nEach option is also a key of *moe.ini*(5) and a "
             "variable of the environment. A flag that a command does not "
             "read has no effect there and is refused.\n");
    for (i = 0; moe_options_at(c->o, i, &row) == MOE_OK; i++) {
        int first;

        if (row.flags[0] == '\0')
            continue;
        n = strcspn(row.key, ".");
        if (strncmp(section, row.key, n) != 0 || section[n] != '\0') {
            snprintf(section, sizeof(section), "%.*s", (int) n, row.key);
            out_format("\n## %s\n", section);
        }
        out_text("\n");
        scdoc_flags(row.flags, strlen(row.flags), metavar(&row));
        out_text("\t");
        scdoc(row.help);
        out_text(".");
        man_type(&row);
        man_default(&row);
        out_text(" Variable *");
        scdoc(row.env);
        out_text("*. Read by");
        for (first = 1, k = commands; k->name != NULL; k++)
            if (k->run != run_config && command_reads(k, row.key)) {
                out_format("%s *%s*", first ? "" : ",", k->name);
                first = 0;
            }
        out_text(".\n");
    }
}

void
print_man_ini(const struct cli *c)
{
    struct moe_option row = { .struct_size = sizeof(row) };
    char              section[32] = "";
    size_t            i, n;

    for (i = 0; moe_options_at(c->o, i, &row) == MOE_OK; i++) {
        if (row.env[0] == '\0')
            continue;
        n = strcspn(row.key, ".");
        if (strncmp(section, row.key, n) != 0 || section[n] != '\0') {
            snprintf(section, sizeof(section), "%.*s", (int) n, row.key);
            out_format("%s## [%s]\n", i > 0 ? "\n" : "", section);
        }
        out_text("\n*");
        scdoc(row.key + n + 1);
        out_format("* (%s)\n\t",
                   strchr(row.type, '|') != NULL ? "word" : row.type);
        scdoc(row.help);
        out_text(".");
        man_type(&row);
        man_default(&row);
        out_text(" Flag *");
        n = strcspn(strstr(row.flags, "--"), " ");
        out_format("%.*s*.\n", (int) n, strstr(row.flags, "--"));
    }
}

/* ----------------------------------------------------------- completion -- */

/* "-p|--prompt" of "-p --prompt". */
static void
out_cases(const char *flags)
{
    for (; *flags != '\0'; flags++)
        out_format("%c", *flags == ' ' ? '|' : *flags);
}

static void
complete_value(const char *flags, const char *arg, const char *words)
{
    if (arg == NULL || arg[0] == '\0')
        return;
    out_text("    ");
    out_cases(flags);
    out_text(")\n");
    if (words != NULL) {
        out_text("        COMPREPLY=($(compgen -W '");
        for (; *words != '\0'; words++)
            out_format("%c", *words == '|' ? ' ' : *words);
        out_text("' -- \"$cur\"))\n");
    } else if (strcmp(arg, "PATH") == 0) {
        out_text("        COMPREPLY=($(compgen -d -- \"$cur\"))\n");
    } else if (strcmp(arg, "FILE") == 0) {
        out_text("        COMPREPLY=($(compgen -f -- \"$cur\"))\n");
    }
    out_text("        return ;;\n");
}

/* Flags in a list of lines of at most 80 columns; the column after them. */
static size_t
out_word(const char *text, size_t len, size_t at)
{
    if (at + 1 + len > 78) {
        out_text("\n            ");
        at = 12;
    } else if (at > 15) {
        out_text(" ");
        at++;
    }
    out_write(NULL, text, len);
    return at + len;
}

void
print_completion(const struct cli *c)
{
    struct moe_option     row = { .struct_size = sizeof(row) };
    const struct command *k;
    const struct flag    *f;
    size_t                i, at;

    out_text("# SPDX-License-Identifier: Apache-2.0\n"
             "# bash completion for moe-run; made by moe-run "
             "--completion-bash\n\n"
             "_moe_run()\n{\n"
             "    local cur=${COMP_WORDS[COMP_CWORD]}\n"
             "    local prev=${COMP_WORDS[COMP_CWORD-1]}\n"
             "    local flags operands\n\n"
             "    COMPREPLY=()\n"
             "    case $prev in\n");
    for (f = common_flags; f->names != NULL; f++)
        complete_value(f->names, f->arg, NULL);
    for (k = commands; k->name != NULL; k++)
        for (f = k->flags; f->names != NULL; f++)
            if (!(k != commands && word_in(f->names, "--prompt"))
                && !(k != commands && word_in(f->names, "--file")))
                complete_value(f->names, f->arg,
                               word_in(f->names, "--man") ? "options|ini"
                                                          : NULL);
    for (i = 0; moe_options_at(c->o, i, &row) == MOE_OK; i++)
        if (row.flags[0] != '\0')
            complete_value(row.flags, metavar(&row),
                           strchr(row.type, '|') != NULL ? row.type : NULL);
    out_text("    esac\n    case ${COMP_WORDS[1]} in\n");
    for (k = commands + 1;; k++) {
        const struct command *shown = k->name != NULL ? k : commands;

        out_text("    ");
        if (k->name != NULL) {
            out_text(k->name);
            if (k->aliases[0] != '\0') {
                out_text("|");
                out_cases(k->aliases);
            }
        } else {
            out_text("*"); /* generate, by name or not */
        }
        out_text(")\n        flags='");
        at = 15;
        for (f = shown->flags; f->names != NULL; f++)
            at = out_word(f->names, strlen(f->names), at);
        for (f = common_flags; f->names != NULL; f++)
            at = out_word(f->names, strlen(f->names), at);
        for (i = 0; moe_options_at(c->o, i, &row) == MOE_OK; i++)
            if (row.flags[0] != '\0' && command_reads(shown, row.key))
                at = out_word(row.flags, documented(row.flags), at);
        out_text("'\n");
        if (strcmp(shown->name, "help") == 0)
            out_text("        operands=c ;;\n");
        else
            out_format("        operands=%s ;;\n",
                       shown->n_operands > 0 ? "d" : "''");
        if (k->name == NULL)
            break;
    }
    out_text("    esac\n"
             "    if [[ $cur == -* ]]; then\n"
             "        COMPREPLY=($(compgen -W \"$flags\" -- \"$cur\"))\n"
             "    elif [[ $COMP_CWORD -eq 1 || $operands == c ]]; then\n"
             "        COMPREPLY=($(compgen -W '");
    for (k = commands; k->name != NULL; k++)
        out_format("%s%s", k == commands ? "" : " ", k->name);
    out_text("' -- \"$cur\"))\n"
             "    elif [[ $operands == d ]]; then\n"
             "        COMPREPLY=($(compgen -d -- \"$cur\"))\n"
             "    fi\n"
             "}\n"
             "complete -o filenames -F _moe_run moe-run\n");
}
