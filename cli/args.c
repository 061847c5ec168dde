/* SPDX-License-Identifier: Apache-2.0 */
/*
 * args.c - the command line.
 *
 * A flag is the command's own (commands.c) or a row of the library's option
 * table; the spellings of both are looked up whole, so that -np and -ctk work
 * beside -n and -c.  `--name value`, `--name=value`, `-x value`, `-xvalue` and
 * `-vv` are understood.  A flag of the table that the command does not read
 * is an error: it would have no effect.
 *
 * Files and variables are read before the flags are applied, --config FILE
 * among them, so that an error is told in the order of strength.
 */
#include "cli.h"
#include "support/near.h"

#include <stdlib.h>
#include <string.h>

/* What a flag on the command line turned out to be. */
struct found {
    const struct flag *own;
    struct moe_option  row; /* if own is NULL */
    int                negated;
};

/* A value for the table, until the files have been read. */
struct setting {
    char *key;
    char *value;
};

struct parse {
    struct cli     *c;
    char          **argv;
    int             argc, at;
    struct setting *settings;
    size_t          n_settings;
    int             verbose;
};

int
word_in(const char *words, const char *word)
{
    size_t      len = strlen(word);
    const char *p = words;

    while ((p = strstr(p, word)) != NULL) {
        if ((p == words || p[-1] == ' ') && (p[len] == '\0' || p[len] == ' '))
            return 1;
        p += len;
    }
    return 0;
}

const struct command *
command_find(const char *name)
{
    const struct command *k;

    if (*name == '\0' || strchr(name, ' ') != NULL)
        return NULL;
    for (k = commands; k->name != NULL; k++)
        if (strcmp(k->name, name) == 0 || word_in(k->aliases, name))
            return k;
    return NULL;
}

/* ---------------------------------------------------------- suggestions -- */

/* Keeps in best (64 bytes) the nearest to `asked` of some words. */
static void
nearest(const char *asked, const char *words, char *best, unsigned *distance)
{
    char   word[64];
    size_t n, len = strlen(asked);

    for (; *words != '\0'; words += n + strspn(words + n, " ")) {
        unsigned d;

        n = strcspn(words, " ");
        if (n >= sizeof(word) || (n < 3 && len > 2))
            continue;
        memcpy(word, words, n);
        word[n] = '\0';
        d = moe_edits(asked, word);
        if (d > 2 && len > 4 && strncmp(word, asked, len) == 0)
            d = 2; /* an abbreviation */
        if (d < *distance && d <= (len < 4 ? 1 : (unsigned) (len + 2) / 3)) {
            *distance = d;
            memcpy(best, word, n + 1);
        }
    }
}

static int
unknown_flag(const struct cli *c, const char *name)
{
    const struct flag *f;
    struct moe_option  row = { .struct_size = sizeof(row) };
    char               best[64] = "";
    unsigned           distance = 1000;
    size_t             i;

    for (f = c->command->flags; f->names != NULL; f++)
        nearest(name, f->names, best, &distance);
    for (f = common_flags; f->names != NULL; f++)
        nearest(name, f->names, best, &distance);
    for (i = 0; moe_options_at(c->o, i, &row) == MOE_OK; i++)
        nearest(name, row.flags, best, &distance);
    if (best[0] != '\0')
        say("there is no flag '%s'; did you mean '%s'?", name, best);
    else
        say("there is no flag '%s'; 'moe-run %s --help' lists them", name,
            c->command->name);
    return EXIT_USAGE;
}

static int
unknown_word(const struct cli *c, const char *word)
{
    const struct command *k;
    char                  best[64] = "";
    unsigned              distance = 1000;

    if (command_find(word) != NULL) {
        say("'%s': the command has to be the first word", word);
        return EXIT_USAGE;
    }
    for (k = commands; k->name != NULL; k++) {
        nearest(word, k->name, best, &distance);
        nearest(word, k->aliases, best, &distance);
    }
    if (best[0] != '\0' && c->command == &commands[0])
        say("there is no command '%s'; did you mean '%s'?", word, best);
    else if (c->command->n_operands == 0 && word_in("generate chat",
                                                    c->command->name))
        say("'%s' is one word too many; a prompt is given with -p, a model "
            "with -m",
            word);
    else
        say("'%s' is one word too many; 'moe-run %s --help' tells what it "
            "takes",
            word, c->command->name);
    return EXIT_USAGE;
}

/* --------------------------------------------------------------- flags -- */

static const struct flag *
own_flag(const struct cli *c, const char *name)
{
    const struct flag *f;

    for (f = c->command->flags; f->names != NULL; f++)
        if (word_in(f->names, name))
            return f;
    for (f = common_flags; f->names != NULL; f++)
        if (word_in(f->names, name))
            return f;
    return NULL;
}

