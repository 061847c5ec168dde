/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pretok.c - pre-tokenizers: a text cut into words.
 *
 * Owns the cutting.  Each pre-tokenizer works on one piece without regard to
 * its neighbours, so the chain runs depth first: a piece goes through all
 * later stages and through BPE before the next one is cut, and no list of
 * pieces exists.  Buffers belong to a stage, not to a piece.
 *
 * `zero` as in normal.c: how many leading bytes of the piece come from the
 * first character of the whole input.
 */
#include "text/tok_int.h"

#include <json.h>

#include "text/unicode.h"

#define GPT2_PATTERN                                                          \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+"      \
    "|\\s+(?!\\S)|\\s+"

/* Matches and the gaps between them arrive in order; pieces leave. */
struct cutter {
    struct moe_encode *e;
    const char        *text;
    size_t             zero;
    size_t             next;  /* stage that takes the pieces              */
    enum moe_behavior  behavior;
    int                map;   /* ByteLevel: bytes become characters first */
    struct moe_buf    *mapped;
    size_t             start, end; /* held back */
    int                held, last_match;
};

static moe_status
emit(struct cutter *c, size_t start, size_t end)
{
    size_t zero = c->zero > start ? c->zero - start : 0, mapped_zero = 0;

    if (start == end)
        return MOE_OK;
    if (zero > end - start)
        zero = end - start;
    if (!c->map)
        return moe_pretok_run(c->e, c->next, c->text + start, end - start,
                              zero);
    c->mapped->n = 0;
    for (size_t i = start; i < end; i++) {
        char   buf[4];
        size_t n = moe_utf8_put(moe_byte_char((uint8_t) c->text[i]), buf);

        if (!moe_buf_add(c->mapped, buf, n))
            return moe_encode_nomem(c->e);
        if (i - start + 1 == zero)
            mapped_zero = c->mapped->n;
    }
    if (c->mapped->n > c->e->limit)
        return moe_encode_too_long(c->e);
    return moe_pretok_run(c->e, c->next, c->mapped->p, c->mapped->n,
                          mapped_zero);
}

/* Hold [start, end), letting go of what was held. */
static moe_status
hold(struct cutter *c, size_t start, size_t end)
{
    size_t from = c->start, to = c->end;
    int    had = c->held;

    c->start = start;
    c->end = end;
    c->held = 1;
    return had ? emit(c, from, to) : MOE_OK;
}

static moe_status
feed(struct cutter *c, size_t start, size_t end, int match)
{
    moe_status s = MOE_OK;
    int        last = c->last_match;

    c->last_match = match;
    switch (c->behavior) {
    case MOE_SPLIT_REMOVED:
        return match ? MOE_OK : emit(c, start, end);
    case MOE_SPLIT_ISOLATED:
        return emit(c, start, end);
    case MOE_SPLIT_CONTIGUOUS:
        if (match == last && c->held)
            c->end = end;
        else
            s = hold(c, start, end);
        return s;
    case MOE_SPLIT_PREVIOUS:
        if (match && !last && c->held)
            c->end = end;
        else
            s = hold(c, start, end);
        return s;
    case MOE_SPLIT_NEXT:
        /* a match waits for the text behind it */
        if (!match && last && c->held) {
            c->held = 0;
            return emit(c, c->start, end);
        }
        if (match)
            return hold(c, start, end);
        return emit(c, start, end);
    }
    return s;
}

static moe_status
finish(struct cutter *c)
{
    if (!c->held)
        return MOE_OK;
    c->held = 0;
    return emit(c, c->start, c->end);
}

/* Cut by a pattern, literal or not. */
static moe_status
cut_pattern(struct cutter *c, const struct moe_stage *st, size_t n)
{
    struct moe_rxiter it = {0};
    size_t            last = 0;
    moe_status        s;

    for (;;) {
        size_t start = 0, end = 0;
        int    found;

        s = moe_stage_next(st, &c->e->rx, c->text, n, c->e->exact, &it,
                           &found, &start, &end, c->e->err);
        if (s != MOE_OK)
            return s;
        if (!found)
            break;
        if (last != start) {
            s = feed(c, last, start, st->invert);
            if (s != MOE_OK)
                return s;
        }
        s = feed(c, start, end, !st->invert);
        if (s != MOE_OK)
            return s;
        last = end;
    }
    if (last != n) {
        s = feed(c, last, n, st->invert);
        if (s != MOE_OK)
            return s;
    }
    return finish(c);
}

/* Cut where single characters match. */
static moe_status
cut_chars(struct cutter *c, int (*is)(uint32_t cp), size_t n)
{
    size_t     last = 0, i = 0;
    moe_status s;

    while (i < n) {
        uint32_t cp;
        size_t   k = moe_utf8_get(c->text + i, &cp);

        if (is(cp)) {
            if (last < i) {
                s = feed(c, last, i, 0);
                if (s != MOE_OK)
                    return s;
            }
            s = feed(c, i, i + k, 1);
            if (s != MOE_OK)
                return s;
            last = i + k;
        }
        i += k;
    }
    if (last < n) {
        s = feed(c, last, n, 0);
        if (s != MOE_OK)
            return s;
    }
    return finish(c);
}

