/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokcfg.c - read the settings objects of a tokenizer.json.
 *
 * Owns chains of stages and the typed access to json-c objects that the
 * stages' loaders use.  A key that is missing or of the wrong type is the
 * file's fault (MOE_E_CORRUPT); a type name nobody here knows is ours
 * (MOE_E_UNSUPPORTED).
 */
#include "text/tok_int.h"

#include <json.h>

#include "text/unicode.h"

struct moe_stage *
moe_chain_add(struct moe_chain *c, enum moe_stage_kind kind)
{
    struct moe_stage *st;

    if (c->n == c->cap) {
        size_t cap = c->cap + 8;

        st = realloc(c->stage, cap * sizeof(*st));
        if (st == NULL)
            return NULL;
        c->stage = st;
        c->cap = cap;
    }
    st = &c->stage[c->n++];
    memset(st, 0, sizeof(*st));
    st->kind = kind;
    return st;
}

void
moe_chain_free(struct moe_chain *c)
{
    for (size_t i = 0; i < c->n; i++) {
        moe_regex_free(c->stage[i].rx);
        free(c->stage[i].find);
        free(c->stage[i].content);
    }
    free(c->stage);
    memset(c, 0, sizeof(*c));
}

uint64_t
moe_chain_bytes(const struct moe_chain *c)
{
    uint64_t n = c->cap * sizeof(*c->stage);

    for (size_t i = 0; i < c->n; i++)
        n += moe_regex_bytes(c->stage[i].rx) + c->stage[i].find_n
             + c->stage[i].content_n;
    return n;
}

const char *
moe_tok_show(const char *text, size_t n, char *buf)
{
    size_t i = 0, at = 0;

    while (i < n) {
        uint32_t cp = '?';
        int      ok;
        size_t   k = moe_utf8_step(text + i, n - i, &ok);

        if (at + 4 > MOE_TOK_SHOW) {
            memcpy(buf + at, "...", 3);
            at += 3;
            break;
        }
        if (ok == 1)
            moe_utf8_get(text + i, &cp);
        if (cp < 0x20 || (cp >= 0x7f && cp < 0xa0) || cp == 0x2028
            || cp == 0x2029)
            cp = '?';
        at += moe_utf8_put(cp, buf + at);
        i += k;
    }
    buf[at] = '\0';
    return buf;
}

moe_status
moe_cfg_corrupt(const struct moe_tokcfg *cfg, const char *part,
                const char *why)
{
    return moe_fail(cfg->err, MOE_E_CORRUPT, 0,
                    "%s: %s: %s; fetch the file again or save it with the "
                    "tokenizers library", cfg->file, part, why);
}

moe_status
moe_cfg_unsupported(const struct moe_tokcfg *cfg, const char *part,
                    const char *what)
{
    char shown[MOE_TOK_SHOW + 4];

    return moe_fail(cfg->err, MOE_E_UNSUPPORTED, 0,
                    "%s: %s \"%s\" is not supported by moe-run; use a "
                    "model with another tokenizer", cfg->file, part,
                    moe_tok_show(what, strlen(what), shown));
}

moe_status
moe_cfg_nomem(const struct moe_tokcfg *cfg)
{
    return moe_fail(cfg->err, MOE_E_NOMEM, 0,
                    "%s: out of memory while reading the tokenizer",
                    cfg->file);
}

/* "PART: KEY: why" */
static moe_status
bad_key(const struct moe_tokcfg *cfg, const char *part, const char *key,
        const char *why)
{
    char where[160];

    snprintf(where, sizeof(where), "%s: %s", part, key);
    return moe_cfg_corrupt(cfg, where, why);
}

moe_status
moe_cfg_type(const struct moe_tokcfg *cfg, const char *part,
             struct json_object *o, const char **type)
{
    struct json_object *v;

    if (!json_object_is_type(o, json_type_object))
        return moe_cfg_corrupt(cfg, part, "not an object");
    if (!json_object_object_get_ex(o, "type", &v)
        || !json_object_is_type(v, json_type_string))
        return bad_key(cfg, part, "type", "missing or not a string");
    *type = json_object_get_string(v);
    return MOE_OK;
}

moe_status
moe_cfg_bool(const struct moe_tokcfg *cfg, const char *part,
             struct json_object *o, const char *key, int dflt, int *out)
{
    struct json_object *v;

