/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quant.calibrate for every kind of matrix that the families have: what was
 * written is decoded, and its codes must be those that follow from a decoder
 * computed plainly (decoder.h) and from the straight form of the rounding.
 * Needs the quantizer plugins and a backend.
 */
#include "checkpoint/json.h"
#include "config/with_plugins.h"
#include "convert/calibrate.h"
#include "convert/decoder.h"
#include "convert/draw.h"
#include "convert/letters.h"
#include "engine/engine.h"

#define TEXT 700u
#define MANY 400u /* tensors of a model */

static struct moe_error err;

struct family {
    const char *fixture; /* of tests/model, for its config.json */
    const char *sizes;   /* JSON in its place: widths that int4-g32 takes */
    const char *quant[5];
    uint64_t    calibrated; /* matrices, all but embedding and head */
    int         shy;        /* an expert that is never chosen */
};

/* ---------------------------------------------------------- checkpoints -- */

static uint32_t seed = 11;

/* A tensor drawn so that numbers neither die out nor grow from layer to
 * layer; the first input has a sign of its own. */
static float *
draw_tensor(const struct family *f, uint32_t tensor, uint64_t n, uint64_t k)
{
    float   *x = malloc(n * k * sizeof(*x));
    float    wide = moe_arch_class(tensor) != MOE_CLASS_NORM
                        ? 1.0f / sqrtf((float) k) : 0.2f;
    int      norm = tensor == MOE_T_ATTN_NORM || tensor == MOE_T_FFN_NORM
               || tensor == MOE_T_OUTPUT_NORM || tensor == MOE_T_Q_NORM
               || tensor == MOE_T_K_NORM;
    uint64_t i, j;

    if (tensor == MOE_T_EMBED)
        wide = 1;
    for (i = 0; i < n; i++)
        for (j = 0; j < k; j++) {
            /* a variance of 1, nearly */
            x[i * k + j] = draw(&seed) * 0.87f * wide + (norm ? 1 : 0);
            if (tensor == MOE_T_EMBED && j == 0)
                x[i * k] = 4;
            if (tensor == MOE_T_ROUTER && f->shy && i == 1 && j == 0)
                x[i * k] = -30;
        }
    return x;
}

/* The family's config with other sizes, weights and a tokenizer. */
static void
make_model(const struct family *f, const char *dir)
{
    struct moe_json     j = { NULL, "config.json", "" };
    struct json_object *patch = json_tokener_parse(f->sizes);
    struct moe_arch     a;
    struct made         made[MANY];
    char                path[300], name[256];
    uint64_t            n, k;
    uint32_t            t, l, e;
    size_t              m = 0, i;

    snprintf(path, sizeof(path), "tests/model/fixtures/%s/config.json",
             f->fixture);
    j.obj = json_object_from_file(tap_src(path));
    json_object_object_foreach(patch, key, value)
        json_object_object_add(j.obj, key, json_object_get(value));
    put_text(dir, "config.json", json_object_to_json_string(j.obj));
    if (moe_arch_config(&j, &a, &err) != MOE_OK) {
        printf("Bail out! %s\n", err.text);
        exit(1);
    }
    memset(made, 0, sizeof(made));
    for (t = 0; t < MOE_T_COUNT; t++)
        for (l = 0; l < (moe_arch_per_layer(t) ? a.n_layers : 1); l++) {
            moe_arch_shape(&a, t, l, &n, &k);
            for (e = 0; n != 0 && m < MANY
                        && e < (moe_arch_per_expert(t) ? a.n_experts : 1);
                 e++) {
                if (moe_arch_name(&a, t, l, e, name, sizeof(name)) != MOE_OK)
                    abort();
                made[m].name = strdup(name);
                made[m].dtype = "F32";
                made[m].dim[0] = n;
                made[m].dim[1] = k;
                made[m].n_dims = moe_arch_class(t) == MOE_CLASS_NORM ? 1 : 2;
                made[m++].data = draw_tensor(f, t, n, k);
            }
        }
    put_tensors(dir, "model.safetensors", made, m);
    for (i = 0; i < m; i++) {
        free((void *) (uintptr_t) made[i].name);
        free((void *) (uintptr_t) made[i].data);
    }
    put_letters(dir);
    moe_arch_free(&a);
    json_object_put(patch);
    json_object_put(j.obj);
}

