/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack.c - planes of a file into the panels of a slot, and one row back.
 *
 * Owns the order of bytes in a slot (the kernels read what is written here).
 * Packing is exact: codes, scales and zero points keep their values.  Warm:
 * once for each load of an expert; no allocation, on all threads.
 */

#include <inttypes.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/int4.h"

struct packing {
    const struct cpu_layout *layout;
    uint8_t                 *slot;
    const struct moe_tensor *src[MOE_PARTS_MAX];
    uint32_t                 first[MOE_PARTS_MAX + 1]; /* item numbers */
};

/* ------------------------------------------------------------ universal -- */

/* src: 16 or fewer rows of k units of 2 bytes, ld bytes apart -> dst [k][16];
 * rows that are not there are 0. */
static void
weave_2(const uint8_t *src, uint64_t k, uint64_t ld, uint32_t rows,
        uint8_t *dst)
{
    uint16_t v[8];
    uint64_t c;
    uint32_t r, j;

    for (c = 0; c + 8 <= k; c += 8) {
        for (r = 0; r < CPU_LANES; r++) {
            memset(v, 0, sizeof(v));
            if (r < rows)
                memcpy(v, src + r * ld + c * 2, sizeof(v));
            for (j = 0; j < 8; j++)
                memcpy(dst + ((c + j) * CPU_LANES + r) * 2, &v[j], 2);
        }
    }
    for (; c < k; c++)
        for (r = 0; r < CPU_LANES; r++) {
            v[0] = 0;
            if (r < rows)
                memcpy(v, src + r * ld + c * 2, 2);
            memcpy(dst + (c * CPU_LANES + r) * 2, v, 2);
        }
}

static void
weave_4(const uint8_t *src, uint64_t k, uint64_t ld, uint32_t rows,
        uint8_t *dst)
{
    uint32_t v[4];
    uint64_t c;
    uint32_t r, j;

    for (c = 0; c + 4 <= k; c += 4) {
        for (r = 0; r < CPU_LANES; r++) {
            memset(v, 0, sizeof(v));
            if (r < rows)
                memcpy(v, src + r * ld + c * 4, sizeof(v));
            for (j = 0; j < 4; j++)
                memcpy(dst + ((c + j) * CPU_LANES + r) * 4, &v[j], 4);
        }
    }
    for (; c < k; c++)
        for (r = 0; r < CPU_LANES; r++) {
            v[0] = 0;
            if (r < rows)
                memcpy(v, src + r * ld + c * 4, 4);
            memcpy(dst + (c * CPU_LANES + r) * 4, v, 4);
        }
}

static void
pack_plain(const struct cpu_mat *m, const struct moe_tensor *t, uint32_t p,
           uint8_t *dst)
{
    const uint32_t size = m->kind == CPU_F32 ? 4 : 2;
    const uint64_t row0 = (uint64_t) p * CPU_LANES;
    const uint32_t rows = (uint32_t) cpu_min(CPU_LANES, m->n - row0);
    const uint8_t *src = (const uint8_t *) t->plane[MOE_PLANE_ELEM]
                         + row0 * m->k * size;

    if (size == 4)
        weave_4(src, m->k, (uint64_t) m->k * 4, rows, dst);
    else
        weave_2(src, m->k, (uint64_t) m->k * 2, rows, dst);
}

/* ------------------------------------------------------------------ FP8 -- */

