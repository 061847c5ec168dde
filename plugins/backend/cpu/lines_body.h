/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lines_body.h - the product of weights in lines (lines.h) for x86 vectors.
 *
 * Included once by each file that has defined
 *   iv, fv     as many bytes, and floats, as L_ROWS rows have in a line: 8 rows
 *              are half a line, 16 a whole one
 *   i_*, f_*   the operations on them
 *   L_VNNI     1: four products of bytes are one instruction, i_dpbusd()
 *
 * Without VNNI products of bytes are added in 16 bits: of a 4-bit code less
 * its zero point and q over the 16 columns of a lane at most 16 * 15 * 127 <
 * 2^15, and sums that wrap in between come back.  8 bits: |w| times q with the
 * sign of w, two products, at most 2 * 128 * 127 < 2^15.
 *
 * One row of x is bound by memory, and by how many instructions a core takes in
 * while it waits: two panels at a time, which share what is fetched of the row
 * and are two streams for the memory, all in registers.  More rows are bound
 * by arithmetic: a run of 32 columns meets L_TILE rows at a time,
 * whose sums lie in registers, so that four columns of a row are fetched once
 * for all halves of a line.  What a run came to is added up in the first
 * cache.
 */

#define L_HALVES (CPU_LANES / L_ROWS)
#define L_TILE   (4u * L_ROWS / 8u) /* rows of x whose sums lie in registers */
#define L_AHEAD  4096u /* bytes that weights are fetched ahead of their use */

/* -z for the rows of a half, twice in each lane.  z: the group's, or NULL. */
V_FN iv
lines_zero(const unsigned kind, const struct cpu_mat *m, const uint8_t *z,
           unsigned half)
{
    const int32_t unsign = L_VNNI && kind == CPU_INT8 ? 128 : 0;
    iv            v = i_set1_32(m->zero + unsign);

    if (kind == CPU_INT4 && z != NULL)
        v = i_add32(v, i_nibbles(z, half));
    if (kind == CPU_INT8 && z != NULL)
        v = i_add32(v, i_bytes(z + half * L_ROWS));
    return i_minus_pair(v);
}

V_FN fv
lines_scales(const unsigned kind, uint32_t scale, const uint8_t *p,
             unsigned half)
{
    const unsigned at = half * L_ROWS;
    const fv       s = scale == MOE_SCALE_F32    ? f_load_f32(p + 4 * at)
                       : scale == MOE_SCALE_F16  ? f_load_f16(p + 2 * at)
                       : scale == MOE_SCALE_BF16 ? f_load_bf16(p + 2 * at)
                                                 : f_load_e8m0(p + at);

    return kind == CPU_FP4 ? f_mul(s, f_set1(0.5f)) : s;
}

/* Columns [4 j, 4 j + 4) of a run lie in this line. */
V_FN const uint8_t *
lines_at(const unsigned kind, const uint8_t *w, unsigned j)
{
    return w + LINE * (kind == CPU_INT8 ? j : j / 2);
}

/* And are this unsigned operand. */
V_FN iv
lines_operand(const unsigned kind, iv v, unsigned j)
{
    if (kind == CPU_INT8)
        return L_VNNI ? i_xor(v, i_set1_8(-128)) : i_abs8(v);
    v = i_and(j % 2 != 0 ? i_srl4(v) : v, i_set1_8(15));
    return kind == CPU_FP4 ? i_e2m1(v) : v;
}

/* s - zero * sum of q: what a sum begins with. */
V_FN iv
lines_begin(const unsigned kind, const struct cpu_q8 *r, iv zero)
{
    return L_VNNI || kind == CPU_INT8 ? i_madd(i_pair(r->sum), zero)
                                      : i_mul16(i_pair(r->sum), zero);
}

/* s + u . q, four columns; w: the weights as they lie, for their signs. */
V_FN iv
lines_add(const unsigned kind, iv s, iv u, iv w, iv q)
{
#if L_VNNI
    (void) kind;
    (void) w;
    return i_dpbusd(s, u, q);
#else
    if (kind == CPU_INT8)
        return i_add32(s, i_madd(i_maddubs(u, i_sign8(q, w)), i_set1_16(1)));
    return i_add16(s, i_maddubs(u, q));
#endif
}

