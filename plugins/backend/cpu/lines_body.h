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
 * A tile is some rows of x by one or two panels: as many sums as registers
 * hold while four columns of a row, fetched once, serve all halves of lines
 * and a line, once unpacked, all rows.  One row is bound by memory, and by how
 * many instructions a core takes in while it waits; two panels are also two
 * streams for the memory.  More rows than a tile has meet a panel one tile
 * after the other, from the second in a cache.
 */

#define L_HALVES (CPU_LANES / L_ROWS)
#define L_TILE   (4u * L_ROWS / 8u) /* rows of x in a tile, at most */

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
lines_scales(uint32_t scale, const uint8_t *p, unsigned half)
{
    const unsigned at = half * L_ROWS;

    return scale == MOE_SCALE_F32    ? f_load_f32(p + 4 * at)
           : scale == MOE_SCALE_F16  ? f_load_f16(p + 2 * at)
           : scale == MOE_SCALE_BF16 ? f_load_bf16(p + 2 * at)
                                     : f_load_e8m0(p, half);
}

/* Operands of FP4 are twice the values: what their scales, or sums, lack. */
V_FN fv
lines_halved(const unsigned kind, fv x)
{
    return kind == CPU_FP4 ? f_mul(x, f_set1(0.5f)) : x;
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

/* ----------------------------------------------------------------- a tile -- */

/* Number t * nh + h of the sums of a tile: row of x t, and of its panels' nh
 * halves h. */

/* s: what a run of np panels, stride bytes apart, by nt rows comes to. */
V_FN void
lines_run(const unsigned kind, const unsigned nt, const unsigned np,
          const uint8_t *w, uint64_t stride, const struct cpu_q8 *const *r,
          const iv *zero, iv *s)
{
    const unsigned nh = np * L_HALVES, two = nh < 2 ? nh : 2;

    V_UNROLL
    for (unsigned i = 0; i < nt * nh; i++)
        s[i] = lines_begin(kind, r[i / nh], zero[i % nh]);
    V_UNROLL
    for (unsigned j = 0; j < 8; j++) {
        V_UNROLL
        for (unsigned g = 0; g < nh; g += two) {
            iv v[2], u[2];

            V_UNROLL
            for (unsigned h = 0; h < two; h++) {
                const uint8_t *p = lines_at(kind, w, j)
                                   + (g + h) / L_HALVES * stride
                                   + (g + h) % L_HALVES * 4 * L_ROWS;

                if ((g + h) % L_HALVES == 0
                    && (kind == CPU_INT8 || j % 2 == 0))
                    v_prefetch(p + L_AHEAD(nt) / np);
                v[h] = i_load(p);
                u[h] = lines_operand(kind, v[h], j);
                if (nt > 1)
                    V_KEEP(u[h]);
            }
            V_UNROLL
            for (unsigned t = 0; t < nt; t++) {
                const iv q = i_four(r[t]->q + 4 * j);

                V_UNROLL
                for (unsigned h = 0; h < two; h++) {
                    iv *const a = s + t * nh + g + h;

                    *a = lines_add(kind, *a, u[h], v[h], q);
                    V_KEEP(*a);
                }
            }
        }
    }
}

/* nt rows by np panels.  scale, has_zero: m's; alone: a group is one run.
 * Sums of one row stay in registers, those of more in the first cache. */
V_FN void
lines_tile(const unsigned kind, const unsigned nt, const unsigned np,
           const uint32_t scale, const uint32_t has_zero, const int alone,
           const struct cpu_mat *m, const uint8_t *w,
           const struct cpu_q8 *const *x, float *out, uint32_t ldo)
{
    const unsigned nh = np * L_HALVES;
    const uint64_t run = lines_run_bytes(kind), stride = m->panel_bytes;
    const uint64_t tail_bytes = lines_tail_bytes(kind, scale, has_zero);
    const uint64_t n = cpu_ceil(m->k, CPU_RUN), per = m->group / CPU_RUN;
    const struct cpu_q8 *r[L_TILE];
    iv             zero[2 * L_HALVES], s[L_TILE * 2 * L_HALVES];
    fv             acc[2 * L_HALVES], inner[2 * L_HALVES];
    float          in[L_TILE * 2 * CPU_LANES], sum[L_TILE * 2 * CPU_LANES];
    uint64_t       g = 0;

    V_UNROLL
    for (unsigned t = 0; t < nt; t++)
        r[t] = x[t];
    V_UNROLL
    for (unsigned h = 0; h < nh; h++) {
        zero[h] = lines_zero(kind, m, NULL, 0);
        acc[h] = f_set1(0.0f);
    }
    if (nt > 1 || !alone) {
        V_UNROLL
        for (unsigned i = 0; i < nt * nh; i++)
            f_store(sum + L_ROWS * i, f_set1(0.0f));
    }
    while (g < n) {
        const uint64_t end = alone ? g + 1 : cpu_min(g + per, n);
        const uint8_t *tail = w + (end - g) * run;
        fv             sc[2 * L_HALVES];

        V_UNROLL
        for (unsigned h = 0; h < nh; h++) {
            if (has_zero)
                zero[h] = lines_zero(kind, m,
                                     tail + h / L_HALVES * stride
                                         + lines_scale_bytes(scale),
                                     h % L_HALVES);
            inner[h] = sc[h] = f_set1(0.0f);
        }
        if (nt > 1 && !alone) {
            V_UNROLL
            for (unsigned i = 0; i < nt * nh; i++)
                f_store(in + L_ROWS * i, f_set1(0.0f));
        }
        do {
            lines_run(kind, nt, np, w, stride, r, zero, s);
            if (alone) {
                V_UNROLL
                for (unsigned h = 0; h < nh; h++)
                    sc[h] = lines_scales(scale, tail + h / L_HALVES * stride,
                                         h % L_HALVES);
            }
            V_UNROLL
            for (unsigned t = 0; t < nt; t++) {
                const fv d = f_set1(r[t]->d);

                r[t]++;
                V_UNROLL
                for (unsigned h = 0; h < nh; h++) {
                    const unsigned i = t * nh + h;
                    float *const   o = sum + L_ROWS * i;
                    const fv       f = f_of(lines_end(kind, s[i]));

                    if (alone && nt == 1)
                        acc[h] = f_fma(f_mul(f, d), sc[h], acc[h]);
                    else if (alone)
                        f_store(o, f_fma(f_mul(f, d), sc[h], f_load(o)));
                    else if (nt == 1)
                        inner[h] = f_fma(f, d, inner[h]);
                    else
                        f_store(in + L_ROWS * i,
                                f_fma(f, d, f_load(in + L_ROWS * i)));
                }
            }
            g++;
            w += run;
        } while (!alone && g < end);
        V_UNROLL
        for (unsigned p = 0; p < np; p++)
            v_prefetch(tail + p * stride + L_AHEAD(nt) / np);
        if (!alone) {
            V_UNROLL
            for (unsigned h = 0; h < nh; h++)
                sc[h] = lines_scales(scale, tail + h / L_HALVES * stride,
                                     h % L_HALVES);
            V_UNROLL
            for (unsigned i = 0; i < nt * nh; i++) {
                float *const o = sum + L_ROWS * i;
                const fv     f = nt == 1 ? inner[i % nh]
                                         : f_load(in + L_ROWS * i);

                f_store(o, f_fma(f, sc[i % nh], f_load(o)));
            }
        }
        w = tail + tail_bytes;
    }
    V_UNROLL
    for (unsigned t = 0; t < nt; t++) {
        V_UNROLL
        for (unsigned h = 0; h < nh; h++)
            f_store(out + t * ldo + L_ROWS * h,
                    lines_halved(kind,
                                 alone && nt == 1
                                     ? acc[h]
                                     : f_load(sum + L_ROWS * (t * nh + h))));
    }
}

/* What formats of 4 bits mostly are has code of its own. */
V_FN void
lines_tiles(const unsigned kind, const unsigned nt, const unsigned np,
            const struct cpu_mat *m, const uint8_t *w,
            const struct cpu_q8 *const *x, float *out, uint32_t ldo)
{
    const int alone = m->group == CPU_RUN && !m->has_zero;

    if (kind == CPU_FP4 && alone && m->scale == MOE_SCALE_E8M0)
        lines_tile(kind, nt, np, MOE_SCALE_E8M0, 0, 1, m, w, x, out, ldo);
    else if (kind == CPU_INT4 && alone && m->scale == MOE_SCALE_BF16)
        lines_tile(kind, nt, np, MOE_SCALE_BF16, 0, 1, m, w, x, out, ldo);
    else if (kind == CPU_INT4 && alone && m->scale == MOE_SCALE_F16)
        lines_tile(kind, nt, np, MOE_SCALE_F16, 0, 1, m, w, x, out, ldo);
    else if (m->has_zero)
        lines_tile(kind, nt, np, m->scale, 1, 0, m, w, x, out, ldo);
    else
        lines_tile(kind, nt, np, m->scale, 0, 0, m, w, x, out, ldo);
}

V_FN void
lines_rows(const unsigned kind, const struct cpu_mat *m, uint32_t panel,
           uint32_t np, const void *const *rows, uint32_t nt, float *out,
           uint32_t ldo)
{
    const struct cpu_q8 *const *x = (const struct cpu_q8 *const *) rows;
    const uint8_t              *w = m->data + panel * m->panel_bytes;
    uint32_t                    p, i, n, t;

#define L_GO(nt_, np_, p_)                                                    \
    lines_tiles(kind, nt_, np_, m, w + (p_) * m->panel_bytes, x + t,          \
                out + t * ldo + CPU_LANES * (p_), ldo)
    for (p = 0; p < np; p += n) {
        n = np - p < 2 ? 1 : 2;
        for (i = p; i < p + n; i++)
            for (t = 0; nt - t >= L_TILE; t += L_TILE)
                L_GO(L_TILE, 1, i);
        t = nt / L_TILE * L_TILE;
        if (L_TILE > 4 && nt - t >= 4) {
            for (i = p; i < p + n; i++)
                L_GO(4, 1, i);
            t += 4;
        }
        if (nt - t == 3)
            for (i = p; i < p + n; i++)
                L_GO(3, 1, i);
        else if (nt - t == 2 && n == 2 && (L_ROWS == 16 || kind != CPU_FP4))
            L_GO(2, 2, p);
        else if (nt - t == 2)
            for (i = p; i < p + n; i++)
                L_GO(2, 1, i);
        else if (nt - t == 1 && n == 2)
            L_GO(1, 2, p);
        else if (nt - t == 1)
            L_GO(1, 1, p);
    }
#undef L_GO
}

/* static L_DOT(dot_int4, CPU_INT4) */
#define L_DOT(name, kind)                                                     \
    void name(const struct cpu_mat *m, uint32_t panel, uint32_t np,           \
              const void *const *x, uint32_t nt, float *out, uint32_t ldo)    \
    {                                                                         \
        lines_rows(kind, m, panel, np, x, nt, out, ldo);                      \
    }
