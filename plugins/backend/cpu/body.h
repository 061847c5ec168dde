/* SPDX-License-Identifier: Apache-2.0 */
/*
 * body.h - the float arithmetic of one instruction set.
 *
 * Included once by each kernels_*.c, which has defined v16 (16 floats) and
 * the operations v_* on it, V_NT (rows of x at once, 8 at most) and V_NP(nt)
 * (panels at once for nt rows).  v_load_e4m3() and v_load_e5m2() may give
 * numbers that are too small, and rows in any order: v_fp8_sum() puts right
 * what came of them and of rows of x times V_FP8_UP.
 *
 * One source for all instruction sets, so that they differ in nothing but the
 * words they are written in: sums over k are sequential, other sums are kept
 * in 16 lanes and folded 16-8-4-2-1.
 *
 * Hot: no allocation, no lock, no system call.
 */

#define V_AHEAD 4096u /* bytes that weights are fetched ahead of their use */

#define V_LOG2E  1.44269504088896341f
#define V_LN2_HI 0.693359375f
#define V_LN2_LO (-2.12194440e-4f)
#define V_ROUND  12582912.0f /* 1.5 * 2^23: adding it rounds to an integer */

/* e^x, within 2 ulp for -87 < x < 88.5; 0 below that and e^88.5 above, which
 * for the sums and quotients here is as good as infinity; NaN stays NaN. */
V_FN v16
v_exp(v16 x)
{
    v16 t, n, r, p;

    x = v_min(v_set1(88.5f), x);
    r = v_max(v_set1(-87.0f), x);
    t = v_fma(r, v_set1(V_LOG2E), v_set1(V_ROUND));
    n = v_sub(t, v_set1(V_ROUND));
    r = v_fma(n, v_set1(-V_LN2_HI), r);
    r = v_fma(n, v_set1(-V_LN2_LO), r);
    /* the Taylor series: |r| <= ln 2 / 2, so the first term left out is
     * below 2^-27 */
    p = v_set1(1.0f / 5040.0f);
    p = v_fma(p, r, v_set1(1.0f / 720.0f));
    p = v_fma(p, r, v_set1(1.0f / 120.0f));
    p = v_fma(p, r, v_set1(1.0f / 24.0f));
    p = v_fma(p, r, v_set1(1.0f / 6.0f));
    p = v_fma(p, r, v_set1(0.5f));
    p = v_fma(p, r, v_set1(1.0f));
    p = v_fma(p, r, v_set1(1.0f));
    /* the integer lies in the low bits of t: add it to p's exponent */
    p = v_zero_below(x, -87.0f, v_add_exponent(p, t));
    return v_add(p, v_sub(r, r)); /* 0, or NaN */
}

/* The first n < 16 numbers; the others are fill. */
V_FN v16
v_load_part(const float *p, uint32_t n, float fill)
{
    float tmp[16];

    v_store(tmp, v_set1(fill));
    memcpy(tmp, p, n * sizeof(float));
    return v_load(tmp);
}

V_FN void
v_store_part(float *p, uint32_t n, v16 v)
{
    float tmp[16];

    v_store(tmp, v);
    memcpy(p, tmp, n * sizeof(float));
}

/* 16 keys, or values, or weights that are numbers by themselves. */
V_FN v16
v_elem(const unsigned kind, const uint8_t *p)
{
    switch (kind) {
    case CPU_F16:
        return v_load_f16(p);
    case CPU_BF16:
        return v_load_bf16(p);
    default:
        return v_load((const float *) (const void *) p);
    }
}

/* The first n < 16 elements; the others are 0. */
V_FN v16
v_elem_part(const unsigned kind, const uint8_t *p, uint32_t n)
{
    uint8_t tmp[64] = { 0 };

    memcpy(tmp, p, (size_t) n * (kind == CPU_F32 ? 4u : 2u));
    return v_elem(kind, tmp);
}

