/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jscan.h - walk through JSON text without building a tree.
 *
 * A tokenizer.json is one small object with three huge lists in it; a tree of
 * it takes seven times the file's size.  This walks the lists element by
 * element.  Everything else is cut out and given to json-c (tokload.c).
 * Strict JSON: no comments, no bare NaN.
 */
#ifndef MOE_CORE_TEXT_JSCAN_H
#define MOE_CORE_TEXT_JSCAN_H

#include <stddef.h>
#include <stdint.h>

struct moe_jscan {
    const char *at, *end;
};

/* A string between its quotes, escapes not yet undone. */
struct moe_jstr {
    const char *text;
    size_t      len;
    int         escaped;
};

/* Past white space. */
void moe_jscan_space(struct moe_jscan *j);

/* All return 1, or 0 where the text is not what is asked for; then `at` is
 * where that shows. */
int moe_jscan_char(struct moe_jscan *j, char c); /* white space, then c */
int moe_jscan_peek(struct moe_jscan *j, char c); /* the same, not taken */
int moe_jscan_string(struct moe_jscan *j, struct moe_jstr *s);
int moe_jscan_uint(struct moe_jscan *j, uint64_t *v); /* no sign or point */
int moe_jscan_skip(struct moe_jscan *j);              /* any value        */
int moe_jscan_end(struct moe_jscan *j);               /* nothing but space */

/* Undo escapes into out (room for s->len bytes).  0: a bad escape, such as
 * half a surrogate pair. */
int moe_jstr_decode(const struct moe_jstr *s, char *out, size_t *len);
int moe_jstr_is(const struct moe_jstr *s, const char *text);

#endif /* MOE_CORE_TEXT_JSCAN_H */
