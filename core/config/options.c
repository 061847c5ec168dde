/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options.c - a set of options: each row's value and where it came from.
 *
 * Owns the values and their precedence.  Leaves the syntax of a value to
 * value.c, files to ini.c, variables to env.c and the rows to table.c.
 *
 * Every value has a text and a parsed form from the moment it is set, so a
 * wrong one is reported where it was written, and reads cannot fail.
 */
#include "config/options.h"
#include "config/store.h"
#include "support/near.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

moe_status
moe_options_new(moe_options **out, struct moe_error *err)
{
    moe_options *o = calloc(1, sizeof(*o));
    moe_status   status;
    size_t       i;

    if (o == NULL)
        goto no_memory;
    o->slots = calloc(moe_option_row_count, sizeof(*o->slots));
    if (o->slots == NULL)
        goto no_memory;
    o->c = newlocale(LC_ALL_MASK, "C", (locale_t) 0);
    if (o->c == (locale_t) 0)
        goto no_memory;
    for (i = 0; i < moe_option_row_count; i++) {
        const struct moe_option_row *row = &moe_option_rows[i];

        status = moe_options_put(o, row->key, row->fallback,
                                 MOE_RANK(MOE_FROM_DEFAULT, 0), row->key,
                                 "built-in", err);
        if (status != MOE_OK) {
            moe_options_free(o);
            return status;
        }
    }
    *out = o;
    return MOE_OK;

no_memory:
    moe_options_free(o);
    return moe_fail(err, MOE_E_NOMEM, errno, "options: out of memory");
}

void
moe_options_free(moe_options *o)
{
    size_t i;

    if (o == NULL)
        return;
    for (i = 0; o->slots != NULL && i < moe_option_row_count; i++) {
        free(o->slots[i].text);
        free(o->slots[i].where);
        moe_value_clear(&o->slots[i].value);
    }
    free(o->slots);
    for (i = 0; i < o->n_extra; i++) {
        free(o->extra[i].key);
        free(o->extra[i].text);
        free(o->extra[i].where);
    }
    free(o->extra);
    if (o->c != (locale_t) 0)
        freelocale(o->c);
    free(o);
}

void
moe_options_set_log(moe_options *o, moe_log_fn fn, void *ctx)
{
    o->log = fn;
    o->log_ctx = ctx;
}

/* -------------------------------------------------------------- setting -- */

/* The length of "section" in "section.name": up to the last dot. */
static size_t
section_length(const char *key)
{
    const char *dot = strrchr(key, '.');

    return dot != NULL ? (size_t) (dot - key) : 0;
}

static moe_status
unknown_key(const char *key, const char *place, struct moe_error *err)
{
    const char        *name = key + section_length(key);
    struct moe_nearest near = { key, NULL, 0 };
    size_t             i;

    name += *name == '.';
    for (i = 0; i < moe_option_row_count; i++) {
        const char *known = moe_option_rows[i].key;
        const char *short_name = strrchr(known, '.') + 1;

        moe_nearest_try(&near, known);
        /* the right name in the wrong section */
        if (near.best == NULL && strcmp(short_name, name) == 0)
            near.best = known, near.distance = 3;
    }
    if (near.best != NULL)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "%s: there is no option '%.80s'; did you mean '%s'?",
                        place, key, near.best);
    return moe_fail(err, MOE_E_INVAL, 0,
                    "%s: there is no option '%.80s'; 'moe-run config' lists "
                    "them",
                    place, key);
}

static moe_status
put_extra(moe_options *o, const char *key, size_t section, const char *value,
          uint32_t rank, const char *where, struct moe_error *err)
{
    struct moe_extra *e = NULL;
    char             *text, *at, *name;
    size_t            i;

    for (i = 0; i < o->n_extra && e == NULL; i++)
        if (strcmp(o->extra[i].key, key) == 0)
            e = &o->extra[i];
    if (e != NULL && rank < e->rank)
        return MOE_OK;
    text = strdup(value);
    at = strdup(where);
    if (text == NULL || at == NULL)
        goto no_memory;
    if (e == NULL) {
        struct moe_extra *grown
            = realloc(o->extra, (o->n_extra + 1) * sizeof(*grown));

        if (grown == NULL)
            goto no_memory;
        o->extra = grown;
        name = strdup(key);
        if (name == NULL)
            goto no_memory;
        e = &o->extra[o->n_extra++];
        memset(e, 0, sizeof(*e));
        e->key = name;
        e->section = section;
    }
    free(e->text);
    free(e->where);
    e->text = text;
    e->where = at;
    e->rank = rank;
    return MOE_OK;

no_memory:
    free(text);
    free(at);
    return moe_fail(err, MOE_E_NOMEM, errno, "options: out of memory");
}