    if (!json_object_object_get_ex(o, key, &v)
        || (v == NULL && dflt >= 0)) {
        *out = dflt;
        return dflt >= 0 ? MOE_OK : bad_key(cfg, part, key, "missing");
    }
    if (!json_object_is_type(v, json_type_boolean))
        return bad_key(cfg, part, key, "neither true nor false");
    *out = json_object_get_boolean(v);
    return MOE_OK;
}

moe_status
moe_cfg_int(const struct moe_tokcfg *cfg, const char *part,
            struct json_object *o, const char *key, int *out)
{
    struct json_object *v;
    int64_t             n;

    if (!json_object_object_get_ex(o, key, &v)
        || !json_object_is_type(v, json_type_int))
        return bad_key(cfg, part, key, "missing or not a number");
    n = json_object_get_int64(v);
    if (n < 0 || n > 1000000)
        return bad_key(cfg, part, key, "out of range");
    *out = (int) n;
    return MOE_OK;
}

static moe_status
copy(const struct moe_tokcfg *cfg, struct json_object *v, char **out,
     size_t *n)
{
    size_t len = (size_t) json_object_get_string_len(v);
    char  *p = malloc(len + 1);

    if (p == NULL)
        return moe_cfg_nomem(cfg);
    memcpy(p, json_object_get_string(v), len + 1);
    free(*out);
    *out = p;
    *n = len;
    return MOE_OK;
}

moe_status
moe_cfg_string(const struct moe_tokcfg *cfg, const char *part,
               struct json_object *o, const char *key, int chars, char **out,
               size_t *n)
{
    struct json_object *v;
    const char         *s;
    size_t              len;

    if (!json_object_object_get_ex(o, key, &v)
        || !json_object_is_type(v, json_type_string))
        return bad_key(cfg, part, key, "missing or not a string");
    s = json_object_get_string(v);
    len = (size_t) json_object_get_string_len(v);
    if (chars == 1 && (len == 0 || moe_utf8_len(s[0]) != len))
        return bad_key(cfg, part, key, "not a single character");
    return copy(cfg, v, out, n);
}

moe_status
moe_cfg_pattern(const struct moe_tokcfg *cfg, const char *part,
                struct json_object *o, struct moe_stage *st)
{
    struct json_object *p, *v;
    char                what[160];
    int                 jit = !(cfg->flags & MOE_TOK_NO_JIT);

    snprintf(what, sizeof(what), "%s: %s", cfg->file, part);
    if (!json_object_object_get_ex(o, "pattern", &p)
        || !json_object_is_type(p, json_type_object))
        return bad_key(cfg, part, "pattern", "missing or not an object");
    if (json_object_object_get_ex(p, "Regex", &v)
        && json_object_is_type(v, json_type_string))
        return moe_regex_compile(json_object_get_string(v),
                                 (size_t) json_object_get_string_len(v), jit,
                                 what, &st->rx, cfg->err);
    if (!json_object_object_get_ex(p, "String", &v)
        || !json_object_is_type(v, json_type_string))
        return bad_key(cfg, part, "pattern", "neither String nor Regex");
    if (json_object_get_string_len(v) == 0) /* matches between characters */
        return moe_regex_compile("", 0, jit, what, &st->rx, cfg->err);
    return copy(cfg, v, &st->find, &st->find_n);
}

moe_status
moe_cfg_each(const struct moe_tokcfg *cfg, const char *part,
             struct json_object *o, const char *key,
             moe_status (*one)(const struct moe_tokcfg *cfg,
                               struct json_object *o, const char *type,
                               struct moe_chain *chain),
             struct moe_chain *chain)
{
    struct json_object *list;
    const char         *type;
    moe_status          s;

    if (o == NULL)
        return MOE_OK;
    s = moe_cfg_type(cfg, part, o, &type);
    if (s != MOE_OK)
        return s;
    if (strcmp(type, "Sequence") != 0)
        return one(cfg, o, type, chain);
    if (!json_object_object_get_ex(o, key, &list)
        || !json_object_is_type(list, json_type_array))
        return bad_key(cfg, part, key, "missing or not a list");
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *item = json_object_array_get_idx(list, i);

        if (item == NULL)
            return bad_key(cfg, part, key, "holds null");
        s = moe_cfg_each(cfg, part, item, key, one, chain);
        if (s != MOE_OK)
            return s;
    }
    return MOE_OK;
}