/* Rows that are not there, and the column that makes k even, are 0. */
static void
pack_fp8(const struct cpu_mat *m, const struct moe_affine *a,
         const struct moe_tensor *t, uint32_t p, uint8_t *dst)
{
    const uint8_t *elem = t->plane[MOE_PLANE_ELEM];
    const uint8_t *scale = t->plane[MOE_PLANE_SCALE];
    const uint64_t row0 = (uint64_t) p * CPU_LANES;
    const uint32_t rows = (uint32_t) cpu_min(CPU_LANES, m->n - row0);
    float   *s = (float *) (void *) (dst + cpu_fp8_bytes(m->k));
    uint64_t c;
    uint32_t r;

    if (a->block_k >= m->k && a->elem_row >= m->k) {
        weave_2(elem + row0 * a->elem_row, m->k / 2, a->elem_row, rows, dst);
        c = m->k / 2 * 2;
    } else {
        c = 0;
    }
    for (; c < cpu_align(m->k, 2); c++)
        for (r = 0; r < CPU_LANES; r++)
            dst[cpu_fp8_at(c, r)]
                = (uint8_t) (r < rows && c < m->k
                                 ? cpu_affine_code(a, elem, row0 + r, c)
                                 : 0);
    for (c = 0; c < m->k; c += m->group)
        for (r = 0; r < m->scale; r++)
            *s++ = r < rows ? cpu_affine_scale(a, scale, row0 + r, c) : 0.0f;
}

/* ----------------------------------------------------------------- int4 -- */

/* Codes of row r, columns [c, c + 32), as nibbles; columns from k on are 0,
 * which the activations' own zeros make harmless. */
static void
codes_32(const struct moe_affine *a, const uint8_t *elem, uint64_t r,
         uint64_t c, uint64_t k, uint8_t out[CPU_INT4_GROUP])
{
    const uint8_t flip = a->elem == MOE_ELEM_INT ? 8 : 0;
    uint32_t      j, n = (uint32_t) cpu_min(CPU_INT4_GROUP, k - c);
    uint64_t      at = c % a->block_k;

    memset(out, 0, CPU_INT4_GROUP);
    if (at % 2 == 0 && n % 2 == 0 && at + n <= a->block_k) {
        const uint8_t *p = elem + r * a->elem_row
                           + c / a->block_k * a->elem_block + at / 2;

        for (j = 0; j < n; j += 2) {
            out[j] = (p[j / 2] & 15) ^ flip;
            out[j + 1] = (uint8_t) (p[j / 2] >> 4) ^ flip;
        }
        return;
    }
    /* words of 8 in the usual files: two nibbles a byte, blocks of bytes */
    if (a->block_k % 8 == 0 && c % 8 == 0 && n == CPU_INT4_GROUP) {
        for (j = 0; j < n; j += 2) {
            const uint64_t e = c + j;
            const uint8_t  b = elem[r * a->elem_row
                                   + e / a->block_k * a->elem_block
                                   + e % a->block_k / 2];

            out[j] = (b & 15) ^ flip;
            out[j + 1] = (uint8_t) (b >> 4) ^ flip;
        }
        return;
    }
    for (j = 0; j < n; j++)
        out[j] = (uint8_t) cpu_affine_code(a, elem, r, c + j) ^ flip;
}

static void
pack_int4(const struct cpu_mat *m, const struct moe_affine *a,
          const struct moe_tensor *t, uint32_t p, uint8_t *dst)
{
    const uint8_t *elem = t->plane[MOE_PLANE_ELEM];
    const uint8_t *scale = t->plane[MOE_PLANE_SCALE];
    const uint8_t *zero = t->plane[MOE_PLANE_ZERO];
    const uint64_t row0 = (uint64_t) p * CPU_LANES;
    const uint32_t size = m->scale == MOE_SCALE_F32 ? 4 : 2;
    uint8_t        code[CPU_INT4_GROUP];
    uint8_t       *d = dst, *end = dst + m->panel_bytes;
    uint64_t       c, c1;
    uint32_t       r, l, j;

    for (c = 0; c < m->k;) {
        for (c1 = cpu_min(c + m->group, m->k); c < c1;
             c += CPU_INT4_GROUP, d += 4 * INT4_LINE)
            for (r = 0; r < CPU_LANES; r++) {
                if (row0 + r < m->n)
                    codes_32(a, elem, row0 + r, c, c1, code);
                else
                    memset(code, 0, sizeof(code));
                for (l = 0; l < 4; l++)
                    for (j = 0; j < 4; j++)
                        d[l * INT4_LINE + 4 * r + j] = (uint8_t)
                            (code[8 * l + j] | code[8 * l + 4 + j] << 4);
            }
        c = c1;
        for (r = 0; r < CPU_LANES; r++, d += size) {
            if (row0 + r < m->n)
                memcpy(d,
                       scale + (row0 + r) / a->group_n * a->scale_row
                           + (c1 - 1) / a->group_k * a->scale_group,
                       size);
            else
                memset(d, 0, size);
        }
        if (m->has_zero) {
            uint32_t z[CPU_LANES];

            for (r = 0; r < CPU_LANES; r++)
                z[r] = row0 + r < m->n
                           ? (uint32_t) (cpu_affine_zero(a, zero, row0 + r,
                                                         c1 - 1)
                                         + a->zero_bias)
                           : 0;
            for (r = 0; r < CPU_LANES / 2; r++)
                *d++ = (uint8_t) (z[r] | z[r + 8] << 4);
        }
    }
    memset(d, 0, (size_t) (end - d));
}