/* -------------------------------------------------- what should come out -- */

/* Adds to h (k, k) the moments of what enters a matrix. */
static void
add_moments(const struct decoder *d, uint32_t tensor, uint32_t layer,
            uint32_t expert, uint64_t k, double *h)
{
    const struct inputs *in = &d->at[layer];
    uint32_t             n = d->rows, t, feed = moe_input_of(tensor);
    uint32_t            *list = malloc((size_t) n * d->a.top_k * 4 + 4);
    uint64_t             i, j, width = k;
    double              *x = NULL;
    const double        *rows = feed == MOE_INPUT_QKV ? in->qkv
                                : feed == MOE_INPUT_OUT ? in->out : in->ffn;

    if (feed == MOE_INPUT_DOWN) {
        double *theirs = chosen(d, layer, expert, list, &n);

        rows = x = between(d, MOE_T_EXPERT_GATE, MOE_T_EXPERT_UP, layer,
                           expert, theirs, n, &width);
        free(theirs);
    } else if (feed == MOE_INPUT_SHARED_DOWN) {
        rows = x = between(d, MOE_T_SHARED_GATE, MOE_T_SHARED_UP, layer, 0,
                           in->ffn, n, &width);
    } else if (feed == MOE_INPUT_DENSE_DOWN) {
        rows = x = between(d, MOE_T_GATE, MOE_T_UP, layer, 0, in->ffn, n,
                           &width);
    }
    if (width != k)
        abort();
    for (t = 0; t < n; t++)
        for (i = 0; i < k; i++)
            for (j = 0; j < k; j++)
                h[i * k + j] += rows[t * k + i] * rows[t * k + j];
    free(list);
    free(x);
}

/* The H of a matrix, damped as the documentation says.  mean: of the layer's
 * experts, for one token, or NULL. */
static double *
moments(const struct decoder *d, uint32_t tensor, uint32_t layer,
        uint32_t expert, uint64_t k, const double *mean)
{
    double  *h = calloc(k * k, sizeof(*h)), sum = 0;
    uint64_t i;

    add_moments(d, tensor, layer, expert, k, h);
    for (i = 0; mean != NULL && i < k * k; i++)
        h[i] += MOE_CALIBRATE_FEW * mean[i];
    for (i = 0; i < k; i++)
        sum += h[i * (k + 1)];
    for (i = 0; i < k; i++)
        h[i * (k + 1)] += MOE_CALIBRATE_DAMP * sum / (double) k;
    return h;
}

static double *
mean_of_experts(const struct decoder *d, uint32_t layer, uint64_t k)
{
    double  *h = calloc(k * k, sizeof(*h));
    uint64_t i;
    uint32_t e;

    for (e = 0; e < d->a.n_experts; e++)
        add_moments(d, MOE_T_EXPERT_DOWN, layer, e, k, h);
    for (i = 0; i < k * k; i++)
        h[i] /= (double) d->rows * d->a.top_k;
    return h;
}

/* tr((w - q) h (w - q)') */
static double
output_error(const double *h, const float *w, const float *q, uint64_t n,
             uint64_t k)
{
    double   sum = 0;
    uint64_t r, i, j;

    for (r = 0; r < n; r++, w += k, q += k)
        for (i = 0; i < k; i++) {
            double s = 0;

            for (j = 0; j < k; j++)
                s += h[i * k + j] * ((double) w[j] - q[j]);
            sum += s * ((double) w[i] - q[i]);
        }
    return sum;
}

/*
 * How many elements of q (n, k) are not those that a straight computation
 * with the whole inverse makes of w at q's scales, (n, k / 32): the column's
 * nearest code, the rest moved by the inverse, then the column taken out of
 * it (Frantar et al., Optimal Brain Compression, arXiv 2208.11580, equations
 * 4 and 5).
 */
