/* SPDX-License-Identifier: Apache-2.0 */
/* The option table, the types of values, and which source wins. */
#include "tap.h"

#include <ctype.h>
#include <locale.h>

#include "config/table.h"
#include "ini_file.h"

static struct moe_error err = { .struct_size = sizeof(err) };

/* Sets and, if `want` is a part of the error's text, expects the refusal. */
static void
check_set(moe_options *o, const char *key, const char *value,
          const char *want)
{
    moe_status status;

    err.text[0] = '\0';
    status = moe_options_set(o, key, value, MOE_FROM_ARG, &err);
    if (want == NULL) {
        is_int(status, MOE_OK, "%s takes '%s'", key, value);
        if (status != MOE_OK)
            tap_diag("%s", err.text);
        return;
    }
    is_int(status, MOE_E_INVAL, "%s refuses '%s'", key, value);
    has_str(err.text, want, "... and says why");
}

static void
test_table(void)
{
    moe_options      *o;
    struct moe_option row = { .struct_size = sizeof(row) };
    size_t            i, k;
    int               good = 1;

    moe_options_new(&o, &err);
    for (i = 0; i < moe_option_row_count; i++) {
        const struct moe_option_row *r = &moe_option_rows[i];
        const char                  *flag = strstr(r->flags, "--");
        char                         env[64] = "MOE_";

        if (flag == NULL || r->help[0] == '\0' || r->reader[0] == '\0'
            || r->help[strlen(r->help) - 1] == '.') {
            tap_diag("row %s lacks a long flag, a help or a reader", r->key);
            good = 0;
            continue;
        }
        for (k = 2; flag[k] != '\0' && flag[k] != ' '; k++)
            env[k + 2] = flag[k] == '-' ? '_' : (char) toupper(flag[k]);
        env[k + 2] = '\0';
        if (strcmp(env, r->env) != 0) {
            tap_diag("row %s: %s is not %s", r->key, r->env, env);
            good = 0;
        }
        for (k = 0; k < i; k++) {
            char words[256], *word, *rest;

            snprintf(words, sizeof(words), "%s", r->flags);
            for (word = strtok_r(words, " ", &rest); word != NULL;
                 word = strtok_r(NULL, " ", &rest))
                if (moe_row_has_flag(&moe_option_rows[k], word)) {
                    tap_diag("%s sets two rows", word);
                    good = 0;
                }
        }
    }
    ok(good, "every row has flags of its own, a variable, a help, a reader");
    for (i = 0; moe_options_at(o, i, &row) == MOE_OK; i++)
        if (row.from != MOE_FROM_DEFAULT || strcmp(row.where, "built-in") != 0
            || (strcmp(row.value, row.fallback) != 0))
            good = 0;
    is_int(i, moe_option_row_count, "moe_options_at gives every row");
    ok(good, "all begin with their built-in value");
    is_int(moe_options_flag(o, "--ctx-size", &row, &err), MOE_OK,
           "an alias is found");
    is_str(row.key, "model.context", "... as its row");
    is_int(moe_options_flag(o, "-ctk", &row, &err), MOE_OK,
           "a short flag of three letters is found");
    is_int(moe_options_flag(o, "--thread", &row, &err), MOE_E_NOT_FOUND,
           "an unknown flag is not");
    has_str(err.text, "--threads", "... and the nearest is named");
    is_int(moe_options_flag(o, "ctx-size", &row, &err), MOE_E_NOT_FOUND,
           "a part of a flag is no flag");
    ok(moe_options_get(o, "no.such") == NULL, "an unknown key has no value");
    row.struct_size = offsetof(struct moe_option, value);
    row.value = "untouched";
    moe_options_at(o, 0, &row);
    is_str(row.value, "untouched", "an older caller's struct is respected");
    moe_options_free(o);
}

