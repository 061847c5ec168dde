/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bpe.c - byte pair encoding of one word.
 *
 * Owns the merge.  The word becomes a linked list of symbols; a heap of
 * (rank, position) gives the next merge, lowest rank first, leftmost among
 * equals; entries that a neighbour's merge made stale are dropped when they
 * come up.  n symbols cost O(n log n), so a megabyte of one letter is no
 * matter.  The order of all decisions is the reference's, its oddities
 * included (an entry counts as fresh if the pair it finds makes the same id).
 */
#include "text/tok_int.h"

#include "text/unicode.h"

/* --- a 4-ary min-heap of numbers ---------------------------------------- */

static void
sift_down(uint64_t *heap, size_t n, size_t i, uint64_t x)
{
    for (;;) {
        size_t child = 4 * i + 1, best, end;

        if (child >= n)
            break;
        end = child + 4 < n ? child + 4 : n;
        best = child;
        for (size_t k = child + 1; k < end; k++)
            if (heap[k] < heap[best])
                best = k;
        if (heap[best] >= x)
            break;
        heap[i] = heap[best];
        i = best;
    }
    heap[i] = x;
}

static void
heapify(uint64_t *heap, size_t n)
{
    if (n > 1)
        for (size_t i = (n - 2) / 4 + 1; i-- > 0;)
            sift_down(heap, n, i, heap[i]);
}

static uint64_t
heap_pop(uint64_t *heap, size_t *n)
{
    uint64_t top = heap[0];

    --*n;
    if (*n != 0)
        sift_down(heap, *n, 0, heap[*n]);
    return top;
}

static int
heap_push(struct moe_encode *e, size_t *n, uint64_t x)
{
    size_t i = *n;

    if (*n == e->cap_heap) {
        size_t    cap = e->cap_heap + e->cap_heap / 2 + 64;
        uint64_t *heap = realloc(e->heap, cap * sizeof(*heap));

        if (heap == NULL)
            return 0;
        e->heap = heap;
        e->cap_heap = cap;
    }
    ++*n;
    while (i > 0 && e->heap[(i - 1) / 4] > x) {
        e->heap[i] = e->heap[(i - 1) / 4];
        i = (i - 1) / 4;
    }
    e->heap[i] = x;
    return 1;
}

/* --- symbols ------------------------------------------------------------ */

struct word {
    size_t n;   /* symbols so far */
    int    unk; /* an unknown symbol waits to be added */
};

static int
room(struct moe_encode *e, size_t n)
{
    struct moe_bpe_symbol *sym;
    uint64_t              *heap;
    size_t                 cap = e->cap_sym;

    if (n <= cap)
        return 1;
    cap += cap / 8 + 64; /* a word asks for its length first */
    if (cap < n)
        cap = n;
    sym = realloc(e->sym, cap * sizeof(*sym));
    if (sym == NULL)
        return 0;
    e->sym = sym;
    e->cap_sym = cap;
    if (e->cap_heap < cap) {
        heap = realloc(e->heap, cap * sizeof(*heap));
        if (heap == NULL)
            return 0;
        e->heap = heap;
        e->cap_heap = cap;
    }
    return 1;
}

static void
add_symbol(struct moe_encode *e, struct word *w, uint32_t id)
{
    struct moe_bpe_symbol *s = &e->sym[w->n];

    s->id = id;
    s->prev = (int32_t) w->n - 1;
    s->next = (int32_t) w->n + 1;
    s->gone = 0;
    w->n++;
}

/* The symbols of one character that the model does not know as it stands. */
static moe_status
add_unknown(struct moe_encode *e, struct word *w, const char *text, size_t n)
{
    const struct moe_tokenizer *t = e->tok;

    if (t->byte_fallback) {
        size_t i = 0;

        while (i < n && t->fallback[(uint8_t) text[i]] != MOE_NO_TOKEN)
            i++;
        if (i == n) { /* as the reference: a waiting unknown stays waiting */
            if (!room(e, w->n + n + 1))
                return moe_encode_nomem(e);
            for (i = 0; i < n; i++)
                add_symbol(e, w, t->fallback[(uint8_t) text[i]]);
            return MOE_OK;
        }
    }
    if (t->unk == NULL)
        return MOE_OK; /* dropped */
    if (t->unk_id == MOE_NO_TOKEN)
        return moe_fail(e->err, MOE_E_INVAL, 0,
                        "tokenizer: the text holds a character that the "
                        "vocabulary lacks, and the file's unk_token is not "
                        "in it either");
    if (w->unk && !t->fuse_unk)
        add_symbol(e, w, t->unk_id);
    w->unk = 1;
    return MOE_OK;
}

