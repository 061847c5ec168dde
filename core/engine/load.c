/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load.c - allocate by the plan and bring in the weights that stay.
 *
 * Owns the order of a start.  Weights come before the cache of keys and
 * values and the activations: the memory that those will take holds, until
 * then, what is read ahead, so that the file is read while earlier weights
 * are packed and the plan needs no byte more for it.  Sets are read in the
 * order in which they lie in the files.
 */
#include "engine/internal.h"

#include <errno.h>
#include <stdlib.h>

#include "memory/feed.h"
#include "memory/limits.h"

#define MOE_PLUGIN_HEAP (1u << 20)
/* Read ahead at most: some pieces for each reader, and the sets that wait
 * while one is packed. */
#define MOE_LOAD_AHEAD (64ull << 20)
/* Dropped from the system's cache at once. */
#define MOE_LOAD_DROP (64ull << 20)
/* Readers: that many reads are under way at once.  They do not compute, so
 * they are not the pool's. */
#define MOE_LOAD_READERS 4u

static moe_status
moe_slabs_create(struct moe_runner *r, struct moe_error *err)
{
    uint32_t i;

    for (i = 0; i < r->n_groups; i++) {
        struct moe_group  *g = &r->groups[i];
        struct moe_weights w;
        moe_status         st;

        moe_group_weights(g, &w);
        st = r->s.ops->slab_create(r->dev, &w, &g->plan, g->n_slots, &g->slab,
                                   err);
        if (st != MOE_OK)
            return st;
        if (g->routed && g->n_slots < g->n_sets) {
            st = moe_residency_open((uint32_t) g->n_sets, g->n_slots,
                                    r->s.eviction, &g->residency, err);
            if (st != MOE_OK)
                return st;
        }
    }
    return MOE_OK;
}

/* Room for the largest set as the files have it. */
static uint64_t
moe_source_bytes(const struct moe_runner *r)
{
    uint64_t src = 0;
    uint32_t i;

    for (i = 0; i < r->n_groups; i++)
        if (r->groups[i].src_bytes > src)
            src = r->groups[i].src_bytes;
    return src + MOE_PARTS_MAX * MOE_PLANES_MAX * 64;
}

static moe_status
moe_memory_create(struct moe_runner *r, struct moe_error *err)
{
    const struct moe_arch *a = r->s.arch;
    struct moe_buf         buf;
    moe_status             st;

    st = moe_hostbuf_open(r, "staging", moe_source_bytes(r), &r->src, err);
    if (st == MOE_OK)
        st = moe_hostbuf_open(r, "staging", r->map.ctl_bytes, &r->ctl, err);
    if (st == MOE_OK)
        st = moe_hostbuf_open(r, "staging",
                              (uint64_t) r->n_moe * (a->n_experts + 1) * 4,
                              &r->counts, err);
    if (st == MOE_OK && (r->info.caps & MOE_CAP_HOST_VIEW) == 0)
        st = moe_hostbuf_open(r, "staging",
                              (uint64_t) r->plan.out_rows * a->vocab * 4,
                              &r->logits, err);
    if (st == MOE_OK)
        st = r->s.ops->mem_alloc(r->dev, r->map.total, MOE_USE_ACT, &r->act,
                                 err);
    if (st == MOE_OK)
        st = r->s.ops->mem_alloc(r->dev, r->n_vec * sizeof(float), MOE_USE_ACT,
                                 &r->vec, err);
    if (st == MOE_OK)
        st = r->s.ops->mem_alloc(r->dev,
                                 (uint64_t) moe_kv_row_bytes(r, r->s.kv_dtype)
                                     * r->s.page_rows * a->n_layers
                                     * r->plan.pages,
                                 MOE_USE_ACT, &r->kv, err);
    if (st != MOE_OK)
        return st;
    buf.mem = r->vec;
    buf.off = 0;
    st = r->s.ops->upload(r->stream, buf, r->vec_host,
                          r->n_vec * sizeof(float));
    if (st != MOE_OK)
        return moe_fail(err, st, 0, "%s: upload of the norms failed",
                        r->s.backend);
    st = moe_runner_wait(r, err);
    free(r->vec_host);
    r->vec_host = NULL;
    if (st == MOE_OK && a->n_experts != 0) {
        r->list = calloc(a->n_experts, sizeof(*r->list));
        r->missing = calloc(a->n_experts, sizeof(*r->missing));
        r->list_w = calloc(a->n_experts, sizeof(*r->list_w));
        if (r->list == NULL || r->missing == NULL || r->list_w == NULL)
            return moe_fail(err, MOE_E_NOMEM, ENOMEM, "experts: no memory");
    }
    return st;
}

