/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rates.c - what a backend's operations take on this machine.
 *
 * Owns two decoders of random weights that are no model's, and the reading
 * of the clock around their operations.  Every row goes to every expert of
 * them, so a step of R rows meets each weight with exactly R rows.  One has
 * small matrices, one large; between steps the caches are emptied, or not.
 * What a model's step then takes is arithmetic, in plan/host.c.
 */
#include "bench/rates.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bench/shape.h"
#include "checkpoint/json.h"
#include "engine/engine.h"
#include "text/sampler.h"

#define LANES   32u  /* sequences of a step of decodes */
#define BLOCK   128u /* rows of a step of one sequence */
#define CONTEXT 256u
#define AT_FIRST   16u /* positions */
#define AT_LAST    (CONTEXT - 2)
#define ROUNDS     7u   /* or as many as begin within MOST_S seconds, */
#define MOST_S     3.0  /* because slow machines are many times slower */
#define PACES      5u   /* likewise, */
#define PACE_S     0.2  /* behind a first one */
#define NEAR_STEPS 8u /* in a row, the first of which find cold caches */

const uint32_t moe_rates_rows[MOE_PLAN_ROWS] = {1,  2,  3,  4,  5,  6,  7, 8,
                                                10, 12, 16, 24, 32, 64, BLOCK};

struct size {
    uint32_t hidden, heads, kv_heads, experts, width, vocab;
};
static const struct size sizes[2] = {
    {256, 4, 2, 4, 192, 4096},
    {2048, 8, 4, 4, 1024, 16384},
};
#define HEAD_DIM 128u
#define LAYERS   2u

struct moe_prober {
    moe_engine             *e;
    struct moe_sampler     *sampler;
    struct moe_ceiling     *ceiling;
    struct moe_runner_probe probe;
    double                  whole;   /* seconds of the step */
    double                  then[2]; /* of moe_rates_pace when measured */
};

uint32_t
moe_rates_kind(double bits)
{
    return bits >= 32 ? 0 : bits >= 16 ? 1 : bits >= 8 ? 2 : 3;
}

/* ----------------------------------------------------------------- engine -- */

struct wish {
    const struct size *size;
    const char        *format;
};

static moe_status
make(void *ctx, const struct moe_registry *registry,
     struct moe_checkpoint **out, struct moe_error *err)
{
    const struct wish    *w = ctx;
    const struct size    *z = w->size;
    struct moe_shape_wish shape = {.name = "a decoder to measure operations",
                                   .format = w->format, .seed = 1};
    char                  text[1024];
    struct json_object   *config;

    snprintf(text, sizeof(text),
             "{\"model_type\":\"qwen3_moe\",\"hidden_size\":%u,"
             "\"num_attention_heads\":%u,\"num_key_value_heads\":%u,"
             "\"head_dim\":%u,\"num_hidden_layers\":%u,\"num_experts\":%u,"
             "\"num_experts_per_tok\":%u,\"moe_intermediate_size\":%u,"
             "\"intermediate_size\":%u,\"vocab_size\":%u,"
             "\"max_position_embeddings\":%u,\"rms_norm_eps\":1e-6,"
             "\"rope_theta\":10000.0,\"hidden_act\":\"silu\","
             "\"norm_topk_prob\":true,\"decoder_sparse_step\":1,"
             "\"mlp_only_layers\":[],\"attention_bias\":false,"
             "\"tie_word_embeddings\":true}",
             z->hidden, z->heads, z->kv_heads, HEAD_DIM, LAYERS, z->experts,
             z->experts, z->width, z->width, z->vocab, CONTEXT);
    config = json_tokener_parse(text);
    if (config == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "bench: no memory");
    return moe_bench_shape_config(registry, &shape, config, out, err);
}

static moe_status
open_probe(const moe_options *o, struct moe_ceiling *c, const struct wish *w,
           struct moe_prober *out, struct moe_error *err)
{
    static const char *const set[][2] = {{"model.context", "256"},
                                         {"engine.sequences", "32"},
                                         {"engine.batch_rows", "128"}};
    struct moe_sampling greedy = {.struct_size = sizeof(greedy), .top_p = 1,
                                  .repeat_penalty = 1};
    moe_options        *own = NULL;
    size_t              i;
    moe_status          st = moe_options_copy(o, &own, err);

