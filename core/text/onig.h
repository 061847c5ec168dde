/* SPDX-License-Identifier: Apache-2.0 */
/*
 * onig.h - what onig.c (patterns) and onigclass.c (character classes) share.
 */
#ifndef MOE_CORE_TEXT_ONIG_H
#define MOE_CORE_TEXT_ONIG_H

#include "text/regex.h"

#define MOE_ONIG_NEST 64 /* of groups, of classes */

/* A pattern being read; the first failure stays in status. */
struct moe_onig {
    const char       *p, *end;
    int               exact;
    const char       *what;
    struct moe_error *err;
    moe_status        status;
};

/* A class being read: what fits between brackets, and what does not. */
struct moe_onig_set {
    struct moe_str simple; /* items for [...]                  */
    struct moe_str alts;   /* alternatives separated by '|'    */
};

void moe_onig_set_free(struct moe_onig_set *s);
void moe_onig_refuse(struct moe_onig *o, const char *construct);
void moe_onig_broken(struct moe_onig *o, const char *why);

/* One character as a class item or a literal. */
void moe_onig_put(struct moe_str *s, uint32_t cp);
/* The character that an escape stands for; o->p is behind the backslash.
 * Returns 0 when the escape is no character. */
int moe_onig_char(struct moe_onig *o, uint32_t *cp);
/* p{...}, P{...}, p{^...}; o->p is behind the letter.  alone: outside
 * brackets, where the word characters are six more. */
void moe_onig_property(struct moe_onig *o, int negate,
                       struct moe_onig_set *s, int alone);
/* d s w h and their complements; 0 if c is none of them. */
int moe_onig_shorthand(struct moe_onig *o, char c, struct moe_onig_set *s,
                       int alone);
/*
 * A class; o->p is behind its '['.  into: the class around it, which simple
 * contents join; NULL at the outside, then the text goes to out.
 */
void moe_onig_class(struct moe_onig *o, int depth, struct moe_onig_set *into,
                    struct moe_str *out);
/* A set's text: something that takes one character. */
void moe_onig_term(struct moe_str *out, const struct moe_onig_set *s);

#endif /* MOE_CORE_TEXT_ONIG_H */