/* \w+|[^\w\s]+ , what lies between them dropped. */
static moe_status
cut_words(struct cutter *c, size_t n)
{
    size_t     start = 0, i = 0;
    int        kind = 0; /* 0 white, 1 word, 2 other */
    moe_status s;

    while (i < n) {
        uint32_t cp;
        size_t   k = moe_utf8_get(c->text + i, &cp);
        int      now = moe_uni_is_white(cp) ? 0 : moe_uni_is_word(cp) ? 1 : 2;

        if (now != kind) {
            if (kind != 0) {
                s = emit(c, start, i);
                if (s != MOE_OK)
                    return s;
            }
            start = i;
            kind = now;
        }
        i += k;
    }
    return kind != 0 ? emit(c, start, n) : MOE_OK;
}

/* Spaces become the replacement character, one may be put in front, and each
 * starts a piece. */
static moe_status
cut_meta(struct cutter *c, const struct moe_stage *st, size_t n)
{
    struct moe_buf *b = c->mapped;
    size_t          z = 0, last = 0;
    int             match = 0;
    moe_status      s;

    b->n = 0;
    if ((st->prefix == 2 || (st->prefix == 1 && c->zero != 0))
        && c->text[0] != ' '
        && (n < st->content_n
            || memcmp(c->text, st->content, st->content_n) != 0)
        && !moe_buf_add(b, st->content, st->content_n))
        return moe_encode_nomem(c->e);
    for (size_t i = 0; i < n; i++) {
        if (!(c->text[i] == ' '
                  ? moe_buf_add(b, st->content, st->content_n)
                  : moe_buf_add(b, c->text + i, 1)))
            return moe_encode_nomem(c->e);
        if (i + 1 == c->zero)
            z = b->n;
    }
    if (b->n > c->e->limit)
        return moe_encode_too_long(c->e);
    c->text = b->p;
    c->zero = z;
    if (!st->split)
        return emit(c, 0, b->n);
    n = b->n;
    for (size_t i = 0; i < n;) {
        if (n - i < st->content_n
            || memcmp(b->p + i, st->content, st->content_n) != 0) {
            i += moe_utf8_len(b->p[i]);
            continue;
        }
        if (match || last != i) {
            s = emit(c, last, i);
            if (s != MOE_OK)
                return s;
        }
        last = i;
        match = 1;
        i += st->content_n;
    }
    return emit(c, last, n);
}

static moe_status
cut_bytes(struct cutter *c, const struct moe_stage *st, size_t n)
{
    struct moe_buf *b = c->mapped + 1;

    c->map = 1;
    if (st->prefix && c->text[0] != ' ') {
        b->n = 0;
        if (!moe_buf_add(b, " ", 1) || !moe_buf_add(b, c->text, n))
            return moe_encode_nomem(c->e);
        c->text = b->p;
        n++;
        if (c->zero != 0)
            c->zero++;
    }
    if (st->rx == NULL)
        return emit(c, 0, n);
    return cut_pattern(c, st, n);
}

moe_status
moe_pretok_run(struct moe_encode *e, size_t i, const char *text, size_t n,
               size_t zero)
{
    const struct moe_chain *chain = &e->tok->pre;
    const struct moe_stage *st;
    struct cutter           c;

    if (n == 0)
        return MOE_OK;
    if (i == chain->n)
        return moe_bpe_word(e, text, n);
    st = &chain->stage[i];
    memset(&c, 0, sizeof(c));
    c.e = e;
    c.text = text;
    c.zero = zero;
    c.next = i + 1;
    c.behavior = st->behavior;
    c.mapped = &e->stage[2 * i];
    switch (st->kind) {
    case MOE_PRE_BYTES:
        return cut_bytes(&c, st, n);
    case MOE_PRE_SPLIT:
        return cut_pattern(&c, st, n);
    case MOE_PRE_DIGITS:
        return cut_chars(&c, moe_uni_is_numeric, n);
    case MOE_PRE_META:
        return cut_meta(&c, st, n);
    case MOE_PRE_WORDS:
        return cut_words(&c, n);
    case MOE_PRE_WHITE:
        return cut_chars(&c, moe_uni_is_white, n);
    case MOE_PRE_PUNCT:
        return cut_chars(&c, moe_uni_is_punct, n);
    default:
        return moe_fail(e->err, MOE_E_INTERNAL, 0,
                        "tokenizer: a stage of the wrong kind");
    }
}

/* --- settings ----------------------------------------------------------- */