static uint64_t
others(const double *h, const float *w0, const float *q, const float *scale,
       uint64_t n, uint64_t k)
{
    double  *a = calloc(2 * k * k, sizeof(*a)), *w = malloc(n * k * 8);
    double  *inv = malloc(k * k * sizeof(*inv));
    uint64_t c, i, j, r, wrong = 0;

    for (i = 0; i < k; i++) {
        memcpy(a + i * 2 * k, h + i * k, k * sizeof(*a));
        a[i * 2 * k + k + i] = 1;
    }
    for (c = 0; c < k; c++) {
        double p = a[c * 2 * k + c];

        for (j = 0; j < 2 * k; j++)
            a[c * 2 * k + j] /= p;
        for (i = 0; i < k; i++) {
            double s = i != c ? a[i * 2 * k + c] : 0;

            for (j = 0; s != 0 && j < 2 * k; j++)
                a[i * 2 * k + j] -= s * a[c * 2 * k + j];
        }
    }
    for (i = 0; i < k; i++)
        memcpy(inv + i * k, a + i * 2 * k + k, k * sizeof(*a));
    for (i = 0; i < n * k; i++)
        w[i] = w0[i];
    for (c = 0; c < k; c++) {
        for (r = 0; r < n; r++) {
            double s = scale[r * (k / 32) + c / 32], e;
            double v = nearbyint(w[r * k + c] / s);

            v = v < -8 ? -8 : v > 7 ? 7 : v;
            wrong += fabs(v * s - q[r * k + c]) > 1e-3 * fabs(s);
            /* as it was written, lest one that is at a tie move the rest */
            e = (w[r * k + c] - q[r * k + c]) / inv[c * (k + 1)];
            for (j = c + 1; j < k; j++)
                w[r * k + j] -= e * inv[c * k + j];
        }
        for (i = c + 1; i < k; i++)
            for (j = c + 1; j < k; j++)
                inv[i * k + j] -= inv[i * k + c] * inv[c * k + j]
                                  / inv[c * (k + 1)];
    }
    free(a);
    free(w);
    free(inv);
    return wrong;
}

/* --------------------------------------------------------------- folders -- */

struct folder {
    struct moe_checkpoint *c;
    struct moe_arch        a;
};

static void
open_folder(const char *dir, struct folder *f)
{
    memset(f, 0, sizeof(*f));
    if (moe_checkpoint_open(dir, &f->c, &err) != MOE_OK
        || moe_arch_read(f->c, &f->a, &err) != MOE_OK) {
        printf("Bail out! %s\n", err.text);
        exit(1);
    }
}

static void
close_folder(struct folder *f)
{
    moe_arch_free(&f->a);
    moe_checkpoint_close(f->c);
}

/* The scales of int4-g32 in f32. */
static float *
read_scales(const struct folder *f, const struct moe_registry *registry,
            uint32_t tensor, uint32_t layer, uint32_t expert)
{
    struct moe_weight w;
    float            *s;

    if (moe_weight_find(f->c, registry, &f->a, tensor, layer, expert, &w,
                        &err) != MOE_OK
        || strcmp(w.ref.format->id, "int4-g32") != 0
        || w.scale_dtype != MOE_F32)
        return NULL;
    s = malloc(w.plane[MOE_PLANE_SCALE]->bytes);
    if (moe_checkpoint_read(f->c, w.plane[MOE_PLANE_SCALE], 0,
                            w.plane[MOE_PLANE_SCALE]->bytes, s, &err)
        != MOE_OK)
        abort();
    return s;
}

static const char *const kinds[MOE_INPUTS] = {
    [MOE_INPUT_QKV] = "query, key, value", [MOE_INPUT_OUT] = "output",
    [MOE_INPUT_FFN] = "router, gate and up", [MOE_INPUT_DOWN] = "down",
    [MOE_INPUT_SHARED_DOWN] = "shared down",
    [MOE_INPUT_DENSE_DOWN] = "dense down",
};

/* Of one kind, over all layers and experts. */
struct tally {
    uint64_t matrices, worse, elements, others;
    double   ratio; /* sum of errors over those of rounding to nearest */
};