#define V_ELEM_BYTES(kind)                                                    \
    ((kind) == CPU_F32 ? 4u : (kind) == CPU_F16 || (kind) == CPU_BF16 ? 2u : 1u)

/* -------------------------------------------------------------- products -- */

#define V_IS_FP8(kind) ((kind) == CPU_E4M3 || (kind) == CPU_E5M2)

/* Column i of a panel; of FP8 as v_fp8_sum() takes it. */
V_FN v16
v_column(const unsigned kind, const uint8_t *w, uint64_t i)
{
    if (kind == CPU_E4M3)
        return v_load_e4m3(w + (i & ~UINT64_C(1)) * 16, i & 1);
    if (kind == CPU_E5M2)
        return v_load_e5m2(w + (i & ~UINT64_C(1)) * 16, i & 1);
    return v_elem(kind, w + i * 16 * V_ELEM_BYTES(kind));
}

/* acc[t * np + p] += sum over columns [k0, k1) in their order; ahead: bytes
 * to fetch ahead, or 0. */
V_FN void
dot_block(const unsigned kind, const unsigned np, const unsigned nt,
          const unsigned ahead, const uint8_t *w, const uint64_t stride,
          uint64_t k0, uint64_t k1, const float *const *x, v16 *acc)
{
    const uint64_t line = 16u * V_ELEM_BYTES(kind); /* bytes a column */
    const float   *xs[8];
    uint64_t       i = k0; /* even for FP8, so that pairs stay together */

    V_UNROLL
    for (unsigned t = 0; t < nt; t++)
        xs[t] = x[t];
    for (; i + 4 <= k1; i += 4) {
        if (ahead != 0) {
            V_UNROLL
            for (unsigned p = 0; p < np; p++) {
                V_UNROLL
                for (unsigned j = 0; j < 4 * line; j += 64)
                    v_prefetch(w + p * stride + i * line + j + ahead);
            }
        }
        V_UNROLL
        for (unsigned j = 0; j < 4; j++) {
            V_UNROLL
            for (unsigned p = 0; p < np; p++) {
                const v16 wv = v_column(kind, w + p * stride + i * line, j);

                V_UNROLL
                for (unsigned t = 0; t < nt; t++) {
                    v16 *const a = &acc[t * np + p];

                    if (V_IS_FP8(kind))
                        v_fma_to(a, wv, v_set1(xs[t][i + j]));
                    else
                        *a = v_fma(wv, v_set1(xs[t][i + j]), *a);
                }
            }
        }
    }
    for (; i < k1; i++) {
        V_UNROLL
        for (unsigned p = 0; p < np; p++) {
            const v16 wv = v_column(kind, w + p * stride, i);

            V_UNROLL
            for (unsigned t = 0; t < nt; t++)
                acc[t * np + p] = v_fma(wv, v_set1(xs[t][i]),
                                        acc[t * np + p]);
        }
    }
}

#define V_TILE 128u /* columns of FP8: as floats they stay in the first cache */

/* n <= V_TILE numbers times V_FP8_UP; up: room for them. */
V_FN const float *
dot_up(const float *x, uint32_t n, float *up)
{
    uint32_t i = 0;

    if (V_FP8_UP == 1.0f)
        return x;
    for (; i + 16 <= n; i += 16)
        v_store(up + i, v_mul(v_load(x + i), v_set1(V_FP8_UP)));
    for (; i < n; i++)
        up[i] = x[i] * V_FP8_UP;
    return up;
}

/* The scales of FP8 panels lie behind their elements. */
V_FN const float *
dot_scales(const struct cpu_mat *m, const uint8_t *w)
{
    return (const float *) (const void *) (w + cpu_fp8_bytes(m->k));
}

