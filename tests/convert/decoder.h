/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decoder.h - a decoder computed plainly, for what goes into its matrices.
 *
 * Everything in f64 and in the order in which the papers write it, one row
 * after the other; nothing is shared with the engine but the description of
 * the model.
 */
#ifndef MOE_TESTS_CONVERT_DECODER_H
#define MOE_TESTS_CONVERT_DECODER_H

#include <math.h>

#include "checkpoint/folder.h"
#include "model/weights.h"

/* What enters the matrices of a layer, (rows, ..) each. */
struct inputs {
    double   *qkv, *out, *ffn;
    uint32_t *ids;     /* (rows, top_k), of a mixture */
    double   *weights; /* (rows, top_k) */
};

struct decoder {
    const struct moe_checkpoint *c;
    const struct moe_registry   *registry;
    struct moe_arch              a;
    uint32_t                     rows;
    double                      *x;  /* (rows, hidden) */
    struct inputs               *at; /* (n_layers) */
};

/* A matrix as f32; *n, *k: its shape. */
static float *
read_matrix(const struct moe_checkpoint *c, const struct moe_registry *reg,
            const struct moe_arch *a, uint32_t tensor, uint32_t layer,
            uint32_t expert, uint64_t *n, uint64_t *k)
{
    struct moe_error  err = { .struct_size = sizeof(err) };
    struct moe_tensor t = { .struct_size = sizeof(t) };
    struct moe_weight w;
    float            *to;
    void             *plane[MOE_PLANES_MAX] = { NULL };
    uint32_t          i;

    if (moe_weight_find(c, reg, a, tensor, layer, expert, &w, &err)
        != MOE_OK) {
        printf("Bail out! %s\n", err.text);
        exit(1);
    }
    t.scale_dtype = w.scale_dtype;
    t.n = w.n;
    t.k = w.k;
    for (i = 0; i < w.n_planes; i++) {
        t.len[i] = w.plane[i]->bytes;
        t.plane[i] = plane[i] = malloc(t.len[i]);
        if (moe_checkpoint_read(c, w.plane[i], 0, t.len[i], plane[i], &err)
            != MOE_OK)
            abort();
    }
    to = malloc(w.n * w.k * sizeof(*to));
    if (w.ref.ops->decode(w.ref.self, w.ref.format, &t, 0, w.n, MOE_F32, to,
                          w.k) != MOE_OK)
        abort();
    for (i = 0; i < w.n_planes; i++)
        free(plane[i]);
    *n = w.n;
    *k = w.k;
    return to;
}

/* NULL if there is none. */
static float *
read_vector(const struct decoder *d, uint32_t tensor, uint32_t layer)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    uint64_t         n, k;
    float           *to;

    moe_arch_shape(&d->a, tensor, layer, &n, &k);
    if (n == 0)
        return NULL;
    to = malloc(n * sizeof(*to));
    if (moe_vector_read(d->c, &d->a, tensor, layer, to, &err) != MOE_OK)
        abort();
    return to;
}

/* y (rows, n) = W x + bias; x (rows, k). */
static double *
multiply(const struct decoder *d, uint32_t tensor, uint32_t bias,
         uint32_t layer, uint32_t expert, const double *x, uint32_t rows)
{
    uint64_t n, k, i, j, t;
    float   *w = read_matrix(d->c, d->registry, &d->a, tensor, layer, expert,
                             &n, &k);
    float   *b = bias < MOE_T_COUNT ? read_vector(d, bias, layer) : NULL;
    double  *y = malloc(rows * n * sizeof(*y) + 1);

    for (t = 0; t < rows; t++)
        for (i = 0; i < n; i++) {
            double s = b != NULL ? b[i] : 0;

            for (j = 0; j < k; j++)
                s += (double) w[i * k + j] * x[t * k + j];
            y[t * n + i] = s;
        }
    free(w);
    free(b);
    return y;
}

static void
normalize(double *x, uint64_t n, const float *w, double eps)
{
    double   s = 0;
    uint64_t i;

    for (i = 0; i < n; i++)
        s += x[i] * x[i];
    s = 1 / sqrt(s / (double) n + eps);
    for (i = 0; i < n; i++)
        x[i] *= s * w[i];
}

static double *
normalized(const struct decoder *d, uint32_t tensor, uint32_t layer)
{
    uint64_t h = d->a.hidden, t;
    float   *w = read_vector(d, tensor, layer);
    double  *y = malloc(d->rows * h * sizeof(*y));

    memcpy(y, d->x, d->rows * h * sizeof(*y));
    for (t = 0; t < d->rows; t++)
        normalize(y + t * h, h, w, d->a.norm_eps);
    free(w);
    return y;
}

