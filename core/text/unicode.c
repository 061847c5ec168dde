/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unicode.c - UTF-8 and look-ups in the tables of unitab.c.
 */
#include "text/unicode.h"

#include <string.h>
#include <utf8proc.h>

int
moe_uni_in(const struct moe_unirange *table, uint32_t n, uint32_t cp)
{
    uint32_t lo = 0, hi = n;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (cp > table[mid].hi)
            lo = mid + 1;
        else if (cp < table[mid].lo)
            hi = mid;
        else
            return 1;
    }
    return 0;
}

int
moe_uni_is_white(uint32_t cp)
{
    if (cp < 0x80)
        return cp == ' ' || (cp >= 9 && cp <= 13);
    return cp == 0x85 || cp == 0xa0 || cp == 0x1680
           || (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029
           || cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

int
moe_uni_is_word(uint32_t cp)
{
    if (cp < 0x80)
        return (cp >= '0' && cp <= '9') || ((cp | 32) >= 'a'
               && (cp | 32) <= 'z') || cp == '_';
    return moe_uni_in(moe_uni_word, moe_uni_word_n, cp);
}

int
moe_uni_is_numeric(uint32_t cp)
{
    if (cp < 0x80)
        return cp >= '0' && cp <= '9';
    return moe_uni_in(moe_uni_numeric, moe_uni_numeric_n, cp);
}

int
moe_uni_is_punct(uint32_t cp)
{
    return moe_uni_in(moe_uni_punct, moe_uni_punct_n, cp);
}

int
moe_uni_is_gap(uint32_t cp)
{
    uint32_t lo = 0, hi = moe_uni_gap_n;

    /* PCRE2's \s holds U+180E, which stopped being white space in 2013 */
    if (cp == 0x180e)
        return 1;
    if (cp < moe_uni_gap[0].lo)
        return 0;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (cp > moe_uni_gap[mid].hi)
            lo = mid + 1;
        else if (cp < moe_uni_gap[mid].lo)
            hi = mid;
        else
            return 1;
    }
    return 0;
}

uint32_t
moe_uni_lower(uint32_t cp, uint32_t *second)
{
    /* mappings newer than utf8proc 2.8 (Unicode 15), of Unicode 16 and 17 */
    static const struct {
        uint32_t lo, hi;
        int32_t  delta;
    } newer[] = {
        {0x1c89, 0x1c89, 1},        {0xa7cb, 0xa7cb, 0x264 - 0xa7cb},
        {0xa7cc, 0xa7cc, 1},        {0xa7ce, 0xa7ce, 1},
        {0xa7d2, 0xa7d2, 1},        {0xa7d4, 0xa7d4, 1},
        {0xa7da, 0xa7da, 1},        {0xa7dc, 0xa7dc, 0x19b - 0xa7dc},
        {0x10d50, 0x10d65, 0x20},   {0x16ea0, 0x16eb8, 0x1b},
    };

    *second = 0;
    if (cp < 0x80)
        return cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
    if (cp == 0x130) {
        *second = 0x307;
        return 'i';
    }
    for (size_t i = 0; i < sizeof(newer) / sizeof(newer[0]); i++)
        if (cp >= newer[i].lo && cp <= newer[i].hi)
            return (uint32_t) ((int32_t) cp + newer[i].delta);
    return (uint32_t) utf8proc_tolower((utf8proc_int32_t) cp);
}

size_t
moe_utf8_step(const char *text, size_t len, int *ok)
{
    const uint8_t *p = (const uint8_t *) text;
    uint8_t        lo = 0x80, hi = 0xbf;
    size_t         need;

    *ok = 1;
    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4) {
        *ok = 0;
        return 1;
    }
    need = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    /* the second byte's range rules out overlong forms and surrogates */
    if (p[0] == 0xe0)
        lo = 0xa0;
    else if (p[0] == 0xed)
        hi = 0x9f;
    else if (p[0] == 0xf0)
        lo = 0x90;
    else if (p[0] == 0xf4)
        hi = 0x8f;
    for (size_t i = 1; i < need; i++) {
        if (i >= len) {
            *ok = -1;
            return len;
        }
        if (p[i] < lo || p[i] > hi) {
            *ok = 0;
            return i;
        }
        lo = 0x80;
        hi = 0xbf;
    }
    return need;
}

int
moe_utf8_check(const char *text, size_t len, int *gap, size_t *bad)
{
    size_t i = 0;

    *gap = 0;
    *bad = 0;
    while (i < len) {
        uint32_t cp;
        size_t   n;
        int      ok;

        if ((uint8_t) text[i] < 0x80) {
            uint64_t eight;

            while (i + 8 <= len) {
                memcpy(&eight, text + i, 8);
                if (eight & 0x8080808080808080u)
                    break;
                i += 8;
            }
            while (i < len && (uint8_t) text[i] < 0x80)
                i++;
            continue;
        }
        n = moe_utf8_step(text + i, len - i, &ok);
        if (ok != 1) {
            *bad = i;
            return 0;
        }
        if (n > 2 && !*gap) {
            moe_utf8_get(text + i, &cp);
            *gap = moe_uni_is_gap(cp);
        }
        i += n;
    }
    return 1;
}

size_t
moe_utf8_put(uint32_t cp, char *out)
{
    if (cp < 0x80) {
        out[0] = (char) cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char) (0xc0 | cp >> 6);
        out[1] = (char) (0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char) (0xe0 | cp >> 12);
        out[1] = (char) (0x80 | (cp >> 6 & 0x3f));
        out[2] = (char) (0x80 | (cp & 0x3f));
        return 3;
    }
    out[0] = (char) (0xf0 | cp >> 18);
    out[1] = (char) (0x80 | (cp >> 12 & 0x3f));
    out[2] = (char) (0x80 | (cp >> 6 & 0x3f));
    out[3] = (char) (0x80 | (cp & 0x3f));
    return 4;
}
