/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conform.h - what the parts of moe-conform share: results, and the host that
 * a plugin under test is given.
 *
 * The host counts everything: a ledger by domain that can be told to refuse,
 * host memory that can be told to run out, parallel() in several orders.
 */
#ifndef MOE_TESTS_CONFORM_H
#define MOE_TESTS_CONFORM_H

#include <pthread.h>
#include <stdio.h>

#include "plugin/registry.h"

#define CONFORM_DOMAINS 16
#define CONFORM_CONFIG  64
#define CONFORM_THREADS 4u
#define CONFORM_TIMEOUT 60000000000ull /* ns: a device that hangs */

enum conform_order { CONFORM_FORWARD, CONFORM_BACKWARD, CONFORM_PARALLEL };

struct conform {
    /* results */
    int      json;
    int      quiet; /* 1: print failures only */
    unsigned n, failed, skipped;
    /* the host */
    struct moe_services services;
    pthread_mutex_t     lock;
    struct {
        char     name[48];
        uint64_t held;
    } domain[CONFORM_DOMAINS];
    uint64_t held, limit; /* bytes of all domains; limit 0: none */
    uint64_t grants;      /* alive */
    uint64_t reserves;    /* calls so far */
    uint64_t deny_at;     /* this call of reserve is refused; 0: none */
    uint64_t allocs;      /* calls so far */
    uint64_t deny_alloc;  /* this call of alloc is; 0: none */
    int64_t  blocks;      /* host blocks alive */
    uint32_t workers;
    enum conform_order order;
    const char *config[CONFORM_CONFIG]; /* key, value, of any section */
    int         n_config;
};

/* One result; its text is a sentence that is true when pass is. */
int conform_ok(struct conform *c, int pass, const char *fmt, ...)
    __attribute__((__format__(__printf__, 3, 4)));
/* A result that does not apply here, and why. */
void conform_skip(struct conform *c, const char *what, const char *why);
/* A line for people. */
void conform_note(struct conform *c, const char *fmt, ...)
    __attribute__((__format__(__printf__, 2, 3)));
/* ok if got == want; else notes both and err's text. */
int conform_status(struct conform *c, moe_status got, moe_status want,
                   const struct moe_error *err, const char *what);

/* host.c */
void     conform_host_init(struct conform *c);
uint64_t conform_held(struct conform *c, const char *domain);
/* Nothing held, nothing allocated. */
int conform_host_empty(struct conform *c);

/* elf.c: symbols of a shared object. */
void conform_elf(struct conform *c, const char *path);

/* backend.c: everything about a backend.  To be called twice, for a plugin
 * that was loaded anew with another number of workers: second 1 compares the
 * results' bits with those of the first time. */
void conform_backend(struct conform *c, const struct moe_registry *r,
                     const struct moe_backend_ops *ops, void *self,
                     int second);

#endif /* MOE_TESTS_CONFORM_H */