V_FN void
dot_some(const unsigned kind, const unsigned np, const unsigned nt,
         const struct cpu_mat *m, const uint8_t *w, const float *const *x,
         float *out, uint32_t ldo)
{
    const uint64_t stride = m->panel_bytes;
    v16            acc[32];

    V_UNROLL
    for (unsigned i = 0; i < nt * np; i++)
        acc[i] = v_set1(0.0f);
    if (V_IS_FP8(kind)) {
        uint64_t     k0, k1, c, g = 0;
        uint32_t     n;
        const float *xs[8];
        float        up[8][V_TILE];
        v16          total[32];

        V_UNROLL
        for (unsigned i = 0; i < nt * np; i++)
            total[i] = v_set1(0.0f);
        for (k0 = 0; k0 < m->k; k0 = k1, g++) {
            k1 = cpu_min(k0 + m->group, m->k);
            V_UNROLL
            for (unsigned i = 0; i < nt * np; i++)
                acc[i] = v_set1(0.0f);
            for (c = k0; c < k1; c += n) {
                n = (uint32_t) cpu_min(k1 - c, V_TILE);
                V_UNROLL
                for (unsigned t = 0; t < nt; t++)
                    xs[t] = dot_up(x[t] + c, n, up[t]);
                dot_block(kind, np, nt, V_AHEAD / np, w + 16 * c, stride, 0, n,
                          xs, acc);
            }
            V_UNROLL
            for (unsigned p = 0; p < np; p++) {
                const float *s = dot_scales(m, w + p * stride);
                const v16    sv = m->scale == 1 ? v_set1(s[g])
                                                : v_load(s + 16 * g);

                V_UNROLL
                for (unsigned t = 0; t < nt; t++) {
                    v16 *const a = &total[t * np + p];

                    *a = v_fma(v_fp8_sum(kind, acc[t * np + p]), sv, *a);
                }
            }
        }
        V_UNROLL
        for (unsigned i = 0; i < nt * np; i++)
            acc[i] = total[i];
    } else {
        dot_block(kind, np, nt, V_AHEAD / np, w, stride, 0, m->k, x, acc);
    }
    V_UNROLL
    for (unsigned t = 0; t < nt; t++) {
        V_UNROLL
        for (unsigned p = 0; p < np; p++)
            v_store(out + t * ldo + 16 * p, acc[t * np + p]);
    }
}

V_FN void
dot_panels(const unsigned kind, const unsigned nt, const struct cpu_mat *m,
           uint32_t panel, uint32_t np, const float *const *x, float *out,
           uint32_t ldo)
{
    const uint8_t *w = m->data + panel * m->panel_bytes;
    uint32_t       p = 0;

    for (; p + V_NP(nt) <= np; p += V_NP(nt))
        dot_some(kind, V_NP(nt), nt, m, w + p * m->panel_bytes, x,
                 out + 16 * p, ldo);
    if (V_NP(nt) > 1)
        for (; p < np; p++)
            dot_some(kind, 1, nt, m, w + p * m->panel_bytes, x, out + 16 * p,
                     ldo);
}

V_FN void
dot_more_some(const unsigned nt, const float *w, uint32_t k,
              const float *const *x, float *acc)
{
    v16 a[8];

    V_UNROLL
    for (unsigned t = 0; t < nt; t++)
        a[t] = v_load(acc + 16 * t);
    dot_block(CPU_F32, 1, nt, 0, (const uint8_t *) w, 0, 0, k, x, a);
    V_UNROLL
    for (unsigned t = 0; t < nt; t++)
        v_store(acc + 16 * t, a[t]);
}

static void
dot_more(const float *w, uint32_t k, const float *const *x, uint32_t nt,
         float *acc)
{
    uint32_t t = 0;

    for (; t + V_NT <= nt; t += V_NT)
        dot_more_some(V_NT, w, k, x + t, acc + 16 * t);
    if (V_NT > 4 && nt - t >= 4) {
        dot_more_some(4, w, k, x + t, acc + 16 * t);
        t += 4;
    }
    if (V_NT > 2 && nt - t >= 2) {
        dot_more_some(2, w, k, x + t, acc + 16 * t);
        t += 2;
    }
    if (nt > t)
        dot_more_some(1, w, k, x + t, acc + 16 * t);
}

