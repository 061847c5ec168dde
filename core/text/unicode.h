/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unicode.h - UTF-8 and the character facts that a tokenizer needs.
 *
 * Owns decoding and checking of UTF-8, the byte-level alphabet, and tables of
 * what the reference tokenizers library thinks of each character
 * (unitab.c, generated).  Leaves normal forms to utf8proc (normal.c) and
 * regular expressions to PCRE2 (regex.c): both know another Unicode version
 * than the reference, which is why the tables exist.
 */
#ifndef MOE_CORE_TEXT_UNICODE_H
#define MOE_CORE_TEXT_UNICODE_H

#include <stddef.h>
#include <stdint.h>

struct moe_unirange {
    uint32_t lo, hi; /* both included */
};

struct moe_unigap {
    uint32_t lo, hi;
    uint32_t what; /* MOE_GC_..., or an index of moe_uni_script */
};

/* General categories, in the order of the generator. */
enum {
    MOE_GC_LU, MOE_GC_LL, MOE_GC_LT, MOE_GC_LM, MOE_GC_LO, MOE_GC_MN,
    MOE_GC_MC, MOE_GC_ME, MOE_GC_ND, MOE_GC_NL, MOE_GC_NO, MOE_GC_PC,
    MOE_GC_PD, MOE_GC_PS, MOE_GC_PE, MOE_GC_PI, MOE_GC_PF, MOE_GC_PO,
    MOE_GC_SM, MOE_GC_SC, MOE_GC_SK, MOE_GC_SO, MOE_GC_ZS, MOE_GC_ZL,
    MOE_GC_ZP, MOE_GC_CC, MOE_GC_CF, MOE_GC_CO
};

extern const struct moe_unirange moe_uni_word[], moe_uni_numeric[],
    moe_uni_punct[], moe_uni_mark[], moe_uni_inert[];
extern const uint32_t moe_uni_word_n, moe_uni_numeric_n, moe_uni_punct_n,
    moe_uni_mark_n, moe_uni_inert_n;
extern const struct moe_unigap moe_uni_gap[], moe_uni_script_gap[];
extern const uint32_t moe_uni_gap_n, moe_uni_script_gap_n;
extern const char *const moe_uni_script[];
extern const uint32_t moe_uni_script_n;

/* True if cp lies in one of n sorted ranges. */
int moe_uni_in(const struct moe_unirange *table, uint32_t n, uint32_t cp);

int moe_uni_is_white(uint32_t cp);   /* White_Space */
int moe_uni_is_word(uint32_t cp);    /* \w of the Rust regex crate */
int moe_uni_is_numeric(uint32_t cp); /* Nd, Nl, No */
int moe_uni_is_punct(uint32_t cp);
int moe_uni_is_gap(uint32_t cp); /* PCRE2 and the reference may differ */

/* One lower-case mapping; U+0130 alone has two characters, *second then is
 * not 0. */
uint32_t moe_uni_lower(uint32_t cp, uint32_t *second);

/*
 * Check len bytes.  Returns 1 if they are UTF-8 (no surrogates, nothing above
 * U+10FFFF, no overlong form) and stores whether a character of moe_uni_gap
 * is among them; returns 0 and the offset of the first bad byte otherwise.
 */
int moe_utf8_check(const char *text, size_t len, int *gap, size_t *bad);

/* Length of the sequence that starts with this byte, in checked text. */
static inline size_t
moe_utf8_len(char lead)
{
    uint8_t b = (uint8_t) lead;

    return b < 0x80 ? 1 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;
}

/* Decode one character of checked text; returns its bytes. */
static inline size_t
moe_utf8_get(const char *text, uint32_t *cp)
{
    const uint8_t *p = (const uint8_t *) text;

    if (p[0] < 0x80) {
        *cp = p[0];
        return 1;
    }
    if (p[0] < 0xe0) {
        *cp = (uint32_t) (p[0] & 0x1f) << 6 | (p[1] & 0x3f);
        return 2;
    }
    if (p[0] < 0xf0) {
        *cp = (uint32_t) (p[0] & 0x0f) << 12 | (uint32_t) (p[1] & 0x3f) << 6
              | (p[2] & 0x3f);
        return 3;
    }
    *cp = (uint32_t) (p[0] & 0x07) << 18 | (uint32_t) (p[1] & 0x3f) << 12
          | (uint32_t) (p[2] & 0x3f) << 6 | (p[3] & 0x3f);
    return 4;
}

/* Encode cp into out (at least 4 bytes); returns the bytes written. */
size_t moe_utf8_put(uint32_t cp, char *out);

/*
 * How many bytes of an ill-formed or cut sequence at text form one "maximal
 * subpart" (Unicode 3.9, what lossy decoders replace by one U+FFFD), or the
 * length of a well-formed one.  *ok: 1 well-formed, 0 ill-formed, -1 cut: the
 * bytes end before it is decided.  len > 0.
 */
size_t moe_utf8_step(const char *text, size_t len, int *ok);

/* GPT-2's map of bytes to printable characters, and back (-1: none). */
static inline uint32_t
moe_byte_char(uint8_t b)
{
    return b <= 32 ? 256u + b : b >= 127 && b <= 160 ? b + 162u
           : b == 173 ? 323u : b;
}

static inline int
moe_char_byte(uint32_t cp)
{
    if (cp >= 256)
        return cp <= 288 ? (int) cp - 256
               : cp <= 322 ? (int) cp - 162
               : cp == 323 ? 173 : -1;
    return (cp >= 33 && cp <= 126) || (cp >= 161 && cp != 173) ? (int) cp
                                                               : -1;
}

#endif /* MOE_CORE_TEXT_UNICODE_H */
