/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer.c - encode, and the questions about a vocabulary.
 *
 * Owns the order of things: check UTF-8; cut out added tokens that match the
 * text as it stands; normalise what is between; cut out those that match the
 * normalised text; pre-tokenize and merge the rest (pretok.c, bpe.c); put the
 * post-processor's tokens around it.
 *
 * Everything that a call needs lives in its struct moe_encode, so calls of
 * several threads do not meet.
 */
#include "text/tok_int.h"

#include "text/unicode.h"

/* User pieces: no special token may touch [start, end). */
struct guard {
    size_t start, end;
};

struct pass {
    struct moe_encode          *e;
    const struct moe_added_set *set;
    const struct guard         *guard; /* sorted; offsets in the text */
    size_t                      n_guard;
    int                         all;   /* guards cover the whole text */
    int                         normalised;
    size_t                      offset; /* of the text in the input */
};

moe_status
moe_encode_nomem(const struct moe_encode *e)
{
    return moe_fail(e->err, MOE_E_NOMEM, 0,
                    "tokenizer: out of memory while encoding");
}

moe_status
moe_encode_too_long(const struct moe_encode *e)
{
    return moe_fail(e->err, MOE_E_UNSUPPORTED, 0,
                    "tokenizer: its settings make more than %zu bytes of the "
                    "text; use another tokenizer", e->limit);
}

moe_status
moe_encode_id(struct moe_encode *e, uint32_t id)
{
    if (e->n_ids == e->cap_ids) {
        size_t    cap = e->cap_ids + e->cap_ids / 2 + 64;
        uint32_t *ids = realloc(e->ids, cap * sizeof(*ids));

        if (ids == NULL)
            return moe_encode_nomem(e);
        e->ids = ids;
        e->cap_ids = cap;
    }
    e->ids[e->n_ids++] = id;
    return MOE_OK;
}

/* --- added tokens ------------------------------------------------------- */

