/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attention.c - causal attention over the paged KV cache.
 *
 * A unit of work is a few rows and up to four query heads that share a KV
 * head: all scores first, then the softmax, then the values in the order of
 * positions.  Rows of one sequence meet a page together, while it is in the
 * first cache.  Neither pages nor the other rows change the order of a sum,
 * so a row's bits depend on its own sequence alone.
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
    float          *work;  /* (slots, step, heads, span) */
    uint64_t        n_pages;
    uint64_t        span;   /* most positions that a row sees */
    uint32_t        elem;   /* bytes of one of the cache's */
    uint32_t        shares; /* query heads of a KV head */
    uint32_t        blocks; /* of CPU_HEADS in these */
    uint32_t        step;   /* rows of a unit */
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
    /* one line more: rows a power of two apart share a cache's set */
    return cpu_align(n, 16) + 16;
}

/* Scores of a unit that the second cache holds, and rows that pay. */
#define UNIT_SCORES 65536u
#define UNIT_ROWS   16u

static uint32_t
unit_heads(const struct moe_op_attention *op)
{
    return (uint32_t) cpu_min(CPU_HEADS, op->heads / op->kv.kv_heads);
}

/* Floats of the scores of one row of a unit. */
static uint64_t
row_scores(const struct moe_op_attention *op)
{
    const uint64_t n = unit_heads(op) * longest_span(op);

    return n != 0 ? n : 1; /* a size that launch() will refuse */
}

/* Rows of a unit: few enough that all threads have several units. */
static uint32_t
unit_rows(const moe_device *dev, const struct moe_op_attention *op)
{
    const uint64_t units = (uint64_t) op->rows * op->kv.kv_heads
                           * cpu_ceil(op->heads / op->kv.kv_heads, CPU_HEADS);
    uint64_t       n = cpu_min(UNIT_ROWS, UNIT_SCORES / row_scores(op));

    n = cpu_min(n, units / (4 * (uint64_t) dev->workers));
    return n != 0 ? (uint32_t) n : 1;
}

