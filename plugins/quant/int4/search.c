/* SPDX-License-Identifier: Apache-2.0 */
/*
 * search.c - the scale and zero point of one group of 4-bit weights.
 *
 * Rounding to nearest with scale = max / 7.5 is some 10 % worse than what the
 * same bits can hold (Gaussian weights, groups of 32: 9.5 % relative error
 * against 8.6), so the scale is searched.  For each of a few scales s the
 * codes v are chosen and, with weights w, A = sum w x v and B = sum w v^2
 * are summed.  If these codes are kept, the best scale is A / B, and the
 * squared error is then sum w x^2 - A^2 / B: the candidate with the largest
 * A^2 / B wins.  A / B is rounded to the type that the file stores, the codes
 * are chosen anew for the rounded scale, and both steps are repeated while
 * the error, now summed from the differences themselves, falls.
 *
 * Without a zero point the codes -8 .. 7 reach one step further down than up.
 * A negative scale turns that around, so the sign of the group's largest
 * magnitude chooses the sign of the scale: 8.5 % error become 8.0 (Gaussian,
 * groups of 32), as good as trying both signs.  Inside, scales are positive
 * and codes then run from -7 to 8.
 *
 * Forty times as many scales, each refined, would lower the error by 0.02 %.
 *
 * The sweep keeps four candidates in the lanes of a vector; all sums run in a
 * fixed order.  No compiler flag, vector width or thread changes a bit.
 */

#include "quant/int4/search.h"

#include "common/quant.h"

#ifdef __SSE__
#    include <xmmintrin.h>
#endif

MOE_STATIC_ASSERT(FLT_EVAL_METHOD == 0 || FLT_EVAL_METHOD == 16,
                  "f32 arithmetic must be done in f32");

typedef float   int4_v4 __attribute__((__vector_size__(16)));
typedef int32_t int4_m4 __attribute__((__vector_size__(16)));

/* Rounds |t| < 2^22 to the nearest integer, ties to even, when added and
 * subtracted. */
#define INT4_MAGIC 0x1.8p23f

#define INT4_CANDIDATES 32u /* a multiple of 8 */

/* The group in units in which its largest magnitude lies in [1, 2), so that
 * no square over- or underflows. */
struct int4_group {
    float    x[INT4_GROUP_MAX];
    float    w[INT4_GROUP_MAX];  /* largest 1; all 1 without weights */
    float    wx[INT4_GROUP_MAX]; /* w * x */
    float    v[INT4_GROUP_MAX];  /* codes of the last scale */
    uint32_t n;
    float    up, down; /* 2^e and 2^-e; x = original * 2^-e */
    float    lo, hi;   /* smallest and largest of x, and 0  */
};

/* Scales to try, with the range that codes are clamped to. */
struct int4_sweep {
    float    scale[INT4_CANDIDATES];
    float    inverse[INT4_CANDIDATES];
    float    lo[INT4_CANDIDATES], hi[INT4_CANDIDATES];
    float    a[INT4_CANDIDATES], b[INT4_CANDIDATES];
    uint32_t n;
};

/* x < y ? x : y, lane by lane */
static inline int4_v4
int4_min(int4_v4 x, int4_v4 y)
{
#ifdef __SSE__
    return (int4_v4) _mm_min_ps((__m128) x, (__m128) y);
#else
    int4_m4 m = x < y;

    return (int4_v4) (((int4_m4) x & m) | ((int4_m4) y & ~m));
#endif
}

static inline int4_v4
int4_max(int4_v4 x, int4_v4 y)
{
#ifdef __SSE__
    return (int4_v4) _mm_max_ps((__m128) x, (__m128) y);
#else
    int4_m4 m = x > y;

    return (int4_v4) (((int4_m4) x & m) | ((int4_m4) y & ~m));
#endif
}

