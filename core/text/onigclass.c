/* SPDX-License-Identifier: Apache-2.0 */
/*
 * onigclass.c - Oniguruma's character classes for PCRE2.
 *
 * Owns properties, shorthands, escapes of characters and [...].  A class that
 * PCRE2 cannot spell (intersections, complements within a class) becomes
 * alternatives and look-aheads that still take exactly one character.
 */
#include "text/onig.h"

#include <string.h>

#include "text/unicode.h"

#define BIT(gc)  (1u << MOE_GC_##gc)
#define GC_L     (BIT(LU) | BIT(LL) | BIT(LT) | BIT(LM) | BIT(LO))
#define GC_M     (BIT(MN) | BIT(MC) | BIT(ME))
#define GC_N     (BIT(ND) | BIT(NL) | BIT(NO))
#define GC_P     (BIT(PC) | BIT(PD) | BIT(PS) | BIT(PE) | BIT(PI) | BIT(PF) \
                  | BIT(PO))
#define GC_S     (BIT(SM) | BIT(SC) | BIT(SK) | BIT(SO))
#define GC_Z     (BIT(ZS) | BIT(ZL) | BIT(ZP))
#define GC_C     (BIT(CC) | BIT(CF) | BIT(CO))
#define GC_WORD  (GC_L | GC_M | BIT(ND) | BIT(NL) | BIT(PC))

static const struct {
    const char *name; /* lower case, no spaces, '_' or '-' */
    const char *pcre; /* class item                        */
    uint32_t    gaps; /* categories to complete it with    */
} props[] = {
    {"l", "\\p{L}", GC_L},          {"letter", "\\p{L}", GC_L},
    {"lc", "\\p{L&}", BIT(LU) | BIT(LL) | BIT(LT)},
    {"casedletter", "\\p{L&}", BIT(LU) | BIT(LL) | BIT(LT)},
    {"lu", "\\p{Lu}", BIT(LU)},     {"uppercaseletter", "\\p{Lu}", BIT(LU)},
    {"ll", "\\p{Ll}", BIT(LL)},     {"lowercaseletter", "\\p{Ll}", BIT(LL)},
    {"lt", "\\p{Lt}", BIT(LT)},     {"titlecaseletter", "\\p{Lt}", BIT(LT)},
    {"lm", "\\p{Lm}", BIT(LM)},     {"modifierletter", "\\p{Lm}", BIT(LM)},
    {"lo", "\\p{Lo}", BIT(LO)},     {"otherletter", "\\p{Lo}", BIT(LO)},
    {"m", "\\p{M}", GC_M},          {"mark", "\\p{M}", GC_M},
    {"combiningmark", "\\p{M}", GC_M},
    {"mn", "\\p{Mn}", BIT(MN)},     {"nonspacingmark", "\\p{Mn}", BIT(MN)},
    {"mc", "\\p{Mc}", BIT(MC)},     {"spacingmark", "\\p{Mc}", BIT(MC)},
    {"me", "\\p{Me}", BIT(ME)},     {"enclosingmark", "\\p{Me}", BIT(ME)},
    {"n", "\\p{N}", GC_N},          {"number", "\\p{N}", GC_N},
    {"nd", "\\p{Nd}", BIT(ND)},     {"decimalnumber", "\\p{Nd}", BIT(ND)},
    {"digit", "\\p{Nd}", BIT(ND)},
    {"nl", "\\p{Nl}", BIT(NL)},     {"letternumber", "\\p{Nl}", BIT(NL)},
    {"no", "\\p{No}", BIT(NO)},     {"othernumber", "\\p{No}", BIT(NO)},
    {"p", "\\p{P}", GC_P},          {"punctuation", "\\p{P}", GC_P},
    {"punct", "\\p{P}", GC_P},
    {"pc", "\\p{Pc}", BIT(PC)},
    {"connectorpunctuation", "\\p{Pc}", BIT(PC)},
    {"pd", "\\p{Pd}", BIT(PD)},     {"dashpunctuation", "\\p{Pd}", BIT(PD)},
    {"ps", "\\p{Ps}", BIT(PS)},     {"openpunctuation", "\\p{Ps}", BIT(PS)},
    {"pe", "\\p{Pe}", BIT(PE)},     {"closepunctuation", "\\p{Pe}", BIT(PE)},
    {"pi", "\\p{Pi}", BIT(PI)},
    {"initialpunctuation", "\\p{Pi}", BIT(PI)},
    {"pf", "\\p{Pf}", BIT(PF)},     {"finalpunctuation", "\\p{Pf}", BIT(PF)},
    {"po", "\\p{Po}", BIT(PO)},     {"otherpunctuation", "\\p{Po}", BIT(PO)},
    {"s", "\\p{S}", GC_S},          {"symbol", "\\p{S}", GC_S},
    {"sm", "\\p{Sm}", BIT(SM)},     {"mathsymbol", "\\p{Sm}", BIT(SM)},
    {"sc", "\\p{Sc}", BIT(SC)},     {"currencysymbol", "\\p{Sc}", BIT(SC)},
    {"sk", "\\p{Sk}", BIT(SK)},     {"modifiersymbol", "\\p{Sk}", BIT(SK)},
    {"so", "\\p{So}", BIT(SO)},     {"othersymbol", "\\p{So}", BIT(SO)},
    {"z", "\\p{Z}", GC_Z},          {"separator", "\\p{Z}", GC_Z},
    {"zs", "\\p{Zs}", BIT(ZS)},     {"spaceseparator", "\\p{Zs}", BIT(ZS)},
    {"zl", "\\p{Zl}", BIT(ZL)},     {"lineseparator", "\\p{Zl}", BIT(ZL)},
    {"zp", "\\p{Zp}", BIT(ZP)},
    {"paragraphseparator", "\\p{Zp}", BIT(ZP)},
    {"cc", "\\p{Cc}", BIT(CC)},     {"control", "\\p{Cc}", BIT(CC)},
    {"cf", "\\p{Cf}", BIT(CF)},     {"format", "\\p{Cf}", BIT(CF)},
    {"co", "\\p{Co}", BIT(CO)},     {"privateuse", "\\p{Co}", BIT(CO)},
    {"any", "\\x{0}-\\x{10ffff}", 0},
    {"ascii", "\\x{0}-\\x{7f}", 0},
};