static void
test_types(void)
{
    moe_options *o;
    size_t       n;

    moe_options_new(&o, &err);
    check_set(o, "engine.threads", "3", NULL);
    is_int(moe_option_int(o, "engine.threads"), 3, "an int is read");
    check_set(o, "engine.threads", "3x", "not a whole number");
    check_set(o, "engine.threads", "", "not a whole number");
    check_set(o, "engine.threads", " 3", "not a whole number");
    check_set(o, "engine.threads", "0x10", "not a whole number");
    check_set(o, "engine.threads", "3.5", "not a whole number");
    check_set(o, "engine.threads", "-1", "out of range");
    check_set(o, "engine.threads", "4097", "0..4096");
    check_set(o, "engine.threads", "99999999999999999999",
              "not a whole number");
    is_int(moe_option_int(o, "engine.threads"), 3,
           "a refused value changes nothing");
    check_set(o, "generate.seed", "9223372036854775807", NULL);
    check_set(o, "generate.seed", "-1", NULL);
    check_set(o, "generate.seed", "-2", "out of range");

    check_set(o, "generate.top_p", "0.25", NULL);
    ok(moe_option_float(o, "generate.top_p") == 0.25, "a float is read");
    check_set(o, "generate.top_p", "1", NULL);
    check_set(o, "generate.top_p", "1.01", "out of range");
    check_set(o, "generate.top_p", "-0.1", "out of range");
    check_set(o, "generate.top_p", "nan", "not a number");
    check_set(o, "generate.top_p", "inf", "not a number");
    check_set(o, "generate.top_p", "0,5", "not a number");
    check_set(o, "generate.top_p", "1e999", "not a number");
    check_set(o, "generate.top_p", "", "not a number");
    check_set(o, "generate.top_p", "1e-2", NULL);
    check_set(o, "generate.repeat_penalty", "0", "out of range");

    check_set(o, "generate.ignore_eos", "Yes", NULL);
    ok(moe_option_bool(o, "generate.ignore_eos"), "a bool is read");
    check_set(o, "generate.ignore_eos", "off", NULL);
    ok(!moe_option_bool(o, "generate.ignore_eos"), "... both ways");
    check_set(o, "generate.ignore_eos", "2", "neither true nor false");
    check_set(o, "generate.ignore_eos", "", "neither true nor false");

    check_set(o, "memory.budget", "4G", NULL);
    ok(moe_option_size(o, "memory.budget") == 4ull << 30, "4G is 2^32 bytes");
    check_set(o, "memory.budget", "1.5 GiB", NULL);
    ok(moe_option_size(o, "memory.budget") == 3ull << 29, "1.5 GiB");
    check_set(o, "memory.budget", "512mb", NULL);
    ok(moe_option_size(o, "memory.budget") == 512000000, "MB is 10^6");
    check_set(o, "memory.budget", "1048577", NULL);
    ok(moe_option_size(o, "memory.budget") == 1048577, "bytes are exact");
    check_set(o, "memory.budget", "80%", NULL);
    ok(moe_option_percent(o, "memory.budget") == 80.0
           && moe_option_size(o, "memory.budget") == 0,
       "a percentage is one");
    check_set(o, "memory.budget", "auto", NULL);
    ok(moe_option_percent(o, "memory.budget") == 0
           && moe_option_size(o, "memory.budget") == 0,
       "auto is neither");
    check_set(o, "memory.budget", "0", "not a size");
    check_set(o, "memory.budget", "4X", "not a size");
    check_set(o, "memory.budget", "4GiBs", "not a size");
    check_set(o, "memory.budget", "1.2.3G", "not a size");
    check_set(o, "memory.budget", "1.5", "not a size");
    check_set(o, "memory.budget", "-4G", "not a size");
    check_set(o, "memory.budget", "99999999P", "not a size");
    check_set(o, "memory.budget", "101%", "not a percentage");
    check_set(o, "memory.budget", "%", "not a size");
    check_set(o, "memory.budget", "0%", "not a percentage");

    check_set(o, "engine.min_tier", "native", NULL);
    is_str(moe_option_text(o, "engine.min_tier"), "native", "a word is kept");
    check_set(o, "engine.min_tier", "natvie", "did you mean 'native'");
    check_set(o, "engine.min_tier", "none|expand", "not one of");
    check_set(o, "engine.min_tier", "", "not one of");

    check_set(o, "generate.stop", "a b , \"c, \\\"d\\\"\\n\",e", NULL);
    {
        const char *const *items = moe_option_list(o, "generate.stop", &n);

        is_int(n, 3, "a list has its items");
        is_str(n == 3 ? items[0] : "", "a b", "... without blanks around");
        is_str(n == 3 ? items[1] : "", "c, \"d\"\n", "... quoted ones too");
        is_str(n == 3 ? items[2] : "", "e", "... to the last");
    }
    check_set(o, "generate.stop", "", NULL);
    moe_option_list(o, "generate.stop", &n);
    is_int(n, 0, "an empty list is one");
    check_set(o, "generate.stop", "a,,b", "empty item");
    check_set(o, "generate.stop", "a,", "empty item");
    check_set(o, "generate.stop", "\"\"", "empty item");
    check_set(o, "generate.stop", "\"a", "open quote");
    check_set(o, "generate.stop", "\"a\\", "unknown escape");
    check_set(o, "generate.stop", "\"a\\q\"", "unknown escape");
    check_set(o, "generate.stop", "\"a\"b", "after a closing quote");
    check_set(o, "generate.stop", "a\"b", "quote inside an item");

    check_set(o, "engine.thread", "3", "did you mean 'engine.threads'");
    check_set(o, "model.threads", "3", "did you mean 'engine.threads'");
    check_set(o, "nothing.like.it", "3", "there is no option");
    check_set(o, "", "3", "there is no option");
    check_set(o, "backend.cpu.isa", "avx2", NULL);
    check_set(o, "backend.cpu.", "x", "there is no option");
    check_set(o, "backend..x", "x", "there is no option");
    check_set(o, "backend.CPU.x", "x", "there is no option");
    is_int(moe_options_set(o, "engine.threads", NULL, MOE_FROM_ARG, &err),
           MOE_E_INVAL, "no value is refused");
    is_int(moe_options_set(o, "engine.threads", "1", 9, &err), MOE_E_INVAL,
           "no such source is refused");
    is_int(moe_options_set(o, "engine.threads", "x", MOE_FROM_ARG, NULL),
           MOE_E_INVAL, "an error needs no struct");
    moe_options_free(o);
}

