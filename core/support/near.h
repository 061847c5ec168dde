/* SPDX-License-Identifier: Apache-2.0 */
/*
 * near.h - which known word somebody most likely meant.
 *
 * Owns the distance between two words and the choice among candidates; what
 * the words are and how the answer is put to the user belongs to the callers.
 * Nothing here allocates or keeps state: any thread may call it.
 */
#ifndef MOE_CORE_SUPPORT_NEAR_H
#define MOE_CORE_SUPPORT_NEAR_H

#include <stddef.h>

/* Edits (insert, delete, replace, swap neighbours) that make one word the
 * other; words over 63 bytes count as 1000 apart. */
unsigned moe_edits(const char *a, const char *b);

/* What the user most likely meant, or NULL: keep asking with further
 * candidates, then read best. A candidate is near with one slip in a short
 * word, a third of the letters of a long one, or when the word abbreviates
 * it. */
struct moe_nearest {
    const char *asked;
    const char *best;
    unsigned    distance;
};
void moe_nearest_try(struct moe_nearest *n, const char *candidate);

/* Those of a blank-separated list that lie nearest, equally near and at most
 * three, "a or b", into buf; "" where none is near (over half of the letters
 * differ). */
void moe_words_near(const char *asked, const char *words, char *buf,
                    size_t size);

#endif /* MOE_CORE_SUPPORT_NEAR_H */