V_FN iv
lines_end(const unsigned kind, iv s)
{
    return L_VNNI || kind == CPU_INT8 ? s : i_madd(s, i_set1_16(1));
}

/* ----------------------------------------------------------- one row of x -- */

/* s: what a run of np panels, stride bytes apart, comes to. */
V_FN void
lines_run_one(const unsigned kind, const unsigned np, const uint8_t *w,
              uint64_t stride, const struct cpu_q8 *r, const iv *zero, iv *s)
{
    V_UNROLL
    for (unsigned h = 0; h < np * L_HALVES; h++)
        s[h] = lines_begin(kind, r, zero[h]);
    V_UNROLL
    for (unsigned j = 0; j < 8; j++) {
        const iv q = i_four(r->q + 4 * j);

        V_UNROLL
        for (unsigned h = 0; h < np * L_HALVES; h++) {
            const uint8_t *p = lines_at(kind, w, j) + h / L_HALVES * stride
                               + h % L_HALVES * 4 * L_ROWS;
            const iv       v = i_load(p);

            if (h % L_HALVES == 0 && (kind == CPU_INT8 || j % 2 == 0))
                v_prefetch(p + L_AHEAD / np);
            s[h] = lines_add(kind, s[h], lines_operand(kind, v, j), v, q);
            V_KEEP(s[h]);
        }
    }
}

/* One row by np panels.  scale, has_zero: m's; alone: a group is one run. */
V_FN void
lines_one(const unsigned kind, const unsigned np, const uint32_t scale,
          const uint32_t has_zero, const int alone, const struct cpu_mat *m,
          const uint8_t *w, const struct cpu_q8 *x, float *out)
{
    const uint64_t run = lines_run_bytes(kind), stride = m->panel_bytes;
    const uint64_t tail_bytes = lines_tail_bytes(kind, scale, has_zero);
    const uint64_t n = cpu_ceil(m->k, CPU_RUN), per = m->group / CPU_RUN;
    iv             zero[2 * L_HALVES], s[2 * L_HALVES];
    fv             acc[2 * L_HALVES], inner[2 * L_HALVES];
    uint64_t       g = 0;

    V_UNROLL
    for (unsigned h = 0; h < np * L_HALVES; h++) {
        acc[h] = f_set1(0.0f);
        zero[h] = lines_zero(kind, m, NULL, 0);
        if (!alone) /* once in a long while: not worth a register */
            f_store(out + L_ROWS * h, acc[h]);
    }
    while (g < n) {
        const uint64_t end = alone ? g + 1 : cpu_min(g + per, n);
        const uint8_t *tail = w + (end - g) * run;

        V_UNROLL
        for (unsigned h = 0; h < np * L_HALVES; h++) {
            if (has_zero)
                zero[h] = lines_zero(kind, m,
                                     tail + h / L_HALVES * stride
                                         + lines_scale_bytes(scale),
                                     h % L_HALVES);
            inner[h] = f_set1(0.0f);
        }
        do {
            lines_run_one(kind, np, w, stride, x + g, zero, s);
            V_UNROLL
            for (unsigned h = 0; h < np * L_HALVES; h++) {
                const fv f = f_of(lines_end(kind, s[h]));
                const fv d = f_set1(x[g].d);

                inner[h] = alone ? f_mul(f, d) : f_fma(f, d, inner[h]);
            }
            g++;
            w += run;
        } while (!alone && g < end);
        V_UNROLL
        for (unsigned p = 0; p < np; p++)
            v_prefetch(tail + p * stride + L_AHEAD / np);
        V_UNROLL
        for (unsigned h = 0; h < np * L_HALVES; h++) {
            const fv v = lines_scales(kind, scale,
                                      tail + h / L_HALVES * stride,
                                      h % L_HALVES);
            float   *o = out + L_ROWS * h;

            if (alone)
                acc[h] = f_fma(inner[h], v, acc[h]);
            else
                f_store(o, f_fma(inner[h], v, f_load(o)));
        }
        w = tail + tail_bytes;
    }
    if (alone) {
        V_UNROLL
        for (unsigned h = 0; h < np * L_HALVES; h++)
            f_store(out + L_ROWS * h, acc[h]);
    }
}

