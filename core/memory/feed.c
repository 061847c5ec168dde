/* SPDX-License-Identifier: Apache-2.0 */
/*
 * feed.c - a list of things read in order, ahead of the one who uses them.
 *
 * Owns the readers' threads and the ring's bookkeeping; what an item is and
 * where it comes from is the source's matter.  Threads with plain reads
 * rather than io_uring: containers often forbid that, and at some megabytes
 * a read nothing is gained.
 *
 * Pieces are handed out in order, so when item i fails, every piece of the
 * items before it is done or under way: the error met first in the order of
 * the list is the one that is told, whoever met it.
 */
#include "memory/feed.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* Items that are read or wait to be used, at most. */
#define FEED_WINDOW 64u

struct feed_item {
    uint64_t at, bytes; /* in the ring */
    uint64_t left;      /* not read yet */
    int      ready;
};

struct moe_feed {
    struct moe_feed_source src;
    uint8_t               *ring;
    uint64_t               cap;
    pthread_t             *threads; /* (n_threads) */
    uint32_t               n_threads;

    pthread_mutex_t  lock;
    pthread_cond_t   work;  /* of readers: a place, or the end */
    pthread_cond_t   ready; /* of the user */
    struct feed_item item[FEED_WINDOW]; /* item i at i % FEED_WINDOW */
    uint32_t         first;  /* oldest item that holds a place */
    uint32_t         opened; /* items that have got a place */
    uint64_t         head;   /* where the next place may begin */
    uint64_t         from;   /* next piece of item opened - 1 */
    int              got;    /* the user holds item `first` */
    int              stop;
    uint32_t         failed; /* least item with an error; n: none */
    struct moe_error err;
    moe_status       status;
};

/* A place for the next item, if there is one.  Lock held. */
static int
feed_open_item(struct moe_feed *f)
{
    struct feed_item *it;
    uint64_t          need, at = f->head, tail;

    if (f->opened == f->src.n || f->opened - f->first == FEED_WINDOW)
        return 0;
    it = &f->item[f->opened % FEED_WINDOW];
    need = f->src.bytes(f->src.ctx, f->opened);
    if (f->opened == f->first) { /* nothing holds a place */
        at = 0;
    } else {
        tail = f->item[f->first % FEED_WINDOW].at;
        if (at > tail) {
            if (f->cap - at < need) {
                at = 0; /* the end is too short: begin again */
                if (need >= tail)
                    return 0;
            }
        } else if (tail - at <= need) {
            return 0; /* head never reaches tail: that would mean empty */
        }
    }
    it->at = at;
    it->bytes = it->left = need;
    it->ready = 0;
    f->head = (at + need + MOE_FEED_ALIGN - 1) / MOE_FEED_ALIGN
              * MOE_FEED_ALIGN;
    if (f->head > f->cap)
        f->head = f->cap;
    f->from = 0;
    f->opened++;
    return 1;
}

/* Reads the next piece; 0: there is none to be had now.  Lock held, given up
 * while reading. */
static int
feed_read_piece(struct moe_feed *f)
{
    struct feed_item *it;
    struct moe_error  err = {.struct_size = sizeof(err)};
    uint64_t          from, n;
    moe_status        st;
    uint32_t          i;

    if (f->stop || f->failed != f->src.n)
        return 0;
    if ((f->opened == f->first
         || f->from == f->item[(f->opened - 1) % FEED_WINDOW].bytes)
        && !feed_open_item(f))
        return 0;
    i = f->opened - 1;
    it = &f->item[i % FEED_WINDOW];
    from = f->from;
    n = it->bytes - from;
    if (n > MOE_FEED_PIECE)
        n = MOE_FEED_PIECE;
    f->from += n;
    (void) pthread_mutex_unlock(&f->lock);

    st = f->src.read(f->src.ctx, i, from, n, f->ring + it->at + from, &err);

    (void) pthread_mutex_lock(&f->lock);
    it->left -= n;
    if (st == MOE_OK && it->left == 0 && f->src.finish != NULL
        && f->failed > i && !f->stop) {
        (void) pthread_mutex_unlock(&f->lock);
        st = f->src.finish(f->src.ctx, i, f->ring + it->at, &err);
        (void) pthread_mutex_lock(&f->lock);
    }
    if (st != MOE_OK && i < f->failed) {
        f->failed = i;
        f->status = st;
        f->err = err;
    }
    if (st == MOE_OK && it->left == 0)
        it->ready = 1;
    (void) pthread_cond_signal(&f->ready);
    return 1;
}

