/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decode.c - ids to text, all at once or as they come.
 *
 * Owns the chain of decoders.  There is one implementation: a whole decode is
 * a stream that is pushed to its end, so both give the same bytes by
 * construction.  A stage receives tokens (a list in the reference) and, after
 * ByteLevel or Fuse have joined them, fragments of one long token; it passes
 * on what no later input can change and holds the rest:
 *
 *   ByteLevel     an incomplete UTF-8 sequence
 *   ByteFallback  a run of <0xXX> tokens (one bad byte spoils the whole run)
 *   Strip, Replace on joined text   what may be stripped or begin a match
 *   a pattern on joined text        everything
 *
 * Fragments are always whole characters.
 */
#include "text/tok_int.h"

#include <json.h>

#include "text/unicode.h"

struct step {
    const struct moe_stage *st;
    int            joined;  /* its input is one token in fragments  */
    int            collect; /* it can only work on the whole        */
    struct moe_buf hold;
    size_t         index;   /* tokens so far                        */
    size_t         left;    /* Strip: characters it may still take  */
    size_t         right;   /* Strip: characters held back          */
};

struct moe_detok {
    const struct moe_tokenizer *tok;
    struct moe_error           *err;
    uint32_t                    flags;
    struct step                *step;
    size_t                      n, tokens;
    size_t                      taken;  /* bytes of the tokens so far     */
    size_t                      passed; /* bytes that any stage took in   */
    struct moe_rxwork           rx;
    struct moe_buf              out, work;
};

static moe_status push(struct moe_detok *d, size_t i, const char *text,
                       size_t n);

static moe_status
nomem(struct moe_detok *d)
{
    return moe_fail(d->err, MOE_E_NOMEM, 0,
                    "tokenizer: out of memory while decoding");
}

static moe_status
too_long(struct moe_detok *d)
{
    return moe_fail(d->err, MOE_E_UNSUPPORTED, 0,
                    "tokenizer: its decoder makes more than %zu bytes of %zu; "
                    "use another tokenizer", MOE_GROWTH(d->taken), d->taken);
}

/* --- ByteLevel ---------------------------------------------------------- */

/* Pass on what is decided; at the end an incomplete rest is U+FFFD too. */
static moe_status
pass_lossy(struct moe_detok *d, size_t i, int end)
{
    struct moe_buf *h = &d->step[i].hold;
    size_t          from = 0, at = 0;
    moe_status      s;

    while (at < h->n) {
        int    ok;
        size_t k = moe_utf8_step(h->p + at, h->n - at, &ok);

        if (ok == 1) {
            at += k;
            continue;
        }
        if (at > from) {
            s = push(d, i + 1, h->p + from, at - from);
            if (s != MOE_OK)
                return s;
        }
        from = at;
        if (ok < 0 && !end)
            break;
        s = push(d, i + 1, "\xef\xbf\xbd", 3);
        if (s != MOE_OK)
            return s;
        at += k;
        from = at;
    }
    if (at == h->n && at > from) {
        s = push(d, i + 1, h->p + from, at - from);
        if (s != MOE_OK)
            return s;
        from = at;
    }
    moe_buf_drop(h, from);
    return MOE_OK;
}

static moe_status
push_bytes(struct moe_detok *d, size_t i, const char *text, size_t n)
{
    struct moe_buf *h = &d->step[i].hold;
    size_t          before = h->n;

    for (size_t k = 0; k < n;) {
        uint32_t cp;
        int      b;
        char     c;

        k += moe_utf8_get(text + k, &cp);
        b = moe_char_byte(cp);
        if (b < 0) { /* not in the alphabet: the token stands for itself */
            h->n = before;
            if (!moe_buf_add(h, text, n))
                return nomem(d);
            break;
        }
        c = (char) b;
        if (!moe_buf_add(h, &c, 1))
            return nomem(d);
    }
    return pass_lossy(d, i, 0);
}

/* --- ByteFallback ------------------------------------------------------- */

static int
hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* The byte of "<0xXX>", or -1. */
static int
fallback_byte(const char *text, size_t n)
{
    int hi, lo;

    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    hi = text[3] == '+' ? 0 : hex(text[3]); /* Rust's parser takes a sign */
    lo = hex(text[4]);
    return hi < 0 || lo < 0 ? -1 : hi * 16 + lo;
}