static int
find_flag(const struct cli *c, const char *name, struct found *out)
{
    memset(out, 0, sizeof(*out));
    out->row.struct_size = sizeof(out->row);
    out->own = own_flag(c, name);
    if (out->own != NULL)
        return 1;
    if (moe_options_flag(c->o, name, &out->row, NULL) == MOE_OK)
        return 1;
    if (strncmp(name, "--no-", 5) == 0) {
        char positive[64];

        snprintf(positive, sizeof(positive), "--%s", name + 5);
        if (moe_options_flag(c->o, positive, &out->row, NULL) == MOE_OK
            && strcmp(out->row.type, "bool") == 0) {
            out->negated = 1;
            return 1;
        }
    }
    return 0;
}

int
command_reads(const struct command *k, const char *key)
{
    char section[32];

    snprintf(section, sizeof(section), "%.*s", (int) strcspn(key, "."), key);
    return word_in(k->reads, section) || word_in(k->reads, key);
}

static int
no_memory(void)
{
    say("out of memory");
    return EXIT_RUN;
}

static int
add_use(struct cli *c, const struct flag *f, const char *value)
{
    struct use *grown = realloc(c->uses, (c->n_uses + 1) * sizeof(*grown));

    if (grown == NULL)
        return no_memory();
    c->uses = grown;
    grown[c->n_uses].flag = f;
    grown[c->n_uses].value = value;
    c->n_uses++;
    return -1;
}

static int
add_setting(struct parse *p, const char *key, const char *value, int is_list)
{
    struct setting *s = NULL, *grown;
    size_t          i;
    char           *copy;

    for (i = 0; is_list && i < p->n_settings; i++)
        if (strcmp(p->settings[i].key, key) == 0)
            s = &p->settings[i];
    if (s == NULL) {
        grown = realloc(p->settings, (p->n_settings + 1) * sizeof(*grown));
        if (grown == NULL)
            return no_memory();
        p->settings = grown;
        s = &grown[p->n_settings];
        s->key = strdup(key);
        s->value = NULL;
        if (s->key == NULL)
            return no_memory();
        p->n_settings++;
    }
    if (is_list)
        return list_append(&s->value, value) ? no_memory() : -1;
    copy = strdup(value);
    if (copy == NULL)
        return no_memory();
    s->value = copy;
    return -1;
}

/* --set KEY=VALUE: any key, those of plugins too. */
static int
add_pair(struct parse *p, const char *pair)
{
    const char *equals = strchr(pair, '=');
    char       *key;
    int         rc;

    if (equals == NULL || equals == pair) {
        say("--set %s: KEY=VALUE is wanted, such as engine.threads=2", pair);
        return EXIT_USAGE;
    }
    key = strndup(pair, (size_t) (equals - pair));
    if (key == NULL)
        return no_memory();
    rc = add_setting(p, key, equals + 1, 0);
    free(key);
    return rc;
}

/* One flag; value: what came attached to it, or NULL. */
static int
take(struct parse *p, const char *name, const struct found *f,
     const char *value)
{
    struct cli *c = p->c;
    int         is_switch = f->own != NULL ? f->own->arg == NULL
                                           : strcmp(f->row.type, "bool") == 0;

    if (f->own == NULL && !command_reads(c->command, f->row.key)) {
        say("%s has no effect on 'moe-run %s'", name, c->command->name);
        return EXIT_USAGE;
    }
    if (is_switch && f->own != NULL && value != NULL) {
        say("%s takes no value", name);
        return EXIT_USAGE;
    }
    if (!is_switch && value == NULL) {
        if (p->at >= p->argc) {
            say("%s needs a value", name);
            return EXIT_USAGE;
        }
        value = p->argv[p->at++];
    }
    if (f->own == NULL) {
        if (is_switch && value == NULL)
            value = f->negated ? "false" : "true";
        return add_setting(p, f->row.key, value,
                           strcmp(f->row.type, "list") == 0);
    }
    if (word_in(f->own->names, "--set"))
        return add_pair(p, value);
    if (word_in(f->own->names, "--verbose"))
        p->verbose++;
    return add_use(c, f->own, value);
}

