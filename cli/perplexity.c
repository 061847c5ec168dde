/* SPDX-License-Identifier: Apache-2.0 */
/*
 * perplexity.c - moe-run perplexity: how well a model predicts a text.
 *
 * The text is cut into windows of the context's length whose starts are
 * `stride` tokens apart.  A window scores only the tokens that no window
 * before it scored, so every token after the first is scored exactly once,
 * and (but for the first window) with at least context - stride tokens
 * before it.  Bits per byte count the bytes of the scored text, which makes
 * models with different tokenizers comparable.
 */
#include "cli.h"
#include "support/number.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct window {
    size_t        begin, end; /* tokens [begin, end)                          */
    size_t        fresh;      /* first token that it scores                   */
    moe_sequence *seq;
};

struct measure {
    struct cli    *c;
    moe_engine    *e;
    uint32_t      *ids; /* (n_ids)                                            */
    size_t         n_ids;
    size_t         context, stride;
    struct window *windows; /* (n_windows)                                    */
    size_t         n_windows;
    double         nats;
    size_t         n_scored;
};

/* A positive whole number in a flag of our own; `fallback` if unused. */
static int
read_count(const struct cli *c, const char *flag, size_t fallback,
           size_t *out)
{
    const char *value = cli_value(c, flag);
    int64_t     n;

    *out = fallback;
    if (value == NULL)
        return EXIT_OK;
    if (!moe_number_whole(value, &n) || n < 1 || n > INT64_C(1) << 40) {
        say("%s: '%s' is not a positive whole number", flag, value);
        return EXIT_USAGE;
    }
    *out = (size_t) n;
    return EXIT_OK;
}

/*
 * The text's tokens with what the tokenizer puts before it, but not with
 * what it would put behind.
 */
static int
encode(struct measure *m, const char *text, size_t len, size_t *n_before)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    uint32_t        *bare;
    size_t           n_bare, k;

    if (moe_engine_encode(m->e, text, len, MOE_ENCODE_BOS, &m->ids, &m->n_ids,
                          &err)
        != MOE_OK)
        return fail(&err);
    if (moe_engine_encode(m->e, text, len, 0, &bare, &n_bare, &err) != MOE_OK)
        return fail(&err);
    for (k = 0; n_bare > 0 && k + n_bare <= m->n_ids; k++)
        if (memcmp(m->ids + k, bare, n_bare * sizeof(*bare)) == 0)
            break;
    if (k + n_bare <= m->n_ids)
        m->n_ids = k + n_bare;
    else
        k = 0;
    *n_before = k;
    moe_free(bare);
    return EXIT_OK;
}

/* Bytes that the first token stands for: they are not predicted. */
static size_t
first_bytes(const struct measure *m)
{
    char  *text;
    size_t len;

    if (moe_engine_decode(m->e, m->ids, 1, 0, &text, &len, NULL) != MOE_OK)
        return 0;
    moe_free(text);
    return len;
}

static int
plan(struct measure *m, size_t limit)
{
    size_t begin = 0, scored = 1, n = 0;

    m->windows = calloc(m->n_ids / m->stride + 2, sizeof(*m->windows));
    if (m->windows == NULL) {
        say("out of memory");
        return EXIT_RUN;
    }
    while (scored < m->n_ids && n < limit) {
        struct window *w = &m->windows[n++];

        w->begin = begin;
        w->end = m->n_ids - begin < m->context ? m->n_ids
                                               : begin + m->context;
        w->fresh = scored;
        scored = w->end;
        begin += m->stride;
    }
    m->n_windows = n;
    return EXIT_OK;
}

static int
add_scores(struct measure *m, struct window *w)
{
    struct moe_sequence_info info = { .struct_size = sizeof(info) };
    const double            *score;
    size_t                   n, i;

    moe_sequence_info(w->seq, &info);
    if (info.finish == MOE_FINISH_ERROR) {
        say("%s", moe_sequence_error(w->seq));
        return exit_status(info.status);
    }
    if (moe_sequence_scores(w->seq, &score, &n) != MOE_OK
        || n != w->end - w->begin) {
        say("a window of %zu tokens was not scored", w->end - w->begin);
        return EXIT_RUN;
    }
    for (i = w->fresh - w->begin; i < n; i++)
        m->nats -= score[i];
    m->n_scored += w->end - w->fresh;
    return EXIT_OK;
}

/* Some windows at once. */
static int
score(struct measure *m, struct window *w, size_t n)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    struct settings  s = { .flags = MOE_REQUEST_SCORE };
    uint32_t         active = 1;
    moe_status       status = MOE_OK;
    size_t           i;
    int              rc = EXIT_OK;

    s.sampling.struct_size = sizeof(s.sampling);
    moe_engine_sampling(m->e, &s.sampling);
    for (i = 0; i < n && rc == EXIT_OK; i++)
        rc = submit(m->e, &s, m->ids + w[i].begin, w[i].end - w[i].begin,
                    &w[i].seq);
    while (rc == EXIT_OK && status == MOE_OK && active > 0)
        status = moe_engine_step(m->e, &active, &err);
    if (status == MOE_E_CANCELED)
        rc = exit_status(status);
    else if (status != MOE_OK)
        rc = fail(&err);
    for (i = 0; i < n && rc == EXIT_OK; i++)
        rc = add_scores(m, &w[i]);
    for (i = 0; i < n; i++)
        if (w[i].seq != NULL)
            moe_sequence_free(w[i].seq);
    return rc;
}

