/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.c - the worker threads of one engine.
 *
 * Owns the threads and the way work reaches them; knows nothing of what the
 * work is.  A job is a function and n items.  Whoever wants an item takes
 * the next index out of one 64-bit word that also holds the job's number,
 * so a worker that wakes late can neither take an item of a job that is
 * over nor run the wrong function; the caller waits only for items that were
 * taken, never for a worker that is still asleep.
 */
#include "support/pool.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Rounds of waiting before a thread sleeps: some tens of microseconds, the
 * time between two operations of a decode step. */
#define MOE_POOL_SPINS 4000u

struct moe_pool {
    pthread_mutex_t turn;    /* held by the thread whose job runs */
    uint32_t        threads; /* the caller included */
    uint32_t        spins;   /* none where threads outnumber processors */
    pthread_t      *workers; /* (threads - 1) */
    pthread_t       opener;  /* was bound, */
    int             bound;
    cpu_set_t       before;  /* and may run here when the pool is closed */

    _Atomic(uint64_t) next;  /* job number << 32 | next index */
    _Atomic(uint32_t) n;     /* items of the job */
    _Atomic(uint32_t) done;  /* items finished; futex of the caller */
    _Atomic(uint32_t) job;   /* job number; futex of the workers */
    _Atomic(uint32_t) sleepers;
    _Atomic(uint32_t) caller_sleeps;
    _Atomic(uint32_t) quit;
    _Atomic(uintptr_t) fn, arg;
};

static void
moe_futex_wait(_Atomic(uint32_t) *word, uint32_t seen)
{
    (void) syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void
moe_futex_wake(_Atomic(uint32_t) *word, int how_many)
{
    (void) syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, how_many, NULL, NULL,
                   0);
}

static inline void
moe_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Take and run items of job number `job` until none is left. */
static void
moe_pool_work(struct moe_pool *p, uint32_t job)
{
    for (;;) {
        uint64_t next = atomic_load_explicit(&p->next, memory_order_acquire);
        void (*fn)(void *, uint32_t);
        void    *arg;
        uint32_t n, i;

        if ((uint32_t) (next >> 32) != job)
            return;
        i = (uint32_t) next;
        n = atomic_load_explicit(&p->n, memory_order_relaxed);
        if (i >= n)
            return;
        fn = (void (*)(void *, uint32_t)) atomic_load_explicit(
            &p->fn, memory_order_relaxed);
        arg = (void *) atomic_load_explicit(&p->arg, memory_order_relaxed);
        /* While an item is out the job cannot end, so if this succeeds n, fn
         * and arg were this job's. */
        if (!atomic_compare_exchange_weak_explicit(&p->next, &next, next + 1,
                                                   memory_order_acq_rel,
                                                   memory_order_relaxed))
            continue;
        fn(arg, i);
        if (atomic_fetch_add_explicit(&p->done, 1, memory_order_acq_rel) + 1
                == n
            && atomic_load_explicit(&p->caller_sleeps, memory_order_seq_cst))
            moe_futex_wake(&p->done, 1);
    }
}

static void *
moe_pool_worker(void *arg)
{
    struct moe_pool *p = arg;
    uint32_t         seen = 0;

    for (;;) {
        uint32_t job = atomic_load_explicit(&p->job, memory_order_acquire);
        uint32_t spins = 0;

        while (job == seen) {
            if (atomic_load_explicit(&p->quit, memory_order_relaxed))
                return NULL;
            if (++spins < p->spins) {
                moe_pause();
            } else {
                atomic_fetch_add_explicit(&p->sleepers, 1,
                                          memory_order_seq_cst);
                moe_futex_wait(&p->job, seen);
                atomic_fetch_sub_explicit(&p->sleepers, 1,
                                          memory_order_seq_cst);
            }
            job = atomic_load_explicit(&p->job, memory_order_seq_cst);
        }
        seen = job;
        moe_pool_work(p, job);
    }
}

uint32_t
moe_pool_default_threads(void)
{
    struct moe_cpus_wish wish = {.pin = MOE_PIN_NONE};
    struct moe_cpus      cpus;
    uint32_t             n = 1;

    if (moe_cpus_choose(&wish, &cpus, NULL) == MOE_OK) {
        n = cpus.threads;
        moe_cpus_free(&cpus);
    }
    return n;
}

/* One worker; where its place is refused (a control group may have changed
 * meanwhile) it runs anywhere. */
static int
moe_pool_start(struct moe_pool *p, const cpu_set_t *place, pthread_t *id)
{
    pthread_attr_t attr;
    int            e;

    (void) pthread_attr_init(&attr);
    /* Small stacks: the kernels keep their scratch elsewhere. */
    (void) pthread_attr_setstacksize(&attr, 512u * 1024u);
    if (place != NULL)
        (void) pthread_attr_setaffinity_np(&attr, sizeof(*place), place);
    e = pthread_create(id, &attr, moe_pool_worker, p);
    (void) pthread_attr_destroy(&attr);
    return e != 0 && place != NULL ? moe_pool_start(p, NULL, id) : e;
}