/* "-vv", "-t4", "-np": arg begins with one '-'. */
static int
take_short(struct parse *p, const char *arg)
{
    struct found f;
    char         name[3] = "-?";
    const char  *rest;
    int          rc = -1;

    if (find_flag(p->c, arg, &f))
        return take(p, arg, &f, NULL);
    if (strchr(arg, '=') != NULL) {
        char   whole[32];
        size_t n = strcspn(arg, "=");

        snprintf(whole, sizeof(whole), "%.*s", (int) n, arg);
        if (n < sizeof(whole) && find_flag(p->c, whole, &f))
            return take(p, whole, &f, arg + n + 1);
    }
    for (rest = arg + 1; *rest != '\0' && rc < 0; rest++) {
        int is_switch;

        name[1] = *rest;
        if (!find_flag(p->c, name, &f))
            return unknown_flag(p->c, arg);
        is_switch = f.own != NULL && f.own->arg == NULL;
        if (!is_switch)
            return take(p, name, &f, rest[1] != '\0' ? rest + 1 : NULL);
        rc = take(p, name, &f, NULL);
    }
    return rc;
}

static int
take_long(struct parse *p, const char *arg)
{
    struct found f;
    size_t       n = strcspn(arg, "=");
    char         name[64];

    if (n >= sizeof(name))
        return unknown_flag(p->c, arg);
    memcpy(name, arg, n);
    name[n] = '\0';
    if (!find_flag(p->c, name, &f))
        return unknown_flag(p->c, name);
    return take(p, name, &f, arg[n] == '=' ? arg + n + 1 : NULL);
}

static int
take_all(struct parse *p)
{
    struct cli *c = p->c;
    int         only_words = 0, rc = -1;

    while (p->at < p->argc && rc < 0) {
        const char *arg = p->argv[p->at++];

        if (!only_words && strcmp(arg, "--") == 0) {
            only_words = 1;
        } else if (!only_words && strncmp(arg, "--", 2) == 0) {
            rc = take_long(p, arg);
        } else if (!only_words && arg[0] == '-' && arg[1] != '\0') {
            rc = take_short(p, arg);
        } else if (c->n_operands < (size_t) c->command->n_operands) {
            c->operands[c->n_operands++] = arg;
        } else {
            rc = unknown_word(c, arg);
        }
    }
    return rc;
}

/* ------------------------------------------------------------ together -- */

/* Files, variables, --config, then the flags. */
static int
apply(struct parse *p)
{
    static const char *const levels[] = { "info", "debug", "trace" };
    struct moe_error         err = { .struct_size = sizeof(err) };
    struct cli              *c = p->c;
    size_t                   i;

    if (moe_options_load_defaults(c->o, &err) != MOE_OK)
        return fail(&err);
    for (i = 0; i < c->n_uses; i++)
        if (word_in(c->uses[i].flag->names, "--config")
            && moe_options_load(c->o, c->uses[i].value, &err) != MOE_OK)
            return fail(&err);
    if (p->verbose > 0
        && moe_options_set(c->o, "log.level",
                           levels[p->verbose < 3 ? p->verbose - 1 : 2],
                           MOE_FROM_ARG, &err)
               != MOE_OK)
        return fail(&err);
    for (i = 0; i < p->n_settings; i++)
        if (moe_options_set(c->o, p->settings[i].key, p->settings[i].value,
                            MOE_FROM_ARG, &err)
            != MOE_OK)
            return fail(&err);
    return -1;
}

int
cli_parse(struct cli *c, int argc, char **argv)
{
    struct parse p = { .c = c, .argv = argv, .argc = argc, .at = 1 };
    size_t       i;
    int          rc, named = argc > 1 && command_find(argv[1]) != NULL;

    c->command = named ? command_find(argv[1]) : &commands[0];
    p.at = named ? 2 : 1;
    c->operands = calloc((size_t) c->command->n_operands + 1,
                         sizeof(*c->operands));
    rc = c->operands != NULL ? take_all(&p) : no_memory();
    if (rc < 0 && cli_has(c, "--help")) {
        print_help(c, named ? c->command : NULL);
        rc = EXIT_OK;
    }
    if (rc < 0 && cli_has(c, "--version")) {
        print_version();
        rc = EXIT_OK;
    }
    if (rc < 0 && cli_has(c, "--completion-bash")) {
        print_completion(c);
        rc = EXIT_OK;
    }
    if (rc < 0)
        rc = apply(&p);
    c->quiet = cli_has(c, "--quiet");
    for (i = 0; i < p.n_settings; i++) {
        free(p.settings[i].key);
        free(p.settings[i].value);
    }
    free(p.settings);
    return rc;
}

void
cli_free(struct cli *c)
{
    free(c->uses);
    free(c->operands);
    moe_options_free(c->o);
}

const char *
cli_value(const struct cli *c, const char *name)
{
    size_t i = c->n_uses;

    while (i-- > 0)
        if (word_in(c->uses[i].flag->names, name))
            return c->uses[i].value != NULL ? c->uses[i].value : "";
    return NULL;
}

int
cli_has(const struct cli *c, const char *name)
{
    return cli_value(c, name) != NULL;
}
