/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quant.calibrate: the rounding is that of a plain dense computation, makes
 * the outputs' error smaller, and is the same bytes with any number of
 * threads and any budget.  Needs the quantizer plugins and a backend.
 */
#include "convert/feedback.h"

#include <math.h>

#include "config/with_plugins.h"
#include "convert/calibrate.h"
#include "convert/draw.h"
#include "convert/letters.h"
#include "engine/engine.h"
#include "model/change.h"

static struct moe_error err;

/* ------------------------------------------------------------- numbers -- */

static uint32_t seed = 7;

/* x (rows, k) whose columns depend on each other. */
static void
draw_rows(float *x, uint32_t rows, uint32_t k)
{
    uint32_t t, i;

    for (t = 0; t < rows; t++)
        for (i = 0; i < k; i++)
            x[t * k + i] = draw(&seed) + (i > 0 ? 0.7f * x[t * k + i - 1] : 0)
                           + (i % 5 == 0 ? 3.0f : 0);
}

#define K    330u
#define ROWS 301u

/* The sums, and u' u as the inverse, however the rows are dealt out. */
static void
gram(void)
{
    static float     x[ROWS * K];
    static double    h[K * K], one[K * K], u[K * K], u1[K * K], full[K * K];
    struct moe_pool *p3 = NULL, *p1 = NULL;
    struct moe_factor f;
    uint32_t         i, j, t;
    double           worst = 0, damp = 0;

    draw_rows(x, ROWS, K);
    if (moe_pool_open(3, &p3, &err) != MOE_OK
        || moe_pool_open(1, &p1, &err) != MOE_OK)
        exit(1);
    moe_gram_add(p3, x, ROWS, K, K, h);
    moe_gram_add(p1, x, 98, K, K, one);
    moe_gram_add(p1, x + 98 * K, ROWS - 98, K, K, one);
    is_int(memcmp(h, one, sizeof(h)), 0, "sums: the same bits in two parts");
    for (i = 0; i < K; i++)
        for (j = 0; j <= i; j++) {
            double s = 0;

            for (t = 0; t < ROWS; t++)
                s += (double) x[t * K + i] * x[t * K + j];
            full[i * K + j] = full[j * K + i] = s;
            worst = fmax(worst, fabs(s - h[i * K + j]) / ROWS);
        }
    ok(worst < 1e-12, "sums: off by %.2g", worst);
    for (i = 0; i < K; i++)
        damp += 0.02 * full[i * (K + 1)] / K;
    for (i = 0; i < K; i++)
        full[i * (K + 1)] += damp;
    is_int(moe_gram_factor(p3, 0.02, K, h, u, &f), MOE_OK, "a factor");
    is_int(moe_gram_factor(p1, 0.02, K, one, u1, &f), MOE_OK, "again");
    is_int(memcmp(u, u1, sizeof(u)), 0, "the same bits with 1 and 3 threads");
    /* (u' u) full = 1 */
    for (worst = 0, i = 0; i < K; i++) {
        double row[K] = { 0 };

        for (t = 0; t < K; t++)
            for (j = 0; j < K; j++)
                row[j] += u[t * K + i] * u[t * K + j];
        for (j = 0; j < K; j++) {
            double s = 0;

            for (t = 0; t < K; t++)
                s += row[t] * full[t * K + j];
            worst = fmax(worst, fabs(s - (i == j)));
        }
        for (j = 0; j < i; j++)
            worst = fmax(worst, fabs(u[i * K + j]));
    }
    ok(worst < 1e-9, "u' u H is 1 but for %.2g", worst);

    memset(h, 0, sizeof(h));
    is_int(moe_gram_factor(p1, 0.02, K, h, u, &f), MOE_OK,
           "inputs that are always 0");
    h[3 * K + 3] = NAN;
    is_int(moe_gram_factor(p1, 0.02, K, h, u, &f), MOE_E_CORRUPT,
           "a sum that is NaN");
    moe_pool_close(p3);
    moe_pool_close(p1);
}

/* ------------------------------------------------------------ rounding -- */

#define N  24u
#define KK 288u
#define G  (KK / 32)

