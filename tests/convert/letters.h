/* SPDX-License-Identifier: Apache-2.0 */
/*
 * letters.h - a tokenizer of single letters and something to read with it.
 */
#ifndef MOE_TESTS_CONVERT_LETTERS_H
#define MOE_TESTS_CONVERT_LETTERS_H

#include "checkpoint/folder.h"

/* a to z are tokens 4 to 29, the space is 31. */
static void
put_letters(const char *dir)
{
    char   text[2048];
    size_t n;
    int    c;

    n = (size_t) sprintf(text,
                         "{\"added_tokens\":[],\"normalizer\":null,"
                         "\"pre_tokenizer\":{\"type\":\"ByteLevel\","
                         "\"add_prefix_space\":false,\"trim_offsets\":true,"
                         "\"use_regex\":true},\"post_processor\":null,"
                         "\"decoder\":{\"type\":\"ByteLevel\"},"
                         "\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (c = 'a'; c <= 'z'; c++)
        n += (size_t) sprintf(text + n, "\"%c\":%d,", c, c - 'a' + 4);
    sprintf(text + n, "\"\\u0120\":31},\"merges\":[]}}");
    put_text(dir, "tokenizer.json", text);
}

static char *
words(size_t n, uint32_t seed)
{
    char  *s = malloc(n + 1);
    size_t i;

    for (i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        s[i] = (char) (seed >> 28 < 3 ? ' ' : 'a' + (seed >> 16) % 26);
    }
    s[n] = '\0';
    return s;
}

#endif /* MOE_TESTS_CONVERT_LETTERS_H */
