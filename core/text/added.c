/* SPDX-License-Identifier: Apache-2.0 */
/*
 * added.c - find added tokens in a text.
 *
 * Owns the search for the leftmost, then longest pattern.  The patterns are
 * sorted, so at each place the candidates are narrowed byte by byte; a text
 * byte that starts no pattern costs one look-up.  Leaves to tokenizer.c what
 * a match means (words, stripping, special or not).
 */
#include "text/tok_int.h"

static int
compare(const void *pa, const void *pb)
{
    const struct moe_added *a = pa, *b = pb;
    size_t n = a->len < b->len ? a->len : b->len;
    int    c = memcmp(a->text, b->text, n);

    return c != 0 ? c : a->len < b->len ? -1
           : a->len > b->len ? 1 : a->id < b->id ? -1 : a->id > b->id;
}

int
moe_added_by_id(const void *pa, const void *pb)
{
    const struct moe_added *a = pa, *b = pb;

    return a->id < b->id ? -1 : a->id > b->id;
}

static int
same_text(const struct moe_added *a, const struct moe_added *b)
{
    return a->len == b->len && memcmp(a->text, b->text, a->len) == 0;
}

int
moe_added_sort(struct moe_added_set *set)
{
    struct moe_added *out = calloc((size_t) set->n + 1, sizeof(*out));
    uint32_t          tail = set->n, i = 0;

    if (out == NULL)
        return 0;
    if (set->n != 0)
        qsort(set->item, set->n, sizeof(*set->item), compare);
    set->n_match = 0;
    for (uint32_t k = 0; k < set->n; k++) {
        const struct moe_added *a = &set->item[k];

        if (a->len == 0
            || (set->n_match != 0 && same_text(a, &out[set->n_match - 1])))
            out[--tail] = *a;
        else
            out[set->n_match++] = *a;
    }
    free(set->item);
    set->item = out;
    for (uint32_t b = 0; b < 257; b++) {
        while (i < set->n_match && (uint8_t) out[i].text[0] < b)
            i++;
        set->first[b] = i;
    }
    return 1;
}

/* First item in [lo, hi) whose byte at depth is >= b; all are longer. */
static uint32_t
bound(const struct moe_added_set *set, uint32_t lo, uint32_t hi, size_t depth,
      unsigned b)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if ((uint8_t) set->item[mid].text[depth] < b)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

int
moe_added_find(const struct moe_added_set *set, const char *text, size_t len,
               size_t at, size_t *start, const struct moe_added **hit)
{
    if (set->n_match == 0)
        return 0;
    for (; at < len; at++) {
        uint8_t  b = (uint8_t) text[at];
        uint32_t lo = set->first[b], hi = set->first[b + 1];

        *hit = NULL;
        for (size_t depth = 1; lo < hi; depth++) {
            /* only the first of those that share the bytes can end here */
            if (set->item[lo].len == depth)
                *hit = &set->item[lo++];
            if (at + depth >= len)
                break;
            b = (uint8_t) text[at + depth];
            lo = bound(set, lo, hi, depth, b);
            hi = bound(set, lo, hi, depth, b + 1u);
        }
        if (*hit != NULL) {
            *start = at;
            return 1;
        }
    }
    return 0;
}