/* "a::b" with the built-in folders in place of nothing; NULL: no memory. */
static char *
expand_search(const char *value, const char *fallback)
{
    size_t      n = 1;
    const char *p;
    char       *text, *to;

    for (p = value; *p != '\0'; p++)
        n += *p == ':';
    text = malloc(strlen(value) + n * strlen(fallback) + 1);
    if (text == NULL)
        return NULL;
    for (p = value, to = text;; p++) {
        size_t len = strcspn(p, ":");

        if (len == 0)
            to = stpcpy(to, fallback);
        else
            to = mempcpy(to, p, len);
        p += len;
        if (*p == '\0')
            break;
        *to++ = ':';
    }
    *to = '\0';
    return text;
}

/* The first file name of a value that is not absolute, or NULL. */
static const char *
relative_name(const struct moe_option_row *row, const char *text,
              const struct moe_value *v)
{
    size_t      i;
    const char *p;

    for (i = 0; i < v->n_items; i++)
        if (v->items[i][0] != '/')
            return v->items[i];
    if (strcmp(row->type, "list") == 0 || text[0] == '\0')
        return NULL;
    if ((row->bits & MOE_ROW_SEARCH) == 0)
        return text[0] == '/' ? NULL : text;
    for (p = text; *p == '/'; p++) {
        p += strcspn(p, ":");
        if (*p == '\0')
            return NULL;
    }
    return p;
}

moe_status
moe_options_put(moe_options *o, const char *key, const char *value,
                uint32_t rank, const char *place, const char *where,
                struct moe_error *err)
{
    long                         i = moe_row_find(key);
    const struct moe_option_row *row;
    struct moe_slot             *slot;
    struct moe_value             parsed;
    const char                  *relative;
    char                        *text = NULL, *at = NULL;
    moe_status                   status;

    if (i < 0) {
        char   section[64];
        size_t len = section_length(key);

        if (len > 0 && len < sizeof(section) && key[len + 1] != '\0') {
            memcpy(section, key, len);
            section[len] = '\0';
            if (moe_section_is_free(section))
                return put_extra(o, key, len, value, rank, where, err);
        }
        return unknown_key(key, place, err);
    }
    row = &moe_option_rows[i];
    slot = &o->slots[i];
    /* even a value that does not win has to be right */
    status = moe_value_parse(row, value, place, o->c, &parsed, err);
    if (status != MOE_OK)
        return status;
    if ((row->bits & MOE_ROW_SEARCH) != 0)
        text = expand_search(value, row->fallback);
    else
        text = strdup(value);
    at = strdup(where);
    if (text == NULL || at == NULL) {
        status = moe_fail(err, MOE_E_NOMEM, errno, "options: out of memory");
        goto drop;
    }
    if ((row->bits & MOE_ROW_FILES) != 0
        && rank / 8u == MOE_FROM_FILE
        && (relative = relative_name(row, text, &parsed)) != NULL) {
        status = moe_fail(err, MOE_E_INVAL, 0,
                          "%s: '%.160s' does not start with '/'; in a file "
                          "the whole path is needed",
                          place, relative);
        goto drop;
    }
    if (slot->text != NULL && rank < slot->rank)
        goto drop; /* a stronger source has spoken; status is MOE_OK */
    free(slot->text);
    free(slot->where);
    moe_value_clear(&slot->value);
    slot->text = text;
    slot->where = at;
    slot->rank = rank;
    slot->value = parsed;
    return MOE_OK;

drop:
    free(text);
    free(at);
    moe_value_clear(&parsed);
    return status;
}