static moe_status
pass_run(struct moe_detok *d, size_t i)
{
    struct moe_buf *h = &d->step[i].hold;
    size_t          n = h->n, bad;
    int             gap;
    moe_status      s;

    if (n == 0)
        return MOE_OK;
    h->n = 0;
    if (moe_utf8_check(h->p, n, &gap, &bad))
        return push(d, i + 1, h->p, n);
    for (; n != 0; n--) {
        s = push(d, i + 1, "\xef\xbf\xbd", 3);
        if (s != MOE_OK)
            return s;
    }
    return MOE_OK;
}

static moe_status
push_fallback(struct moe_detok *d, size_t i, const char *text, size_t n)
{
    int        b = fallback_byte(text, n);
    moe_status s;

    if (b >= 0) {
        char c = (char) b;

        return moe_buf_add(&d->step[i].hold, &c, 1) ? MOE_OK : nomem(d);
    }
    s = pass_run(d, i);
    return s == MOE_OK ? push(d, i + 1, text, n) : s;
}

/* --- Strip -------------------------------------------------------------- */

static int
is_char(const char *text, size_t n, const struct moe_stage *st)
{
    return n >= st->content_n
           && memcmp(text, st->content, st->content_n) == 0;
}

static moe_status
push_strip_token(struct moe_detok *d, size_t i, const char *text, size_t n)
{
    const struct moe_stage *st = d->step[i].st;
    size_t                  from = 0, to = n;

    for (int k = 0; k < st->left && is_char(text + from, to - from, st); k++)
        from += st->content_n;
    for (int k = 0; k < st->right && to - from >= st->content_n
                    && is_char(text + to - st->content_n, st->content_n, st);
         k++)
        to -= st->content_n;
    return push(d, i + 1, text + from, to - from);
}

static moe_status
push_strip_joined(struct moe_detok *d, size_t i, const char *text, size_t n)
{
    struct step            *t = &d->step[i];
    const struct moe_stage *st = t->st;
    struct moe_buf         *b = &t->hold; /* what passes on */
    size_t                  at = 0;

    while (t->left != 0 && at < n) {
        if (!is_char(text + at, n - at, st)) {
            t->left = 0;
            break;
        }
        t->left--;
        at += st->content_n;
    }
    b->n = 0;
    while (at < n) {
        size_t k = moe_utf8_len(text[at]);

        if (k == st->content_n && is_char(text + at, n - at, st)) {
            if (t->right < (size_t) st->right)
                t->right++;
            else if (!moe_buf_add(b, st->content, st->content_n))
                return nomem(d);
        } else {
            for (; t->right != 0; t->right--)
                if (!moe_buf_add(b, st->content, st->content_n))
                    return nomem(d);
            if (!moe_buf_add(b, text + at, k))
                return nomem(d);
        }
        at += k;
    }
    return b->n != 0 ? push(d, i + 1, b->p, b->n) : MOE_OK;
}

/* --- Replace, suffix ---------------------------------------------------- */

static moe_status
push_replaced(struct moe_detok *d, size_t i, const char *text, size_t n,
              const char *content, size_t content_n)
{
    const struct moe_stage *st = d->step[i].st;
    struct moe_rxiter       it = {0};
    struct moe_buf          b = {0};
    size_t                  last = 0;
    moe_status              s = MOE_OK;

    while (n != 0) {
        size_t start = 0, end = 0;
        int    found;

        s = moe_stage_next(st, &d->rx, text, n, 1, &it, &found, &start, &end,
                           d->err);
        if (s != MOE_OK)
            goto out;
        if (!found)
            break;
        if (!moe_buf_add(&b, text + last, start - last)
            || !moe_buf_add(&b, content, content_n)) {
            s = nomem(d);
            goto out;
        }
        if (b.n > MOE_GROWTH(d->taken)) {
            s = too_long(d);
            goto out;
        }
        last = end;
    }
    if (n != 0 && !moe_buf_add(&b, text + last, n - last)) {
        s = nomem(d);
        goto out;
    }
    s = push(d, i + 1, b.n != 0 ? b.p : "", b.n);
out:
    moe_buf_free(&b);
    return s;
}