/* Columns [c, c + n) of an FP8 panel as floats times V_FP8_UP, n <= V_TILE. */
V_FN void
dot_tile(const unsigned kind, const uint8_t *w, uint64_t c, uint32_t n,
         float *tile)
{
    uint32_t i;

    for (i = 0; i < n; i += 2, tile += 32) { /* pairs: V_TILE is even */
        v_prefetch(w + (c + i) * 16 + V_AHEAD);
        v_store(tile, v_mul(v_column(kind, w + (c + i) * 16, 0),
                            v_set1(V_FP8_UP)));
        v_store(tile + 16, v_mul(v_column(kind, w + (c + i) * 16, 1),
                                 v_set1(V_FP8_UP)));
    }
}

/* One FP8 panel by several rows: expanded once for all of them.  The sums are
 * those of dot_some(). */
V_FN void
dot_tiles(const unsigned kind, const struct cpu_mat *m, const uint8_t *w,
          const float *const *x, uint32_t nt, float *out, uint32_t ldo)
{
    const float *s = dot_scales(m, w);
    float        tile[16 * V_TILE], acc[16 * CPU_TOKENS];
    const float *xs[CPU_TOKENS];
    uint32_t     k0, k1, c, n, t;

    for (t = 0; t < nt; t++)
        v_store(out + (size_t) t * ldo, v_set1(0.0f));
    for (k0 = 0; k0 < m->k; k0 = k1, s += m->scale) {
        const v16 sv = m->scale == 1 ? v_set1(*s) : v_load(s);

        k1 = m->group < m->k - k0 ? k0 + m->group : m->k;
        memset(acc, 0, 16 * nt * sizeof(float));
        for (c = k0; c < k1; c += n) {
            n = k1 - c < V_TILE ? k1 - c : V_TILE;
            for (t = 0; t < nt; t++)
                xs[t] = x[t] + c;
            dot_tile(kind, w, c, n, tile);
            dot_more(tile, n, xs, nt, acc);
        }
        for (t = 0; t < nt; t++) {
            float *o = out + (size_t) t * ldo;

            v_store(o, v_fma(v_fp8_sum(kind, v_load(acc + 16 * t)), sv,
                             v_load(o)));
        }
    }
}

/* nt rows in as few steps as registers allow; most: V_NT, or less. */
V_FN void
dot_rows(const unsigned kind, const unsigned most, const struct cpu_mat *m,
         uint32_t panel, uint32_t np, const float *const *x, uint32_t nt,
         float *out, uint32_t ldo)
{
    uint32_t t = 0;

    for (; t + most <= nt; t += most)
        dot_panels(kind, most, m, panel, np, x + t, out + (size_t) t * ldo,
                   ldo);
    if (most > 4 && nt - t >= 4) {
        dot_panels(kind, 4, m, panel, np, x + t, out + (size_t) t * ldo, ldo);
        t += 4;
    }
    if (most > 2 && nt - t >= 2) {
        dot_panels(kind, 2, m, panel, np, x + t, out + (size_t) t * ldo, ldo);
        t += 2;
    }
    if (nt > t)
        dot_panels(kind, 1, m, panel, np, x + t, out + (size_t) t * ldo, ldo);
}

#define V_FP8_ROWS 4u /* from so many on, expanding pays */

V_FN void
dot_any(const unsigned kind, const struct cpu_mat *m, uint32_t panel,
        uint32_t np, const void *const *rows, uint32_t nt, float *out,
        uint32_t ldo)
{
    const float *const *x = (const float *const *) rows;

    if (!V_IS_FP8(kind))
        dot_rows(kind, V_NT, m, panel, np, x, nt, out, ldo);
    else if (nt < V_FP8_ROWS)
        dot_rows(kind, 2, m, panel, np, x, nt, out, ldo);
    else
        for (uint32_t p = 0; p < np; p++)
            dot_tiles(kind, m, m->data + (panel + p) * m->panel_bytes, x, nt,
                      out + 16 * p, ldo);
}