void
moe_onig_set_free(struct moe_onig_set *s)
{
    moe_str_free(&s->simple);
    moe_str_free(&s->alts);
}

static void
add(struct moe_str *s, const char *text)
{
    moe_str_add(s, text, strlen(text));
}

static void
add_alt(struct moe_onig_set *s, const char *text, size_t len)
{
    if (s->alts.len != 0)
        add(&s->alts, "|");
    moe_str_add(&s->alts, text, len);
}

/* Remember the first failure; parsing stops at it. */
void
moe_onig_refuse(struct moe_onig *o, const char *construct)
{
    if (o->status == MOE_OK)
        o->status = moe_fail(o->err, MOE_E_UNSUPPORTED, 0,
                             "%s: the pattern uses %s, which moe-run does "
                             "not know; use a tokenizer without it",
                             o->what, construct);
}

void
moe_onig_broken(struct moe_onig *o, const char *why)
{
    if (o->status == MOE_OK)
        o->status = moe_fail(o->err, MOE_E_CORRUPT, 0,
                             "%s: not a regular expression: %s; fetch the "
                             "file again", o->what, why);
}

static void
add_gaps(struct moe_str *s, uint32_t mask)
{
    for (uint32_t i = 0; i < moe_uni_gap_n; i++)
        if (mask & (1u << moe_uni_gap[i].what))
            moe_str_addf(s, "\\x{%x}-\\x{%x}", moe_uni_gap[i].lo,
                         moe_uni_gap[i].hi);
}

