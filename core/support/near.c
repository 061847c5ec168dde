/* SPDX-License-Identifier: Apache-2.0 */
/* near.c - see near.h. The distance is that of Damerau and Levenshtein in its
 * restricted form (no letter is edited twice). */
#include "support/near.h"

#include <stdio.h>
#include <string.h>

unsigned
moe_edits(const char *a, const char *b)
{
    unsigned row[3][64]; /* the last three rows of the table */
    size_t   na = strlen(a), nb = strlen(b), i, j;

    if (na > 63 || nb > 63)
        return 1000;
    for (j = 0; j <= nb; j++)
        row[0][j] = (unsigned) j;
    for (i = 1; i <= na; i++) {
        unsigned       *now = row[i % 3];
        const unsigned *up = row[(i + 2) % 3];
        const unsigned *up2 = row[(i + 1) % 3];

        now[0] = (unsigned) i;
        for (j = 1; j <= nb; j++) {
            unsigned d = up[j - 1] + (a[i - 1] != b[j - 1]);

            if (up[j] + 1 < d)
                d = up[j] + 1;
            if (now[j - 1] + 1 < d)
                d = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]
                && up2[j - 2] + 1 < d)
                d = up2[j - 2] + 1;
            now[j] = d;
        }
    }
    return row[na % 3][nb];
}

void
moe_nearest_try(struct moe_nearest *n, const char *candidate)
{
    /* one slip in a short name, a third of a long one */
    size_t   len = strlen(n->asked);
    unsigned limit = len < 4 ? 1 : (unsigned) (len + 2) / 3;
    unsigned d = moe_edits(n->asked, candidate);

    if (len > 4 && strncmp(candidate, n->asked, len) == 0 && d > 1)
        d = 2; /* typed as an abbreviation */
    if (d <= limit && (n->best == NULL || d < n->distance)) {
        n->best = candidate;
        n->distance = d;
    }
}

void
moe_words_near(const char *asked, const char *words, char *buf, size_t size)
{
    char     word[64], best[3][64];
    unsigned far[3] = { 1000, 1000, 1000 };
    size_t   n, i, j, at = 0, len = strlen(asked);

    buf[0] = '\0';
    for (; *words != '\0'; words += n + strspn(words + n, " ")) {
        unsigned d;

        n = strcspn(words, " ");
        if (n == 0 || n >= sizeof(word))
            continue;
        memcpy(word, words, n);
        word[n] = '\0';
        d = moe_edits(asked, word);
        if (len >= 2 && strstr(word, asked) != NULL)
            d = 1; /* a part of a name */
        if (d * 2 > (len > n ? len : n))
            continue;
        for (i = 0; i < 3 && far[i] <= d; i++)
            ;
        if (i == 3)
            continue;
        for (j = 2; j > i; j--) {
            far[j] = far[j - 1];
            memcpy(best[j], best[j - 1], sizeof(best[0]));
        }
        far[i] = d;
        memcpy(best[i], word, n + 1);
    }
    for (i = 0; i < 3 && far[i] < 1000 && far[i] == far[0]; i++) {
        int wrote = snprintf(buf + at, size - at, "%s%s",
                             i > 0 ? " or " : "", best[i]);

        at += (size_t) wrote < size - at ? (size_t) wrote : 0;
    }
}
