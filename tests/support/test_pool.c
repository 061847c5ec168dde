/* SPDX-License-Identifier: Apache-2.0 */
/* The pool runs each item once, for any number of threads, items and
 * callers. */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "support/pool.h"
#include "tap.h"

#define N 1000

static _Atomic(uint32_t) hits[N];

static void
hit(void *arg, uint32_t i)
{
    uint32_t *plain = arg;

    plain[i] += i + 1; /* seen by the caller after the run, without a lock */
    atomic_fetch_add(&hits[i], 1);
}

static void
add(void *arg, uint32_t i)
{
    atomic_fetch_add((_Atomic(uint64_t) *) arg, i);
}

struct caller {
    struct moe_pool *p;
    uint64_t         sum;
};

static void *
caller_main(void *arg)
{
    struct caller *c = arg;
    int            i;

    for (i = 0; i < 200; i++) {
        _Atomic(uint64_t) sum = 0;

        moe_pool_run(c->p, 10, add, &sum);
        c->sum += sum;
    }
    return NULL;
}

static void
where(void *arg, uint32_t i)
{
    cpu_set_t set;

    (void) pthread_getaffinity_np(pthread_self(), sizeof(set), &set);
    atomic_fetch_add((atomic_int *) arg, CPU_COUNT(&set) != 1);
    (void) i;
}

/* Every thread on one processor, and the caller as before at the end. */
static void
test_bound(void)
{
    struct moe_error err = {.struct_size = sizeof(err)};
    cpu_set_t        before, place[4], now;
    struct moe_cpus  cpus = {.threads = 4, .usable = 1, .place = place};
    struct moe_pool *p = NULL;
    atomic_int       elsewhere = 0;
    uint32_t         i, first = 0;

    if (pthread_getaffinity_np(pthread_self(), sizeof(before), &before) != 0)
        return;
    while (!CPU_ISSET(first, &before))
        first++;
    for (i = 0; i < 4; i++) {
        CPU_ZERO(&place[i]);
        CPU_SET(first, &place[i]);
    }
    CPU_ZERO(&place[3]);
    CPU_SET(CPU_SETSIZE - 1, &place[3]); /* there is none: runs anywhere */
    ok(moe_pool_open_on(&cpus, &p, &err) == MOE_OK, "bound threads");
    CPU_SET(first, &place[3]);
    is_int(moe_pool_threads(p), 4, "four, though one place does not exist");
    for (i = 0; i < 200; i++)
        moe_pool_run(p, 3, where, &elsewhere);
    (void) pthread_getaffinity_np(pthread_self(), sizeof(now), &now);
    ok(CPU_COUNT(&now) == 1 && CPU_ISSET(first, &now), "so is the caller");
    moe_pool_close(p);
    (void) pthread_getaffinity_np(pthread_self(), sizeof(now), &now);
    ok(CPU_EQUAL(&now, &before), "until the pool is closed");

    cpus.threads = 3;
    atomic_store(&elsewhere, 0);
    ok(moe_pool_open_on(&cpus, &p, &err) == MOE_OK, "three");
    for (i = 0; i < 200; i++)
        moe_pool_run(p, 9, where, &elsewhere);
    moe_pool_close(p);
    is_int(atomic_load(&elsewhere), 0, "all work on the processor given");
}

int
main(void)
{
    static const uint32_t threads[] = {1, 2, 3, 8};
    struct moe_error      err = {.struct_size = sizeof(err)};
    struct moe_pool      *p;
    uint32_t              plain[N], t, i, round, bad;

    for (t = 0; t < 4; t++) {
        ok(moe_pool_open(threads[t], &p, &err) == MOE_OK, "open %u threads",
           threads[t]);
        is_int(moe_pool_threads(p), threads[t], "as many as asked");
        bad = 0;
        for (round = 0; round < 300; round++) {
            uint32_t n = round * 7 % N + 1;

            memset(plain, 0, sizeof(plain));
            for (i = 0; i < N; i++)
                atomic_store(&hits[i], 0);
            moe_pool_run(p, n, hit, plain);
            for (i = 0; i < N; i++)
                bad += plain[i] != (i < n ? i + 1 : 0)
                       || atomic_load(&hits[i]) != (i < n);
            if (round % 100 == 99)
                usleep(2000); /* let the workers fall asleep */
        }
        is_int(bad, 0, "each item once in 300 jobs on %u threads", threads[t]);
        moe_pool_run(p, 0, hit, plain);
        moe_pool_close(p);
    }

    {
        struct caller c[3];
        pthread_t     id[3];

        ok(moe_pool_open(3, &p, &err) == MOE_OK, "open");
        for (i = 0; i < 3; i++) {
            c[i].p = p;
            c[i].sum = 0;
            (void) pthread_create(&id[i], NULL, caller_main, &c[i]);
        }
        for (i = 0; i < 3; i++)
            (void) pthread_join(id[i], NULL);
        ok(c[0].sum == 9000 && c[1].sum == 9000 && c[2].sum == 9000,
           "three callers take turns");
        moe_pool_close(p);
    }

    test_bound();
    is_int(moe_pool_open(100000, &p, &err), MOE_E_INVAL, "absurd count");
    has_str(err.text, "100000", "the message names the count");
    (void) setenv("OMP_NUM_THREADS", "5", 1);
    is_int(moe_pool_default_threads(), 5, "OMP_NUM_THREADS is heeded");
    (void) setenv("OMP_NUM_THREADS", "many", 1);
    ok(moe_pool_default_threads() >= 1, "and ignored when it is no number");
    return tap_done();
}
