/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attention.c - causal attention over the paged KV cache.
 *
 * A unit of work is one row and up to four query heads that share a KV head:
 * all scores first, then the softmax, then the values in the order of
 * positions.  Neither pages nor the other rows change the order of a sum, so
 * a row's bits depend on its own sequence alone.
 */

#include <math.h>
#include <stdatomic.h>

#include "backend/cpu/cpu.h"

struct attention {
    const struct moe_op_attention *op;
    const struct cpu_isa          *isa;
    const float    *q;     /* (rows, heads * k_dim) */
    float          *y;     /* (rows, heads * v_dim) */
    const uint32_t *seqs;  /* (rows) */
    const uint32_t *positions; /* (rows) */
    const uint32_t *pages; /* (n_seqs, max_pages) */
    const float    *sinks; /* (heads) or NULL */
    const uint8_t  *k, *v; /* the cache */
    float          *work;  /* (slots, CPU_HEADS, span) */
    uint64_t        n_pages;
    uint64_t        span;   /* most positions that a row sees */
    uint32_t        elem;   /* bytes of one of the cache's */
    uint32_t        shares; /* query heads of a KV head */
    uint32_t        blocks; /* of CPU_HEADS in these */
    atomic_int      bad_page;
};

/* The first position that a row at pos sees. */
static uint32_t
first_seen(const struct moe_op_attention *op, uint32_t pos)
{
    uint32_t lo = 0;

    if (op->window != 0 && pos >= op->window)
        lo = pos - op->window + 1;
    if (op->chunk != 0 && lo < pos / op->chunk * op->chunk)
        lo = pos / op->chunk * op->chunk;
    return lo;
}

static uint64_t
longest_span(const struct moe_op_attention *op)
{
    uint64_t n = op->max_context;

    if (op->window != 0)
        n = cpu_min(n, op->window);
    if (op->chunk != 0)
        n = cpu_min(n, op->chunk);
    return cpu_align(n, 16);
}

uint64_t
cpu_attention_work(const moe_device *dev, const struct moe_op_attention *op)
{
    return (uint64_t) dev->workers * CPU_HEADS * longest_span(op)
           * sizeof(float);
}

moe_status
cpu_kv_check(const struct moe_kv *kv, const char *what, struct moe_error *err)
{
    if (kv->struct_size >= sizeof(*kv) && kv->page_rows != 0
        && kv->kv_heads != 0 && kv->k_dim != 0 && kv->v_dim != 0
        && kv->dtype >= MOE_F32 && kv->dtype <= MOE_BF16)
        return MOE_OK;
    return moe_fail(err, MOE_E_INVAL, 0,
                    "%s: a cache of type %u with %u heads of %u and %u, %u "
                    "rows a page",
                    what, kv->dtype, kv->kv_heads, kv->k_dim, kv->v_dim,
                    kv->page_rows);
}

moe_status
cpu_kv_open(const moe_device *dev, const struct moe_kv *kv, const char *what,
            uint8_t **k, uint8_t **v, uint64_t *n_pages,
            struct moe_error *err)
{
    const uint64_t rows = (uint64_t) kv->kv_heads * kv->page_rows
                          * moe_dtype_size(kv->dtype);

    *k = cpu_bytes(dev, kv->k, 0, what, err);
    *v = cpu_bytes(dev, kv->v, 0, what, err);
    if (*k == NULL || *v == NULL)
        return MOE_E_INVAL;
    *n_pages = cpu_min((kv->k.mem->bytes - kv->k.off) / (rows * kv->k_dim),
                       (kv->v.mem->bytes - kv->v.off) / (rows * kv->v_dim));
    return MOE_OK;
}

/* A run of positions inside one page: [p, p + n) of sequence seq.  *at: its
 * first row in the cache, counted in rows.  0: a page that is not there. */
