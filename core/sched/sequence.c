/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sequence.c - what one request asked for and what it has got so far.
 *
 * Owns a sequence's tokens, text, stop conditions and scores.  Text shown is
 * whole characters, and never the beginning of a stop text.
 */
#include "sched/sequence.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static moe_status
moe_sequence_stops(moe_sequence *q, const struct moe_request *r,
                   struct moe_error *err)
{
    uint32_t i;

    if (r->n_stop == 0)
        return MOE_OK;
    q->stop = calloc(r->n_stop, sizeof(*q->stop));
    if (q->stop == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "sequence: no memory");
    for (i = 0; i < r->n_stop; i++) {
        size_t len = r->stop[i] != NULL ? strlen(r->stop[i]) : 0;

        if (len == 0)
            return moe_fail(err, MOE_E_INVAL, 0, "stop text %u is empty", i);
        q->stop[i] = strdup(r->stop[i]);
        if (q->stop[i] == NULL)
            return moe_fail(err, MOE_E_NOMEM, ENOMEM, "sequence: no memory");
        q->n_stop++;
        if (len > q->stop_longest)
            q->stop_longest = len;
    }
    return MOE_OK;
}

moe_status
moe_sequence_new(struct moe_sched *s, const struct moe_request *r,
                 const struct moe_sampling *sampling, moe_sequence **out,
                 struct moe_error *err)
{
    moe_sequence *q = calloc(1, sizeof(*q));
    uint32_t      most = s->s.context - (uint32_t) r->n_prompt;
    moe_status    st;
    size_t        i;

    if (q == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "sequence: no memory");
    q->sched = s;
    q->flags = r->flags;
    q->max_tokens = r->max_tokens < most ? r->max_tokens : most;
    q->n_prompt = q->n_tokens = (uint32_t) r->n_prompt;
    q->on_logits = r->on_logits;
    q->ctx = r->ctx;
    q->t_submit = s->s.now();
    q->tokens = malloc(((size_t) q->n_prompt + q->max_tokens + 1)
                       * sizeof(*q->tokens));
    q->pages = malloc(((size_t) s->s.max_pages + 1) * sizeof(*q->pages));
    if ((r->flags & MOE_REQUEST_SCORE) != 0)
        q->scores = calloc(q->n_prompt, sizeof(*q->scores));
    if (q->tokens == NULL || q->pages == NULL
        || ((r->flags & MOE_REQUEST_SCORE) != 0 && q->scores == NULL)) {
        st = moe_fail(err, MOE_E_NOMEM, ENOMEM, "sequence: no memory");
        goto fail;
    }
    memcpy(q->tokens, r->prompt, r->n_prompt * sizeof(*q->tokens));
    st = moe_sequence_stops(q, r, err);
    if (st == MOE_OK)
        st = moe_sampler_open(sampling, s->s.vocab, &q->sampler, err);
    if (st == MOE_OK && s->s.tokenizer != NULL)
        st = moe_detok_open(s->s.tokenizer, MOE_TOK_SKIP_SPECIAL, &q->detok,
                            err);
    if (st != MOE_OK)
        goto fail;
    for (i = 0; i < r->n_prompt; i++)
        moe_sampler_accept(q->sampler, r->prompt[i], 0);
    *out = q;
    return MOE_OK;

fail:
    moe_sequence_release(q);
    return st;
}

void
moe_sequence_release(moe_sequence *q)
{
    uint32_t i;

    moe_sampler_close(q->sampler);
    moe_detok_close(q->detok);
    moe_str_free(&q->text);
    for (i = 0; i < q->n_stop; i++)
        free(q->stop[i]);
    free(q->stop);
    free(q->scores);
    free(q->tokens);
    free(q->pages);
    free(q);
}

void
moe_sequence_finish(moe_sequence *q, uint32_t finish)
{
    const char *text;
    size_t      len;

    q->finish = finish;
    q->t_last = q->sched->s.now();
    if (q->detok != NULL && finish != MOE_FINISH_ERROR
        && moe_detok_flush(q->detok, &text, &len, NULL) == MOE_OK)
        moe_str_add(&q->text, text, len);
    q->text_done = q->text.len;
}

static void
moe_sequence_fail(moe_sequence *q, moe_status st, const char *text)
{
    q->status = st;
    snprintf(q->error, sizeof(q->error), "%s", text);
    moe_sequence_finish(q, MOE_FINISH_ERROR);
}

/*
 * Looks for a stop text in what came since `from`.  1: found, the text is
 * cut before it.  0: not found; text_done is moved up to where a stop text
 * could still begin.
 */