    memset(out, 0, sizeof(*out));
    out->ceiling = c;
    for (i = 0; i < 3 && st == MOE_OK; i++)
        st = moe_options_set(own, set[i][0], set[i][1], MOE_FROM_ARG, err);
    if (st == MOE_OK)
        st = moe_engine_open_made(own, make, (void *) (uintptr_t) w, &out->e,
                                  err);
    if (st == MOE_OK)
        st = moe_sampler_open(&greedy, w->size->vocab, &out->sampler, err);
    if (st == MOE_OK
        && (out->e->plan.rows < BLOCK
            || out->e->plan.pages < LANES * out->e->plan.max_pages))
        st = moe_fail(err, MOE_E_OVER_BUDGET, 0,
                      "the memory budget leaves no room to measure "
                      "operations; raise memory.budget");
    moe_options_free(own);
    return st;
}

void
moe_prober_close(struct moe_prober *p)
{
    if (p == NULL)
        return;
    moe_sampler_close(p->sampler);
    moe_engine_close(p->e);
    free(p);
}

/* Rows that no logits come of leave the last layer early, unless somebody
 * might want to see them. */
static void *
want_none(void *ctx, uint32_t layer, enum moe_tap_what what, uint32_t rows)
{
    (void) ctx;
    (void) layer;
    (void) what;
    (void) rows;
    return NULL;
}

static moe_status
pick(void *ctx, uint32_t i, const float *logits, struct moe_error *err)
{
    struct moe_prober *p = ctx;
    uint32_t       id;

    (void) i;
    return moe_sampler_pick(p->sampler, logits, &id, err);
}

/* One step: rows of as many sequences at position `at`, or all of one that
 * begins there. */
static moe_status
step(struct moe_prober *p, uint32_t rows, uint32_t at, struct moe_error *err)
{
    static const struct moe_runner_tap tap = {want_none, NULL};
    const struct moe_runner_plan *plan = &p->e->plan;
    int              one = rows > LANES;
    uint32_t         n = one ? 1 : rows, m = plan->max_pages, i;
    uint32_t        *v = calloc((size_t) 6 * BLOCK + (size_t) LANES * m,
                                sizeof(*v));
    struct moe_batch b = {0};
    double           start;
    moe_status       st;

    if (v == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "bench: no memory");
    for (i = 0; i < n * m; i++)
        v[6 * BLOCK + i] = i;
    for (i = 0; i < rows; i++) {
        uint32_t pos = one ? at + i : at, seq = one ? 0 : i;

        v[i] = (i * 37 + 11) % p->e->arch.vocab;
        v[BLOCK + i] = pos;
        v[2 * BLOCK + i] = seq;
        v[3 * BLOCK + i] = (seq * m + pos / plan->page_rows) * plan->page_rows
                           + pos % plan->page_rows;
        v[4 * BLOCK + i] = i;
    }
    b.rows = rows;
    b.tokens = v;
    b.positions = v + BLOCK;
    b.seqs = v + 2 * BLOCK;
    b.slots = v + 3 * BLOCK;
    b.n_seqs = n;
    b.max_pages = m;
    b.pages = v + 6 * BLOCK;
    b.n_out = one ? 1 : rows;
    b.out_rows = v + 4 * BLOCK;
    b.on_logits = pick;
    b.ctx = p;
    memset(&p->probe, 0, sizeof(p->probe));
    p->probe.timed = 1;
    moe_runner_probe(p->e->runner, &p->probe);
    moe_runner_tap(p->e->runner, &tap);
    start = moe_now();
    st = moe_runner_step(p->e->runner, &b, err);
    p->whole = moe_now() - start;
    moe_runner_tap(p->e->runner, NULL);
    moe_runner_probe(p->e->runner, NULL);
    free(v);
    return st;
}

/* ------------------------------------------------------------ measurement -- */

/*
 * Seconds of each operation, medians over the rounds.  The rounds go over
 * all cases again and again, so that what another program takes away for a
 * tenth of a second hits a case once or twice.
 */