static void
compare_matrix(const struct decoder *d, const struct folder *plain,
               const struct folder *mine, uint32_t t, uint32_t l, uint32_t e,
               const double *mean, struct tally *y)
{
    uint64_t n, k;
    float   *w = read_matrix(d->c, d->registry, &d->a, t, l, e, &n, &k);
    float   *q = read_matrix(mine->c, d->registry, &mine->a, t, l, e, &n, &k);
    float   *p = read_matrix(plain->c, d->registry, &plain->a, t, l, e, &n,
                             &k);
    float   *s = read_scales(mine, d->registry, t, l, e);
    double  *h = moments(d, t, l, e, k, mean);
    double   a = output_error(h, w, q, n, k), b = output_error(h, w, p, n, k);

    y->matrices++;
    y->worse += a >= b;
    y->ratio += a / b;
    y->elements += s != NULL ? n * k : 0;
    y->others += s != NULL ? others(h, w, q, s, n, k) : n * k;
    free(w);
    free(q);
    free(p);
    free(s);
    free(h);
}

static void
compare(const struct family *f, const struct decoder *d,
        const struct folder *plain, const struct folder *mine)
{
    struct tally tally[MOE_INPUTS];
    uint32_t     t, l, e, i;
    uint64_t     n, k, all = 0;

    memset(tally, 0, sizeof(tally));
    for (t = 0; t < MOE_T_COUNT; t++)
        for (l = 0; l < d->a.n_layers && moe_input_of(t) != MOE_INPUT_NONE;
             l++) {
            double *mean = NULL;

            moe_arch_shape(&d->a, t, l, &n, &k);
            if (n != 0 && t == MOE_T_EXPERT_DOWN)
                mean = mean_of_experts(d, l, k);
            for (e = 0; n != 0
                        && e < (moe_arch_per_expert(t) ? d->a.n_experts : 1);
                 e++)
                compare_matrix(d, plain, mine, t, l, e, mean,
                               &tally[moe_input_of(t)]);
            free(mean);
        }
    for (i = 1; i < MOE_INPUTS; i++) {
        const struct tally *y = &tally[i];

        all += y->matrices;
        if (y->matrices == 0)
            continue;
        is_int((long long) y->worse, 0, "%s, %s: better than to nearest",
               f->fixture, kinds[i]);
        ok(y->ratio < 0.9 * (double) y->matrices, "%s, %s: %.2f of its error",
           f->fixture, kinds[i], y->ratio / (double) y->matrices);
        ok(y->others * 500 <= y->elements,
           "%s, %s: %llu of %llu elements are others than plainly computed",
           f->fixture, kinds[i], (unsigned long long) y->others,
           (unsigned long long) y->elements);
    }
    is_int((long long) all, (long long) f->calibrated, "%s: matrices",
           f->fixture);
}

/* What is told of experts that the text reaches seldom. */
static void
compare_counts(const struct family *f, const struct decoder *d,
               const struct moe_quantize_info *info)
{
    uint64_t least = UINT64_MAX, most = 0, few = 0, i, n;
    uint32_t l, e;

    for (l = 0; l < d->a.n_layers; l++)
        for (e = 0; d->at[l].ids != NULL && e < d->a.n_experts; e++) {
            for (n = 0, i = 0; i < (uint64_t) d->rows * d->a.top_k; i++)
                n += d->at[l].ids[i] == e;
            least = n < least ? n : least;
            most = n > most ? n : most;
            few += n < MOE_CALIBRATE_FEW;
        }
    if (least == UINT64_MAX)
        least = 0;
    ok(info->expert_least == least && info->expert_most == most
           && info->expert_few == few,
       "%s: an expert saw %llu to %llu tokens, %llu too few", f->fixture,
       (unsigned long long) info->expert_least,
       (unsigned long long) info->expert_most,
       (unsigned long long) info->expert_few);
    is_int(least == 0, f->shy || d->a.n_experts == 0,
           "%s: one was never chosen", f->fixture);
}

static char logged[2000];

static void
take_line(void *ctx, uint32_t level, const char *line)
{
    (void) ctx;
    if (level <= MOE_LOG_WARN)
        snprintf(logged + strlen(logged), sizeof(logged) - strlen(logged),
                 "%s\n", line);
}

