/* SPDX-License-Identifier: Apache-2.0 */
/*
 * int4_rows.h - from a call of the int4 kernel to int4_some() with a constant
 * number of rows.
 *
 * Included once by each file that has an int4_some(), which handles nt (1, 2
 * or 4) rows of x and one panel.
 */

V_FN void
int4_rows(const struct cpu_mat *m, uint32_t panel, uint32_t np,
          const void *const *rows, uint32_t nt, float *out, uint32_t ldo)
{
    const struct cpu_q8 *const *x = (const struct cpu_q8 *const *) rows;
    uint32_t                    p, t;

    for (p = 0; p < np; p++) {
        const uint8_t *w = m->data + (panel + p) * m->panel_bytes;
        float         *o = out + 16 * p;

        for (t = 0; t + 4 <= nt; t += 4)
            int4_some(4, m, w, x + t, o + (size_t) t * ldo, ldo);
        if (t + 2 <= nt) {
            int4_some(2, m, w, x + t, o + (size_t) t * ldo, ldo);
            t += 2;
        }
        if (t < nt)
            int4_some(1, m, w, x + t, o + (size_t) t * ldo, ldo);
    }
}
