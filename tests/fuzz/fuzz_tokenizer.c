/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_tokenizer.c - tokenizer.json, a NUL byte, and a text to encode with
 * it; without a NUL the whole input is the file and the text is fixed.
 * What was encoded is decoded at once and piece by piece: both must agree.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
stream(const struct moe_tokenizer *tok, const uint32_t *ids, size_t n,
       uint32_t flags, const char *whole, size_t len)
{
    struct moe_detok *d;
    const char       *part;
    size_t            part_len, at = 0, i;

    if (moe_detok_open(tok, flags, &d, NULL) != MOE_OK)
        return;
    for (i = 0; i <= n; i++) {
        moe_status st = i < n ? moe_detok_push(d, ids[i], &part, &part_len,
                                               NULL)
                              : moe_detok_flush(d, &part, &part_len, NULL);

        if (st != MOE_OK)
            break;
        if (part_len > len - at || memcmp(whole + at, part, part_len) != 0)
            abort(); /* the stream says something else */
        at += part_len;
    }
    moe_detok_close(d);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char     fixed[] = "A text, 12 345 \xc3\xa9\xe4\xb8\xad  <s>";
    const uint8_t        *nul = size != 0 ? memchr(data, 0, size) : NULL;
    size_t                json = nul != NULL ? (size_t) (nul - data) : size;
    const char           *text = nul != NULL ? (const char *) nul + 1 : fixed;
    size_t                text_len = nul != NULL ? size - json - 1
                                                 : sizeof(fixed) - 1;
    struct moe_error      err = {.struct_size = sizeof(err)};
    struct moe_tokenizer *tok;
    uint32_t             *ids;
    char                 *out;
    size_t                n, len;

    if (moe_tokenizer_parse((const char *) data, json, "fuzz", 0, &tok, &err)
        != MOE_OK)
        return 0;
    if (moe_tokenizer_encode(tok, text, text_len,
                             MOE_TOK_SPECIAL | MOE_TOK_PARSE_SPECIAL, &ids, &n,
                             &err)
        == MOE_OK) {
        if (moe_tokenizer_decode(tok, ids, n, 0, &out, &len, &err) == MOE_OK) {
            stream(tok, ids, n, 0, out, len);
            free(out);
        }
        free(ids);
    }
    moe_tokenizer_close(tok);
    return 0;
}