uint64_t
cpu_attention_work(const moe_device *dev, const struct moe_op_attention *op)
{
    return dev->workers * unit_rows(dev, op) * row_scores(op) * sizeof(float);
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

struct unit {
    const struct attention *a;
    uint32_t                seq, kv_head, h0, heads;
};

/* One row and the heads of its unit. */
struct view {
    const float *q;
    float       *s; /* (heads, span): position lo first */
    float       *y;
    uint32_t     lo, pos; /* the positions that it sees, both included */
};

/* s: scores of a row's n positions to weights; returns what to divide by. */
static float
weigh(const struct attention *a, float *s, uint32_t n, uint32_t head)
{
    const float sink = a->sinks != NULL ? a->sinks[head] : -INFINITY;
    float       sum, top;

    a->isa->scale(a->op->scale, s, n, s);
    if (a->op->softcap > 0.0f)
        soften(a->op, s, n);
    sum = a->isa->softmax(s, n, sink, &top);
    if (a->sinks != NULL)
        sum += expf(sink - top);
    return sum;
}

/* Positions [p, p + run) of a page at row `at` of the cache: the scores of a
 * row, or its values. */
static void
meet(const struct unit *u, const struct view *v, uint32_t p, uint32_t run,
     uint64_t at, int values)
{
    const struct attention *a = u->a;
    const struct moe_kv    *kv = &a->op->kv;
    const uint32_t first = p > v->lo ? p : v->lo;
    const uint32_t end = (uint32_t) cpu_min(p + run, v->pos + 1);
    const float   *in[CPU_HEADS];
    float         *out[CPU_HEADS], *s;
    uint32_t       h;

    if (first >= end)
        return;
    at += first - p;
    for (h = 0; h < u->heads; h++) {
        s = v->s + h * a->span + (first - v->lo);
        in[h] = values ? s : v->q + (size_t) h * kv->k_dim;
        out[h] = values ? v->y + (size_t) h * kv->v_dim : s;
    }
    if (values)
        a->isa->mix[kv->dtype - 1](in, u->heads,
                                   a->v + at * kv->v_dim * a->elem,
                                   end - first, kv->v_dim, out);
    else
        a->isa->scores[kv->dtype - 1](in, u->heads,
                                      a->k + at * kv->k_dim * a->elem,
                                      end - first, kv->k_dim, out);
}

/* n rows of one sequence by all pages that one of them sees.  0: a page that
 * is not there. */
static int
meet_all(const struct unit *u, const struct view *v, uint32_t n, int values)
{
    uint32_t lo = v[0].lo, last = v[0].pos, p, i, run;
    uint64_t at;

    for (i = 1; i < n; i++) {
        lo = (uint32_t) cpu_min(lo, v[i].lo);
        last = v[i].pos > last ? v[i].pos : last;
    }
    for (p = lo; p <= last; p += run) {
        run = page_run(u->a, u->seq, u->kv_head, p, last, &at);
        if (run == 0)
            return 0;
        for (i = 0; i < n; i++)
            meet(u, &v[i], p, run, at, values);
    }
    return 1;
}

/* Rows [row, row + n) of the unit's sequence.  s: room for their scores. */
static int
attend(const struct unit *u, uint32_t row, uint32_t n, float *s)
{
    const struct attention *a = u->a;
    const struct moe_kv    *kv = &a->op->kv;
    struct view             v[UNIT_ROWS] = { { .q = NULL } };
    float                   sum[UNIT_ROWS][CPU_HEADS];
    uint32_t                i, h;

    for (i = 0; i < n; i++) {
        v[i].pos = a->positions[row + i];
        v[i].lo = first_seen(a->op, v[i].pos);
        v[i].q = a->q + (row + i) * a->op->ldq + (size_t) u->h0 * kv->k_dim;
        v[i].y = a->y + (row + i) * a->op->ldy + (size_t) u->h0 * kv->v_dim;
        v[i].s = s + i * u->heads * a->span;
    }
    if (!meet_all(u, v, n, 0))
        return 0;
    for (i = 0; i < n; i++) {
        for (h = 0; h < u->heads; h++)
            sum[i][h] = weigh(a, v[i].s + h * a->span, v[i].pos - v[i].lo + 1,
                              u->h0 + h);
        memset(v[i].y, 0, u->heads * kv->v_dim * sizeof(float));
    }
    if (!meet_all(u, v, n, 1))
        return 0;
    for (i = 0; i < n; i++)
        for (h = 0; h < u->heads; h++) {
            float *y = v[i].y + (size_t) h * kv->v_dim;

            a->isa->scale(1.0f / sum[i][h], y, kv->v_dim, y);
        }
    return 1;
}

static void
attention_unit(void *arg, uint32_t i, uint32_t slot)
{
    struct attention              *a = arg;
    const struct moe_op_attention *op = a->op;
    const uint32_t                 block = i % a->blocks;
    struct unit                    u = { .a = a };
    uint32_t                       row, end, n;

    u.kv_head = i / a->blocks % op->kv.kv_heads;
    u.h0 = u.kv_head * a->shares + block * CPU_HEADS;
    u.heads = (uint32_t) cpu_min(CPU_HEADS, a->shares - block * CPU_HEADS);
    /* the last rows see most: they go first */
    end = op->rows - i / a->blocks / op->kv.kv_heads * a->step;
    for (row = end > a->step ? end - a->step : 0; row < end; row += n) {
        u.seq = a->seqs[row];
        for (n = 1; row + n < end && a->seqs[row + n] == u.seq; n++)
            ;
        if (!attend(&u, row, n,
                    a->work + slot * a->step * row_scores(op))) {
            atomic_store_explicit(&a->bad_page, 1, memory_order_relaxed);
            return;
        }
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
    a.work = cpu_bytes(dev, op->work,
                       dev->workers * row_scores(op) * sizeof(float),
                       "attention work", err);
    if (a.pages == NULL || a.work == NULL)
        return MOE_E_INVAL;
    /* a shorter context asks for more rows than there may be room for */
    a.step = (uint32_t) cpu_min(unit_rows(dev, op),
                                (op->work.mem->bytes - op->work.off)
                                    / (dev->workers * row_scores(op)
                                       * sizeof(float)));
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
    cpu_run(dev,
            (uint32_t) cpu_ceil(op->rows, a.step) * kv->kv_heads * a.blocks,
            cpu_cost(bytes, 2 * macs), attention_unit, &a);
    if (atomic_load_explicit(&a.bad_page, memory_order_relaxed) != 0)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "attention: a page number is not below %llu",
                        (unsigned long long) a.n_pages);
    return MOE_OK;
}
