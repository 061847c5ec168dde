/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calibrate.c - the model reads, and what enters its matrices is kept.
 *
 * Owns the engine that reads, the rows and the division of the budget
 * between the two.  Rows are kept rather than moments: an expert's moments
 * take width squared, and there may be hundreds of experts in a layer.  What
 * becomes of the rows is calibrate_gram.c's, the text calibrate_text.c's.
 */

#include <convert/calibrate_state.h>
#include <convert/feedback.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STEP_ROWS   4096u /* that the engine may compute at once */
#define MAX_WINDOWS 64u

uint32_t
moe_input_of(uint32_t tensor)
{
    switch (tensor) {
    case MOE_T_Q:
    case MOE_T_K:
    case MOE_T_V:
        return MOE_INPUT_QKV;
    case MOE_T_O:
        return MOE_INPUT_OUT;
    case MOE_T_GATE:
    case MOE_T_UP:
    case MOE_T_ROUTER:
    case MOE_T_EXPERT_GATE:
    case MOE_T_EXPERT_UP:
    case MOE_T_SHARED_GATE:
    case MOE_T_SHARED_UP:
    case MOE_T_SHARED_SCALE:
        return MOE_INPUT_FFN;
    case MOE_T_EXPERT_DOWN:
        return MOE_INPUT_DOWN;
    case MOE_T_SHARED_DOWN:
        return MOE_INPUT_SHARED_DOWN;
    case MOE_T_DOWN:
        return MOE_INPUT_DENSE_DOWN;
    default:
        return MOE_INPUT_NONE;
    }
}

int
moe_calibrates(const struct moe_recode *r)
{
    struct moe_feedback f;

    return r->what == MOE_RECODE_ENCODE
           && moe_input_of(r->tensor) != MOE_INPUT_NONE
           && moe_feedback_open(&r->to, r->src.k, r->scale_dtype, &f);
}

/* --------------------------------------------------------------- memory -- */

static int
wants(const struct moe_calibration *c, uint32_t layer, uint32_t feed)
{
    return c->wants[layer] >> feed & 1;
}

static int
wants_ffn(const struct moe_calibration *c, uint32_t layer)
{
    return wants(c, layer, MOE_INPUT_FFN) || wants(c, layer, MOE_INPUT_DOWN)
           || wants(c, layer, MOE_INPUT_SHARED_DOWN)
           || wants(c, layer, MOE_INPUT_DENSE_DOWN);
}

/* Bytes that a layer's rows take; their places in *k if base is not NULL. */
static uint64_t
lay_rows(const struct moe_calibration *c, uint32_t layer, uint64_t tokens,
         uint8_t *base, struct kept *k)
{
    const struct moe_arch *a = c->a;
    uint64_t               at = 0;
    int                    down = wants(c, layer, MOE_INPUT_DOWN);

#define TAKE(wanted, field, n)                                                \
    if (wanted) {                                                             \
        if (base != NULL)                                                     \
            k->field = (void *) (base + at);                                  \
        at += moe_calibration_pad(tokens * (n) * 4);                          \
    }
    TAKE(wants(c, layer, MOE_INPUT_QKV), qkv, a->hidden)
    TAKE(wants(c, layer, MOE_INPUT_OUT), out, (uint64_t) a->heads * a->v_dim)
    TAKE(wants_ffn(c, layer), ffn, a->hidden)
    TAKE(down, ids, a->top_k)
    TAKE(down && a->input_scaled, weights, a->top_k)
#undef TAKE
    return at;
}

/* The largest of what is needed for a down projection's input. */
struct sizes {
    uint64_t f, matrix, raw, k;
    int      any, expert;
};