static moe_status
load_behavior(const struct moe_tokcfg *cfg, const char *part,
              struct json_object *o, int required, enum moe_behavior *out)
{
    static const char *const names[] = {"Removed", "Isolated",
                                        "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    struct json_object *v;
    const char         *name;

    *out = MOE_SPLIT_ISOLATED;
    if (!json_object_object_get_ex(o, "behavior", &v) && !required)
        return MOE_OK;
    name = json_object_is_type(v, json_type_string) ? json_object_get_string(v)
                                                    : "";
    for (int i = 0; i < 5; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum moe_behavior) i;
            return MOE_OK;
        }
    return moe_cfg_corrupt(cfg, part, "behavior is none of the five");
}

moe_status
moe_cfg_meta(const struct moe_tokcfg *cfg, const char *part,
             struct json_object *o, struct moe_stage *st)
{
    struct json_object *v;
    const char         *scheme = "always";
    int                 add;
    moe_status          s;

    s = moe_cfg_string(cfg, part, o, "replacement", 1, &st->content,
                       &st->content_n);
    if (s != MOE_OK)
        return s;
    s = moe_cfg_bool(cfg, part, o, "split", 1, &st->split);
    if (s != MOE_OK)
        return s;
    if (json_object_object_get_ex(o, "prepend_scheme", &v))
        scheme = json_object_is_type(v, json_type_string)
                     ? json_object_get_string(v)
                     : "";
    if (strcmp(scheme, "always") == 0)
        st->prefix = 2;
    else if (strcmp(scheme, "first") == 0)
        st->prefix = 1;
    else if (strcmp(scheme, "never") != 0)
        return moe_cfg_corrupt(cfg, part,
                               "prepend_scheme is not first, never or always");
    s = moe_cfg_bool(cfg, part, o, "add_prefix_space", 1, &add);
    if (s == MOE_OK && !add && st->prefix != 0)
        return moe_cfg_corrupt(cfg, part, "add_prefix_space and "
                                          "prepend_scheme disagree");
    return s;
}

moe_status
moe_pretok_load(const struct moe_tokcfg *cfg, struct json_object *o,
                const char *type, struct moe_chain *chain)
{
    static const struct {
        const char         *type;
        enum moe_stage_kind kind;
    } kinds[] = {
        {"ByteLevel", MOE_PRE_BYTES},  {"Split", MOE_PRE_SPLIT},
        {"Digits", MOE_PRE_DIGITS},    {"Metaspace", MOE_PRE_META},
        {"Whitespace", MOE_PRE_WORDS}, {"WhitespaceSplit", MOE_PRE_WHITE},
        {"Punctuation", MOE_PRE_PUNCT},
    };
    struct moe_stage *st = NULL;
    moe_status        s = MOE_OK;
    int               flag;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(type, kinds[i].type) != 0)
            continue;
        st = moe_chain_add(chain, kinds[i].kind);
        if (st == NULL)
            return moe_cfg_nomem(cfg);
        break;
    }
    if (st == NULL)
        return moe_cfg_unsupported(cfg, "pre_tokenizer", type);
    st->behavior = MOE_SPLIT_ISOLATED;
    switch (st->kind) {
    case MOE_PRE_BYTES:
        s = moe_cfg_bool(cfg, "pre_tokenizer ByteLevel", o,
                         "add_prefix_space", -1, &st->prefix);
        if (s == MOE_OK)
            s = moe_cfg_bool(cfg, "pre_tokenizer ByteLevel", o, "use_regex",
                             1, &flag);
        if (s == MOE_OK && flag)
            s = moe_regex_compile(GPT2_PATTERN, strlen(GPT2_PATTERN),
                                  !(cfg->flags & MOE_TOK_NO_JIT),
                                  "pre_tokenizer ByteLevel", &st->rx,
                                  cfg->err);
        break;
    case MOE_PRE_SPLIT:
        s = moe_cfg_pattern(cfg, "pre_tokenizer Split", o, st);
        if (s == MOE_OK)
            s = load_behavior(cfg, "pre_tokenizer Split", o, 1,
                              &st->behavior);
        if (s == MOE_OK)
            s = moe_cfg_bool(cfg, "pre_tokenizer Split", o, "invert", -1,
                             &st->invert);
        break;
    case MOE_PRE_DIGITS:
        s = moe_cfg_bool(cfg, "pre_tokenizer Digits", o, "individual_digits",
                         -1, &st->split);
        st->behavior = st->split ? MOE_SPLIT_ISOLATED : MOE_SPLIT_CONTIGUOUS;
        break;
    case MOE_PRE_META:
        s = moe_cfg_meta(cfg, "pre_tokenizer Metaspace", o, st);
        break;
    case MOE_PRE_WHITE:
        st->behavior = MOE_SPLIT_REMOVED;
        break;
    case MOE_PRE_PUNCT:
        s = load_behavior(cfg, "pre_tokenizer Punctuation", o, 0,
                          &st->behavior);
        break;
    default:
        break;
    }
    return s;
}
