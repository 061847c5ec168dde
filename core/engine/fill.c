/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fill.c - a set of weights from the file into its slot.
 *
 * Owns host buffers, the order of planes in staging, the one check of
 * untrusted bytes and the expansion of formats that the backend does not
 * know.  Which sets are filled at the start, and how they are read ahead, is
 * load.c's.
 */
#include "engine/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MOE_PLANE_ALIGN 64u

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
    /* fewer faults while large sets are read; a refusal costs nothing else */
    (void) madvise(out->p, bytes, MADV_HUGEPAGE);
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
            moe_checkpoint_want(r->s.checkpoint, set->part[i].plane[p], 0,
                                set->part[i].plane[p]->bytes);
}

/* Where the planes of a set lie when it is staged at base. */
uint64_t
moe_set_stage(const struct moe_set *set, uint8_t *base, struct moe_tensor *t)
{
    uint64_t at = 0;
    uint32_t i, p;

    for (i = 0; i < set->n_parts; i++) {
        const struct moe_weight *w = &set->part[i];

        if (t != NULL) {
            memset(&t[i], 0, sizeof(t[i]));
            t[i].struct_size = sizeof(t[i]);
            t[i].scale_dtype = w->scale_dtype;
            t[i].n = w->n;
            t[i].k = w->k;
        }
        for (p = 0; p < w->n_planes; p++) {
            if (t != NULL) {
                t[i].plane[p] = base + at;
                t[i].len[p] = w->plane[p]->bytes;
            }
            at = (at + w->plane[p]->bytes + MOE_PLANE_ALIGN - 1)
                 / MOE_PLANE_ALIGN * MOE_PLANE_ALIGN;
        }
    }
    return at;
}

/* Bytes of a set in the file. */
static uint64_t
moe_set_bytes(const struct moe_set *set)
{
    uint64_t sum = 0;
    uint32_t i;

    for (i = 0; i < set->n_parts; i++)
        sum += set->part[i].bytes;
    return sum;
}

/* How a plane's share of a staged range is treated. */
enum moe_span { MOE_SPAN_WANT, MOE_SPAN_READ };

/* The planes that have a part in bytes [from, from + bytes) of a staged set;
 * dst: of those bytes. */
static moe_status
moe_set_spans(const struct moe_runner *r, const struct moe_set *set,
              uint64_t from, uint64_t bytes, enum moe_span how, uint8_t *dst,
              struct moe_error *err)
{
    uint64_t   at = 0, end = from + bytes;
    moe_status st = MOE_OK;
    uint32_t   i, p;

    for (i = 0; i < set->n_parts; i++)
        for (p = 0; p < set->part[i].n_planes && st == MOE_OK; p++) {
            const struct moe_tensor_info *t = set->part[i].plane[p];
            uint64_t lo = from > at ? from : at, hi = at + t->bytes;

            if (hi > end)
                hi = end;
            if (lo < hi && how == MOE_SPAN_WANT)
                moe_checkpoint_want(r->s.checkpoint, t, lo - at, hi - lo);
            else if (lo < hi)
                st = moe_checkpoint_read(r->s.checkpoint, t, lo - at, hi - lo,
                                         dst + (lo - from), err);
            at = (at + t->bytes + MOE_PLANE_ALIGN - 1) / MOE_PLANE_ALIGN
                 * MOE_PLANE_ALIGN;
        }
    return st;
}

moe_status
moe_set_read(const struct moe_runner *r, const struct moe_set *set,
             uint64_t from, uint64_t bytes, void *dst, struct moe_error *err)
{
    (void) moe_set_spans(r, set, from, bytes, MOE_SPAN_WANT, NULL, NULL);
    return moe_set_spans(r, set, from, bytes, MOE_SPAN_READ, dst, err);
}

moe_status
moe_set_check(const struct moe_runner *r, struct moe_set *set, void *base,
              struct moe_error *err)
{
    struct moe_tensor t[3];
    moe_status        st = MOE_OK;
    uint32_t          i;

    if (set->checked)
        return MOE_OK;
    (void) moe_set_stage(set, base, t);
    for (i = 0; i < set->n_parts && st == MOE_OK; i++) {
        const struct moe_weight *w = &set->part[i];
        struct moe_error         why;
        char                     name[300];

        memset(&why, 0, sizeof(why));
        why.struct_size = sizeof(why);
        st = w->ref.ops->check(w->ref.self, w->ref.format, &t[i], &why);
        if (st != MOE_OK) {
            moe_weight_name(r, w, name, sizeof(name));
            st = moe_fail(err, st, why.native, "%s: %s", name, why.text);
        }
    }
    set->checked = st == MOE_OK;
    return st;
}

moe_status
moe_set_upload(struct moe_runner *r, const struct moe_set *set, uint32_t slot,
               void *base, struct moe_error *err)
{
    const struct moe_group *g = &r->groups[set->group];
    struct moe_tensor       t[3], d[3];
    struct moe_weight_src   src;
    uint64_t                at = 0;
    moe_status              st = MOE_OK;
    uint32_t                i;

    memset(&src, 0, sizeof(src));
    src.struct_size = sizeof(src);
    (void) moe_set_stage(set, base, t);
    for (i = 0; i < set->n_parts && st == MOE_OK; i++) {
        const struct moe_weight *w = &set->part[i];

        if (g->expanded) {
            uint8_t *to = (uint8_t *) r->dec.p + at;

            d[i] = t[i];
            memset(d[i].plane, 0, sizeof(d[i].plane));
            memset(d[i].len, 0, sizeof(d[i].len));
            d[i].scale_dtype = 0;
            d[i].plane[0] = to;
            d[i].len[0] = w->n * w->k * moe_dtype_size(g->dtype);
            st = w->ref.ops->decode(w->ref.self, w->ref.format, &t[i], 0,
                                    w->n, g->dtype, to, w->k);
            if (st != MOE_OK)
                (void) moe_fail(err, st, 0,
                                "%s: format %s cannot be decoded to %s",
                                w->plane[0]->name, w->ref.format->id,
                                g->fmt.format->id);
            at += moe_host_round(d[i].len[0]);
        }
        src.part[i] = g->expanded ? &d[i] : &t[i];
    }
    if (st != MOE_OK)
        return st;
    st = r->s.ops->slot_upload(r->stream, g->slab, slot, &src, err);
    /* The staging memory is used again at once. */
    if (st == MOE_OK)
        st = moe_runner_wait(r, err);
    return st;
}

moe_status
moe_runner_fill(struct moe_runner *r, struct moe_set *set, uint32_t slot,
                struct moe_error *err)
{
    uint64_t   bytes = moe_set_stage(set, NULL, NULL);
    moe_status st = moe_set_spans(r, set, 0, bytes, MOE_SPAN_READ, r->src.p,
                                  err);

    if (st == MOE_OK)
        st = moe_set_check(r, set, r->src.p, err);
    if (st == MOE_OK)
        st = moe_set_upload(r, set, slot, r->src.p, err);
    if (st == MOE_OK)
        r->bytes_read += moe_set_bytes(set);
    return st;
}