static uint32_t
page_run(const struct attention *a, uint32_t seq, uint32_t kv_head,
         uint32_t p, uint32_t last, uint64_t *at)
{
    const struct moe_kv *kv = &a->op->kv;
    const uint32_t       row = p % kv->page_rows;
    const uint32_t       page = a->pages[(uint64_t) seq * a->op->max_pages
                                         + p / kv->page_rows];

    *at = 0;
    if (page >= a->n_pages)
        return 0;
    *at = ((uint64_t) page * kv->kv_heads + kv_head) * kv->page_rows + row;
    return (uint32_t) cpu_min(kv->page_rows - row, last - p + 1);
}

static void
soften(const struct moe_op_attention *op, float *s, uint32_t n)
{
    uint32_t i;

    for (i = 0; i < n; i++)
        s[i] = op->softcap * tanhf(s[i] / op->softcap);
}

static void
attention_unit(void *arg, uint32_t i, uint32_t slot)
{
    struct attention              *a = arg;
    const struct moe_op_attention *op = a->op;
    const struct moe_kv           *kv = &op->kv;
    const uint32_t block = i % a->blocks;
    const uint32_t kv_head = i / a->blocks % kv->kv_heads;
    /* the last rows see most: they go first */
    const uint32_t row = op->rows - 1 - i / a->blocks / kv->kv_heads;
    const uint32_t h0 = kv_head * a->shares + block * CPU_HEADS;
    const uint32_t heads = (uint32_t) cpu_min(CPU_HEADS,
                                              a->shares - block * CPU_HEADS);
    const uint32_t pos = a->positions[row], seq = a->seqs[row];
    const uint32_t lo = first_seen(op, pos), n = pos - lo + 1;
    const float   *q[CPU_HEADS];
    float         *s[CPU_HEADS], *y[CPU_HEADS];
    float         *at_s[CPU_HEADS];
    uint32_t       h, p, run;
    uint64_t       at;

    for (h = 0; h < heads; h++) {
        q[h] = a->q + row * op->ldq + (size_t) (h0 + h) * kv->k_dim;
        y[h] = a->y + row * op->ldy + (size_t) (h0 + h) * kv->v_dim;
        s[h] = a->work + ((uint64_t) slot * CPU_HEADS + h) * a->span;
    }
    for (p = lo; p <= pos; p += run) {
        run = page_run(a, seq, kv_head, p, pos, &at);
        if (run == 0) {
            atomic_store_explicit(&a->bad_page, 1, memory_order_relaxed);
            return;
        }
        for (h = 0; h < heads; h++)
            at_s[h] = s[h] + (p - lo);
        a->isa->scores[kv->dtype - 1](q, heads, a->k + at * kv->k_dim * a->elem,
                                      run, kv->k_dim, at_s);
    }
    for (h = 0; h < heads; h++) {
        const float sink = a->sinks != NULL ? a->sinks[h0 + h] : -INFINITY;
        float       sum, top;

        a->isa->scale(op->scale, s[h], n, s[h]);
        if (op->softcap > 0.0f)
            soften(op, s[h], n);
        sum = a->isa->softmax(s[h], n, sink, &top);
        if (a->sinks != NULL)
            sum += expf(sink - top);
        a->isa->scale(1.0f / sum, s[h], n, s[h]);
        memset(y[h], 0, kv->v_dim * sizeof(float));
    }
    for (p = lo; p <= pos; p += run) {
        const float *w[CPU_HEADS];

        run = page_run(a, seq, kv_head, p, pos, &at);
        if (run == 0)
            return;
        for (h = 0; h < heads; h++)
            w[h] = s[h] + (p - lo);
        a->isa->mix[kv->dtype - 1](w, heads, a->v + at * kv->v_dim * a->elem,
                                   run, kv->v_dim, y);
    }
}

/* Every row's sequence and position, and the pages it needs, are in range;
 * *seen: positions that all rows see together. */