static moe_status
add_character(struct moe_encode *e, struct word *w, const char *text,
              size_t n, int first, int last)
{
    const struct moe_tokenizer *t = e->tok;
    uint32_t                    id = MOE_NO_TOKEN, cp;

    /* one symbol, and one more that may still wait */
    if (!room(e, w->n + 2))
        return moe_encode_nomem(e);
    if (t->sub_prefix == NULL && t->word_suffix == NULL) {
        moe_utf8_get(text, &cp);
        if (cp < 512)
            id = t->char_id[cp];
        else
            (void) moe_vocab_find(&t->vocab, text, n, MOE_TOKEN_MODEL, &id);
    } else {
        e->word.n = 0;
        if ((!first && t->sub_prefix != NULL
             && !moe_buf_add(&e->word, t->sub_prefix, t->sub_prefix_n))
            || !moe_buf_add(&e->word, text, n)
            || (last && t->word_suffix != NULL
                && !moe_buf_add(&e->word, t->word_suffix, t->word_suffix_n)))
            return moe_encode_nomem(e);
        text = e->word.p;
        n = e->word.n;
        (void) moe_vocab_find(&t->vocab, text, n, MOE_TOKEN_MODEL, &id);
    }
    if (id == MOE_NO_TOKEN)
        return add_unknown(e, w, text, n);
    if (w->unk) {
        add_symbol(e, w, t->unk_id);
        w->unk = 0;
    }
    add_symbol(e, w, id);
    return MOE_OK;
}

/* --- merging ------------------------------------------------------------ */

static int
push_pair(struct moe_encode *e, size_t *n, size_t pos)
{
    const struct moe_bpe_symbol *s = &e->sym[pos];
    const struct moe_merge      *m;

    m = moe_vocab_find_merge(&e->tok->vocab, s->id, e->sym[s->next].id);
    return m == NULL || heap_push(e, n, (uint64_t) m->rank << 32 | pos);
}

static moe_status
merge_all(struct moe_encode *e, size_t count)
{
    const struct moe_vocab *v = &e->tok->vocab;
    struct moe_bpe_symbol  *sym = e->sym;
    size_t                  n = 0;

    sym[count - 1].next = -1;
    for (size_t i = 0; i + 1 < count; i++) {
        const struct moe_merge *m = moe_vocab_find_merge(v, sym[i].id,
                                                         sym[i + 1].id);

        if (m != NULL) /* there is room for one entry a symbol */
            e->heap[n++] = (uint64_t) m->rank << 32 | i;
    }
    heapify(e->heap, n);
    while (n != 0) {
        uint64_t                top = heap_pop(e->heap, &n);
        struct moe_bpe_symbol  *s = &sym[(uint32_t) top], *right;
        uint32_t                id = v->rank_id[top >> 32];
        const struct moe_merge *m;

        if (s->gone || s->next < 0)
            continue;
        right = &sym[s->next];
        m = moe_vocab_find_merge(v, s->id, right->id);
        if (m == NULL || m->id != id)
            continue;
        s->id = id;
        s->next = right->next;
        right->gone = 1;
        if (s->next >= 0)
            sym[s->next].prev = (int32_t) (uint32_t) top;
        if ((s->prev >= 0 && !push_pair(e, &n, (size_t) s->prev))
            || (s->next >= 0 && !push_pair(e, &n, (uint32_t) top)))
            return moe_encode_nomem(e);
    }
    return MOE_OK;
}

moe_status
moe_bpe_word(struct moe_encode *e, const char *text, size_t n)
{
    const struct moe_tokenizer *t = e->tok;
    struct word                 w = {0};
    size_t                      chars = 0;
    moe_status                  s;
    uint32_t                    id;

    if (n > INT32_MAX / 2)
        return moe_fail(e->err, MOE_E_INVAL, 0,
                        "tokenizer: a word of more than 1 GiB");
    if (t->ignore_merges
        && moe_vocab_find(&t->vocab, text, n, MOE_TOKEN_MODEL, &id))
        return moe_encode_id(e, id);
    for (size_t i = 0; i < n; i++)
        chars += ((uint8_t) text[i] & 0xc0) != 0x80;
    if (!room(e, chars + 2))
        return moe_encode_nomem(e);
    for (size_t i = 0; i < n;) {
        size_t k = moe_utf8_len(text[i]);

        s = add_character(e, &w, text + i, k, i == 0, i + k == n);
        if (s != MOE_OK)
            return s;
        i += k;
    }
    if (w.unk)
        add_symbol(e, &w, t->unk_id);
    if (w.n == 0)
        return MOE_OK;
    if (w.n > 1) {
        s = merge_all(e, w.n);
        if (s != MOE_OK)
            return s;
    }
    for (size_t i = 0; i < w.n; i++) {
        if (e->sym[i].gone)
            continue;
        s = moe_encode_id(e, e->sym[i].id);
        if (s != MOE_OK)
            return s;
    }
    return MOE_OK;
}
