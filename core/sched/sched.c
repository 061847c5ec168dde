/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sched.c - sequences to batches, and tokens back to sequences.
 *
 * Owns who gets rows of a step and pages of the KV cache.  A sequence joins
 * when it has pages for its prompt, leaves when it is done, and between
 * steps anything may change.  When pages run out the youngest sequence gives
 * its own back and starts over later from its tokens: what it computes then
 * is the same, since no row depends on its company.
 */
#include "sched/sequence.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

moe_status
moe_sched_open(const struct moe_sched_setup *setup, struct moe_sched **out,
               struct moe_error *err)
{
    struct moe_sched *s = calloc(1, sizeof(*s));
    size_t            rows = setup->rows, i;

    if (s == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "scheduler: no memory");
    s->s = *setup;
    s->s.end_ids = NULL;
    s->lists = calloc(rows * 5 + 1, sizeof(uint32_t));
    s->pages = calloc((size_t) setup->sequences * setup->max_pages + 1,
                      sizeof(uint32_t));
    s->free_pages = calloc((size_t) setup->pages + 1, sizeof(uint32_t));
    s->end_ids = calloc(setup->n_end + 1, sizeof(uint32_t));
    s->row_seq = calloc(setup->sequences + 1u, sizeof(*s->row_seq));
    s->outs = calloc(rows + 1, sizeof(*s->outs));
    if (s->lists == NULL || s->pages == NULL || s->free_pages == NULL
        || s->end_ids == NULL || s->row_seq == NULL || s->outs == NULL) {
        moe_sched_close(s);
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "scheduler: no memory");
    }
    if (setup->n_end != 0)
        memcpy(s->end_ids, setup->end_ids, setup->n_end * sizeof(uint32_t));
    s->tokens = s->lists;
    s->positions = s->lists + rows;
    s->seqs = s->lists + rows * 2;
    s->slots = s->lists + rows * 3;
    s->out_rows = s->lists + rows * 4;
    for (i = 0; i < setup->pages; i++)
        s->free_pages[i] = setup->pages - 1 - (uint32_t) i;
    s->n_free = setup->pages;
    *out = s;
    return MOE_OK;
}

void
moe_sched_close(struct moe_sched *s)
{
    if (s == NULL)
        return;
    while (s->first != NULL)
        moe_sched_remove(s->first);
    free(s->lists);
    free(s->pages);
    free(s->free_pages);
    free(s->end_ids);
    free(s->row_seq);
    free(s->outs);
    free(s);
}

static void
moe_pages_return(struct moe_sched *s, moe_sequence *q)
{
    while (q->n_pages != 0)
        s->free_pages[s->n_free++] = q->pages[--q->n_pages];
}

void
moe_sched_leave(moe_sequence *q)
{
    moe_pages_return(q->sched, q);
    if (q->running)
        q->sched->n_running--;
    q->running = 0;
}

void
moe_sched_remove(moe_sequence *q)
{
    struct moe_sched *s = q->sched;
    uint32_t          i;

    moe_sched_leave(q);
    if (q->prev != NULL)
        q->prev->next = q->next;
    else
        s->first = q->next;
    if (q->next != NULL)
        q->next->prev = q->prev;
    else
        s->last = q->prev;
    /* A step under way must not write to it. */
    for (i = 0; i < s->n_outs; i++)
        if (s->outs[i].q == q)
            s->outs[i].q = NULL;
    for (i = 0; i < s->n_row_seqs; i++)
        if (s->row_seq[i].q == q)
            s->row_seq[i].q = NULL;
    moe_sequence_release(q);
}

moe_status
moe_sched_submit(struct moe_sched *s, const struct moe_request *r,
                 const struct moe_sampling *sampling, moe_sequence **out,
                 struct moe_error *err)
{
    moe_sequence *q;
    moe_status    st;
    size_t        i;

    if (r->n_prompt == 0 || r->prompt == NULL)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "empty prompt: give at least one token");
    if (r->n_prompt > s->s.context
        || (r->max_tokens != 0 && r->n_prompt == s->s.context))
        return moe_fail(err, MOE_E_INVAL, 0,
                        "prompt of %zu tokens: the context has %u; shorten "
                        "the prompt or raise model.context",
                        r->n_prompt, s->s.context);
    for (i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] >= s->s.vocab)
            return moe_fail(err, MOE_E_INVAL, 0,
                            "prompt token %zu is %u, the vocabulary has %u", i,
                            r->prompt[i], s->s.vocab);
    st = moe_sequence_new(s, r, sampling, &q, err);
    if (st != MOE_OK)
        return st;
    q->prev = s->last;
    if (s->last != NULL)
        s->last->next = q;
    else
        s->first = q;
    s->last = q;
    *out = q;
    return MOE_OK;
}

/* Pages for positions below `tokens`; 0: there are too few. */
static int
moe_pages_grow(struct moe_sched *s, moe_sequence *q, uint32_t tokens)
{
    uint32_t need = (tokens + s->s.page_rows - 1) / s->s.page_rows;

    if (need > q->n_pages && need - q->n_pages > s->n_free)
        return 0;
    while (q->n_pages < need)
        q->pages[q->n_pages++] = s->free_pages[--s->n_free];
    return 1;
}

/* Takes the pages of the youngest sequence behind q that has some. */
static int
moe_pages_reclaim(struct moe_sched *s, const moe_sequence *q)
{
    moe_sequence *v;

    for (v = s->last; v != q; v = v->prev)
        if (v->n_pages != 0 && !v->in_step) {
            moe_pages_return(s, v);
            v->n_done = 0;
            if (v->running)
                s->n_running--;
            v->running = 0;
            return 1;
        }
    return 0;
}