static int
guarded(const struct pass *p, size_t start, size_t end)
{
    size_t lo = 0, hi = p->n_guard;

    if (p->all)
        return p->n_guard != 0;
    start += p->offset;
    end += p->offset;
    while (lo < hi) { /* the first guard that ends behind start */
        size_t mid = lo + (hi - lo) / 2;

        if (p->guard[mid].end <= start)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < p->n_guard && p->guard[lo].start < end;
}

/* The character before at is a word character. */
static int
word_before(const char *text, size_t at)
{
    uint32_t cp;

    if (at == 0)
        return 0;
    do
        at--;
    while (at > 0 && ((uint8_t) text[at] & 0xc0) == 0x80);
    moe_utf8_get(text + at, &cp);
    return moe_uni_is_word(cp);
}

static int
word_behind(const char *text, size_t len, size_t at)
{
    uint32_t cp;

    if (at == len)
        return 0;
    moe_utf8_get(text + at, &cp);
    return moe_uni_is_word(cp);
}

static size_t
white_before(const char *text, size_t at, size_t least)
{
    while (at > least) {
        size_t   k = at - 1;
        uint32_t cp;

        while (k > 0 && ((uint8_t) text[k] & 0xc0) == 0x80)
            k--;
        moe_utf8_get(text + k, &cp);
        if (!moe_uni_is_white(cp))
            break;
        at = k;
    }
    return at > least ? at : least;
}

static size_t
white_behind(const char *text, size_t len, size_t at)
{
    while (at < len) {
        uint32_t cp;
        size_t   k = moe_utf8_get(text + at, &cp);

        if (!moe_uni_is_white(cp))
            break;
        at += k;
    }
    return at;
}

static moe_status extract(const struct pass *p, const char *text, size_t len,
                          size_t zero);

/* A stretch without added tokens of this pass. */
static moe_status
between(const struct pass *p, const char *text, size_t start, size_t end,
        size_t zero)
{
    struct moe_encode *e = p->e;
    struct pass        next;
    const char        *out;
    size_t             n, i;
    moe_status         s;

    if (start >= end)
        return MOE_OK;
    if (p->normalised) {
        zero = zero > start ? zero - start : 0;
        return moe_pretok_run(e, 0, text + start, end - start,
                              zero < end - start ? zero : end - start);
    }
    s = moe_normal_run(e, text + start, end - start, start == 0, &out, &n,
                       &zero);
    if (s != MOE_OK)
        return s;
    next = *p;
    next.set = &e->tok->normalised;
    next.normalised = 1;
    next.offset += start;
    if (n != end - start || memcmp(out, text + start, n) != 0) {
        /* places moved: if a user's text is among this, all of it is */
        for (i = 0; i < p->n_guard; i++)
            if (p->guard[i].start < end && p->guard[i].end > start)
                break;
        next.n_guard = i < p->n_guard;
        next.all = 1;
    }
    return extract(&next, out, n, zero);
}

static moe_status
extract(const struct pass *p, const char *text, size_t len, size_t zero)
{
    const struct moe_added *hit;
    size_t                  done = 0, at = 0, start, stop;
    moe_status              s;

    while (moe_added_find(p->set, text, len, at, &start, &hit)) {
        int special = (p->e->tok->vocab.flags[hit->id] & MOE_TOKEN_SPECIAL)
                      != 0;

        stop = start + hit->len;
        if (special && p->n_guard != 0 && guarded(p, start, stop)) {
            at = start + moe_utf8_len(text[start]);
            continue;
        }
        at = stop;
        if (special && !(p->e->flags & MOE_TOK_PARSE_SPECIAL))
            continue;
        if ((hit->flags & MOE_ADDED_WORD)
            && (word_before(text, start) || word_behind(text, len, stop)))
            continue;
        if (hit->flags & MOE_ADDED_LSTRIP)
            start = white_before(text, start, done);
        if (hit->flags & MOE_ADDED_RSTRIP)
            stop = white_behind(text, len, stop);
        s = between(p, text, done, start, zero);
        /* stripping can leave nothing of a token; then it is none */
        if (s == MOE_OK && start < stop)
            s = moe_encode_id(p->e, hit->id);
        if (s != MOE_OK)
            return s;
        done = stop;
    }
    return between(p, text, done, len, zero);
}

/* --- encode ------------------------------------------------------------- */

static void
encode_free(struct moe_encode *e)
{
    free(e->ids);
    moe_rxwork_free(&e->rx);
    moe_buf_free(&e->norm[0]);
    moe_buf_free(&e->norm[1]);
    if (e->stage != NULL)
        for (size_t i = 0; i < 2 * e->tok->pre.n; i++)
            moe_buf_free(&e->stage[i]);
    free(e->stage);
    moe_buf_free(&e->chars);
    free(e->sym);
    free(e->heap);
    moe_buf_free(&e->word);
}

/* The post-processor: e->ids stand where the template has the text. */
static moe_status
post_process(struct moe_encode *e)
{
    const struct moe_post *p = e->flags & MOE_TOK_SPECIAL ? &e->tok->post
                                                          : &e->tok->plain;
    uint32_t *ids;
    size_t    n = 0, at = 0;

    if (p->n == 1 && p->id[0] == MOE_NO_TOKEN)
        return MOE_OK;
    for (size_t i = 0; i < p->n; i++)
        n += p->id[i] == MOE_NO_TOKEN ? e->n_ids : 1;
    ids = malloc((n + 1) * sizeof(*ids));
    if (ids == NULL)
        return moe_encode_nomem(e);
    for (size_t i = 0; i < p->n; i++) {
        if (p->id[i] != MOE_NO_TOKEN) {
            ids[at++] = p->id[i];
            continue;
        }
        if (e->n_ids != 0)
            memcpy(ids + at, e->ids, e->n_ids * sizeof(*ids));
        at += e->n_ids;
    }
    free(e->ids);
    e->ids = ids;
    e->n_ids = n;
    return MOE_OK;
}

static moe_status
encode(const struct moe_tokenizer *tok, const char *text, size_t len, int gap,
       const struct guard *guard, size_t n_guard, uint32_t flags,
       uint32_t **ids, size_t *n, struct moe_error *err)
{
    struct moe_encode e = {.tok = tok, .err = err, .flags = flags,
                           .exact = gap || tok->exact,
                           .limit = MOE_GROWTH(len)};
    struct pass       p = {.e = &e, .set = &tok->raw, .guard = guard,
                           .n_guard = n_guard};
    moe_status        s;

    e.stage = calloc(2 * tok->pre.n + 1, sizeof(*e.stage));
    s = e.stage == NULL ? moe_encode_nomem(&e) : MOE_OK;
    if (s == MOE_OK)
        s = extract(&p, text, len, 0);
    if (s == MOE_OK)
        s = post_process(&e);
    if (s == MOE_OK) {
        *ids = NULL;
        *n = e.n_ids;
        if (e.n_ids != 0) {
            *ids = e.ids;
            e.ids = NULL;
        }
    }
    encode_free(&e);
    return s;
}

static moe_status
check_text(const char *text, size_t len, size_t before, int *gap,
           struct moe_error *err)
{
    size_t bad;

    if (len > ((size_t) 1 << 30) - before)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "text: more than 1 GiB; cut it");
    if (!moe_utf8_check(text, len, gap, &bad))
        return moe_fail(err, MOE_E_INVAL, 0,
                        "text: byte %zu is not UTF-8; convert the text to "
                        "UTF-8", before + bad);
    return MOE_OK;
}