static void
measure(const struct moe_calibration *c, struct sizes *z)
{
    const struct moe_recode_plan *p = c->s.plan;
    size_t                        i;

    memset(z, 0, sizeof(*z));
    for (i = 0; i < p->n; i++) {
        const struct moe_recode *r = &p->at[i];
        uint32_t                 feed = moe_input_of(r->tensor);

        int                      yes = moe_calibrates(r);

        if (yes && r->src.k > z->k)
            z->k = r->src.k;
        if (r->tensor == MOE_T_EXPERT_GATE || r->tensor == MOE_T_SHARED_GATE
            || r->tensor == MOE_T_GATE || r->tensor == MOE_T_EXPERT_UP
            || r->tensor == MOE_T_SHARED_UP || r->tensor == MOE_T_UP) {
            if (r->src.n * r->src.k > z->matrix)
                z->matrix = r->src.n * r->src.k;
            if (r->src.n > z->f)
                z->f = r->src.n;
            if (r->src.bytes > z->raw)
                z->raw = r->src.bytes;
        }
        if (!yes || feed < MOE_INPUT_DOWN)
            continue;
        z->any = 1;
        z->expert |= feed == MOE_INPUT_DOWN;
    }
}

static uint64_t
lay_work(struct moe_calibration *c, uint64_t tokens, uint8_t *base)
{
    struct sizes z;
    uint64_t     at = 0, h = c->a->hidden, f, ld;

    measure(c, &z);
    if (!z.any)
        return 0;
    f = z.f;
    ld = moe_down_width(f);
#define TAKE(field, bytes)                                                    \
    if (base != NULL)                                                         \
        c->field = (void *) (base + at);                                      \
    at += moe_calibration_pad(bytes);
    TAKE(prior, z.expert ? (uint64_t) c->a->expert_width
                               * c->a->expert_width * 8 : 0)
    TAKE(list, tokens * 4)
    TAKE(list_w, tokens * 4)
    TAKE(gate, z.matrix * 4) /* (f, h) */
    TAKE(up, z.matrix * 4)
    TAKE(x, MOE_DOWN_ROWS * h * 4) /* (rows / MOE_TILE_M, h, MOE_TILE_M) */
    TAKE(g, MOE_DOWN_ROWS * ld * 4) /* (rows, ld) */
    TAKE(u, MOE_DOWN_ROWS * ld * 4)
    TAKE(gate_bias, f * 4)
    TAKE(up_bias, f * 4)
    TAKE(raw, z.raw + 64 * MOE_PLANES_MAX)
#undef TAKE
    return at;
}

static moe_status
take(struct moe_calibration *c, uint64_t bytes, void **p, moe_grant **grant,
     struct moe_error *err)
{
    moe_status st = moe_ledger_reserve(c->s.services->ledger, MOE_LEDGER_HOST,
                                       "calibration", bytes, grant, err);

    if (st != MOE_OK)
        return st;
    *p = malloc(bytes);
    if (*p != NULL)
        return MOE_OK;
    moe_ledger_release(c->s.services->ledger, *grant);
    *grant = NULL;
    return moe_fail(err, MOE_E_NOMEM, ENOMEM,
                    "calibration: no memory for %llu bytes",
                    (unsigned long long) bytes);
}

static void
give(struct moe_calibration *c, void **p, moe_grant **grant)
{
    free(*p);
    if (*grant != NULL)
        moe_ledger_release(c->s.services->ledger, *grant);
    *p = NULL;
    *grant = NULL;
}

/* ----------------------------------------------------------------- open -- */

static moe_status
open_engine(struct moe_calibration *c, uint64_t bytes, uint32_t window,
            struct moe_error *err)
{
    moe_options *o = NULL;
    char         text[32];
    moe_status   st = moe_options_copy(c->s.services->options, &o, err);

