/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiles_body.h - the product of weights in lines (lines.h) on matrix tiles.
 *
 * Included once by each file that has defined the vectors of lines_body.h and
 *   tiles_config(rows)      tiles 0 .. 3: rows x 16 sums of 32 bits; 4, 5:
 *                           rows x 32 activations; 6, 7: 8 x 64 weights
 *   TILE_ZERO, TILE_LOAD, TILE_STORE, TILE_DOT, tiles_release()
 * The tiles are AMX's (tiles_amx.h), or, in a test, plain C.
 *
 * A tile makes the exact integers of a run of 32 columns for 16 rows of x by
 * the 16 rows of a panel; vectors add them up as lines.h says, in the same
 * order and with the same roundings as the other paths.  So the bits are
 * theirs, and how many rows are worth a tile is a question of speed alone.
 * Activations have a scale for each run, therefore the tiles are drained
 * after each, and half of a tile's depth is used.
 *
 * Work goes by chunks of 16 runs: the rows of x are gathered once for up to
 * four panels, a panel is unpacked to signed bytes less its zero points (8 KB,
 * the first cache) once for up to 64 rows.  8-bit codes less a zero point do
 * not fit in a byte: there sum q * zero point is taken off the sums.
 */

#include "backend/cpu/lines_body.h"

#define TILES_RUNS 16u /* runs of a chunk */
#define TILES_ROWS 16u /* rows of x in a tile */

struct tiles_work {
    _Alignas(64) int8_t a[TILES_RUNS][CPU_TILE_ROWS][CPU_RUN];
    int8_t  b[TILES_RUNS][8][LINE];
    int32_t c[4][TILES_ROWS][CPU_LANES];
    float   in[CPU_NP][CPU_TILE_ROWS][CPU_LANES]; /* inner of lines.h */
    float   d[TILES_RUNS][CPU_TILE_ROWS];
    int32_t sum[TILES_RUNS][CPU_TILE_ROWS]; /* both of a cpu_q8 */
    float   scale[TILES_RUNS][CPU_LANES];
    int32_t zero[TILES_RUNS][CPU_LANES]; /* as lines_zero() */
};

/* Runs [g, g + runs) of nt rows of x; whole tiles, the rest is 0. */
V_FN void
tiles_gather(struct tiles_work *w, const struct cpu_q8 *const *x, uint32_t nt,
             uint64_t g, uint32_t runs)
{
    const uint32_t all = (uint32_t) cpu_align(nt, TILES_ROWS);

    for (uint32_t j = 0; j < runs; j++) {
        for (uint32_t t = 0; t < nt; t++) {
            const struct cpu_q8 *r = x[t] + g + j;

            memcpy(w->a[j][t], r->q, CPU_RUN);
            memcpy(&w->sum[j][t], r->sum, sizeof(r->sum));
            w->d[j][t] = r->d;
        }
        memset(w->a[j][nt], 0, (all - nt) * CPU_RUN);
    }
}

/* Runs [g, g + runs) of a panel to bytes, scales and zero points. */
V_FN void
tiles_unpack(const unsigned kind, struct tiles_work *w,
             const struct cpu_mat *m, const uint8_t *panel, uint64_t g,
             uint32_t runs)
{
    const uint64_t run = lines_run_bytes(kind);
    const uint64_t n = cpu_ceil(m->k, CPU_RUN), per = m->group / CPU_RUN;

    for (uint32_t j = 0; j < runs; j++) {
        const uint64_t group = (g + j) / per, first = group * per;
        const uint8_t *at = panel + lines_group_off(m, group);
        const uint8_t *tail = at + (cpu_min(first + per, n) - first) * run;
        const uint8_t *z = m->has_zero ? tail + lines_scale_bytes(m->scale)
                                       : NULL;

        at += (g + j - first) * run;
        for (unsigned i = 0; i < run; i += LINE)
            v_prefetch(at + i + L_AHEAD(16));
        V_UNROLL
        for (unsigned h = 0; h < L_HALVES; h++) {
            const iv zero = lines_zero(kind, m, z, h);
            /* its low byte, in all four of a lane */
            const iv byte = i_mul16(i_and(zero, i_set1_16(0x00ff)),
                                    i_set1_16(0x0101));

            V_UNROLL
            for (unsigned i = 0; i < 8; i++) {
                iv v = i_load(lines_at(kind, at, i) + 4 * L_ROWS * h);

                if (kind != CPU_INT8)
                    v = i_add8(lines_operand(kind, v, i), byte);
                i_store(w->b[j][i] + 4 * L_ROWS * h, v);
            }
            i_store(w->zero[j] + L_ROWS * h, zero);
            f_store(w->scale[j] + L_ROWS * h,
                    lines_halved(kind, lines_scales(m->scale, tail, h)));
        }
    }
}

#define TILES_RUN(c_, a_, b_, i)                                              \
    do {                                                                      \
        TILE_ZERO(c_);                                                        \
        TILE_LOAD(a_, w->a[j + (i)][row], CPU_RUN);                           \
        TILE_LOAD(b_, w->b[j + (i)], LINE);                                   \
        TILE_DOT(c_, a_, b_);                                                 \
        TILE_STORE(c_, w->c[i], 4 * CPU_LANES);                               \
    } while (0)