/* One character as a class item or a literal. */
void
moe_onig_put(struct moe_str *s, uint32_t cp)
{
    char buf[4];

    if (cp < 0x80 && !((cp | 32) >= 'a' && (cp | 32) <= 'z')
        && !(cp >= '0' && cp <= '9'))
        moe_str_addf(s, "\\x{%x}", cp);
    else
        moe_str_add(s, buf, moe_utf8_put(cp, buf));
}

static int
hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* Items of a named kind, without brackets; 0 if the name is unknown. */
static int
add_named(struct moe_onig *o, const char *name, struct moe_str *out)
{
    if (strcmp(name, "space") == 0 || strcmp(name, "whitespace") == 0) {
        add(out, o->exact ? "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}"
                            "\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"
                            "\\x{205f}\\x{3000}"
                          : "\\s");
        return 1;
    }
    if (strcmp(name, "word") == 0) {
        add(out, "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}"
                 "\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}"
                 "\\x{1f170}-\\x{1f189}");
        if (o->exact)
            add_gaps(out, GC_WORD);
        return 1;
    }
    for (size_t i = 0; i < sizeof(props) / sizeof(props[0]); i++) {
        if (strcmp(name, props[i].name) != 0)
            continue;
        add(out, props[i].pcre);
        if (o->exact)
            add_gaps(out, props[i].gaps);
        return 1;
    }
    for (uint32_t i = 0; i < moe_uni_script_n; i++) {
        const char *script = moe_uni_script[i];
        size_t      n = strlen(script);

        if (strlen(name) != n || (script[0] | 32) != name[0]
            || strcmp(script + 1, name + 1) != 0)
            continue;
        moe_str_addf(out, "\\p{sc:%s}", script);
        if (o->exact)
            for (uint32_t k = 0; k < moe_uni_script_gap_n; k++)
                if (moe_uni_script_gap[k].what == i)
                    moe_str_addf(out, "\\x{%x}-\\x{%x}",
                                 moe_uni_script_gap[k].lo,
                                 moe_uni_script_gap[k].hi);
        return 1;
    }
    return 0;
}

/*
 * One kind of character into a class.  Within PCRE2's [...] a complement that
 * is made of several items cannot stand, so it becomes an alternative.
 */
static void
add_kind(struct moe_onig *o, const char *name, int negate,
         struct moe_onig_set *s)
{
    struct moe_str items = {0};

    /* "unassigned" shrinks as Unicode grows: take the newer ones away */
    if (strcmp(name, "c") == 0 || strcmp(name, "other") == 0
        || strcmp(name, "cn") == 0 || strcmp(name, "unassigned") == 0) {
        int all = name[0] == 'o' || name[1] == '\0';

        add(&items, negate ? "(?:(?!" : "");
        if (o->exact) {
            add(&items, "(?![");
            add_gaps(&items, all ? 0xffffffffu & ~GC_C : 0xffffffffu);
            add(&items, "])");
        }
        add(&items, all ? "\\p{C}" : "\\p{Cn}");
        add(&items, negate ? ")(?s:.))" : "");
        add_alt(s, items.text, items.len);
    } else if (!add_named(o, name, &items)) {
        moe_onig_refuse(o, "a character property, script or block outside "
                           "its list");
    } else if (!negate) {
        moe_str_add(&s->simple, items.text, items.len);
    } else {
        if (s->alts.len != 0)
            add(&s->alts, "|");
        add(&s->alts, "[^");
        moe_str_add(&s->alts, items.text, items.len);
        add(&s->alts, "]");
    }
    s->simple.failed |= items.failed;
    moe_str_free(&items);
}