    if (st == MOE_OK)
        st = moe_options_set(o, "model.path", c->s.in, MOE_FROM_ARG, err);
    snprintf(text, sizeof(text), "%llu", (unsigned long long) bytes);
    if (st == MOE_OK)
        st = moe_options_set(o, "memory.budget", text, MOE_FROM_ARG, err);
    snprintf(text, sizeof(text), "%u", window);
    if (st == MOE_OK)
        st = moe_options_set(o, "model.context", text, MOE_FROM_ARG, err);
    /* many rows a step: an expert that must be read serves more of them */
    snprintf(text, sizeof(text), "%u", STEP_ROWS);
    if (st == MOE_OK
        && moe_option_from(o, "engine.batch_rows") == MOE_FROM_DEFAULT)
        st = moe_options_set(o, "engine.batch_rows", text, MOE_FROM_ARG, err);
    /* and many sequences where it writes one token of each */
    snprintf(text, sizeof(text), "%u", MAX_WINDOWS);
    if (st == MOE_OK && strcmp(moe_option_text(o, "quant.calibrate"), "self")
                            == 0
        && moe_option_from(o, "engine.sequences") == MOE_FROM_DEFAULT)
        st = moe_options_set(o, "engine.sequences", text, MOE_FROM_ARG, err);
    if (st == MOE_OK)
        st = moe_engine_open(o, &c->engine, err);
    moe_options_free(o);
    return st;
}

/* The rows of all layers if they fit beside the model, else of as many as a
 * quarter of the budget holds, else of one. */
static moe_status
divide(struct moe_calibration *c, uint64_t tokens, uint32_t window,
       struct moe_error *err)
{
    uint64_t         all = 0, one = 0, fixed = c->s.spare + c->work_bytes;
    uint64_t         tries[3];
    struct moe_error why;
    uint32_t         l;
    size_t           i;
    moe_status       st = MOE_E_OVER_BUDGET;

    for (l = 0; l < c->a->n_layers; l++) {
        uint64_t n = lay_rows(c, l, tokens, NULL, NULL);

        all += n;
        one = n > one ? n : one;
    }
    memset(&why, 0, sizeof(why));
    why.struct_size = sizeof(why);
    tries[0] = all;
    tries[1] = c->s.budget / 4;
    tries[2] = one;
    for (i = 0; i < 3 && st == MOE_E_OVER_BUDGET; i++) {
        if (tries[i] < one || tries[i] > all
            || fixed + tries[i] >= c->s.budget)
            continue;
        c->room = tries[i];
        st = open_engine(c, c->s.budget - fixed - c->room, window, &why);
    }
    if (st == MOE_E_OVER_BUDGET)
        return moe_fail(err, st, 0,
                        "calibration: %llu bytes for %llu tokens beside the "
                        "model%s%.200s; raise memory.budget or lower "
                        "quant.calibrate_tokens",
                        (unsigned long long) (fixed + one),
                        (unsigned long long) tokens,
                        why.text[0] != '\0' ? ": " : "", why.text);
    if (st != MOE_OK)
        return moe_fail(err, st, why.native, "%s", why.text);
    return moe_ledger_limit(c->s.services->ledger, MOE_LEDGER_HOST,
                            fixed + c->room, err);
}

static void *
place(void *ctx, uint32_t layer, enum moe_tap_what what, uint32_t rows)
{
    struct moe_calibration *c = ctx;
    const struct moe_arch  *a = c->a;
    const struct kept      *k;
    uint64_t                at = c->at;

    c->step_rows = rows;
    if (layer < c->first || layer >= c->first + c->count
        || at + rows > c->text.n_tokens)
        return NULL;
    k = &c->kept[layer - c->first];
    switch (what) {
    case MOE_TAP_QKV:
        return k->qkv != NULL ? k->qkv + at * a->hidden : NULL;
    case MOE_TAP_OUT:
        return k->out != NULL ? k->out + at * a->heads * a->v_dim : NULL;
    case MOE_TAP_FFN:
        return k->ffn != NULL ? k->ffn + at * a->hidden : NULL;
    case MOE_TAP_IDS:
        return k->ids != NULL ? k->ids + at * a->top_k : NULL;
    case MOE_TAP_WEIGHTS:
        return k->weights != NULL ? k->weights + at * a->top_k : NULL;
    }
    return NULL;
}