static void *
feed_reader(void *arg)
{
    struct moe_feed *f = arg;

    (void) pthread_mutex_lock(&f->lock);
    while (!f->stop && f->failed == f->src.n)
        if (!feed_read_piece(f) && !f->stop && f->failed == f->src.n) {
            if (f->opened == f->src.n)
                break; /* the last piece is handed out */
            (void) pthread_cond_wait(&f->work, &f->lock);
        }
    (void) pthread_cond_broadcast(&f->work); /* others: the end */
    (void) pthread_cond_signal(&f->ready);
    (void) pthread_mutex_unlock(&f->lock);
    return NULL;
}

moe_status
moe_feed_open(const struct moe_feed_source *source, void *ring, uint64_t bytes,
              uint32_t threads, struct moe_feed **out, struct moe_error *err)
{
    struct moe_feed *f;
    pthread_attr_t   attr;
    sigset_t         all, old;
    uint32_t         i;

    for (i = 0; i < source->n; i++)
        if (source->bytes(source->ctx, i) > bytes)
            return moe_fail(err, MOE_E_INVAL, 0,
                            "reading ahead: %llu bytes of memory for an item "
                            "of %llu",
                            (unsigned long long) bytes,
                            (unsigned long long) source->bytes(source->ctx,
                                                               i));
    f = calloc(1, sizeof(*f));
    if (f != NULL)
        f->threads = calloc(threads + 1, sizeof(*f->threads));
    if (f == NULL || f->threads == NULL) {
        free(f);
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "reading ahead: no memory");
    }
    f->src = *source;
    f->ring = ring;
    f->cap = bytes;
    f->failed = source->n;
    (void) pthread_mutex_init(&f->lock, NULL);
    (void) pthread_cond_init(&f->work, NULL);
    (void) pthread_cond_init(&f->ready, NULL);
    /* Signals are the program's, as in the pool. */
    sigfillset(&all);
    (void) pthread_sigmask(SIG_SETMASK, &all, &old);
    (void) pthread_attr_init(&attr);
    (void) pthread_attr_setstacksize(&attr, 256u * 1024u);
    for (i = 0; i < threads && i < source->n; i++)
        if (pthread_create(&f->threads[f->n_threads], &attr, feed_reader, f)
            == 0)
            f->n_threads++;
    (void) pthread_attr_destroy(&attr);
    (void) pthread_sigmask(SIG_SETMASK, &old, NULL);
    *out = f;
    return MOE_OK;
}

moe_status
moe_feed_next(struct moe_feed *f, uint32_t *i, void **base,
              struct moe_error *err)
{
    struct feed_item *it = &f->item[f->first % FEED_WINDOW];
    moe_status        st = MOE_OK;

    (void) pthread_mutex_lock(&f->lock);
    while (f->failed > f->first && (f->opened == f->first || !it->ready))
        if (f->n_threads != 0)
            (void) pthread_cond_wait(&f->ready, &f->lock);
        else
            (void) feed_read_piece(f);
    if (f->failed <= f->first) {
        st = f->status;
        if (err != NULL)
            (void) moe_fail(err, st, f->err.native, "%s", f->err.text);
    } else {
        f->got = 1;
        *i = f->first;
        *base = f->ring + it->at;
    }
    (void) pthread_mutex_unlock(&f->lock);
    return st;
}

void
moe_feed_release(struct moe_feed *f)
{
    (void) pthread_mutex_lock(&f->lock);
    if (f->got) {
        f->got = 0;
        f->first++;
        (void) pthread_cond_broadcast(&f->work);
    }
    (void) pthread_mutex_unlock(&f->lock);
}

void
moe_feed_close(struct moe_feed *f)
{
    uint32_t i;

    if (f == NULL)
        return;
    (void) pthread_mutex_lock(&f->lock);
    f->stop = 1;
    (void) pthread_cond_broadcast(&f->work);
    (void) pthread_mutex_unlock(&f->lock);
    for (i = 0; i < f->n_threads; i++)
        (void) pthread_join(f->threads[i], NULL);
    (void) pthread_cond_destroy(&f->work);
    (void) pthread_cond_destroy(&f->ready);
    (void) pthread_mutex_destroy(&f->lock);
    free(f->threads);
    free(f);
}