/* \p{...}, \P{...}, \p{^...}; o->p is behind the p. */
void
moe_onig_property(struct moe_onig *o, int negate, struct moe_onig_set *s,
                  int alone)
{
    char   name[32];
    size_t n = 0;

    if (o->p >= o->end || *o->p != '{') {
        moe_onig_refuse(o, "\\p without braces");
        return;
    }
    o->p++;
    if (o->p < o->end && *o->p == '^') {
        negate = !negate;
        o->p++;
    }
    while (o->p < o->end && *o->p != '}') {
        char c = *o->p++;

        if (c == ' ' || c == '_' || c == '-')
            continue;
        if (n + 1 >= sizeof(name)) {
            moe_onig_refuse(o, "a long property name");
            return;
        }
        name[n++] = c >= 'A' && c <= 'Z' ? (char) (c + 32) : c;
    }
    if (o->p >= o->end) {
        moe_onig_broken(o, "\\p{ without }");
        return;
    }
    o->p++;
    name[n] = '\0';
    if (alone && strcmp(name, "word") == 0)
        add(&s->simple, negate ? "" : "\\x{b2}\\x{b3}\\x{b9}"
                                      "\\x{bc}-\\x{be}");
    if (alone && negate && strcmp(name, "word") == 0) {
        /* one complement of everything, the six signs included */
        struct moe_str items = {0};

        add_named(o, name, &items);
        add(&s->alts, "[^\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}");
        moe_str_add(&s->alts, items.text, items.len);
        add(&s->alts, "]");
        s->alts.failed |= items.failed;
        moe_str_free(&items);
        return;
    }
    add_kind(o, name, negate, s);
}

/* \d \s \w \h and their complements; 0 if c is none of them. */
int
moe_onig_shorthand(struct moe_onig *o, char c, struct moe_onig_set *s,
                   int alone)
{
    struct moe_onig sub = *o;
    const char *p;

    switch (c) {
    case 'd':
    case 'D':
        add_kind(o, "nd", c == 'D', s);
        return 1;
    case 's':
    case 'S':
        add_kind(o, "space", c == 'S', s);
        return 1;
    case 'w':
    case 'W':
        p = "{word}";
        sub.p = p;
        sub.end = p + strlen(p);
        moe_onig_property(&sub, c == 'W', s, alone);
        return 1;
    case 'h':
        add(&s->simple, "0-9a-fA-F");
        return 1;
    case 'H':
        add_alt(s, "[^0-9a-fA-F]", 12);
        return 1;
    default:
        return 0;
    }
}

/* The character that an escape stands for; o->p is behind the backslash.
 * Returns 0 when the escape is no character. */
int
moe_onig_char(struct moe_onig *o, uint32_t *cp)
{
    uint32_t v = 0;
    int      n = 0, d;
    char     c;

    if (o->p >= o->end) {
        moe_onig_broken(o, "ends in a backslash");
        return 0;
    }
    c = *o->p;
    switch (c) {
    case 't': *cp = 9; break;
    case 'n': *cp = 10; break;
    case 'v': *cp = 11; break;
    case 'f': *cp = 12; break;
    case 'r': *cp = 13; break;
    case 'a': *cp = 7; break;
    case 'e': *cp = 27; break;
    case '0':
        while (n < 3 && o->p < o->end && *o->p >= '0' && *o->p <= '7') {
            v = v * 8 + (uint32_t) (*o->p++ - '0');
            n++;
        }
        if (v > 0x7f)
            moe_onig_refuse(o, "an octal byte above 177");
        *cp = v;
        return 1;
    case 'u':
        for (o->p++; n < 4 && o->p < o->end
                     && (d = hex_digit(*o->p)) >= 0; n++, o->p++)
            v = v * 16 + (uint32_t) d;
        if (n != 4 || (v >= 0xd800 && v < 0xe000))
            moe_onig_broken(o, "a bad \\u");
        *cp = v;
        return 1;
    case 'x':
        o->p++;
        if (o->p < o->end && *o->p == '{') {
            for (o->p++; n < 8 && o->p < o->end
                         && (d = hex_digit(*o->p)) >= 0; n++, o->p++)
                v = v * 16 + (uint32_t) d;
            if (n == 0 || o->p >= o->end || *o->p != '}' || v > 0x10ffff
                || (v >= 0xd800 && v < 0xe000))
                moe_onig_broken(o, "a bad \\x{}");
            else
                o->p++;
        } else {
            for (; n < 2 && o->p < o->end
                   && (d = hex_digit(*o->p)) >= 0; n++, o->p++)
                v = v * 16 + (uint32_t) d;
            if (n == 0)
                moe_onig_broken(o, "a bad \\x");
            if (v > 0x7f)
                moe_onig_refuse(o, "\\x with a byte above 7f");
        }
        *cp = v;
        return o->status == MOE_OK;
    default:
        if ((uint8_t) c < 0x80 && ((c | 32) < 'a' || (c | 32) > 'z')
            && (c < '0' || c > '9')) {
            *cp = (uint8_t) c;
            break;
        }
        if ((uint8_t) c >= 0x80) {
            o->p += moe_utf8_get(o->p, cp);
            return 1;
        }
        return 0;
    }
    o->p++;
    return 1;
}

