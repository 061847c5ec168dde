/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ledger.h - every byte that grows with the model or the load.
 *
 * Whoever is about to allocate asks here first, in a named domain ("host",
 * one for each device) and under an owner's name; the ledger may refuse with
 * MOE_E_OVER_BUDGET.  It allocates nothing itself.
 *
 * Threads: any function from any thread, but open and close.
 */
#ifndef MOE_CORE_MEMORY_LEDGER_H
#define MOE_CORE_MEMORY_LEDGER_H

#include <moe/plugin.h>
#include <moe/types.h>

struct moe_ledger;

#define MOE_LEDGER_HOST "host"

moe_status moe_ledger_open(struct moe_ledger **out, struct moe_error *err);
/* Grants still out are freed with it; their number is returned: 0 if every
 * owner was tidy. */
size_t     moe_ledger_close(struct moe_ledger *l);

/* Ceiling of a domain in bytes; a domain without one has none. */
moe_status moe_ledger_limit(struct moe_ledger *l, const char *domain,
                            uint64_t bytes, struct moe_error *err);

/* MOE_E_OVER_BUDGET: domain, owner, what was asked and what is left. */
moe_status moe_ledger_reserve(struct moe_ledger *l, const char *domain,
                              const char *owner, uint64_t bytes,
                              moe_grant **out, struct moe_error *err);
void       moe_ledger_release(struct moe_ledger *l, moe_grant *grant);

struct moe_ledger_domain {
    uint64_t used, peak;
    uint64_t limit; /* UINT64_MAX: none */
    uint64_t grants;
};
void moe_ledger_domain(struct moe_ledger *l, const char *domain,
                       struct moe_ledger_domain *out);

/* For each owner in a domain, by name: fn(ctx, owner, bytes held). */
void moe_ledger_owners(struct moe_ledger *l, const char *domain,
                       void (*fn)(void *ctx, const char *owner,
                                  uint64_t bytes),
                       void *ctx);

#endif /* MOE_CORE_MEMORY_LEDGER_H */
