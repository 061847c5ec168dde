/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ledger.c - every byte that grows with the model or the load.
 *
 * Owns the sums and the grants; decides nothing but yes or no.  Grants are
 * few (a slab is one, whatever it holds), so a list and a mutex do.
 */
#include "memory/ledger.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MOE_LEDGER_NAME 48

struct moe_grant {
    struct moe_grant *next, *prev;
    uint64_t          bytes;
    uint32_t          domain;
    char              owner[MOE_LEDGER_NAME];
};

struct moe_ledger_row {
    char     name[MOE_LEDGER_NAME];
    uint64_t used, peak, limit, grants;
};

struct moe_ledger {
    pthread_mutex_t        lock;
    struct moe_grant       head; /* ring */
    struct moe_ledger_row *rows;
    uint32_t               n_rows;
};

moe_status
moe_ledger_open(struct moe_ledger **out, struct moe_error *err)
{
    struct moe_ledger *l = calloc(1, sizeof(*l));

    if (l == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "ledger: no memory");
    (void) pthread_mutex_init(&l->lock, NULL);
    l->head.next = l->head.prev = &l->head;
    *out = l;
    return MOE_OK;
}

size_t
moe_ledger_close(struct moe_ledger *l)
{
    size_t left = 0;

    if (l == NULL)
        return 0;
    while (l->head.next != &l->head) {
        struct moe_grant *g = l->head.next;

        l->head.next = g->next;
        free(g);
        left++;
    }
    (void) pthread_mutex_destroy(&l->lock);
    free(l->rows);
    free(l);
    return left;
}

/* The domain's row, made if it is new; NULL: no memory.  Lock held. */
static struct moe_ledger_row *
moe_ledger_row(struct moe_ledger *l, const char *domain)
{
    struct moe_ledger_row *rows;
    uint32_t               i;

    for (i = 0; i < l->n_rows; i++)
        if (strncmp(l->rows[i].name, domain, MOE_LEDGER_NAME - 1) == 0)
            return &l->rows[i];
    rows = realloc(l->rows, (l->n_rows + 1) * sizeof(*rows));
    if (rows == NULL)
        return NULL;
    l->rows = rows;
    memset(&rows[l->n_rows], 0, sizeof(*rows));
    snprintf(rows[l->n_rows].name, MOE_LEDGER_NAME, "%s", domain);
    rows[l->n_rows].limit = UINT64_MAX;
    return &rows[l->n_rows++];
}

moe_status
moe_ledger_limit(struct moe_ledger *l, const char *domain, uint64_t bytes,
                 struct moe_error *err)
{
    struct moe_ledger_row *row;

    (void) pthread_mutex_lock(&l->lock);
    row = moe_ledger_row(l, domain);
    if (row != NULL)
        row->limit = bytes;
    (void) pthread_mutex_unlock(&l->lock);
    return row != NULL ? MOE_OK
                       : moe_fail(err, MOE_E_NOMEM, ENOMEM,
                                  "ledger: no memory");
}

moe_status
moe_ledger_reserve(struct moe_ledger *l, const char *domain, const char *owner,
                   uint64_t bytes, moe_grant **out, struct moe_error *err)
{
    struct moe_grant      *g = calloc(1, sizeof(*g));
    struct moe_ledger_row *row;
    moe_status             st = MOE_OK;

    if (g == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "ledger: no memory");
    (void) pthread_mutex_lock(&l->lock);
    row = moe_ledger_row(l, domain);
    if (row == NULL) {
        st = moe_fail(err, MOE_E_NOMEM, ENOMEM, "ledger: no memory");
    } else if (bytes > row->limit || row->used > row->limit - bytes) {
        st = moe_fail(err, MOE_E_OVER_BUDGET, 0,
                      "%s: %llu bytes for %s asked, %llu of %llu left; raise "
                      "memory.budget",
                      row->name, (unsigned long long) bytes, owner,
                      (unsigned long long) (row->used < row->limit
                                                ? row->limit - row->used
                                                : 0),
                      (unsigned long long) row->limit);
    } else {
        row->used += bytes;
        row->grants++;
        if (row->used > row->peak)
            row->peak = row->used;
        g->bytes = bytes;
        g->domain = (uint32_t) (row - l->rows);
        snprintf(g->owner, sizeof(g->owner), "%s", owner);
        g->next = &l->head;
        g->prev = l->head.prev;
        g->prev->next = g;
        l->head.prev = g;
    }
    (void) pthread_mutex_unlock(&l->lock);
    if (st != MOE_OK) {
        free(g);
        return st;
    }
    *out = g;
    return MOE_OK;
}

void
moe_ledger_release(struct moe_ledger *l, moe_grant *grant)
{
    if (grant == NULL)
        return;
    (void) pthread_mutex_lock(&l->lock);
    grant->prev->next = grant->next;
    grant->next->prev = grant->prev;
    l->rows[grant->domain].used -= grant->bytes;
    l->rows[grant->domain].grants--;
    (void) pthread_mutex_unlock(&l->lock);
    free(grant);
}

void
moe_ledger_domain(struct moe_ledger *l, const char *domain,
                  struct moe_ledger_domain *out)
{
    uint32_t i;

    memset(out, 0, sizeof(*out));
    out->limit = UINT64_MAX;
    (void) pthread_mutex_lock(&l->lock);
    for (i = 0; i < l->n_rows; i++) {
        if (strncmp(l->rows[i].name, domain, MOE_LEDGER_NAME - 1) != 0)
            continue;
        out->used = l->rows[i].used;
        out->peak = l->rows[i].peak;
        out->limit = l->rows[i].limit;
        out->grants = l->rows[i].grants;
    }
    (void) pthread_mutex_unlock(&l->lock);
}

void
moe_ledger_owners(struct moe_ledger *l, const char *domain,
                  void (*fn)(void *ctx, const char *owner, uint64_t bytes),
                  void *ctx)
{
    const struct moe_grant *g, *h;

    (void) pthread_mutex_lock(&l->lock);
    for (g = l->head.next; g != &l->head; g = g->next) {
        uint64_t sum = 0;

        if (strncmp(l->rows[g->domain].name, domain, MOE_LEDGER_NAME - 1) != 0)
            continue;
        for (h = l->head.next; h != g; h = h->next)
            if (h->domain == g->domain && strcmp(h->owner, g->owner) == 0)
                break;
        if (h != g)
            continue; /* told with the first of its owner */
        for (h = g; h != &l->head; h = h->next)
            if (h->domain == g->domain && strcmp(h->owner, g->owner) == 0)
                sum += h->bytes;
        fn(ctx, g->owner, sum);
    }
    (void) pthread_mutex_unlock(&l->lock);
}