/* What formats of 4 bits mostly are has code of its own. */
V_FN void
lines_ones(const unsigned kind, const unsigned np, const struct cpu_mat *m,
           const uint8_t *w, const struct cpu_q8 *x, float *out)
{
    const uint32_t usual = kind == CPU_FP4 ? MOE_SCALE_E8M0 : MOE_SCALE_F16;

    if (m->has_zero)
        lines_one(kind, np, m->scale, 1, 0, m, w, x, out);
    else if (kind != CPU_INT8 && m->group == CPU_RUN && m->scale == usual)
        lines_one(kind, np, usual, 0, 1, m, w, x, out);
    else
        lines_one(kind, np, m->scale, 0, 0, m, w, x, out);
}

/* -------------------------------------------------------------- more rows -- */

/* What a run came to, for nt rows of x.  in, acc: (nt, 16), what the group
 * and the row have come to. */
V_FN void
lines_sum(const unsigned kind, const unsigned nt, const unsigned first,
          const unsigned last, const struct cpu_q8 *const *r, const iv *s,
          const fv *scale, float *in, float *acc)
{
    V_UNROLL
    for (unsigned t = 0; t < nt; t++) {
        const fv d = f_set1(r[t]->d);

        V_UNROLL
        for (unsigned h = 0; h < L_HALVES; h++) {
            const unsigned at = t * CPU_LANES + h * L_ROWS;
            fv             f = f_of(lines_end(kind, s[t * L_HALVES + h]));

            f = first ? f_mul(f, d) : f_fma(f, d, f_load(in + at));
            if (last)
                f_store(acc + at, f_fma(f, scale[h], f_load(acc + at)));
            else
                f_store(in + at, f);
        }
    }
}

/* A run of 32 columns by nt rows of x.  first, last: of its group. */
V_FN void
lines_run(const unsigned kind, const unsigned nt, int first, int last,
          const uint8_t *w, const struct cpu_q8 *const *x, uint64_t g,
          const iv *zero, const fv *scale, float *in, float *acc)
{
    const struct cpu_q8 *r[L_TILE];
    iv                   s[L_TILE * L_HALVES];

    V_HERE(w); /* else operands are made for all tiles at once, in memory */
    V_UNROLL
    for (unsigned t = 0; t < nt; t++) {
        r[t] = x[t] + g;
        V_UNROLL
        for (unsigned h = 0; h < L_HALVES; h++)
            s[t * L_HALVES + h] = lines_begin(kind, r[t], zero[h]);
    }
    V_UNROLL
    for (unsigned j = 0; j < 8; j++) {
        iv v[L_HALVES], u[L_HALVES];

        V_UNROLL
        for (unsigned h = 0; h < L_HALVES; h++) {
            v[h] = i_load(lines_at(kind, w, j) + 4 * L_ROWS * h);
            u[h] = lines_operand(kind, v[h], j);
            V_KEEP(u[h]);
        }
        V_UNROLL
        for (unsigned t = 0; t < nt; t++) {
            const iv q = i_four(r[t]->q + 4 * j);

            V_UNROLL
            for (unsigned h = 0; h < L_HALVES; h++) {
                iv *a = s + t * L_HALVES + h;

                *a = lines_add(kind, *a, u[h], v[h], q);
                V_KEEP(*a);
            }
        }
    }
    V_FORGET;
    if (first && last)
        lines_sum(kind, nt, 1, 1, r, s, scale, in, acc);
    else if (first)
        lines_sum(kind, nt, 1, 0, r, s, scale, in, acc);
    else if (last)
        lines_sum(kind, nt, 0, 1, r, s, scale, in, acc);
    else
        lines_sum(kind, nt, 0, 0, r, s, scale, in, acc);
}