#define V_DOT(name, kind)                                                     \
    static void name(const struct cpu_mat *m, uint32_t panel, uint32_t np,    \
                     const void *const *x, uint32_t nt, float *out,           \
                     uint32_t ldo)                                            \
    {                                                                         \
        dot_any(kind, m, panel, np, x, nt, out, ldo);                         \
    }

V_DOT(dot_f32, CPU_F32)
V_DOT(dot_f16, CPU_F16)
V_DOT(dot_bf16, CPU_BF16)
V_DOT(dot_e4m3, CPU_E4M3)
V_DOT(dot_e5m2, CPU_E5M2)

/* ------------------------------------------------------ activations, int8 -- */

/* Symmetric: d = max / 127, q = x / d rounded to nearest, ties to even. */
static void
quantize(const float *x, uint32_t k, struct cpu_q8 *out)
{
    uint32_t i;

    for (i = 0; i < k; i += CPU_RUN, out++) {
        const uint32_t left = k - i;
        const v16      a = left >= 16 ? v_load(x + i)
                                      : v_load_part(x + i, left, 0.0f);
        const v16 b = left >= 32   ? v_load(x + i + 16)
                      : left <= 16 ? v_set1(0.0f)
                                   : v_load_part(x + i + 16, left - 16, 0.0f);
        const float max = v_top(v_max(v_abs(a), v_abs(b)));
        v16         s;

        if (v_has_nan(a) || v_has_nan(b) || !(max <= FLT_MAX)) {
            memset(out, 0, sizeof(*out));
            out->d = NAN; /* and so is every product */
            continue;
        }
        if (max < 1e-30f) { /* 127 / max must be finite */
            memset(out, 0, sizeof(*out));
            continue;
        }
        out->d = max / 127.0f;
        s = v_set1(127.0f / max);
        /* the integer lies in the low bits of the sum */
        v_store_low8(out->q, v_add(v_mul(a, s), v_set1(V_ROUND)));
        v_store_low8(out->q + 16, v_add(v_mul(b, s), v_set1(V_ROUND)));
        out->sum[0] = out->sum[1] = 0;
        for (unsigned j = 0; j < CPU_RUN; j++)
            out->sum[j / 2 % 2] = (int16_t) (out->sum[j / 2 % 2] + out->q[j]);
    }
}

/* ----------------------------------------------------------------- norms -- */

static void
vec_rms(const float *x, const float *w, uint32_t n, float eps, float *y)
{
    v16      sum = v_set1(0.0f), r;
    uint32_t i;

    for (i = 0; i + 16 <= n; i += 16)
        sum = v_fma(v_load(x + i), v_load(x + i), sum);
    if (i < n) {
        const v16 v = v_load_part(x + i, n - i, 0.0f);

        sum = v_fma(v, v, sum);
    }
    r = v_set1(1.0f / sqrtf(v_sum(sum) / (float) n + eps));
    for (i = 0; i + 16 <= n; i += 16) {
        v16 v = v_mul(v_load(x + i), r);

        if (w != NULL)
            v = v_mul(v, v_load(w + i));
        v_store(y + i, v);
    }
    if (i < n) {
        v16 v = v_mul(v_load_part(x + i, n - i, 0.0f), r);

        if (w != NULL)
            v = v_mul(v, v_load_part(w + i, n - i, 0.0f));
        v_store_part(y + i, n - i, v);
    }
}