/*
 * Runs [j, j + n) of a chunk by rows [row, row + rows) of x.  per: 1 or 2
 * runs are a group, and all of them are whole; 0: they lie in one group;
 * first, last: of its runs.  zeros: sums want their zero points.
 */
V_FN void
tiles_step(const unsigned per, const unsigned n, const unsigned zeros,
           struct tiles_work *w, uint32_t j, uint32_t row, uint32_t rows,
           int first, int last, float (*in)[CPU_LANES], float *out,
           uint32_t ldo)
{
    TILES_RUN(0, 4, 6, 0);
    if (n == 4) {
        TILES_RUN(1, 5, 7, 1);
        TILES_RUN(2, 4, 6, 2);
        TILES_RUN(3, 5, 7, 3);
    }
    V_UNROLL
    for (unsigned h = 0; h < L_HALVES; h++) {
        const unsigned at = L_ROWS * h;

        for (uint32_t t = 0; t < rows; t++) {
            float *y = out + (size_t) t * ldo + at;
            fv     acc = f_load(y), inner = f_set1(0.0f);

            if (per == 0 && !first)
                inner = f_load(in[row + t] + at);
            V_UNROLL
            for (unsigned i = 0; i < n; i++) {
                iv s = i_load(w->c[i][t] + at);

                if (zeros)
                    s = i_add32(s, i_madd(i_set1_32(w->sum[j + i][row + t]),
                                          i_load(w->zero[j + i] + at)));
                inner = f_fma(f_of(s), f_set1(w->d[j + i][row + t]), inner);
                if (per != 0 && i % per == per - 1) {
                    acc = f_fma(inner, f_load(w->scale[j + i] + at), acc);
                    inner = f_set1(0.0f);
                }
            }
            if (per == 0 && !last) {
                f_store(in[row + t] + at, inner);
                continue;
            }
            if (per == 0)
                acc = f_fma(inner, f_load(w->scale[j] + at), acc);
            f_store(y, acc);
        }
    }
}

/* A chunk, runs [g, g + runs) of k_runs, by a tile of rows. */
V_FN void
tiles_chunk(const unsigned zeros, struct tiles_work *w, uint64_t per,
            uint64_t g, uint32_t runs, uint64_t k_runs, uint32_t row,
            uint32_t rows, float (*in)[CPU_LANES], float *out, uint32_t ldo)
{
    uint32_t j = 0, n;

    for (; j < runs; j += n) {
        const uint64_t at = (g + j) % per;
        const uint64_t left = cpu_min(cpu_min(per - at, k_runs - g - j),
                                      runs - j);

        n = 4;
        if (per == 1 && runs - j >= 4) {
            tiles_step(1, 4, zeros, w, j, row, rows, 0, 0, in, out, ldo);
        } else if (per == 2 && runs - j >= 4) {
            tiles_step(2, 4, zeros, w, j, row, rows, 0, 0, in, out, ldo);
        } else if (left >= 4) {
            tiles_step(0, 4, zeros, w, j, row, rows, at == 0,
                       at + 4 == per || g + j + 4 == k_runs, in, out, ldo);
        } else {
            n = 1;
            tiles_step(0, 1, zeros, w, j, row, rows, at == 0,
                       at + 1 == per || g + j + 1 == k_runs, in, out, ldo);
        }
    }
}

V_FN void
tiles_rows(const unsigned kind, const struct cpu_mat *m, uint32_t panel,
           uint32_t np, const void *const *rows, uint32_t nt, float *out,
           uint32_t ldo)
{
    const struct cpu_q8 *const *x = (const struct cpu_q8 *const *) rows;
    const uint64_t n = cpu_ceil(m->k, CPU_RUN), per = m->group / CPU_RUN;
    const int      zeros = kind == CPU_INT8 && (m->has_zero || m->zero != 0);
    struct tiles_work w;
    uint64_t          g;
    uint32_t          p, t, runs;

    for (t = 0; t < nt; t++)
        memset(out + (size_t) t * ldo, 0, np * CPU_LANES * sizeof(float));
    tiles_config((uint32_t) cpu_min(nt, TILES_ROWS));
    for (g = 0; g < n; g += runs) {
        runs = (uint32_t) cpu_min(n - g, TILES_RUNS);
        tiles_gather(&w, x, nt, g, runs);
        for (p = 0; p < np; p++) {
            tiles_unpack(kind, &w, m, m->data + (panel + p) * m->panel_bytes,
                         g, runs);
            for (t = 0; t < nt; t += TILES_ROWS) {
                const uint32_t some = (uint32_t) cpu_min(nt - t, TILES_ROWS);
                float *o = out + (size_t) t * ldo + CPU_LANES * p;

                if (zeros)
                    tiles_chunk(1, &w, per, g, runs, n, t, some, w.in[p], o,
                                ldo);
                else
                    tiles_chunk(0, &w, per, g, runs, n, t, some, w.in[p], o,
                                ldo);
            }
        }
    }
    tiles_release();
}

/* static TILES_DOT(dot_int4, CPU_INT4) */
#define TILES_DOT(name, kind)                                                 \
    void name(const struct cpu_mat *m, uint32_t panel, uint32_t np,           \
              const void *const *x, uint32_t nt, float *out, uint32_t ldo)    \
    {                                                                         \
        tiles_rows(kind, m, panel, np, x, nt, out, ldo);                      \
    }