struct point {
    uint32_t rows, at, far;
    uint32_t once; /* of so many weights that the caches do not keep them */
    double   s[MOE_AT_COUNT], rest, whole;
    double   round[MOE_AT_COUNT + 2][ROUNDS];
};
#define POINTS_MAX (2 * MOE_PLAN_ROWS + 2)

/* One case, once: p->probe and p->whole.  *read: bytes a second of emptying
 * the caches, if that was done. */
static moe_status
take(struct moe_prober *p, const struct point *x, double *read,
     struct moe_error *err)
{
    uint32_t   j, steps = x->far || x->once ? 1 : NEAR_STEPS;
    moe_status st = MOE_OK;

    if (x->far)
        *read = moe_ceiling_evict(p->ceiling, p->e->pool);
    for (j = 0; j < steps && st == MOE_OK; j++)
        st = step(p, x->rows, x->at, err);
    return st;
}

static moe_status
take_points(struct moe_prober *p, struct point *points, uint32_t n,
            struct moe_plan_rates *r, struct moe_error *err)
{
    double     read[ROUNDS] = {0}, start;
    uint32_t   round, i, k;
    moe_status st = MOE_OK;

    /* nothing is where it will be before the first step of each case */
    for (i = 0; i < n && st == MOE_OK; i++)
        st = step(p, points[i].rows, points[i].at, err);
    start = moe_now();
    for (round = 0; round < ROUNDS && st == MOE_OK
                    && (round == 0 || moe_now() - start < MOST_S); round++) {
        for (i = 0; i < n && st == MOE_OK; i++) {
            double rest;

            st = take(p, &points[i], &read[round], err);
            points[i].round[MOE_AT_COUNT + 1][round] = rest = p->whole;
            for (k = 0; k < MOE_AT_COUNT; k++) {
                points[i].round[k][round] = p->probe.seconds[k];
                rest -= p->probe.seconds[k];
            }
            points[i].round[MOE_AT_COUNT][round] = rest;
        }
    }
    if (st != MOE_OK)
        return st;
    for (i = 0; i < n; i++) {
        for (k = 0; k < MOE_AT_COUNT; k++)
            points[i].s[k] = moe_median(points[i].round[k], round);
        points[i].rest = moe_median(points[i].round[MOE_AT_COUNT], round);
        points[i].whole = moe_median(points[i].round[MOE_AT_COUNT + 1],
                                     round);
    }
    if (r->bandwidth <= 0)
        r->bandwidth = moe_median(read, round);
    return MOE_OK;
}

static struct point *
find(struct point *points, uint32_t rows, uint32_t at, uint32_t far)
{
    while (points->rows != rows || points->at != at || points->far != far)
        points++;
    return points;
}

/* Weights of a layer's q, k, v and output; of its experts. */
static void
weights_of(const struct size *z, double w[2])
{
    double q = (double) z->heads * HEAD_DIM;
    double kv = 2.0 * z->kv_heads * HEAD_DIM;

    w[0] = (2 * q + kv) * z->hidden;
    w[1] = 3.0 * z->hidden * z->width * z->experts;
}

/* Units of the small operations of a step, all calls together. */
static double
units_of(const struct size *z, uint32_t op, uint32_t rows)
{
    double r = rows;

    switch (op) {
    case MOE_PLAN_EMBEDDING:
        return r * z->hidden;
    case MOE_PLAN_NORM:
        return (2.0 * LAYERS + 1) * r * z->hidden;
    case MOE_PLAN_ROPE:
        return LAYERS * r * (z->heads + 2.0 * z->kv_heads) * HEAD_DIM;
    case MOE_PLAN_ROUTE:
        return LAYERS * r * 2.0 * z->experts; /* all are chosen */
    case MOE_PLAN_COMBINE:
        return LAYERS * r * z->experts * z->hidden;
    default:
        return r * z->vocab;
    }
}

static const struct {
    uint32_t at, calls;
} small_ops[MOE_PLAN_SMALL_OPS] = {
    {MOE_AT_EMBED, 1},       {MOE_AT_NORM, 2 * LAYERS + 1},
    {MOE_AT_ROPE, LAYERS},   {MOE_AT_ROUTE, LAYERS},
    {MOE_AT_COMBINE, LAYERS}, {MOE_AT_PICK, 1},
};

