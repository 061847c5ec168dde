/* SPDX-License-Identifier: Apache-2.0 */
/*
 * regex.c - compile and match with PCRE2.
 *
 * Owns the compiled patterns and the choice of matcher.  Each pattern exists
 * twice: as PCRE2's own classes (with JIT, for nearly every text), and with
 * the characters spelled out that PCRE2's tables lack (interpreted, for texts
 * that hold such a character).  Leaves the rewriting to onig.c.
 */
#include "text/regex.h"

#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "text/unicode.h"

/* Backtracking steps of one match: enough for any walk along the text, not
 * for a pattern that tries all ways to cut it. */
#define MATCH_STEPS(len) ((len) < 60000000 ? 100000 + 64 * (len) : 4000000000)
/* KiB of heap of one interpreted match, bytes of JIT stack. */
#define HEAP_LIMIT 131072u
#define STACK_MIN  (32u << 10)
#define STACK_MAX  (64u << 20)

struct moe_regex {
    pcre2_code *fast, *exact; /* exact is fast where the texts are equal */
};

static moe_status
compile(const char *pattern, size_t len, int exact, const char *what,
        struct moe_str *text, pcre2_code **out, struct moe_error *err)
{
    pcre2_compile_context *ctx;
    uint8_t    msg[128];
    int        code;
    PCRE2_SIZE at;
    moe_status st;

    st = moe_onig_to_pcre(pattern, len, exact, what, text, err);
    if (st != MOE_OK)
        return st;
    ctx = pcre2_compile_context_create(NULL);
    if (ctx == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "%s: out of memory", what);
    pcre2_set_newline(ctx, PCRE2_NEWLINE_LF);
    pcre2_set_bsr(ctx, PCRE2_BSR_UNICODE);
    pcre2_set_parens_nest_limit(ctx, 1000);
    *out = pcre2_compile((PCRE2_SPTR) (text->text != NULL ? text->text : ""),
                         text->len,
                         PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE
                             | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_UTF_CHECK
                             | PCRE2_NO_AUTO_CAPTURE,
                         &code, &at, ctx);
    pcre2_compile_context_free(ctx);
    if (*out != NULL)
        return MOE_OK;
    if (code == PCRE2_ERROR_HEAP_FAILED)
        return moe_fail(err, MOE_E_NOMEM, 0, "%s: out of memory", what);
    pcre2_get_error_message(code, msg, sizeof(msg));
    return moe_fail(err, MOE_E_CORRUPT, code,
                    "%s: the pattern does not compile: %s; fetch the file "
                    "again", what, (const char *) msg);
}

moe_status
moe_regex_compile(const char *pattern, size_t len, int jit, const char *what,
                  struct moe_regex **out, struct moe_error *err)
{
    struct moe_str    fast = {0}, exact = {0};
    struct moe_regex *rx = calloc(1, sizeof(*rx));
    moe_status        st;

    if (rx == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "%s: out of memory", what);
    st = compile(pattern, len, 0, what, &fast, &rx->fast, err);
    if (st != MOE_OK)
        goto undo;
    st = compile(pattern, len, 1, what, &exact, &rx->exact, err);
    if (st != MOE_OK)
        goto undo;
    if (fast.len == exact.len
        && (fast.len == 0 || memcmp(fast.text, exact.text, fast.len) == 0)) {
        pcre2_code_free(rx->exact);
        rx->exact = rx->fast;
    }
    if (jit) /* where it is not to be had the interpreter does the work */
        (void) pcre2_jit_compile(rx->fast, PCRE2_JIT_COMPLETE);
    *out = rx;
    rx = NULL;
undo:
    moe_str_free(&fast);
    moe_str_free(&exact);
    moe_regex_free(rx);
    return st;
}

void
moe_regex_free(struct moe_regex *rx)
{
    if (rx == NULL)
        return;
    if (rx->exact != rx->fast)
        pcre2_code_free(rx->exact);
    pcre2_code_free(rx->fast);
    free(rx);
}