/* ------------------------------------------------------------- a slot --- */

static void
pack_item(void *arg, uint32_t i, uint32_t slot)
{
    const struct packing *k = arg;
    uint32_t              part = 0, p;
    const struct cpu_mat *m;
    uint8_t              *dst;

    (void) slot;
    while (i >= k->first[part + 1])
        part++;
    p = i - k->first[part];
    m = &k->layout->part[part];
    dst = k->slot + (uintptr_t) m->data;
    if (m->kind == CPU_GENERIC) { /* p: a plane */
        uint64_t bytes[3];

        cpu_affine_bytes(&k->layout->affine[part], m->n, m->k, bytes);
        if (bytes[p] != 0)
            memcpy(dst + m->plane_off[p], k->src[part]->plane[p], bytes[p]);
        return;
    }
    dst += p * m->panel_bytes;
    switch (m->kind) {
    case CPU_F32:
    case CPU_F16:
    case CPU_BF16:
        pack_plain(m, k->src[part], p, dst);
        break;
    case CPU_INT4:
        pack_int4(m, &k->layout->affine[part], k->src[part], p, dst);
        break;
    default:
        pack_fp8(m, &k->layout->affine[part], k->src[part], p, dst);
        break;
    }
}

/* The planes are there and long enough for what will be read. */
static moe_status
check_source(const struct cpu_layout *l, uint32_t part,
             const struct moe_tensor *t, struct moe_error *err)
{
    const struct cpu_mat *m = &l->part[part];
    uint64_t              bytes[3] = { 0, 0, 0 };
    uint32_t              i;

    if (t == NULL || t->n != m->n || t->k != m->k)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "cpu: part %u must be %u x %u, got %" PRIu64
                        " x %" PRIu64,
                        part, m->n, m->k, t != NULL ? t->n : 0,
                        t != NULL ? t->k : 0);
    if (m->kind <= CPU_BF16)
        bytes[0] = (uint64_t) m->n * m->k * (m->kind == CPU_F32 ? 4 : 2);
    else
        cpu_affine_bytes(&l->affine[part], m->n, m->k, bytes);
    for (i = 0; i < 3; i++)
        if (bytes[i] != 0 && (t->plane[i] == NULL || t->len[i] < bytes[i]))
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "cpu: plane %u of part %u has %" PRIu64
                            " bytes, %" PRIu64 " are needed",
                            i, part, t->plane[i] != NULL ? t->len[i] : 0,
                            bytes[i]);
    return MOE_OK;
}

moe_status
cpu_slot_upload(moe_stream *s, moe_slab *slab, uint32_t slot,
                const struct moe_weight_src *src, struct moe_error *err)
{
    const struct cpu_layout *l;
    struct packing           k;
    uint32_t                 i, items = 0;
    moe_status               st;

    if (slab == NULL || slab->dev != s->dev || slot >= slab->n_slots)
        return moe_fail(err, MOE_E_INVAL, 0, "cpu: there is no slot %u",
                        slot);
    l = &slab->layout;
    k.layout = l;
    k.slot = slab->base + slot * l->slot_bytes;
    for (i = 0; i < l->n_parts; i++) {
        st = check_source(l, i, src->part[i], err);
        if (st != MOE_OK)
            return st;
        k.src[i] = src->part[i];
        k.first[i] = items;
        items += l->kind == CPU_GENERIC ? 3 : l->part[i].panels;
    }
    for (; i <= MOE_PARTS_MAX; i++)
        k.first[i] = items;
    cpu_run(s->dev, items, l->slot_bytes, pack_item, &k);
    return MOE_OK;
}