/* t = calls * call + units * unit through the two points. */
static void
line(double calls, double t0, double u0, double t1, double u1, double *call,
     double *unit)
{
    double b = u1 > u0 ? (t1 - t0) / (u1 - u0) : 0;

    if (b < 0)
        b = 0;
    *unit = b;
    *call = (t0 - b * u0) / calls;
    if (*call < 0) {
        *call = 0;
        *unit = u1 > 0 ? t1 / u1 : 0;
    }
}

/* What a weight of a product of so many takes, by calls of two smaller sizes
 * of which a weight takes t[0] and t[1]. */
static double
in_larger(const double size[2], const double t[2], double larger)
{
    double w = (t[1] * size[1] - t[0] * size[0]) / (size[1] - size[0]);

    if (w <= 0 || w > t[1])
        return t[1];
    return w + (t[1] - w) * size[1] / larger;
}

/* What one of the two sizes tells of weights, the small one first.  The large
 * product is the head; with more rows than it takes at once the products of
 * the attention tell what it would take. */
static void
set_weights(struct point *points, const struct size *z, int large,
            uint32_t kind, struct moe_plan_rates *r)
{
    double   w[2], size[2], t[2], head = (double) z->hidden * z->vocab;
    uint32_t i, far;

    weights_of(z, w);
    /* a call; two in a layer make w[0] */
    size[0] = r->size[0][0];
    size[1] = w[0] / 2;
    r->size[large][0] = large ? head : size[1];
    r->size[large][1] = w[1];
    for (far = (uint32_t) large; far < 2; far++)
        for (i = 0; i < MOE_PLAN_ROWS; i++) {
            uint32_t      rows = moe_rates_rows[i];
            struct point *x = find(points, rows, AT_FIRST,
                                   far && !(large && rows >= LANES));
            uint32_t      where = large ? MOE_PLAN_FAR_LARGE
                                  : far ? MOE_PLAN_FAR_SMALL
                                        : MOE_PLAN_NEAR_SMALL;

            t[0] = r->weight[MOE_PLAN_NEAR_SMALL][0][kind][i];
            t[1] = (x->s[MOE_AT_QKV] + x->s[MOE_AT_OUT]) / LAYERS / w[0];
            if (large && rows <= r->head_rows)
                t[1] = x->s[MOE_AT_HEAD] / head;
            else if (large)
                t[1] = in_larger(size, t, head);
            r->weight[where][0][kind][i] = t[1];
            r->weight[where][1][kind][i]
                = x->s[MOE_AT_EXPERTS] / LAYERS / w[1];
        }
}

/* The operations without weights: one row of the small decoder and LANES of
 * the large one make a line. */
static void
set_small(struct point *small, struct point *large, struct moe_plan_rates *r)
{
    const struct point *a = find(small, 1, AT_FIRST, 0);
    const struct point *b = find(large, LANES, AT_FIRST, 0);
    uint32_t            i;

    r->step = a->rest;
    for (i = 0; i < MOE_PLAN_SMALL_OPS; i++)
        line(small_ops[i].calls, a->s[small_ops[i].at],
             units_of(&sizes[0], i, 1), b->s[small_ops[i].at],
             units_of(&sizes[1], i, LANES), &r->call[i], &r->unit[i]);
}

static void
set_attention(struct point *large, struct moe_plan_rates *r)
{
    const struct size *z = &sizes[1];
    double flop = 4.0 * LAYERS * z->heads * HEAD_DIM;
    double heads = (double) LAYERS * z->heads;
    double first = BLOCK * AT_FIRST + BLOCK * (BLOCK + 1.0) / 2;

    line(LANES * heads, find(large, LANES, AT_FIRST, 0)->s[MOE_AT_ATTENTION],
         LANES * (AT_FIRST + 1.0) * flop,
         find(large, LANES, AT_LAST, 0)->s[MOE_AT_ATTENTION],
         LANES * (AT_LAST + 1.0) * flop, &r->attend_row[0],
         &r->attend_op[0]);
    line(BLOCK * heads, find(large, BLOCK, AT_FIRST, 0)->s[MOE_AT_ATTENTION],
         first * flop,
         find(large, BLOCK, CONTEXT - BLOCK, 0)->s[MOE_AT_ATTENTION],
         (first + (CONTEXT - BLOCK - AT_FIRST) * (double) BLOCK) * flop,
         &r->attend_row[1], &r->attend_op[1]);
}

