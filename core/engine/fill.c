/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fill.c - allocate by the plan and bring weights into their slots.
 *
 * Owns host staging, the reads, the one check of untrusted bytes and the
 * expansion of formats that the backend does not know.
 */
#include "engine/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MOE_PLANE_ALIGN 64u
#define MOE_PLUGIN_HEAP (1u << 20)

uint64_t
moe_host_round(uint64_t bytes)
{
    uint64_t page = 4096;

    return (bytes + page - 1) / page * page;
}

moe_status
moe_hostbuf_open(struct moe_runner *r, const char *owner, uint64_t bytes,
                 struct moe_hostbuf *out, struct moe_error *err)
{
    moe_status st;

    memset(out, 0, sizeof(*out));
    if (bytes == 0)
        return MOE_OK;
    bytes = moe_host_round(bytes);
    st = moe_ledger_reserve(r->s.ledger, MOE_LEDGER_HOST, owner, bytes,
                            &out->grant, err);
    if (st != MOE_OK)
        return st;
    out->p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (out->p == MAP_FAILED) {
        out->p = NULL;
        moe_ledger_release(r->s.ledger, out->grant);
        out->grant = NULL;
        return moe_fail(err, MOE_E_NOMEM, errno,
                        "%s: the system refused %llu bytes: %s", owner,
                        (unsigned long long) bytes, strerror(errno));
    }
    out->bytes = bytes;
    return MOE_OK;
}

void
moe_hostbuf_close(struct moe_runner *r, struct moe_hostbuf *b)
{
    if (b->p != NULL)
        (void) munmap(b->p, b->bytes);
    if (b->grant != NULL)
        moe_ledger_release(r->s.ledger, b->grant);
    memset(b, 0, sizeof(*b));
}

/* Until everything put on the stream is done. */
moe_status
moe_runner_wait(struct moe_runner *r, struct moe_error *err)
{
    moe_status st = r->s.ops->event_record(r->stream, r->event);

    if (st == MOE_OK)
        st = r->s.ops->event_wait(r->event, UINT64_MAX, err);
    else
        (void) moe_fail(err, st, 0, "%s: event_record failed", r->s.backend);
    return st;
}

/* Where a weight is, for messages. */
static void
moe_weight_name(const struct moe_runner *r, const struct moe_weight *w,
                char *buf, size_t size)
{
    snprintf(buf, size, "%s: tensor '%s'",
             moe_checkpoint_file(r->s.checkpoint, w->plane[0]->file),
             w->plane[0]->name);
}

/* A slot's bytes will be read after those that are read now. */
void
moe_runner_want(const struct moe_runner *r, const struct moe_set *set)
{
    uint32_t i, p;

    for (i = 0; i < set->n_parts; i++)
        for (p = 0; p < set->part[i].n_planes; p++)
            moe_checkpoint_want(r->s.checkpoint, set->part[i].plane[p]);
}

moe_status
moe_runner_fill(struct moe_runner *r, struct moe_set *set, uint32_t slot,
                struct moe_error *err)
{
    const struct moe_group *g = &r->groups[set->group];
    struct moe_tensor       t[3], d[3];
    struct moe_weight_src   src;
    uint64_t                at = 0, dec_at = 0;
    moe_status              st = MOE_OK;
    uint32_t                i, p;