static moe_status
check_rows(const struct attention *a, uint64_t *seen, struct moe_error *err)
{
    const struct moe_op_attention *op = a->op;
    uint32_t                       i;

    *seen = 0;
    for (i = 0; i < op->rows; i++) {
        const uint32_t pos = a->positions[i];

        if (a->seqs[i] >= op->n_seqs || pos >= op->max_context
            || pos / op->kv.page_rows >= op->max_pages)
            return moe_fail(err, MOE_E_INVAL, 0,
                            "attention: row %u is at position %u of sequence "
                            "%u: there are %u sequences, %u positions, %u "
                            "pages of %u",
                            i, pos, a->seqs[i], op->n_seqs, op->max_context,
                            op->max_pages, op->kv.page_rows);
        *seen += pos - first_seen(op, pos) + 1;
    }
    return MOE_OK;
}

/* Hot. */
moe_status
cpu_attention(moe_device *dev, const struct moe_op_attention *op,
              struct moe_error *err)
{
    const struct moe_kv *kv = &op->kv;
    struct attention     a = { .op = op, .isa = dev->isa };
    uint8_t             *k, *v;
    uint64_t             seen, macs, bytes;
    moe_status           st;

    if (op->dtype != MOE_F32)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "attention: activations of type %u; only f32 is "
                        "supported",
                        op->dtype);
    st = cpu_kv_check(kv, "attention", err);
    if (st != MOE_OK)
        return st;
    if (op->heads == 0 || op->heads % kv->kv_heads != 0)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "attention: %u query heads on %u key heads",
                        op->heads, kv->kv_heads);
    if (op->rows == 0)
        return MOE_OK;
    a.elem = moe_dtype_size(kv->dtype);
    a.shares = op->heads / kv->kv_heads;
    a.blocks = (uint32_t) cpu_ceil(a.shares, CPU_HEADS);
    a.span = longest_span(op);
    a.q = cpu_rows(dev, op->q, op->rows, (uint64_t) op->heads * kv->k_dim,
                   op->ldq, "attention q", err);
    a.y = cpu_rows(dev, op->y, op->rows, (uint64_t) op->heads * kv->v_dim,
                   op->ldy, "attention y", err);
    a.seqs = cpu_bytes(dev, op->seqs, (uint64_t) op->rows * 4,
                       "attention seqs", err);
    a.positions = cpu_bytes(dev, op->positions, (uint64_t) op->rows * 4,
                            "attention positions", err);
    if (a.q == NULL || a.y == NULL || a.seqs == NULL || a.positions == NULL)
        return MOE_E_INVAL;
    a.pages = cpu_rows(dev, op->pages, op->n_seqs, op->max_pages,
                       op->max_pages, "attention pages", err);
    a.work = cpu_bytes(dev, op->work, cpu_attention_work(dev, op),
                       "attention work", err);
    if (a.pages == NULL || a.work == NULL)
        return MOE_E_INVAL;
    if (op->sinks.mem != NULL
        && (a.sinks = cpu_bytes(dev, op->sinks, (uint64_t) op->heads * 4,
                                "attention sinks", err))
               == NULL)
        return MOE_E_INVAL;
    st = cpu_kv_open(dev, kv, "attention", &k, &v, &a.n_pages, err);
    if (st == MOE_OK)
        st = check_rows(&a, &seen, err);
    if (st != MOE_OK)
        return st;
    if ((uint64_t) op->rows * kv->kv_heads * a.blocks > UINT32_MAX)
        return moe_fail(err, MOE_E_INVAL, 0, "attention: %u rows at once",
                        op->rows);
    a.k = k;
    a.v = v;
    atomic_init(&a.bad_page, 0);
    macs = seen * op->heads * (kv->k_dim + kv->v_dim);
    bytes = seen * kv->kv_heads * (kv->k_dim + kv->v_dim) * a.elem;
    cpu_run(dev, op->rows * kv->kv_heads * a.blocks,
            cpu_cost(bytes, 2 * macs), attention_unit, &a);
    if (atomic_load_explicit(&a.bad_page, memory_order_relaxed) != 0)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "attention: a page number is not below %llu",
                        (unsigned long long) a.n_pages);
    return MOE_OK;
}