moe_status
moe_calibration_open(const struct moe_calibration_setup *s,
                     struct moe_calibration **out, struct moe_error *err)
{
    const moe_options      *o = s->services->options;
    struct moe_calibration *c = calloc(1, sizeof(*c));
    const struct moe_arch  *a = s->plan->a;
    struct sizes            z;
    uint64_t                tokens;
    uint32_t                window;
    size_t                  i;
    moe_status              st;

    if (c == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "calibration: no memory");
    c->s = *s;
    c->a = a;
    c->prior_layer = UINT32_MAX;
    tokens = (uint64_t) moe_option_int(o, "quant.calibrate_tokens");
    window = a->max_context < MOE_TEXT_WINDOW ? a->max_context
                                              : MOE_TEXT_WINDOW;
    c->wants = calloc(a->n_layers, sizeof(*c->wants));
    c->kept = calloc(a->n_layers, sizeof(*c->kept));
    c->counts = calloc((size_t) a->n_layers * (a->n_experts + 1),
                       sizeof(*c->counts));
    if (c->wants == NULL || c->kept == NULL || c->counts == NULL) {
        st = moe_fail(err, MOE_E_NOMEM, ENOMEM, "calibration: no memory");
        goto fail;
    }
    for (i = 0; i < s->plan->n; i++) {
        const struct moe_recode *r = &s->plan->at[i];

        if (moe_calibrates(r))
            c->wants[r->layer] |= 1u << moe_input_of(r->tensor);
    }
    measure(c, &z);
    /* H and its factor are quantize's, but of the same budget */
    c->work_bytes = lay_work(c, tokens, NULL) + (2 * z.k * z.k + 1) * 8;
    st = divide(c, tokens, window, err);
    if (st == MOE_OK)
        st = moe_text_get(c->engine, moe_option_text(o, "quant.calibrate"),
                          tokens, window, s->watch, s->ctx, &c->text, err);
    if (st == MOE_OK && z.any)
        st = take(c, lay_work(c, tokens, NULL), &c->work, &c->work_grant,
                  err);
    if (st != MOE_OK)
        goto fail;
    if (z.any)
        (void) lay_work(c, tokens, c->work);
    c->tap.place = place;
    c->tap.ctx = c;
    *out = c;
    return MOE_OK;
fail:
    moe_calibration_close(c);
    return st;
}

void
moe_calibration_close(struct moe_calibration *c)
{
    if (c == NULL)
        return;
    moe_engine_close(c->engine);
    give(c, &c->rows, &c->rows_grant);
    give(c, &c->work, &c->work_grant);
    moe_text_free(&c->text);
    free(c->wants);
    free(c->kept);
    free(c->counts);
    free(c);
}

/* -------------------------------------------------------------- reading -- */

/* n windows from w on, their rows in their order: prompts are computed first
 * come, first served. */
static moe_status
read_windows(struct moe_calibration *c, uint64_t w, uint64_t n,
             struct moe_error *err)
{
    const uint64_t *start = c->text.start;
    moe_sequence   *q[MAX_WINDOWS];
    uint32_t        active = 1;
    uint64_t        i, got = 0;
    char            what[64];
    moe_status      st = MOE_OK;

    for (i = w; i < w + n && st == MOE_OK; i++) {
        struct moe_request req = { .struct_size = sizeof(req),
                                   .prompt = c->text.ids + start[i],
                                   .n_prompt = start[i + 1] - start[i] };

        st = moe_engine_submit(c->engine, &req, &q[got], err);
        got += st == MOE_OK;
    }
    while (st == MOE_OK && active != 0) {
        snprintf(what, sizeof(what), "reading: %llu of %llu tokens",
                 (unsigned long long) c->at,
                 (unsigned long long) c->text.n_tokens);
        st = c->s.watch(c->s.ctx, what, err);
        c->step_rows = 0;
        if (st == MOE_OK)
            st = moe_engine_step(c->engine, &active, err);
        c->at += c->step_rows;
    }
    for (i = 0; i < got; i++)
        moe_sequence_free(q[i]);
    if (st == MOE_OK && c->at != start[w + n])
        st = moe_fail(err, MOE_E_INTERNAL, 0,
                      "calibration: %llu tokens were computed instead of "
                      "%llu", (unsigned long long) c->at,
                      (unsigned long long) start[w + n]);
    return st;
}

