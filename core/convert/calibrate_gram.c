/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calibrate_gram.c - from the rows that were kept to the H of a matrix.
 *
 * What goes into a down projection is not taken from the backend, which
 * fuses it away, but computed here from gate and up as they are in the
 * checkpoint, in f32.  Work is dealt out so that threads change no bit.
 */

#include <convert/calibrate_state.h>
#include <convert/feedback.h>

#include <math.h>
#include <string.h>

#define STEPS      128u  /* of hidden that are packed at a time */
#define PRIOR_ROWS 4096u /* of the text, for the mean over experts */

/* Matrix `tensor` as f32: (n, k) to dst. */
static moe_status
load(struct moe_calibration *c, uint32_t tensor, uint32_t layer,
     uint32_t expert, float *dst, uint64_t *n, struct moe_error *err)
{
    struct moe_weight w;
    struct moe_tensor t;
    struct moe_error  why;
    uint64_t          at = 0;
    uint32_t          p;
    moe_status        st;

    st = moe_weight_find(c->s.plan->c, c->s.registry, c->a, tensor, layer,
                         expert, &w, err);
    if (st != MOE_OK)
        return st;
    memset(&t, 0, sizeof(t));
    t.struct_size = sizeof(t);
    t.scale_dtype = w.scale_dtype;
    t.n = w.n;
    t.k = w.k;
    for (p = 0; p < w.n_planes && st == MOE_OK; p++) {
        st = moe_checkpoint_read(c->s.plan->c, w.plane[p], 0,
                                 w.plane[p]->bytes, c->raw + at, err);
        t.plane[p] = c->raw + at;
        t.len[p] = w.plane[p]->bytes;
        at += moe_calibration_pad(w.plane[p]->bytes);
    }
    if (st != MOE_OK)
        return st;
    memset(&why, 0, sizeof(why));
    why.struct_size = sizeof(why);
    st = w.ref.ops->check(w.ref.self, w.ref.format, &t, &why);
    if (st == MOE_OK)
        st = w.ref.ops->decode(w.ref.self, w.ref.format, &t, 0, w.n, MOE_F32,
                               dst, w.k);
    if (st != MOE_OK)
        return moe_fail(err, st, 0, "%s: \"%s\": %.300s",
                        moe_checkpoint_file_name(c->s.plan->c,
                                                 w.plane[0]->file),
                        w.plane[0]->name, why.text);
    *n = w.n;
    return MOE_OK;
}

/* Rows of the list, from `at` on, through gate and up. */
struct product {
    const struct moe_calibration *c;
    const float                  *x; /* (tokens, hidden) */
    uint64_t                      at, rows, f, ld;
    int                           bias;
};

static float
activate(uint32_t act, float g)
{
    switch (act) {
    case MOE_ACT_SILU:
        return g / (1.0f + expf(-g));
    case MOE_ACT_GELU:
        return 0.5f * g * (1.0f + erff(g * 0.70710678f));
    case MOE_ACT_GELU_TANH:
        return 0.5f * g
               * (1.0f + tanhf(0.79788456f * (g + 0.044715f * g * g * g)));
    default:
        return g > 0 ? g : 0;
    }
}

/* MOE_TILE_M rows side by side. */
static void
lay_x(void *arg, uint32_t index)
{
    const struct product         *p = arg;
    const struct moe_calibration *c = p->c;
    uint64_t h = c->a->hidden, t = (uint64_t) index * MOE_TILE_M, i, r;
    float   *to = c->x + t * h;

    for (r = 0; r < MOE_TILE_M; r++) {
        int          there = t + r < p->rows;
        const float *from = there ? p->x + c->list[p->at + t + r] * h : NULL;
        float        w = there ? c->list_w[p->at + t + r] : 0;

        for (i = 0; i < h; i++)
            to[i * MOE_TILE_M + r] = there ? from[i] * w : 0;
    }
}