/* Numbers mean the same in every locale. */
static void
test_locale(void)
{
    moe_options *o;

    if (setlocale(LC_ALL, "de_DE.UTF-8") == NULL)
        tap_diag("no German locale here; checked in the C one");
    moe_options_new(&o, &err);
    check_set(o, "generate.temperature", "0.5", NULL);
    ok(moe_option_float(o, "generate.temperature") == 0.5,
       "a point is the decimal mark");
    moe_options_free(o);
    setlocale(LC_ALL, "C");
}

static void
test_precedence(void)
{
    static const struct {
        uint32_t    from;
        const char *value;
    } sources[] = { { MOE_FROM_DEFAULT, "1" },
                    { MOE_FROM_MODEL, "2" },
                    { MOE_FROM_FILE, "3" },
                    { MOE_FROM_ENV, "4" },
                    { MOE_FROM_ARG, "5" } };
    struct moe_option row = { .struct_size = sizeof(row) };
    moe_options      *o, *copy;
    int               i, k, good = 1;

    for (i = 0; i < 5; i++)
        for (k = 0; k < 5; k++) {
            moe_options_new(&o, &err);
            moe_options_set(o, "generate.top_k", sources[i].value,
                            sources[i].from, &err);
            moe_options_set(o, "generate.top_k", sources[k].value,
                            sources[k].from, &err);
            good &= strcmp(moe_options_get(o, "generate.top_k"),
                           sources[i > k ? i : k].value)
                    == 0;
            moe_options_free(o);
        }
    ok(good, "the stronger source wins, whichever comes first");

    moe_options_new(&o, &err);
    moe_options_set(o, "generate.top_k", "7", MOE_FROM_ARG, &err);
    moe_options_set(o, "generate.top_k", "8", MOE_FROM_ARG, &err);
    is_str(moe_options_get(o, "generate.top_k"), "8",
           "of equal sources the later one wins");
    is_int(moe_options_set(o, "generate.top_k", "x", MOE_FROM_MODEL, &err),
           MOE_E_INVAL, "a wrong value is one even where it would lose");
    moe_options_flag(o, "--top-k", &row, &err);
    is_str(row.where, "command line", "the source is known");
    is_int(row.from, MOE_FROM_ARG, "... as a number too");
    is_int(moe_option_from(o, "generate.top_k"), MOE_FROM_ARG,
           "... and inside the library");

    moe_options_set(o, "backend.cpu.isa", "avx2", MOE_FROM_ARG, &err);
    moe_options_set(o, "backend.cpu.isa", "x", MOE_FROM_FILE, &err);
    is_int(moe_options_copy(o, &copy, &err), MOE_OK, "options are copied");
    moe_options_free(o);
    is_str(moe_options_get(copy, "generate.top_k"), "8", "... values");
    is_int(moe_option_from(copy, "generate.top_k"), MOE_FROM_ARG,
           "... sources");
    is_str(moe_options_get(copy, "backend.cpu.isa"), "avx2",
           "... plugins' keys");
    moe_options_free(copy);
}