/*
 * What a straight computation with the whole inverse makes of w (N, KK): the
 * column's element nearest for the scale and zero point that are given, the
 * rest moved by Hinv, then the column taken out of Hinv (Frantar et al.,
 * Optimal Brain Compression, arXiv 2208.11580, equations 4 and 5).
 */
static void
straight(const double *h, const double *w0, const float *scale,
         const int *zero, uint32_t group, int *code)
{
    static double a[KK * 2 * KK], inv[KK * KK];
    static double w[N * KK];
    uint32_t      i, j, c, r;

    for (i = 0; i < KK; i++)
        for (j = 0; j < KK; j++) {
            a[i * 2 * KK + j] = h[i * KK + j];
            a[i * 2 * KK + KK + j] = i == j;
        }
    for (c = 0; c < KK; c++) {
        double p = a[c * 2 * KK + c];

        for (j = 0; j < 2 * KK; j++)
            a[c * 2 * KK + j] /= p;
        for (i = 0; i < KK; i++) {
            double f = a[i * 2 * KK + c];

            for (j = 0; i != c && j < 2 * KK; j++)
                a[i * 2 * KK + j] -= f * a[c * 2 * KK + j];
        }
    }
    for (i = 0; i < KK; i++)
        memcpy(inv + i * KK, a + i * 2 * KK + KK, KK * sizeof(*a));
    memcpy(w, w0, sizeof(w));
    for (c = 0; c < KK; c++) {
        for (r = 0; r < N; r++) {
            uint32_t g = r * (KK / group) + c / group;
            double  *y = w + r * KK, e;
            double   v = nearbyint(y[c] / scale[g]) + zero[g];

            v = v < 0 ? 0 : v > 15 ? 15 : v;
            code[r * KK + c] = (int) v;
            e = (y[c] - scale[g] * (v - zero[g])) / inv[c * KK + c];
            for (j = c + 1; j < KK; j++)
                y[j] -= e * inv[c * KK + j];
        }
        for (i = c + 1; i < KK; i++)
            for (j = c + 1; j < KK; j++)
                inv[i * KK + j] -= inv[i * KK + c] * inv[c * KK + j]
                                   / inv[c * KK + c];
    }
}

static double
output_error(const double *h, const double *d)
{
    double   sum = 0;
    uint32_t r, i, j;

    for (r = 0; r < N; r++)
        for (i = 0; i < KK; i++)
            for (j = 0; j < KK; j++)
                sum += d[r * KK + i] * h[i * KK + j] * d[r * KK + j];
    return sum;
}

