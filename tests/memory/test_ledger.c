/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger's sums, its refusals, and what it knows of the system. */
#include "memory/ledger.h"
#include "memory/limits.h"
#include "tap.h"

static void
count_owner(void *ctx, const char *owner, uint64_t bytes)
{
    char *text = ctx;

    snprintf(text + strlen(text), 100, "%s=%llu ", owner,
             (unsigned long long) bytes);
}

int
main(void)
{
    struct moe_error         err = {.struct_size = sizeof(err)};
    struct moe_ledger       *l;
    struct moe_ledger_domain d;
    struct moe_limits        m;
    moe_grant               *a, *b, *c;
    char                     owners[300] = "";
    const char              *why;

    ok(moe_ledger_open(&l, &err) == MOE_OK, "open");
    ok(moe_ledger_limit(l, "host", 1000, &err) == MOE_OK, "limit");
    ok(moe_ledger_reserve(l, "host", "weights", 600, &a, &err) == MOE_OK,
       "within");
    ok(moe_ledger_reserve(l, "host", "kv", 400, &b, &err) == MOE_OK,
       "to the last byte");
    is_int(moe_ledger_reserve(l, "host", "more", 1, &c, &err),
           MOE_E_OVER_BUDGET, "one more byte is refused");
    has_str(err.text, "more", "the message names the owner");
    has_str(err.text, "0 of 1000", "what is left");
    has_str(err.text, "memory.budget", "and the remedy");
    is_int(moe_ledger_reserve(l, "host", "huge", UINT64_MAX, &c, &err),
           MOE_E_OVER_BUDGET, "no overflow");
    ok(moe_ledger_reserve(l, "gpu0", "weights", 1ull << 40, &c, &err)
           == MOE_OK, "another domain has its own ceiling");
    moe_ledger_owners(l, "host", count_owner, owners);
    is_str(owners, "weights=600 kv=400 ", "owners");
    moe_ledger_release(l, b);
    moe_ledger_domain(l, "host", &d);
    is_int(d.used, 600, "used");
    is_int(d.peak, 1000, "peak");
    is_int(d.grants, 1, "grants");
    moe_ledger_release(l, a);
    moe_ledger_release(l, NULL);
    moe_ledger_domain(l, "host", &d);
    is_int(d.used, 0, "back to zero");
    is_int(moe_ledger_close(l), 1, "the forgotten grant is counted");

    moe_limits_read(&m);
    ok(m.rss > 0 && m.rss_peak >= m.rss, "this process is somewhere");
    memset(&m, 0, sizeof(m));
    m.rss = 10;
    m.available = 1000;
    m.cgroup = UINT64_MAX;
    is_int(moe_limits_budget(&m, 0, &why), 1010, "what is free, and ours");
    is_str(why, "free memory", "by the system");
    m.cgroup = 500;
    m.cgroup_used = 110;
    is_int(moe_limits_budget(&m, 0, &why), 400, "less what others in it use");
    is_str(why, "control group", "by the group");
    is_int(moe_limits_budget(&m, 300, &why), 300, "the figure asked for");
    is_str(why, "memory.budget", "by the option");
    is_int(moe_limits_budget(&m, 800, &why), 400, "whichever is least");
    return tap_done();
}