static moe_status
quantize(const struct family *f, const char *in, const char *out,
         const char *text, struct moe_quantize_info *info)
{
    const char  *set[12] = { "engine.threads=2", "memory.kv_type=f32" };
    char         from[400];
    size_t       n = 2, i;
    moe_options *o;
    moe_status   st;

    for (i = 0; i < 5 && f->quant[i] != NULL; i++)
        set[n++] = f->quant[i];
    snprintf(from, sizeof(from), "quant.calibrate=%s", text);
    if (text[0] != '\0')
        set[n++] = from;
    o = test_options(set);
    moe_options_set_log(o, take_line, NULL);
    memset(&err, 0, sizeof(err));
    err.struct_size = sizeof(err);
    memset(info, 0, sizeof(*info));
    info->struct_size = sizeof(*info);
    st = moe_quantize(o, in, out, NULL, NULL, info, &err);
    moe_options_free(o);
    return st;
}

static void
try(const struct family *f, struct moe_registry *registry)
{
    const char *in = new_dir(), *top = new_dir();
    char        plain[300], mine[300], path[300], *s = words(TEXT, 3);
    uint32_t    ids[TEXT], i, window;
    struct moe_quantize_info info;
    struct folder            source, a, b;
    struct decoder           d;

    make_model(f, in);
    snprintf(plain, sizeof(plain), "%s/plain", top);
    snprintf(mine, sizeof(mine), "%s/mine", top);
    snprintf(path, sizeof(path), "%s/words", top);
    put_file(top, "words", s, TEXT);
    for (i = 0; i < TEXT; i++)
        ids[i] = s[i] == ' ' ? 31 : (uint32_t) (s[i] - 'a' + 4);
    free(s);
    is_int(quantize(f, in, plain, "", &info), MOE_OK, "%s: to nearest: %s",
           f->fixture, err.text);
    if (is_int(quantize(f, in, mine, path, &info), MOE_OK, "%s: %s",
               f->fixture, err.text)) {
        is_int((long long) info.calibrated, (long long) f->calibrated,
               "%s: every matrix is calibrated", f->fixture);
        is_int((long long) info.tokens, TEXT, "%s: the whole text",
               f->fixture);
        open_folder(in, &source);
        open_folder(plain, &a);
        open_folder(mine, &b);
        memset(&d, 0, sizeof(d));
        d.c = source.c;
        d.registry = registry;
        d.a = source.a;
        window = d.a.max_context < 512 ? d.a.max_context : 512;
        decode_text(&d, ids, TEXT, window);
        compare(f, &d, &a, &b);
        compare_counts(f, &d, &info);
        source.a.layers = NULL;
        decoder_free(&d);
        moe_checkpoint_close(source.c);
        close_folder(&a);
        close_folder(&b);
    }
    drop_dir(plain);
    drop_dir(mine);
    drop_dir(top);
    drop_dir(in);
}

/* What cannot be calibrated is rounded to nearest, and said. */
static void
left_out(void)
{
    static const struct family f
        = { "qwen2_moe", "{\"hidden_size\":96,\"intermediate_size\":64,"
                         "\"moe_intermediate_size\":32,"
                         "\"shared_expert_intermediate_size\":64}",
            { "quant.embeddings=int4-g32", "quant.attention=bf16",
              "quant.experts=bf16", "quant.shared=int4-g32",
              "quant.calibrate_tokens=512" }, 0, 0 };
    const char              *in = new_dir(), *top = new_dir();
    char                     out[2][300];
    int                      i;
    struct moe_quantize_info info;

    make_model(&f, in);
    for (i = 0; i < 2; i++) {
        snprintf(out[i], sizeof(out[i]), "%s/%d", top, i);
        logged[0] = '\0';
        is_int(quantize(&f, in, out[i], i == 0 ? "" : "self", &info),
               MOE_OK, "%s: %s", f.fixture, err.text);
        if (i == 0)
            is_str(logged, "", "without a text nothing to say");
    }
    is_int((long long) info.matrices, 2 + 2 * (4 + 18 + 3), "matrices");
    is_int((long long) info.calibrated, 2 * 3, "shared expert calibrated");
    has_str(logged, "2 matrices are rounded to nearest, since what they are "
                    "multiplied with is not kept: embedding or output head",
            "the others are told of");
    has_str(logged, "44 matrices are rounded to nearest: bf16", "and why");
    drop_dir(out[0]);
    drop_dir(out[1]);
    drop_dir(top);
    drop_dir(in);
}