/* [:name:] inside a class; 0 if it is something else. */
static int
read_posix(struct moe_onig *o, struct moe_onig_set *s)
{
    static const struct {
        const char *name, *kind, *more;
    } posix[] = {
        {"digit", "nd", ""},     {"space", "space", ""},
        {"word", "word", ""},    {"punct", "p", "s"},
        {"cntrl", "cc", ""},
    };
    const char *p = o->p; /* at "[:" */
    int         negate = 0;

    if (o->end - p < 4 || p[1] != ':')
        return 0;
    p += 2;
    if (*p == '^') {
        negate = 1;
        p++;
    }
    for (size_t i = 0; i < sizeof(posix) / sizeof(posix[0]); i++) {
        size_t n = strlen(posix[i].name);

        if ((size_t) (o->end - p) < n + 2
            || memcmp(p, posix[i].name, n) != 0 || p[n] != ':'
            || p[n + 1] != ']')
            continue;
        if (negate && posix[i].more[0] != '\0') {
            moe_onig_refuse(o, "[:^punct:]");
            return 1;
        }
        add_kind(o, posix[i].kind, negate, s);
        if (posix[i].more[0] != '\0')
            add_kind(o, posix[i].more, 0, s);
        o->p = p + n + 2;
        return 1;
    }
    /* "[:" may also open a nested class that holds a colon */
    while (p < o->end && ((*p | 32) >= 'a' && (*p | 32) <= 'z'))
        p++;
    if (o->end - p >= 2 && p[0] == ':' && p[1] == ']') {
        moe_onig_refuse(o, "a POSIX bracket outside its list");
        return 1;
    }
    return 0;
}

/* One term's text: something that takes one character. */
void
moe_onig_term(struct moe_str *out, const struct moe_onig_set *s)
{
    if (s->simple.len == 0 && s->alts.len == 0) {
        add(out, "(?:(?!)(?s:.))");
    } else if (s->alts.len == 0) {
        add(out, "[");
        moe_str_add(out, s->simple.text, s->simple.len);
        add(out, "]");
    } else {
        add(out, "(?:");
        if (s->simple.len != 0) {
            add(out, "[");
            moe_str_add(out, s->simple.text, s->simple.len);
            add(out, "]|");
        }
        moe_str_add(out, s->alts.text, s->alts.len);
        add(out, ")");
    }
    out->failed |= s->simple.failed | s->alts.failed;
}

