/* SPDX-License-Identifier: Apache-2.0 */
/*
 * regex.h - regular expressions written for Oniguruma, matched by PCRE2.
 *
 * tokenizer.json holds patterns in Oniguruma's syntax and its idea of Unicode.
 * onig.c rewrites them for PCRE2; regex.c compiles and matches.  Whatever the
 * rewriter does not know is refused by name: a wrong split would be silent.
 *
 * Known difference: under (?i) Oniguruma also matches one character against
 * two ("ss" against U+00DF); PCRE2 does not.
 */
#ifndef MOE_CORE_TEXT_REGEX_H
#define MOE_CORE_TEXT_REGEX_H

#include <moe/types.h>

#include "support/str.h"

struct moe_regex;

/* What one thread needs while it matches.  Zero-initialise; free after. */
struct moe_rxwork {
    void *data;  /* pcre2_match_data_8    */
    void *ctx;   /* pcre2_match_context_8 */
    void *stack; /* pcre2_jit_stack_8, made when the machine stack is too
                    small                 */
};

/* A walk over the matches of one text. */
struct moe_rxiter {
    size_t at, last_end;
    int    any;
};

/*
 * what: "tokenizer.json: Split", for messages.  jit: 0 uses the interpreter
 * alone.  MOE_E_UNSUPPORTED: a construct that onig.c does not know.
 * MOE_E_CORRUPT: not a pattern.
 */
moe_status moe_regex_compile(const char *pattern, size_t len, int jit,
                             const char *what, struct moe_regex **out,
                             struct moe_error *err);
void       moe_regex_free(struct moe_regex *rx);
uint64_t   moe_regex_bytes(const struct moe_regex *rx);

/*
 * The next match in text (checked UTF-8) as the Rust binding of Oniguruma
 * walks: an empty match right behind the last one is skipped.  exact: the
 * text may hold characters of moe_uni_gap.  MOE_OK and *found; or
 * MOE_E_INVAL when the pattern backtracks too much on this text,
 * MOE_E_NOMEM.
 */
moe_status moe_regex_next(const struct moe_regex *rx, struct moe_rxwork *work,
                          const char *text, size_t len, int exact,
                          struct moe_rxiter *iter, int *found, size_t *start,
                          size_t *end, struct moe_error *err);
void       moe_rxwork_free(struct moe_rxwork *work);

/* onig.c: rewrite for PCRE2 (UTF, UCP, MULTILINE, newline LF).  exact: spell
 * out the characters that PCRE2's tables lack. */
moe_status moe_onig_to_pcre(const char *pattern, size_t len, int exact,
                            const char *what, struct moe_str *out,
                            struct moe_error *err);

#endif /* MOE_CORE_TEXT_REGEX_H */