/* bits: 4: codes are compared with those of the straight computation. */
static void
rounding(struct moe_registry *registry, struct moe_pool *pool, const char *id,
         int bits)
{
    static float        x[200 * KK], w32[N * KK], out[N * KK];
    static double       h[KK * KK], full[KK * KK], u[KK * KK];
    static double       w[N * KK], d[N * KK];
    static uint8_t      mem[MOE_PLANES_MAX][N * KK * 4];
    static int          code[N * KK];
    float               scale[N * G];
    int                 zero[N * G];
    struct moe_format_ref to;
    struct moe_feedback f;
    struct moe_factor   fac;
    struct moe_plane    planes[MOE_PLANES_MAX];
    struct moe_tensor   t = { .struct_size = sizeof(t),
                              .scale_dtype = MOE_F32, .n = N, .k = KK };
    uint32_t            n_planes = 0, i, j, wrong = 0;
    double              said = 0, plain, mine, damp = 0;
    void               *scratch;

    if (moe_registry_format(registry, id, &to, &err) != MOE_OK) {
        ok(0, "%s: %s", id, err.text);
        return;
    }
    draw_rows(x, 200, KK);
    for (i = 0; i < N * KK; i++)
        w32[i] = draw(&seed) * 0.1f;
    memset(h, 0, sizeof(h));
    moe_gram_add(pool, x, 200, KK, KK, h);
    for (i = 0; i < KK; i++)
        damp += 0.02 * h[i * (KK + 1)] / KK;
    for (i = 0; i < KK; i++)
        for (j = 0; j <= i; j++)
            full[i * KK + j] = full[j * KK + i]
                = h[i * KK + j] + (i == j ? damp : 0);
    is_int(moe_gram_factor(pool, 0.02, KK, h, u, &fac), MOE_OK, "%s: factor",
           id);

    if (!ok(moe_feedback_open(&to, KK, MOE_F32, &f), "%s: can be rounded so",
            id))
        return;
    memset(planes, 0, sizeof(planes));
    for (i = 0; i < MOE_PLANES_MAX; i++)
        planes[i].struct_size = sizeof(planes[i]);
    to.ops->planes(to.self, to.format, N, KK, MOE_F32, planes, &n_planes,
                   &err);
    for (i = 0; i < n_planes; i++) {
        t.plane[i] = mem[i];
        t.len[i] = planes[i].bytes;
    }
    is_int(to.ops->encode(to.self, to.format, w32, KK, NULL, &t, &err),
           MOE_OK, "%s: to nearest", id);
    (void) to.ops->decode(to.self, to.format, &t, 0, N, MOE_F32, out, KK);
    for (i = 0; i < N * KK; i++)
        d[i] = (double) w32[i] - out[i];
    plain = output_error(full, d);
    scratch = malloc(moe_feedback_scratch(&f, N));
    said = moe_feedback_error(&f, &fac, w32, out, N, scratch);
    ok(fabs(said / plain - 1) < 1e-5, "%s: plain error is what it is", id);

    is_int(moe_feedback_encode(&f, &fac, w32, N, scratch, &t, &said, &err),
           MOE_OK, "%s: rounded", id);
    is_int(to.ops->check(to.self, to.format, &t, &err), MOE_OK,
           "%s: the format's own check", id);
    (void) to.ops->decode(to.self, to.format, &t, 0, N, MOE_F32, out, KK);
    for (i = 0; i < N * KK; i++)
        d[i] = (double) w32[i] - out[i];
    mine = output_error(full, d);
    ok(fabs(said / mine - 1) < 1e-5, "%s: error is %.6g, %.6g was said", id,
       mine, said);
    ok(mine < 0.6 * plain, "%s: %.2f of rounding to nearest", id,
       mine / plain);
    if (bits == 4) {
        int z = to.format->scheme.symmetric ? -1 : 0;

        for (i = 0; i < N * G; i++) {
            memcpy(&scale[i], mem[1] + 4 * i, 4);
            zero[i] = z < 0 ? 8
                            : mem[2][i / G / 8 * 4 * G + i % G * 4
                                     + i / G % 8 / 2]
                                          >> 4 * (i / G % 2) & 15;
        }
        for (i = 0; i < N * KK; i++)
            w[i] = w32[i];
        straight(full, w, scale, zero, 32, code);
        for (i = 0; i < N * KK; i++)
            wrong += code[i] != (mem[0][i / 2] >> 4 * (i % 2) & 15);
        is_int(wrong, 0, "%s: the codes of a straight computation", id);
    }
    free(scratch);
}

static void
roundings(void)
{
    struct moe_host_services s = { 0 };
    struct moe_registry     *registry = NULL;
    struct moe_format_ref    plain;
    struct moe_feedback      f;
    moe_options             *o = test_options(NULL);

    s.options = o;
    if (moe_ledger_open(&s.ledger, &err) != MOE_OK
        || moe_pool_open(2, &s.pool, &err) != MOE_OK
        || moe_services_registry(&s, &registry, &err) != MOE_OK) {
        ok(0, "plugins: %s", err.text);
        return;
    }
    rounding(registry, s.pool, "int4-g32", 4);
    rounding(registry, s.pool, "int4-g32z", 4);
    rounding(registry, s.pool, "fp8-e4m3-channel", 8);
    rounding(registry, s.pool, "fp8-e4m3", 8);
    ok(moe_registry_format(registry, "f16", &plain, &err) == MOE_OK
           && !moe_feedback_open(&plain, 64, 0, &f),
       "f16 has nothing to make up for");
    moe_registry_close(registry);
    moe_pool_close(s.pool);
    moe_ledger_close(s.ledger);
    moe_options_free(o);
}

/* -------------------------------------------------------------- folders -- */

static struct moe_quantize_info info;

