/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.c - moe-run config: every option, its value, and who said so.
 *
 * --ini prints the whole table as a commented moe.ini; conf/moe.ini in the
 * source tree is exactly that.
 */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int
print_json(const struct cli *c)
{
    static const char *const from[]
        = { "built-in", "model", "file", "environment", "command line" };
    struct moe_option row = { .struct_size = sizeof(row) };
    size_t            i;

    out_format("{\"schema_version\":%d,\"options\":[", SCHEMA_VERSION);
    for (i = 0; moe_options_at(c->o, i, &row) == MOE_OK; i++) {
        const char *const fields[][2] = {
            { "key", row.key },           { "value", row.value },
            { "source", from[row.from] }, { "where", row.where },
            { "default", row.fallback },  { "type", row.type },
            { "range", row.range },       { "flags", row.flags },
            { "env", row.env },           { "help", row.help },
        };
        size_t k;

        out_text(i == 0 ? "\n" : ",\n");
        for (k = 0; k < sizeof(fields) / sizeof(fields[0]); k++) {
            out_format("%s\"%s\":", k == 0 ? "{" : ",", fields[k][0]);
            out_json(fields[k][1], strlen(fields[k][1]));
        }
        out_text("}");
    }
    out_text("\n]}\n");
    return EXIT_OK;
}

static void
print_comment(const char *text)
{
    int at = 0;

    while (*text != '\0') {
        int n = (int) strcspn(text, " ");

        if (at == 0 || at + 1 + n > 78) {
            out_text(at == 0 ? "#" : "\n#");
            at = 1;
        }
        out_format(" %.*s", n, text);
        at += 1 + n;
        text += (size_t) n + strspn(text + n, " ");
    }
    out_text("\n");
}

/* A built-in path belongs to this installation, so an example leaves it
 * out. */
static const char *
shown_fallback(const struct moe_option *row)
{
    return row->fallback[0] == '/' ? "" : row->fallback;
}

static int
print_ini(const struct cli *c)
{
    struct moe_option row = { .struct_size = sizeof(row) };
    char              section[32] = "", line[160];
    size_t            i;

    out_text(
        "# moe.ini - options of moe-run, see moe.ini(5).\n"
        "#\n"
        "# This file lists every option with its built-in value.  A line\n"
        "# without the leading ';' sets one.  Also read, each stronger than\n"
        "# the one before: SYSCONFDIR/moe-run/moe.ini, its folder conf.d,\n"
        "# ~/.config/moe-run/moe.ini, --config FILE, MOE_* variables, the\n"
        "# command line.\n"
        "#\n"
        "# A line has at most 198 bytes and is not indented.  ' ;' begins a\n"
        "# comment after a value.\n");
    for (i = 0; moe_options_at(c->o, i, &row) == MOE_OK; i++) {
        size_t n = strcspn(row.key, ".");

        if (row.env[0] == '\0') /* a plugin's */
            break;
        if (strncmp(section, row.key, n) != 0 || section[n] != '\0') {
            snprintf(section, sizeof(section), "%.*s", (int) n, row.key);
            out_format("\n[%s]\n", section);
        }
        out_text("\n");
        snprintf(line, sizeof(line), "%s.", row.help);
        print_comment(line);
        if (strchr(row.type, '|') != NULL)
            out_format("# One of %s.", row.type);
        else
            out_format("# Type: %s%s%s%s.", row.type,
                       row.range[0] != '\0' ? " (" : "", row.range,
                       row.range[0] != '\0' ? ")" : "");
        out_format("  Flag: %.*s.\n",
                   (int) strcspn(strstr(row.flags, "--"), " "),
                   strstr(row.flags, "--"));
        out_format(";%s =%s%s\n", row.key + n + 1,
                   shown_fallback(&row)[0] != '\0' ? " " : "",
                   shown_fallback(&row));
    }
    out_text("\n# Keys of a plugin go into a section of its own: "
             "[backend.NAME], [quant.NAME].\n"
             "# The plugin says which it knows; one that it does not read "
             "is an error.\n");
    return EXIT_OK;
}

static void
print_text_in_quotes(const char *value)
{
    /* a value that would not show: empty, or with blanks around it */
    if (value[0] == '\0' || value[0] == ' '
        || value[strlen(value) - 1] == ' ')
        out_format("\"%s\"", value);
    else
        out_text(value);
}

static int
print_table(const struct cli *c)
{
    struct moe_option row = { .struct_size = sizeof(row) };
    size_t            i, keys = 0, values = 0, n;
    int               color = use_color(STDOUT_FILENO);

    for (i = 0; moe_options_at(c->o, i, &row) == MOE_OK; i++) {
        n = strlen(row.key);
        keys = n > keys ? n : keys;
        n = text_width(row.value, strlen(row.value));
        values = n > values && n <= 24 ? n : values;
    }
    for (i = 0; moe_options_at(c->o, i, &row) == MOE_OK; i++) {
        int set = row.from != MOE_FROM_DEFAULT;

        out_format("%s%-*s  ", set && color ? "\033[1m" : "", (int) keys,
                   row.key);
        print_text_in_quotes(row.value);
        n = row.value[0] == '\0' ? 2 : text_width(row.value,
                                                  strlen(row.value));
        out_format("%*s  %s%s\n", n < values ? (int) (values - n) : 0, "",
                   row.where, set && color ? "\033[0m" : "");
    }
    return EXIT_OK;
}

int
run_config(struct cli *c)
{
    const char *part = cli_value(c, "--man");

    if (part != NULL && strcmp(part, "options") == 0) {
        print_man_options(c);
        return EXIT_OK;
    }
    if (part != NULL && strcmp(part, "ini") == 0) {
        print_man_ini(c);
        return EXIT_OK;
    }
    if (part != NULL) {
        say("--man %s: options or ini is wanted", part);
        return EXIT_USAGE;
    }
    if (cli_has(c, "--ini"))
        return print_ini(c);
    if (cli_has(c, "--json"))
        return print_json(c);
    return print_table(c);
}