/* ---------------------------------------------------------- one row back -- */

static void
int4_row(const struct cpu_mat *m, uint32_t r, float *y)
{
    const uint32_t lane = r % CPU_LANES;
    const uint8_t *panel = m->data + r / CPU_LANES * m->panel_bytes;
    uint64_t       c;
    uint32_t       j;

    for (c = 0; c < m->k; c += m->group) {
        const uint64_t cols = cpu_min(m->group, m->k - c);
        const uint8_t *w = panel + int4_group_off(c / m->group, m->group,
                                                  m->scale, m->has_zero);
        const uint8_t *tail = w + int4_lines(cols) * INT4_LINE;
        const uint8_t *z = tail + int4_scale_bytes(m->scale);
        int32_t        zero = m->zero;
        float          s;
        uint16_t       h;

        if (m->scale == MOE_SCALE_F32) {
            memcpy(&s, tail + 4 * lane, 4);
        } else {
            memcpy(&h, tail + 2 * lane, 2);
            s = m->scale == MOE_SCALE_F16 ? moe_f16_widen(h)
                                          : moe_bf16_widen(h);
        }
        if (m->has_zero)
            zero = lane < 8 ? z[lane] & 15 : z[lane - 8] >> 4;
        for (j = 0; j < cols; j++) {
            const uint8_t b = w[j / 8 * INT4_LINE + lane * 4 + j % 4];
            const int32_t q = j % 8 < 4 ? b & 15 : b >> 4;

            y[c + j] = s * (float) (q - zero);
        }
    }
}

static void
fp8_row(const struct cpu_mat *m, uint32_t r, float *y)
{
    const uint32_t lane = r % CPU_LANES;
    const uint8_t *p = m->data + r / CPU_LANES * m->panel_bytes;
    const float   *s = (const float *) (const void *)
        (p + cpu_fp8_bytes(m->k));
    uint64_t c;

    for (c = 0; c < m->k; c++) {
        const uint32_t b = p[cpu_fp8_at(c, lane)];
        const float    f = s[c / m->group * m->scale
                          + (m->scale == 1 ? 0 : lane)];
        const uint32_t h = m->kind == CPU_E5M2
                               ? b << 8
                               : (b & 0x80u) << 8 | (b & 0x7fu) << 7;

        y[c] = f * (moe_f16_widen((uint16_t) h)
                    * (m->kind == CPU_E5M2 ? 1.0f : 256.0f));
    }
}

void
cpu_row(const struct cpu_mat *m, uint32_t r, float scale, float *y)
{
    const uint32_t lane = r % CPU_LANES;
    const uint8_t *p = m->data + r / CPU_LANES * m->panel_bytes;
    uint64_t       c;
    uint16_t       h;

    switch (m->kind) {
    case CPU_F32:
        for (c = 0; c < m->k; c++)
            memcpy(&y[c], p + (c * CPU_LANES + lane) * 4, 4);
        break;
    case CPU_F16:
    case CPU_BF16:
        for (c = 0; c < m->k; c++) {
            memcpy(&h, p + (c * CPU_LANES + lane) * 2, 2);
            y[c] = m->kind == CPU_F16 ? moe_f16_widen(h) : moe_bf16_widen(h);
        }
        break;
    case CPU_INT4:
        int4_row(m, r, y);
        break;
    case CPU_GENERIC:
        cpu_affine_row(m, r, y);
        break;
    default:
        fp8_row(m, r, y);
        break;
    }
    if (scale != 1.0f)
        for (c = 0; c < m->k; c++)
            y[c] *= scale;
}
