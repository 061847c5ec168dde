/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_tokenizer.c - any bytes as a tokenizer.json and a text.
 *
 * Input: the file, a NUL, the text; without a NUL the whole input is the file
 * and the text is fixed.  The last byte of the input also is the flags: those
 * of tokenizer.h, and 16 to compare PCRE2's JIT with its interpreter.
 *
 * Whatever comes, the answer is a status and an error is one line; ids are of
 * the vocabulary; a text that is not UTF-8 is refused; decoding gives UTF-8,
 * and as a stream the same.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"
#include "text/unicode.h"

#define MAX_TEXT 512

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
must(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "broken promise: %s\n", what);
        abort();
    }
}

static void
must_be_error(const struct moe_error *err, moe_status s)
{
    must(err->status == s, "the error has the status");
    must(err->text[0] != '\0', "an error has a text");
    must(strchr(err->text, '\n') == NULL, "an error is one line");
}

static void
decode_both(const struct moe_tokenizer *t, const uint32_t *ids, size_t n,
            uint32_t flags)
{
    struct moe_error  err = {.struct_size = sizeof(err)};
    struct moe_detok *d;
    const char       *part;
    char             *whole;
    size_t            len, got, at = 0, bad;
    int               gap;
    moe_status        s = moe_tokenizer_decode(t, ids, n, flags, &whole, &len,
                                               &err);

    if (s != MOE_OK) {
        must_be_error(&err, s);
        return;
    }
    must(moe_utf8_check(whole, len, &gap, &bad), "decoded text is UTF-8");
    if (moe_detok_open(t, flags, &d, &err) == MOE_OK) {
        for (size_t i = 0; i <= n; i++) {
            s = i < n ? moe_detok_push(d, ids[i], &part, &got, &err)
                      : moe_detok_flush(d, &part, &got, &err);
            must(s == MOE_OK, "a stream decodes what a whole decodes");
            must(got <= len - at && memcmp(whole + at, part, got) == 0,
                 "a stream gives the bytes of the whole");
            must(moe_utf8_check(part, got, &gap, &bad),
                 "a part is whole characters");
            at += got;
        }
        must(at == len, "a stream gives all bytes");
        moe_detok_close(d);
    }
    free(whole);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_error      err = {.struct_size = sizeof(err)};
    struct moe_tokenizer *t, *slow;
    const char           *text, *json;
    uint32_t             *ids = NULL, *again, some[16], flags;
    size_t                text_n, json_n, n = 0, m, bad;
    int                   gap, utf8;
    moe_status            s, s2;

    if (size == 0)
        return 0;
    flags = data[size - 1];
    json = (const char *) data;
    json_n = size;
    text = "ab \xc3\xa9<s> 12\n  \xe4\xb8\xad'll";
    text_n = strlen(text);
    if (memchr(data, 0, size) != NULL) {
        json_n = (size_t) ((const uint8_t *) memchr(data, 0, size) - data);
        text = json + json_n + 1;
        text_n = size - json_n - 1;
    }
    if (text_n > MAX_TEXT) /* the fuzzer's time goes into files */
        return 0;
    s = moe_tokenizer_parse(json, json_n, "tokenizer.json", 0, &t, &err);
    if (s != MOE_OK) {
        must_be_error(&err, s);
        return 0;
    }
    must(moe_tokenizer_bytes(t) <= moe_tokenizer_load_peak(json_n),
         "the bound of loading holds");
    utf8 = moe_utf8_check(text, text_n, &gap, &bad);
    s = moe_tokenizer_encode(t, text, text_n, flags & 3, &ids, &n, &err);
    must(utf8 || s == MOE_E_INVAL, "a text that is not UTF-8 is refused");
    if (s != MOE_OK) {
        must_be_error(&err, s);
    } else {
        for (size_t i = 0; i < n; i++) {
            size_t len;

            must(moe_tokenizer_token_text(t, ids[i], &len) != NULL,
                 "an id is of the vocabulary");
        }
        decode_both(t, ids, n, flags & MOE_TOK_SKIP_SPECIAL);
    }
    /* ids that no text gives */
    for (int i = 0; i < 16; i++)
        some[i] = (uint32_t) (data[(size_t) i * 7 % size]
                              * (1u + (unsigned) i))
                  % (moe_tokenizer_vocab_size(t) + 2);
    decode_both(t, some, 16, flags & MOE_TOK_SKIP_SPECIAL);
    if (flags & 16) {
        s2 = moe_tokenizer_parse(json, json_n, "tokenizer.json",
                                 MOE_TOK_NO_JIT, &slow, &err);
        if (s2 == MOE_OK) {
            s2 = moe_tokenizer_encode(slow, text, text_n, flags & 3, &again,
                                      &m, &err);
            if (s == MOE_OK && s2 == MOE_OK) {
                must(m == n && (n == 0
                                || memcmp(ids, again, n * sizeof(*ids)) == 0),
                     "the interpreter gives the ids of the JIT");
            }
            if (s2 == MOE_OK)
                free(again);
            moe_tokenizer_close(slow);
        }
    }
    if (s == MOE_OK)
        free(ids);
    moe_tokenizer_close(t);
    return 0;
}
