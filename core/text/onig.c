/* SPDX-License-Identifier: Apache-2.0 */
/*
 * onig.c - rewrite an Oniguruma pattern for PCRE2.
 *
 * Owns the differences of syntax and of character classes.  Both engines
 * backtrack and take the leftmost match, so the rest carries over.  Facts:
 * Oniguruma's doc/RE and the reference's answers for every code point.
 *
 *   \h \v \w \b [a&&b] [[...]] {,n} {n}+ (?m)   mean something else in PCRE2
 *   \w     Alphabetic, M, Nd, Pc; alone also six Latin-1 signs
 *   groups capture nothing here, so all become (?:...)
 *
 * Leaves what stands for one character to onigclass.c.
 */
#include "text/onig.h"

#include <string.h>

#include "text/unicode.h"

static void
add(struct moe_str *s, const char *text)
{
    moe_str_add(s, text, strlen(text));
}

/* (?imx-imx) or (?imx-imx:; o->p at the first letter.  Oniguruma's m is
 * PCRE2's s.  *scoped: ended by ':'. */
static void
read_flags(struct moe_onig *o, struct moe_str *out, int *scoped)
{
    add(out, "(?");
    for (; o->p < o->end; o->p++) {
        switch (*o->p) {
        case 'i':
            add(out, "i");
            break;
        case 'm':
            add(out, "s");
            break;
        case '-':
            add(out, "-");
            break;
        case ':':
        case ')':
            *scoped = *o->p == ':';
            o->p++;
            add(out, ":");
            return;
        default:
            moe_onig_refuse(o, "a group option other than i and m");
            return;
        }
    }
    moe_onig_broken(o, "( without )");
}

/* Put text in at a place that was written before. */
static void
insert(struct moe_str *s, size_t at, const char *text)
{
    size_t n = strlen(text);

    add(s, text);
    if (s->failed)
        return;
    memmove(s->text + at + n, s->text + at, s->len - n - at);
    memcpy(s->text + at, text, n);
}

/* {n} {n,} {n,m} {,m} at o->p; 0 if the brace is a literal one. */
static int
read_interval(struct moe_onig *o, char *buf, size_t size, int *fixed)
{
    const char *p = o->p + 1;
    unsigned    lo = 0, hi = 0;
    int         has_lo = 0, has_hi = 0, comma = 0;

    for (; p < o->end && *p >= '0' && *p <= '9' && lo < 100000; p++) {
        lo = lo * 10 + (unsigned) (*p - '0');
        has_lo = 1;
    }
    if (p < o->end && *p == ',') {
        comma = 1;
        for (p++; p < o->end && *p >= '0' && *p <= '9' && hi < 100000; p++) {
            hi = hi * 10 + (unsigned) (*p - '0');
            has_hi = 1;
        }
    }
    if (p >= o->end || *p != '}' || (!has_lo && !has_hi))
        return 0;
    *fixed = !comma;
    if (!comma)
        snprintf(buf, size, "{%u}", lo);
    else if (has_hi)
        snprintf(buf, size, "{%u,%u}", lo, hi);
    else
        snprintf(buf, size, "{%u,}", lo);
    o->p = p + 1;
    return 1;
}

/* What stands before a quantifier. */
struct atom {
    size_t start; /* offset in the output */
    int    is, quantified;
};

static void
quantify(struct moe_onig *o, struct atom *a, const char *text,
         struct moe_str *out)
{
    if (!a->is) {
        moe_onig_broken(o, "nothing to repeat");
        return;
    }
    if (a->quantified) { /* a** is (?:a*)* */
        insert(out, a->start, "(?:");
        add(out, ")");
    }
    add(out, text);
    a->quantified = 1;
}

/* A set outside brackets, such as \w. */
static void
add_alone(struct moe_str *out, struct moe_onig_set *s)
{
    moe_onig_term(out, s);
    moe_onig_set_free(s);
}

static void
read_escape(struct moe_onig *o, struct atom *atom, struct moe_str *out)
{
    struct moe_onig_set s = {0};
    uint32_t   cp;
    char       c = o->end - o->p > 1 ? o->p[1] : '\0';

    atom->start = out->len;
    atom->is = 1;
    atom->quantified = 0;
    o->p++;
    switch (c) {
    case 'p':
    case 'P':
        o->p++;
        moe_onig_property(o, c == 'P', &s, 1);
        add_alone(out, &s);
        return;
    case 'R':
        add(out, "\\R");
        break;
    case 'N':
        add(out, ".");
        break;
    case 'O':
        add(out, "(?s:.)");
        break;
    case 'A':
    case 'z':
    case 'Z':
    case 'G':
        moe_str_addf(out, "\\%c", c);
        atom->is = 0;
        break;
    case 'b':
    case 'B': {
        struct moe_str w = {0};

        moe_onig_shorthand(o, 'w', &s, 1);
        add_alone(&w, &s);
        if (w.failed) {
            out->failed = 1;
            return;
        }
        if (c == 'b')
            moe_str_addf(out, "(?:(?<=%s)(?!%s)|(?<!%s)(?=%s))", w.text,
                         w.text, w.text, w.text);
        else
            moe_str_addf(out, "(?:(?<=%s)(?=%s)|(?<!%s)(?!%s))", w.text,
                         w.text, w.text, w.text);
        moe_str_free(&w);
        atom->is = 0;
        break;
    }
    default:
        if (moe_onig_shorthand(o, c, &s, 1)) {
            add_alone(out, &s);
            break;
        }
        if (moe_onig_char(o, &cp))
            moe_onig_put(out, cp);
        else
            moe_onig_refuse(o, "an escape outside its list");
        return;
    }
    o->p++;
}