/* MOE_TILE_NF rows of w (f, h), columns [i, i + n), side by side. */
static void
lay_w(const float *w, uint64_t h, uint64_t rows, uint64_t i, uint64_t n,
      float *to)
{
    uint64_t q, j;

    w += i;
    for (q = 0; q < n; q++, w++, to += MOE_TILE_NF)
        for (j = 0; j < MOE_TILE_NF; j++)
            to[j] = j < rows ? w[j * h] : 0;
}

/* g = act(gate x) * up x for columns from `index` on.  Sums go along hidden,
 * one element after the other. */
static void
product_columns(void *arg, uint32_t index)
{
    const struct product         *p = arg;
    const struct moe_calibration *c = p->c;
    float    gs[STEPS * MOE_TILE_NF], us[STEPS * MOE_TILE_NF];
    uint64_t h = c->a->hidden, ld = p->ld, t, i, j, n, left, col;
    uint64_t first = (uint64_t) index * MOE_DOWN_COLS;
    uint64_t end = first + MOE_DOWN_COLS;
    uint64_t rows = (p->rows + MOE_TILE_M - 1) / MOE_TILE_M * MOE_TILE_M;

    for (t = 0; t < rows; t++)
        for (j = first; j < end; j++) {
            c->g[t * ld + j] = p->bias && j < p->f ? c->gate_bias[j] : 0;
            c->u[t * ld + j] = p->bias && j < p->f ? c->up_bias[j] : 0;
        }
    for (col = first; col < end && col < p->f; col += MOE_TILE_NF) {
        left = p->f - col;
        for (i = 0; i < h; i += n) {
            n = h - i < STEPS ? h - i : STEPS;
            lay_w(c->gate + col * h, h, left, i, n, gs);
            lay_w(c->up + col * h, h, left, i, n, us);
            for (t = 0; t < rows; t += MOE_TILE_M) {
                const float *x = c->x + t * h + i * MOE_TILE_M;

                moe_tile_f32(n, x, gs, c->g + t * ld + col, ld);
                moe_tile_f32(n, x, us, c->u + t * ld + col, ld);
            }
        }
    }
    for (t = 0; t < p->rows; t++)
        for (j = first; j < end; j++)
            c->g[t * ld + j] = activate(c->a->act, c->g[t * ld + j])
                               * c->u[t * ld + j];
}

/* Adds the moments of act(gate x) up x over the n rows of the list to h. */
static void
add_products(struct moe_calibration *c, const float *x, uint64_t n,
             uint64_t f, int bias, double *h)
{
    struct product p = { c, x, 0, 0, f, moe_down_width(f), bias };

    for (p.at = 0; p.at < n; p.at += p.rows) {
        p.rows = n - p.at < MOE_DOWN_ROWS ? n - p.at : MOE_DOWN_ROWS;
        moe_pool_run(c->s.services->pool,
                     (uint32_t) ((p.rows + MOE_TILE_M - 1) / MOE_TILE_M),
                     lay_x, &p);
        moe_pool_run(c->s.services->pool, (uint32_t) (p.ld / MOE_DOWN_COLS),
                     product_columns, &p);
        moe_gram_add(c->s.services->pool, c->g, p.rows, p.ld, (uint32_t) f,
                     h);
    }
}

/* Every step-th token that chose the expert. */
static uint64_t
list_rows(struct moe_calibration *c, const struct kept *k, uint32_t expert,
          uint64_t step)
{
    uint64_t t, i, n = 0, top = c->a->top_k;

    for (t = 0; t < c->text.n_tokens; t += step)
        for (i = 0; i < top; i++)
            if (k->ids[t * top + i] == expert) {
                c->list[n] = (uint32_t) t;
                c->list_w[n++] = k->weights != NULL ? k->weights[t * top + i]
                                                    : 1.0f;
            }
    return n;
}

static moe_status
load_pair(struct moe_calibration *c, uint32_t gate, uint32_t up,
          uint32_t layer, uint32_t expert, uint64_t *f,
          struct moe_error *err)
{
    moe_status st = load(c, gate, layer, expert, c->gate, f, err);

    return st == MOE_OK ? load(c, up, layer, expert, c->up, f, err) : st;
}