static uint64_t
code_bytes(const pcre2_code *code)
{
    size_t size = 0, jit = 0;

    pcre2_pattern_info(code, PCRE2_INFO_SIZE, &size);
    pcre2_pattern_info(code, PCRE2_INFO_JITSIZE, &jit);
    return size + jit;
}

uint64_t
moe_regex_bytes(const struct moe_regex *rx)
{
    if (rx == NULL)
        return 0;
    return sizeof(*rx) + code_bytes(rx->fast)
           + (rx->exact != rx->fast ? code_bytes(rx->exact) : 0);
}

/* 0 when something could not be allocated */
static int
prepare(struct moe_rxwork *work)
{
    if (work->data == NULL)
        work->data = pcre2_match_data_create(1, NULL);
    if (work->ctx == NULL) {
        work->ctx = pcre2_match_context_create(NULL);
        if (work->ctx != NULL)
            pcre2_set_heap_limit(work->ctx, HEAP_LIMIT);
    }
    return work->data != NULL && work->ctx != NULL;
}

static int
match(const pcre2_code *code, struct moe_rxwork *work, const char *text,
      size_t len, size_t at)
{
    const PCRE2_SPTR s = (PCRE2_SPTR) text;
    int rc = pcre2_match(code, s, len, at, PCRE2_NO_UTF_CHECK, work->data,
                         work->ctx);

    if (rc == PCRE2_ERROR_JIT_STACKLIMIT && work->stack == NULL) {
        work->stack = pcre2_jit_stack_create(STACK_MIN, STACK_MAX, NULL);
        if (work->stack != NULL) {
            pcre2_jit_stack_assign(work->ctx, NULL, work->stack);
            rc = pcre2_match(code, s, len, at, PCRE2_NO_UTF_CHECK,
                             work->data, work->ctx);
        }
    }
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(code, s, len, at,
                         PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, work->data,
                         work->ctx);
    return rc;
}

moe_status
moe_regex_next(const struct moe_regex *rx, struct moe_rxwork *work,
               const char *text, size_t len, int exact,
               struct moe_rxiter *iter, int *found, size_t *start,
               size_t *end, struct moe_error *err)
{
    const pcre2_code *code = exact ? rx->exact : rx->fast;

    if (!prepare(work))
        return moe_fail(err, MOE_E_NOMEM, 0,
                        "tokenizer: out of memory while splitting text");
    pcre2_set_match_limit(work->ctx, (uint32_t) MATCH_STEPS(len));
    while (iter->at <= len) {
        int         rc = match(code, work, text, len, iter->at);
        PCRE2_SIZE *ov;

        if (rc == PCRE2_ERROR_NOMATCH)
            break;
        if (rc == PCRE2_ERROR_NOMEMORY)
            return moe_fail(err, MOE_E_NOMEM, 0,
                            "tokenizer: out of memory while splitting text");
        if (rc < 0)
            return moe_fail(err, MOE_E_INVAL, rc,
                            "tokenizer: the text makes the split pattern "
                            "backtrack too much (PCRE2 %d); break the text "
                            "into parts", rc);
        ov = pcre2_get_ovector_pointer(work->data);
        if (ov[0] == ov[1] && iter->any && iter->last_end == ov[1]) {
            iter->at += iter->at < len ? moe_utf8_len(text[iter->at]) : 1;
            continue;
        }
        iter->at = ov[1];
        iter->last_end = ov[1];
        iter->any = 1;
        *start = ov[0];
        *end = ov[1];
        *found = 1;
        return MOE_OK;
    }
    *found = 0;
    return MOE_OK;
}

void
moe_rxwork_free(struct moe_rxwork *work)
{
    pcre2_match_data_free(work->data);
    pcre2_match_context_free(work->ctx);
    if (work->stack != NULL)
        pcre2_jit_stack_free(work->stack);
    memset(work, 0, sizeof(*work));
}
