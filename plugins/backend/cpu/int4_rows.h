/* SPDX-License-Identifier: Apache-2.0 */
/*
 * int4_rows.h - from a call of the int4 kernel to int4_some() with constants.
 *
 * Included once by each kernels_*.c after its int4_some(), which handles nt
 * (1, 2 or 4) rows of x and one panel.
 */

V_FN void
int4_rows(const unsigned scale, const unsigned has_zero,
          const struct cpu_mat *m, uint32_t panel, uint32_t np,
          const void *const *rows, uint32_t nt, float *out, uint32_t ldo)
{
    const struct cpu_q8 *const *x = (const struct cpu_q8 *const *) rows;
    uint32_t                    p, t;

    for (p = 0; p < np; p++) {
        const uint8_t *w = m->data + (panel + p) * m->panel_bytes;
        float         *o = out + 16 * p;

        for (t = 0; t + 4 <= nt; t += 4)
            int4_some(scale, has_zero, 4, m, w, x + t, o + (size_t) t * ldo,
                      ldo);
        if (t + 2 <= nt) {
            int4_some(scale, has_zero, 2, m, w, x + t, o + (size_t) t * ldo,
                      ldo);
            t += 2;
        }
        if (t < nt)
            int4_some(scale, has_zero, 1, m, w, x + t, o + (size_t) t * ldo,
                      ldo);
    }
}

static void
dot_int4(const struct cpu_mat *m, uint32_t panel, uint32_t np,
         const void *const *rows, uint32_t nt, float *out, uint32_t ldo)
{
#define V_INT4(scale)                                                         \
    case scale:                                                               \
        if (m->has_zero)                                                      \
            int4_rows(scale, 1, m, panel, np, rows, nt, out, ldo);            \
        else                                                                  \
            int4_rows(scale, 0, m, panel, np, rows, nt, out, ldo);            \
        break
    switch (m->scale) {
        V_INT4(MOE_SCALE_F32);
        V_INT4(MOE_SCALE_F16);
        V_INT4(MOE_SCALE_BF16);
    default:
        break;
    }
#undef V_INT4
}