moe_status
moe_options_set(moe_options *o, const char *key, const char *value,
                uint32_t from, struct moe_error *err)
{
    char        place[128];
    const char *where;
    long        i;
    uint32_t    inner = 0;

    if (key == NULL || value == NULL || from > MOE_FROM_ARG)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "moe_options_set: no key, no value or no such source");
    i = moe_row_find(key);
    snprintf(place, sizeof(place), "%.120s", key);
    switch (from) {
    case MOE_FROM_ARG:
        where = "command line";
        if (i >= 0) { /* people know the flag, not the key */
            const char *flag = strstr(moe_option_rows[i].flags, "--");

            if (flag != NULL)
                snprintf(place, sizeof(place), "%.*s",
                         (int) strcspn(flag, " "), flag);
        }
        break;
    case MOE_FROM_ENV:
        where = i >= 0 ? moe_option_rows[i].env : "environment";
        snprintf(place, sizeof(place), "%s", i >= 0 ? where : key);
        break;
    case MOE_FROM_FILE:
        where = "set by the program";
        inner = MOE_FILE_NAMED;
        break;
    case MOE_FROM_MODEL:
        where = "generation_config.json"; /* which the caller names */
        break;
    default:
        where = "built-in";
        break;
    }
    return moe_options_put(o, key, value, MOE_RANK(from, inner), place, where,
                           err);
}

moe_status
moe_options_load(moe_options *o, const char *path, struct moe_error *err)
{
    return moe_ini_load(o, path, MOE_RANK(MOE_FROM_FILE, MOE_FILE_NAMED), 0,
                        err);
}

moe_status
moe_options_copy(const moe_options *o, moe_options **out,
                 struct moe_error *err)
{
    moe_options *copy;
    moe_status   status = moe_options_new(&copy, err);
    size_t       i;

    if (status != MOE_OK)
        return status;
    copy->log = o->log;
    copy->log_ctx = o->log_ctx;
    for (i = 0; i < moe_option_row_count && status == MOE_OK; i++) {
        const struct moe_slot *from = &o->slots[i];

        status = moe_options_put(copy, moe_option_rows[i].key, from->text,
                                 from->rank, from->where, from->where, err);
    }
    for (i = 0; i < o->n_extra && status == MOE_OK; i++) {
        const struct moe_extra *from = &o->extra[i];

        status = put_extra(copy, from->key, from->section, from->text,
                           from->rank, from->where, err);
    }
    if (status != MOE_OK) {
        moe_options_free(copy);
        return status;
    }
    *out = copy;
    return MOE_OK;
}

/* -------------------------------------------------------------- reading -- */

static const struct moe_slot *
slot_of(const moe_options *o, const char *key)
{
    long i = moe_row_find(key);

    return i >= 0 ? &o->slots[i] : NULL;
}

static const struct moe_extra *
extra_of(const moe_options *o, const char *key)
{
    size_t i;

    for (i = 0; i < o->n_extra; i++)
        if (strcmp(o->extra[i].key, key) == 0)
            return &o->extra[i];
    return NULL;
}

const char *
moe_options_get(const moe_options *o, const char *key)
{
    const struct moe_slot  *slot = slot_of(o, key);
    const struct moe_extra *e;

    if (slot != NULL)
        return slot->text;
    e = extra_of(o, key);
    return e != NULL ? e->text : NULL;
}

int64_t
moe_option_int(const moe_options *o, const char *key)
{
    const struct moe_slot *slot = slot_of(o, key);

    return slot != NULL ? slot->value.i : 0;
}

double
moe_option_float(const moe_options *o, const char *key)
{
    const struct moe_slot *slot = slot_of(o, key);

    return slot != NULL ? slot->value.f : 0;
}

int
moe_option_bool(const moe_options *o, const char *key)
{
    return moe_option_int(o, key) != 0;
}

uint64_t
moe_option_size(const moe_options *o, const char *key)
{
    const struct moe_slot *slot = slot_of(o, key);

    return slot != NULL ? slot->value.bytes : 0;
}

double
moe_option_percent(const moe_options *o, const char *key)
{
    const struct moe_slot *slot = slot_of(o, key);

    return slot != NULL ? slot->value.percent : 0;
}

const char *
moe_option_text(const moe_options *o, const char *key)
{
    const struct moe_slot *slot = slot_of(o, key);

    return slot != NULL ? slot->text : "";
}

const char *const *
moe_option_list(const moe_options *o, const char *key, size_t *n)
{
    const struct moe_slot *slot = slot_of(o, key);

    *n = slot != NULL ? slot->value.n_items : 0;
    return slot != NULL ? (const char *const *) slot->value.items : NULL;
}

uint32_t
moe_option_from(const moe_options *o, const char *key)
{
    const struct moe_slot *slot = slot_of(o, key);

    return slot != NULL ? slot->rank / 8u : MOE_FROM_DEFAULT;
}