    memset(&src, 0, sizeof(src));
    src.struct_size = sizeof(src);
    for (i = 0; i < set->n_parts && st == MOE_OK; i++) {
        const struct moe_weight        *w = &set->part[i];
        const struct moe_quantizer_ops *q = w->ref.ops;

        memset(&t[i], 0, sizeof(t[i]));
        t[i].struct_size = sizeof(t[i]);
        t[i].scale_dtype = w->scale_dtype;
        t[i].n = w->n;
        t[i].k = w->k;
        for (p = 0; p < w->n_planes && st == MOE_OK; p++) {
            uint8_t *to = (uint8_t *) r->src.p + at;

            st = moe_checkpoint_read(r->s.checkpoint, w->plane[p], 0,
                                     w->plane[p]->bytes, to, err);
            t[i].plane[p] = to;
            t[i].len[p] = w->plane[p]->bytes;
            at = (at + w->plane[p]->bytes + MOE_PLANE_ALIGN - 1)
                 / MOE_PLANE_ALIGN * MOE_PLANE_ALIGN;
            r->bytes_read += w->plane[p]->bytes;
        }
        if (st == MOE_OK && !set->checked) {
            struct moe_error why;
            char             name[300];

            memset(&why, 0, sizeof(why));
            why.struct_size = sizeof(why);
            st = q->check(w->ref.self, w->ref.format, &t[i], &why);
            if (st != MOE_OK) {
                moe_weight_name(r, w, name, sizeof(name));
                st = moe_fail(err, st, why.native, "%s: %s", name, why.text);
            }
        }
        if (st == MOE_OK && g->expanded) {
            uint8_t *to = (uint8_t *) r->dec.p + dec_at;

            d[i] = t[i];
            memset(d[i].plane, 0, sizeof(d[i].plane));
            memset(d[i].len, 0, sizeof(d[i].len));
            d[i].scale_dtype = 0;
            d[i].plane[0] = to;
            d[i].len[0] = w->n * w->k * moe_dtype_size(g->dtype);
            st = q->decode(w->ref.self, w->ref.format, &t[i], 0, w->n,
                           g->dtype, to, w->k);
            if (st != MOE_OK)
                (void) moe_fail(err, st, 0,
                                "%s: format %s cannot be decoded to %s",
                                w->plane[0]->name, w->ref.format->id,
                                g->fmt.format->id);
            dec_at += moe_host_round(d[i].len[0]);
        }
        src.part[i] = g->expanded ? &d[i] : &t[i];
    }
    if (st != MOE_OK)
        return st;
    set->checked = 1;
    st = r->s.ops->slot_upload(r->stream, g->slab, slot, &src, err);
    /* The staging buffer is used again at once. */
    if (st == MOE_OK)
        st = moe_runner_wait(r, err);
    return st;
}

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
                                    &g->residency, err);
            if (st != MOE_OK)
                return st;
        }
    }
    return MOE_OK;
}

static moe_status
moe_memory_create(struct moe_runner *r, struct moe_error *err)
{
    const struct moe_arch *a = r->s.arch;
    uint64_t               src = 0, dec = 0;
    struct moe_buf         buf;
    moe_status             st;
    uint32_t               i;

    for (i = 0; i < r->n_groups; i++) {
        if (r->groups[i].src_bytes > src)
            src = r->groups[i].src_bytes;
        if (r->groups[i].dec_bytes > dec)
            dec = r->groups[i].dec_bytes;
    }
    st = moe_hostbuf_open(r, "staging",
                          src + MOE_PARTS_MAX * MOE_PLANES_MAX * 64, &r->src,
                          err);
    if (st == MOE_OK)
        st = moe_hostbuf_open(r, "staging", dec, &r->dec, err);
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

moe_status
moe_runner_load(struct moe_runner *r, int (*canceled)(void *ctx), void *ctx,
                struct moe_error *err)
{
    const struct moe_arch *a = r->s.arch;
    moe_status             st;
    uint32_t               l, i;

    /* What plugins took of the host until now, and will take for their small
     * structures, is heap: it is in the plan's figure for the process. */
    st = moe_ledger_reserve(r->s.ledger, MOE_LEDGER_HOST, "process",
                            r->plan.process - MOE_PLUGIN_HEAP, &r->process,
                            err);
    if (st == MOE_OK)
        st = moe_memory_create(r, err);
    if (st == MOE_OK)
        st = moe_slabs_create(r, err);
    if (st == MOE_OK)
        st = moe_runner_fill(r, &r->embed, r->embed.slot, err);
    if (st == MOE_OK && !a->tied)
        st = moe_runner_fill(r, &r->output, r->output.slot, err);
    for (l = 0; l < a->n_layers && st == MOE_OK; l++) {
        struct moe_run_layer *y = &r->layers[l];
        struct moe_set *sets[] = {&y->qkv[0], &y->qkv[1], &y->qkv[2], &y->o,
                                  &y->ffn, &y->router, &y->shared,
                                  &y->shared_gate};

        for (i = 0; i < sizeof(sets) / sizeof(sets[0]) && st == MOE_OK; i++)
            if (sets[i]->n_parts != 0)
                st = moe_runner_fill(r, sets[i], sets[i]->slot, err);
        for (i = 0; y->experts != NULL && i < a->n_experts && st == MOE_OK;
             i++)
            if (r->groups[y->experts[i].group].residency == NULL) {
                if (i + 1 < a->n_experts)
                    moe_runner_want(r, &y->experts[i + 1]);
                st = moe_runner_fill(r, &y->experts[i], y->experts[i].slot,
                                     err);
            }
        if (st == MOE_OK && canceled(ctx))
            st = moe_fail(err, MOE_E_CANCELED, 0, "interrupted while loading");
    }
    r->bytes_read = 0; /* from here on it counts what a step had to read */
    return st;
}