/* As many as have pages of the cache at once. */
static uint64_t
windows_at_once(const struct moe_calibration *c)
{
    const struct moe_runner_plan *p = &c->engine->plan;
    uint64_t n = p->pages / (p->max_pages > 0 ? p->max_pages : 1);

    n = n < p->sequences ? n : p->sequences;
    n = n < MAX_WINDOWS ? n : MAX_WINDOWS;
    return n > 0 ? n : 1;
}

static void
count_experts(struct moe_calibration *c)
{
    uint64_t t, n = c->text.n_tokens * c->a->top_k;
    uint32_t l;

    for (l = c->first; l < c->first + c->count; l++) {
        const uint32_t *ids = c->kept[l - c->first].ids;
        uint64_t       *to = c->counts + (size_t) l * c->a->n_experts;

        if (ids == NULL)
            continue;
        memset(to, 0, c->a->n_experts * sizeof(*to));
        for (t = 0; t < n; t++)
            if (ids[t] < c->a->n_experts)
                to[ids[t]]++;
    }
}

moe_status
moe_calibration_read(struct moe_calibration *c, uint32_t first,
                     uint32_t *count, struct moe_error *err)
{
    uint64_t   bytes = 0, n = c->text.n_tokens, w, many;
    uint32_t   l;
    moe_status st = MOE_OK;

    for (l = first; l < c->a->n_layers; l++) {
        uint64_t more = lay_rows(c, l, n, NULL, NULL);

        if (bytes + more > c->room)
            break;
        bytes += more;
    }
    c->first = first;
    c->count = l - first;
    c->at = 0;
    *count = c->count;
    if (bytes == 0)
        return MOE_OK;
    if (bytes > c->rows_bytes) {
        give(c, &c->rows, &c->rows_grant);
        c->rows_bytes = 0;
        st = take(c, bytes, &c->rows, &c->rows_grant, err);
        if (st != MOE_OK)
            return st;
        c->rows_bytes = bytes;
    }
    memset(c->kept, 0, c->a->n_layers * sizeof(*c->kept));
    for (bytes = 0, l = 0; l < c->count; l++)
        bytes += lay_rows(c, first + l, n, (uint8_t *) c->rows + bytes,
                          &c->kept[l]);
    moe_runner_tap(c->engine->runner, &c->tap);
    for (w = 0; w < c->text.n_windows && st == MOE_OK; w += many) {
        many = windows_at_once(c);
        if (many > c->text.n_windows - w)
            many = c->text.n_windows - w;
        st = read_windows(c, w, many, err);
    }
    moe_runner_tap(c->engine->runner, NULL);
    if (st == MOE_OK)
        count_experts(c);
    return st;
}

void
moe_calibration_count(const struct moe_calibration *c, uint64_t *tokens,
                      uint64_t *least, uint64_t *most, uint64_t *few)
{
    uint32_t l, e;

    *tokens = c->text.n_tokens;
    *least = UINT64_MAX;
    *most = *few = 0;
    for (l = 0; l < c->a->n_layers; l++)
        for (e = 0; wants(c, l, MOE_INPUT_DOWN) && e < c->a->n_experts; e++) {
            uint64_t n = c->counts[(size_t) l * c->a->n_experts + e];

            *least = n < *least ? n : *least;
            *most = n > *most ? n : *most;
            *few += n < MOE_CALIBRATE_FEW;
        }
    if (*least == UINT64_MAX)
        *least = 0;
}