/* A literal on joined text: what could begin a match waits. */
static moe_status
push_replaced_joined(struct moe_detok *d, size_t i, const char *text,
                     size_t n, const char *content, size_t content_n)
{
    const struct moe_stage *st = d->step[i].st;
    struct moe_buf         *h = &d->step[i].hold;
    size_t                  at = 0, keep;
    const char             *p;
    moe_status              s;

    if (!moe_buf_add(h, text, n))
        return nomem(d);
    while (h->n - at >= st->find_n
           && (p = memmem(h->p + at, h->n - at, st->find, st->find_n))) {
        size_t k = (size_t) (p - h->p);

        s = k > at ? push(d, i + 1, h->p + at, k - at) : MOE_OK;
        if (s == MOE_OK && content_n != 0)
            s = push(d, i + 1, content, content_n);
        if (s != MOE_OK)
            return s;
        at = k + st->find_n;
    }
    keep = h->n - at < st->find_n ? h->n - at : st->find_n - 1;
    while (keep != 0 && memcmp(h->p + h->n - keep, st->find, keep) != 0)
        keep--;
    if (h->n - keep > at) {
        s = push(d, i + 1, h->p + at, h->n - keep - at);
        if (s != MOE_OK)
            return s;
    }
    moe_buf_drop(h, h->n - keep);
    return MOE_OK;
}

/* --- the chain ---------------------------------------------------------- */

static moe_status
push_meta(struct moe_detok *d, size_t i, const char *text, size_t n)
{
    struct step            *t = &d->step[i];
    const struct moe_stage *st = t->st;
    int                     drop = st->prefix && (t->joined || t->index == 0);

    t->index++;
    t->hold.n = 0;
    for (size_t at = 0; at < n;) {
        size_t k = moe_utf8_len(text[at]);

        if (is_char(text + at, n - at, st)) {
            if (!drop && !moe_buf_add(&t->hold, " ", 1))
                return nomem(d);
        } else if (!moe_buf_add(&t->hold, text + at, k)) {
            return nomem(d);
        }
        at += k;
    }
    return push(d, i + 1, t->hold.n != 0 ? t->hold.p : "", t->hold.n);
}

/* One whole token into stage i. */
static moe_status
take(struct moe_detok *d, size_t i, const char *text, size_t n)
{
    struct step            *t = &d->step[i];
    const struct moe_stage *st = t->st;
    moe_status              s;

    switch (st->kind) {
    case MOE_DEC_BYTES:
        return push_bytes(d, i, text, n);
    case MOE_DEC_META:
        return push_meta(d, i, text, n);
    case MOE_DEC_REPLACE:
        return push_replaced(d, i, text, n, st->content, st->content_n);
    case MOE_DEC_FALLBACK:
        return push_fallback(d, i, text, n);
    case MOE_DEC_FUSE:
        return push(d, i + 1, text, n);
    case MOE_DEC_STRIP:
        return push_strip_token(d, i, text, n);
    case MOE_DEC_SUFFIX: /* the last token's suffix is no space */
        s = t->index++ == 0 ? MOE_OK
                            : push_replaced(d, i, t->hold.p, t->hold.n, " ",
                                            1);
        t->hold.n = 0;
        if (s == MOE_OK && !moe_buf_add(&t->hold, text, n))
            s = nomem(d);
        return s;
    default:
        return moe_fail(d->err, MOE_E_INTERNAL, 0,
                        "tokenizer: a stage of the wrong kind");
    }
}

static moe_status
push(struct moe_detok *d, size_t i, const char *text, size_t n)
{
    struct step *t;

    /* each Replace may multiply: stop a chain of them before memory does */
    d->passed += n;
    if (d->passed / (d->n + 1) > MOE_GROWTH(d->taken))
        return too_long(d);
    if (i == d->n)
        return moe_buf_add(&d->out, text, n) ? MOE_OK : nomem(d);
    t = &d->step[i];
    if (t->collect)
        return moe_buf_add(&t->hold, text, n) ? MOE_OK : nomem(d);
    if (t->joined) {
        if (t->st->kind == MOE_DEC_STRIP)
            return push_strip_joined(d, i, text, n);
        if (t->st->kind == MOE_DEC_REPLACE)
            return push_replaced_joined(d, i, text, n, t->st->content,
                                        t->st->content_n);
        if (t->st->kind == MOE_DEC_SUFFIX)
            return push_replaced_joined(d, i, text, n, "", 0);
    }
    return take(d, i, text, n);
}