static moe_status
quantize(const char *in, const char *out, const char *const *set)
{
    moe_options *o = test_options(set);
    moe_status   st;

    memset(&err, 0, sizeof(err));
    err.struct_size = sizeof(err);
    memset(&info, 0, sizeof(info));
    info.struct_size = sizeof(info);
    st = moe_quantize(o, in, out, NULL, NULL, &info, &err);
    moe_options_free(o);
    return st;
}

static size_t
whole(const char *path, unsigned char **p)
{
    FILE  *f = fopen(path, "rbe");
    size_t n;

    *p = NULL;
    if (f == NULL)
        return 0;
    fseek(f, 0, SEEK_END);
    n = (size_t) ftell(f);
    rewind(f);
    *p = malloc(n + 1);
    n = fread(*p, 1, n, f);
    fclose(f);
    return n;
}

/* Do the files of this name agree? */
static int
equal(const char *a, const char *b, const char *name)
{
    unsigned char *x, *y = NULL;
    size_t         n = whole(in_dir(a, name), &x);
    int same_bytes = n != 0 && n == whole(in_dir(b, name), &y)
                     && memcmp(x, y, n) == 0;

    free(x);
    free(y);
    return same_bytes;
}

static const char fixture[] = "tests/quant/fixtures/qwen3_moe-fp8";

static void
self(void)
{
    static const char *const sets[][8] = {
        { "engine.threads=1", "quant.calibrate=self",
          "quant.calibrate_tokens=6000", NULL },
        { "engine.threads=3", "quant.calibrate=self",
          "quant.calibrate_tokens=6000", NULL },
        { "engine.threads=3", "quant.experts=int4-g32", NULL },
        { "engine.threads=1", "quant.calibrate=self",
          "quant.calibrate_tokens=4096", "quant.experts=int4-g32z",
          "quant.attention=int4-g32", "quant.router=fp8-e4m3", NULL },
    };
    const char *in = tap_src(fixture), *top = new_dir();
    char        out[4][300];
    size_t      i;

    for (i = 0; i < 4; i++) {
        snprintf(out[i], sizeof(out[i]), "%s/out%zu", top, i);
        is_int(quantize(in, out[i], sets[i]), MOE_OK, "%zu: %s", i, err.text);
        if (i == 2) {
            is_int(info.matrices, 24, "matrices of a plain run");
            is_int(info.calibrated, 0, "none calibrated");
        } else if (i < 2) {
            is_int(info.calibrated, 24, "all experts calibrated");
            is_int(info.tokens, 6000, "tokens");
            ok(info.error > 0.05 && info.error < 0.98, "error %.3f",
               info.error);
            ok(info.expert_least > 0
                   && info.expert_least < info.expert_most
                   && info.expert_most < 6000 * 2,
               "%llu to %llu tokens an expert",
               (unsigned long long) info.expert_least,
               (unsigned long long) info.expert_most);
        } else {
            is_int(info.calibrated, 24 + 8 + 2, "attention and router, too");
            is_int(info.tokens, 4096, "tokens asked for");
        }
    }
    ok(equal(out[0], out[1], "model.safetensors")
           && equal(out[0], out[1], "config.json"),
       "1 and 3 threads: the same bytes");
    ok(!equal(out[0], out[2], "model.safetensors"), "others than plain");
    ok(equal(out[0], out[2], "config.json"), "in the same formats");
    for (i = 0; i < 4; i++)
        drop_dir(out[i]);
    drop_dir(top);
}

