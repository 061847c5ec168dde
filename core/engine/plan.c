/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan.c - what fits where, to the byte.
 *
 * Owns the arithmetic of a deployment on one device and the refusal of a
 * budget that is too small.  What it decides is what moe_runner_load does
 * and what the explanation prints: there is no second calculation.
 *
 * Order of preference when memory is short: fewer sequences at once first,
 * then fewer expert slots, then fewer rows a step, then (if the context was
 * not asked for) a shorter context.
 */
#include "engine/internal.h"

#include <string.h>

#define MOE_ACT_ALIGN    256u
#define MOE_ROWS_MIN     8u
#define MOE_OUT_ROWS     16u
#define MOE_CONTEXT_AUTO 8192u /* unless asked for: more costs KV memory */
#define MOE_CONTEXT_MIN  256u
/* Heap of sequences, step lists and thread stacks, not counted one by one. */
#define MOE_HEAP_SLACK (2u << 20)

static uint64_t
moe_round(uint64_t v, uint64_t to)
{
    return (v + to - 1) / to * to;
}

/* A device allocation of so many bytes, as the ledger will see it. */
static uint64_t
moe_dev_round(const struct moe_runner *r, uint64_t bytes)
{
    return moe_round(bytes, r->info.mem_align != 0 ? r->info.mem_align : 1);
}

void
moe_runner_map(const struct moe_runner *r, uint32_t rows, uint32_t out_rows,
               uint32_t sequences, uint32_t max_pages, uint64_t work,
               struct moe_act_map *map)
{
    const struct moe_arch *a = r->s.arch;
    uint64_t               at = 0, R = rows;
    uint64_t               qkv = (uint64_t) a->heads * a->head_dim
                   + (uint64_t) a->kv_heads * (a->head_dim + a->v_dim);
    int moe = r->n_moe != 0;

#define MOE_TAKE(field, bytes)                                                \
    do {                                                                      \
        map->field = at;                                                      \
        at = moe_round(at + (bytes), MOE_ACT_ALIGN);                          \
    } while (0)
    memset(map, 0, sizeof(*map));
    MOE_TAKE(x, R * a->hidden * 4);
    MOE_TAKE(xn, R * a->hidden * 4);
    MOE_TAKE(qkv, R * qkv * 4);
    MOE_TAKE(att, R * a->heads * a->v_dim * 4);
    if (moe) {
        MOE_TAKE(scores, R * a->n_experts * 4);
        MOE_TAKE(ids, R * a->top_k * 4);
        MOE_TAKE(weights, R * a->top_k * 4);
        MOE_TAKE(offsets, (uint64_t) r->n_moe * (a->n_experts + 1) * 4);
        MOE_TAKE(perm, R * a->top_k * 4);
        MOE_TAKE(pairs, R * a->top_k * a->hidden * 4);
        if (a->shared_width != 0)
            MOE_TAKE(shared, R * a->hidden * 4);
        if (a->shared_gated)
            MOE_TAKE(shared_gate, R * 4);
    }
    MOE_TAKE(out, (uint64_t) out_rows * a->hidden * 4);
    MOE_TAKE(logits, (uint64_t) out_rows * a->vocab * 4);
    MOE_TAKE(tokens, R * 4);
    MOE_TAKE(positions, R * 4);
    MOE_TAKE(seqs, R * 4);
    MOE_TAKE(slots, R * 4);
    MOE_TAKE(out_rows, R * 4);
    MOE_TAKE(pages, (uint64_t) sequences * max_pages * 4);
    map->ctl_bytes = at - map->tokens;
    map->work_bytes = work;
    MOE_TAKE(work, work);
    map->total = at;
#undef MOE_TAKE
}

/* Everything but the expert slots, for a choice of sizes. */
struct moe_trial {
    uint32_t           rows, sequences, context;
    struct moe_act_map map;
    uint64_t           dense, kv, act, staging; /* staging: host */
    uint32_t           pages, max_pages;
};