/* Let go of what stage i holds; nothing more will come. */
static moe_status
finish(struct moe_detok *d, size_t i)
{
    struct step   *t = &d->step[i];
    struct moe_buf whole;
    moe_status     s;

    if (t->collect) {
        whole = t->hold;
        memset(&t->hold, 0, sizeof(t->hold));
        s = take(d, i, whole.n != 0 ? whole.p : "", whole.n);
        moe_buf_free(&whole);
        if (s != MOE_OK)
            return s;
    }
    switch (t->st->kind) {
    case MOE_DEC_BYTES:
        return pass_lossy(d, i, 1);
    case MOE_DEC_FALLBACK:
        return pass_run(d, i);
    case MOE_DEC_REPLACE:
    case MOE_DEC_SUFFIX:
        if (t->st->kind == MOE_DEC_SUFFIX && !t->joined)
            s = t->index == 0 ? MOE_OK
                              : push_replaced(d, i, t->hold.p, t->hold.n, "",
                                              0);
        else
            s = t->hold.n == 0 ? MOE_OK
                               : push(d, i + 1, t->hold.p, t->hold.n);
        t->hold.n = 0;
        return s;
    default:
        return MOE_OK;
    }
}

/* --- the public face ---------------------------------------------------- */

/* Put every step back to its beginning. */
static void
start(struct moe_detok *d)
{
    d->tokens = 0;
    d->taken = 0;
    d->passed = 0;
    for (size_t i = 0; i < d->n; i++) {
        struct step *t = &d->step[i];

        t->hold.n = 0;
        t->index = 0;
        t->left = t->st->kind == MOE_DEC_STRIP ? (size_t) t->st->left : 0;
        t->right = 0;
    }
}

moe_status
moe_detok_open(const struct moe_tokenizer *tok, uint32_t flags,
               struct moe_detok **out, struct moe_error *err)
{
    struct moe_detok *d = calloc(1, sizeof(*d));
    int               joined = 0;

    if (d != NULL)
        d->step = calloc(tok->decode.n + 1, sizeof(*d->step));
    if (d == NULL || d->step == NULL) {
        free(d);
        return moe_fail(err, MOE_E_NOMEM, 0,
                        "tokenizer: out of memory while decoding");
    }
    d->tok = tok;
    d->flags = flags;
    d->n = tok->decode.n;
    for (size_t i = 0; i < d->n; i++) {
        const struct moe_stage *st = &tok->decode.stage[i];
        struct step            *t = &d->step[i];

        t->st = st;
        t->joined = joined;
        t->collect = joined
                     && (st->kind == MOE_DEC_BYTES
                         || st->kind == MOE_DEC_FALLBACK
                         || (st->kind == MOE_DEC_REPLACE && st->rx != NULL));
        if (st->kind == MOE_DEC_BYTES || st->kind == MOE_DEC_FUSE)
            joined = 1;
    }
    start(d);
    *out = d;
    return MOE_OK;
}

void
moe_detok_close(struct moe_detok *d)
{
    if (d == NULL)
        return;
    for (size_t i = 0; i < d->n; i++)
        moe_buf_free(&d->step[i].hold);
    free(d->step);
    moe_buf_free(&d->out);
    moe_rxwork_free(&d->rx);
    free(d);
}

const char *
moe_token_form(const struct moe_tokenizer *tok, uint32_t id, size_t *len)
{
    const struct moe_vocab *v = &tok->vocab;

    if (id >= v->n_ids || v->token[id].off == MOE_NO_TOKEN)
        return NULL;
    if (v->flags[id] & MOE_TOKEN_ALIAS) {
        const struct moe_added key = {.id = id}, *a;

        a = bsearch(&key, tok->alias, tok->n_alias, sizeof(key),
                    moe_added_by_id);
        if (a != NULL) {
            *len = a->len;
            return a->text;
        }
    }
    *len = v->token[id].len;
    return v->arena + v->token[id].off;
}

static moe_status
add_id(struct moe_detok *d, uint32_t id)
{
    size_t      n;
    const char *text = moe_token_form(d->tok, id, &n);
    moe_status  s;

    if (text == NULL)
        return MOE_OK;
    if ((d->flags & MOE_TOK_SKIP_SPECIAL)
        && (d->tok->vocab.flags[id] & MOE_TOKEN_SKIP))
        return MOE_OK;
    d->taken += n + 1;
    if (!d->tok->has_decoder && d->tokens != 0) {
        s = push(d, 0, " ", 1);
        if (s != MOE_OK)
            return s;
    }
    d->tokens++;
    return push(d, 0, text, n);
}