/* The least memory that will do makes the same bytes, layer by layer. */
static void
budget(void)
{
    const char *free_set[] = { "quant.calibrate=self", "engine.threads=2",
                               "quant.calibrate_tokens=4096", NULL };
    char        text[64];
    const char *small[] = { "quant.calibrate=self", "engine.threads=2",
                            "quant.calibrate_tokens=4096", text, NULL };
    const char *in = tap_src(fixture), *top = new_dir();
    char        out[2][300];
    moe_status  st = MOE_E_OVER_BUDGET;
    uint64_t    m;

    snprintf(out[0], sizeof(out[0]), "%s/a", top);
    snprintf(out[1], sizeof(out[1]), "%s/b", top);
    is_int(quantize(in, out[0], free_set), MOE_OK, "no budget: %s", err.text);
    strcpy(text, "memory.budget=1M");
    is_int(quantize(in, out[1], small), MOE_E_OVER_BUDGET, "1 MiB: refused");
    has_str(err.text, "quant.calibrate_tokens", "with a remedy");
    for (m = 4; m < 4096 && st == MOE_E_OVER_BUDGET; m += 1 + m / 64) {
        snprintf(text, sizeof(text), "memory.budget=%lluM",
                 (unsigned long long) m);
        st = quantize(in, out[1], small);
        if (st == MOE_E_OVER_BUDGET && dir_entries(top) != 1)
            break;
    }
    is_int(st, MOE_OK, "%s: %s", text, err.text);
    ok(equal(out[0], out[1], "model.safetensors"), "the same bytes");
    drop_dir(out[0]);
    drop_dir(out[1]);
    drop_dir(top);
}

/* ----------------------------------------------------------------- text -- */

/* The fixture with a tokenizer of single letters. */
static const char *
with_words(void)
{
    struct change ch = { 0 };
    const char   *dir = changed("../../quant/fixtures/qwen3_moe-fp8", &ch);

    put_letters(dir);
    return dir;
}

static void
refuse(const char *in, const char *source, const char *more, moe_status want,
       const char *thing, const char *what)
{
    const char *top = new_dir();
    char        out[300], text[400];
    const char *set[] = { text, more, NULL };

    snprintf(out, sizeof(out), "%s/out", top);
    snprintf(text, sizeof(text), "quant.calibrate=%s", source);
    is_int(quantize(in, out, set), want, "%s: status", what);
    has_str(err.text, thing, "%s: named", what);
    is_int(dir_entries(top), 0, "%s: nothing is left", what);
    drop_dir(top);
}

static void
texts(void)
{
    const char *in = with_words(), *top = new_dir();
    char        out[300], path[300], text[400], *s = words(300000, 7);
    const char *set[] = { text, "quant.calibrate_tokens=4096", NULL };

    snprintf(out, sizeof(out), "%s/out", top);
    snprintf(path, sizeof(path), "%s/words", top);
    snprintf(text, sizeof(text), "quant.calibrate=%s", path);
    put_file(top, "words", s, 300000);
    is_int(quantize(in, out, set), MOE_OK, "a long text: %s", err.text);
    is_int(info.tokens, 4096, "as much of it as is asked for");
    drop_dir(out);
    put_file(top, "words", s, 5000);
    is_int(quantize(in, out, set), MOE_OK, "a longer one than needed: %s",
           err.text);
    is_int(info.tokens, 4096, "as much of it as is asked for");
    drop_dir(out);
    put_file(top, "words", s, 1000);
    is_int(quantize(in, out, set), MOE_OK, "a short text: %s", err.text);
    is_int(info.tokens, 1000, "all of it");
    ok(info.expert_few > 0, "few tokens an expert");
    drop_dir(out);
    put_file(top, "words", s, 200);
    refuse(in, path, NULL, MOE_E_INVAL, "200 tokens are too few", "too short");
    put_file(top, "words", s, 0);
    refuse(in, path, NULL, MOE_E_INVAL, "0 tokens are too few", "empty");
    refuse(in, in_dir(top, "none"), NULL, MOE_E_NOT_FOUND, "none", "no file");
    refuse(in, top, NULL, MOE_E_INVAL, "a file of text is needed", "a folder");
    refuse(tap_src(fixture), path, NULL, MOE_E_INVAL, "no tokenizer.json",
           "no tokenizer");
    refuse(in, "self", "quant.experts=bf16", MOE_E_INVAL,
           "quant.calibrate has no effect", "nothing to calibrate");
    free(s);
    drop_dir(top);
    drop_dir(in);
}

int
main(void)
{
    gram();
    if (getenv("MOE_PLUGIN_PATH") == NULL) {
        ok(1, "the rest # SKIP MOE_PLUGIN_PATH does not say where the "
              "plugins are");
        return tap_done();
    }
    roundings();
    self();
    budget();
    texts();
    return tap_done();
}