/* Norms, clip and, with a position, rotation of heads of one row. */
static void
prepare(const struct moe_arch *a, uint32_t layer, double *x, uint32_t heads,
        uint32_t dim, const float *norm, uint32_t position, int rotate)
{
    uint32_t h, i, rot = rotate ? a->layers[layer].rot_dim : 0;

    if (norm != NULL && a->qk_norm == 2)
        normalize(x, (uint64_t) heads * dim, norm, a->norm_eps);
    for (h = 0; norm != NULL && a->qk_norm == 1 && h < heads; h++)
        normalize(x + h * dim, dim, norm, a->norm_eps);
    for (i = 0; a->clip_qkv > 0 && i < heads * dim; i++)
        x[i] = fmax(-a->clip_qkv, fmin(a->clip_qkv, x[i]));
    for (h = 0; h < heads; h++)
        for (i = 0; i < rot / 2; i++) {
            double *p = x + h * dim + i, *q = p + rot / 2, u = *p, v = *q;
            double  t = (double) position * a->inv_freq[i];

            *p = (u * cos(t) - v * sin(t)) * a->rope_scale;
            *q = (v * cos(t) + u * sin(t)) * a->rope_scale;
        }
}

/* Attention within windows of `window` tokens, each a text of its own. */
static double *
attend(const struct decoder *d, uint32_t layer, uint32_t window,
       const double *in)
{
    const struct moe_arch *a = &d->a;
    uint32_t dim = a->head_dim, vd = a->v_dim, t, h, p, i;
    uint32_t heads = a->heads, kvh = a->kv_heads;
    double  *q = multiply(d, MOE_T_Q, MOE_T_Q_BIAS, layer, 0, in, d->rows);
    double  *k = multiply(d, MOE_T_K, MOE_T_K_BIAS, layer, 0, in, d->rows);
    double  *v = multiply(d, MOE_T_V, MOE_T_V_BIAS, layer, 0, in, d->rows);
    float   *qn = read_vector(d, MOE_T_Q_NORM, layer);
    float   *kn = read_vector(d, MOE_T_K_NORM, layer);
    double  *y = calloc((size_t) d->rows * heads * vd, sizeof(*y));

    for (t = 0; t < d->rows; t++) {
        prepare(a, layer, q + t * heads * dim, heads, dim, qn, t % window, 1);
        prepare(a, layer, k + t * kvh * dim, kvh, dim, kn, t % window, 1);
        prepare(a, layer, v + t * kvh * vd, kvh, vd, NULL, 0, 0);
    }
    for (t = 0; t < d->rows; t++)
        for (h = 0; h < heads; h++) {
            uint32_t g = h / (heads / kvh), first = t / window * window;
            uint32_t slide = a->layers[layer].window;
            double   sum = 0, *to = y + ((size_t) t * heads + h) * vd;

            if (slide != 0 && t - first + 1 > slide)
                first = t + 1 - slide;
            for (p = first; p <= t; p++) {
                double s = 0;

                for (i = 0; i < dim; i++)
                    s += q[(t * heads + h) * dim + i]
                         * k[(p * kvh + g) * dim + i];
                s = exp(s * a->attn_scale);
                sum += s;
                for (i = 0; i < vd; i++)
                    to[i] += s * v[(p * kvh + g) * vd + i];
            }
            for (i = 0; i < vd; i++)
                to[i] /= sum;
        }
    free(q);
    free(k);
    free(v);
    free(qn);
    free(kn);
    return y;
}

/* silu(gate x) * up x, (rows, width): what enters a down projection. */
static double *
between(const struct decoder *d, uint32_t gate, uint32_t up, uint32_t layer,
        uint32_t expert, const double *x, uint32_t rows, uint64_t *width)
{
    int      dense = gate == MOE_T_GATE;
    double  *g, *u;
    uint64_t n, k, i;

    g = multiply(d, gate, dense ? MOE_T_GATE_BIAS : MOE_T_COUNT, layer,
                 expert, x, rows);
    u = multiply(d, up, dense ? MOE_T_UP_BIAS : MOE_T_COUNT, layer, expert, x,
                 rows);
    moe_arch_shape(&d->a, gate, layer, &n, &k);
    for (i = 0; i < rows * n; i++)
        g[i] = g[i] / (1 + exp(-g[i])) * u[i];
    free(u);
    *width = n;
    return g;
}

/* The tokens that chose an expert: their rows of ffn, and in list[]. */
static double *
chosen(const struct decoder *d, uint32_t layer, uint32_t expert,
       uint32_t *list, uint32_t *n)
{
    const struct inputs *in = &d->at[layer];
    uint64_t             h = d->a.hidden;
    uint32_t             t, i;
    double              *x = malloc(d->rows * h * sizeof(*x));

    for (*n = 0, t = 0; t < d->rows; t++)
        for (i = 0; i < d->a.top_k; i++)
            if (in->ids[t * d->a.top_k + i] == expert) {
                memcpy(x + *n * h, in->ffn + t * h, h * sizeof(*x));
                list[(*n)++] = t * d->a.top_k + i;
            }
    return x;
}