static moe_status
moe_trial_make(struct moe_runner *r, uint32_t rows, uint32_t sequences,
               uint32_t context, struct moe_trial *t, struct moe_error *err)
{
    const struct moe_arch *a = r->s.arch;
    uint64_t               work, src = 0, dec = 0, page;
    moe_status             st;
    uint32_t               i, out = r->plan.out_rows;

    memset(t, 0, sizeof(*t));
    t->rows = rows;
    t->sequences = sequences;
    t->context = context;
    t->max_pages = (context + r->s.page_rows - 1) / r->s.page_rows;
    t->pages = t->max_pages * sequences;
    st = moe_runner_work(r, rows, out, context, &work, err);
    if (st != MOE_OK)
        return st;
    moe_runner_map(r, rows, out, r->s.sequences, t->max_pages, work, &t->map);
    for (i = 0; i < r->n_groups; i++) {
        const struct moe_group *g = &r->groups[i];

        if (!g->routed)
            t->dense += moe_dev_round(r, g->n_sets * g->plan.slot_bytes);
        if (g->src_bytes > src)
            src = g->src_bytes;
        if (g->dec_bytes > dec)
            dec = g->dec_bytes;
    }
    page = (uint64_t) moe_kv_row_bytes(r, r->s.kv_dtype) * r->s.page_rows;
    t->kv = moe_dev_round(r, page * a->n_layers * t->pages);
    t->act = moe_dev_round(r, t->map.total)
             + moe_dev_round(r, r->n_vec * sizeof(float));
    /* planes are staged at 64-byte boundaries: room for their rounding */
    t->staging = moe_host_round(src + MOE_PARTS_MAX * MOE_PLANES_MAX * 64)
                 + moe_host_round(t->map.ctl_bytes)
                 + moe_host_round((uint64_t) r->n_moe * (a->n_experts + 1)
                                  * 4);
    if (dec != 0)
        t->staging += moe_host_round(dec);
    if ((r->info.caps & MOE_CAP_HOST_VIEW) == 0)
        t->staging += moe_host_round((uint64_t) out * a->vocab * 4);
    return MOE_OK;
}

static uint64_t
moe_trial_device(const struct moe_trial *t)
{
    return t->dense + t->kv + t->act;
}

/* Bytes of the routed groups with at most `slots` in each; the count that
 * this comes to in *n. */
static uint64_t
moe_slots_bytes(const struct moe_runner *r, uint64_t slots, uint64_t *n)
{
    uint64_t bytes = 0, i;

    *n = 0;
    for (i = 0; i < r->n_groups; i++) {
        const struct moe_group *g = &r->groups[i];
        uint64_t                have = g->n_sets < slots ? g->n_sets : slots;

        if (!g->routed)
            continue;
        bytes += moe_dev_round(r, have * g->plan.slot_bytes);
        *n += have;
    }
    return bytes;
}

/* The most slots a group that fit into so many bytes; 0: not one. */
static uint64_t
moe_slots_fit(const struct moe_runner *r, uint64_t bytes)
{
    uint64_t lo = 0, hi = 0, n, i;

    for (i = 0; i < r->n_groups; i++)
        if (r->groups[i].routed && r->groups[i].n_sets > hi)
            hi = r->groups[i].n_sets;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo + 1) / 2;

        if (moe_slots_bytes(r, mid, &n) <= bytes)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

/* The host's smallest budget for a trial with one slot a group. */
static uint64_t
moe_trial_least(const struct moe_runner *r, const struct moe_trial *t,
                uint64_t process)
{
    uint64_t n, sum = process + t->staging;

    if (r->host_device)
        sum += moe_trial_device(t) + moe_slots_bytes(r, 1, &n);
    return sum;
}

/*
 * The figure that a refusal names, in MiB.  The process itself grows and
 * shrinks from run to run with the pages of shared libraries that the system
 * maps around each fault: the figure works in any of them.
 */
static unsigned long long
moe_least_named(uint64_t least)
{
    return (least >> 20) + 3;
}

moe_status
moe_runner_make_plan(struct moe_runner *r, uint64_t budget, uint64_t process,
                     uint64_t peak, struct moe_runner_plan *out,
                     struct moe_error *err)
{
    const struct moe_arch  *a = r->s.arch;
    struct moe_runner_plan *p = &r->plan;
    struct moe_trial        t, least;
    uint64_t dev_budget, host_left, want, n, slots = 0, total_slots;
    uint32_t context = r->s.context, rows, sequences, least_context;
    int      auto_context = context == 0, found = 0;
    moe_status st;