static void
vec_layer(const float *x, const float *w, const float *b, uint32_t n,
          float eps, float *y)
{
    v16      sum = v_set1(0.0f), mean, r;
    uint32_t i;

    for (i = 0; i + 16 <= n; i += 16)
        sum = v_add(sum, v_load(x + i));
    if (i < n)
        sum = v_add(sum, v_load_part(x + i, n - i, 0.0f));
    mean = v_set1(v_sum(sum) / (float) n);
    sum = v_set1(0.0f);
    for (i = 0; i + 16 <= n; i += 16) {
        const v16 d = v_sub(v_load(x + i), mean);

        sum = v_fma(d, d, sum);
    }
    if (i < n) {
        /* lanes behind the end hold the mean and so add nothing */
        const v16 d = v_sub(v_load_part(x + i, n - i, v_first(mean)), mean);

        sum = v_fma(d, d, sum);
    }
    r = v_set1(1.0f / sqrtf(v_sum(sum) / (float) n + eps));
    for (i = 0; i < n; i += 16) {
        const uint32_t left = n - i;
        const int      full = left >= 16;
        v16            v = full ? v_load(x + i) : v_load_part(x + i, left, 0);

        v = v_mul(v_sub(v, mean), r);
        if (w != NULL)
            v = v_mul(v, full ? v_load(w + i) : v_load_part(w + i, left, 0));
        if (b != NULL)
            v = v_add(v, full ? v_load(b + i) : v_load_part(b + i, left, 0));
        if (full)
            v_store(y + i, v);
        else
            v_store_part(y + i, left, v);
    }
}

/* ----------------------------------------------------------- activations -- */

/* x / (1 + e^(-c)): the logistic function of c times x. */
V_FN v16
v_swish(v16 x, v16 c)
{
    const v16 e = v_exp(v_sub(v_set1(0.0f), c));

    return v_div(x, v_add(v_set1(1.0f), e));
}

V_FN v16
v_act(const unsigned act, v16 g)
{
    float tmp[16];

    switch (act) {
    case MOE_ACT_SILU:
        return v_swish(g, g);
    case MOE_ACT_GELU_TANH: {
        /* x/2 (1 + tanh(a)) = x / (1 + e^(-2a)), a = sqrt(2/pi) (x + .. x^3) */
        const v16 g2 = v_mul(g, g);
        const v16 a = v_fma(v_mul(g2, v_set1(0.044715f)), g, g);

        return v_swish(g, v_mul(a, v_set1(1.59576912160573071f)));
    }
    case MOE_ACT_GELU:
        v_store(tmp, g);
        for (unsigned i = 0; i < 16; i++)
            tmp[i] = 0.5f * tmp[i]
                     * (1.0f + erff(tmp[i] * 0.707106781186547524f));
        return v_load(tmp);
    default: /* RELU; NaN stays NaN */
        return v_max(v_set1(0.0f), g);
    }
}

V_FN void
gate_some(const unsigned act, const float *g, const float *u, uint32_t n,
          float *y)
{
    uint32_t i;

    for (i = 0; i + 16 <= n; i += 16)
        v_store(y + i, v_mul(v_act(act, v_load(g + i)), v_load(u + i)));
    if (i < n)
        v_store_part(y + i, n - i,
                     v_mul(v_act(act, v_load_part(g + i, n - i, 0.0f)),
                           v_load_part(u + i, n - i, 0.0f)));
}

static void
vec_gate(uint32_t act, const float *g, const float *u, uint32_t n, float *y)
{
    switch (act) {
    case MOE_ACT_SILU:
        gate_some(MOE_ACT_SILU, g, u, n, y);
        break;
    case MOE_ACT_GELU:
        gate_some(MOE_ACT_GELU, g, u, n, y);
        break;
    case MOE_ACT_GELU_TANH:
        gate_some(MOE_ACT_GELU_TANH, g, u, n, y);
        break;
    default:
        gate_some(MOE_ACT_RELU, g, u, n, y);
        break;
    }
}

/* --------------------------------------------------------------- vectors -- */