const char *
moe_options_plugin(const moe_options *o, const char *section, const char *key)
{
    size_t len = strlen(section), i;

    for (i = 0; i < o->n_extra; i++) {
        struct moe_extra *e = &o->extra[i];

        if (e->section == len && strncmp(e->key, section, len) == 0
            && strcmp(e->key + len + 1, key) == 0) {
            __atomic_store_n(&e->used, 1, __ATOMIC_RELAXED);
            return e->text;
        }
    }
    return NULL;
}

moe_status
moe_options_unused(const moe_options *o, const char *section, const char **key,
                   const char **where)
{
    size_t len = section != NULL ? strlen(section) : 0, i;

    for (i = 0; i < o->n_extra; i++) {
        struct moe_extra *e = &o->extra[i];

        if (section != NULL
            && (e->section != len || strncmp(e->key, section, len) != 0))
            continue;
        if (__atomic_load_n(&e->used, __ATOMIC_RELAXED))
            continue;
        *key = section != NULL ? e->key + len + 1 : e->key;
        *where = e->where;
        return MOE_OK;
    }
    return MOE_E_NOT_FOUND;
}

/* Rows as the public API shows them. */

static moe_status
give(const struct moe_option *row, struct moe_option *out)
{
    uint32_t size = out->struct_size;

    if (size < sizeof(uint32_t))
        return MOE_E_INVAL;
    if (size > sizeof(*row))
        size = sizeof(*row);
    memcpy(out, row, size);
    out->struct_size = size;
    return MOE_OK;
}

moe_status
moe_options_at(const moe_options *o, size_t i, struct moe_option *out)
{
    struct moe_option row;

    memset(&row, 0, sizeof(row));
    if (i < moe_option_row_count) {
        const struct moe_option_row *known = &moe_option_rows[i];

        row.key = known->key;
        row.type = known->type;
        row.flags = known->flags;
        row.env = known->env;
        row.fallback = known->fallback;
        row.range = known->range;
        row.help = known->help;
        row.value = o->slots[i].text;
        row.where = o->slots[i].where;
        row.from = o->slots[i].rank / 8u;
    } else if (i - moe_option_row_count < o->n_extra) {
        const struct moe_extra *e = &o->extra[i - moe_option_row_count];

        row.key = e->key;
        row.type = "string";
        row.flags = row.env = row.fallback = row.range = "";
        row.help = "Read by the plugin";
        row.value = e->text;
        row.where = e->where;
        row.from = e->rank / 8u;
    } else {
        return MOE_E_NOT_FOUND;
    }
    return give(&row, out);
}

moe_status
moe_options_flag(const moe_options *o, const char *flag,
                 struct moe_option *out, struct moe_error *err)
{
    long               i = moe_row_by_flag(flag);
    struct moe_nearest near = { flag, NULL, 0 };
    char               words[256], *word, *rest;
    char               best[64] = "";
    size_t             row;

    if (i >= 0) {
        if (moe_options_at(o, (size_t) i, out) != MOE_OK)
            return moe_fail(err, MOE_E_INVAL, 0,
                            "moe_options_flag: struct_size is not set");
        return MOE_OK;
    }
    for (row = 0; row < moe_option_row_count; row++) {
        snprintf(words, sizeof(words), "%s", moe_option_rows[row].flags);
        for (word = strtok_r(words, " ", &rest); word != NULL;
             word = strtok_r(NULL, " ", &rest)) {
            if (strncmp(word, "--", 2) != 0)
                continue;
            moe_nearest_try(&near, word);
            if (near.best == word) { /* words goes away */
                snprintf(best, sizeof(best), "%s", word);
                near.best = best;
            }
        }
    }
    if (near.best != NULL)
        return moe_fail(err, MOE_E_NOT_FOUND, 0,
                        "there is no flag '%.80s'; did you mean '%s'?", flag,
                        near.best);
    return moe_fail(err, MOE_E_NOT_FOUND, 0, "there is no flag '%.80s'", flag);
}

/* ------------------------------------------------------------------ log -- */

void
moe_options_log(const moe_options *o, uint32_t level, const char *fmt, ...)
{
    char    line[1024];
    va_list args;

    /* the words of log.level are in the order of MOE_LOG_* */
    if (o->log == NULL || (int64_t) level > moe_option_int(o, "log.level"))
        return;
    va_start(args, fmt);
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    o->log(o->log_ctx, level, line);
}
