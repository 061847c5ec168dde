/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vocab.c - tokens and merges in flat tables.
 *
 * Owns one arena of bytes, an array of places in it by id, and two
 * open-addressing hashes.  Nothing is allocated for a single token: a
 * vocabulary of 200,000 tokens and 450,000 merges takes about 14 MB.  The
 * tables have their final size from the start (tokload.c counts first).
 */
#include "text/tok_int.h"

#include <sys/random.h>

int
moe_buf_room(struct moe_buf *b, size_t more)
{
    size_t cap = b->cap < 64 ? 64 : b->cap;
    char  *p;

    if (more > SIZE_MAX / 4 - b->n)
        return 0;
    while (cap - b->n < more)
        cap += cap / 2;
    p = realloc(b->p, cap);
    if (p == NULL)
        return 0;
    b->p = p;
    b->cap = cap;
    return 1;
}

static uint64_t
mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ x >> 32;
}

/* The seed keeps a file from choosing tokens that all collide. */
static uint64_t
hash_text(const struct moe_vocab *v, const char *text, size_t len)
{
    uint64_t h = v->seed ^ len, word;

    for (; len >= 8; text += 8, len -= 8) {
        memcpy(&word, text, 8);
        h = mix(h ^ word);
    }
    word = 0;
    if (len != 0)
        memcpy(&word, text, len);
    return mix(h ^ word);
}

/* A hash's slot among n, without a division. */
static uint32_t
place(uint64_t h, uint32_t n)
{
    return (uint32_t) (((h >> 32) * n) >> 32);
}

int
moe_vocab_init(struct moe_vocab *v, uint32_t n_ids, uint32_t n_tokens,
               size_t arena, uint32_t n_ranks)
{
    memset(v, 0, sizeof(*v));
    if (getrandom(&v->seed, sizeof(v->seed), GRND_NONBLOCK) < 0)
        v->seed = (uint64_t) (uintptr_t) &v->seed;
    v->n_ids = n_ids;
    v->n_slots = n_tokens + n_tokens / 3 + 2;
    v->n_merges = n_ranks + n_ranks / 3 + 2;
    v->n_ranks = n_ranks;
    v->arena_cap = arena;
    v->arena = malloc(arena + 1);
    v->token = malloc((size_t) n_ids * sizeof(*v->token) + 1);
    v->flags = calloc((size_t) n_ids + 1, 1);
    v->slot = malloc((size_t) v->n_slots * sizeof(*v->slot));
    v->merge = malloc((size_t) v->n_merges * sizeof(*v->merge));
    v->rank_id = malloc((size_t) n_ranks * sizeof(*v->rank_id) + 1);
    if (v->arena == NULL || v->token == NULL || v->flags == NULL
        || v->slot == NULL || v->merge == NULL || v->rank_id == NULL) {
        moe_vocab_free(v);
        return 0;
    }
    for (uint32_t i = 0; i < n_ids; i++)
        v->token[i].off = MOE_NO_TOKEN;
    for (uint32_t i = 0; i < v->n_slots; i++)
        v->slot[i].id = MOE_NO_TOKEN;
    for (uint32_t i = 0; i < v->n_merges; i++)
        v->merge[i].left = MOE_NO_TOKEN;
    return 1;
}

void
moe_vocab_free(struct moe_vocab *v)
{
    free(v->arena);
    free(v->token);
    free(v->flags);
    free(v->slot);
    free(v->merge);
    free(v->rank_id);
    memset(v, 0, sizeof(*v));
}

/* The slot that holds text, or the empty one where it would go. */
static struct moe_slot *
find_slot(const struct moe_vocab *v, const char *text, size_t len,
          uint32_t *tag)
{
    uint64_t h = hash_text(v, text, len);
    uint32_t i = place(h, v->n_slots);

    *tag = (uint32_t) h;
    for (;; i = i + 1 == v->n_slots ? 0 : i + 1) {
        struct moe_slot        *s = &v->slot[i];
        const struct moe_token *t;

        if (s->id == MOE_NO_TOKEN)
            return s;
        if (s->tag != *tag)
            continue;
        t = &v->token[s->id];
        if (t->len == len
            && (len == 0 || memcmp(v->arena + t->off, text, len) == 0))
            return s;
    }
}

int
moe_vocab_add(struct moe_vocab *v, const char *text, size_t len, uint32_t id,
              uint8_t flags)
{
    uint32_t         tag;
    struct moe_slot *s = find_slot(v, text, len, &tag);

    if (s->id != MOE_NO_TOKEN || v->token[id].off != MOE_NO_TOKEN)
        return 0;
    s->id = id;
    s->tag = tag;
    v->token[id].off = (uint32_t) v->arena_n;
    v->token[id].len = (uint32_t) len;
    v->flags[id] = flags;
    if (len != 0)
        memcpy(v->arena + v->arena_n, text, len);
    v->arena_n += len;
    return 1;
}

int
moe_vocab_find(const struct moe_vocab *v, const char *text, size_t len,
               uint8_t must, uint32_t *id)
{
    uint32_t tag, found = find_slot(v, text, len, &tag)->id;

    if (found == MOE_NO_TOKEN || (v->flags[found] & must) != must)
        return 0;
    *id = found;
    return 1;
}

static uint32_t
merge_slot(const struct moe_vocab *v, uint32_t left, uint32_t right)
{
    uint64_t key = (uint64_t) left << 32 | right;
    uint32_t i = place(mix(key ^ v->seed), v->n_merges);

    while (v->merge[i].left != MOE_NO_TOKEN
           && (v->merge[i].left != left || v->merge[i].right != right))
        i = i + 1 == v->n_merges ? 0 : i + 1;
    return i;
}

void
moe_vocab_add_merge(struct moe_vocab *v, uint32_t left, uint32_t right,
                    uint32_t rank, uint32_t id)
{
    struct moe_merge *m = &v->merge[merge_slot(v, left, right)];

    m->left = left;
    m->right = right;
    m->rank = rank;
    m->id = id;
    v->rank_id[rank] = id;
}

const struct moe_merge *
moe_vocab_find_merge(const struct moe_vocab *v, uint32_t left, uint32_t right)
{
    const struct moe_merge *m = &v->merge[merge_slot(v, left, right)];

    return m->left == MOE_NO_TOKEN ? NULL : m;
}

uint64_t
moe_vocab_bytes(const struct moe_vocab *v)
{
    return v->arena_cap + 1 + (uint64_t) v->n_ids * (sizeof(*v->token) + 1)
           + (uint64_t) v->n_slots * sizeof(*v->slot)
           + (uint64_t) v->n_merges * sizeof(*v->merge)
           + (uint64_t) v->n_ranks * sizeof(*v->rank_id);
}