    memset(p, 0, sizeof(*p));
    process += MOE_HEAP_SLACK;
    if (auto_context)
        context = a->max_context < MOE_CONTEXT_AUTO ? a->max_context
                                                    : MOE_CONTEXT_AUTO;
    if (context > a->max_context)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "model.context: %u asked for, the model knows at most "
                        "%u",
                        context, a->max_context);
    least_context = auto_context && context > MOE_CONTEXT_MIN ? MOE_CONTEXT_MIN
                                                              : context;
    p->out_rows = r->s.sequences < MOE_OUT_ROWS ? r->s.sequences : MOE_OUT_ROWS;
    (void) moe_slots_bytes(r, UINT64_MAX, &p->experts);
    total_slots = moe_slots_fit(r, UINT64_MAX);
    /* Enough that a step of one token seldom evicts what it needs next. */
    want = total_slots < 2u * a->top_k * (uint64_t) r->n_moe
               ? total_slots
               : 2u * a->top_k * (uint64_t) r->n_moe;

    rows = r->s.batch_rows < MOE_ROWS_MIN ? r->s.batch_rows : MOE_ROWS_MIN;
    st = moe_trial_make(r, rows, 1, least_context, &least, err);
    if (st != MOE_OK)
        return st;
    n = moe_trial_least(r, &least, process);
    if (n < peak)
        n = peak;
    if (budget < n)
        return moe_fail(err, MOE_E_OVER_BUDGET, 0,
                        "memory.budget: %llu bytes are too few for %s; the "
                        "smallest that works is %lluM",
                        (unsigned long long) budget,
                        moe_checkpoint_dir(r->s.checkpoint),
                        moe_least_named(n));
    if (!r->host_device) {
        dev_budget = r->info.mem_free;
        (void) moe_slots_bytes(r, 1, &n);
        if (moe_trial_device(&least) + moe_slots_bytes(r, 1, &n) > dev_budget)
            return moe_fail(err, MOE_E_OVER_BUDGET, 0,
                            "%s: %llu bytes free, the smallest that works is "
                            "%llu",
                            r->info.name, (unsigned long long) dev_budget,
                            (unsigned long long) (moe_trial_device(&least)
                                                  + moe_slots_bytes(r, 1, &n)));
    }

    /* The largest step that leaves room for the wanted slots; if there is
     * none, the smallest step and the slots that are left. */
    t = least;
    while (!found) {
        for (rows = r->s.batch_rows; !found; rows /= 2) {
            if (rows < MOE_ROWS_MIN)
                break;
            st = moe_trial_make(r, rows, 1, context, &t, err);
            if (st != MOE_OK)
                return st;
            host_left = budget - process;
            if (r->host_device)
                dev_budget = host_left > t.staging ? host_left - t.staging : 0;
            else
                dev_budget = host_left >= t.staging ? r->info.mem_free : 0;
            found = dev_budget >= moe_trial_device(&t)
                    && moe_slots_fit(r, dev_budget - moe_trial_device(&t))
                           >= want;
        }
        if (found || !auto_context || context <= MOE_CONTEXT_MIN)
            break;
        context = context / 2 > MOE_CONTEXT_MIN ? context / 2
                                                : MOE_CONTEXT_MIN;
    }
    if (!found) {
        t = least;
        context = least_context;
        host_left = budget - process;
        dev_budget = r->host_device ? host_left - t.staging : r->info.mem_free;
    }
    slots = moe_slots_fit(r, dev_budget - moe_trial_device(&t));

    /* What is left after the experts goes to sequences. */
    sequences = 1;
    rows = t.rows;
    while (sequences < r->s.sequences) {
        struct moe_trial more;

        st = moe_trial_make(r, rows, sequences + 1, context, &more, err);
        if (st != MOE_OK)
            return st;
        if (moe_trial_device(&more) > dev_budget
            || moe_slots_fit(r, dev_budget - moe_trial_device(&more)) < slots)
            break;
        t = more;
        sequences++;
    }

    p->rows = t.rows;
    p->context = t.context;
    p->sequences = r->s.sequences; /* short of pages they take turns */
    p->pages = t.pages;
    p->max_pages = t.max_pages;
    p->page_rows = r->s.page_rows;
    p->kv_dtype = r->s.kv_dtype;
    p->process = process;
    p->dense = t.dense;
    p->kv = t.kv;
    p->act = t.act;
    p->staging = t.staging;
    p->expert = moe_slots_bytes(r, slots, &p->slots);
    p->total = moe_trial_device(&t) + p->expert
               + (r->host_device ? process + t.staging : 0);
    p->budget = budget;
    for (n = 0; n < r->n_groups; n++) {
        struct moe_group *g = &r->groups[n];

        g->n_slots = (uint32_t) (!g->routed || g->n_sets < slots ? g->n_sets
                                                                 : slots);
    }
    r->map = t.map;
    *out = *p;
    return MOE_OK;
}
