/* SPDX-License-Identifier: Apache-2.0 */
/*
 * body_attention.h - scores and values of attention for one instruction set.
 *
 * Part of body.h, which includes it.  A file may define vs, V_SL (its lanes)
 * and s_*: what a score is summed in, if that is not v16.
 *
 * Hot: no allocation, no lock, no system call.
 */

#if !defined(V_SL) /* lanes of a score's sum */
#    define V_SL 16u
typedef v16 vs;

V_FN vs
s_elem(const unsigned kind, const uint8_t *p)
{
    return v_elem(kind, p);
}

V_FN vs
s_fma(vs x, vs y, vs z)
{
    return v_fma(x, y, z);
}

V_FN vs
s_zero(void)
{
    return v_set1(0.0f);
}

V_FN void
s_sum8(const vs *x, float out[8])
{
    v_sum4(x[0], x[1], x[2], x[3], out);
    v_sum4(x[4], x[5], x[6], x[7], out + 4);
}
#endif

/* The first n < V_SL elements; the others are 0. */
V_FN vs
s_elem_part(const unsigned kind, const uint8_t *p, uint32_t n)
{
    uint8_t tmp[64] = { 0 };

    memcpy(tmp, p, (size_t) n * V_ELEM_BYTES(kind));
    return s_elem(kind, tmp);
}

V_FN const uint8_t *
s_bytes(const float *p)
{
    return (const uint8_t *) (const void *) p;
}

/* Eight dot products at once: of nq queries with 8 / nq keys from k on, row
 * bytes apart; out[query][key].  Each is summed in the same order. */
V_FN void
scores_eight(const unsigned kind, const unsigned nq, const float *const *q,
             const uint8_t *k, uint64_t row, uint32_t dim, float out[8])
{
    const unsigned es = V_ELEM_BYTES(kind), nk = 8 / nq;
    vs             acc[8], qv[8], kv;
    uint32_t       d;

    V_UNROLL
    for (unsigned j = 0; j < 8; j++)
        acc[j] = s_zero();
    for (d = 0; d + V_SL <= dim; d += V_SL) {
        V_UNROLL
        for (unsigned j = 0; j < nq; j++)
            qv[j] = s_elem(CPU_F32, s_bytes(q[j] + d));
        V_UNROLL
        for (unsigned i = 0; i < nk; i++) {
            kv = s_elem(kind, k + i * row + d * es);
            V_UNROLL
            for (unsigned j = 0; j < nq; j++)
                acc[j * nk + i] = s_fma(qv[j], kv, acc[j * nk + i]);
        }
    }
    if (d < dim) {
        V_UNROLL
        for (unsigned j = 0; j < 8; j++)
            acc[j] = s_fma(
                s_elem_part(CPU_F32, s_bytes(q[j / nk] + d), dim - d),
                s_elem_part(kind, k + j % nk * row + d * es, dim - d),
                acc[j]);
    }
    s_sum8(acc, out);
}

/* Up to nq query heads; where there are fewer, the last is done again. */
V_FN void
scores_heads(const unsigned kind, const unsigned nq, const float *const *q,
             uint32_t heads, const uint8_t *k, uint32_t rows, uint32_t dim,
             float *const *s)
{
    const uint64_t row = (uint64_t) dim * V_ELEM_BYTES(kind);
    const unsigned nk = 8 / nq;
    const float   *qp[4];
    float         *sp[4], out[8];
    uint32_t       i = 0;

    V_UNROLL
    for (unsigned j = 0; j < nq; j++) {
        qp[j] = q[j < heads ? j : heads - 1];
        sp[j] = s[j < heads ? j : heads - 1];
    }
    for (; i + nk <= rows; i += nk, k += nk * row) {
        scores_eight(kind, nq, qp, k, row, dim, out);
        V_UNROLL
        for (unsigned j = 0; j < nq; j++)
            memcpy(sp[j] + i, out + j * nk, nk * sizeof(float));
    }
    for (; i < rows; i++, k += row) { /* one key, nk times */
        scores_eight(kind, nq, qp, k, 0, dim, out);
        V_UNROLL
        for (unsigned j = 0; j < nq; j++)
            sp[j][i] = out[j * nk];
    }
}

V_FN void
scores_some(const unsigned kind, const float *const *q, uint32_t heads,
            const void *k, uint32_t rows, uint32_t dim, float *const *s)
{
    if (heads == 1)
        scores_heads(kind, 1, q, heads, k, rows, dim, s);
    else if (heads == 2)
        scores_heads(kind, 2, q, heads, k, rows, dim, s);
    else
        scores_heads(kind, 4, q, heads, k, rows, dim, s);
}

V_FN void
mix_block(const unsigned kind, const unsigned nv, const float *p,
          const uint8_t *v, uint64_t row, uint32_t rows, float *acc)
{
    v16      a[4];
    uint32_t i;

    V_UNROLL
    for (unsigned j = 0; j < nv; j++)
        a[j] = v_load(acc + 16 * j);
    for (i = 0; i < rows; i++) {
        const v16 pv = v_set1(p[i]);

        V_UNROLL
        for (unsigned j = 0; j < nv; j++)
            a[j] = v_fma(v_elem(kind,
                                v + i * row + 16 * j * V_ELEM_BYTES(kind)),
                         pv, a[j]);
    }
    V_UNROLL
    for (unsigned j = 0; j < nv; j++)
        v_store(acc + 16 * j, a[j]);
}

V_FN void
mix_some(const unsigned kind, const float *const *p, uint32_t heads,
         const void *v, uint32_t rows, uint32_t dim, float *const *acc)
{
    const unsigned es = V_ELEM_BYTES(kind);
    const uint64_t row = (uint64_t) dim * es;
    const uint8_t *base = v;
    uint32_t       h, d, i;

    for (h = 0; h < heads; h++) {
        float *a = acc[h];

        for (d = 0; d + 64 <= dim; d += 64)
            mix_block(kind, 4, p[h], base + d * es, row, rows, a + d);
        for (; d + 16 <= dim; d += 16)
            mix_block(kind, 1, p[h], base + d * es, row, rows, a + d);
        if (d < dim) {
            v16 t = v_load_part(a + d, dim - d, 0.0f);

            for (i = 0; i < rows; i++)
                t = v_fma(v_elem_part(kind, base + i * row + d * es, dim - d),
                          v_set1(p[h][i]), t);
            v_store_part(a + d, dim - d, t);
        }
    }
}

#define V_ATTENTION(suffix, kind)                                             \
    static void scores_##suffix(const float *const *q, uint32_t heads,        \
                                const void *k, uint32_t rows, uint32_t dim,   \
                                float *const *s)                              \
    {                                                                         \
        scores_some(kind, q, heads, k, rows, dim, s);                         \
    }                                                                         \
    static void mix_##suffix(const float *const *p, uint32_t heads,           \
                             const void *v, uint32_t rows, uint32_t dim,      \
                             float *const *acc)                               \
    {                                                                         \
        mix_some(kind, p, heads, v, rows, dim, acc);                          \
    }

V_ATTENTION(f32, CPU_F32)
V_ATTENTION(f16, CPU_F16)
V_ATTENTION(bf16, CPU_BF16)