/* Rows of q in this step: at most `most`, 0 if it cannot get pages. */
static uint32_t
moe_sched_rows(struct moe_sched *s, moe_sequence *q, uint32_t most)
{
    uint32_t left = (uint32_t) (q->n_tokens - q->n_done);
    uint32_t n = left < most ? left : most;

    while (!moe_pages_grow(s, q, q->n_done + n))
        if (!moe_pages_reclaim(s, q)) {
            /* Fewer rows may do with the pages there are. */
            uint32_t have = (q->n_pages + s->n_free) * s->s.page_rows;

            if (have <= q->n_done)
                return 0;
            n = have - q->n_done < n ? have - q->n_done : n;
        }
    return n;
}

static void
moe_sched_take(struct moe_sched *s, moe_sequence *q, uint32_t n)
{
    struct moe_row_seq *rs = &s->row_seq[s->n_row_seqs];
    uint32_t            i;

    for (i = 0; i < n; i++) {
        uint32_t pos = q->n_done + i, row = s->n_rows++;
        int      last = pos + 1 == q->n_tokens;

        s->tokens[row] = q->tokens[pos];
        s->positions[row] = pos;
        s->seqs[row] = s->n_row_seqs;
        s->slots[row] = q->pages[pos / s->s.page_rows] * s->s.page_rows
                        + pos % s->s.page_rows;
        if ((last && q->max_tokens != 0)
            || (q->scores != NULL && pos + 1 > q->n_scored
                && pos < q->n_prompt)) {
            s->out_rows[s->n_outs] = row;
            s->outs[s->n_outs].q = q;
            s->outs[s->n_outs++].position = pos;
        }
    }
    memcpy(s->pages + (size_t) s->n_row_seqs * s->s.max_pages, q->pages,
           q->n_pages * sizeof(uint32_t));
    rs->q = q;
    rs->rows = n;
    s->n_row_seqs++;
    q->in_step = 1;
}

/* Hot: a walk over the waiting and running sequences. */
void
moe_sched_compose(struct moe_sched *s, struct moe_sched_step *out)
{
    moe_sequence *q;
    uint32_t      n, pass;

    s->n_rows = s->n_outs = s->n_row_seqs = 0;
    out->prefill_rows = 0;
    /* Pass 0: one row for each that decodes.  Pass 1: prefill, oldest first,
     * newcomers while there are places. */
    for (pass = 0; pass < 2; pass++)
        for (q = s->first; q != NULL; q = q->next) {
            int decodes = q->running && q->n_done + 1 == q->n_tokens;

            if (q->finish != MOE_FINISH_NONE || q->in_step
                || decodes != (pass == 0))
                continue;
            if (s->n_rows == s->s.rows || s->n_row_seqs == s->s.sequences)
                break;
            if (!q->running && s->n_running == s->s.sequences)
                break;
            n = moe_sched_rows(s, q, pass == 0 ? 1 : s->s.rows - s->n_rows);
            if (n == 0) {
                if (pass == 1)
                    break; /* first come, first served */
                continue;
            }
            if (!q->running) {
                q->running = 1;
                s->n_running++;
            }
            moe_sched_take(s, q, n);
            if (pass == 1)
                out->prefill_rows += n;
        }
    out->rows = s->n_rows;
    out->n_seqs = s->n_row_seqs;
    out->n_out = s->n_outs;
    out->max_pages = s->s.max_pages;
    out->tokens = s->tokens;
    out->positions = s->positions;
    out->seqs = s->seqs;
    out->slots = s->slots;
    out->pages = s->pages;
    out->out_rows = s->out_rows;
}

moe_status
moe_sched_logits(struct moe_sched *s, uint32_t i, const float *logits,
                 struct moe_error *err)
{
    moe_sequence *q = s->outs[i].q;

    if (q == NULL || q->finish != MOE_FINISH_NONE)
        return MOE_OK;
    return moe_sequence_logits(q, s->outs[i].position, logits, err);
}

void
moe_sched_commit(struct moe_sched *s)
{
    uint32_t i;

    for (i = 0; i < s->n_row_seqs; i++) {
        moe_sequence *q = s->row_seq[i].q;

        if (q == NULL)
            continue;
        q->in_step = 0;
        q->n_done += s->row_seq[i].rows;
        if (q->max_tokens == 0 && q->n_done == q->n_prompt
            && q->finish == MOE_FINISH_NONE)
            moe_sequence_finish(q, MOE_FINISH_LENGTH);
        if (q->finish != MOE_FINISH_NONE)
            moe_sched_leave(q);
    }
    s->n_rows = s->n_outs = s->n_row_seqs = 0;
}

uint32_t
moe_sched_active(const struct moe_sched *s)
{
    const moe_sequence *q;
    uint32_t            n = 0;

    for (q = s->first; q != NULL; q = q->next)
        n += q->finish == MOE_FINISH_NONE;
    return n;
}

moe_status
moe_sched_replace(moe_sequence *q, const uint32_t *ids, uint32_t n, int last)
{
    if (n == 0 || q->n_tokens - 1 + n >= q->n_prompt + q->max_tokens)
        return MOE_E_INVAL;
    memcpy(q->tokens + q->n_tokens - 1, ids, n * sizeof(*ids));
    q->n_tokens += n - 1;
    if (last)
        q->max_tokens = q->n_tokens - q->n_prompt + 1;
    return MOE_OK;
}