static int
moe_sequence_stopped(moe_sequence *q, size_t from)
{
    size_t   i, start, best = SIZE_MAX, safe = q->text.len;
    uint32_t j;

    start = from > q->stop_longest ? from - q->stop_longest : 0;
    if (start < q->text_done)
        start = q->text_done;
    for (i = start; i < q->text.len && best == SIZE_MAX; i++)
        for (j = 0; j < q->n_stop; j++) {
            size_t len = strlen(q->stop[j]), left = q->text.len - i;

            if (left >= len && memcmp(q->text.text + i, q->stop[j], len) == 0) {
                best = i;
                break;
            }
            if (left < len && i < safe
                && memcmp(q->text.text + i, q->stop[j], left) == 0)
                safe = i;
        }
    if (best != SIZE_MAX) {
        q->text.len = best;
        q->text.text[best] = '\0';
        q->text_done = best;
        return 1;
    }
    q->text_done = safe;
    return 0;
}

/* One more token of output. */
static moe_status
moe_sequence_token(moe_sequence *q, uint32_t id, struct moe_error *err)
{
    const struct moe_sched *s = q->sched;
    size_t                  from = q->text.len, len, i;
    const char             *text;
    moe_status              st;

    q->tokens[q->n_tokens++] = id;
    moe_sampler_accept(q->sampler, id, 1);
    if (q->t_first == 0)
        q->t_first = s->s.now();
    for (i = 0; i < s->s.n_end; i++)
        if (s->end_ids[i] == id && (q->flags & MOE_REQUEST_IGNORE_EOS) == 0) {
            moe_sequence_finish(q, MOE_FINISH_STOP);
            return MOE_OK;
        }
    if (q->detok != NULL) {
        st = moe_detok_push(q->detok, id, &text, &len, err);
        if (st != MOE_OK)
            return st;
        moe_str_add(&q->text, text, len);
        if (q->text.failed)
            return moe_fail(err, MOE_E_NOMEM, ENOMEM, "sequence: no memory");
        if (moe_sequence_stopped(q, from)) {
            q->finish = MOE_FINISH_STOP;
            q->t_last = s->s.now();
            return MOE_OK;
        }
    }
    if (q->n_tokens - q->n_prompt >= q->max_tokens)
        moe_sequence_finish(q, MOE_FINISH_LENGTH);
    return MOE_OK;
}

moe_status
moe_sequence_logits(moe_sequence *q, uint32_t position, const float *logits,
                    struct moe_error *err)
{
    struct moe_error why;
    uint32_t         id;
    moe_status       st;

    if (q->on_logits != NULL)
        q->on_logits(q->ctx, position, logits, q->sched->s.vocab);
    if (q->scores != NULL && position + 1 > q->n_scored
        && position < q->n_prompt) {
        if (position + 1 < q->n_prompt)
            q->scores[position + 1] = moe_logprob(logits, q->sched->s.vocab,
                                                  q->tokens[position + 1]);
        q->n_scored = position + 1;
    }
    if (position + 1 != q->n_tokens || q->max_tokens == 0)
        return MOE_OK;
    memset(&why, 0, sizeof(why));
    why.struct_size = sizeof(why);
    st = moe_sampler_pick(q->sampler, logits, &id, &why);
    if (st != MOE_OK) {
        moe_sequence_fail(q, st, why.text);
        return MOE_OK;
    }
    return moe_sequence_token(q, id, err);
}

/* ------------------------------------------------------- the public side -- */

moe_status
moe_sequence_info(const moe_sequence *q, struct moe_sequence_info *out)
{
    struct moe_sequence_info i;
    uint32_t                 have = out->struct_size;

    memset(&i, 0, sizeof(i));
    i.struct_size = have;
    i.finish = q->finish;
    i.n_prompt = q->n_prompt;
    i.n_output = q->n_tokens - q->n_prompt;
    i.status = q->status;
    i.ttft_s = q->t_first != 0 ? q->t_first - q->t_submit : 0;
    i.total_s = (q->t_last != 0 ? q->t_last : q->sched->s.now())
                - q->t_submit;
    memcpy(out, &i, have < sizeof(i) ? have : sizeof(i));
    return MOE_OK;
}

moe_status
moe_sequence_text(const moe_sequence *q, size_t from, const char **text,
                  size_t *len)
{
    if (from > q->text_done)
        return MOE_E_INVAL;
    *text = q->text.text != NULL ? q->text.text + from : "";
    *len = q->text_done - from;
    return MOE_OK;
}

moe_status
moe_sequence_tokens(const moe_sequence *q, const uint32_t **ids, size_t *n)
{
    *ids = q->tokens + q->n_prompt;
    *n = q->n_tokens - q->n_prompt;
    return MOE_OK;
}

moe_status
moe_sequence_scores(const moe_sequence *q, const double **logprob, size_t *n)
{
    if (q->scores == NULL)
        return MOE_E_NOT_FOUND;
    *logprob = q->scores;
    *n = q->n_prompt;
    return MOE_OK;
}

const char *
moe_sequence_error(const moe_sequence *q)
{
    return q->error;
}

void
moe_sequence_free(moe_sequence *q)
{
    if (q != NULL)
        moe_sched_remove(q);
}