static void
print_result(struct measure *m, size_t bytes)
{
    double nats = m->n_scored > 0 ? m->nats / (double) m->n_scored : 0;
    double bits = bytes > 0 ? m->nats / log(2.0) / (double) bytes : 0;

    if (cli_has(m->c, "--json")) {
        out_format("{\"schema_version\":%d,\"tokens\":%zu,\"bytes\":%zu,"
                   "\"windows\":%zu,\"context\":%zu,\"stride\":%zu,"
                   "\"nats_per_token\":",
                   SCHEMA_VERSION, m->n_scored, bytes, m->n_windows,
                   m->context, m->stride);
        out_number(nats);
        out_text(",\"perplexity\":");
        out_number(exp(nats));
        out_text(",\"bits_per_byte\":");
        out_number(bits);
        out_text(",\"stats\":");
        out_stats(m->e);
        out_text("}\n");
        return;
    }
    out_format("tokens          %zu\nbytes           %zu\n"
               "windows         %zu of %zu tokens, %zu apart\n"
               "nats per token  %.4f\nperplexity      %.3f\n"
               "bits per byte   %.4f\n",
               m->n_scored, bytes, m->n_windows, m->context, m->stride, nats,
               exp(nats), bits);
    if (!m->c->quiet) {
        out_flush();
        print_summary(m->e, 0, NULL);
    }
}

/* The bytes of the tokens that were scored: all but those of the first one,
 * unless --windows left the end out. */
static size_t
scored_bytes(const struct measure *m, size_t len, size_t n_before)
{
    size_t end = m->n_windows > 0 ? m->windows[m->n_windows - 1].end : 0;
    size_t n, unseen = n_before > 0 ? 0 : first_bytes(m);
    char  *text;

    if (end < m->n_ids) {
        if (moe_engine_decode(m->e, m->ids + n_before, end - n_before, 0,
                              &text, &n, NULL)
            != MOE_OK)
            return 0;
        moe_free(text);
        len = n;
    }
    return len > unseen ? len - unseen : 0;
}

static int
measure_text(struct measure *m, const char *text, size_t len)
{
    struct moe_engine_info info = { .struct_size = sizeof(info) };
    struct progress        progress;
    size_t n_before = 0, limit = 0, at, batch;
    int    status = encode(m, text, len, &n_before);

    if (status != EXIT_OK)
        return status;
    if (m->n_ids < 2) {
        say("the text has %zu tokens; at least 2 are needed", m->n_ids);
        return EXIT_USAGE;
    }
    if (moe_engine_info(m->e, &info) != MOE_OK || info.max_context < 2) {
        say("the model's context is too short");
        return EXIT_RUN;
    }
    m->context = info.max_context;
    status = read_count(m->c, "--stride",
                        m->context / 2, &m->stride);
    if (status == EXIT_OK)
        status = read_count(m->c, "--windows", SIZE_MAX, &limit);
    if (status != EXIT_OK)
        return status;
    if (m->stride >= m->context)
        m->stride = m->context - 1; /* a window's first token has no score */
    status = plan(m, limit);
    batch = (size_t) strtoul(moe_options_get(m->c->o, "engine.sequences"),
                             NULL, 10);
    progress_start(&progress, "tokens");
    for (at = 0; at < m->n_windows && status == EXIT_OK; at += batch) {
        size_t n = m->n_windows - at < batch ? m->n_windows - at : batch;

        status = score(m, m->windows + at, n);
        progress_show(&progress, m->windows[at + n - 1].end, m->n_ids,
                      NULL);
    }
    progress_end(&progress);
    if (status == EXIT_OK)
        print_result(m, scored_bytes(m, len, n_before));
    return status;
}

int
run_perplexity(struct cli *c)
{
    struct measure m = { .c = c };
    const char    *path = cli_value(c, "--file");
    char          *text = NULL;
    size_t         len = 0;
    int            status;

    if (path == NULL && isatty(STDIN_FILENO)) {
        say("perplexity needs a text: -f FILE, or standard input");
        return EXIT_USAGE;
    }
    status = text_read(path != NULL ? path : "-", &text, &len);
    if (status == EXIT_OK)
        status = text_check(path != NULL ? path : "standard input", text, len);
    if (status == EXIT_OK)
        status = engine_open(c, &m.e);
    if (status == EXIT_OK)
        status = measure_text(&m, text, len);
    free(text);
    free(m.windows);
    moe_free(m.ids);
    signals_mode(ON_SIGNAL_EXIT, NULL);
    if (m.e != NULL)
        moe_engine_close(m.e);
    return status;
}