/* The same for any number of rows. */
V_FN void
lines_run_all(const unsigned kind, int first, int last, const uint8_t *w,
              const struct cpu_q8 *const *x, uint64_t g, uint32_t nt,
              const iv *zero, const fv *scale, float *in, float *acc)
{
    uint32_t t = 0;

#define L_RUN(n)                                                              \
    lines_run(kind, n, first, last, w, x + t, g, zero, scale,                 \
              in + t * CPU_LANES, acc + t * CPU_LANES)
    for (; nt - t >= L_TILE; t += L_TILE)
        L_RUN(L_TILE);
    if (L_TILE > 4 && nt - t >= 4) {
        L_RUN(4);
        t += 4;
    }
    switch (nt - t) {
    case 3:
        L_RUN(3);
        break;
    case 2:
        L_RUN(2);
        break;
    case 1:
        L_RUN(1);
        break;
    default:
        break;
    }
#undef L_RUN
}

V_FN void
lines_many(const unsigned kind, const struct cpu_mat *m, const uint8_t *w,
           const struct cpu_q8 *const *x, uint32_t nt, float *out,
           uint32_t ldo)
{
    const uint64_t run = lines_run_bytes(kind);
    const uint64_t tail_bytes = lines_tail_bytes(kind, m->scale, m->has_zero);
    const uint64_t n = cpu_ceil(m->k, CPU_RUN), per = m->group / CPU_RUN;
    const uint32_t scale = m->scale, has_zero = m->has_zero;
    float          in[CPU_TOKENS * CPU_LANES], acc[CPU_TOKENS * CPU_LANES];
    iv             zero[L_HALVES];
    fv             sc[L_HALVES];
    uint64_t       g = 0;

    memset(acc, 0, nt * CPU_LANES * sizeof(float));
    V_UNROLL
    for (unsigned h = 0; h < L_HALVES; h++)
        zero[h] = lines_zero(kind, m, NULL, h);
    while (g < n) {
        const uint64_t end = cpu_min(g + per, n), begin = g;
        const uint8_t *tail = w + (end - g) * run;

        V_UNROLL
        for (unsigned h = 0; h < L_HALVES; h++) {
            if (has_zero)
                zero[h] = lines_zero(kind, m, tail + lines_scale_bytes(scale),
                                     h);
            sc[h] = lines_scales(kind, scale, tail, h);
        }
        for (; g < end; g++, w += run) {
            for (unsigned j = 0; j < run; j += 64)
                v_prefetch(w + j + L_AHEAD);
            lines_run_all(kind, g == begin, g + 1 == end, w, x, g, nt, zero,
                          sc, in, acc);
        }
        v_prefetch(tail + L_AHEAD);
        w = tail + tail_bytes;
    }
    for (uint32_t t = 0; t < nt; t++)
        memcpy(out + (size_t) t * ldo, acc + t * CPU_LANES,
               CPU_LANES * sizeof(float));
}

V_FN void
lines_rows(const unsigned kind, const struct cpu_mat *m, uint32_t panel,
           uint32_t np, const void *const *rows, uint32_t nt, float *out,
           uint32_t ldo)
{
    const struct cpu_q8 *const *x = (const struct cpu_q8 *const *) rows;

    const uint8_t              *w = m->data + panel * m->panel_bytes;
    uint32_t                    p = 0;

    if (nt > 1) {
        for (; p < np; p++)
            lines_many(kind, m, w + p * m->panel_bytes, x, nt,
                       out + CPU_LANES * p, ldo);
        return;
    }
    for (; p + 2 <= np; p += 2)
        lines_ones(kind, 2, m, w + p * m->panel_bytes, x[0],
                   out + CPU_LANES * p);
    if (p < np)
        lines_ones(kind, 1, m, w + p * m->panel_bytes, x[0],
                   out + CPU_LANES * p);
}

/* static L_DOT(dot_int4, CPU_INT4) */
#define L_DOT(name, kind)                                                     \
    void name(const struct cpu_mat *m, uint32_t panel, uint32_t np,           \
              const void *const *x, uint32_t nt, float *out, uint32_t ldo)    \
    {                                                                         \
        lines_rows(kind, m, panel, np, x, nt, out, ldo);                      \
    }