moe_status
moe_tokenizer_encode(const struct moe_tokenizer *tok, const char *text,
                     size_t len, uint32_t flags, uint32_t **ids, size_t *n,
                     struct moe_error *err)
{
    int        gap;
    moe_status s = check_text(text, len, 0, &gap, err);

    if (s != MOE_OK)
        return s;
    return encode(tok, text, len, gap, NULL, 0, flags, ids, n, err);
}

moe_status
moe_tokenizer_encode_pieces(const struct moe_tokenizer *tok,
                            const struct moe_text_piece *pieces,
                            size_t n_pieces, uint32_t flags, uint32_t **ids,
                            size_t *n, struct moe_error *err)
{
    struct moe_buf all = {0};
    struct guard  *guard = calloc(n_pieces + 1, sizeof(*guard));
    size_t         n_guard = 0;
    int            gap, any = 0;
    moe_status     s = MOE_OK;

    if (guard == NULL)
        s = moe_fail(err, MOE_E_NOMEM, 0,
                     "tokenizer: out of memory while encoding");
    for (size_t i = 0; i < n_pieces && s == MOE_OK; i++) {
        const struct moe_text_piece *p = &pieces[i];

        s = check_text(p->text, p->len, all.n, &gap, err);
        if (s != MOE_OK)
            break;
        any |= gap;
        if (p->user && p->len != 0) {
            guard[n_guard].start = all.n;
            guard[n_guard++].end = all.n + p->len;
        }
        if (!moe_buf_add(&all, p->text, p->len))
            s = moe_fail(err, MOE_E_NOMEM, 0,
                         "tokenizer: out of memory while encoding");
    }
    if (s == MOE_OK)
        s = encode(tok, all.n != 0 ? all.p : "", all.n, any, guard, n_guard,
                   flags, ids, n, err);
    free(guard);
    moe_buf_free(&all);
    return s;
}

/* --- questions ---------------------------------------------------------- */

void
moe_tokenizer_close(struct moe_tokenizer *tok)
{
    if (tok == NULL)
        return;
    moe_vocab_free(&tok->vocab);
    moe_chain_free(&tok->normal);
    moe_chain_free(&tok->pre);
    moe_chain_free(&tok->decode);
    free(tok->raw.item);
    free(tok->normalised.item);
    free(tok->alias);
    free(tok->added_text);
    free(tok->post.id);
    free(tok->plain.id);
    free(tok->unk);
    free(tok->sub_prefix);
    free(tok->word_suffix);
    free(tok);
}

uint64_t
moe_tokenizer_bytes(const struct moe_tokenizer *tok)
{
    return sizeof(*tok) + moe_vocab_bytes(&tok->vocab)
           + moe_chain_bytes(&tok->normal) + moe_chain_bytes(&tok->pre)
           + moe_chain_bytes(&tok->decode)
           /* one has room for every added token */
           + (2 * ((uint64_t) tok->raw.n + tok->normalised.n) + 3)
                 * sizeof(struct moe_added)
           + tok->added_text_n + 1 + tok->unk_n + tok->sub_prefix_n
           + tok->word_suffix_n
           + (tok->post.n + tok->plain.n) * sizeof(uint32_t);
}

uint64_t
moe_tokenizer_encode_peak(uint64_t len)
{
    /* a byte: 16 of its symbol, 8 of the heap, 6 of ids, and up to three
     * copies of the text, grown by half; the rest is PCRE2's */
    return 48 * len + ((uint64_t) 1 << 20);
}

uint32_t
moe_tokenizer_vocab_size(const struct moe_tokenizer *tok)
{
    return tok->vocab.n_ids;
}

int
moe_tokenizer_token_id(const struct moe_tokenizer *tok, const char *text,
                       size_t len, uint32_t *id)
{
    return moe_vocab_find(&tok->vocab, text, len, 0, id);
}

const char *
moe_tokenizer_token_text(const struct moe_tokenizer *tok, uint32_t id,
                         size_t *len)
{
    const struct moe_vocab *v = &tok->vocab;

    if (id >= v->n_ids || v->token[id].off == MOE_NO_TOKEN)
        return NULL;
    *len = v->token[id].len;
    return v->arena + v->token[id].off;
}

int
moe_tokenizer_is_special(const struct moe_tokenizer *tok, uint32_t id)
{
    return id < tok->vocab.n_ids
           && (tok->vocab.flags[id] & MOE_TOKEN_SPECIAL) != 0;
}