/* The cases of a size: with many rows the large one does not wait for the
 * memory. */
static uint32_t
list_points(int large, struct point *out)
{
    uint32_t i, n = 0;

    for (i = 0; i < MOE_PLAN_ROWS; i++) {
        if (!large || moe_rates_rows[i] < LANES)
            out[n++] = (struct point){.rows = moe_rates_rows[i], .at = AT_FIRST,
                                      .far = 1};
        if (!large || moe_rates_rows[i] >= LANES)
            out[n++] = (struct point){.rows = moe_rates_rows[i], .at = AT_FIRST,
                                      .once = large != 0};
    }
    if (large) {
        out[n++] = (struct point){.rows = LANES, .at = AT_LAST, .once = 1};
        out[n++] = (struct point){.rows = BLOCK, .at = CONTEXT - BLOCK,
                                  .once = 1};
    }
    return n;
}

moe_status
moe_rates_measure(const moe_options *o, struct moe_ceiling *c,
                  const char *format, struct moe_plan_rates *out,
                  struct moe_prober **kept, struct moe_error *err)
{
    struct moe_plan_rates r = *out;
    struct moe_format_ref f;
    struct moe_prober    *p[2] = {calloc(1, sizeof(**p)),
                                  calloc(1, sizeof(**p))};
    struct point         *points[2] = {calloc(POINTS_MAX, sizeof(**points)),
                                       calloc(POINTS_MAX, sizeof(**points))};
    uint32_t              kind = 0, large, n;
    moe_status            st = MOE_OK;

    if (p[0] == NULL || p[1] == NULL || points[0] == NULL
        || points[1] == NULL)
        st = moe_fail(err, MOE_E_NOMEM, ENOMEM, "bench: no memory");
    r.struct_size = sizeof(r);
    for (large = 0; large < 2 && st == MOE_OK; large++) {
        struct wish w = {&sizes[large], format};

        st = open_probe(o, c, &w, p[large], err);
        if (st == MOE_OK)
            st = moe_registry_format(p[large]->e->registry, format, &f, err);
        n = list_points((int) large, points[large]);
        if (st == MOE_OK)
            st = take_points(p[large], points[large], n, &r, err);
        if (st == MOE_OK) {
            kind = moe_rates_kind(f.format->bits_x1000 / 1000.0);
            r.head_rows = p[large]->e->plan.out_rows;
            r.kinds |= 1u << kind;
            set_weights(points[large], w.size, (int) large, kind, &r);
        }
    }
    if (st == MOE_OK) {
        set_small(points[0], points[1], &r);
        set_attention(points[1], &r);
        if (r.read[0] == 0)
            moe_ceiling_sizes(c, r.read);
        p[1]->then[0] = find(points[1], 1, AT_FIRST, 1)->whole;
        p[1]->then[1] = find(points[1], LANES, AT_FIRST, 0)->whole;
        *out = r;
        if (kept != NULL) {
            moe_prober_close(*kept);
            *kept = p[1];
            p[1] = NULL;
        }
    }
    for (large = 0; large < 2; large++) {
        moe_prober_close(p[large]);
        free(points[large]);
    }
    return st;
}

moe_status
moe_rates_pace(struct moe_prober *p, double slow[2], struct moe_error *err)
{
    static const struct point cases[2] = {
        {.rows = 1, .at = AT_FIRST, .far = 1},
        {.rows = LANES, .at = AT_FIRST, .once = 1},
    };
    double     s[2][PACES + 1], read, start = moe_now();
    uint32_t   i, n;
    moe_status st = MOE_OK;

    for (n = 0; n <= PACES && (n < 2 || moe_now() - start < PACE_S); n++)
        for (i = 0; i < 2; i++) {
            st = take(p, &cases[i], &read, err);
            if (st != MOE_OK)
                return st;
            s[i][n] = p->whole;
        }
    /* the first round has to wake its threads, and they have to spread */
    for (i = 0; i < 2; i++)
        slow[i] = moe_median(s[i] + 1, n - 1) / p->then[i];
    return MOE_OK;
}