static void
choose(const struct decoder *d, uint32_t layer, struct inputs *in)
{
    const struct moe_arch *a = &d->a;
    uint32_t               t, i, e, best;
    double                *s = multiply(d, MOE_T_ROUTER, MOE_T_COUNT, layer, 0,
                                        in->ffn, d->rows);

    in->ids = calloc((size_t) d->rows * a->top_k, sizeof(*in->ids));
    in->weights = calloc((size_t) d->rows * a->top_k, sizeof(*in->weights));
    for (t = 0; t < d->rows; t++) {
        double *p = s + (size_t) t * a->n_experts, all = 0, some = 0;

        for (e = 0; e < a->n_experts; e++)
            all += p[e] = exp(p[e]);
        for (i = 0; i < a->top_k; i++) {
            for (best = 0, e = 1; e < a->n_experts; e++)
                if (p[e] > p[best])
                    best = e;
            in->ids[t * a->top_k + i] = best;
            in->weights[t * a->top_k + i] = p[best] / all;
            some += p[best] / all;
            p[best] = -1;
        }
        for (i = 0; a->renorm && i < a->top_k; i++)
            in->weights[t * a->top_k + i] /= some;
    }
    free(s);
}

static void
add_ffn(struct decoder *d, uint32_t layer)
{
    const struct moe_arch *a = &d->a;
    struct inputs         *in = &d->at[layer];
    uint64_t               h = a->hidden, width, i;
    uint32_t               e, t, n, *list;
    double                *x, *y, *z;

    if (a->layers[layer].ffn == MOE_FFN_DENSE) {
        x = between(d, MOE_T_GATE, MOE_T_UP, layer, 0, in->ffn, d->rows,
                    &width);
        y = multiply(d, MOE_T_DOWN, MOE_T_DOWN_BIAS, layer, 0, x, d->rows);
        for (i = 0; i < d->rows * h; i++)
            d->x[i] += y[i];
        free(x);
        free(y);
        return;
    }
    choose(d, layer, in);
    list = malloc((size_t) d->rows * a->top_k * sizeof(*list));
    for (e = 0; e < a->n_experts; e++) {
        double *rows = chosen(d, layer, e, list, &n);

        x = between(d, MOE_T_EXPERT_GATE, MOE_T_EXPERT_UP, layer, e, rows, n,
                    &width);
        y = multiply(d, MOE_T_EXPERT_DOWN, MOE_T_COUNT, layer, e, x, n);
        for (t = 0; t < n; t++)
            for (i = 0; i < h; i++)
                d->x[list[t] / a->top_k * h + i]
                    += in->weights[list[t]] * y[t * h + i];
        free(rows);
        free(x);
        free(y);
    }
    free(list);
    if (a->shared_width == 0)
        return;
    x = between(d, MOE_T_SHARED_GATE, MOE_T_SHARED_UP, layer, 0, in->ffn,
                d->rows, &width);
    y = multiply(d, MOE_T_SHARED_DOWN, MOE_T_COUNT, layer, 0, x, d->rows);
    z = multiply(d, MOE_T_SHARED_SCALE, MOE_T_COUNT, layer, 0, in->ffn,
                 d->rows);
    for (i = 0; i < d->rows * h; i++)
        d->x[i] += y[i] / (1 + exp(-z[i / h]));
    free(x);
    free(y);
    free(z);
}

/* The inputs of all layers for these tokens. */
static void
decode_text(struct decoder *d, const uint32_t *ids, uint32_t rows,
            uint32_t window)
{
    uint64_t h = d->a.hidden, n, k, i, t;
    float   *embed = read_matrix(d->c, d->registry, &d->a, MOE_T_EMBED, 0, 0,
                                 &n, &k);
    uint32_t l;
    double  *y;

    d->rows = rows;
    d->x = malloc(rows * h * sizeof(*d->x));
    d->at = calloc(d->a.n_layers, sizeof(*d->at));
    for (t = 0; t < rows; t++)
        for (i = 0; i < h; i++)
            d->x[t * h + i] = (double) embed[ids[t] * h + i]
                              * d->a.embed_scale;
    free(embed);
    for (l = 0; l < d->a.n_layers; l++) {
        struct inputs *in = &d->at[l];

        in->qkv = normalized(d, MOE_T_ATTN_NORM, l);
        in->out = attend(d, l, window, in->qkv);
        y = multiply(d, MOE_T_O, MOE_T_O_BIAS, l, 0, in->out, rows);
        for (i = 0; i < rows * h; i++)
            d->x[i] += y[i];
        free(y);
        in->ffn = normalized(d, MOE_T_FFN_NORM, l);
        add_ffn(d, l);
    }
}

static void
decoder_free(struct decoder *d)
{
    uint32_t l;

    for (l = 0; l < d->a.n_layers; l++) {
        free(d->at[l].qkv);
        free(d->at[l].out);
        free(d->at[l].ffn);
        free(d->at[l].ids);
        free(d->at[l].weights);
    }
    free(d->at);
    free(d->x);
    moe_arch_free(&d->a);
}

#endif /* MOE_TESTS_CONVERT_DECODER_H */