/* An item of a class that is a character, or the start of a range. */
static void
read_range(struct moe_onig *o, uint32_t lo, struct moe_onig_set *s)
{
    uint32_t hi;

    if (o->end - o->p < 2 || o->p[0] != '-' || o->p[1] == ']') {
        moe_onig_put(&s->simple, lo);
        return;
    }
    o->p++;
    if (*o->p == '[') {
        moe_onig_refuse(o, "a range that ends in a class");
        return;
    }
    if (*o->p == '\\') {
        o->p++;
        if (!moe_onig_char(o, &hi)) {
            moe_onig_broken(o, "a range that does not end in a character");
            return;
        }
    } else {
        o->p += moe_utf8_get(o->p, &hi);
    }
    if (hi < lo) {
        moe_onig_broken(o, "a range that runs backwards");
        return;
    }
    moe_onig_put(&s->simple, lo);
    add(&s->simple, "-");
    moe_onig_put(&s->simple, hi);
}

/*
 * A class; o->p is behind its '['.  into: the class around it, which simple
 * contents join; NULL at the outside, then the text goes to out.
 */
void
moe_onig_class(struct moe_onig *o, int depth, struct moe_onig_set *into,
               struct moe_str *out)
{
    struct moe_onig_set     term = {0};
    struct moe_str all = {0}; /* look-aheads of the terms before the last */
    int            negate = 0, first = 1, terms = 1, simple;
    uint32_t       cp;

    if (depth > MOE_ONIG_NEST) {
        moe_onig_refuse(o, "classes nested this deep");
        return;
    }
    if (o->p < o->end && *o->p == '^') {
        negate = 1;
        o->p++;
    }
    for (;; first = 0) {
        if (o->status != MOE_OK)
            goto out;
        if (o->p >= o->end) {
            moe_onig_broken(o, "[ without ]");
            goto out;
        }
        if (*o->p == ']' && !first) {
            o->p++;
            break;
        }
        if (o->end - o->p >= 2 && o->p[0] == '&' && o->p[1] == '&') {
            add(&all, "(?=");
            moe_onig_term(&all, &term);
            add(&all, ")");
            moe_onig_set_free(&term);
            memset(&term, 0, sizeof(term));
            o->p += 2;
            terms++;
            continue;
        }
        if (*o->p == '[') {
            if (read_posix(o, &term))
                continue;
            o->p++;
            moe_onig_class(o, depth + 1, &term, NULL);
            continue;
        }
        if (*o->p == '\\') {
            char c = o->end - o->p > 1 ? o->p[1] : '\0';

            o->p++;
            if (c == 'p' || c == 'P') {
                o->p++;
                moe_onig_property(o, c == 'P', &term, 0);
            } else if (moe_onig_shorthand(o, c, &term, 0)) {
                o->p++;
            } else if (c == 'b') {
                o->p++;
                read_range(o, 8, &term);
            } else if (moe_onig_char(o, &cp)) {
                read_range(o, cp, &term);
            } else {
                moe_onig_refuse(o, "an escape in a class");
            }
            continue;
        }
        o->p += moe_utf8_get(o->p, &cp);
        read_range(o, cp, &term);
    }

    simple = terms == 1 && term.alts.len == 0 && term.simple.len != 0;
    if (into != NULL && simple && !negate) {
        moe_str_add(&into->simple, term.simple.text, term.simple.len);
    } else {
        struct moe_str text = {0};

        if (simple && negate) {
            add(&text, "[^");
            moe_str_add(&text, term.simple.text, term.simple.len);
            add(&text, "]");
        } else {
            if (terms > 1 || negate)
                add(&text, negate ? "(?:(?!" : "(?:");
            moe_str_add(&text, all.text, all.len);
            moe_onig_term(&text, &term);
            if (terms > 1 || negate)
                add(&text, negate ? ")(?s:.))" : ")");
        }
        if (into != NULL) {
            add_alt(into, text.text, text.len);
            into->alts.failed |= text.failed;
        } else {
            moe_str_add(out, text.text, text.len);
            out->failed |= text.failed;
        }
        moe_str_free(&text);
    }
out:
    if (term.simple.failed || term.alts.failed || all.failed)
        o->status = o->status != MOE_OK ? o->status : MOE_E_NOMEM;
    moe_onig_set_free(&term);
    moe_str_free(&all);
}