static void
vec_axpy(float a, const float *x, uint32_t n, float *y)
{
    uint32_t i;

    for (i = 0; i + 16 <= n; i += 16)
        v_store(y + i, v_fma(v_set1(a), v_load(x + i), v_load(y + i)));
    if (i < n)
        v_store_part(y + i, n - i,
                     v_fma(v_set1(a), v_load_part(x + i, n - i, 0.0f),
                           v_load_part(y + i, n - i, 0.0f)));
}

static void
vec_scale(float a, const float *x, uint32_t n, float *y)
{
    uint32_t i;

    for (i = 0; i + 16 <= n; i += 16)
        v_store(y + i, v_mul(v_set1(a), v_load(x + i)));
    if (i < n)
        v_store_part(y + i, n - i,
                     v_mul(v_set1(a), v_load_part(x + i, n - i, 0.0f)));
}

static float
vec_softmax(float *x, uint32_t n, float floor, float *top)
{
    v16      m = v_set1(floor), sum = v_set1(0.0f);
    uint32_t i;

    for (i = 0; i + 16 <= n; i += 16)
        m = v_max(m, v_load(x + i));
    if (i < n)
        m = v_max(m, v_load_part(x + i, n - i, floor));
    *top = v_top(m);
    m = v_set1(*top);
    for (i = 0; i + 16 <= n; i += 16) {
        const v16 e = v_exp(v_sub(v_load(x + i), m));

        sum = v_add(sum, e);
        v_store(x + i, e);
    }
    if (i < n) {
        const v16 e = v_exp(v_sub(v_load_part(x + i, n - i, -INFINITY), m));

        sum = v_add(sum, e);
        v_store_part(x + i, n - i, e);
    }
    return v_sum(sum);
}

static void
vec_rotate(float *a, float *b, const float *c, const float *s, uint32_t n,
           float scale)
{
    uint32_t i;

    for (i = 0; i < n; i += 16) {
        const uint32_t left = n - i;
        const int      full = left >= 16;
        const v16 av = full ? v_load(a + i) : v_load_part(a + i, left, 0.0f);
        const v16 bv = full ? v_load(b + i) : v_load_part(b + i, left, 0.0f);
        const v16 cv = full ? v_load(c + i) : v_load_part(c + i, left, 0.0f);
        const v16 sv = full ? v_load(s + i) : v_load_part(s + i, left, 0.0f);
        v16       ra = v_sub(v_mul(av, cv), v_mul(bv, sv));
        v16       rb = v_add(v_mul(bv, cv), v_mul(av, sv));

        ra = v_mul(ra, v_set1(scale));
        rb = v_mul(rb, v_set1(scale));
        if (full) {
            v_store(a + i, ra);
            v_store(b + i, rb);
        } else {
            v_store_part(a + i, left, ra);
            v_store_part(b + i, left, rb);
        }
    }
}

/* ------------------------------------------------------------- attention -- */

#include "backend/cpu/body_attention.h"

static void
store_f32(const float *x, uint32_t n, void *dst)
{
    memcpy(dst, x, (size_t) n * sizeof(float));
}

static void
store_f16(const float *x, uint32_t n, void *dst)
{
    moe_f16_round_row(x, n, dst);
}

static void
store_bf16(const float *x, uint32_t n, void *dst)
{
    moe_bf16_round_row(x, n, dst);
}

/* What a row of the table of instruction sets takes from here. */
#define V_TABLE(int4, fp4, int8)                                              \
    .dot = { dot_f32, dot_f16, dot_bf16, dot_e4m3, dot_e5m2, int4, fp4, int8, \
             NULL },                                                          \
    .dot_more = dot_more, .quantize = quantize, .rms = vec_rms,               \
    .layer = vec_layer, .gate = vec_gate, .axpy = vec_axpy,                   \
    .scale = vec_scale, .softmax = vec_softmax, .rotate = vec_rotate,         \
    .scores = { scores_f32, scores_f16, scores_bf16 },                        \
    .mix = { mix_f32, mix_f16, mix_bf16 },                                    \
    .store = { store_f32, store_f16, store_bf16 }