/* ------------------------------------------------ weights from the files -- */

struct moe_loading {
    struct moe_runner *r;
    struct moe_set   **sets; /* (n) in the order in which they are read */
    uint32_t           n;
    int                drop; /* the system's cache cannot hold the files */
    uint32_t           file; /* being dropped, */
    uint64_t           dropped; /* up to this byte */
};

static uint64_t
moe_loading_bytes(void *ctx, uint32_t i)
{
    const struct moe_loading *l = ctx;

    return moe_set_stage(l->sets[i], NULL, NULL);
}

static moe_status
moe_loading_read(void *ctx, uint32_t i, uint64_t from, uint64_t bytes,
                 void *dst, struct moe_error *err)
{
    const struct moe_loading *l = ctx;

    return moe_set_read(l->r, l->sets[i], from, bytes, dst, err);
}

static moe_status
moe_loading_check(void *ctx, uint32_t i, void *base, struct moe_error *err)
{
    const struct moe_loading *l = ctx;

    return moe_set_check(l->r, l->sets[i], base, err);
}

static int
moe_loading_order(const void *a, const void *b)
{
    const struct moe_tensor_info *x = (*(struct moe_set *const *) a)
                                          ->part[0].plane[0];
    const struct moe_tensor_info *y = (*(struct moe_set *const *) b)
                                          ->part[0].plane[0];

    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static void
moe_loading_add(struct moe_loading *l, struct moe_set *set)
{
    if (set->n_parts == 0)
        return;
    if (l->sets != NULL)
        l->sets[l->n] = set;
    l->n++;
}

/* Every set that has a slot of its own; counts them if there is no list. */
static void
moe_loading_list(struct moe_loading *w)
{
    struct moe_runner *r = w->r;
    uint32_t           l, i;

    w->n = 0;
    moe_loading_add(w, &r->embed);
    if (!r->s.arch->tied)
        moe_loading_add(w, &r->output);
    for (l = 0; l < r->s.arch->n_layers; l++) {
        struct moe_run_layer *y = &r->layers[l];

        for (i = 0; i < 3; i++)
            moe_loading_add(w, &y->qkv[i]);
        moe_loading_add(w, &y->o);
        moe_loading_add(w, &y->ffn);
        moe_loading_add(w, &y->router);
        moe_loading_add(w, &y->shared);
        moe_loading_add(w, &y->shared_gate);
        for (i = 0; y->experts != NULL && i < r->s.arch->n_experts; i++)
            if (r->groups[y->experts[i].group].residency == NULL)
                moe_loading_add(w, &y->experts[i]);
    }
}

/*
 * Whether the system should forget what was read: all weights stay, so
 * nothing of the files is read again before the next start, and there is no
 * memory to keep them until then.
 */
static int
moe_loading_drops(const struct moe_runner *r)
{
    const struct moe_checkpoint *c = r->s.checkpoint;
    struct moe_limits            m;
    const char                  *why;
    uint64_t                     files = 0, most;
    size_t                       i;

    for (i = 0; i < r->n_groups; i++)
        if (r->groups[i].residency != NULL)
            return 0;
    for (i = 0; i < moe_checkpoint_files(c); i++)
        files += moe_checkpoint_file_bytes(c, i);
    moe_limits_read(&m);
    most = moe_limits_budget(&m, 0, &why);
    return most < r->plan.total || files > most - r->plan.total;
}

/*
 * Set i is in its slot, and so is what lies before it in the files: dropped
 * in long pieces, because pages of the system's cache that lie across the end
 * of one stay, and planes end anywhere.
 */
static void
moe_loading_used(struct moe_loading *l, uint32_t i)
{
    const struct moe_checkpoint  *c = l->r->s.checkpoint;
    const struct moe_tensor_info *t = l->sets[i]->part[0].plane[0];
    int                           last = i + 1 == l->n;

    if (!l->drop)
        return;
    for (; l->file < t->file; l->file++) {
        moe_checkpoint_drop(c, l->file, l->dropped,
                            moe_checkpoint_file_bytes(c, l->file)
                                - l->dropped);
        l->dropped = 0;
    }
    if (last || t->offset - l->dropped >= MOE_LOAD_DROP) {
        uint64_t to = last ? moe_checkpoint_file_bytes(c, t->file) : t->offset;

        moe_checkpoint_drop(c, t->file, l->dropped, to - l->dropped);
        l->dropped = to;
    }
}

static moe_status
moe_weights_load(struct moe_runner *r, int (*canceled)(void *ctx), void *ctx,
                 struct moe_error *err)
{
    struct moe_loading     w = {.r = r};
    struct moe_feed_source source = {0, moe_loading_bytes, moe_loading_read,
                                     moe_loading_check, &w};
    struct moe_feed       *feed = NULL;
    struct moe_hostbuf     ring;
    uint64_t               bytes = moe_source_bytes(r), ahead;
    moe_status             st;
    uint32_t               n, i;
    void                  *base;

    moe_loading_list(&w);
    w.sets = calloc(w.n, sizeof(*w.sets));
    if (w.sets == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "weights: no memory");
    moe_loading_list(&w);
    qsort(w.sets, w.n, sizeof(*w.sets), moe_loading_order);
    w.drop = moe_loading_drops(r);
    source.n = w.n;

    ahead = r->host_device ? r->plan.kv + r->plan.act : 0;
    if (ahead > MOE_LOAD_AHEAD)
        ahead = MOE_LOAD_AHEAD;
    st = moe_hostbuf_open(r, "staging", bytes + ahead / 4096 * 4096, &ring,
                          err);
    if (st != MOE_OK)
        goto free_list;
    st = moe_feed_open(&source, ring.p, ring.bytes, MOE_LOAD_READERS, &feed,
                       err);
    for (n = 0; n < w.n && st == MOE_OK; n++) {
        st = moe_feed_next(feed, &i, &base, err);
        if (st == MOE_OK)
            st = moe_set_upload(r, w.sets[i], w.sets[i]->slot, base, err);
        moe_feed_release(feed);
        if (st == MOE_OK)
            moe_loading_used(&w, i);
        if (st == MOE_OK && canceled(ctx))
            st = moe_fail(err, MOE_E_CANCELED, 0, "interrupted while loading");
    }
    moe_feed_close(feed);
    moe_hostbuf_close(r, &ring);
free_list:
    free(w.sets);
    return st;
}

moe_status
moe_runner_load(struct moe_runner *r, int (*canceled)(void *ctx), void *ctx,
                struct moe_error *err)
{
    uint64_t   dec = 0;
    moe_status st;
    uint32_t   i;

    for (i = 0; i < r->n_groups; i++)
        if (r->groups[i].dec_bytes > dec)
            dec = r->groups[i].dec_bytes;
    /* What plugins took of the host until now, and will take for their small
     * structures, is heap: it is in the plan's figure for the process. */
    st = moe_ledger_reserve(r->s.ledger, MOE_LEDGER_HOST, "process",
                            r->plan.process - MOE_PLUGIN_HEAP, &r->process,
                            err);
    if (st == MOE_OK)
        st = moe_slabs_create(r, err);
    if (st == MOE_OK)
        st = moe_hostbuf_open(r, "staging", dec, &r->dec, err);
    if (st == MOE_OK)
        st = moe_weights_load(r, canceled, ctx, err);
    if (st == MOE_OK)
        st = moe_memory_create(r, err);
    r->bytes_read = 0; /* from here on it counts what a step had to read */
    return st;
}