/* '(' and what says which kind of group; returns 1 if a group was opened,
 * 0 for a comment and for options that hold to the group's end. */
static int
read_group(struct moe_onig *o, struct moe_str *out, int *option)
{
    const char *p = o->p + 1;
    int         scoped = 0;

    *option = 0;
    if (p >= o->end || *p != '?') {
        o->p = p;
        add(out, "(?:");
        return 1;
    }
    p++;
    if (p >= o->end) {
        moe_onig_broken(o, "( without )");
        return 1;
    }
    if (*p == ':' || *p == '=' || *p == '!' || *p == '>') {
        moe_str_addf(out, "(?%c", *p);
        o->p = p + 1;
        return 1;
    }
    if (*p == '#') {
        while (p < o->end && *p != ')')
            p++;
        o->p = p < o->end ? p + 1 : p;
        return 0;
    }
    if (*p == '<' && o->end - p > 1 && (p[1] == '=' || p[1] == '!')) {
        moe_str_addf(out, "(?<%c", p[1]);
        o->p = p + 2;
        return 1;
    }
    if (*p == '<' || *p == '\'') {
        char close = *p == '<' ? '>' : '\'';

        for (p++; p < o->end && *p != close;)
            p++;
        if (p >= o->end) {
            moe_onig_broken(o, "a group's name without end");
            return 1;
        }
        o->p = p + 1;
        add(out, "(?:");
        return 1;
    }
    if (*p == 'i' || *p == 'm' || *p == '-') {
        o->p = p;
        read_flags(o, out, &scoped);
        *option = !scoped;
        return scoped;
    }
    moe_onig_refuse(o, "a kind of group outside its list");
    return 1;
}

moe_status
moe_onig_to_pcre(const char *pattern, size_t len, int exact, const char *what,
                 struct moe_str *out, struct moe_error *err)
{
    struct moe_onig o = {pattern, pattern + len, exact, what, err, MOE_OK};
    struct atom atom = {0};
    struct {
        size_t   start; /* of the group in the output                 */
        unsigned close; /* option groups to close together with it    */
    } group[MOE_ONIG_NEST];
    int depth = 0;

    group[0].start = 0;
    group[0].close = 0;
    while (o.p < o.end && o.status == MOE_OK) {
        char buf[32];
        int  fixed, option;

        switch (*o.p) {
        case '\\':
            read_escape(&o, &atom, out);
            break;
        case '[':
            atom.start = out->len;
            atom.is = 1;
            atom.quantified = 0;
            o.p++;
            moe_onig_class(&o, 0, NULL, out);
            break;
        case '(': {
            size_t start = out->len;

            if (read_group(&o, out, &option)) {
                if (depth + 1 >= MOE_ONIG_NEST) {
                    moe_onig_refuse(&o, "groups nested this deep");
                    break;
                }
                depth++;
                group[depth].start = start;
                group[depth].close = 0;
                atom.is = 0;
            } else if (option) {
                if (++group[depth].close > MOE_ONIG_NEST)
                    moe_onig_refuse(&o, "that many group options");
                atom.is = 0;
            }
            break;
        }
        case ')':
            o.p++;
            if (depth == 0) {
                moe_onig_broken(&o, ") without (");
                break;
            }
            while (group[depth].close-- > 0)
                add(out, ")");
            add(out, ")");
            atom.start = group[depth].start;
            atom.is = 1;
            atom.quantified = 0;
            depth--;
            break;
        case '|':
        case '^':
        case '$':
            moe_str_add(out, o.p++, 1);
            atom.is = 0;
            break;
        case '*':
        case '+':
        case '?': {
            size_t n = 0;

            buf[n++] = *o.p++;
            if (o.p < o.end && (*o.p == '?' || *o.p == '+'))
                buf[n++] = *o.p++;
            buf[n] = '\0';
            quantify(&o, &atom, buf, out);
            break;
        }
        case '{':
            if (atom.is && read_interval(&o, buf, sizeof(buf) - 1, &fixed)) {
                /* {n}? and {n,m}+ are two quantifiers, {n,m}? is one */
                if (!fixed && o.p < o.end && *o.p == '?') {
                    strcat(buf, "?");
                    o.p++;
                }
                quantify(&o, &atom, buf, out);
                break;
            }
            /* fall through */
        default: {
            uint32_t cp;

            atom.start = out->len;
            atom.is = 1;
            atom.quantified = 0;
            if (*o.p == '.') {
                add(out, ".");
                o.p++;
                break;
            }
            o.p += moe_utf8_get(o.p, &cp);
            moe_onig_put(out, cp);
            break;
        }
        }
        if (out->len > ((size_t) 1 << 20))
            moe_onig_refuse(&o, "more than moe-run's limit of a pattern");
    }
    if (o.status == MOE_OK && depth != 0)
        moe_onig_broken(&o, "( without )");
    while (o.status == MOE_OK && group[0].close-- > 0)
        add(out, ")");
    if (o.status == MOE_OK && out->failed)
        o.status = MOE_E_NOMEM;
    if (o.status == MOE_E_NOMEM)
        moe_fail(err, MOE_E_NOMEM, 0, "%s: out of memory", what);
    return o.status;
}