static moe_status
add_end(struct moe_detok *d)
{
    moe_status s = MOE_OK;

    for (size_t i = 0; i < d->n && s == MOE_OK; i++)
        s = finish(d, i);
    start(d);
    return s;
}

moe_status
moe_detok_push(struct moe_detok *d, uint32_t id, const char **text,
               size_t *len, struct moe_error *err)
{
    moe_status s;

    d->err = err;
    d->out.n = 0;
    s = add_id(d, id);
    if (s != MOE_OK)
        return s;
    *text = d->out.n != 0 ? d->out.p : "";
    *len = d->out.n;
    return MOE_OK;
}

moe_status
moe_detok_flush(struct moe_detok *d, const char **text, size_t *len,
                struct moe_error *err)
{
    moe_status s;

    d->err = err;
    d->out.n = 0;
    s = add_end(d);
    if (s != MOE_OK)
        return s;
    *text = d->out.n != 0 ? d->out.p : "";
    *len = d->out.n;
    return MOE_OK;
}

moe_status
moe_tokenizer_decode(const struct moe_tokenizer *tok, const uint32_t *ids,
                     size_t n, uint32_t flags, char **text, size_t *len,
                     struct moe_error *err)
{
    struct moe_detok *d;
    moe_status        s = moe_detok_open(tok, flags, &d, err);

    if (s != MOE_OK)
        return s;
    d->err = err;
    for (size_t i = 0; i < n && s == MOE_OK; i++)
        s = add_id(d, ids[i]);
    if (s == MOE_OK)
        s = add_end(d);
    if (s == MOE_OK && !moe_buf_add(&d->out, "", 1))
        s = nomem(d);
    if (s == MOE_OK) {
        *text = d->out.p;
        *len = d->out.n - 1;
        memset(&d->out, 0, sizeof(d->out));
    }
    moe_detok_close(d);
    return s;
}

moe_status
moe_decode_load(const struct moe_tokcfg *cfg, struct json_object *o,
                const char *type, struct moe_chain *chain)
{
    static const struct {
        const char         *type;
        enum moe_stage_kind kind;
    } kinds[] = {
        {"ByteLevel", MOE_DEC_BYTES},       {"Metaspace", MOE_DEC_META},
        {"Replace", MOE_DEC_REPLACE},       {"Fuse", MOE_DEC_FUSE},
        {"ByteFallback", MOE_DEC_FALLBACK}, {"Strip", MOE_DEC_STRIP},
        {"BPEDecoder", MOE_DEC_SUFFIX},
    };
    struct moe_stage *st = NULL;
    moe_status        s = MOE_OK;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(type, kinds[i].type) != 0)
            continue;
        st = moe_chain_add(chain, kinds[i].kind);
        if (st == NULL)
            return moe_cfg_nomem(cfg);
        break;
    }
    if (st == NULL)
        return moe_cfg_unsupported(cfg, "decoder", type);
    switch (st->kind) {
    case MOE_DEC_META:
        s = moe_cfg_meta(cfg, "decoder Metaspace", o, st);
        break;
    case MOE_DEC_REPLACE:
        s = moe_cfg_pattern(cfg, "decoder Replace", o, st);
        if (s == MOE_OK)
            s = moe_cfg_string(cfg, "decoder Replace", o, "content", 0,
                               &st->content, &st->content_n);
        break;
    case MOE_DEC_STRIP:
        s = moe_cfg_string(cfg, "decoder Strip", o, "content", 1,
                           &st->content, &st->content_n);
        if (s == MOE_OK)
            s = moe_cfg_int(cfg, "decoder Strip", o, "start", &st->left);
        if (s == MOE_OK)
            s = moe_cfg_int(cfg, "decoder Strip", o, "stop", &st->right);
        break;
    case MOE_DEC_SUFFIX:
        s = moe_cfg_string(cfg, "decoder BPEDecoder", o, "suffix", 0,
                           &st->find, &st->find_n);
        if (s == MOE_OK && st->find_n == 0)
            s = moe_cfg_corrupt(cfg, "decoder BPEDecoder",
                                "suffix is empty");
        break;
    default:
        break;
    }
    return s;
}