moe_status
moe_pool_open_on(const struct moe_cpus *cpus, struct moe_pool **out,
                 struct moe_error *err)
{
    struct moe_pool *p;
    sigset_t         all, old;
    uint32_t         threads = cpus->threads, i;
    int              e = 0;

    p = calloc(1, sizeof(*p));
    if (p == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "thread pool: no memory");
    p->workers = calloc(threads, sizeof(*p->workers));
    if (p->workers == NULL) {
        free(p);
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "thread pool: no memory");
    }
    p->threads = 1;
    p->spins = threads > cpus->usable ? 0 : MOE_POOL_SPINS;
    (void) pthread_mutex_init(&p->turn, NULL);
    /* Signals are the program's: workers take none. */
    sigfillset(&all);
    (void) pthread_sigmask(SIG_SETMASK, &all, &old);
    for (i = 0; i + 1 < threads && e == 0; i++) {
        e = moe_pool_start(p, cpus->place != NULL ? &cpus->place[i + 1] : NULL,
                           &p->workers[i]);
        if (e == 0)
            p->threads++;
    }
    (void) pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (e != 0) {
        moe_pool_close(p);
        return moe_fail(err, MOE_E_NOMEM, e,
                        "engine.threads: thread %u of %u could not be "
                        "started: %s; ask for fewer",
                        i, threads, strerror(e));
    }
    /* The caller computes, too. */
    if (cpus->place != NULL
        && pthread_getaffinity_np(pthread_self(), sizeof(p->before),
                                  &p->before)
               == 0
        && pthread_setaffinity_np(pthread_self(), sizeof(cpus->place[0]),
                                  &cpus->place[0])
               == 0) {
        p->bound = 1;
        p->opener = pthread_self();
    }
    *out = p;
    return MOE_OK;
}

moe_status
moe_pool_open(uint32_t threads, struct moe_pool **out, struct moe_error *err)
{
    struct moe_cpus_wish wish = {.threads = threads, .pin = MOE_PIN_NONE};
    struct moe_cpus      cpus;
    moe_status           st = moe_cpus_choose(&wish, &cpus, err);

    if (st != MOE_OK)
        return st;
    st = moe_pool_open_on(&cpus, out, err);
    moe_cpus_free(&cpus);
    return st;
}

void
moe_pool_close(struct moe_pool *p)
{
    uint32_t i;

    if (p == NULL)
        return;
    atomic_store(&p->quit, 1);
    atomic_fetch_add(&p->job, 1);
    /* An empty job: workers that see the number find nothing and quit. */
    moe_futex_wake(&p->job, INT_MAX);
    for (i = 0; i + 1 < p->threads; i++)
        (void) pthread_join(p->workers[i], NULL);
    if (p->bound && pthread_equal(pthread_self(), p->opener))
        (void) pthread_setaffinity_np(p->opener, sizeof(p->before),
                                      &p->before);
    (void) pthread_mutex_destroy(&p->turn);
    free(p->workers);
    free(p);
}

uint32_t
moe_pool_threads(const struct moe_pool *p)
{
    return p->threads;
}

/* Hot. */
void
moe_pool_run(struct moe_pool *p, uint32_t n, void (*fn)(void *, uint32_t),
             void *arg)
{
    uint32_t job, i, spins;

    if (n == 0)
        return;
    if (n == 1 || p->threads == 1) {
        for (i = 0; i < n; i++)
            fn(arg, i);
        return;
    }
    (void) pthread_mutex_lock(&p->turn);
    job = atomic_load_explicit(&p->job, memory_order_relaxed) + 1;
    /* Close the old job first: no late worker may take an item while n, fn
     * and arg change. */
    atomic_store_explicit(&p->next, (uint64_t) job << 32 | UINT32_MAX,
                          memory_order_seq_cst);
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    atomic_store_explicit(&p->fn, (uintptr_t) fn, memory_order_relaxed);
    atomic_store_explicit(&p->arg, (uintptr_t) arg, memory_order_relaxed);
    atomic_store_explicit(&p->n, n, memory_order_relaxed);
    atomic_store_explicit(&p->next, (uint64_t) job << 32,
                          memory_order_release);
    atomic_store_explicit(&p->job, job, memory_order_seq_cst);
    if (atomic_load_explicit(&p->sleepers, memory_order_seq_cst) != 0)
        moe_futex_wake(&p->job, INT_MAX);

    moe_pool_work(p, job);

    for (spins = 0;; spins++) {
        uint32_t done = atomic_load_explicit(&p->done, memory_order_acquire);

        if (done == n)
            break;
        if (spins < p->spins) {
            moe_pause();
            continue;
        }
        atomic_store_explicit(&p->caller_sleeps, 1, memory_order_seq_cst);
        done = atomic_load_explicit(&p->done, memory_order_seq_cst);
        if (done != n)
            moe_futex_wait(&p->done, done);
        atomic_store_explicit(&p->caller_sleeps, 0, memory_order_relaxed);
    }
    (void) pthread_mutex_unlock(&p->turn);
}