static const struct family families[] = {
    { "llama", "{\"hidden_size\":64,\"intermediate_size\":96}",
      { "quant.attention=int4-g32", "quant.dense=int4-g32" }, 21, 0 },
    { "llama-linear", "{\"hidden_size\":64,\"intermediate_size\":96}",
      { "quant.attention=int4-g32", "quant.dense=int4-g32" }, 14, 0 },
    { "qwen2-window", "{\"hidden_size\":64,\"intermediate_size\":96}",
      { "quant.attention=int4-g32", "quant.dense=int4-g32" }, 21, 0 },
    { "qwen3", "{\"hidden_size\":64,\"intermediate_size\":96,"
               "\"head_dim\":24}",
      { "quant.attention=int4-g32", "quant.dense=int4-g32" }, 14, 0 },
    { "mixtral-window", "{\"hidden_size\":64,\"intermediate_size\":96,"
                        "\"head_dim\":16}",
      { "quant.attention=int4-g32", "quant.router=int4-g32" },
      3 * (4 + 1 + 15), 1 },
    { "mixtral", "{\"hidden_size\":96,\"intermediate_size\":64}",
      { "quant.attention=int4-g32", "quant.router=int4-g32" },
      2 * (4 + 1 + 12), 1 },
    { "olmoe-clip", "{\"hidden_size\":96,\"intermediate_size\":32}",
      { "quant.attention=int4-g32", "quant.router=int4-g32" },
      2 * (4 + 1 + 18), 1 },
    { "qwen2_moe", "{\"hidden_size\":96,\"intermediate_size\":64,"
                   "\"moe_intermediate_size\":32,"
                   "\"shared_expert_intermediate_size\":64}",
      { "quant.attention=int4-g32", "quant.router=int4-g32",
        "quant.shared=int4-g32" }, 2 * (4 + 1 + 18 + 4), 1 },
    { "qwen2_moe-step", "{\"hidden_size\":64,\"intermediate_size\":96,"
                        "\"moe_intermediate_size\":32,"
                        "\"shared_expert_intermediate_size\":64}",
      { "quant.attention=int4-g32", "quant.router=int4-g32",
        "quant.shared=int4-g32", "quant.dense=int4-g32" },
      4 * 4 + 3 * 3 + 1 + 12 + 4, 0 },
    { "qwen3_moe-step", "{\"hidden_size\":64,\"intermediate_size\":96,"
                        "\"moe_intermediate_size\":32,\"head_dim\":16,"
                        "\"num_attention_heads\":4,"
                        "\"num_key_value_heads\":2}",
      { "quant.attention=int4-g32", "quant.router=int4-g32",
        "quant.dense=int4-g32" }, 4 * 4 + 2 * 3 + 2 * (1 + 12), 0 },
};

int
main(void)
{
    struct moe_host_services s = { 0 };
    struct moe_registry     *registry = NULL;
    size_t                   i;

    if (getenv("MOE_PLUGIN_PATH") == NULL) {
        ok(1, "all of it # SKIP MOE_PLUGIN_PATH does not say where the "
              "plugins are");
        return tap_done();
    }
    s.options = test_options(NULL);
    if (moe_ledger_open(&s.ledger, &err) != MOE_OK
        || moe_pool_open(1, &s.pool, &err) != MOE_OK
        || moe_services_registry(&s, &registry, &err) != MOE_OK) {
        printf("Bail out! %s\n", err.text);
        return 1;
    }
    for (i = 0; i < sizeof(families) / sizeof(families[0]);
         i += tap_every(4))
        try(&families[i], registry);
    left_out();
    moe_registry_close(registry);
    moe_pool_close(s.pool);
    moe_ledger_close(s.ledger);
    moe_options_free((moe_options *) (uintptr_t) s.options);
    return tap_done();
}