static void
test_plugin_keys(void)
{
    struct moe_option row = { .struct_size = sizeof(row) };
    moe_options      *o;
    const char       *key, *where;

    moe_options_new(&o, &err);
    is_int(moe_options_unused(o, NULL, &key, &where), MOE_E_NOT_FOUND,
           "nothing is unused at first");
    moe_options_set(o, "backend.cpu.isa", "avx2", MOE_FROM_ARG, &err);
    moe_options_set(o, "quant.int4.search", "1", MOE_FROM_ARG, &err);
    is_int(moe_options_at(o, moe_option_row_count, &row), MOE_OK,
           "a plugin's key is a row behind the table");
    is_str(row.key, "backend.cpu.isa", "... under its name");
    ok(moe_options_plugin(o, "backend.cpu", "threads") == NULL,
       "a key that is not set is not there");
    ok(moe_options_plugin(o, "backend.cp", "u.isa") == NULL,
       "a section is not cut elsewhere");
    is_int(moe_options_unused(o, "backend.cpu", &key, &where), MOE_OK,
           "a key nobody read is unused");
    is_str(key, "isa", "... by its name");
    is_str(where, "command line", "... and place");
    is_str(moe_options_plugin(o, "backend.cpu", "isa"), "avx2",
           "the plugin reads it");
    is_int(moe_options_unused(o, "backend.cpu", &key, &where),
           MOE_E_NOT_FOUND, "... then it is used");
    is_int(moe_options_unused(o, NULL, &key, &where), MOE_OK,
           "another section's is not");
    is_str(key, "quant.int4.search", "... and is named in full");
    moe_options_free(o);
}

static void
test_search_path(void)
{
    moe_options *o;
    char         want[512];
    const char  *fallback;

    moe_options_new(&o, &err);
    fallback = moe_option_rows[moe_row_find("plugin.path")].fallback;
    moe_options_set(o, "plugin.path", "/a:/b", MOE_FROM_ARG, &err);
    is_str(moe_options_get(o, "plugin.path"), "/a:/b", "a path is kept");
    moe_options_set(o, "plugin.path", "/a:", MOE_FROM_ARG, &err);
    snprintf(want, sizeof(want), "/a:%s", fallback);
    is_str(moe_options_get(o, "plugin.path"), want,
           "nothing stands for the installed folder");
    moe_options_set(o, "plugin.path", "", MOE_FROM_ARG, &err);
    is_str(moe_options_get(o, "plugin.path"), fallback, "... alone too");
    moe_options_free(o);
}

static int  n_lines;
static char last_line[64];

static void
take_line(void *ctx, uint32_t level, const char *line)
{
    (void) ctx;
    (void) level;
    n_lines++;
    snprintf(last_line, sizeof(last_line), "%s", line);
}

static void
test_log(void)
{
    moe_options *o;

    moe_options_new(&o, &err);
    moe_options_log(o, 0, "nobody listens");
    moe_options_set_log(o, take_line, NULL);
    moe_options_log(o, 1, "warning %d", 1);
    moe_options_log(o, 2, "info");
    is_int(n_lines, 1, "the level of the log holds");
    is_str(last_line, "warning 1", "... and the line arrives");
    moe_options_set(o, "log.level", "info", MOE_FROM_ARG, &err);
    moe_options_log(o, 2, "info");
    is_int(n_lines, 2, "... and follows log.level");
    moe_options_free(o);
}

int
main(void)
{
    test_table();
    test_types();
    test_locale();
    test_precedence();
    test_plugin_keys();
    test_search_path();
    test_log();
    return tap_done();
}