/* The mean over all experts of a layer, from a part of the text. */
static moe_status
make_prior(struct moe_calibration *c, uint32_t layer, const struct kept *k,
           struct moe_error *err)
{
    uint64_t   width = c->a->expert_width, n, f, all = 0, i;
    uint64_t   step = (c->text.n_tokens + PRIOR_ROWS - 1) / PRIOR_ROWS;
    uint32_t   e;
    moe_status st = MOE_OK;

    memset(c->prior, 0, width * width * sizeof(*c->prior));
    for (e = 0; e < c->a->n_experts && st == MOE_OK; e++) {
        n = list_rows(c, k, e, step);
        all += n;
        if (n == 0)
            continue;
        st = load_pair(c, MOE_T_EXPERT_GATE, MOE_T_EXPERT_UP, layer, e, &f,
                       err);
        if (st == MOE_OK)
            add_products(c, k->ffn, n, f, 0, c->prior);
    }
    for (i = 0; i < width * width && all != 0; i++)
        c->prior[i] *= (double) MOE_CALIBRATE_FEW / (double) all;
    if (st == MOE_OK)
        c->prior_layer = layer;
    return st;
}

/* A feed-forward that all rows go through. */
static moe_status
all_products(struct moe_calibration *c, const struct kept *k, uint32_t gate,
             uint32_t up, uint32_t layer, double *h, struct moe_error *err)
{
    int        bias = gate == MOE_T_GATE
               && c->a->name[MOE_T_GATE_BIAS] != NULL
               && c->a->name[MOE_T_UP_BIAS] != NULL;
    uint64_t   f, t;
    moe_status st = load_pair(c, gate, up, layer, 0, &f, err);

    if (st == MOE_OK && bias)
        st = moe_vector_read(c->s.plan->c, c->a, MOE_T_GATE_BIAS, layer,
                             c->gate_bias, err);
    if (st == MOE_OK && bias)
        st = moe_vector_read(c->s.plan->c, c->a, MOE_T_UP_BIAS, layer,
                             c->up_bias, err);
    if (st != MOE_OK)
        return st;
    for (t = 0; t < c->text.n_tokens; t++) {
        c->list[t] = (uint32_t) t;
        c->list_w[t] = 1.0f;
    }
    add_products(c, k->ffn, c->text.n_tokens, f, bias, h);
    return MOE_OK;
}

moe_status
moe_calibration_gram(struct moe_calibration *c, uint32_t layer, uint32_t feed,
                     uint32_t expert, uint32_t k, double *h,
                     struct moe_error *err)
{
    const struct kept *y = &c->kept[layer - c->first];
    uint64_t           n = c->text.n_tokens, i, f;
    moe_status         st = MOE_OK;

    memset(h, 0, (size_t) k * k * sizeof(*h));
    switch (feed) {
    case MOE_INPUT_QKV:
        moe_gram_add(c->s.services->pool, y->qkv, n, k, k, h);
        break;
    case MOE_INPUT_OUT:
        moe_gram_add(c->s.services->pool, y->out, n, k, k, h);
        break;
    case MOE_INPUT_FFN:
        moe_gram_add(c->s.services->pool, y->ffn, n, k, k, h);
        break;
    case MOE_INPUT_SHARED_DOWN:
        st = all_products(c, y, MOE_T_SHARED_GATE, MOE_T_SHARED_UP, layer, h,
                          err);
        break;
    case MOE_INPUT_DENSE_DOWN:
        st = all_products(c, y, MOE_T_GATE, MOE_T_UP, layer, h, err);
        break;
    default:
        if (c->prior_layer != layer)
            st = make_prior(c, layer, y, err);
        if (st == MOE_OK)
            st = load_pair(c, MOE_T_EXPERT_GATE, MOE_T_EXPERT_UP, layer,
                           expert, &f, err);
        if (st != MOE_OK)
            break;
        add_products(c, y->ffn, list_rows(c, y, expert, 1), f, 0, h);
        for (i = 0; i < (uint64_t) k * k; i++)
            h[i] += c->prior[i];
    }
    return st;
}