static inline int4_v4
int4_load4(const float *p)
{
    int4_v4 v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static inline int4_v4
int4_splat(float f)
{
    return (int4_v4) { f, f, f, f };
}

/* A and B of each candidate. */
static void
int4_sweep(const struct int4_group *g, struct int4_sweep *s)
{
    const int4_v4 magic = int4_splat(INT4_MAGIC);
    size_t        c, i;

    for (c = 0; c < s->n; c += 8) {
        int4_v4 inv0 = int4_load4(s->inverse + c), x, w, wx;
        int4_v4 inv1 = int4_load4(s->inverse + c + 4);
        int4_v4 lo0 = int4_load4(s->lo + c), lo1 = int4_load4(s->lo + c + 4);
        int4_v4 hi0 = int4_load4(s->hi + c), hi1 = int4_load4(s->hi + c + 4);
        int4_v4 a0 = { 0 }, a1 = { 0 }, b0 = { 0 }, b1 = { 0 }, v0, v1;

        for (i = 0; i < g->n; i++) {
            x = int4_splat(g->x[i]);
            w = int4_splat(g->w[i]);
            wx = int4_splat(g->wx[i]);
            v0 = int4_max(int4_min(x * inv0, hi0), lo0);
            v1 = int4_max(int4_min(x * inv1, hi1), lo1);
            v0 = (v0 + magic) - magic;
            v1 = (v1 + magic) - magic;
            a0 += wx * v0;
            a1 += wx * v1;
            b0 += w * (v0 * v0);
            b1 += w * (v1 * v1);
        }
        memcpy(s->a + c, &a0, sizeof(a0));
        memcpy(s->a + c + 4, &a1, sizeof(a1));
        memcpy(s->b + c, &b0, sizeof(b0));
        memcpy(s->b + c + 4, &b1, sizeof(b1));
    }
}

static float
int4_lane_sum(int4_v4 a)
{
    return (a[0] + a[2]) + (a[1] + a[3]);
}

/* Codes of the group for one scale, to g->v; their error, and what to add to
 * the scale to make the error of these codes least. */
static float
int4_codes(struct int4_group *g, float s, float lo, float hi, float *step)
{
    const int4_v4 magic = int4_splat(INT4_MAGIC), inv = int4_splat(1.0f / s);
    const int4_v4 lo4 = int4_splat(lo), hi4 = int4_splat(hi);
    int4_v4       e = { 0 }, d = { 0 }, b = { 0 }, x, v, w, r;
    float         sum;
    size_t        i;

    for (i = 0; i < g->n; i += 4) {
        x = int4_load4(g->x + i);
        w = int4_load4(g->w + i);
        v = int4_max(int4_min(x * inv, hi4), lo4);
        v = (v + magic) - magic;
        memcpy(g->v + i, &v, sizeof(v));
        r = x - s * v;
        b += w * (v * v);
        w *= r;
        e += w * r;
        d += w * v;
    }
    sum = int4_lane_sum(b);
    *step = sum > 0.0f ? int4_lane_sum(d) / sum : 0.0f;
    return int4_lane_sum(e);
}

/* 2^e with e the exponent of a > 0, as far as 2^e and 2^-e are normal. */
static float
int4_power_of_two(float a)
{
    uint32_t e = moe_bits_of(a) >> 23;

    e = e < 1 ? 1 : e > 253 ? 253 : e;
    return moe_float_of(e << 23);
}

/* False: a group of zeros. */
static int
int4_load(struct int4_group *g, const float *x, const float *weight,
          uint32_t n)
{
    float    lo = 0.0f, hi = 0.0f, most = 0.0f, a;
    uint32_t i;

    for (i = 0; i < n; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    a = hi > -lo ? hi : -lo;
    if (a == 0.0f)
        return 0;
    g->n = n;
    g->up = int4_power_of_two(a);
    g->down = moe_float_of((254u << 23) - moe_bits_of(g->up));
    g->lo = lo * g->down;
    g->hi = hi * g->down;
    for (i = 0; weight != NULL && i < n; i++)
        most = weight[i] > most ? weight[i] : most;
    for (i = 0; i < n; i++) {
        g->x[i] = x[i] * g->down;
        /* where nobody looks, all weights alike are as good as any */
        g->w[i] = most > 0.0f ? weight[i] / most : 1.0f;
        g->wx[i] = g->w[i] * g->x[i];
    }
    return 1;
}

/* s as the file will have it: within the type's range and rounded to it. */
static float
int4_round_scale(const struct int4_group *g, float s, uint32_t dtype)
{
    float least = dtype == MOE_F16 ? 0x1p-24f : moe_scale_least(dtype);
    float most = moe_scale_most(dtype);

    most = most < INT4_SCALE_MAX ? most : INT4_SCALE_MAX;
    s *= g->up;
    s = s < most ? s : most;
    s = moe_scale_round(s > least ? s : least, dtype);
    /* rounding may have passed the limit by one unit */
    return s <= most ? s : moe_scale_round(most * 0.99f, dtype);
}

/* From the best candidate to a scale of the file's type, its codes in g->v.
 * Returns the scale in original units. */
static float
int4_refine(struct int4_group *g, float s, float lo, float hi, uint32_t dtype)
{
    float real = int4_round_scale(g, s, dtype), best = real;
    float error, least = INFINITY, step;
    int   round;

    for (round = 0; round < 4; round++) {
        error = int4_codes(g, real * g->down, lo, hi, &step);
        if (!(error < least))
            break;
        least = error;
        best = real;
        s = real * g->down + step;
        if (error == 0.0f || !(s > 0.0f))
            return best;
        real = int4_round_scale(g, s, dtype);
        if (moe_bits_of(real) == moe_bits_of(best))
            return best;
    }
    int4_codes(g, best * g->down, lo, hi, &step);
    return best;
}

static void
int4_add(struct int4_sweep *s, float scale, float lo, float hi)
{
    s->scale[s->n] = scale;
    s->inverse[s->n] = 1.0f / scale;
    s->lo[s->n] = lo;
    s->hi[s->n] = hi;
    s->n++;
}

/* Scales by where the largest magnitude a would fall: below 7.5 no code is
 * clipped; beyond 8.5 the largest ones are, for finer steps.  The end of the
 * range with 8 steps is on its side. */
static void
int4_scales(const struct int4_group *g, struct int4_sweep *s)
{
    int      up = g->hi > -g->lo;
    float    a = up ? g->hi : -g->lo;
    uint32_t i;

    for (i = 0; i < 16; i++)
        int4_add(s, a / (6.0f + 0.25f * (float) i), up ? -7.0f : -8.0f,
                 up ? 8.0f : 7.0f);
}

/* Scales by how many steps the whole range would be, each with the two zero
 * points that put the middle of the codes nearest to that of the range. */
static void
int4_scales_and_zeros(const struct int4_group *g, struct int4_sweep *s)
{
    float    scale, c;
    uint32_t i, j;
    int32_t  zero;

    for (i = 0; i <= 12; i++) {
        scale = (g->hi - g->lo) / (12.0f + 0.5f * (float) i);
        c = 7.5f - (g->lo + g->hi) / (2.0f * scale);
        zero = (int32_t) (c < 0.0f ? 0.0f : c > 15.0f ? 15.0f : c);
        for (j = 0; j < 2 && zero <= 15; j++, zero++)
            int4_add(s, scale, (float) -zero, (float) (15 - zero));
    }
}

int
int4_choose(const float *x, const float *weight, uint32_t group, int symmetric,
            uint32_t scale_dtype, struct int4_choice *out)
{
    struct int4_group g;
    struct int4_sweep s;
    float             gain, most = -1.0f, start = 0.0f, lo, hi;
    uint32_t          i, best = 0, n;
    int32_t           zero = 8;

    if (!int4_load(&g, x, weight, group)) {
        out->scale = moe_scale_of_zeros(scale_dtype);
        out->zero = 8;
        memset(out->code, 0, group);
        return 1;
    }
    hi = g.hi > -g.lo ? g.hi : -g.lo;
    if (scale_dtype == MOE_F16 && hi / 8.0f > moe_scale_most(MOE_F16) * g.down)
        return 0;
    s.n = 0;
    if (symmetric)
        int4_scales(&g, &s);
    else
        int4_scales_and_zeros(&g, &s);
    n = s.n;
    while (s.n % 8 != 0)
        int4_add(&s, s.scale[0], s.lo[0], s.hi[0]);
    int4_sweep(&g, &s);
    for (i = 0; i < n; i++) {
        gain = s.b[i] > 0.0f ? s.a[i] * s.a[i] / s.b[i] : 0.0f;
        if (gain > most) {
            most = gain;
            best = i;
            start = s.a[i] > 0.0f ? s.a[i] / s.b[i] : s.scale[i];
        }
    }
    out->scale = int4_refine(&g, start, s.lo[best], s.hi[best], scale_dtype);

    /* Codes that do not use the whole range allow several zero points for
     * the same numbers: take the one nearest to 8, so that equal numbers
     * have equal bytes. */
    lo = hi = 0.0f;
    for (i = 0; i < group; i++) {
        lo = g.v[i] < lo ? g.v[i] : lo;
        hi = g.v[i] > hi ? g.v[i] : hi;
        out->code[i] = (int8_t) g.v[i];
    }
    if (symmetric) {
        /* 8 steps up: mirrored; else the scale stays positive, so that equal
         * numbers have equal bytes here too */
        for (i = 0; hi > 7.0f && i < group; i++)
            out->code[i] = (int8_t) -out->code[i];
        out->scale = hi > 7.0f ? -out->scale : out->scale;
        out->zero = 8;
        return 1;
    }
    zero = zero < (int32_t) -lo ? (int32_t) -lo : zero;
    zero = zero > 15 - (int32_t) hi ? 15 - (int32_t) hi : zero;
    out->zero = zero;
    return 1;
}
